//! The accounts of one sandbox, each with a state of its own, and which of them a request is for. It must not look into
//! their state.
//! Source: <https://docs.stripe.com/connect/authentication>.

use std::sync::Arc;

use super::error::Error as Refusal;
use super::pipeline::Asked;
use super::{Error, Options, Shared, webhook_endpoints};

/// An account beside the first.
#[derive(Clone, PartialEq, Eq)]
pub struct Further {
    /// Its id, `acct_...`.
    pub account_id: String,
    /// Its own key; without one it is connected to the first account, whose key acts on it under `Stripe-Account`.
    pub secret_key: Option<String>,
}

impl std::fmt::Debug for Further {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Further").field("account_id", &self.account_id).finish_non_exhaustive()
    }
}

impl Further {
    /// Reads `ACCOUNT=KEY`, or `ACCOUNT` for a connected one.
    ///
    /// # Errors
    /// When the account is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (id, key) = text.split_once('=').map_or((text, None), |(id, key)| (id, Some(key.to_owned())));
        if !id.starts_with("acct_") || key.as_ref().is_some_and(String::is_empty) {
            return Err("a further account is written `acct_...=KEY`, or `acct_...` if connected".to_owned());
        }
        Ok(Self { account_id: id.to_owned(), secret_key: key })
    }
}

/// All accounts; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    own: Arc<Shared>,
    further: Arc<[Arc<Shared>]>,
}

impl Accounts {
    /// Opens each with its kept state: its file lies beside the first one's and bears its id.
    pub(super) async fn open(options: Options) -> Result<Self, Error> {
        let mut further = Vec::new();
        for (one, seed) in options.accounts.iter().zip(options.seed.wrapping_add(1)..) {
            let options = Options {
                secret_key: one.secret_key.clone().unwrap_or_else(|| options.secret_key.clone()),
                account_id: one.account_id.clone(),
                state_file: options.state_file.as_ref().map(|file| file.with_extension(&one.account_id)),
                webhooks: Vec::new(),
                thin_webhooks: Vec::new(),
                restricted_keys: Vec::new(),
                accounts: Vec::new(),
                seed,
                ..options.clone()
            };
            further.push(Shared::open(options, one.secret_key.is_none()).await?);
        }
        let own = Shared::open(options, false).await?;
        webhook_endpoints::publish(&own.state());
        let platform = Arc::clone(&own.state().platform);
        for one in further.iter().filter(|one| one.connected) {
            one.state().platform = Arc::clone(&platform);
        }
        Ok(Self { own, further: further.into() })
    }

    /// The first account.
    pub(super) fn own(&self) -> &Arc<Shared> {
        &self.own
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Shared>> {
        std::iter::once(&self.own).chain(self.further.iter())
    }

    /// The account with this id.
    pub(super) fn of(&self, account_id: &str) -> Option<&Arc<Shared>> {
        self.all().find(|shared| shared.options.account_id == account_id)
    }

    /// The account that a request is for: the one that it names, if its key may act on it, or else that of its key. A
    /// key of none is for the first account to refuse.
    pub(super) fn asked(&self, asked: &Asked) -> Result<&Arc<Shared>, Refusal> {
        let key = asked.header("authorization").and_then(|header| header.strip_prefix("Bearer "));
        let keyed =
            |shared: &&Arc<Shared>| !shared.connected && Some(shared.options.secret_key.as_str()) == key;
        let of_key = self.all().find(keyed).unwrap_or(&self.own);
        let is_organisations = self.own.options.is_organisations(key.unwrap_or_default());
        let context = asked.header("stripe-context").and_then(|path| path.rsplit('/').next());
        let Some(named) = asked.header("stripe-account").or(context) else { return Ok(of_key) };
        let reached = self.of(named).filter(|shared| {
            let is_connected = shared.connected && Arc::ptr_eq(of_key, &self.own);
            is_organisations || is_connected || Arc::ptr_eq(shared, of_key)
        });
        reached.ok_or_else(|| {
            let message = format!(
                "The provided key does not have access to account '{named}' (or that account does not exist)."
            );
            Refusal::new(403, "invalid_request_error", message).code("account_invalid")
        })
    }
}
