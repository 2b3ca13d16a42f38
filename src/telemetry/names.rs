//! Every name that a dashboard or an alert may hold on to: metrics, their labels and label values. A golden test keeps
//! them as they are.

mod side;
mod stage;

pub use self::side::{Side, failure};
pub use self::stage::Stage;

/// Duration of one gRPC call, seconds (opentelemetry.io/docs/specs/semconv/rpc).
pub const RPC_DURATION: &str = "rpc.server.call.duration";
/// Calls of the contract that failed, by the side that the cause lies on and the reason.
pub const CALLS_FAILED: &str = "tollgate.calls.failed";
/// Duration of one stage of a change, seconds, by stage.
pub const CALL_STAGE_DURATION: &str = "tollgate.call.stage.duration";
/// Duration of one HTTP attempt at Stripe, seconds (opentelemetry.io/docs/specs/semconv/http).
pub const STRIPE_DURATION: &str = "http.client.request.duration";
/// HTTP attempts at Stripe that repeat an earlier one.
pub const STRIPE_RESENDS: &str = "tollgate.stripe.resends";
/// Answers of Stripe that refuse an API key.
pub const STRIPE_KEYS_REFUSED: &str = "tollgate.stripe.keys_refused";
/// Readings of the settings while running, by what became of them.
pub const CONFIG_RELOADS: &str = "tollgate.config.reloads";
/// Whether the settings as they stand could not be taken, so that older ones are in use: 0 or 1.
pub const CONFIG_RELOAD_FAILED: &str = "tollgate.config.reload_failed";
/// Changes answered from the ledger.
pub const REPLAYS: &str = "tollgate.ledger.replays";
/// Changes whose outcome could not be told.
pub const UNKNOWN_OUTCOMES: &str = "tollgate.ledger.unknown_outcomes";
/// Unknown outcomes that were found out, by the way.
pub const RESOLUTIONS: &str = "tollgate.ledger.resolutions";
/// Operations that are not settled, by state.
pub const UNRESOLVED: &str = "tollgate.ledger.unresolved";
/// Freezes of changes that stand.
pub const FREEZES: &str = "tollgate.freezes";
/// Changes that did not fit into a budget, by budget.
pub const BUDGET_REFUSALS: &str = "tollgate.budget.refusals";
/// How much of a budget the caller who used it most has used or holds, in the currency's smallest unit.
pub const BUDGET_USED: &str = "tollgate.budget.used";
/// What a budget allows each caller, in the currency's smallest unit.
pub const BUDGET_LIMIT: &str = "tollgate.budget.limit";
/// Webhook deliveries, by what became of them.
pub const WEBHOOKS: &str = "tollgate.webhook.deliveries";
/// Age of events when a webhook brought them, seconds.
pub const WEBHOOK_AGE: &str = "tollgate.webhook.age";
/// Events appended to the feed.
pub const EVENTS_APPENDED: &str = "tollgate.events.appended";
/// Events that a request past the gateway caused, by account.
pub const EVENTS_OUTSIDE: &str = "tollgate.events.outside";
/// Requests to Stripe for its own list of events.
pub const SWEEP_READS: &str = "tollgate.events.sweep_reads";
/// Events that were missing from the log until such a reading.
pub const EVENTS_REPAIRED: &str = "tollgate.events.repaired";
/// Events that a named subscription lets through and nobody of it may be shown.
pub const EVENTS_PASSED_OVER: &str = "tollgate.events.passed_over";
/// Up to when the log was compared with Stripe's list, in seconds of Unix time, by account.
pub const EVENTS_SWEPT_TO: &str = "tollgate.events.swept_to";
/// Bytes of the events that the log has.
pub const EVENTS_LOG_BYTES: &str = "tollgate.events.log_bytes";
/// Age of the oldest event that the log has, in seconds.
pub const EVENTS_OLDEST_AGE: &str = "tollgate.events.oldest_age";
/// Events in another version of Stripe's than the contract's, by account.
pub const EVENTS_OTHER_VERSION: &str = "tollgate.events.other_version";
/// Calls by nobody who is known, by cause.
pub const STRANGERS: &str = "tollgate.identity.strangers";
/// Open event streams.
pub const SUBSCRIBERS: &str = "tollgate.events.subscribers";
/// Events that a named subscription has still to have acknowledged; by subscription.
pub const SUBSCRIPTION_LAG: &str = "tollgate.events.subscription.lag";
/// How long ago the earliest of them was received, in seconds; by subscription.
pub const SUBSCRIPTION_LAG_TIME: &str = "tollgate.events.subscription.lag.time";
/// Calls that policies denied, by the rule that decided.
pub const DENIALS: &str = "tollgate.policy.denials";
/// Audit records that were appended, those of earlier runs too.
pub const AUDIT_RECORDS: &str = "tollgate.audit.records";
/// Audit records of reads that were given up because too many waited.
pub const AUDIT_DROPPED: &str = "tollgate.audit.lazy_dropped";
/// Audit records that no signed checkpoint covers yet; it stays above nought when nothing is signed any more.
pub const AUDIT_UNSIGNED: &str = "tollgate.audit.unsigned";
/// Rights that a restricted key of Stripe's lacks, by account and right.
pub const STRIPE_RIGHTS_MISSING: &str = "tollgate.stripe.rights_missing";
/// How long requests waited for their turn at Stripe, seconds, by class.
pub const QUEUE_WAIT: &str = "tollgate.stripe.queue.wait";
/// Requests that wait for their turn, by account.
pub const QUEUE_WAITING: &str = "tollgate.stripe.queue.waiting";
/// Requests that found no turn in time and were not sent, by class and reason.
pub const QUEUE_REFUSALS: &str = "tollgate.stripe.queue.refusals";
/// Reads that were answered by the same request as another one's.
pub const SHARED_READS: &str = "tollgate.stripe.reads.shared";
/// Requests that are under way at Stripe, by account.
pub const STRIPE_IN_FLIGHT: &str = "tollgate.stripe.in_flight";
/// Requests a second that may go to Stripe: what is configured, and less after Stripe's refusals; by account.
pub const STRIPE_LIMIT: &str = "tollgate.stripe.limit";
/// Part of that limit that was not used over the last seconds, from 0 to 1; by account.
pub const STRIPE_HEADROOM: &str = "tollgate.stripe.headroom";
/// How the breaker before a host of Stripe's stands, by account, host and state: 1 on the state that holds.
pub const STRIPE_BREAKER: &str = "tollgate.stripe.breaker";
/// Attempts at Stripe that were not made because the breaker is open, by account and host.
pub const STRIPE_BREAKER_REFUSALS: &str = "tollgate.stripe.breaker_refusals";
/// Further attempts at Stripe that the retry budget did not allow, by account.
pub const STRIPE_RETRIES_REFUSED: &str = "tollgate.stripe.retries_refused";
/// Further attempts at Stripe that the retry budget allows now, by account.
pub const STRIPE_RETRY_BUDGET: &str = "tollgate.stripe.retry_budget";
/// Time until rows were durable, waiting included, seconds.
pub const COMMIT_DURATION: &str = "tollgate.store.commit.duration";
/// Failed operations of the store.
pub const STORE_ERRORS: &str = "tollgate.store.errors";

