//! What the ledger remembers of one operation, and its stored form. It decides nothing.

use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::outcome::{Case, Settled};
use super::spend::Spend;
use super::turn::Turn;
use crate::domain::clock::{BootTime, Moment, UnixMillis};
use crate::domain::fingerprint::Fingerprint;
use crate::domain::operation::Operation;
use crate::stripe::Outgoing;

/// Version of the stored form. Entries of version 1 lack what has a default below.
const VERSION: u8 = 2;

/// The newest entry of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub(super) version: u8,
    /// Whose entry it is.
    pub operation: Operation,
    /// Which try: 1 at first, one more after each proof that nothing happened. Each has its own idempotency key.
    pub generation: u32,
    /// What was asked for.
    pub fingerprint: Fingerprint,
    /// When Stripe can first have seen this generation's key.
    pub first_sent_ms: UnixMillis,
    /// The same by the clock that nobody can set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_sent_boot: Option<BootTime>,
    /// Set once the wall clock was seen to have been set back since: how long ago it was cannot be told any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub age_lost: bool,
    /// How far the audit log reached before this generation's first intent.
    #[serde(default)]
    pub audit_before: u64,
    /// When the entry was written; never before an earlier entry of the operation.
    pub last_ms: UnixMillis,
    /// What it takes from budgets while it may have taken effect; `None` where none speaks of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend: Option<Spend>,
    /// Where it stands.
    pub state: State,
    /// What an event told of its object while the outcome was unknown; the latest such state, and none once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Turn>,
}

