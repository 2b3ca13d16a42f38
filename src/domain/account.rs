//! How a Stripe account is named to Stripe. It knows no keys.

use serde::{Deserialize, Serialize};

/// The header that names the account to act on (docs.stripe.com/connect/authentication). Stripe may refuse both at
/// once, so there is room for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountHeader {
    /// The key's own account.
    #[default]
    None,
    /// `Stripe-Account: acct_...`.
    StripeAccount(String),
    /// `Stripe-Context`: account ids separated by slashes, from the key's owner down (docs.stripe.com/context).
    StripeContext(String),
}

impl AccountHeader {
    /// The account that it names; `None` for the key's own.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::StripeAccount(id) => Some(id),
            Self::StripeContext(path) => path.rsplit('/').next(),
        }
    }

    /// How an account is named that is connected to this one.
    #[must_use]
    pub fn connected(&self, id: &str) -> Self {
        match self {
            // A key that needs the one header would be refused with the other.
            Self::StripeContext(path) => Self::StripeContext(format!("{path}/{id}")),
            Self::None | Self::StripeAccount(_) => Self::StripeAccount(id.to_owned()),
        }
    }
}
