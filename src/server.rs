//! The assembly: opens what there is, puts the parts together, and takes them apart again. It holds no logic of its own.

mod accept;
mod audit_log;
mod callers;
mod reload;
mod router;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use accept::Protocol;
use audit_log::AuditLog;
pub use reload::Error as ReloadError;
use reload::{Parts, Reloader};

use crate::audit::{self, Auditor, Strangers};
use crate::config::{Changes, Config, Loader};
use crate::domain::clock::{Clock, UnixMillis};
use crate::domain::drain::{Drain, Trigger};
use crate::domain::fingerprint::HashKey;
use crate::domain::limits::{
    CHANGES_AT_ONCE_MAX, CLOCK_DIFFERENCE_MS_MAX, UPLOADS_AT_ONCE_MAX, WAITS_AT_ONCE_MAX,
};
use crate::domain::operation::{DEFAULT_ALIAS, Mode};
use crate::domain::planted;
use crate::events::{self, Feed};
use crate::gateway::{Account, Accounts, Freezes, FreezesError, Gateway, Resolver, Settler};
use crate::grpc::{Api, layer::DoorLayer};
use crate::identity;
use crate::ledger::Ledger;
use crate::ops;
use crate::policy::{self, Policies, PolicySet};
use crate::store::{Store, Terms};
use crate::stripe::{self, AccountError, AccountHeader, Client, Key};
use crate::telemetry::metrics::Metrics;
use crate::webhook;

