//! A stateful Stripe for development and tests. It must share nothing with the gateway but `domain`, so that a shared
//! mistake shows.

mod account;
mod accounts;
mod amount;
mod book;
mod burst;
mod cards;
mod cash_balance;
mod charges;
mod control;
mod customer_items;
mod customers;
mod delivery;
mod disk;
mod disputes;
mod error;
mod events;
mod expand;
mod fault;
mod files;
mod form;
mod idempotency;
mod ids;
mod keys;
mod money;
mod multipart;
mod object;
mod outbox;
mod page;
mod payment_intents;
mod payment_methods;
mod payments;
mod payouts;
mod pipeline;
mod rate;
mod refunds;
mod routes;
mod schedule;
mod search;
mod server;
mod shape;
mod state;
#[cfg(test)]
mod tests;
mod thin;
mod triggers;
mod warnings;
mod webhook_endpoints;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::accounts::Accounts;
pub use self::accounts::Further;
pub use self::burst::{BURST_EVENTS_MAX, BURST_FILL_BYTES_MAX, Burst};
pub use self::control::Control;
pub use self::fault::{Error as FaultError, Fault, Kind as FaultKind};
pub use self::keys::RestrictedKey;
use self::state::State;
use crate::domain::clock::Clock;

/// Where events go.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookTarget {
    /// Address that takes the POST.
    pub url: String,
    /// Signing secrets; each signs every delivery, as while a secret is rolled.
    pub secrets: Vec<String>,
}

impl std::fmt::Debug for WebhookTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookTarget").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What a sandbox is started with.
#[derive(Clone)]
pub struct Options {
    /// The key that may do everything.
    pub secret_key: String,
    /// The key of an organisation that all accounts are of, if they are of one: it acts on the account that
    /// `Stripe-Context` names.
    pub organisation_key: Option<String>,
    /// Further keys, each with the rights that it has.
    pub restricted_keys: Vec<RestrictedKey>,
    /// `acct_...` of the account the key belongs to.
    pub account_id: String,
    /// Further accounts, each with a state of its own.
    pub accounts: Vec<Further>,
    /// Version that events are rendered in and that answers name when the request names none.
    pub api_version: String,
    /// Where events go from the start.
    pub webhooks: Vec<WebhookTarget>,
    /// Where events go in their thin form from the start.
    pub thin_webhooks: Vec<WebhookTarget>,
    /// Tries for one delivery, the first included; then it is given up.
    pub delivery_tries_max: u32,
    /// Faults from the start.
    pub faults: Vec<Fault>,
    /// Source of time; the sandbox's test clock runs ahead of it.
    pub clock: Arc<dyn Clock>,
    /// File that keeps the state over restarts.
    pub state_file: Option<PathBuf>,
    /// Seed of ids and of faults by chance.
    pub seed: u64,
    /// Requests let in each second; unlimited when absent.
    pub rate_limit_per_second: Option<u32>,
}

impl Options {
    /// A sandbox for the given key with everything else at its usual value: nothing kept, no webhooks, no faults.
    #[must_use]
    pub fn new(secret_key: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self {
            secret_key: secret_key.into(),
            organisation_key: None,
            restricted_keys: Vec::new(),
            account_id: "acct_1SandboxTollgate".to_owned(),
            accounts: Vec::new(),
            api_version: "2026-10-28.endive".to_owned(),
            webhooks: Vec::new(),
            thin_webhooks: Vec::new(),
            delivery_tries_max: outbox::TRIES_MAX,
            faults: Vec::new(),
            clock,
            state_file: None,
            seed: 1,
            rate_limit_per_second: None,
        }
    }

    fn is_organisations(&self, key: &str) -> bool {
        self.organisation_key.as_deref() == Some(key)
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("account_id", &self.account_id).finish_non_exhaustive()
    }
}

/// Why a sandbox does not start or does not keep its state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener's address cannot be read.
    #[error("sandbox address cannot be read")]
    Address(#[source] std::io::Error),
    /// The state file cannot be read or written.
    #[error("sandbox state file `{path}` cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state file holds something else.
    #[error("sandbox state file `{path}` is not understood")]
    Content {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        source: serde_json::Error,
    },
}

/// What the tasks of one account share.
#[derive(Debug)]
struct Shared {
    options: Options,
    /// Whether it is connected to the first account, whose key it then has.
    connected: bool,
    state: Mutex<State>,
    rate: Mutex<rate::Bucket>,
}

impl Shared {
    /// An account with its kept state, if any.
    async fn open(options: Options, connected: bool) -> Result<Arc<Self>, Error> {
        let mut state = State::new(&options);
        state.connected = connected;
        if let Some(kept) = disk::load(options.state_file.as_deref()).await? {
            state.kept = kept;
            state.kept.keys.forget_in_flight();
            state.kept.outbox.resume();
        }
        let rate = Mutex::new(rate::Bucket::new(options.rate_limit_per_second, options.clock.monotonic()));
        Ok(Arc::new(Self { options, connected, state: Mutex::new(state), rate }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The simulated Stripe.
#[derive(Debug)]
pub struct Sandbox;

impl Sandbox {
    /// Loads the kept state, if any, and serves on the listener until the handle is stopped or dropped.
    ///
    /// # Errors
    /// When the listener has no address, or the state file exists but cannot be read.
    pub async fn start(listener: TcpListener, options: Options) -> Result<Handle, Error> {
        let address = listener.local_addr().map_err(Error::Address)?;
        let accounts = Accounts::open(options).await?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![tokio::spawn(server::serve(listener, accounts.clone(), stopped.clone()))];
        for shared in accounts.all() {
            tasks.extend([
                tokio::spawn(server::settle(Arc::clone(shared), stopped.clone())),
                tokio::spawn(delivery::run(Arc::clone(shared), stopped.clone())),
                tokio::spawn(disk::keep(Arc::clone(shared), stopped.clone())),
            ]);
        }
        Ok(Handle { address, accounts, stop, tasks })
    }
}

/// A running sandbox; dropping it stops it without waiting.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    accounts: Accounts,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Handle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Control in the same process; what `/_sandbox/` offers over HTTP.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(self.accounts.own()))
    }

    /// Control of one of the accounts.
    #[must_use]
    pub fn control_of(&self, account_id: &str) -> Option<Control> {
        self.accounts.of(account_id).map(|shared| Control::new(Arc::clone(shared)))
    }

    /// Closes all connections, writes the state file and returns when both are done.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            // A task that panicked has nothing left to wait for.
            drop(task.await);
        }
    }
}
