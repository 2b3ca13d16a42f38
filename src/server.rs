//! The assembly: opens what there is, puts the parts together, and takes them apart again. It holds no logic of its own.

mod accept;
mod accounts;
mod audit_log;
mod callers;
mod ports;
mod reload;
mod rights;
mod router;
mod supervisor;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use accounts::pinned_at;
use accounts::{Opened, Unasked};
use audit_log::AuditLog;
use ports::{Common, Routers, Sockets};
pub use reload::Error as ReloadError;
use reload::{Parts, Reloader};
pub use supervisor::Supervisor;
use tls::Tls;

use crate::audit::{self, Auditor, Strangers};
use crate::config::{Changes, Config, Listen, Loader, Roll};
use crate::domain::clock::Clock;
use crate::domain::drain::{Drain, Trigger};
use crate::domain::fingerprint::HashKey;
use crate::domain::limits::{CHANGES_AT_ONCE_MAX, UPLOADS_AT_ONCE_MAX, WAITS_AT_ONCE_MAX};
use crate::domain::planted;
use crate::events::subscriptions::{self, Subscriptions};
use crate::events::{self, Feed};
use crate::gateway::{
    Causes, Fetcher, Follower, Freezes, FreezesError, Gateway, Intake, Keeper, Resolver, Settler,
    SharedReads, Sweeper, Sweeps, SweepsError,
};
use crate::grpc::{Api, layer::DoorLayer, load::Load};
use crate::identity;
use crate::ledger::Ledger;
use crate::ops;
use crate::policy::{self, Policies, PolicySet};
use crate::store::{Store, Terms};
use crate::stripe::{self, AccountError};
use crate::telemetry::{self, metrics::Metrics};
use crate::webhook;

/// How long what calls left behind that were cut at the end of the grace may take to be put on record.
const AFTER_CUT: Duration = Duration::from_secs(1);
/// Under which name the key of the hashes of personal values and parameters is kept in the store.
const HASH_KEY: &str = "hash_key";
/// What rows are found by; the version is raised whenever one of the functions finds other names than before.
const TERMS: Terms = Terms { version: 2, audit: audit::terms, event: events::terms };
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
    /// What subscriptions have still to deliver cannot be read.
    #[error(transparent)]
    Subscriptions(#[from] subscriptions::Error),
    /// What operators froze cannot be read.
    #[error(transparent)]
    Freezes(#[from] FreezesError),
    /// What sweeps of Stripe's list came to cannot be read.
    #[error(transparent)]
    Sweeps(#[from] SweepsError),
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] telemetry::metrics::Error),
    /// The standard services cannot be set up.
    #[error("reflection cannot be served: {0}")]
    Reflection(String),
}

/// A gateway that serves; dropping it ends it without grace.
#[derive(Debug)]
pub struct Running {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where webhooks are taken; where they would be when events are read from Stripe's list instead.
    pub webhook: SocketAddr,
    /// Where health and metrics are served.
    pub ops: SocketAddr,
    /// The Stripe account behind it, `acct_...`.
    pub account: String,
    /// What TLS is spoken with, if it is spoken.
    pub tls: Option<Tls>,
    store: Store,
    /// Says that the gateway is going, later that it is time, and when everything has ended.
    leaving: Trigger,
    trigger: Trigger,
    ended: Trigger,
    listen: Listen,
    readiness: ops::Readiness,
    tasks: JoinSet<()>,
    /// Shows operators how it is as long as it is.
    observed: JoinSet<()>,
    open_changes: Arc<Semaphore>,
    audit_log: AuditLog,
    metrics: Metrics,
    reloader: Reloader,
    drain: Drain,
}

/// Starts a gateway. All sockets are bound before anything else happens, and operators are answered from then on.
///
/// # Errors
/// See [`Error`]; nothing is left running.
pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Running, Error> {
    let mut observed = JoinSet::new();
    let started = Box::pin(begin(config, clock, &mut observed)).await;
    if started.is_err() {
        observed.shutdown().await;
    }
    started
}

