//! The rules by which an operation moves without a call: by a look at Stripe, by an event, by a person's word, by age.
//! Pure: what was read is handed in.

use serde_json::Value;

use super::lease::{age_ms, surely_over};
use super::outcome::{Case, Found, Refusal, Settled, Stuck, Success, Witness};
use super::proof::Verdict;
use super::state::{Record, State};
use super::transition::{settled, stuck};
use super::turn::{Turn, object_id, readable};
use crate::contract::{self, Effect, Spec};
use crate::domain::clock::Moment;
use crate::domain::limits::{RESPONSE_KEPT_MS, SEND_LEASE_MS, UNKNOWN_MS_MAX};
use crate::domain::planted;

/// What a look at Stripe found out about an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It took effect.
    Effected(Success),
    /// Nothing at Stripe is its effect by now.
    Absent {
        /// What else is there that a person should see.
        found: Vec<Found>,
    },
    /// What is there neither proves nor disproves it.
    Undecided {
        /// Why, in words.
        why: String,
        /// What is there.
        found: Vec<Found>,
    },
    /// Stripe could not be read.
    Unread {
        /// Why, in words.
        why: String,
    },
    /// Nothing was sent, so that Stripe was not even asked: no look at all.
    Unasked {
        /// Why, in words.
        why: String,
    },
}

/// An event of Stripe that names the idempotency key of the request that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventProof {
    /// Its id.
    pub event_id: String,
    /// Its type.
    pub kind: String,
    /// The key that it names.
    pub idempotency_key: String,
    /// The object that it is about, as JSON.
    pub object: String,
    /// The version in which the object is written.
    pub api_version: String,
}

/// A person's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It took effect.
    Executed(Success),
    /// It did not, and will not.
    NotExecuted,
}

/// What an event does to an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// This entry follows.
    To {
        /// The entry.
        record: Box<Record>,
        /// Whether a later generation was sent than the one that took effect: it may have taken effect too.
        later_sent: bool,
    },
    /// It took effect before, by another object: an alarm.
    Doubled,
    /// The event is not about this operation.
    NotOurs,
    /// It changes nothing.
    Nothing,
}

/// The entry after a look, and its sum. A change that the caller may still resend is not given up for not being found:
/// Stripe may yet carry it out.
#[must_use]
pub fn looked(
    record: Record,
    finding: Finding,
    why: Option<Stuck>,
    effect: Effect,
    now: Moment,
) -> (Record, Verdict) {
    let overdue =
        age_ms(&record, now).unwrap_or_else(|| now.wall_ms.saturating_sub(record.last_ms)) >= UNKNOWN_MS_MAX;
    let verdict = match (finding, why) {
        (Finding::Effected(success), _) => Verdict::Settled(Settled::Succeeded(success)),
        (Finding::Absent { found }, Some(why)) => absent(&record, found, why, effect, now),
        (Finding::Undecided { .. }, Some(Stuck::Keyless)) if !surely_over(&record, now) => as_it_was(&record),
        (Finding::Undecided { why: note, found }, Some(why)) => {
            // What no look can mend stays the reason, whatever a look finds.
            let why = if why == Stuck::Expired { Stuck::Undecided } else { why };
            Verdict::NeedsOperator(Case { why, note, found })
        }
        (Finding::Unread { why: note }, _) if overdue && !needs_operator(&record) => {
            Verdict::NeedsOperator(Case { why: Stuck::Overdue, note, found: Vec::new() })
        }
        (Finding::Unasked { .. }, _) => {
            let verdict = as_it_was(&record);
            return (record, verdict);
        }
        (Finding::Absent { .. } | Finding::Undecided { .. } | Finding::Unread { .. }, _) => {
            as_it_was(&record)
        }
    };
    let Some(outgoing) = record.outgoing().cloned() else { return (record, verdict) };
    settled(record, outgoing, verdict, now)
}

