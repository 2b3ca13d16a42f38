//! Who is calling and by which credential, once that is known; how it is found out is `identity`'s business.

use std::fmt;

use crate::domain::clock::UnixMillis;

/// Name and namespace of whoever calls a gateway without callers.
const LOOPBACK: &str = "loopback";

/// An identified caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name from the configuration, for the audit log.
    pub name: String,
    /// Namespace of its order ids: only callers that share it can meet each other's operations.
    pub namespace: String,
    /// Groups that rules may speak of.
    pub groups: Vec<String>,
    /// What proved its name: the bearer credential where it sent one, else its client certificate.
    pub credential: Credential,
    /// The client certificate of a caller that sent a bearer credential too; both are the same caller's.
    pub certificate: Option<Credential>,
}

/// What proves a caller's name. It holds no secret, so it may be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// None is needed: a gateway without callers listens on the loopback address alone.
    Loopback,
    /// None is needed: the gateway itself, or nobody who is known.
    Own,
    /// A bearer token: `tok_...` for one that the gateway made, `NAME#n` for the n-th one of the configuration.
    Token {
        /// Its name.
        id: String,
    },
    /// A client certificate.
    Certificate {
        /// The name in it that is the caller's.
        san: PeerName,
        /// When it ends, in seconds since the Unix epoch.
        not_after_s: i64,
    },
    /// A JSON Web Token (RFC 7519).
    Jwt {
        /// Its `iss`.
        issuer: String,
        /// Its `sub`.
        subject: String,
        /// Which of its `aud` was the gateway's.
        audience: String,
        /// Fingerprint of the key that verified it.
        key: String,
        /// From when on it proves nothing, in seconds since the Unix epoch: its `exp` and what clocks may differ.
        expires_s: i64,
    },
}

impl Caller {
    /// The one caller of a gateway without callers: whoever reaches it may do everything already.
    #[must_use]
    pub fn loopback() -> Self {
        Self { credential: Credential::Loopback, ..Self::own(LOOPBACK, LOOPBACK) }
    }

    /// The gateway itself, for what it does of its own accord; and nobody, by empty names.
    #[must_use]
    pub fn own(name: &str, namespace: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            groups: Vec::new(),
            credential: Credential::Own,
            certificate: None,
        }
    }

    /// When the first of its credentials ends by itself, as far as that stands in the credential.
    #[must_use]
    pub fn expires_ms(&self) -> Option<UnixMillis> {
        let all = [Some(&self.credential), self.certificate.as_ref()];
        all.into_iter().flatten().filter_map(Credential::expires_ms).min()
    }
}

impl Credential {
    /// The kind in one word, for counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Own => "own",
            Self::Token { .. } => "token",
            Self::Certificate { .. } => "certificate",
            Self::Jwt { .. } => "jwt",
        }
    }

    /// The credential for an audit record, such as `token tok_...` or `certificate spiffe://...`; `None` where none was
    /// needed.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        match self {
            Self::Loopback | Self::Own => None,
            Self::Token { id } => Some(format!("token {id}")),
            Self::Certificate { san, .. } => Some(format!("certificate {san}")),
            Self::Jwt { issuer, subject, .. } => Some(format!("jwt {issuer} {subject}")),
        }
    }

    fn expires_ms(&self) -> Option<UnixMillis> {
        match self {
            Self::Certificate { not_after_s, .. } => Some(not_after_s.saturating_mul(1_000)),
            Self::Jwt { expires_s, .. } => Some(expires_s.saturating_mul(1_000)),
            Self::Loopback | Self::Own | Self::Token { .. } => None,
        }
    }
}

/// One name in a client certificate (RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerName {
    /// A SPIFFE id, `spiffe://trust-domain/path`.
    Spiffe(String),
    /// A DNS name, in lower case.
    Dns(String),
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe(id) => f.write_str(id),
            Self::Dns(name) => write!(f, "dns:{name}"),
        }
    }
}

/// What a client certificate says about its holder, read once the TLS handshake has proved that it is theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames {
    /// The names; none where the certificate names nobody, which no token beside it makes good.
    pub sans: Vec<PeerName>,
    /// When the certificate ends, in seconds since the Unix epoch.
    pub not_after_s: i64,
}
