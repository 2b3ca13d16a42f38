//! Which API keys the gateway works with. It never shows one.

use bytes::Bytes;
use http::HeaderValue;
use secrecy::ExposeSecret as _;

use crate::domain::limits::STRIPE_KEY_CHARS_MAX;
use crate::domain::operation::Mode;
use crate::domain::secret::Secret;

/// What an organisation's key begins with, whatever it may do.
const ORGANISATION: &str = "sk_org_";

/// A usable API key (docs.stripe.com/keys).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// As it stands in the header, so that there is no other copy.
    authorization: Secret,
    mode: Option<Mode>,
}

/// Why a key is not used. No variant holds any part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing was given.
    #[error("the Stripe key is empty")]
    Empty,
    /// Blanks, line ends, other scripts, or too long.
    #[error(
        "the Stripe key must be at most {STRIPE_KEY_CHARS_MAX} letters, digits and underscores, without blanks or quotes"
    )]
    Malformed,
    /// Publishable keys can do nothing that the gateway does.
    #[error("this is a publishable key (`pk_`); a secret (`sk_`) or restricted key (`rk_`) is needed")]
    Publishable,
    /// Anything else.
    #[error("the Stripe key must begin with `sk_` or `rk_`, then `test_` or `live_`, or with `sk_org_`")]
    Unknown,
}

impl Key {
    /// Takes a secret or restricted key of either mode, or an organisation's.
    ///
    /// # Errors
    /// For every other text.
    pub fn parse(secret: Secret) -> Result<Self, KeyError> {
        let text = secret.expose_secret();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        let written_well = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !written_well || text.len() > STRIPE_KEY_CHARS_MAX {
            return Err(KeyError::Malformed);
        }
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        let mode = match () {
            () if begins(&["pk_"]) => return Err(KeyError::Publishable),
            () if begins(&["sk_live_", "rk_live_", "sk_org_live_"]) => Some(Mode::Live),
            () if begins(&["sk_test_", "rk_test_", "sk_org_test_"]) => Some(Mode::Test),
            () if begins(&[ORGANISATION]) => None,
            () => return Err(KeyError::Unknown),
        };
        Ok(Self { authorization: format!("Bearer {text}").into(), mode })
    }

    /// Test or live, if the prefix says so; objects of the other mode do not exist for this key.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// Whether it may be one that may do some things only: an organisation's key looks the same either way.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.begins("rk_") || self.is_organisation()
    }

    /// Whether it is an organisation's, which acts on the account that `Stripe-Context` names and on none without
    /// (docs.stripe.com/keys/organization-api-keys).
    #[must_use]
    pub fn is_organisation(&self) -> bool {
        self.begins(ORGANISATION)
    }

    fn begins(&self, prefix: &str) -> bool {
        self.authorization.expose_secret().strip_prefix("Bearer ").is_some_and(|key| key.starts_with(prefix))
    }

    /// The value of the one header that carries it. The bytes are those of the key itself: every request shares the one
    /// copy in locked memory until it is written to a connection.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let shared = Bytes::from_owner(Shared(self.authorization.clone()));
        let mut value = HeaderValue::from_maybe_shared(shared).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The key itself.
    #[cfg(test)]
    pub(super) fn expose(&self) -> &str {
        self.authorization.expose_secret().trim_start_matches("Bearer ")
    }
}

/// Lends a secret's memory to a header.
struct Shared(Secret);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.expose_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_secret_and_restricted_keys_are_taken() {
        let parse = |text: &str| Key::parse(text.into()).map(|key| key.mode());
        for (prefix, mode) in [
            ("sk_test_", Some(Mode::Test)),
            ("rk_test_", Some(Mode::Test)),
            ("sk_live_", Some(Mode::Live)),
            ("rk_live_", Some(Mode::Live)),
            ("sk_org_test_", Some(Mode::Test)),
            ("sk_org_live_", Some(Mode::Live)),
            ("sk_org_", None),
        ] {
            assert_eq!(parse(&format!("{prefix}51AbC")), Ok(mode), "{prefix}");
        }
        assert_eq!(parse("pk_test_51AbC"), Err(KeyError::Publishable));
        assert_eq!(parse("whsec_51AbC"), Err(KeyError::Unknown));
        assert_eq!(parse(""), Err(KeyError::Empty));
        let overlong = format!("sk_test_{}", "a".repeat(STRIPE_KEY_CHARS_MAX));
        for bad in ["sk_test_a b", "sk_test_a\n", "\"sk_test_a\"", "sk_test_é", &overlong] {
            assert_eq!(parse(bad), Err(KeyError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let key = Key::parse("sk_test_visible".into()).unwrap();
        assert!(!format!("{key:?} {:?}", key.authorization()).contains("visible"));
    }

    #[test]
    fn a_header_is_no_copy_of_the_key() {
        let key = Key::parse("sk_test_once".into()).unwrap();
        let header = key.authorization().unwrap();
        assert_eq!(header.as_bytes(), b"Bearer sk_test_once");
        assert_eq!(header.as_bytes().as_ptr(), key.authorization.expose_bytes().as_ptr());
    }
}
