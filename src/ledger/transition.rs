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
    /// It is answered as things stand.
    Answer(Known),
    /// No resend will find out what came of the operation: this entry says so, and the call is answered so.
    GiveUp(Box<Record>, Stuck),
}

/// What is known without sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The outcome.
    Replay(Settled),
    /// The operation stands for something else: these fields differ.
    Mismatch(Vec<String>),
    /// The outcome of an earlier attempt is unknown, and a resend is not safe at the moment.
    Unknown,
    /// It is unknown, and no resend will find it out.
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

/// What has to be durable before the first byte is sent, and what is sent then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The entry to store.
    pub record: Record,
    /// The request with its key.
    pub outgoing: Outgoing,
    /// Whether an earlier attempt of this generation may have taken effect.
    pub ambiguous: bool,
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
            Decision::Answer(Known::Replay(settled.clone()))
        }
        State::Settled(Settled::Refused(_)) => Decision::Send(Sending::NextGeneration),
        _ if !differing.is_empty() => Decision::Answer(Known::Mismatch(differing)),
        State::Settled(settled @ Settled::Succeeded(_)) => Decision::Answer(Known::Replay(settled.clone())),
        State::NeedsOperator { why, .. } => Decision::Answer(Known::NeedsOperator(*why)),
        State::Unknown { outgoing, conflict: true } => stuck(record, outgoing, Stuck::KeyConflict, call, now),
        State::InFlight { outgoing, .. } | State::Unknown { outgoing, conflict: false } => {
            resend(record, outgoing, call, now)
        }
    }
}

/// An unknown outcome: the same key finds it out as long as Stripe surely remembers it.
fn resend(record: &Record, outgoing: &Outgoing, call: Call<'_>, now: UnixMillis) -> Decision {
    if now.saturating_sub(record.first_sent_ms) >= RESEND_MS_MAX {
        stuck(record, outgoing, Stuck::Expired, call, now)
    } else if now < record.last_ms.saturating_sub(CLOCK_BEHIND_MS_MAX) {
        // The clock was set back, so the age cannot be told.
        Decision::Answer(Known::Unknown)
    } else {
        Decision::Send(Sending::Resend { ambiguous: true })
    }
}

fn stuck(record: &Record, outgoing: &Outgoing, why: Stuck, call: Call<'_>, now: UnixMillis) -> Decision {
    if call.repeatable {
        return Decision::Send(Sending::NextGeneration);
    }
    let state = State::NeedsOperator { outgoing: outgoing.clone(), why };
    Decision::GiveUp(Box::new(record.clone().moved_to(state, now)), why)
}

/// Prepares a sending of `fresh`, or on a resend of what was sent before.
#[must_use]
pub fn depart(
    how: Sending,
    record: Option<Record>,
    operation: Operation,
    fingerprint: Fingerprint,
    fresh: Outgoing,
    now: UnixMillis,
) -> Departure {
    let last_ms = record.as_ref().map_or(now, |record| record.last_ms.max(now));
    let generation = record.as_ref().map_or(0, |record| record.generation);
    let stored = record.and_then(|record| Some((record.first_sent_ms, record.into_outgoing()?)));
    let (generation, first_sent_ms, outgoing, ambiguous) = match (how, stored) {
        (Sending::Resend { ambiguous: true }, Some((first_sent_ms, mut outgoing))) => {
            if planted::active("key-per-retry") {
                let other = u32::try_from(now.unsigned_abs() % u64::from(u32::MAX)).unwrap_or_default();
                outgoing.idempotency_key = Some(operation.key(other));
            }
            (generation, first_sent_ms, outgoing, true)
        }
        // Until now nothing of an open operation took hold at Stripe, so its key is as good as new.
        (Sending::Resend { ambiguous: false }, Some((_, outgoing))) => (generation, now, outgoing, false),
        (Sending::New | Sending::NextGeneration | Sending::Resend { .. }, _) => {
            let generation = generation.saturating_add(1);
            let idempotency_key = (fresh.verb == Verb::Post).then(|| operation.key(generation));
            (generation, now, Outgoing { idempotency_key, ..fresh }, false)
        }
    };
    let state = State::InFlight { outgoing: outgoing.clone(), ambiguous };
    let record = Record::new(operation, generation, fingerprint, (first_sent_ms, last_ms), state);
    Departure { record, outgoing, ambiguous }
}

