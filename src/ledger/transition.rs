//! The rules by which a call moves an operation from state to state. Pure: time, memory and Stripe's answers are handed
//! in.

use super::lease::{Lease, Seat, age_ms, may_take, over};
use super::outcome::{Case, Settled, Stuck};
use super::proof::Verdict;
use super::state::{Record, State};
use crate::contract::{Effect, Lookup, LookupBy, Spec, Verb};
use crate::domain::clock::Moment;
use crate::domain::fingerprint::Fingerprint;
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
    /// No resend will find out what came of the operation: only reading at Stripe can tell.
    Look(Stuck),
}

/// What is known without sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The outcome.
    Replay(Settled),
    /// The operation stands for something else: these fields differ.
    Mismatch(Vec<String>),
    /// Another process may be sending it.
    InFlight,
    /// It is unknown, and a person has to decide.
    NeedsOperator(Case),
    /// The ledger may have forgotten it.
    Forgotten,
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
    /// For how long it may be sent.
    pub lease: Lease,
}

/// Decides about a call when nothing of the operation is in flight in this process.
#[must_use]
pub fn decide(record: Option<&Record>, call: Call<'_>, now: Moment, seat: Seat) -> Decision {
    let Some(record) = record else { return Decision::Send(Sending::New) };
    let differing = record.fingerprint.differing(call.fingerprint);
    let same = differing.is_empty();
    match &record.state {
        State::InFlight { .. } if !may_take(record, seat, now) => {
            Decision::Answer(if same { Known::InFlight } else { Known::Mismatch(differing) })
        }
        State::Open(_) if same => Decision::Send(Sending::Resend { ambiguous: false }),
        State::Settled(settled @ (Settled::Refused(_) | Settled::NotExecuted(_)))
            if same && !call.retry_refused =>
        {
            Decision::Answer(Known::Replay(settled.clone()))
        }
        State::Open(_) | State::Lapsed | State::Settled(Settled::Refused(_) | Settled::NotExecuted(_)) => {
            Decision::Send(Sending::NextGeneration)
        }
        _ if !same && planted::active("mismatch-sent") => Decision::Send(Sending::NextGeneration),
        _ if !same => Decision::Answer(Known::Mismatch(differing)),
        State::Settled(settled @ Settled::Succeeded(_)) => Decision::Answer(Known::Replay(settled.clone())),
        State::NeedsOperator { case, .. } => Decision::Answer(Known::NeedsOperator(case.clone())),
        State::InFlight { .. } | State::Unknown { .. } => unknown(record, call, now),
    }
}

/// An unknown outcome: the same key finds it out as long as Stripe surely remembers it.
fn unknown(record: &Record, call: Call<'_>, now: Moment) -> Decision {
    match stuck(record, now) {
        None if planted::active("new-after-unknown") => Decision::Send(Sending::NextGeneration),
        None => Decision::Send(Sending::Resend { ambiguous: true }),
        Some(_) if call.repeatable => Decision::Send(Sending::NextGeneration),
        Some(why) => Decision::Look(why),
    }
}

/// Why a resend would not find out what came of an operation that is in flight or unknown; `None` while it would.
#[must_use]
pub fn stuck(record: &Record, now: Moment) -> Option<Stuck> {
    match record.state {
        State::Unknown { conflict: true, .. } => Some(Stuck::KeyConflict),
        _ if !over(record, now) => {
            record.outgoing().filter(|outgoing| removes_a_place(outgoing)).map(|_| Stuck::Keyless)
        }
        _ if age_ms(record, now).is_none() => Some(Stuck::ClockSetBack),
        _ => Some(Stuck::Expired),
    }
}

/// Whether it removes whatever stands at a place, rather than one object by its id.
fn removes_a_place(outgoing: &Outgoing) -> bool {
    outgoing.verb == Verb::Delete && !outgoing.template.ends_with('}')
}

/// Whether sending it might undo a later change of the same object: it sets an object's fields, and may have done so
/// before.
#[must_use]
pub fn may_be_superseded(how: Sending, spec: &Spec) -> bool {
    let at_its_place = |lookup: &Lookup| lookup.by == LookupBy::Retrieve(spec.path);
    let sets = spec.verb == Verb::Post && spec.lookup.as_ref().is_some_and(at_its_place);
    sets && how == Sending::Resend { ambiguous: true }
}

/// Whether sending it may pay a second time where the ledger forgot what came after some point: only a resend under a key
/// that Stripe still knows surely does not.
#[must_use]
pub fn may_pay_again(how: Sending, spec: &Spec) -> bool {
    spec.effect == Effect::Money && how != Sending::Resend { ambiguous: true }
}