/// Not found, and no resend will tell more.
fn absent(record: &Record, found: Vec<Found>, why: Stuck, effect: Effect, now: Moment) -> Verdict {
    if planted::active("absent-as-refused") {
        return Verdict::Settled(Settled::NotExecuted(Witness::Look));
    }
    let case = |why| Verdict::NeedsOperator(Case { why, note: String::new(), found });
    match (why, effect) {
        // Stripe carries out a request at any time after it answered 500, and support may have made up for it by hand.
        (Stuck::Keyless, _) if !surely_over(record, now) => as_it_was(record),
        (_, Effect::Money) => case(Stuck::Absent),
        // Whoever used the key with other bytes may have had an effect that looks otherwise; what was overwritten cannot
        // be seen any more; and without an age the request may still be under way.
        (Stuck::KeyConflict | Stuck::ClockSetBack | Stuck::Superseded, _) => case(why),
        (Stuck::Expired | Stuck::Keyless | Stuck::Absent | Stuck::Undecided | Stuck::Overdue, _) => {
            // A clock that jumped ahead makes a request look old that Stripe may be carrying out right now.
            if surely_over(record, now) {
                Verdict::Settled(Settled::NotExecuted(Witness::Look))
            } else {
                as_it_was(record)
            }
        }
    }
}

fn needs_operator(record: &Record) -> bool {
    matches!(record.state, State::NeedsOperator { .. })
}

/// What is known already, as a verdict.
#[must_use]
pub fn as_it_was(record: &Record) -> Verdict {
    match &record.state {
        State::Settled(settled) => Verdict::Settled(settled.clone()),
        State::NeedsOperator { case, .. } => Verdict::NeedsOperator(case.clone()),
        State::Open(_) | State::Lapsed => Verdict::Open { last: None },
        State::InFlight { .. } => Verdict::Unknown { last: None, conflict: false },
        State::Unknown { conflict, .. } => Verdict::Unknown { last: None, conflict: *conflict },
    }
}

/// Why looking is all that is left; `None` while a resend may still find the outcome out.
#[must_use]
pub fn why_look(record: &Record, now: Moment) -> Option<Stuck> {
    match &record.state {
        State::NeedsOperator { case, .. } => Some(case.why),
        State::InFlight { .. } | State::Unknown { .. } => stuck(record, now),
        State::Open(_) | State::Settled(_) | State::Lapsed => None,
    }
}

/// What an event proves: an effect under the key of any generation is the operation's effect, whatever is thought of it
/// by now.
#[must_use]
pub fn proved(record: &Record, spec: &Spec, proof: &EventProof, now: Moment) -> Moved {
    let sent = (1..=record.generation).find(|generation| record.key(*generation) == proof.idempotency_key);
    let Some(generation) = sent else { return Moved::NotOurs };
    let settles = spec.settled_by.contains(&proof.kind.as_str());
    let Some(object_id) = object_id(&proof.object, spec.object).filter(|_| settles) else {
        return Moved::Nothing;
    };
    if let State::Settled(Settled::Succeeded(success)) = &record.state {
        let same = success.object_id.as_ref().is_none_or(|known| *known == object_id);
        return if same { Moved::Nothing } else { Moved::Doubled };
    }
    let success = Success {
        json: readable(&proof.object, &proof.api_version),
        request_id: None,
        object_id: Some(object_id),
        turned_by: None,
        turned_s: None,
    };
    let state = State::Settled(Settled::Succeeded(success));
    let later_sent = generation < record.generation;
    let mut record = Box::new(record.clone().moved_to(state, now));
    if later_sent {
        // The entry counts what the latest generation asked for, which may be something else.
        let negative = spec.money.as_ref().is_some_and(|money| money.negative);
        record.spend = record.spend.take().map(|spend| spend.of(&proof.object, negative));
    }
    Moved::To { later_sent, record }
}