/// Calls that are under way.
pub const CALLS_IN_FLIGHT: &str = "tollgate.calls.in_flight";
/// Calls that may be under way; fewer while the gateway is behind.
pub const CALLS_IN_FLIGHT_MAX: &str = "tollgate.calls.in_flight_max";
/// Calls that were refused at the door, by reason.
pub const CALLS_SHED: &str = "tollgate.calls.shed";
/// How late the gateway gets to work that is ready, in seconds: the least of a moment, so that a burst does not show.
pub const RUNTIME_LAG: &str = "tollgate.runtime.lag";

/// Open connections, by port.
pub const CONNECTIONS_OPEN: &str = "tollgate.connections.open";
/// Connections that were refused or cut, by port and reason.
pub const CONNECTIONS_CUT: &str = "tollgate.connections.cut";
/// When the certificate of the gateway ends, in seconds of Unix time.
pub const CERTIFICATE_END: &str = "tollgate.tls.certificate_end";
/// Resident memory of the process, bytes (opentelemetry.io/docs/specs/semconv/system/process-metrics).
pub const MEMORY_USAGE: &str = "process.memory.usage";

/// gRPC method, `package.Service/Method`.
pub const LABEL_RPC_METHOD: &str = "rpc.method";
/// Which RPC system.
pub const LABEL_RPC_SYSTEM: &str = "rpc.system.name";
/// gRPC status, such as `OK`.
pub const LABEL_RPC_STATUS: &str = "rpc.response.status_code";
/// HTTP method.
pub const LABEL_HTTP_METHOD: &str = "http.request.method";
/// Path template at Stripe.
pub const LABEL_URL_TEMPLATE: &str = "url.template";
/// HTTP status.
pub const LABEL_HTTP_STATUS: &str = "http.response.status_code";
/// Why there is no HTTP status.
pub const LABEL_ERROR_TYPE: &str = "error.type";
/// What became of something.
pub const LABEL_RESULT: &str = "tollgate.result";
/// Where an operation stands.
pub const LABEL_STATE: &str = "tollgate.state";
/// By which way something was found out.
pub const LABEL_WAY: &str = "tollgate.way";
/// Alias of a Stripe account.
pub const LABEL_ACCOUNT: &str = "tollgate.account";
/// A right of a key, `resource:access`.
pub const LABEL_RIGHT: &str = "tollgate.right";
/// Name of a budget, which the settings give.
pub const LABEL_BUDGET: &str = "tollgate.budget";
/// Name of a rule, which the policies give.
pub const LABEL_RULE: &str = "tollgate.rule";
/// A named subscription: its namespace and its name, with a slash between.
pub const LABEL_SUBSCRIPTION: &str = "tollgate.subscription";
/// How urgent a request to Stripe is.
pub const LABEL_CLASS: &str = "tollgate.class";
/// Which kind of failure.
pub const LABEL_KIND: &str = "tollgate.kind";

