//! The assembly: opens what there is, puts the parts together, and takes them apart again. It holds no logic of its own.

mod accept;
mod accounts;
mod audit_log;
mod callers;
mod ports;
mod reload;
mod rights;
mod router;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use accounts::pinned_at;
use audit_log::AuditLog;
use ports::{Common, Routers, Sockets};
pub use reload::Error as ReloadError;
use reload::{Parts, Reloader};
use tls::Tls;

use crate::audit::{self, Auditor, Strangers};
use crate::config::{Changes, Config, Loader};
use crate::domain::clock::Clock;
use crate::domain::drain::{Drain, Trigger};
use crate::domain::fingerprint::HashKey;
use crate::domain::limits::{CHANGES_AT_ONCE_MAX, UPLOADS_AT_ONCE_MAX, WAITS_AT_ONCE_MAX};
use crate::domain::planted;
use crate::events::{self, Feed};
use crate::gateway::{Freezes, FreezesError, Gateway, Resolver, Settler};
use crate::grpc::{Api, layer::DoorLayer};
use crate::identity;
use crate::ledger::Ledger;
use crate::ops;
use crate::policy::{self, Policies, PolicySet};
use crate::store::{Store, Terms};
use crate::stripe::{self, AccountError};
use crate::telemetry::metrics::Metrics;
use crate::webhook;

/// How long calls that were accepted may take to finish at the end: one attempt at Stripe and a little more.
const DRAIN_GRACE: Duration = Duration::from_secs(85);
/// Under which name the key of the hashes of personal values and parameters is kept in the store.
const HASH_KEY: &str = "hash_key";
/// What rows are found by; the version is raised whenever one of the functions finds other names than before.
const TERMS: Terms = Terms { version: 1, audit: audit::terms, event: events::terms };
/// Under which name the id of the default account is pinned in the store; that of another has its alias behind a dot.
const PINNED_ACCOUNT: &str = "account";

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
    #[error("the Stripe account of the key of `{alias}` could not be learnt: {source}")]
    Account {
        /// The account's alias.
        alias: String,
        /// Why.
        source: AccountError,
    },
    /// The key belongs to another account than the data, or than the configuration says.
    #[error(
        "the key of `{alias}` belongs to `{found}`, but the data folder or the configuration to `{wanted}`; use the key and the folder of one account"
    )]
    OtherAccount {
        /// The account's alias.
        alias: String,
        /// The key's account.
        found: String,
        /// The account that it must be.
        wanted: String,
    },
    /// One account in one mode goes by two aliases, so that its operations would have two homes.
    #[error("`{alias}` and `{other}` are both `{id}` in one mode; keep one of them")]
    SameAccount {
        /// The one alias.
        alias: String,
        /// The other one.
        other: String,
        /// The account.
        id: String,
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
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] tls::Error),
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
    /// What TLS is spoken with, if it is spoken.
    pub tls: Option<Tls>,
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
    let sockets = Sockets::bind(&config.listen).await?;
    let addresses = sockets.addresses;
    let metrics = Metrics::new()?;
    let tls = ports::tls(&config, &clock, &metrics)?;
    let store = Store::open(&config.data, TERMS)?;
    show_dropped(&metrics, store.clone());
    let strangers = Strangers::default();
    let (trigger, drain) = Drain::channel();
    let (gateway, audit_log) = gateway(&config, &clock, &store, (&metrics, &strangers, &drain)).await?;
    let (new_endpoints, endpoints) = watch::channel(accounts::endpoints(&config, &gateway.accounts));
    let readiness = ops::Readiness::default();
    let reloader = reloader(&gateway, &config, new_endpoints, (&tls, &readiness));
    let api = Api {
        gateway: Arc::clone(&gateway),
        drain: drain.clone(),
        uploads: Arc::new(Semaphore::new(UPLOADS_AT_ONCE_MAX)),
    };
    let registry = gateway.registry.clone();
    let door = DoorLayer::new(registry, Arc::clone(&clock), strangers, metrics.clone());
    let feed = gateway.feed.clone();
    let routers = Routers {
        grpc: router::grpc(api, door, drain.clone()).await?,
        webhook: webhook::router(webhook::Options { feed, endpoints, clock, metrics: metrics.clone() }),
        ops: ops::router(metrics.clone(), readiness.clone()),
    };
    let mut tasks = background(&gateway);
    sockets.serve(
        routers,
        &Common { config: &config, tls: tls.as_ref(), drain: drain.clone(), metrics },
        &mut tasks,
    );
    planted::point("start-before-ready");
    readiness.set_ready(true);
    Ok(Running {
        grpc: addresses.grpc,
        webhook: addresses.webhook,
        ops: addresses.ops,
        account: gateway.accounts.default_account().id.clone(),
        tls,
        store,
        trigger,
        readiness,
        tasks,
        open_changes: Arc::clone(&gateway.open_changes),
        audit_log,
        reloader,
        drain,
    })
}

