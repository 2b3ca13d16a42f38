//! The rules by which an operation moves from state to state. Pure: time, memory and Stripe's answers are handed in.

use super::proof::Verdict;
use super::state::{Record, Settled, State, Stuck};
use crate::contract::Verb;
use crate::domain::clock::UnixMillis;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::limits::{CLOCK_BEHIND_MS_MAX, RESEND_MS_MAX};
use crate::domain::operation::Operation;
use crate::domain::planted;
use crate::stripe::Outgoing;

/// What a caller asks of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// With which parameters.
    pub fingerprint: &'a Fingerprint,
    /// Whether a refusal is to be tried again rather than answered from memory.
    pub retry_refused: bool,
    /// Whether the effect may safely exist twice, as an uploaded file may.
    pub repeatable: bool,
}

/// What becomes of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes to Stripe.
    Send(Sending),
    /// It is answered from memory.
    Replay(Settled),
    /// The operation stands for something else: these fields differ.
    Mismatch(Vec<String>),
    /// The outcome of an earlier attempt is unknown and cannot be found out now.
    Unresolved,
    /// The same, and a resend will never find it out: it is put on record that an operator has to.
    GiveUp(Stuck),
    /// The same, on record already.
    NeedsOperator(Stuck),
}

/// Under which key a call goes to Stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// The first of the operation.
    New,
    /// The stored bytes under the key they had.
    Resend {
        /// Whether an earlier attempt may have taken effect.
        ambiguous: bool,
    },
    /// The bytes of this call under the next key, since nothing came and nothing can come of the last one.
    NextGeneration,
}

/// Decides about a call when nothing of the operation is in flight.
#[must_use]
pub fn decide(record: Option<&Record>, call: Call<'_>, now: UnixMillis) -> Decision {
    let Some(record) = record else { return Decision::Send(Sending::New) };
    let differing = record.fingerprint.differing(call.fingerprint);
    match &record.state {
        State::Open(_) if differing.is_empty() => Decision::Send(Sending::Resend { ambiguous: false }),
        State::Open(_) => Decision::Send(Sending::NextGeneration),
        State::Settled(settled @ Settled::Refused(_)) if differing.is_empty() && !call.retry_refused => {
            Decision::Replay(settled.clone())
        }
        State::Settled(Settled::Refused(_)) => Decision::Send(Sending::NextGeneration),
        _ if !differing.is_empty() => Decision::Mismatch(differing),
        State::Settled(settled @ Settled::Succeeded(_)) => Decision::Replay(settled.clone()),
        State::Unknown { conflict: true, .. } => stuck(Stuck::KeyConflict, call),
        State::InFlight { .. } | State::Unknown { conflict: false, .. } => resend(record, call, now),
        State::NeedsOperator { why, .. } => Decision::NeedsOperator(*why),
    }
}

/// An unknown outcome: the same key finds it out as long as Stripe surely remembers it.
fn resend(record: &Record, call: Call<'_>, now: UnixMillis) -> Decision {
    if now.saturating_sub(record.first_sent_ms) >= RESEND_MS_MAX {
        stuck(Stuck::Expired, call)
    } else if now < record.last_ms.saturating_sub(CLOCK_BEHIND_MS_MAX) {
        // The clock was set back, so the age cannot be told.
        Decision::Unresolved
    } else {
        Decision::Send(Sending::Resend { ambiguous: true })
    }
}

fn stuck(why: Stuck, call: Call<'_>) -> Decision {
    if call.repeatable { Decision::Send(Sending::NextGeneration) } else { Decision::GiveUp(why) }
}