/// Whether anything of the operation can have happened at Stripe.
#[must_use]
pub fn may_have_taken_effect(record: &Record) -> bool {
    match record.state {
        State::Open(_) | State::Lapsed | State::Settled(Settled::Refused(_) | Settled::NotExecuted(_)) => {
            false
        }
        State::InFlight { .. }
        | State::Unknown { .. }
        | State::NeedsOperator { .. }
        | State::Settled(Settled::Succeeded(_)) => true,
    }
}

/// What a call brings that is to be sent.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// Which operation.
    pub operation: Operation,
    /// What is asked for.
    pub fingerprint: Fingerprint,
    /// What would go out if nothing was sent before.
    pub outgoing: Outgoing,
    /// How far the audit log reaches.
    pub audit_before: u64,
}

/// Prepares a sending of `fresh`, or on a resend of what was sent before.
#[must_use]
pub fn depart(how: Sending, record: Option<Record>, fresh: Fresh, now: Moment, seat: Seat) -> Departure {
    if let (Sending::Resend { ambiguous }, Some(record)) = (how, &record)
        && let Some(outgoing) = record.outgoing()
    {
        let departure = depart_again(record, outgoing.clone(), ambiguous, now, seat);
        if ambiguous {
            return departure;
        }
        // Until now nothing of an open operation took hold at Stripe, so its key is as good as new.
        let (first_sent_ms, first_sent_boot) = (now.wall_ms, Some(now.boot));
        let audit_before = fresh.audit_before;
        let record =
            Record { first_sent_ms, first_sent_boot, age_lost: false, audit_before, ..departure.record };
        return Departure { record, ..departure };
    }
    let last_ms = record.as_ref().map_or(now.wall_ms, |record| record.last_ms);
    let generation = record.as_ref().map_or(0, |record| record.generation);
    let generation = if planted::active("generation-reused") { 1 } else { generation.saturating_add(1) };
    let Fresh { operation, fingerprint, outgoing, audit_before } = fresh;
    let idempotency_key = (outgoing.verb == Verb::Post).then(|| operation.key(generation));
    let outgoing = Outgoing { idempotency_key, ..outgoing };
    let lease = Lease::new(seat, now, 0);
    let state = State::InFlight { outgoing: outgoing.clone(), ambiguous: false, lease: Some(lease) };
    let record = Record::new(operation, generation, fingerprint, (last_ms, now), state);
    let record = Record { audit_before, ..record };
    Departure { record, outgoing, ambiguous: false, lease }
}

/// The stored bytes under the key they had.
fn depart_again(record: &Record, stored: Outgoing, ambiguous: bool, now: Moment, seat: Seat) -> Departure {
    let mut outgoing = stored;
    if planted::active("key-per-retry") && ambiguous {
        let other = u32::try_from(now.wall_ms.unsigned_abs() % u64::from(u32::MAX)).unwrap_or_default();
        outgoing.idempotency_key = Some(record.operation.key(other));
    }
    let age_ms = if ambiguous { age_ms(record, now).unwrap_or(i64::MAX) } else { 0 };
    let lease = Lease::new(seat, now, age_ms);
    let state = State::InFlight { outgoing: outgoing.clone(), ambiguous, lease: Some(lease) };
    Departure { record: record.clone().moved_to(state, now), outgoing, ambiguous, lease }
}