/// The pipeline with everything it needs, knowing what an earlier start left, and what signs the audit log.
async fn gateway(
    config: &Config,
    clock: &Arc<dyn Clock>,
    store: &Store,
    (metrics, strangers, drain): (&Metrics, &Strangers, &Drain),
) -> Result<(Arc<Gateway>, AuditLog), Error> {
    let registry = callers::registry(config, store, clock).await?;
    let (accounts, clock_is_right) = accounts::open(config, store, clock.as_ref(), metrics).await?;
    planted::point("start-account");
    let key = HashKey::new(store.secret(HASH_KEY).await?);
    let auditor = Auditor::open(store.clone(), Arc::clone(clock), config.audit.retention_days).await?;
    let (audit_log, notarized) = audit_log::start(config, store, &auditor, strangers, metrics).await?;
    let ledger = Ledger::new(store.clone(), Arc::clone(clock), key)
        .forgetful(forgot(&notarized))
        .with_budgets(config.budgets.clone());
    let gateway = Gateway {
        ledger,
        accounts,
        auditor,
        notarized,
        store: store.clone(),
        feed: Feed::new(store.clone(), Arc::clone(clock), config.feed.checkpoint_interval),
        clock: Arc::clone(clock),
        freezes: frozen(store, metrics).await?,
        metrics: metrics.clone(),
        open_changes: Arc::new(Semaphore::new(CHANGES_AT_ONCE_MAX as usize)),
        guards: config.guards,
        waits: Arc::new(Semaphore::new(WAITS_AT_ONCE_MAX)),
        drain: drain.clone(),
        registry,
        policies: Policies::new(policies(config)?),
    };
    recover(&gateway.ledger, clock_is_right).await?;
    show_unresolved(metrics, gateway.ledger.clone());
    Ok((Arc::new(gateway), audit_log))
}

/// What takes new settings for the gateway.
fn reloader(
    gateway: &Gateway,
    config: &Config,
    endpoints: watch::Sender<webhook::Endpoints>,
    (tls, readiness): (&Option<Tls>, &ops::Readiness),
) -> Reloader {
    Reloader::new(Parts {
        accounts: gateway.accounts.clone(),
        endpoints,
        registry: gateway.registry.clone(),
        policies: gateway.policies.clone(),
        budgets: gateway.ledger.budgets().clone(),
        tls: tls.clone(),
        clock: Arc::clone(&gateway.clock),
        auditor: gateway.auditor.clone(),
        metrics: gateway.metrics.clone(),
        readiness: readiness.clone(),
        settings: Mutex::new(config.clone()),
    })
}

/// What the gateway does without being asked.
fn background(gateway: &Arc<Gateway>) -> JoinSet<()> {
    let (accounts, policies) = (gateway.accounts.clone(), gateway.policies.clone());
    let (metrics, drain) = (gateway.metrics.clone(), gateway.drain.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(rights::watch(accounts, policies, metrics, drain.clone()));
    tasks.spawn(gateway.registry.clone().run(drain.clone()));
    tasks.spawn(Resolver::new(Arc::clone(gateway)).run(drain.clone()));
    tasks.spawn(Settler::new(Arc::clone(gateway)).run(drain));
    tasks
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

/// What callers may do.
fn policies(config: &Config) -> Result<PolicySet, policy::Faults> {
    if config.policy_files.is_empty() && config.callers.is_empty() {
        return PolicySet::on_loopback();
    }
    PolicySet::parse(&policy::read(&config.policy_files)?)
}
