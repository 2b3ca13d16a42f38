//! Opens the Stripe accounts of the configuration: a client for each, whose account Stripe names and the store has
//! pinned, and their webhook endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Error, PINNED_ACCOUNT};
use crate::config::Config;
use crate::domain::account::AccountHeader;
use crate::domain::clock::{Clock, UnixMillis};
use crate::domain::limits::CLOCK_DIFFERENCE_MS_MAX;
use crate::domain::operation::{DEFAULT_ALIAS, Mode};
use crate::domain::secret::Secret;
use crate::gateway::{Account, Accounts};
use crate::store::Store;
use crate::stripe::{self, AccountError, Client, Key, OwnAccount};
use crate::telemetry::metrics::Metrics;
use crate::webhook::{Endpoint, Endpoints};

/// How long Stripe may take to name an account.
pub(super) const ACCOUNT_WAIT: Duration = Duration::from_secs(10);

/// One account as configured.
struct Configured<'a> {
    alias: &'a str,
    mode: Mode,
    keys: &'a [Secret],
    webhook_secrets: &'a [Secret],
    header: &'a AccountHeader,
}

/// All accounts as configured, the default first.
fn configured(config: &Config) -> impl Iterator<Item = Configured<'_>> {
    let default = Configured {
        alias: DEFAULT_ALIAS,
        mode: config.mode,
        keys: &config.stripe.keys,
        webhook_secrets: &config.webhook.secrets,
        header: &AccountHeader::None,
    };
    let others = config.accounts.iter().map(|account| Configured {
        alias: &account.alias,
        mode: account.mode,
        keys: &account.keys,
        webhook_secrets: &account.webhook_secrets,
        header: &account.header,
    });
    std::iter::once(default).chain(others)
}

/// The accounts, each known to be what it is taken for; with them comes whether the wall clock is right.
pub(super) async fn open(
    config: &Config,
    store: &Store,
    clock: &dyn Clock,
    metrics: &Metrics,
) -> Result<(Accounts, bool), Error> {
    let (mut opened, mut clock_is_right) = (Vec::<Account>::new(), true);
    for one in configured(config) {
        let (account, date_s) = account(&one, client(config, &one, metrics)?, store).await?;
        clock_is_right &= is_right(clock.wall(), date_s);
        let is_same = |other: &&Account| (&other.id, other.mode) == (&account.id, account.mode);
        if let Some(other) = opened.iter().find(is_same) {
            let (alias, other, id) = (account.alias, other.alias.clone(), account.id);
            return Err(Error::SameAccount { alias, other, id });
        }
        tracing::info!(alias = account.alias, account = account.id, mode = account.mode.as_str(), "account");
        opened.push(account);
    }
    let mut opened = opened.into_iter();
    let default = opened.next().ok_or(stripe::SetupError::Keys)?;
    Ok((Accounts::new(default, opened), clock_is_right))
}

fn client(config: &Config, one: &Configured<'_>, metrics: &Metrics) -> Result<Client, Error> {
    let options = stripe::Options {
        api_base: config.stripe.api_base.clone(),
        files_base: config.stripe.files_base.clone(),
        attempt_timeout: config.stripe.attempt_timeout,
        connect_timeout: config.stripe.connect_timeout,
        metrics: Some(metrics.clone()),
        keys: parsed(one.keys)?,
        extra_roots_pem: None,
    };
    let client = Client::new(&options)?;
    if client.mode() == one.mode { Ok(client) } else { Err(stripe::SetupError::Keys.into()) }
}

/// The keys of an alias as configured, the one to use first; `None` when the alias is not configured any more.
pub(super) fn keys(config: &Config, alias: &str) -> Result<Option<Vec<Key>>, stripe::KeyError> {
    configured(config).find(|one| one.alias == alias).map(|one| parsed(one.keys)).transpose()
}

fn parsed(keys: &[Secret]) -> Result<Vec<Key>, stripe::KeyError> {
    keys.iter().cloned().map(Key::parse).collect()
}

/// The webhook endpoints of the accounts as configured; an account that does not run yet has none.
pub(super) fn endpoints(config: &Config, accounts: &Accounts) -> Endpoints {
    let connected = |account: &Account| account.header.account().map(str::to_owned);
    // No secret speaks for another account that is configured.
    let elsewhere = |own: &Account| -> BTreeSet<String> {
        let others = accounts.all().filter(|other| other.mode == own.mode && other.id != own.id);
        others.map(|other| other.id.clone()).collect()
    };
    let endpoint = |one: Configured<'_>| {
        let account = accounts.resolve(one.alias)?;
        let endpoint = Endpoint {
            secrets: one.webhook_secrets.to_vec(),
            livemode: account.mode == Mode::Live,
            connected_account: connected(account),
            elsewhere: elsewhere(account),
        };
        Some((account.log_alias().to_owned(), endpoint))
    };
    Arc::new(configured(config).filter_map(endpoint).collect::<BTreeMap<_, _>>())
}

