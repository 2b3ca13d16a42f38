//! The settings of who may call and by which credential they are known; how credentials are checked is not its business.

use std::path::PathBuf;

use crate::domain::caller::PeerName;
use crate::domain::secret::Secret;

/// One caller and how it proves who it is. API tokens that the gateway made are in its store.
#[derive(Clone, Debug)]
pub struct CallerConfig {
    /// Name for the audit log.
    pub name: String,
    /// Namespace of its order ids.
    pub namespace: String,
    /// Groups that rules may speak of.
    pub groups: Vec<String>,
    /// Bearer tokens; several while one is being rotated.
    pub tokens: Vec<Secret>,
    /// Names in client certificates.
    pub certificates: Vec<PeerName>,
    /// Subjects of JWTs.
    pub subjects: Vec<Subject>,
}

/// The subject of JWTs of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// The `sub` claim.
    pub subject: String,
}

/// One issuer of JWTs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// Its name in the configuration.
    pub name: String,
    /// Its `iss` claim.
    pub issuer: String,
    /// Values of the `aud` claim that mean this gateway; never empty.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub keys: KeySource,
    /// Signature algorithms that it may use; never empty.
    pub algorithms: Vec<Algorithm>,
}

/// Where an issuer's keys are, as a JSON Web Key Set (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At a URL of `https`, or of `http` on the loopback address.
    Url(String),
}

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037). Those of shared secrets and `none` are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the RFC")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// The algorithm of this name in a token's header.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// The name in a token's header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }
}
