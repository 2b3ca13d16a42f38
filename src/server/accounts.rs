//! Opens the Stripe accounts of the configuration: a client for each, whose account Stripe names and the store has
//! pinned, and their webhook endpoints.

mod unasked;
mod whose;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

pub(super) use unasked::{Unasked, concern_of};
pub(super) use whose::{Question, whose};

use super::{Error, PINNED_ACCOUNT};
use crate::config::Config;
use crate::domain::account::AccountHeader;
use crate::domain::clock::{Clock, UnixMillis};
use crate::domain::limits::CLOCK_DIFFERENCE_MS_MAX;
use crate::domain::operation::{DEFAULT_ALIAS, Mode};
use crate::domain::secret::Secret;
use crate::gateway::{Account, Accounts};
use crate::store::Store;
use crate::stripe::traffic::{self, Standing, Traffic};
use crate::stripe::{self, AccountError, Client, Key, OwnAccount};
use crate::telemetry::metrics::{AccountTraffic, Metrics};
use crate::webhook::{Endpoint, Endpoints};

/// How long Stripe may take to name accounts, however many are asked for at once.
const ACCOUNT_WAIT: Duration = Duration::from_secs(10);

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

/// What [`open`] finds.
pub(super) struct Opened {
    /// Each known to be what it is taken for, but for those whose key is unasked.
    pub(super) accounts: Accounts,
    /// Whether the wall clock is right, as far as Stripe told.
    pub(super) clock_is_right: bool,
    /// Keys that have not told whose they are.
    pub(super) unasked: Vec<Unasked>,
}

/// The accounts as configured.
pub(super) async fn open(
    config: &Config,
    store: &Store,
    clock: &dyn Clock,
    metrics: &Metrics,
) -> Result<Opened, Error> {
    let (mut opened, mut clock_is_right, mut silent) = (Vec::<Account>::new(), true, Vec::new());
    let clients = configured(config).zip(ways(config)).map(|(one, traffic)| {
        let client = client(config, &one, traffic, metrics)?;
        Ok((one, client))
    });
    let clients = clients.collect::<Result<Vec<_>, Error>>()?;
    let questions = clients.iter().flat_map(|(one, client)| {
        let alone = client.one_by_one().into_iter();
        alone.map(|client| Question { client, header: one.header.clone() })
    });
    let mut told = whose(questions.collect()).await.into_iter();
    for (one, client) in clients {
        let (account, told) = account(&one, client, &mut told, store).await?;
        match told {
            Told::At(date_s) => clock_is_right &= is_right(clock.wall(), date_s),
            Told::Nothing(key) => silent.push((one.alias, key)),
        }
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
    let accounts = Accounts::new(default, opened);
    let unasked = silent
        .into_iter()
        .filter_map(|(alias, key)| Some(Unasked { account: Arc::clone(accounts.resolve(alias)?), key }));
    Ok(Opened { unasked: unasked.collect(), accounts, clock_is_right })
}

/// The way to each account as configured. Accounts of one key share one, since Stripe counts all its requests together.
fn ways(config: &Config) -> Vec<Traffic> {
    let limits = |mode| {
        let (set, usual) = (config.traffic, traffic::Settings::of(mode));
        traffic::Settings {
            requests_per_s: set.requests_per_s.unwrap_or(usual.requests_per_s),
            endpoint_requests_per_s: set.endpoint_requests_per_s,
            requests_at_once_max: set.requests_at_once_max,
        }
    };
    let mut ways = Vec::<(&[Secret], Traffic)>::new();
    for one in configured(config) {
        let is_shared = |(keys, _): &&(&[Secret], Traffic)| one.keys.iter().any(|key| keys.contains(key));
        let known = ways.iter().find(is_shared).map(|(_, way)| way.clone());
        let way = known.unwrap_or_else(|| Traffic::new(limits(one.mode)));
        way.weigh(weights(config));
        ways.push((one.keys, way));
    }
    ways.into_iter().map(|(_, way)| way).collect()
}

/// What part callers get of what is short, by name.
pub(super) fn weights(config: &Config) -> HashMap<String, u32> {
    config.callers.iter().map(|caller| (caller.name.clone(), caller.weight)).collect()
}

/// Shows from now on how the traffic to each account stands, under the alias that comes first.
pub(super) fn show_traffic(metrics: &Metrics, accounts: &Accounts) {
    let mut ways = Vec::<(String, Traffic)>::new();
    for account in accounts.all() {
        let way = account.stripe.traffic();
        if !ways.iter().any(|(_, other)| other.is(way)) {
            ways.push((account.alias.clone(), way.clone()));
        }
    }
    metrics.traffic(move || {
        let shown = |(account, way): &(String, Traffic)| {
            let Standing { waiting, under_way, limit, headroom } = way.standing();
            AccountTraffic { account: account.clone(), waiting, under_way, limit, headroom }
        };
        ways.iter().map(shown).collect()
    });
}

fn client(
    config: &Config,
    one: &Configured<'_>,
    traffic: Traffic,
    metrics: &Metrics,
) -> Result<Client, Error> {
    let options = stripe::Options {
        mode: one.mode,
        account: one.alias.to_owned(),
        api_base: config.stripe.api_base.clone(),
        files_base: config.stripe.files_base.clone(),
        attempt_timeout: config.stripe.attempt_timeout,
        connect_timeout: config.stripe.connect_timeout,
        traffic,
        metrics: Some(metrics.clone()),
        keys: parsed(one.keys)?,
        extra_roots_pem: None,
    };
    Ok(Client::new(&options)?)
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
    let endpoint = |one: Configured<'_>| {
        let account = accounts.resolve(one.alias)?;
        let secrets = one.webhook_secrets.to_vec();
        let endpoint = Endpoint { secrets, belongs: accounts.belonging_to(account) };
        Some((account.log_alias().to_owned(), endpoint))
    };
    Arc::new(configured(config).filter_map(endpoint).collect::<BTreeMap<_, _>>())
}

