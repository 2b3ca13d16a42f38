//! Why a call failed, as the pipeline says it: code, reason and details, without any word of the transport.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::contract::Violation;
pub use crate::proto::v1::ErrorReason as Reason;

/// The canonical codes that the gateway answers with (grpc.io/docs/guides/status-codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request itself is wrong.
    InvalidArgument,
    /// The deadline passed.
    DeadlineExceeded,
    /// There is no such thing.
    NotFound,
    /// The reference names another change.
    AlreadyExists,
    /// No rule lets the caller.
    PermissionDenied,
    /// A limit was reached.
    ResourceExhausted,
    /// The state of something forbids it.
    FailedPrecondition,
    /// A conflict with another call.
    Aborted,
    /// Beyond what there is.
    OutOfRange,
    /// Not in this gateway.
    Unimplemented,
    /// A fault that the caller cannot mend.
    Internal,
    /// Not now.
    Unavailable,
    /// Nobody knows the caller.
    Unauthenticated,
}

impl Code {
    /// The code's name in the gRPC specification.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// Whether sending the same again can help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// Nothing is said.
    #[default]
    Unsaid,
    /// It can, after this long.
    After(Duration),
    /// It cannot.
    Never,
}

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The canonical code.
    pub code: Code,
    /// The stable reason.
    pub reason: Reason,
    /// For the caller; holds no secret and no body.
    pub message: String,
    /// Whether Stripe's answer decided, rather than the gateway.
    pub by_stripe: bool,
    /// Facts for programs.
    pub metadata: BTreeMap<String, String>,
    /// Fields that are wrong.
    pub violations: Vec<Violation>,
    /// What forbids it: type and subject.
    pub precondition: Option<(String, String)>,
    /// Which limit was reached.
    pub quota: Option<String>,
    /// What does not exist: type and name.
    pub resource: Option<(String, String)>,
    /// Whether to send the same again.
    pub retry: Retry,
    /// Stripe's request id.
    pub stripe_request_id: Option<String>,
    /// Id of the call's audit record.
    pub audit_id: Option<String>,
    /// A page of Stripe's about it.
    pub help: Option<String>,
}

impl Fault {
    /// A fault with nothing but its code, reason and message.
    #[must_use]
    pub fn new(code: Code, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            by_stripe: false,
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            precondition: None,
            quota: None,
            resource: None,
            retry: Retry::Unsaid,
            stripe_request_id: None,
            audit_id: None,
            help: None,
        }
    }

    /// A request that breaks the contract's rules.
    #[must_use]
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let summary: Vec<String> =
            violations.iter().take(3).map(|one| format!("`{}` {}", one.field, one.description)).collect();
        let more = match violations.len().saturating_sub(summary.len()) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let message = format!("{}{more}", summary.join("; "));
        Self { violations, ..Self::new(Code::InvalidArgument, Reason::InvalidRequest, message) }
            .retry(Retry::Never)
    }

    /// One field that is wrong.
    #[must_use]
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid(vec![Violation { field: field.into(), description: description.into() }])
    }

    /// The same with another word on retries.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The same with one more fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// The reason as it stands in `ErrorInfo`.
    #[must_use]
    pub fn reason_name(&self) -> &'static str {
        self.reason.as_str_name().trim_start_matches("ERROR_REASON_")
    }
}
