//! Which API keys the gateway works with. It never shows one.

use secrecy::{ExposeSecret, SecretString};

use crate::domain::limits::STRIPE_KEY_CHARS_MAX;
use crate::domain::operation::Mode;

/// A usable API key (docs.stripe.com/keys).
#[derive(Clone, Debug)]
pub struct Key {
    secret: SecretString,
    mode: Mode,
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
    #[error(
        "this is a publishable key (`pk_`); a secret (`sk_test_`) or restricted key (`rk_test_`) is needed"
    )]
    Publishable,
    /// Real money.
    #[error("live keys are not accepted yet; use a test key (`sk_test_` or `rk_test_`)")]
    Live,
    /// Anything else.
    #[error("the Stripe key must begin with `sk_test_` or `rk_test_`")]
    Unknown,
}

impl Key {
    /// Takes a secret or restricted key of test mode.
    ///
    /// # Errors
    /// For every other text; live keys wait until callers can be told apart.
    pub fn parse(secret: SecretString) -> Result<Self, KeyError> {
        let text = secret.expose_secret();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        let written_well = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !written_well || text.len() > STRIPE_KEY_CHARS_MAX {
            return Err(KeyError::Malformed);
        }
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        match () {
            () if begins(&["pk_"]) => Err(KeyError::Publishable),
            () if begins(&["sk_live_", "rk_live_"]) => Err(KeyError::Live),
            () if begins(&["sk_test_", "rk_test_"]) => Ok(Self { secret, mode: Mode::Test }),
            () => Err(KeyError::Unknown),
        }
    }

    /// Test or live, as the prefix says; objects of the other mode do not exist for this key.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it is a restricted key, which may do some things only.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.secret.expose_secret().starts_with("rk_")
    }

    /// The key itself, for the one header that carries it.
    pub(super) fn expose(&self) -> &str {
        self.secret.expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_secret_and_restricted_test_keys_are_taken() {
        let parse = |text: &str| Key::parse(text.into()).map(|key| key.mode());
        assert_eq!(parse("sk_test_51AbC"), Ok(Mode::Test));
        assert_eq!(parse("rk_test_51AbC"), Ok(Mode::Test));
        assert_eq!(parse("sk_live_51AbC"), Err(KeyError::Live));
        assert_eq!(parse("rk_live_51AbC"), Err(KeyError::Live));
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
        assert!(!format!("{key:?}").contains("visible"));
    }
}