/// Which of Stripe's hosts.
pub const LABEL_HOST: &str = "tollgate.host";
/// Which port.
pub const LABEL_PORT: &str = "tollgate.port";
/// On whose side the cause of a failure lies.
pub const LABEL_SIDE: &str = "tollgate.side";
/// A stage of a call.
pub const LABEL_STAGE: &str = "tollgate.stage";
/// Why something was done.
pub const LABEL_REASON: &str = "tollgate.reason";

/// What stands for a value outside the known ones, so that nobody can make up time series.
pub const OTHER: &str = "_OTHER";

/// gRPC status names by number (grpc.io/docs/guides/status-codes).
const RPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a gRPC status by its number; [`OTHER`] for a number that is none.
#[must_use]
pub fn rpc_status(code: i32) -> &'static str {
    usize::try_from(code).ok().and_then(|code| RPC_STATUS.get(code)).unwrap_or(&OTHER)
}

/// Whether a status says that the server failed, rather than that the caller asked for the wrong thing; the line is
/// that of the RPC conventions.
#[must_use]
pub fn is_server_fault(code: i32) -> bool {
    matches!(
        rpc_status(code),
        "UNKNOWN" | "DEADLINE_EXCEEDED" | "UNIMPLEMENTED" | "INTERNAL" | "UNAVAILABLE" | "DATA_LOSS" | OTHER
    )
}

/// What the ledger answered from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The first answer was a success.
    Success,
    /// The first answer was a refusal of Stripe's.
    Refusal,
}

impl Replay {
    /// All values.
    pub const ALL: [Self; 2] = [Self::Success, Self::Refusal];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refusal => "refusal",
        }
    }
}

/// How an unknown outcome was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A caller sent the same again.
    Resend,
    /// A look at Stripe.
    Look,
    /// An event.
    Event,
    /// An operator's word.
    Operator,
}

impl Way {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Resend, Self::Look, Self::Event, Self::Operator];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resend => "resend",
            Self::Look => "look",
            Self::Event => "event",
            Self::Operator => "operator",
        }
    }
}