/// What a later state of the object does to the entry of the operation that made it: replays show it from now on. While
/// the outcome is unknown it is remembered until there is one.
#[must_use]
pub fn turned(record: &Record, turn: &Turn, now: Moment) -> Moved {
    let spec = contract::by_ledger_name(&record.operation.rpc);
    let stages = spec.and_then(|spec| spec.stages.as_ref());
    let to = |record| Moved::To { record: Box::new(record), later_sent: false };
    match &record.state {
        State::Settled(Settled::Succeeded(success)) if !turn.is_about(success) => Moved::NotOurs,
        State::Settled(Settled::Succeeded(success)) if turn.is_news_to(success, stages) => {
            let state = State::Settled(Settled::Succeeded(turn.applied_to(success.clone())));
            let record = record.clone().moved_to(state, now);
            let spend = record.spend.map(|spend| spend.told(turn));
            to(Record { spend, ..record })
        }
        State::InFlight { .. } | State::Unknown { .. } | State::NeedsOperator { .. }
            if record.told.as_ref().is_none_or(|told| turn.follows(told, stages)) =>
        {
            // When the entry came to stand where it stands is not changed by it.
            to(Record { told: Some(turn.clone()), ..record.clone() })
        }
        _ => Moved::Nothing,
    }
}

/// The entry after a person's word; `None` while the word would come too early, since a resend or an attempt under way
/// may still tell.
#[must_use]
pub fn ruled(record: Record, ruling: Ruling, now: Moment) -> Option<Record> {
    let written_ms_ago = now.wall_ms.saturating_sub(record.last_ms);
    let early = match record.state {
        State::NeedsOperator { .. } => false,
        State::InFlight { .. } | State::Unknown { .. } => written_ms_ago < SEND_LEASE_MS && !record.age_lost,
        State::Open(_) | State::Settled(_) | State::Lapsed => true,
    };
    let settled = match ruling {
        Ruling::Executed(success) => Settled::Succeeded(success),
        Ruling::NotExecuted => Settled::NotExecuted(Witness::Operator),
    };
    (!early).then(|| record.moved_to(State::Settled(settled), now))
}

/// Whether everything of the entry is still to be kept.
#[must_use]
pub fn kept(record: &Record, now: Moment) -> bool {
    now.wall_ms.saturating_sub(record.last_ms) < RESPONSE_KEPT_MS
}

/// The entry without what need not be kept any longer; `None` when there is nothing to drop now.
#[must_use]
pub fn pruned(record: &Record, now: Moment) -> Option<Record> {
    if kept(record, now) {
        return None;
    }
    let state = match &record.state {
        State::Open(_) => State::Lapsed,
        State::Settled(Settled::Succeeded(success)) if success.json.is_some() => {
            State::Settled(Settled::Succeeded(Success { json: None, ..success.clone() }))
        }
        State::Settled(Settled::Refused(refusal)) => {
            let body = codes(refusal);
            if body == refusal.body {
                return None;
            }
            State::Settled(Settled::Refused(Refusal { body, ..refusal.clone() }))
        }
        State::InFlight { .. }
        | State::Unknown { .. }
        | State::NeedsOperator { .. }
        | State::Settled(Settled::Succeeded(_) | Settled::NotExecuted(_))
        | State::Lapsed => return None,
    };
    Some(Record { state, ..record.clone() })
}

