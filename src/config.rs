//! The gateway's settings: read from a TOML file, the environment and flags, checked as a whole and typed. It is the only
//! place that reads the environment, and it starts nothing.

mod bytes;
mod check;
mod docs;
mod environment;
mod fault;
pub mod identity;
mod keys;
mod layers;
mod reloaded;
mod sample;
mod schema;
mod shown;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use docs::markdown;
pub use environment::{
    ADDRESS_VARIABLE, CONFIG_VARIABLE, CREDENTIALS_VARIABLE, Environment, HANDED_OVER_VARIABLE,
    NOTIFY_SOCKET_VARIABLE, TLS_CA_VARIABLE, TLS_CERT_VARIABLE, TLS_KEY_VARIABLE, TOKEN_VARIABLE,
    WATCHDOG_USEC_VARIABLE,
};
pub use fault::{Fault, Faults, nearest};
pub use identity::{CallerConfig, IssuerConfig, Roll};
pub use keys::{KEYS, Key, Shape};
pub use sample::sample;
pub use schema::schema;
use secrecy::SecretBox;
pub use shown::{Shown, show, stripe, webhook_secret_file};
pub use source::{Changes, Loaded, Loader, Source};

use crate::domain::account::AccountHeader;
use crate::domain::operation::Mode;
use crate::domain::secret::Secret;

/// Everything that can be set; secrets do not show in its `Debug` form.
#[derive(Clone, Debug)]
pub struct Config {
    /// Test or live; whatever belongs to the other is refused.
    pub mode: Mode,
    /// How Stripe is reached.
    pub stripe: Stripe,
    /// How much goes to Stripe.
    pub traffic: Traffic,
    /// How webhooks are trusted.
    pub webhook: Webhook,
    /// The Stripe accounts beside the default one, which `stripe` and `webhook` speak of.
    pub accounts: Vec<AccountConfig>,
    /// Where the gateway listens.
    pub listen: Listen,
    /// TLS, if it is spoken at all.
    pub tls: Option<Tls>,
    /// Folder of the database.
    pub data: PathBuf,
    /// Who may call; empty means everybody who reaches the loopback address.
    pub callers: Vec<CallerConfig>,
    /// Who issues JWTs that prove a caller's name.
    pub issuers: Vec<IssuerConfig>,
    /// Files and folders with policies; empty only where there are no callers.
    pub policy_files: Vec<PathBuf>,
    /// The event feed.
    pub feed: Feed,
    /// Where events come from and how long they stay.
    pub events: Events,
    /// The audit log.
    pub audit: Audit,
    /// What is doubted about a refund.
    pub guards: Guards,
    /// How much may be moved.
    pub budgets: Vec<Budget>,
    /// Logs and traces.
    pub telemetry: Telemetry,
    /// What was read, so that a later reading can tell what has changed.
    pub source: Source,
}

impl Config {
    /// Whether any account is of live mode.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.mode == Mode::Live || self.accounts.iter().any(|account| account.mode == Mode::Live)
    }
}

/// How Stripe is reached.
#[derive(Clone, Debug)]
pub struct Stripe {
    /// Secret or restricted keys of one account; the first is used as long as Stripe takes it. Never empty.
    pub keys: Vec<Secret>,
    /// Base URL of the API, without a slash at the end.
    pub api_base: String,
    /// Base URL of file uploads, without a slash at the end.
    pub files_base: String,
    /// Longest that one HTTP attempt may take.
    pub attempt_timeout: Duration,
    /// Longest that a connection may take to come up.
    pub connect_timeout: Duration,
}

/// How much goes to each Stripe account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Requests a second; what Stripe lets through in the account's mode where nothing is said.
    pub requests_per_s: Option<u32>,
    /// Requests a second to one endpoint.
    pub endpoint_requests_per_s: u32,
    /// Requests under way at once.
    pub requests_at_once_max: u32,
}

/// A Stripe account beside the default one.
#[derive(Clone, Debug)]
pub struct AccountConfig {
    /// Its name in requests.
    pub alias: String,
    /// Test or live, as all of its keys are.
    pub mode: Mode,
    /// Its keys, or those of the platform that it is connected to; the first is used as long as Stripe takes it.
    pub keys: Vec<Secret>,
    /// Signing secrets of its webhook endpoints; never empty.
    pub webhook_secrets: Vec<Secret>,
    /// Which account it is, if not that of the keys.
    pub header: AccountHeader,
}

/// How webhooks are trusted.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Signing secrets that are valid at the moment; never empty.
    pub secrets: Vec<Secret>,
}

/// Where the gateway listens; port 0 takes any free port.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// gRPC.
    pub grpc: SocketAddr,
    /// Webhooks over HTTP.
    pub webhook: SocketAddr,
    /// Health and metrics over HTTP.
    pub ops: SocketAddr,
    /// Open connections on each port.
    pub connections_max: usize,
    /// Open connections on each port from one address.
    pub connections_per_address_max: usize,
    /// Calls of the contract that may be under way at once.
    pub calls_in_flight_max: usize,
    /// How long everything is still served after the gateway has said that it is going.
    pub lame_duck: Duration,
    /// How long calls that were accepted may take to finish after that.
    pub grace: Duration,
}

