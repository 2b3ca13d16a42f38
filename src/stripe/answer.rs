//! What came back, or why nothing did. Names and facts only: it holds no judgement and no secret.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::error::StripeError;
use super::traffic::Why;

/// A complete HTTP response. Its `Debug` leaves the body out, which may hold personal data.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Request-Id`, Stripe's name of the request.
    pub request_id: Option<String>,
    /// Whether Stripe answered from its memory of the idempotency key (`Idempotent-Replayed: true`).
    pub replayed: bool,
    /// `Stripe-Should-Retry`, when it says either way.
    pub should_retry: Option<bool>,
    /// `Stripe-Rate-Limited-Reason`: which limiter refused. A 429 without it is a lock on the object.
    pub rate_limited_reason: Option<String>,
    /// `Retry-After`, when given in seconds. Stripe does not document it for this API.
    pub retry_after: Option<Duration>,
    /// `Date`: when it was answered, by the clock of the other side, in seconds since the Unix epoch.
    pub date_s: Option<i64>,
    /// The body, whole, and no larger than the limit for answers.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `None` when it is something else, such as a proxy's page.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The error that the body carries, if it carries one.
    #[must_use]
    pub fn error(&self) -> Option<StripeError> {
        StripeError::parse(&self.body)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Answer")
            .field("status", &self.status)
            .field("request_id", &self.request_id)
            .field("replayed", &self.replayed)
            .field("should_retry", &self.should_retry)
            .field("rate_limited_reason", &self.rate_limited_reason)
            .field("retry_after", &self.retry_after)
            .field("date_s", &self.date_s)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// One try, from connecting to the last byte of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// There is a whole answer.
    Answered(Answer),
    /// No request that Stripe could carry out was written, for certain: not one byte of its body, or of all of it.
    NotSent(Trouble),
    /// Some of the request may have reached Stripe, and its effect is unknown.
    Broken(Trouble),
}

/// Why an attempt has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The host's name has no address.
    #[error("the name of the host could not be resolved")]
    Dns,
    /// No connection came about in time, or it was refused.
    #[error("no connection could be made")]
    Connect,
    /// The other side does not speak TLS, or its certificate is not trusted.
    #[error("no trusted TLS connection could be made")]
    Tls,
    /// The host did not answer of late, so it is left alone for a while.
    #[error("it did not answer of late and is left alone for a while")]
    BreakerOpen {
        /// For how long, in milliseconds.
        retry_ms: u32,
    },
    /// The deadline left no room for an attempt, or the right to send had run out when the connection stood.
    #[error("the deadline passed before anything was sent")]
    Deadline,
    /// Too much else wants to go to the account, so there was no turn for it.
    #[error("too many requests wait for Stripe's rate limit")]
    Crowded {
        /// Why there was no turn.
        why: Why,
        /// When there may be one, in milliseconds.
        retry_ms: u32,
    },
    /// The request cannot be expressed in HTTP as it stands.
    #[error("the request cannot be sent as it is")]
    Unsendable,
    /// The answer was not complete when the time of an attempt was over.
    #[error("the answer did not come in time")]
    Timeout,
    /// The connection ended before the answer did.
    #[error("the connection broke before the answer was complete")]
    Reset,
    /// The answer is larger than the limit.
    #[error("the answer is too large")]
    TooLarge,
    /// What came back is not HTTP.
    #[error("the answer is not HTTP")]
    Protocol,
}

impl Trouble {
    /// The trouble's name in traces, metrics and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::Deadline => "deadline",
            Self::Crowded { .. } => "crowded",
            Self::Unsendable => "unsendable",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
        }
    }

    /// Whether it came of what its sender alone lacked, time or a turn: another one who wants the same may do better.
    #[must_use]
    pub fn is_its_senders(self) -> bool {
        match self {
            Self::Deadline => true,
            Self::Crowded { why, .. } => why != Why::Full,
            Self::Dns
            | Self::Connect
            | Self::Tls
            | Self::BreakerOpen { .. }
            | Self::Unsendable
            | Self::Timeout
            | Self::Reset
            | Self::TooLarge
            | Self::Protocol => false,
        }
    }
}

/// All attempts of one call, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Never empty: a call that could not even begin holds one [`Attempt::NotSent`].
    pub attempts: Vec<Attempt>,
    /// How long they waited for their turns.
    pub queued: Duration,
}

impl Sent {
    /// How it ended.
    #[must_use]
    pub fn last(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// How many requests reached the wire, as far as is known.
    #[must_use]
    pub fn requests(&self) -> i32 {
        let sent = self.attempts.iter().filter(|attempt| !matches!(attempt, Attempt::NotSent(_)));
        i32::try_from(sent.count()).unwrap_or(i32::MAX)
    }

    /// The answer it ended with, if it ended with one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self.last() {
            Some(Attempt::Answered(answer)) => Some(answer),
            Some(Attempt::NotSent(_) | Attempt::Broken(_)) | None => None,
        }
    }
}