/// What became of a webhook delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    /// Stored as a new event.
    Accepted,
    /// Known already.
    Duplicate,
    /// The signature is missing or wrong.
    BadSignature,
    /// Signed too long ago.
    Stale,
    /// Signed in the future.
    Future,
    /// The body is over the limit.
    TooLarge,
    /// Signed, but not an event in JSON.
    NotJson,
    /// Signed, but of the other mode.
    WrongMode,
    /// Signed, but of a connected account that the endpoint is not for.
    WrongAccount,
    /// The body broke off or took too long.
    Incomplete,
    /// Too many deliveries were under way.
    Busy,
    /// Valid, but it could not be stored.
    StoreError,
}

impl Webhook {
    /// All values.
    pub const ALL: [Self; 12] = [
        Self::Accepted,
        Self::Duplicate,
        Self::BadSignature,
        Self::Stale,
        Self::Future,
        Self::TooLarge,
        Self::NotJson,
        Self::WrongMode,
        Self::WrongAccount,
        Self::Incomplete,
        Self::Busy,
        Self::StoreError,
    ];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::BadSignature => "bad_signature",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::WrongMode => "wrong_mode",
            Self::WrongAccount => "wrong_account",
            Self::Incomplete => "incomplete",
            Self::Busy => "busy",
            Self::StoreError => "store_error",
        }
    }
}

/// How the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFailure {
    /// Too much is waiting.
    Busy,
    /// No space is left.
    Full,
    /// The database cannot be written.
    ReadOnly,
    /// The disk failed.
    Io,
    /// What was read makes no sense.
    Corrupt,
    /// A commit whose result is unknown.
    Uncertain,
    /// Anything else.
    Other,
}

impl StoreFailure {
    /// All values.
    pub const ALL: [Self; 7] =
        [Self::Busy, Self::Full, Self::ReadOnly, Self::Io, Self::Corrupt, Self::Uncertain, Self::Other];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Io => "io",
            Self::Corrupt => "corrupt",
            Self::Uncertain => "uncertain",
            Self::Other => "other",
        }
    }
}

/// What the gateway listens for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Calls.
    Grpc,
    /// Webhooks.
    Webhook,
    /// Operators.
    Ops,
}

impl Port {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Grpc, Self::Webhook, Self::Ops];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Webhook => "webhook",
            Self::Ops => "ops",
        }
    }
}

/// Why a connection was refused or cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its address has too many.
    Address,
    /// There are too many, and each is in use.
    Full,
    /// It was unused, and another needed its place.
    Crowded,
    /// TLS could not be agreed on.
    Handshake,
    /// Its certificate is not vouched for any more.
    Certificate,
    /// It took too long to begin, to send headers or to give a sign of life.
    Slow,
    /// It broke the rules of HTTP.
    Protocol,
    /// It sent control frames without end.
    Flood,
    /// It was past its age, and nothing of the contract was open on it.
    Old,
}

impl Cut {
    /// All values.
    pub const ALL: [Self; 9] = [
        Self::Address,
        Self::Full,
        Self::Crowded,
        Self::Handshake,
        Self::Certificate,
        Self::Slow,
        Self::Protocol,
        Self::Flood,
        Self::Old,
    ];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Full => "full",
            Self::Crowded => "crowded",
            Self::Handshake => "handshake",
            Self::Certificate => "certificate",
            Self::Slow => "slow",
            Self::Protocol => "protocol",
            Self::Flood => "flood",
            Self::Old => "old",
        }
    }
}

/// How a circuit breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything is let through.
    Closed,
    /// One attempt was let through, to find out.
    HalfOpen,
    /// Nothing is let through.
    Open,
}

impl BreakerState {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Why a call was refused at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// As many calls are under way as the gateway takes.
    Full,
    /// The caller has its share of them.
    Share,
}

impl Shed {
    /// All values.
    pub const ALL: [Self; 2] = [Self::Full, Self::Share];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Share => "share",
        }
    }
}
