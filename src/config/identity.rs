//! The settings of who may call and by which credential they are known; how credentials are checked is not its business.

use std::collections::BTreeSet;
use std::path::PathBuf;

use secrecy::ExposeSecret as _;

use super::Config;
use crate::domain::caller::PeerName;
use crate::domain::secret::Secret;

/// Who may call by one reading, which can be sound where other settings are not. Somebody is always on it.
#[derive(Clone, Debug)]
pub struct Roll {
    /// The callers; never empty.
    pub callers: Vec<CallerConfig>,
    /// The issuers that their subjects speak of.
    pub issuers: Vec<IssuerConfig>,
}

impl Roll {
    /// `None` for nobody: that is more likely a mistake than meant.
    #[must_use]
    pub fn new(callers: Vec<CallerConfig>, issuers: Vec<IssuerConfig>) -> Option<Self> {
        (!callers.is_empty()).then_some(Self { callers, issuers })
    }

    /// The roll of sound settings.
    #[must_use]
    pub fn of(config: &Config) -> Option<Self> {
        Self::new(config.callers.clone(), config.issuers.clone())
    }

    /// The callers of `earlier` settings who are gone, or have lost a credential.
    #[must_use]
    pub fn lost_since(&self, earlier: &Config) -> Vec<String> {
        let has_all_of = |caller: &CallerConfig| {
            self.callers.iter().any(|own| own.name == caller.name && own.has_credentials_of(caller))
        };
        let lost = earlier.callers.iter().filter(|caller| !has_all_of(caller));
        lost.map(|caller| caller.name.clone()).collect()
    }

    /// The callers of `earlier` settings who stay, but in another namespace or other groups.
    #[must_use]
    pub fn moved_since(&self, earlier: &Config) -> Vec<String> {
        let groups = |caller: &CallerConfig| caller.groups.iter().cloned().collect::<BTreeSet<_>>();
        let is_moved = |caller: &&CallerConfig| {
            let own = self.callers.iter().find(|own| own.name == caller.name);
            own.is_some_and(|own| own.namespace != caller.namespace || groups(own) != groups(caller))
        };
        earlier.callers.iter().filter(is_moved).map(|caller| caller.name.clone()).collect()
    }
}

/// One caller and how it proves who it is. API tokens that the gateway made are in its store.
#[derive(Clone, Debug)]
pub struct CallerConfig {
    /// Name for the audit log.
    pub name: String,
    /// Namespace of its order ids.
    pub namespace: String,
    /// Groups that rules may speak of.
    pub groups: Vec<String>,
    /// Its part of the requests to Stripe beside others, when all want more than there is.
    pub weight: u32,
    /// Bearer tokens; several while one is being rotated.
    pub tokens: Vec<Secret>,
    /// Names in client certificates.
    pub certificates: Vec<PeerName>,
    /// Subjects of JWTs.
    pub subjects: Vec<Subject>,
}

impl CallerConfig {
    fn has_credentials_of(&self, other: &Self) -> bool {
        let has = |token: &Secret| self.tokens.iter().any(|own| own.expose_secret() == token.expose_secret());
        other.tokens.iter().all(has)
            && other.certificates.iter().all(|name| self.certificates.contains(name))
            && other.subjects.iter().all(|subject| self.subjects.contains(subject))
    }
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