/// What Stripe told of an account at the start.
enum Told {
    /// Whose the keys are, at this time by its clock, in seconds since the Unix epoch.
    At(Option<i64>),
    /// Nothing: this key is in use for the account that is pinned.
    Nothing(Key),
}

/// The account behind a client: told by Stripe for each key, and pinned in the store, since it is part of every operation's
/// name.
async fn account(
    one: &Configured<'_>,
    stripe: Client,
    told: &mut impl Iterator<Item = Result<OwnAccount, AccountError>>,
    store: &Store,
) -> Result<(Account, Told), Error> {
    let alias = one.alias.to_owned();
    let place = pinned_at(&alias);
    let (stripe, found) = agreed(one, stripe, told)?;
    let pinned = store.setting(&place).await?.map(|id| String::from_utf8_lossy(&id).into_owned());
    let wanted = one.header.account().map(str::to_owned).or_else(|| pinned.clone());
    let (id, told) = match (found, wanted) {
        (Ok(found), Some(wanted)) if found.id != wanted => {
            return Err(Error::OtherAccount { alias, found: found.id, wanted });
        }
        (Ok(found), _) => (found.id, Told::At(found.date_s)),
        // A key that does not show its mode is not believed: it might move real money.
        (Err((key, error @ AccountError::NoAnswer(_))), Some(wanted))
            if pinned.is_some() && key.mode().is_some() =>
        {
            tracing::warn!(%error, alias, account = wanted, "Stripe did not name the account; the pinned one is used");
            (wanted, Told::Nothing(key))
        }
        (Err((_, source)), _) => return Err(Error::Account { alias, source }),
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
    Ok((Account { alias, id, mode: one.mode, header: one.header.clone(), stripe }, told))
}

/// The account that keys agree on; where all are silent, the first of them and what kept it silent.
type Agreed = Result<OwnAccount, (Key, AccountError)>;

/// What the keys of an account say of it, each in its turn, and the client with those that said it. A key that says nothing
/// is left out, since a refusal of another one would bring it into use; only where none says anything, the first stays, for
/// the account that is pinned, and comes with what kept it silent.
fn agreed(
    one: &Configured<'_>,
    stripe: Client,
    told: &mut impl Iterator<Item = Result<OwnAccount, AccountError>>,
) -> Result<(Client, Agreed), Error> {
    let (mut own, mut silence, mut taken) = (None::<OwnAccount>, None, Vec::new());
    for (key, told) in parsed(one.keys)?.into_iter().zip(told) {
        match told {
            Ok(found) => {
                let wanted = own.get_or_insert_with(|| found.clone()).id.clone();
                if found.id != wanted {
                    return Err(Error::OtherAccount { alias: one.alias.to_owned(), found: found.id, wanted });
                }
                taken.push(key);
            }
            Err(source @ AccountError::OtherMode(_)) => {
                return Err(Error::Account { alias: one.alias.to_owned(), source });
            }
            Err(error) => {
                tracing::warn!(%error, alias = one.alias, "a key did not tell its account");
                silence.get_or_insert((key, error));
            }
        }
    }
    match (own, silence) {
        (Some(own), _) => Ok((stripe.with_keys(&taken)?, Ok(own))),
        (None, Some((first, error))) => {
            Ok((stripe.with_keys(std::slice::from_ref(&first))?, Err((first, error))))
        }
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
