//! Why a call is nobody's: one word for each way to fail, none of which tells a secret.

/// Why no caller could be identified. Whatever is said here follows from what was sent and from public settings alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum Stranger {
    /// No credential.
    Missing,
    /// Neither a token of ours nor a JWT, or one that is broken.
    Malformed,
    /// A bearer token that nobody has.
    UnknownToken,
    /// The credential's time is over.
    Expired,
    /// The credential's time has not begun.
    NotYetValid,
    /// The token was revoked.
    Revoked,
    /// The JWT's signature is not its key's.
    BadSignature,
    /// The JWT is not for this gateway.
    WrongAudience,
    /// The JWT is of an issuer that is not configured.
    WrongIssuer,
    /// The JWT's algorithm is not one that the issuer may use with that key.
    WrongAlgorithm,
    /// The issuer does not publish the JWT's key.
    UnknownKey,
    /// The JWT's subject is nobody's.
    UnknownSubject,
    /// The client certificate was refused before anything could be called.
    RefusedCertificate,
    /// None of the client certificate's names is anybody's.
    UnknownCertificate,
    /// The token's caller is not configured any more.
    UnknownCaller,
    /// Two credentials, or two names of one, are of different callers.
    Ambiguous,
}

impl Stranger {
    /// The word for counters, audit records and the caller.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::UnknownToken => "unknown_token",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::BadSignature => "bad_signature",
            Self::WrongAudience => "wrong_audience",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::UnknownSubject => "unknown_subject",
            Self::RefusedCertificate => "refused_certificate",
            Self::UnknownCertificate => "unknown_certificate",
            Self::UnknownCaller => "unknown_caller",
            Self::Ambiguous => "ambiguous",
        }
    }
}
