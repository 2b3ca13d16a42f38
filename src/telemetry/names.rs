//! Every name that a dashboard or an alert may hold on to: metrics, their labels and label values. A golden test keeps
//! them as they are.

/// Duration of one gRPC call, seconds (opentelemetry.io/docs/specs/semconv/rpc).
pub const RPC_DURATION: &str = "rpc.server.call.duration";
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
/// Webhook deliveries, by what became of them.
pub const WEBHOOKS: &str = "tollgate.webhook.deliveries";
/// Events appended to the feed.
pub const EVENTS_APPENDED: &str = "tollgate.events.appended";
/// Calls by nobody who is known, by cause.
pub const STRANGERS: &str = "tollgate.identity.strangers";
/// Open event streams.
pub const SUBSCRIBERS: &str = "tollgate.events.subscribers";
/// Audit records of reads that were given up because too many waited.
pub const AUDIT_DROPPED: &str = "tollgate.audit.lazy_dropped";
/// Audit records that no signed checkpoint covers yet; it stays above nought when nothing is signed any more.
pub const AUDIT_UNSIGNED: &str = "tollgate.audit.unsigned";
/// Rights that a restricted key of Stripe's lacks, by account and right.
pub const STRIPE_RIGHTS_MISSING: &str = "tollgate.stripe.rights_missing";
/// Failed operations of the store.
pub const STORE_ERRORS: &str = "tollgate.store.errors";

/// Open connections, by port.
pub const CONNECTIONS_OPEN: &str = "tollgate.connections.open";
/// Connections that were refused or cut, by port and reason.
pub const CONNECTIONS_CUT: &str = "tollgate.connections.cut";
/// When the certificate of the gateway ends, in seconds of Unix time.
pub const CERTIFICATE_END: &str = "tollgate.tls.certificate_end";

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
/// Which kind of failure.
pub const LABEL_KIND: &str = "tollgate.kind";

/// Which port.
pub const LABEL_PORT: &str = "tollgate.port";
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
}

impl Cut {
    /// All values.
    pub const ALL: [Self; 8] = [
        Self::Address,
        Self::Full,
        Self::Crowded,
        Self::Handshake,
        Self::Certificate,
        Self::Slow,
        Self::Protocol,
        Self::Flood,
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
        }
    }
}