/// How long Stripe may take to name the account at the start.
const ACCOUNT_WAIT: Duration = Duration::from_secs(10);
/// How long calls that were accepted may take to finish at the end: one attempt at Stripe and a little more.
const DRAIN_GRACE: Duration = Duration::from_secs(85);
/// Under which name the key of the hashes of personal values and parameters is kept in the store.
const HASH_KEY: &str = "hash_key";
/// How long webhooks and probes that were accepted may take to finish at the end.
const HTTP_GRACE: Duration = Duration::from_secs(10);
/// What rows are found by; the version is raised whenever one of the functions finds other names than before.
const TERMS: Terms = Terms { version: 1, audit: audit::terms, event: events::terms };
/// Under which name the account's id is pinned in the store.
pub const PINNED_ACCOUNT: &str = "account";

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error("the data folder cannot be used: {0}")]
    Store(#[from] crate::store::Error),
    /// The Stripe key cannot be used.
    #[error(transparent)]
    Key(#[from] stripe::KeyError),
    /// The client cannot be set up.
    #[error(transparent)]
    Client(#[from] stripe::SetupError),
    /// Stripe did not name the account, and no earlier start pinned one.
    #[error("the Stripe account of the key could not be learnt: {0}")]
    Account(#[from] AccountError),
    /// The key belongs to another account than the data.
    #[error(
        "the key belongs to `{found}`, but the data folder to `{pinned}`; use the key or the folder of one account"
    )]
    OtherAccount {
        /// The key's account.
        found: String,
        /// The folder's account.
        pinned: String,
    },
    /// Callers or issuers cannot be set up.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The policies cannot be used.
    #[error("the policies cannot be used:\n{0}")]
    Policy(#[from] policy::Faults),
    /// The audit log cannot be set up.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// What an earlier start left unresolved cannot be read.
    #[error("the ledger cannot be read: {0}")]
    Ledger(#[from] crate::ledger::Error),
    /// What operators froze cannot be read.
    #[error(transparent)]
    Freezes(#[from] FreezesError),
    /// Metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] crate::telemetry::metrics::Error),
    /// The standard services cannot be set up.
    #[error("reflection cannot be served: {0}")]
    Reflection(String),
}

/// A gateway that serves; dropping it ends it without grace.
#[derive(Debug)]
pub struct Running {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where webhooks are taken.
    pub webhook: SocketAddr,
    /// Where health and metrics are served.
    pub ops: SocketAddr,
    /// The Stripe account behind it, `acct_...`.
    pub account: String,
    store: Store,
    trigger: Trigger,
    readiness: ops::Readiness,
    tasks: JoinSet<()>,
    open_changes: Arc<Semaphore>,
    audit_log: AuditLog,
    reloader: Reloader,
    drain: Drain,
}

/// Starts a gateway. All sockets are bound before anything else happens.
///
/// # Errors
/// See [`Error`]; nothing is left running.
pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Running, Error> {
    let (grpc, grpc_address) = bind(config.listen.grpc).await?;
    let (hooks, webhook_address) = bind(config.listen.webhook).await?;
    let (operations, ops_address) = bind(config.listen.ops).await?;
    let metrics = Metrics::new()?;
    let store = Store::open(&config.data, TERMS)?;
    show_dropped(&metrics, store.clone());
    let registry = callers::registry(&config, &store, &clock).await?;
    let client = client(&config, &metrics)?;
    let (new_endpoints, endpoints) = watch::channel(endpoints(&config));
    let (account, clock_is_right) = account(client, &store, clock.as_ref()).await?;
    let account_id = account.id.clone();
    planted::point("start-account");
    let feed = Feed::new(store.clone(), Arc::clone(&clock), config.feed.checkpoint_interval);
    let key = HashKey::new(store.secret(HASH_KEY).await?);
    let auditor = Auditor::open(store.clone(), Arc::clone(&clock), config.audit.retention_days).await?;
    let strangers = Strangers::default();
    let (audit_log, notarized) = audit_log::start(&config, &store, &auditor, &strangers, &metrics).await?;
    let open_changes = Arc::new(Semaphore::new(CHANGES_AT_ONCE_MAX as usize));
    let (trigger, drain) = Drain::channel();
    let accounts = Accounts::new(account, []);
    let readiness = ops::Readiness::default();
    let policies = Policies::new(policies(&config)?);
    let ledger = Ledger::new(store.clone(), Arc::clone(&clock), key)
        .forgetful(forgot(&notarized))
        .with_budgets(config.budgets.clone());
    let reloader = Reloader::new(Parts {
        accounts: accounts.clone(),
        endpoints: new_endpoints,
        registry: registry.clone(),
        policies: policies.clone(),
        budgets: ledger.budgets().clone(),
        auditor: auditor.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        settings: Mutex::new(config.clone()),
    });
    let gateway = Gateway {
        ledger,
        accounts,
        auditor,
        notarized,
        store: store.clone(),
        feed: feed.clone(),
        clock: Arc::clone(&clock),
        freezes: frozen(&store, &metrics).await?,
        metrics: metrics.clone(),
        open_changes: Arc::clone(&open_changes),
        guards: config.guards,
        waits: Arc::new(Semaphore::new(WAITS_AT_ONCE_MAX)),
        drain: drain.clone(),
        registry: registry.clone(),
        policies,
    };
    recover(&gateway.ledger, clock_is_right).await?;
    let gateway = Arc::new(gateway);
    show_unresolved(&metrics, gateway.ledger.clone());
    let api = Api {
        gateway: Arc::clone(&gateway),
        drain: drain.clone(),
        uploads: Arc::new(Semaphore::new(UPLOADS_AT_ONCE_MAX)),
    };
    let door = DoorLayer::new(registry.clone(), Arc::clone(&clock), strangers, metrics.clone());
    let router = router::grpc(api, door, drain.clone()).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(registry.run(drain.clone()));
    tasks.spawn(Resolver::new(Arc::clone(&gateway)).run(drain.clone()));
    tasks.spawn(Settler::new(gateway).run(drain.clone()));
    tasks.spawn(accept::serve(grpc, Protocol::Http2, router, drain.clone(), DRAIN_GRACE));
    let hooks_router = webhook::router(webhook_options(&config, endpoints, feed, clock, metrics.clone()));
    tasks.spawn(accept::serve(hooks, Protocol::Http1, hooks_router, drain.clone(), HTTP_GRACE));
    let ops_router = ops::router(metrics, readiness.clone());
    tasks.spawn(accept::serve(operations, Protocol::Http1, ops_router, drain.clone(), HTTP_GRACE));
    planted::point("start-before-ready");
    readiness.set_ready(true);
    Ok(Running {
        grpc: grpc_address,
        webhook: webhook_address,
        ops: ops_address,
        account: account_id,
        store,
        trigger,
        readiness,
        tasks,
        open_changes,
        audit_log,
        reloader,
        drain,
    })
}

/// Learns what an earlier start left unresolved.
async fn recover(ledger: &Ledger, clock_is_right: bool) -> Result<(), Error> {
    let left = ledger.recover().await?;
    if !clock_is_right {
        ledger.distrust_clock().await?;
    }
    tracing::info!(unknown = left.unknown, needs_operator = left.needs_operator, "the ledger was read");
    Ok(())
}

/// What earlier runs left frozen; shows from now on how much it is.
async fn frozen(store: &Store, metrics: &Metrics) -> Result<Freezes, Error> {
    let freezes = Freezes::open(store).await?;
    if freezes.count() > 0 {
        tracing::warn!(freezes = freezes.count(), "changes are frozen since an earlier run");
    }
    let shown = freezes.clone();
    metrics.freezes(move || u64::try_from(shown.count()).unwrap_or(u64::MAX));
    Ok(freezes)
}

/// Whether the data folder is known to be an older copy of itself.
fn forgot(notarized: &audit::Notarized) -> bool {
    let forgot = notarized.standing.borrow().refusal.as_ref().is_some_and(audit::Refusal::forgot);
    if forgot {
        tracing::error!(
            "the data was restored from an older copy; no money is moved: see docs/operations.md"
        );
    }
    forgot
}

/// Shows from now on how many audit records found no room.
fn show_dropped(metrics: &Metrics, store: Store) {
    metrics.audit_dropped(move || store.lazily_dropped());
}

/// Shows from now on how many operations are not settled.
fn show_unresolved(metrics: &Metrics, ledger: Ledger) {
    metrics.unresolved(move || {
        let census = ledger.census();
        [
            ("in_flight", census.in_flight),
            ("unknown", census.unknown),
            ("needs_operator", census.needs_operator),
        ]
    });
}

impl Running {
    /// Transactions that made something durable, since the start.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.store.groups_committed()
    }

    /// Takes other settings, all of what changed or nothing, and says what that was.
    ///
    /// # Errors
    /// When they cannot be taken; the older ones then stay in use.
    pub async fn reload(&self, config: Config) -> Result<Changes, ReloadError> {
        self.reloader.reload(Ok(config)).await
    }

    /// From now on takes the loader's settings whenever a file of theirs changes, or `again` is notified.
    pub fn follow(&mut self, loader: Loader, again: Arc<Notify>) {
        self.tasks.spawn(reload::watch(self.reloader.clone(), loader, again, self.drain.clone()));
    }

    /// Ends the gateway: no new calls, open ones finish, streams end with their cursor, then the store is closed.
    pub async fn stop(mut self) {
        let latest = Instant::now() + DRAIN_GRACE;
        self.readiness.set_ready(false);
        self.trigger.begin();
        while self.tasks.join_next().await.is_some() {}
        // A change whose caller has gone is still to be put on record.
        if timeout_at(latest, self.open_changes.acquire_many(CHANGES_AT_ONCE_MAX)).await.is_err() {
            tracing::warn!("a change was cut at the end of the grace period; its outcome is unknown");
        }
        self.audit_log.stop().await;
        self.store.close().await;
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn client(config: &Config, metrics: &Metrics) -> Result<Client, Error> {
    let options = stripe::Options {
        api_base: config.stripe.api_base.clone(),
        files_base: config.stripe.files_base.clone(),
        attempt_timeout: config.stripe.attempt_timeout,
        connect_timeout: config.stripe.connect_timeout,
        metrics: Some(metrics.clone()),
        keys: keys(config)?,
        extra_roots_pem: None,
    };
    Ok(Client::new(&options)?)
}

/// The keys as configured, the one to use first.
fn keys(config: &Config) -> Result<Vec<Key>, stripe::KeyError> {
    config.stripe.keys.iter().cloned().map(Key::parse).collect()
}

/// Webhook endpoints as configured.
fn endpoints(config: &Config) -> webhook::Endpoints {
    let endpoint = webhook::Endpoint { secrets: config.webhook.secrets.clone(), connected_account: None };
    Arc::new(BTreeMap::from([(String::new(), endpoint)]))
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

/// The account behind the key: asked of Stripe, and pinned in the store, since it is part of every operation's name. With
/// it comes whether the wall clock is right.
async fn account(client: Client, store: &Store, clock: &dyn Clock) -> Result<(Account, bool), Error> {
    let found = client.own_account(Some(Instant::now() + ACCOUNT_WAIT)).await;
    let clock_is_right = is_right(clock.wall(), found.as_ref().ok().and_then(|found| found.date_s));
    let pinned = store.setting(PINNED_ACCOUNT).await?.map(|id| String::from_utf8_lossy(&id).into_owned());
    let id = match (found.map(|found| found.id), pinned) {
        (Ok(found), Some(pinned)) if found != pinned => return Err(Error::OtherAccount { found, pinned }),
        (Ok(found), None) => {
            store.keep_setting(PINNED_ACCOUNT, found.clone().into_bytes()).await?;
            found
        }
        (Ok(id), Some(_)) => id,
        (Err(error @ AccountError::NoAnswer(_)), Some(pinned)) => {
            tracing::warn!(%error, account = pinned, "Stripe did not name the account; the pinned one is used");
            pinned
        }
        (Err(error), _) => return Err(error.into()),
    };
    let (alias, mode) = (DEFAULT_ALIAS.to_owned(), client.mode());
    Ok((Account { alias, id, mode, header: AccountHeader::None, stripe: client }, clock_is_right))
}

/// What callers may do.
fn policies(config: &Config) -> Result<PolicySet, policy::Faults> {
    if config.policy_files.is_empty() && config.callers.is_empty() {
        return PolicySet::on_loopback();
    }
    PolicySet::parse(&policy::read(&config.policy_files)?)
}

fn webhook_options(
    config: &Config,
    endpoints: watch::Receiver<webhook::Endpoints>,
    feed: Feed,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
) -> webhook::Options {
    webhook::Options { feed, endpoints, livemode: config.mode == Mode::Live, clock, metrics }
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