/// The entry after the attempts of a call that sent `outgoing`, of which `verdict` is the sum, and what is known then: of
/// a success also what events told of its object before.
#[must_use]
pub fn settled(record: Record, outgoing: Outgoing, verdict: Verdict, now: Moment) -> (Record, Verdict) {
    let state = match &verdict {
        Verdict::Settled(settled) => State::Settled(settled.clone()),
        Verdict::Open { .. } => State::Open(outgoing),
        Verdict::Unknown { conflict, .. } => State::Unknown { outgoing, conflict: *conflict },
        Verdict::NeedsOperator(case) => State::NeedsOperator { outgoing, case: case.clone() },
    };
    let record = record.moved_to(state, now);
    let verdict = match &record.state {
        State::Settled(settled) => Verdict::Settled(settled.clone()),
        _ => verdict,
    };
    (record, verdict)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{
        SEAT, at, fingerprint, fresh, operation, outgoing, record, refusal, success, unknown,
    };
    use super::super::outcome::Witness;
    use super::*;
    use crate::domain::clock::UnixMillis;
    use crate::domain::limits::SEND_LEASE_MS;

    const HOUR: UnixMillis = 3_600_000;
    const RESEND: Decision = Decision::Send(Sending::Resend { ambiguous: true });
    const NEXT: Decision = Decision::Send(Sending::NextGeneration);

    fn call(fingerprint: &Fingerprint) -> Call<'_> {
        Call { fingerprint, retry_refused: false, repeatable: false }
    }

    /// Decides about the same parameters as the record's, then about another amount.
    fn both(state: State, now: Moment) -> (Decision, Decision) {
        let record = record(1, state);
        let decide = |fingerprint: &Fingerprint| decide(Some(&record), call(fingerprint), now, SEAT);
        (decide(&record.fingerprint), decide(&fingerprint("other")))
    }

    fn replay(settled: &Settled) -> Decision {
        Decision::Answer(Known::Replay(settled.clone()))
    }

    fn mismatch() -> Decision {
        Decision::Answer(Known::Mismatch(vec!["amount".to_owned()]))
    }

    fn in_flight(lease: Option<Lease>) -> State {
        State::InFlight { outgoing: outgoing("a=1"), ambiguous: false, lease }
    }

    #[test]
    fn a_new_operation_is_sent() {
        assert_eq!(decide(None, call(&fingerprint("1")), at(0), SEAT), Decision::Send(Sending::New));
    }

    #[test]
    fn only_a_resend_under_a_remembered_key_surely_does_not_pay_again() {
        let refund = crate::contract::find("RefundService", "CreateRefund").unwrap();
        assert!(!may_pay_again(Sending::Resend { ambiguous: true }, refund));
        for how in [Sending::New, Sending::NextGeneration, Sending::Resend { ambiguous: false }] {
            assert!(may_pay_again(how, refund), "{how:?}");
            let file = crate::contract::find("FileService", "UploadFile").unwrap();
            assert!(!may_pay_again(how, file), "{how:?}");
        }
    }

    #[test]
    fn a_success_is_final() {
        let settled = Settled::Succeeded(success());
        let state = State::Settled(settled.clone());
        assert_eq!(both(state.clone(), at(9999 * HOUR)), (replay(&settled), mismatch()));
        let record = record(1, state);
        let retry = Call { retry_refused: true, repeatable: true, ..call(&record.fingerprint) };
        assert_eq!(decide(Some(&record), retry, at(0), SEAT), replay(&settled));
    }

    #[test]
    fn a_refusal_is_replayed_until_the_caller_asks_anew_or_for_something_else() {
        for settled in [Settled::Refused(refusal()), Settled::NotExecuted(Witness::Look)] {
            let state = State::Settled(settled.clone());
            assert_eq!(both(state.clone(), at(9999 * HOUR)), (replay(&settled), NEXT));
            let record = record(1, state);
            let retry = Call { retry_refused: true, ..call(&record.fingerprint) };
            assert_eq!(decide(Some(&record), retry, at(0), SEAT), NEXT);
        }
    }

    #[test]
    fn an_open_operation_is_resent_or_takes_other_parameters() {
        let resend = Decision::Send(Sending::Resend { ambiguous: false });
        assert_eq!(both(State::Open(outgoing("a=1")), at(9999 * HOUR)), (resend, NEXT));
        assert_eq!(both(State::Lapsed, at(9999 * HOUR)), (NEXT, NEXT));
    }

    #[test]
    fn an_unknown_is_resent_for_23_hours_and_looked_for_after() {
        for state in [unknown(false), in_flight(None)] {
            let end = 23 * HOUR;
            assert_eq!(both(state.clone(), at(end - 1)), (RESEND, mismatch()));
            assert_eq!(both(state, at(end)), (Decision::Look(Stuck::Expired), mismatch()));
        }
    }

    #[test]
    fn a_wall_clock_that_went_back_sends_nothing_after_a_day() {
        let back = |ms: i64| Moment { wall_ms: at(0).wall_ms, ..at(ms) };
        let looked = Decision::Look(Stuck::ClockSetBack);
        assert_eq!(both(unknown(false), back(59_000)).0, RESEND);
        assert_eq!(both(unknown(false), back(30 * HOUR)).0, looked);
        let lost = Record { age_lost: true, ..record(1, unknown(false)) };
        assert_eq!(decide(Some(&lost), call(&lost.fingerprint), at(1), SEAT), looked);
        assert_eq!(both(unknown(false), Moment { wall_ms: i64::MIN, ..at(0) }).0, looked);
        let late = Moment { wall_ms: i64::MAX, ..at(0) };
        assert_eq!(both(unknown(false), late).0, Decision::Look(Stuck::Expired));
    }

    #[test]
    fn a_key_that_stripe_knows_otherwise_is_never_resent() {
        assert_eq!(both(unknown(true), at(0)).0, Decision::Look(Stuck::KeyConflict));
    }

    #[test]
    fn what_another_process_may_be_sending_waits_for_the_end_of_its_lease() {
        let theirs = Lease::new(Seat { owner: 2, alone: false }, at(0), 0);
        let record = record(1, in_flight(Some(theirs)));
        let decide = |seat, now| decide(Some(&record), call(&record.fingerprint), now, seat);
        let shared = Seat { alone: false, ..SEAT };
        assert_eq!(decide(shared, at(SEND_LEASE_MS)), Decision::Answer(Known::InFlight));
        assert_eq!(decide(shared, at(SEND_LEASE_MS + 80_000)), RESEND);
        assert_eq!(decide(SEAT, at(0)), RESEND);
    }

    #[test]
    fn what_needs_an_operator_stays_so() {
        let case = Case::from(Stuck::Absent);
        let state = State::NeedsOperator { outgoing: outgoing("a=1"), case: case.clone() };
        assert_eq!(both(state, at(0)), (Decision::Answer(Known::NeedsOperator(case)), mismatch()));
    }

    #[test]
    fn a_stuck_upload_is_uploaded_again() {
        for (state, now) in [(unknown(false), at(23 * HOUR)), (unknown(true), at(0))] {
            let record = record(1, state);
            let upload = Call { repeatable: true, ..call(&record.fingerprint) };
            assert_eq!(decide(Some(&record), upload, now, SEAT), NEXT);
        }
    }

    #[test]
    fn a_resend_has_the_stored_bytes_and_the_next_generation_the_new_ones() {
        let stored = Outgoing { idempotency_key: Some(operation().key(4)), ..outgoing("a=1") };
        let before = Record {
            age_lost: true,
            ..record(4, State::Unknown { outgoing: stored.clone(), conflict: false })
        };
        let depart = |how, now| depart(how, Some(before.clone()), fresh("1", "b=2"), now, SEAT);
        let Departure { record, outgoing: sent, ambiguous, .. } =
            depart(Sending::Resend { ambiguous: true }, at(HOUR));
        assert_eq!((&sent, ambiguous), (&stored, true));
        assert_eq!(record.outgoing(), Some(&stored));
        assert!(
            matches!(record.state, State::InFlight { ambiguous: true, lease: Some(lease), .. } if !lease.holds(at(HOUR)))
        );
        assert_eq!((record.generation, record.first_sent_ms, record.age_lost), (4, at(0).wall_ms, true));
        assert_eq!((record.first_sent_boot, record.last_ms), (Some(at(0).boot), at(HOUR).wall_ms));

        let Departure { record, outgoing: sent, ambiguous, .. } = depart(Sending::NextGeneration, at(-HOUR));
        let fresh = Outgoing { idempotency_key: Some(operation().key(5)), ..outgoing("b=2") };
        assert_eq!((&sent, ambiguous), (&fresh, false));
        assert_eq!(record.outgoing(), Some(&fresh));
        assert_eq!((record.generation, record.first_sent_ms, record.age_lost), (5, at(-HOUR).wall_ms, false));
        assert_eq!(record.last_ms, at(0).wall_ms);
    }

    #[test]
    fn an_open_operation_begins_to_age_when_it_is_sent_again() {
        let open = record(1, State::Open(outgoing("a=1")));
        let now = at(99 * HOUR);
        let sent = depart(Sending::Resend { ambiguous: false }, Some(open), fresh("1", "b=2"), now, SEAT);
        assert_eq!((sent.record.generation, &sent.outgoing), (1, &outgoing("a=1")));
        assert_eq!((sent.record.first_sent_ms, sent.record.first_sent_boot), (now.wall_ms, Some(now.boot)));
        assert!(matches!(sent.record.state, State::InFlight { lease: Some(lease), .. } if lease.holds(now)));
    }

    #[test]
    fn a_delete_carries_no_key() {
        let fresh = Fresh { outgoing: Outgoing { verb: Verb::Delete, ..outgoing("") }, ..fresh("1", "") };
        assert_eq!(depart(Sending::New, None, fresh, at(0), SEAT).outgoing.idempotency_key, None);
    }
}