/// The error without its message and everything else that may name a person.
fn codes(refusal: &Refusal) -> String {
    let body: Value = serde_json::from_str(&refusal.body).unwrap_or_default();
    let kept = ["type", "code", "decline_code", "param"].iter().filter_map(|name| {
        let value = body.get("error")?.get(*name)?;
        value.is_string().then(|| ((*name).to_owned(), value.clone()))
    });
    let error: serde_json::Map<String, Value> = kept.collect();
    serde_json::json!({ "error": error }).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, found, outgoing, record, refusal, success, turn, unknown};
    use super::super::spend::Claim;
    use super::*;
    use crate::stripe::outgoing::STRIPE_VERSION;

    fn needs_operator(why: Stuck) -> State {
        State::NeedsOperator { outgoing: outgoing("a=1"), case: why.into() }
    }

    /// What a look makes of an operation, in one word.
    fn word(state: State, finding: Finding, why: Option<Stuck>, effect: Effect, ms: i64) -> &'static str {
        let before = record(1, state);
        let (after, verdict) = looked(before.clone(), finding, why, effect, at(ms));
        assert_eq!(as_it_was(&after), verdict, "the entry says what the verdict says");
        assert!(after.last_ms >= before.last_ms);
        match verdict {
            Verdict::Settled(Settled::Succeeded(_)) => "succeeded",
            Verdict::Settled(Settled::NotExecuted(Witness::Look)) => "not_executed",
            Verdict::Unknown { .. } => "unknown",
            Verdict::NeedsOperator(case) => case.why.as_str(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_look_moves_an_operation_as_the_table_says() {
        let effected = || Finding::Effected(success());
        let absent = || Finding::Absent { found: vec![found()] };
        let undecided = || Finding::Undecided { why: "two match".to_owned(), found: vec![found()] };
        let unread = || Finding::Unread { why: "no connection".to_owned() };
        let unasked = || Finding::Unasked { why: "no turn".to_owned() };
        let (money, write) = (Effect::Money, Effect::Write);
        let (day, week) = (24 * 3_600_000, 7 * 24 * 3_600_000);
        let expired = Some(Stuck::Expired);
        let cases = [
            (effected(), None, money, 0, "succeeded"),
            (effected(), expired, write, week, "succeeded"),
            (absent(), None, money, 0, "unknown"),
            (absent(), None, write, 0, "unknown"),
            (absent(), expired, money, day, "absent"),
            (absent(), expired, write, day, "not_executed"),
            (absent(), Some(Stuck::KeyConflict), write, 0, "key_conflict"),
            (absent(), Some(Stuck::ClockSetBack), write, 0, "clock_set_back"),
            (absent(), Some(Stuck::Superseded), write, 0, "superseded"),
            (absent(), Some(Stuck::KeyConflict), money, 0, "absent"),
            (undecided(), None, money, 0, "unknown"),
            (undecided(), expired, write, day, "undecided"),
            (unread(), None, money, 0, "unknown"),
            (unread(), expired, money, week - 1, "unknown"),
            (unread(), expired, money, week, "overdue"),
            (unread(), expired, write, week, "overdue"),
            (unasked(), None, money, 0, "unknown"),
            (unasked(), expired, money, week, "unknown"),
            (unasked(), expired, write, week, "unknown"),
        ];
        for (finding, why, effect, ms, expected) in cases {
            let name = format!("{finding:?} {why:?} {effect:?} after {ms} ms");
            assert_eq!(word(unknown(false), finding, why, effect, ms), expected, "{name}");
        }
    }

    #[test]
    fn what_waits_for_a_person_is_moved_by_proof_alone() {
        let look = |finding| {
            word(needs_operator(Stuck::Undecided), finding, Some(Stuck::Undecided), Effect::Money, i64::MAX)
        };
        assert_eq!(look(Finding::Effected(success())), "succeeded");
        assert_eq!(look(Finding::Absent { found: Vec::new() }), "absent");
        assert_eq!(look(Finding::Unread { why: String::new() }), "undecided");
    }

    #[test]
    fn an_event_is_proof_for_every_generation_and_against_every_other_belief() {
        let spec = contract::by_ledger_name("refunds.create").unwrap();
        let proof = |key: String, object: &str| EventProof {
            event_id: "evt_1".to_owned(),
            kind: "refund.created".to_owned(),
            idempotency_key: key,
            object: object.to_owned(),
            api_version: STRIPE_VERSION.to_owned(),
        };
        let beliefs = [
            State::Open(outgoing("a=1")),
            unknown(true),
            needs_operator(Stuck::Absent),
            State::Settled(Settled::Refused(refusal())),
            State::Settled(Settled::NotExecuted(Witness::Operator)),
            State::Lapsed,
        ];
        for state in beliefs {
            let record = record(3, state);
            for generation in 1..=3 {
                let refund = proof(record.key(generation), r#"{"id":"re_1","object":"refund"}"#);
                let Moved::To { record: after, later_sent } = proved(&record, spec, &refund, at(1)) else {
                    panic!("{record:?}")
                };
                assert_eq!(
                    (after.state, later_sent),
                    (
                        State::Settled(Settled::Succeeded(Success { request_id: None, ..success() })),
                        generation < 3
                    )
                );
                let charge = proof(record.key(generation), r#"{"id":"ch_1","object":"charge"}"#);
                assert_eq!(proved(&record, spec, &charge, at(1)), Moved::Nothing);
            }
            let later = proof(record.key(4), r#"{"id":"re_1","object":"refund"}"#);
            assert_eq!(proved(&record, spec, &later, at(1)), Moved::NotOurs);
        }
    }

    #[test]
    fn a_late_proof_of_an_earlier_generation_counts_what_that_one_moved() {
        let spec = contract::by_ledger_name("refunds.create").unwrap();
        let claim =
            Claim { caller: "support".to_owned(), groups: vec![], currency: "usd".to_owned(), amount: 900 };
        let spend = claim.spend(vec!["daily".to_owned()], at(0));
        let record = Record { spend: Some(spend), ..record(2, unknown(false)) };
        let counted = |generation, object: &str| {
            let proof = EventProof {
                event_id: "evt_1".to_owned(),
                kind: "refund.created".to_owned(),
                idempotency_key: record.key(generation),
                object: object.to_owned(),
                api_version: STRIPE_VERSION.to_owned(),
            };
            let Moved::To { record, .. } = proved(&record, spec, &proof, at(1)) else { panic!("{proof:?}") };
            let spend = record.spend.unwrap();
            (spend.amount, spend.currency)
        };
        let refund = r#"{"id":"re_1","object":"refund","amount":200,"currency":"eur"}"#;
        assert_eq!(counted(1, refund), (200, "eur".to_owned()));
        assert_eq!(
            counted(2, refund),
            (900, "usd".to_owned()),
            "what was sent is counted as it was asked for"
        );
        let silent = r#"{"id":"re_1","object":"refund"}"#;
        assert_eq!(counted(1, silent), (900, "usd".to_owned()));
    }

    fn moved(record: &Record, turn: &Turn) -> Option<Record> {
        match turned(record, turn, at(5)) {
            Moved::To { record, .. } => Some(*record),
            _ => None,
        }
    }

    #[test]
    fn what_an_object_became_while_its_making_was_unknown_is_shown_once_it_is_known() {
        let (failed, pending) = (turn("evt_2", 20, "failed"), turn("evt_1", 10, "pending"));
        for state in [unknown(false), needs_operator(Stuck::Absent)] {
            let before = record(1, state);
            let told = moved(&before, &failed).unwrap();
            assert_eq!((&told.state, told.last_ms), (&before.state, before.last_ms));
            assert_eq!(moved(&told, &pending), None, "an older state is no news");
            assert_eq!(moved(&told, &failed), None, "nor is the same");
            let told = Record::decode(&told.encode().unwrap()).unwrap();
            let (known, verdict) =
                looked(told.clone(), Finding::Effected(success()), None, Effect::Money, at(6));
            let Verdict::Settled(Settled::Succeeded(shown)) = &verdict else { panic!("{verdict:?}") };
            assert_eq!((shown, known.told.is_none()), (&failed.applied_to(success()), true));
            assert_eq!(as_it_was(&known), verdict);
            let other = Success { object_id: Some("re_2".to_owned()), ..success() };
            let known = ruled(told.clone(), Ruling::Executed(other.clone()), at(i64::MAX)).unwrap();
            assert_eq!(known.state, State::Settled(Settled::Succeeded(other)), "it is about another object");
            let known = ruled(told, Ruling::NotExecuted, at(i64::MAX)).unwrap();
            assert!(known.told.is_none(), "there is nothing that could have become something");
        }
        assert_eq!(moved(&record(1, State::Lapsed), &failed), None);
    }

    #[test]
    fn a_word_is_heard_only_where_nothing_else_can_tell() {
        let early = [
            State::Open(outgoing("a=1")),
            State::Lapsed,
            State::Settled(Settled::Refused(refusal())),
            State::Settled(Settled::Succeeded(success())),
        ];
        for state in early {
            assert_eq!(ruled(record(1, state), Ruling::NotExecuted, at(i64::MAX)), None);
        }
        assert_eq!(ruled(record(1, unknown(false)), Ruling::NotExecuted, at(SEND_LEASE_MS - 1)), None);
        for (state, now) in [(unknown(false), at(SEND_LEASE_MS)), (needs_operator(Stuck::Absent), at(0))] {
            let after = ruled(record(1, state), Ruling::Executed(success()), now).unwrap();
            assert_eq!(after.state, State::Settled(Settled::Succeeded(success())));
        }
    }
}