/// Where an operation stands. The exact request is kept as long as it may be sent again, and no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing happened, and nothing that was sent can still take effect.
    Open(Outgoing),
    /// About to be sent or on its way; without a live flight of its holder, as unknown as [`State::Unknown`].
    InFlight {
        /// What is sent.
        outgoing: Outgoing,
        /// Whether an earlier attempt of this generation may have taken effect.
        ambiguous: bool,
        /// Who may send it, and until when; `None` in entries of version 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<Lease>,
    },
    /// It may have taken effect.
    Unknown {
        /// What was sent.
        outgoing: Outgoing,
        /// Stripe knows the key with other bytes: sending it again teaches nothing.
        conflict: bool,
    },
    /// It may have taken effect, and a person has to decide.
    NeedsOperator {
        /// What was sent.
        outgoing: Outgoing,
        /// What there is to decide about.
        #[serde(flatten)]
        case: Case,
    },
    /// The outcome is known.
    Settled(Settled),
    /// As [`State::Open`], but the request is no longer kept.
    Lapsed,
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
    /// The first entry of a generation, in the form of today. `last_ms` is the time of the entry before it.
    #[must_use]
    pub fn new(
        operation: Operation,
        generation: u32,
        fingerprint: Fingerprint,
        (last_ms, now): (UnixMillis, Moment),
        state: State,
    ) -> Self {
        Self {
            version: VERSION,
            operation,
            generation,
            fingerprint,
            first_sent_ms: now.wall_ms,
            first_sent_boot: Some(now.boot),
            age_lost: false,
            audit_before: 0,
            last_ms: last_ms.max(now.wall_ms),
            spend: None,
            state,
            told: None,
        }
    }

    /// The next entry of the same generation. A success shows what was told of its object before.
    #[must_use]
    pub fn moved_to(self, state: State, now: Moment) -> Self {
        let last_ms = self.last_ms.max(now.wall_ms);
        let spend = self.spend.map(|spend| spend.moved(&self.state, &state, now));
        let moved = Self { state, spend, last_ms, ..self };
        if moved.unresolved() {
            return moved;
        }
        let (state, spend) = match (moved.state, &moved.told) {
            (State::Settled(Settled::Succeeded(success)), Some(told)) if told.is_about(&success) => {
                let spend = moved.spend.map(|spend| spend.told(told));
                (State::Settled(Settled::Succeeded(told.applied_to(success))), spend)
            }
            (state, _) => (state, moved.spend),
        };
        Self { state, spend, told: None, ..moved }
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
        if version > VERSION {
            return Err(Unreadable::TooNew(version));
        }
        let record = serde_json::from_slice(bytes).map_err(Unreadable::Damaged)?;
        Ok(Self { version: VERSION, ..record })
    }

    /// Whether its outcome is still to be found out: it is in flight, unknown or waits for an operator.
    #[must_use]
    pub fn unresolved(&self) -> bool {
        match self.state {
            State::InFlight { .. } | State::Unknown { .. } | State::NeedsOperator { .. } => true,
            State::Open(_) | State::Settled(_) | State::Lapsed => false,
        }
    }

    /// The request that was sent or may be sent again; `None` once the outcome is proven.
    #[must_use]
    pub fn outgoing(&self) -> Option<&Outgoing> {
        match &self.state {
            State::Open(outgoing)
            | State::InFlight { outgoing, .. }
            | State::Unknown { outgoing, .. }
            | State::NeedsOperator { outgoing, .. } => Some(outgoing),
            State::Settled(_) | State::Lapsed => None,
        }
    }

    /// The idempotency key of `generation`, were it of a request that carries one.
    #[must_use]
    pub fn key(&self, generation: u32) -> String {
        self.operation.key(generation)
    }

    /// As [`Record::outgoing`].
    #[must_use]
    pub fn into_outgoing(self) -> Option<Outgoing> {
        match self.state {
            State::Open(outgoing)
            | State::InFlight { outgoing, .. }
            | State::Unknown { outgoing, .. }
            | State::NeedsOperator { outgoing, .. } => Some(outgoing),
            State::Settled(_) | State::Lapsed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{found, outgoing, record, refusal, success};
    use super::super::outcome::{Stuck, Success, Witness};
    use super::*;

    fn states() -> Vec<State> {
        let lease = Lease {
            owner: u64::MAX,
            send_before_ms: 7,
            send_before_boot: BootTime { boot_id: u64::MAX, ms: 7 },
        };
        let case = Case { why: Stuck::Absent, note: "none".to_owned(), found: vec![found()] };
        vec![
            State::Open(outgoing("a=1")),
            State::InFlight { outgoing: outgoing("a=1"), ambiguous: true, lease: Some(lease) },
            State::Unknown { outgoing: outgoing("a=1"), conflict: false },
            State::NeedsOperator { outgoing: outgoing("a=1"), case: Stuck::Expired.into() },
            State::NeedsOperator { outgoing: outgoing("a=1"), case },
            State::Settled(Settled::Succeeded(Success {
                json: Some("{ \"id\" : \"re_1\", \"note\": \"ü\\u00fc\\n\" }".to_owned()),
                turned_by: Some("evt_1".to_owned()),
                turned_s: Some(7),
                ..success()
            })),
            State::Settled(Settled::Succeeded(Success { json: None, ..success() })),
            State::Settled(Settled::Refused(refusal())),
            State::Settled(Settled::NotExecuted(Witness::Operator)),
            State::Lapsed,
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
    fn only_what_may_still_be_sent_keeps_its_request() {
        for state in states() {
            let kept = !matches!(state, State::Settled(_) | State::Lapsed);
            let record = record(1, state);
            assert_eq!((record.outgoing().is_some(), record.into_outgoing().is_some()), (kept, kept));
        }
    }

    #[test]
    fn a_later_version_and_damage_are_told_apart() {
        assert!(matches!(Record::decode(br#"{"version":3,"new":true}"#), Err(Unreadable::TooNew(3))));
        assert!(matches!(Record::decode(br#"{"version":1}"#), Err(Unreadable::Damaged(_))));
        assert!(matches!(Record::decode(b""), Err(Unreadable::Damaged(_))));
    }

    /// Entries as the first version wrote them.
    #[test]
    fn entries_of_the_first_version_are_understood() {
        let request = serde_json::to_string(&outgoing("a=1")).unwrap();
        let success = r#"{"json":"{}","request_id":"req_1","object_id":"re_1"}"#;
        let old = [
            format!(r#"{{"open":{request}}}"#),
            format!(r#"{{"in_flight":{{"outgoing":{request},"ambiguous":true}}}}"#),
            format!(r#"{{"unknown":{{"outgoing":{request},"conflict":false}}}}"#),
            format!(r#"{{"needs_operator":{{"outgoing":{request},"why":"expired"}}}}"#),
            format!(r#"{{"settled":{{"succeeded":{success}}}}}"#),
        ];
        let new = [
            State::Open(outgoing("a=1")),
            State::InFlight { outgoing: outgoing("a=1"), ambiguous: true, lease: None },
            State::Unknown { outgoing: outgoing("a=1"), conflict: false },
            State::NeedsOperator { outgoing: outgoing("a=1"), case: Stuck::Expired.into() },
            State::Settled(Settled::Succeeded(Success { json: Some("{}".to_owned()), ..self::success() })),
        ];
        for (old, new) in old.iter().zip(new) {
            let stored = format!(
                r#"{{"version":1,"operation":{{"namespace":"shop","account":"acct_1","mode":"test","rpc":"refunds.create","order_id":"1001","operation_id":""}},"generation":2,"fingerprint":{{"version":1,"fields":{{}}}},"first_sent_ms":5,"last_ms":9,"state":{old}}}"#
            );
            let record = Record::decode(stored.as_bytes()).unwrap();
            assert_eq!((record.state.clone(), record.first_sent_boot, record.age_lost), (new, None, false));
            assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
        }
    }
}
