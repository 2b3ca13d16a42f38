//! The words in which a subscription is spoken to and answers; no rule is among them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::clock::UnixMillis;

/// How a subscription delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivering {
    /// How long a consumer has for an event, in milliseconds.
    pub lease_ms: i64,
    /// Most events out at once.
    pub in_flight_max: usize,
    /// Most bytes out at once, beyond the first event.
    pub in_flight_bytes_max: usize,
    /// Deliveries after which an event is parked.
    pub attempts_max: u32,
}

/// What has to be known of an event to deliver it in its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The object whose events keep their order; empty for none.
    pub object: Arc<str>,
    /// Its type, by which consumers may be shown it or not.
    pub kind: Arc<str>,
    /// Size of its JSON.
    pub bytes: usize,
    /// When it was received.
    pub received_ms: UnixMillis,
}

/// Who takes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taker {
    /// The stream; no two have the same.
    pub stream: u64,
    /// The consumer's name; empty for none.
    pub name: Arc<str>,
    /// Most events that the stream may have out.
    pub in_flight_max: usize,
}

/// An event that goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its position.
    pub position: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Which replay it is part of; 0 for none.
    pub replay: u32,
    /// When its lease ends, by the wall clock.
    pub lease_end_ms: UnixMillis,
}

/// What shall become of an event that a consumer could not deal with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver it again after so many milliseconds.
    RetryAfter(i64),
    /// Set it aside.
    Park,
    /// Count it as dealt with.
    Skip,
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// The subscription was moved or made anew.
    #[error("the subscription was moved or made anew since, or the log was restored from a copy")]
    Generation,
    /// The event went out again, or is about to.
    #[error("the lease ended, and the event goes out again")]
    DeliveredAgain,
    /// The event is parked.
    #[error("the event is parked")]
    Parked,
    /// The event has been dealt with.
    #[error("the event was answered before")]
    Answered,
}

/// A part of the log that was gone before it was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Position of the first event that may be lost.
    pub first: u64,
    /// Position of the last one.
    pub last: u64,
}

/// An event that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// How often it was delivered.
    pub attempts: u32,
    /// Which replay it is part of; 0 for none.
    #[serde(default)]
    pub replay: u32,
    /// Why.
    pub reason: String,
    /// When.
    pub at_ms: UnixMillis,
}