/// Starts a gateway; what operators are answered by runs in `observed` until it has started.
async fn begin(config: Config, clock: Arc<dyn Clock>, observed: &mut JoinSet<()>) -> Result<Running, Error> {
    let mut sockets = Sockets::bind(&config.listen, config.events.mode).await?;
    let addresses = sockets.addresses;
    let strangers = Strangers::default();
    let metrics = Metrics::exporting(config.telemetry.otlp_endpoint.as_deref())?;
    metrics.memory(telemetry::process::resident_bytes);
    let tls = ports::tls(&config, &clock, &metrics)?;
    let [(leaving, left), (trigger, drain), (ended, end)] = [(); 3].map(|()| Drain::channel());
    let readiness = ops::Readiness::default();
    let common = Common {
        config: &config,
        tls: tls.as_ref(),
        drain: drain.clone(),
        strangers: strangers.clone(),
        metrics: metrics.clone(),
    };
    sockets.serve_ops(ops::router(metrics.clone(), readiness.clone()), &common, end, observed);
    let store = Store::open(&config.data, TERMS)?;
    show_store(&metrics, store.clone());
    let (gateway, audit_log, unasked) =
        gateway(&config, &clock, &store, (&metrics, &strangers, &drain)).await?;
    let (new_endpoints, endpoints) = watch::channel(accounts::endpoints(&config, &gateway.accounts));
    let reloader = reloader(&gateway, &config, new_endpoints, (&tls, &readiness));
    let api = Api {
        gateway: Arc::clone(&gateway),
        drain: drain.clone(),
        uploads: Arc::new(Semaphore::new(UPLOADS_AT_ONCE_MAX)),
    };
    let registry = gateway.registry.clone();
    let load = Load::new(config.listen.calls_in_flight_max, metrics.clone());
    let door = DoorLayer::new(registry, load.clone(), Arc::clone(&clock), strangers.clone(), metrics.clone());
    let intake = gateway.intake.clone();
    let routers = Routers {
        grpc: router::grpc(api, door, (left, drain.clone())).await?,
        webhook: webhook::router(webhook::Options { intake, endpoints, clock, metrics: metrics.clone() }),
    };
    let mut tasks = background(&gateway);
    tasks.spawn(load.watch(drain.clone()));
    for silent in unasked {
        tasks.spawn(silent.ask(readiness.clone(), drain.clone()));
    }
    sockets.serve(routers, &common, &mut tasks);
    planted::point("start-before-ready");
    readiness.set_ready(true);
    Ok(Running {
        grpc: addresses.grpc,
        webhook: addresses.webhook,
        ops: addresses.ops,
        account: gateway.accounts.default_account().id.clone(),
        tls,
        store,
        leaving,
        trigger,
        ended,
        listen: config.listen,
        readiness,
        tasks,
        observed: std::mem::take(observed),
        open_changes: Arc::clone(&gateway.open_changes),
        audit_log,
        metrics: gateway.metrics.clone(),
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
) -> Result<(Arc<Gateway>, AuditLog, Vec<Unasked>), Error> {
    let registry = callers::registry(config, store, clock).await?;
    let Opened { accounts, clock_is_right, unasked } =
        accounts::open(config, store, clock.as_ref(), metrics).await?;
    planted::point("start-account");
    let key = HashKey::new(store.secret(HASH_KEY).await?);
    let auditor = Auditor::open(store.clone(), Arc::clone(clock), config.audit.retention_days).await?;
    let (audit_log, notarized) = audit_log::start(config, store, &auditor, strangers, metrics).await?;
    let ledger = Ledger::new(store.clone(), Arc::clone(clock), key)
        .forgetful(forgot(&notarized))
        .with_budgets(config.budgets.clone());
    let feed = Feed::new(store.clone(), Arc::clone(clock), config.feed.checkpoint_interval)
        .with_memory(config.events.memory_bytes);
    let causes = Causes::new(store.clone());
    let shared_reads = SharedReads::default();
    let gateway = Gateway {
        intake: Intake::new(feed.clone(), causes.clone(), shared_reads.clone(), metrics.clone()),
        shared_reads,
        causes,
        subscriptions: subscriptions(&feed, clock, metrics).await?,
        feed,
        sweeps: Sweeps::open(store.clone()).await?,
        ledger,
        accounts,
        auditor,
        notarized,
        store: store.clone(),
        events: config.events.clone(),
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
    show_budgets(metrics, gateway.ledger.clone(), Arc::clone(clock));
    let sweeps = gateway.sweeps.clone();
    metrics.swept_to(move || sweeps.swept_to());
    accounts::show_traffic(metrics, &gateway.accounts);
    Ok((Arc::new(gateway), audit_log, unasked))
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
        drain: gateway.drain.clone(),
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
    tasks.spawn(Keeper::new(Arc::clone(gateway)).run(drain.clone()));
    tasks.spawn(gateway.subscriptions.clone().run(drain.clone()));
    tasks.spawn(Settler::new(Arc::clone(gateway)).run(drain.clone()));
    tasks.spawn(Sweeper::new(Arc::clone(gateway)).run(drain.clone()));
    tasks.spawn(Follower::new(Arc::clone(gateway)).run(drain.clone()));
    tasks.spawn(Fetcher::new(Arc::clone(gateway)).run(drain));
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

/// The named subscriptions of earlier runs; shows from now on how far each is behind.
async fn subscriptions(
    feed: &Feed,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<Subscriptions, subscriptions::Error> {
    let subscriptions = Subscriptions::open(feed.clone(), Arc::clone(clock)).await?;
    let shown = subscriptions.clone();
    metrics.subscription_lags(move || {
        let lags = shown.lags().into_iter();
        lags.map(|lag| (lag.subscription, lag.events, u64::try_from(lag.seconds).unwrap_or_default()))
            .collect()
    });
    Ok(subscriptions)
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

/// Shows from now on how long commits take, how many audit records there are, and how many found no room.
fn show_store(metrics: &Metrics, store: Store) {
    store.time_commits(metrics.stopwatch());
    let audit_head = store.audit_head();
    metrics.audit_records(move || *audit_head.borrow());
    metrics.audit_dropped(move || store.lazily_dropped());
}

/// Shows from now on how far budgets are used.
fn show_budgets(metrics: &Metrics, ledger: Ledger, clock: Arc<dyn Clock>) {
    metrics.budgets(move || {
        let most = ledger.budgets().most_used(clock.wall()).into_iter();
        most.map(|(name, (used, limit))| (name, i64::try_from(used).unwrap_or(i64::MAX), limit)).collect()
    });
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
    /// When they cannot be taken; the older ones then stay in use, without the callers and credentials that have gone.
    pub async fn reload(&self, config: Config) -> Result<Changes, ReloadError> {
        let roll = Roll::of(&config);
        self.reloader.reload(Ok(config), roll).await
    }

    /// From now on takes the loader's settings whenever a file of theirs changes, or `again` is notified, and tells the
    /// supervisor what came of it.
    pub fn follow(&mut self, loader: Loader, again: Arc<Notify>, supervisor: Supervisor) {
        let reloader = self.reloader.clone();
        self.tasks.spawn(reload::watch(reloader, loader, (again, supervisor), self.drain.clone()));
    }

    /// Ends the gateway: it says that it is going and serves on for a while, until those who send calls have heard it. Then
    /// it takes no new calls, streams end with their cursor, and open calls finish; what does not within the grace is cut.
    /// What happened is on record and signed before the store is closed, and operators are answered until then.
    pub async fn stop(mut self) {
        self.readiness.set_ready(false);
        self.leaving.begin();
        tokio::time::sleep(self.listen.lame_duck).await;
        let latest = Instant::now() + self.listen.grace + AFTER_CUT;
        self.trigger.begin();
        let finished = async {
            while self.tasks.join_next().await.is_some() {}
            // A change whose caller has gone is still to be put on record.
            let open = if planted::active("drain-leaves-changes") { 0 } else { CHANGES_AT_ONCE_MAX };
            self.open_changes.acquire_many(open).await.map(drop)
        };
        if timeout_at(latest, finished).await.is_err() {
            let changes = CHANGES_AT_ONCE_MAX as usize - self.open_changes.available_permits();
            tracing::warn!(changes, "the grace period is over; changes that were cut may have taken effect");
            self.tasks.shutdown().await;
        }
        self.audit_log.stop().await;
        self.store.close().await;
        self.metrics.flush().await;
        self.ended.begin();
        while self.observed.join_next().await.is_some() {}
    }
}

/// What callers may do.
fn policies(config: &Config) -> Result<PolicySet, policy::Faults> {
    if config.policy_files.is_empty() && config.callers.is_empty() {
        return PolicySet::on_loopback();
    }
    PolicySet::parse(&policy::read(&config.policy_files)?)
}
