//! What the ledger remembers of one operation, and its stored form. It decides nothing.

use serde::{Deserialize, Serialize};

use crate::domain::clock::UnixMillis;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::operation::Operation;
use crate::stripe::{Outgoing, StripeError};

/// Version of the stored form.
const VERSION: u8 = 1;

/// The newest entry of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u8,
    /// Whose entry it is.
    pub operation: Operation,
    /// Which try: 1 at first, one more after each proof that nothing happened. Each has its own idempotency key.
    pub generation: u32,
    /// What was asked for.
    pub fingerprint: Fingerprint,
    /// When Stripe can first have seen this generation's key.
    pub first_sent_ms: UnixMillis,
    /// When the entry was written; never before an earlier entry of the operation.
    pub last_ms: UnixMillis,
    /// Where it stands.
    pub state: State,
}

/// Where an operation stands. The exact request is kept as long as it may be sent again, and no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing happened, and nothing that was sent can still take effect.
    Open(Outgoing),
    /// About to be sent or on its way; without a live flight in this process, as unknown as [`State::Unknown`].
    InFlight {
        /// What is sent.
        outgoing: Outgoing,
        /// Whether an earlier attempt of this generation may have taken effect.
        ambiguous: bool,
    },
    /// It may have taken effect.
    Unknown {
        /// What was sent.
        outgoing: Outgoing,
        /// Stripe knows the key with other bytes: sending it again teaches nothing.
        conflict: bool,
    },
    /// It may have taken effect, and no resend can tell any more.
    NeedsOperator {
        /// What was sent.
        outgoing: Outgoing,
        /// Why.
        why: Stuck,
    },
    /// Stripe's answer is known.
    Settled(Settled),
}

/// Why an unknown outcome is not found out by sending again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stuck {
    /// Stripe may have forgotten the key, and would carry the change out again.
    Expired,
    /// Stripe knows the key with other bytes.
    KeyConflict,
}

/// A proven outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// The change took effect, for good.
    Succeeded(Success),
    /// Nothing happened.
    Refused(Refusal),
}

/// Stripe's answer to a change that took effect.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// The answer as it came.
    pub json: String,
    /// `Request-Id` of the attempt that brought it.
    pub request_id: Option<String>,
    /// Id of the object; `None` for the few that have none.
    pub object_id: Option<String>,
}

/// Stripe's answer to a change that it refused.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The error as it came.
    pub body: String,
    /// `Request-Id` of the attempt that brought it.
    pub request_id: Option<String>,
}

impl Refusal {
    /// The error that the body carries.
    #[must_use]
    pub fn error(&self) -> StripeError {
        StripeError::parse(self.body.as_bytes()).unwrap_or_default()
    }
}

/// Answers hold personal data, so `Debug` leaves them out.
impl std::fmt::Debug for Success {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { json, request_id, object_id } = self;
        write!(out, "Success({} bytes, {request_id:?}, {object_id:?})", json.len())
    }
}

impl std::fmt::Debug for Refusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, body, request_id } = self;
        write!(out, "Refusal({status}, {} bytes, {request_id:?})", body.len())
    }
}

/// A stored entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It was written by a later version.
    #[error("the entry has version `{0}`, which this version does not know")]
    TooNew(u8),
    /// It is damaged.
    #[error("the entry is damaged")]
    Damaged(#[source] serde_json::Error),
}

impl Record {
    /// An entry in the form of today.
    #[must_use]
    pub fn new(
        operation: Operation,
        generation: u32,
        fingerprint: Fingerprint,
        (first_sent_ms, last_ms): (UnixMillis, UnixMillis),
        state: State,
    ) -> Self {
        Self { version: VERSION, operation, generation, fingerprint, first_sent_ms, last_ms, state }
    }

    /// The next entry of the same generation.
    #[must_use]
    pub fn moved_to(self, state: State, now: UnixMillis) -> Self {
        Self { state, last_ms: self.last_ms.max(now), ..self }
    }

    /// The stored form; an upload's bytes are not part of it.
    ///
    /// # Errors
    /// Never for an entry as it is made here; the encoder can report one all the same.
    pub fn encode(&self) -> Result<Vec<u8>, Unreadable> {
        serde_json::to_vec(self).map_err(Unreadable::Damaged)
    }

    /// Reads an entry back.
    ///
    /// # Errors
    /// When the bytes are no entry, or one of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Version {
            version: u8,
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(Unreadable::Damaged)?;
        if version != VERSION {
            return Err(Unreadable::TooNew(version));
        }
        serde_json::from_slice(bytes).map_err(Unreadable::Damaged)
    }

    /// The request that may be sent again; `None` once the outcome is proven.
    #[must_use]
    pub fn into_outgoing(self) -> Option<Outgoing> {
        match self.state {
            State::Open(outgoing)
            | State::InFlight { outgoing, .. }
            | State::Unknown { outgoing, .. }
            | State::NeedsOperator { outgoing, .. } => Some(outgoing),
            State::Settled(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{outgoing, record};
    use super::*;

    fn states() -> Vec<State> {
        vec![
            State::Open(outgoing("a=1")),
            State::InFlight { outgoing: outgoing("a=1"), ambiguous: true },
            State::Unknown { outgoing: outgoing("a=1"), conflict: false },
            State::NeedsOperator { outgoing: outgoing("a=1"), why: Stuck::Expired },
            State::Settled(Settled::Succeeded(Success {
                json: "{ \"id\" : \"re_1\", \"note\": \"ü\\u00fc\\n\" }".to_owned(),
                request_id: Some("req_1".to_owned()),
                object_id: Some("re_1".to_owned()),
            })),
            State::Settled(Settled::Refused(Refusal {
                status: 402,
                body: r#"{"error":{"type":"card_error","code":"card_declined"}}"#.to_owned(),
                request_id: None,
            })),
        ]
    }

    #[test]
    fn every_state_comes_back_as_it_was_stored() {
        for state in states() {
            let record = record(3, state);
            assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn a_settled_entry_holds_no_request() {
        for state in states() {
            let settled = matches!(state, State::Settled(_));
            assert_eq!(record(1, state).into_outgoing().is_none(), settled);
        }
    }

    #[test]
    fn a_later_version_and_damage_are_told_apart() {
        assert!(matches!(Record::decode(br#"{"version":2,"new":true}"#), Err(Unreadable::TooNew(2))));
        assert!(matches!(Record::decode(br#"{"version":1}"#), Err(Unreadable::Damaged(_))));
        assert!(matches!(Record::decode(b""), Err(Unreadable::Damaged(_))));
    }
}
