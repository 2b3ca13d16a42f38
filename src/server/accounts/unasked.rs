//! Asks again whose a key is that was taken for its account's without its word, since Stripe was silent at the start. It
//! opens no account and takes no key into use.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ACCOUNT_WAIT;
use crate::domain::drain::Drain;
use crate::gateway::Account;
use crate::ops::Readiness;
use crate::stripe::{AccountError, Key, OwnAccount};

/// How long the key waits before it is asked again; each further pause is twice as long, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: how long Stripe may be back before anybody knows whose the key is.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A key in use that has not told whose it is. Until it does, the pinned account is believed.
#[derive(Debug)]
pub(in crate::server) struct Unasked {
    pub(super) account: Arc<Account>,
    pub(super) key: Key,
}

impl Unasked {
    /// Asks until the key tells, is not in use any more, or the gateway ends. A key of another account is not used from
    /// then on: without a key nothing is sent.
    pub(in crate::server) async fn ask(self, readiness: Readiness, drain: Drain) {
        let (alias, stripe) = (self.account.alias.as_str(), &self.account.stripe);
        let about = concern_of(alias);
        let mut pause = PAUSE;
        while stripe.holds(&self.key) {
            let doubt = format!(
                "Stripe has not told yet whose the key of {alias} is; the pinned account is believed"
            );
            readiness.set_concern(&about, Some(doubt));
            let found = tokio::select! {
                found = async { sleep(pause).await; self.told().await } => found,
                () = drain.begun() => return,
            };
            pause = PAUSE_MAX.min(pause * 2);
            match found {
                Ok(found) if found.id == self.account.id => {
                    tracing::info!(alias, account = found.id, "Stripe has told whose the key is");
                    break;
                }
                Ok(found) => {
                    let (found, pinned) = (found.id, self.account.id.as_str());
                    tracing::error!(
                        alias,
                        found,
                        pinned,
                        "the key belongs to another account; it is not used any more"
                    );
                    stripe.give_up(&self.key);
                    let wrong =
                        format!("the key of {alias} belongs to another account; nothing is sent under it");
                    readiness.set_concern(&about, Some(wrong));
                    return;
                }
                Err(error @ AccountError::OtherMode(_)) => {
                    tracing::error!(%error, alias, "the key is not used any more");
                    stripe.give_up(&self.key);
                    let wrong = format!("the key of {alias} is of another mode; nothing is sent under it");
                    readiness.set_concern(&about, Some(wrong));
                    return;
                }
                Err(error) => tracing::warn!(%error, alias, "the key has not told its account yet"),
            }
        }
        readiness.set_concern(&about, None);
    }

    async fn told(&self) -> Result<OwnAccount, AccountError> {
        let alone = self.account.stripe.with_keys(std::slice::from_ref(&self.key));
        let alone = alone.map_err(|_| AccountError::KeyRefused)?;
        alone.own_account(&self.account.header, Instant::now() + ACCOUNT_WAIT).await
    }
}

/// Under which name it is said what is to be looked after about the keys of an account.
pub(in crate::server) fn concern_of(alias: &str) -> String {
    format!("keys of {alias}")
}