/// The account behind a client: asked of Stripe, and pinned in the store, since it is part of every operation's name. With
/// it comes the time by Stripe's clock.
async fn account(
    one: &Configured<'_>,
    stripe: Client,
    store: &Store,
) -> Result<(Account, Option<i64>), Error> {
    let alias = one.alias.to_owned();
    let place = pinned_at(&alias);
    let (stripe, found) = asked(one, stripe).await?;
    let date_s = found.as_ref().ok().and_then(|found| found.date_s);
    let pinned = store.setting(&place).await?.map(|id| String::from_utf8_lossy(&id).into_owned());
    let wanted = one.header.account().map(str::to_owned).or_else(|| pinned.clone());
    let id = match (found.map(|found| found.id), wanted) {
        (Ok(found), Some(wanted)) if found != wanted => {
            return Err(Error::OtherAccount { alias, found, wanted });
        }
        (Ok(id), _) => id,
        (Err(error @ AccountError::NoAnswer(_)), Some(wanted)) if pinned.is_some() => {
            tracing::warn!(%error, alias, account = wanted, "Stripe did not name the account; the pinned one is used");
            wanted
        }
        (Err(source), _) => return Err(Error::Account { alias, source }),
    };
    match pinned {
        None => {
            store.keep_setting(&place, id.clone().into_bytes()).await?;
        }
        Some(pinned) if pinned != id => {
            return Err(Error::OtherAccount { alias, found: id, wanted: pinned });
        }
        Some(_) => {}
    }
    Ok((Account { alias, id, mode: one.mode, header: one.header.clone(), stripe }, date_s))
}

/// Asks each key for its account: what they say, and the client with those that said it. A key that says nothing is left
/// out, since a refusal of another one would bring it into use; only where none says anything, the first stays, for the
/// account that is pinned.
async fn asked(
    one: &Configured<'_>,
    stripe: Client,
) -> Result<(Client, Result<OwnAccount, AccountError>), Error> {
    let deadline = Instant::now() + ACCOUNT_WAIT;
    let (mut own, mut silence, mut taken) = (None::<OwnAccount>, None, Vec::new());
    for (key, alone) in parsed(one.keys)?.into_iter().zip(stripe.one_by_one()) {
        match alone.own_account(one.header, Some(deadline)).await {
            Ok(found) => {
                let wanted = own.get_or_insert_with(|| found.clone()).id.clone();
                if found.id != wanted {
                    return Err(Error::OtherAccount { alias: one.alias.to_owned(), found: found.id, wanted });
                }
                taken.push(key);
            }
            Err(error) => {
                tracing::warn!(%error, alias = one.alias, "a key did not tell its account");
                silence.get_or_insert((key, error));
            }
        }
    }
    match (own, silence) {
        (Some(own), _) => Ok((stripe.with_keys(&taken)?, Ok(own))),
        (None, Some((first, error))) => Ok((stripe.with_keys(&[first])?, Err(error))),
        (None, None) => Err(stripe::SetupError::Keys.into()),
    }
}

/// Under which name the id of an account is pinned in the store.
#[must_use]
pub fn pinned_at(alias: &str) -> String {
    if alias == DEFAULT_ALIAS { PINNED_ACCOUNT.into() } else { format!("{PINNED_ACCOUNT}.{alias}") }
}

/// Whether the wall clock agrees with Stripe's, as far as Stripe told.
fn is_right(wall_ms: UnixMillis, stripe_s: Option<i64>) -> bool {
    let Some(stripe_ms) = stripe_s.map(|seconds| seconds.saturating_mul(1_000)) else { return true };
    let is_right = wall_ms.abs_diff(stripe_ms) <= CLOCK_DIFFERENCE_MS_MAX;
    if !is_right {
        tracing::error!(wall_ms, stripe_ms, "the machine's clock disagrees with Stripe's; set it right");
    }
    is_right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_wrong_when_stripe_says_so() {
        assert!(is_right(1_060_000, Some(1_000)) && is_right(940_000, Some(1_000)));
        assert!(!is_right(1_060_001, Some(1_000)) && !is_right(939_999, Some(1_000)));
        assert!(is_right(0, None) && !is_right(0, Some(i64::MAX)));
    }
}