/// TLS. What the files hold is read when a gateway starts, and anew when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The gateway's certificate chain, PEM.
    pub certificate_file: PathBuf,
    /// The certificate's private key, PEM.
    pub key_file: PathBuf,
    /// Authorities of callers' certificates, PEM.
    pub client_ca_files: Vec<PathBuf>,
    /// Revocation lists of these authorities, PEM.
    pub client_crl_files: Vec<PathBuf>,
    /// Whether callers present certificates on the gRPC port.
    pub client_certificates: ClientCertificates,
    /// Whether webhooks come over TLS too.
    pub webhook: bool,
    /// Whether operators look over TLS too.
    pub ops: bool,
}

/// Whether callers present certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for one.
    Off,
    /// They are asked, and may have none.
    Optional,
    /// They are not let in without one.
    Required,
}

/// The event feed.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    /// Longest that a quiet stream goes without a checkpoint.
    pub checkpoint_interval: Duration,
}

/// Where events come from and how long they stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// How events come in.
    pub mode: EventsMode,
    /// How long events stay in the log, unless they are still to be read.
    pub retention_days: u32,
    /// Size at which the log loses its oldest events before their time, unless they are still to be read.
    pub retention_bytes: u64,
    /// Age at which an event leaves the log whether a named subscription has acknowledged it or not; at least
    /// `retention_days`.
    pub retention_hard_days: u32,
    /// Time between two readings of Stripe's own list.
    pub sweep_every: Duration,
    /// How much of what was read before is read again.
    pub sweep_overlap: Duration,
    /// Types of events to ask Stripe for; all of them where none is named.
    pub sweep_types: Vec<String>,
    /// Most requests that such readings make in a day, over all accounts.
    pub sweep_reads_per_day: usize,
    /// What is kept of a thin event.
    pub thin: Thin,
    /// Bytes of recent events that all streams share in memory.
    pub memory_bytes: usize,
}

/// How events come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsMode {
    /// Stripe delivers them.
    Webhook,
    /// The gateway reads Stripe's list; it listens to nobody for them.
    Poll,
}

/// What is kept of a thin event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thin {
    /// What was delivered.
    AsDelivered,
    /// That, and what Stripe answers when asked for it.
    Fetch,
}

/// The audit log.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Where checkpoints are appended, if not in the data folder.
    pub checkpoint_file: Option<PathBuf>,
    /// The private key that signs, if not that of the data folder.
    pub signing_key: Option<SigningKey>,
    /// How long records are kept.
    pub retention_days: u32,
}

/// An Ed25519 private key; it does not show in its `Debug` form.
#[derive(Clone, Debug)]
pub struct SigningKey(pub Arc<SecretBox<[u8; 32]>>);

/// What follows from a doubt about a refund, doubt by doubt.
#[derive(Clone, Copy, Debug)]
pub struct Guards {
    /// More would go back than was paid.
    pub over_refund: GuardMode,
    /// The payment is disputed.
    pub open_dispute: GuardMode,
}

/// What follows from a doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardMode {
    /// It is not looked into.
    Off,
    /// The refund is sent, and the answer speaks of it.
    #[default]
    Advise,
    /// The refund is not sent.
    Refuse,
}

/// How much each caller that it names, or for each order, may be moved within a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its name. What was taken stays counted as long as the name stays.
    pub name: String,
    /// The callers whom it concerns, each of whom has the whole amount for itself.
    pub callers: Vec<String>,
    /// The groups whose members it concerns likewise. Everybody where neither callers nor groups are named.
    pub groups: Vec<String>,
    /// The RPCs that it concerns, `Service.Rpc`; all that move money where none is named.
    pub rpcs: Vec<String>,
    /// Lower-case three-letter code.
    pub currency: String,
    /// The time that it counts over.
    pub window: BudgetWindow,
    /// The most, in the currency's smallest unit.
    pub amount: i64,
}

/// The time that a budget counts over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetWindow {
    /// The last 24 hours.
    RollingDay,
    /// The month, by UTC.
    CalendarMonth,
    /// Not a time but an order: all that is ever moved for it, whoever asks.
    Order,
}

impl BudgetWindow {
    /// The window as settings name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RollingDay => "rolling_day",
            Self::CalendarMonth => "calendar_month",
            Self::Order => "order",
        }
    }
}

/// Logs and traces.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// OTLP receiver over gRPC, if traces are wanted.
    pub otlp_endpoint: Option<String>,
    /// Which log lines are written.
    pub log: String,
    /// How they look.
    pub log_format: LogFormat,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// JSON.
    Json,
    /// Text.
    Text,
}

/// Settings from the command line; they win over everything else.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The file to read instead of `tollgate.toml`.
    pub config: Option<PathBuf>,
    /// Keys of [`KEYS`] with their values.
    pub values: Vec<(&'static str, String)>,
}

/// Reads the settings: defaults, then the file, then the environment, then the flags; the later wins.
///
/// # Errors
/// With every fault there is, not only the first.
pub fn load(flags: &Flags, environment: &Environment) -> Result<Config, Faults> {
    Loader::new(flags.clone(), environment.clone()).load().config
}