/// The entry after the attempts of a call that sent `outgoing`, of which `verdict` is the sum.
#[must_use]
pub fn settled(record: Record, outgoing: Outgoing, verdict: &Verdict, now: UnixMillis) -> Record {
    let state = match verdict {
        Verdict::Settled(settled) => State::Settled(settled.clone()),
        Verdict::Open { .. } => State::Open(outgoing),
        Verdict::Unknown { conflict, .. } => State::Unknown { outgoing, conflict: *conflict },
    };
    record.moved_to(state, now)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{NOW, fingerprint, operation, outgoing, record, refusal, success};
    use super::*;

    const HOUR: UnixMillis = 3_600_000;
    const RESEND: Decision = Decision::Send(Sending::Resend { ambiguous: true });
    const NEXT: Decision = Decision::Send(Sending::NextGeneration);

    fn call(fingerprint: &Fingerprint) -> Call<'_> {
        Call { fingerprint, retry_refused: false, repeatable: false }
    }

    /// Decides about the same parameters as the record's, then about another amount.
    fn both(state: State, now: UnixMillis) -> (Decision, Decision) {
        let record = record(1, state);
        let decide = |fingerprint: &Fingerprint| decide(Some(&record), call(fingerprint), now);
        (decide(&record.fingerprint), decide(&fingerprint("other")))
    }

    fn replay(settled: &Settled) -> Decision {
        Decision::Answer(Known::Replay(settled.clone()))
    }

    fn mismatch() -> Decision {
        Decision::Answer(Known::Mismatch(vec!["amount".to_owned()]))
    }

    fn unknown(conflict: bool) -> State {
        State::Unknown { outgoing: outgoing("a=1"), conflict }
    }

    /// The entry that says that an operator has to settle it.
    fn given_up(why: Stuck, now: UnixMillis) -> Decision {
        let state = State::NeedsOperator { outgoing: outgoing("a=1"), why };
        Decision::GiveUp(Box::new(record(1, state.clone()).moved_to(state, now)), why)
    }

    #[test]
    fn a_new_operation_is_sent() {
        assert_eq!(decide(None, call(&fingerprint("1")), NOW), Decision::Send(Sending::New));
    }

    #[test]
    fn a_success_is_final() {
        let settled = Settled::Succeeded(success());
        let state = State::Settled(settled.clone());
        assert_eq!(both(state.clone(), NOW + 9999 * HOUR), (replay(&settled), mismatch()));
        let record = record(1, state);
        let retry = Call { retry_refused: true, repeatable: true, ..call(&record.fingerprint) };
        assert_eq!(decide(Some(&record), retry, NOW), replay(&settled));
    }

    #[test]
    fn a_refusal_is_replayed_until_the_caller_asks_anew_or_for_something_else() {
        let settled = Settled::Refused(refusal());
        let state = State::Settled(settled.clone());
        assert_eq!(both(state.clone(), NOW + 9999 * HOUR), (replay(&settled), NEXT));
        let record = record(1, state);
        let retry = Call { retry_refused: true, ..call(&record.fingerprint) };
        assert_eq!(decide(Some(&record), retry, NOW), NEXT);
    }

    #[test]
    fn an_open_operation_is_resent_or_takes_other_parameters() {
        let resend = Decision::Send(Sending::Resend { ambiguous: false });
        assert_eq!(both(State::Open(outgoing("a=1")), NOW + 9999 * HOUR), (resend, NEXT));
    }

    #[test]
    fn an_unknown_is_resent_for_23_hours_and_never_after() {
        for state in [unknown(false), State::InFlight { outgoing: outgoing("a=1"), ambiguous: false }] {
            let end = NOW + 23 * HOUR;
            assert_eq!(both(state.clone(), end - 1), (RESEND, mismatch()));
            assert_eq!(both(state, end), (given_up(Stuck::Expired, end), mismatch()));
        }
    }

    #[test]
    fn a_clock_that_went_back_sends_nothing() {
        let cannot_tell = Decision::Answer(Known::Unknown);
        assert_eq!(both(unknown(false), NOW - 59_000).0, RESEND);
        assert_eq!(both(unknown(false), NOW - 61_000).0, cannot_tell);
        assert_eq!(both(unknown(false), UnixMillis::MIN).0, cannot_tell);
        assert_eq!(both(unknown(false), UnixMillis::MAX).0, given_up(Stuck::Expired, UnixMillis::MAX));
    }

    #[test]
    fn a_key_that_stripe_knows_otherwise_is_never_resent() {
        assert_eq!(both(unknown(true), NOW).0, given_up(Stuck::KeyConflict, NOW));
    }

    #[test]
    fn what_needs_an_operator_stays_so() {
        let state = State::NeedsOperator { outgoing: outgoing("a=1"), why: Stuck::Expired };
        assert_eq!(both(state, NOW), (Decision::Answer(Known::NeedsOperator(Stuck::Expired)), mismatch()));
    }

    #[test]
    fn a_stuck_upload_is_uploaded_again() {
        for (state, now) in [(unknown(false), NOW + 23 * HOUR), (unknown(true), NOW)] {
            let record = record(1, state);
            let upload = Call { repeatable: true, ..call(&record.fingerprint) };
            assert_eq!(decide(Some(&record), upload, now), NEXT);
        }
    }

    #[test]
    fn a_resend_has_the_stored_bytes_and_the_next_generation_the_new_ones() {
        let stored = Outgoing { idempotency_key: Some(operation().key(4)), ..outgoing("a=1") };
        let before = record(4, State::Unknown { outgoing: stored.clone(), conflict: false });
        let depart =
            |how, now| depart(how, Some(before.clone()), operation(), fingerprint("1"), outgoing("b=2"), now);
        let Departure { record, outgoing: sent, ambiguous } =
            depart(Sending::Resend { ambiguous: true }, NOW + HOUR);
        assert_eq!((&sent, ambiguous), (&stored, true));
        assert_eq!(record.state, State::InFlight { outgoing: stored, ambiguous: true });
        assert_eq!((record.generation, record.first_sent_ms, record.last_ms), (4, NOW, NOW + HOUR));

        let Departure { record, outgoing: sent, ambiguous } = depart(Sending::NextGeneration, NOW - HOUR);
        let fresh = Outgoing { idempotency_key: Some(operation().key(5)), ..outgoing("b=2") };
        assert_eq!((&sent, ambiguous), (&fresh, false));
        assert_eq!(record.state, State::InFlight { outgoing: fresh, ambiguous: false });
        assert_eq!((record.generation, record.first_sent_ms, record.last_ms), (5, NOW - HOUR, NOW));
    }

    #[test]
    fn a_delete_carries_no_key() {
        let delete = Outgoing { verb: Verb::Delete, ..outgoing("") };
        let departure = depart(Sending::New, None, operation(), fingerprint("1"), delete, NOW);
        assert_eq!(departure.outgoing.idempotency_key, None);
    }
}