/// The entry that has to be durable before the first byte is sent. It holds what is sent: `fresh`, or on a resend what
/// was sent before.
#[must_use]
pub fn sending(
    sending: Sending,
    record: Option<Record>,
    operation: Operation,
    fingerprint: Fingerprint,
    fresh: Outgoing,
    now: UnixMillis,
) -> Record {
    let last_ms = record.as_ref().map_or(now, |record| record.last_ms.max(now));
    let generation = record.as_ref().map_or(0, |record| record.generation);
    let stored = record.as_ref().and_then(Record::outgoing).cloned();
    match (sending, record, stored) {
        (Sending::Resend { ambiguous }, Some(record), Some(mut outgoing)) => {
            if ambiguous && planted::active("key-per-retry") {
                let other = u32::try_from(now.unsigned_abs() % u64::from(u32::MAX)).unwrap_or_default();
                outgoing.idempotency_key = Some(operation.key(other));
            }
            // Until now nothing of an open operation took hold at Stripe, so its key is as good as new.
            let first_sent_ms = if ambiguous { record.first_sent_ms } else { now };
            let state = State::InFlight { outgoing, ambiguous };
            Record::new(operation, generation, fingerprint, (first_sent_ms, last_ms), state)
        }
        _ => {
            let generation = generation.saturating_add(1);
            let key = (fresh.verb == Verb::Post).then(|| operation.key(generation));
            let outgoing = Outgoing { idempotency_key: key, ..fresh };
            let state = State::InFlight { outgoing, ambiguous: false };
            Record::new(operation, generation, fingerprint, (now, last_ms), state)
        }
    }
}

/// The entry after the attempts of a call, of which `verdict` is the sum.
#[must_use]
pub fn settled(record: Record, verdict: &Verdict, now: UnixMillis) -> Record {
    let state = match (verdict, record.outgoing().cloned()) {
        (Verdict::Settled(settled), _) => State::Settled(settled.clone()),
        (Verdict::Open { .. }, Some(outgoing)) => State::Open(outgoing),
        (Verdict::Unknown { conflict, .. }, Some(outgoing)) => {
            State::Unknown { outgoing, conflict: *conflict }
        }
        // A proven outcome is not unmade by a call that proves none.
        (Verdict::Open { .. } | Verdict::Unknown { .. }, None) => return record,
    };
    record.moved_to(state, now)
}

/// The entry of an operation that no resend can settle.
#[must_use]
pub fn given_up(record: Record, why: Stuck, now: UnixMillis) -> Record {
    let state = match record.state.clone() {
        State::InFlight { outgoing, .. } | State::Unknown { outgoing, .. } => {
            State::NeedsOperator { outgoing, why }
        }
        other => other,
    };
    record.moved_to(state, now)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{NOW, fingerprint, operation, outgoing, record, refusal, success};
    use super::*;

    const HOUR: UnixMillis = 3_600_000;

    fn call(fingerprint: &Fingerprint) -> Call<'_> {
        Call { fingerprint, retry_refused: false, repeatable: false }
    }

    /// Decides about the same parameters as the record's, then about another amount.
    fn both(state: State, now: UnixMillis) -> (Decision, Decision) {
        let record = record(1, state);
        let other = fingerprint("other");
        (decide(Some(&record), call(&record.fingerprint), now), decide(Some(&record), call(&other), now))
    }

    fn unknown(conflict: bool) -> State {
        State::Unknown { outgoing: outgoing("a=1"), conflict }
    }

    #[test]
    fn a_new_operation_is_sent() {
        assert_eq!(decide(None, call(&fingerprint("1")), NOW), Decision::Send(Sending::New));
    }

    #[test]
    fn a_success_is_final() {
        let settled = Settled::Succeeded(success());
        let (same, other) = both(State::Settled(settled.clone()), NOW + 9999 * HOUR);
        assert_eq!(same, Decision::Replay(settled.clone()));
        assert_eq!(other, Decision::Mismatch(vec!["amount".to_owned()]));
        let record = record(1, State::Settled(settled.clone()));
        let retry = Call { retry_refused: true, repeatable: true, ..call(&record.fingerprint) };
        assert_eq!(decide(Some(&record), retry, NOW), Decision::Replay(settled));
    }

    #[test]
    fn a_refusal_is_replayed_until_the_caller_asks_anew_or_for_something_else() {
        let settled = Settled::Refused(refusal());
        let (same, other) = both(State::Settled(settled.clone()), NOW + 9999 * HOUR);
        assert_eq!(same, Decision::Replay(settled.clone()));
        assert_eq!(other, Decision::Send(Sending::NextGeneration));
        let record = record(1, State::Settled(settled));
        let retry = Call { retry_refused: true, ..call(&record.fingerprint) };
        assert_eq!(decide(Some(&record), retry, NOW), Decision::Send(Sending::NextGeneration));
    }

    #[test]
    fn an_open_operation_is_resent_or_takes_other_parameters() {
        let (same, other) = both(State::Open(outgoing("a=1")), NOW + 9999 * HOUR);
        assert_eq!(same, Decision::Send(Sending::Resend { ambiguous: false }));
        assert_eq!(other, Decision::Send(Sending::NextGeneration));
    }

    #[test]
    fn an_unknown_is_resent_for_23_hours_and_never_after() {
        for state in [unknown(false), State::InFlight { outgoing: outgoing("a=1"), ambiguous: false }] {
            let resend = Decision::Send(Sending::Resend { ambiguous: true });
            let mismatch = Decision::Mismatch(vec!["amount".to_owned()]);
            assert_eq!(both(state.clone(), NOW + 23 * HOUR - 1), (resend, mismatch.clone()));
            assert_eq!(both(state, NOW + 23 * HOUR), (Decision::GiveUp(Stuck::Expired), mismatch));
        }
    }

    #[test]
    fn a_clock_that_went_back_sends_nothing() {
        assert_eq!(both(unknown(false), NOW - 59_000).0, Decision::Send(Sending::Resend { ambiguous: true }));
        assert_eq!(both(unknown(false), NOW - 61_000).0, Decision::Unresolved);
        assert_eq!(both(unknown(false), UnixMillis::MIN).0, Decision::Unresolved);
        assert_eq!(both(unknown(false), UnixMillis::MAX).0, Decision::GiveUp(Stuck::Expired));
    }

    #[test]
    fn a_key_that_stripe_knows_otherwise_is_never_resent() {
        assert_eq!(both(unknown(true), NOW).0, Decision::GiveUp(Stuck::KeyConflict));
    }

    #[test]
    fn what_needs_an_operator_stays_so() {
        let state = State::NeedsOperator { outgoing: outgoing("a=1"), why: Stuck::Expired };
        let (same, other) = both(state, NOW);
        assert_eq!(same, Decision::NeedsOperator(Stuck::Expired));
        assert_eq!(other, Decision::Mismatch(vec!["amount".to_owned()]));
    }

    #[test]
    fn a_stuck_upload_is_uploaded_again() {
        for (state, now) in [(unknown(false), NOW + 23 * HOUR), (unknown(true), NOW)] {
            let record = record(1, state);
            let upload = Call { repeatable: true, ..call(&record.fingerprint) };
            assert_eq!(decide(Some(&record), upload, now), Decision::Send(Sending::NextGeneration));
        }
    }

    #[test]
    fn a_resend_has_the_stored_bytes_and_the_next_generation_the_new_ones() {
        let stored = Outgoing { idempotency_key: Some(operation().key(4)), ..outgoing("a=1") };
        let before = record(4, State::Unknown { outgoing: stored.clone(), conflict: false });
        let resend = sending(
            Sending::Resend { ambiguous: true },
            Some(before.clone()),
            operation(),
            fingerprint("1"),
            outgoing("b=2"),
            NOW + HOUR,
        );
        assert_eq!(resend.state, State::InFlight { outgoing: stored, ambiguous: true });
        assert_eq!((resend.generation, resend.first_sent_ms, resend.last_ms), (4, NOW, NOW + HOUR));

        let next = sending(
            Sending::NextGeneration,
            Some(before),
            operation(),
            fingerprint("2"),
            outgoing("b=2"),
            NOW - HOUR,
        );
        let fresh = Outgoing { idempotency_key: Some(operation().key(5)), ..outgoing("b=2") };
        assert_eq!(next.state, State::InFlight { outgoing: fresh, ambiguous: false });
        assert_eq!((next.generation, next.first_sent_ms, next.last_ms), (5, NOW - HOUR, NOW));
    }

    #[test]
    fn a_delete_carries_no_key() {
        let delete = Outgoing { verb: Verb::Delete, ..outgoing("") };
        let record = sending(Sending::New, None, operation(), fingerprint("1"), delete, NOW);
        assert_eq!(record.outgoing().unwrap().idempotency_key, None);
    }
}
