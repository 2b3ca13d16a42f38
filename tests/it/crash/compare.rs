//! Compares the records. Each rule is one promise; what breaks it is collected, never hidden by what breaks another.

use std::collections::{BTreeMap, BTreeSet};

use tollgate::proto::v1::{Operation as LedgerEntry, OperationState};

use super::change::Operation;
use super::load::Entry;
use super::records::{Audit, Effect, Records};

/// What may not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Doubled,
    WithoutAudit,
    SuccessWithoutEffect,
    RefusedAndDone,
    TwoAnswers,
    Unsettled,
    LedgerDiffers,
    EventLost,
    EventTwice,
    EventMissing,
    EventUnseen,
    EventSkipped,
    EventRepeated,
    EventOrder,
    EventMoved,
    LogGap,
    AcknowledgedAgain,
    NeverSettled,
    CallCut,
    LeftOpen,
    StreamCut,
    WrongAnswer,
    Process,
}

impl Rule {
    pub(crate) fn says(self) -> &'static str {
        match self {
            Self::Doubled => "an operation took effect more than once",
            Self::WithoutAudit => "an effect without an audit record before it",
            Self::SuccessWithoutEffect => "a reported success without its one effect",
            Self::RefusedAndDone => "a reported refusal, and an effect",
            Self::TwoAnswers => "two answers to one operation",
            Self::Unsettled => "an outcome that stayed unknown for no reason",
            Self::LedgerDiffers => "the ledger says something else than the caller was told",
            Self::EventLost => "an acknowledged webhook is not in the log",
            Self::EventTwice => "an event is in the log twice",
            Self::EventMissing => "an event that Stripe made is not in the log",
            Self::EventUnseen => "an event that a reader asked for was never shown to it",
            Self::EventSkipped => "a stream left out an event",
            Self::EventRepeated => "a stream showed what lies before the cursor it was to start behind",
            Self::EventOrder => "a stream went back",
            Self::EventMoved => "a stream showed another event than the log has at that position",
            Self::LogGap => "the log has a gap",
            Self::AcknowledgedAgain => {
                "a subscription delivered what was acknowledged, parked or skipped before"
            }
            Self::NeverSettled => {
                "a subscription is done with an event that nobody acknowledged, parked or skipped"
            }
            Self::CallCut => "a call that was accepted, or may have been, ended without an answer",
            Self::LeftOpen => "a gateway ended in peace without what it had begun on record",
            Self::StreamCut => "a stream ended without a word, or without the place at which it goes on",
            Self::WrongAnswer => "an answer that should not be",
            Self::Process => "the process failed",
        }
    }
}

/// What broke which rule.
pub(crate) type Violations = BTreeMap<Rule, Vec<String>>;

pub(crate) fn violations(records: &Records<'_>) -> Violations {
    let mut found = Violations::new();
    let names = Names::of(records);
    let by_operation = names.effects(records);
    for (operation, effects) in by_operation.iter().filter(|(_, effects)| effects.len() > 1) {
        let what = format!("{operation}: {} times: {}", effects.len(), shown(effects));
        found.entry(Rule::Doubled).or_default().push(what);
    }
    audited(records, &mut found);
    let mut unknown = Vec::new();
    for (entry, ledger) in records.history.iter().zip(&records.ledger) {
        let Operation { order, id, change } = &entry.operation;
        let name = format!("{} {order}/{id}", change.rpc());
        let operation = names.by_reference.get(&(change.rpc(), order, id));
        let effects = operation.and_then(|hash| by_operation.get(hash)).map_or(&[][..], Vec::as_slice);
        let state = ledger.as_ref().map_or(OperationState::Unspecified, LedgerEntry::state);
        let object_id = ledger.as_ref().map_or("", |ledger| &ledger.object_id);
        for (rule, what) in told(entry, effects, state, object_id) {
            found.entry(rule).or_default().push(format!("{name}: {what}"));
        }
        let left_to_a_person = state == OperationState::NeedsOperator && names.superseded(entry, records);
        if !entry.told.settled() && !left_to_a_person {
            unknown.push(format!("{name}: {state:?}"));
        }
    }
    if unknown.len() > records.unknown_max {
        found.entry(Rule::Unsettled).or_default().extend(unknown);
    }
    events(records, &mut found);
    found
}

/// Which operation is meant, by what the audit log says of it.
struct Names<'a> {
    by_key: BTreeMap<&'a str, &'a str>,
    by_reference: BTreeMap<(&'a str, &'a String, &'a String), &'a str>,
}

impl<'a> Names<'a> {
    fn of(records: &'a Records<'_>) -> Self {
        let (mut by_key, mut by_reference) = (BTreeMap::new(), BTreeMap::new());
        for row in &records.audit {
            let Some(operation) = row.operation.as_deref() else { continue };
            if let Some(key) = row.idempotency_key.as_deref() {
                by_key.insert(key, operation);
            }
            if let (Some(order), Some(id)) = (&row.order_id, &row.operation_id) {
                by_reference.insert((row.rpc.trim_start_matches("tollgate.v1."), order, id), operation);
            }
        }
        Self { by_key, by_reference }
    }

    /// Whether a later change of what it sets was about to be sent: sending the earlier again could undo it, so that a
    /// person has to decide.
    fn superseded(&self, entry: &Entry, records: &Records<'_>) -> bool {
        let intents = |entry: &Entry| {
            let Operation { order, id, change } = &entry.operation;
            let hash = self.by_reference.get(&(change.rpc(), order, id)).copied();
            let of_it = move |row: &Audit| row.phase == "intent" && row.operation.as_deref() == hash;
            let first = records.audit.iter().position(of_it);
            first.zip(records.audit.iter().rposition(of_it))
        };
        let (change, own) = (&entry.operation.change, intents(entry));
        records.history.iter().any(|other| {
            let same = other.operation.change.rpc() == change.rpc()
                && other.operation.change.sets() == change.sets();
            same && change.sets().is_some()
                && own
                    .zip(intents(other))
                    .is_some_and(|((first, _), (_, last))| last > first && !std::ptr::eq(entry, other))
        })
    }

    /// What was carried out for whom: by the stamp where the object has one, else by the key.
    fn effects(&self, records: &'a Records<'_>) -> BTreeMap<&'a str, Vec<&'a Effect>> {
        let mut found: BTreeMap<&str, Vec<&Effect>> = BTreeMap::new();
        for effect in &records.book.effects {
            let key = effect.idempotency_key.as_deref().unwrap_or("no key");
            let owner = effect.operation.as_deref().or_else(|| self.by_key.get(key).copied()).unwrap_or(key);
            found.entry(owner).or_default().push(effect);
        }
        found
    }
}

/// Every effect was announced: a record of the intent with its key, made no later.
fn audited(records: &Records<'_>, found: &mut Violations) {
    let mut intents: BTreeMap<&str, i64> = BTreeMap::new();
    for row in records.audit.iter().filter(|row| row.phase == "intent") {
        if let Some(key) = &row.idempotency_key {
            let first = intents.entry(key).or_insert(row.at_ms);
            *first = row.at_ms.min(*first);
        }
    }
    for effect in &records.book.effects {
        let intent = effect.idempotency_key.as_deref().and_then(|key| intents.get(key));
        if intent.is_none_or(|at_ms| *at_ms > effect.at) {
            let what = format!("{} at {}, intent {intent:?}", shown(&[effect]), effect.at);
            found.entry(Rule::WithoutAudit).or_default().push(what);
        }
    }
}

/// One operation: what its callers were told against what was done and what the ledger has.
fn told(entry: &Entry, effects: &[&Effect], state: OperationState, object_id: &str) -> Vec<(Rule, String)> {
    let told = &entry.told;
    let mut found: Vec<(Rule, String)> =
        told.wrong.iter().map(|what| (Rule::WrongAnswer, what.clone())).collect();
    if told.done.len() + usize::from(told.refused) > 1 {
        found.push((Rule::TwoAnswers, format!("{:?}, refused: {}", told.done, told.refused)));
    }
    for (object, amount) in &told.done {
        let fits = |effect: &Effect| {
            effect.object.as_ref() == Some(object) && (amount.is_none() || effect.amount == *amount)
        };
        if effects.len() != 1 || !effects.iter().any(|effect| fits(effect)) {
            let what = format!("told {object} {amount:?}, carried out: {}", shown(effects));
            found.push((Rule::SuccessWithoutEffect, what));
        }
        if state != OperationState::Succeeded || object_id != object {
            found.push((Rule::LedgerDiffers, format!("told {object}, ledger {state:?} {object_id}")));
        }
    }
    if told.refused {
        if !effects.is_empty() {
            found.push((Rule::RefusedAndDone, shown(effects)));
        }
        if state != OperationState::Refused {
            found.push((Rule::LedgerDiffers, format!("told of a refusal, ledger {state:?}")));
        }
    }
    if !told.settled() {
        // The gateway may have learnt it after the caller gave up; then the world has to agree.
        let agrees = match state {
            OperationState::Succeeded => {
                effects.len() == 1 && effects.iter().all(|effect| effect.object.as_deref() == Some(object_id))
            }
            OperationState::Refused => effects.is_empty(),
            _ => true,
        };
        if !agrees {
            let what = format!("ledger {state:?} {object_id}, carried out: {}", shown(effects));
            found.push((Rule::LedgerDiffers, what));
        }
    }
    found
}

fn events(records: &Records<'_>, found: &mut Violations) {
    let mut log = BTreeSet::new();
    for id in &records.events {
        if !log.insert(id) {
            found.entry(Rule::EventTwice).or_default().push(id.clone());
        }
    }
    let acknowledged: BTreeSet<&String> = records.book.acknowledged.iter().collect();
    for id in acknowledged {
        if !log.contains(id) {
            found.entry(Rule::EventLost).or_default().push(id.clone());
        }
    }
}

fn shown(effects: &[&Effect]) -> String {
    let one = |effect: &&Effect| {
        let key = effect.idempotency_key.as_deref().unwrap_or("no key");
        let object = effect.object.as_deref().unwrap_or("no object");
        format!("#{} {} {object} {:?} {key}", effect.n, effect.path, effect.amount)
    };
    if effects.is_empty() {
        "nothing".to_owned()
    } else {
        effects.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::Change;
    use super::super::records::Book;
    use super::*;

    const REFERENCE: (&str, &str) = ("order-1", "a");

    fn history() -> Vec<Entry> {
        let (order, id) = REFERENCE;
        let change = Change::Refund { payment: "pi_1".to_owned(), amount: 5 };
        let operation = Operation { order: order.to_owned(), id: id.to_owned(), change };
        let mut entry = Entry { operation, told: super::super::load::Told::default() };
        entry.told.done.insert(("re_1".to_owned(), Some(5)));
        vec![entry]
    }

    fn effect(n: u64, key: &str) -> Effect {
        Effect {
            n,
            at: 100,
            path: "/v1/refunds".to_owned(),
            idempotency_key: Some(key.to_owned()),
            operation: Some("hash".to_owned()),
            object: Some("re_1".to_owned()),
            amount: Some(5),
        }
    }

    fn intent(key: &str) -> Audit {
        Audit {
            at_ms: 100,
            phase: "intent".to_owned(),
            rpc: "tollgate.v1.RefundService/CreateRefund".to_owned(),
            order_id: Some(REFERENCE.0.to_owned()),
            operation_id: Some(REFERENCE.1.to_owned()),
            operation: Some("hash".to_owned()),
            idempotency_key: Some(key.to_owned()),
            ..Audit::default()
        }
    }

    /// The rules that break when one thing of a run in order is changed.
    fn broken(change: impl FnOnce(&mut Vec<Entry>, &mut Records<'static>)) -> Vec<Rule> {
        let mut history = history();
        let mut records = Records {
            history: &[],
            ledger: vec![Some(LedgerEntry {
                state: OperationState::Succeeded.into(),
                object_id: "re_1".to_owned(),
                ..LedgerEntry::default()
            })],
            book: Book { effects: vec![effect(1, "k1")], acknowledged: vec!["evt_1".to_owned()] },
            audit: vec![intent("k1")],
            events: vec!["evt_1".to_owned(), "evt_2".to_owned()],
            unknown_max: 0,
        };
        change(&mut history, &mut records);
        violations(&Records { history: &history, ..records }).into_keys().collect()
    }

    #[test]
    fn each_broken_promise_is_seen() {
        assert_eq!(broken(|_, _| {}), []);
        let twice = |records: &mut Records<'_>, key: &str| {
            records.book.effects.push(effect(2, key));
            records.audit.push(intent(key));
        };
        let doubled = [Rule::Doubled, Rule::SuccessWithoutEffect];
        assert_eq!(broken(|_, records| twice(records, "k1")), doubled);
        assert_eq!(broken(|_, records| twice(records, "k2")), doubled);
        // Without a stamp the key tells whose effect it is.
        let unstamped = |records: &mut Records<'_>| {
            twice(records, "k2");
            records.book.effects.iter_mut().for_each(|effect| effect.operation = None);
        };
        assert_eq!(broken(|_, records| unstamped(records)), doubled);
        assert_eq!(broken(|_, records| records.book.effects.clear()), [Rule::SuccessWithoutEffect]);
        assert_eq!(
            broken(|_, records| records.book.effects[0].amount = Some(6)),
            [Rule::SuccessWithoutEffect]
        );
        assert_eq!(broken(|_, records| records.audit[0].at_ms = 101), [Rule::WithoutAudit]);
        assert_eq!(broken(|_, records| records.audit[0].phase = "outcome".to_owned()), [Rule::WithoutAudit]);
        assert_eq!(broken(|_, records| drop(records.events.remove(0))), [Rule::EventLost]);
        assert_eq!(broken(|_, records| records.events.push("evt_2".to_owned())), [Rule::EventTwice]);
        assert_eq!(broken(|_, records| records.ledger[0] = None), [Rule::LedgerDiffers]);
    }

    #[test]
    fn what_callers_are_told_has_to_agree_with_itself_and_the_world() {
        let refused = |history: &mut Vec<Entry>| {
            history[0].told.done.clear();
            history[0].told.refused = true;
        };
        assert_eq!(broken(|history, _| refused(history)), [Rule::RefusedAndDone, Rule::LedgerDiffers]);
        let other = |history: &mut Vec<Entry>| history[0].told.refused = true;
        assert!(broken(|history, _| other(history)).contains(&Rule::TwoAnswers));
        let silent = |history: &mut Vec<Entry>| history[0].told.done.clear();
        assert_eq!(broken(|history, _| silent(history)), [Rule::Unsettled]);
        let alone = |history: &mut Vec<Entry>, records: &mut Records<'_>| {
            silent(history);
            records.book.effects.clear();
        };
        assert_eq!(broken(alone), [Rule::Unsettled, Rule::LedgerDiffers]);
        let odd = |history: &mut Vec<Entry>| history[0].told.wrong.push("INTERNAL".to_owned());
        assert_eq!(broken(|history, _| odd(history)), [Rule::WrongAnswer]);
    }

    #[test]
    fn an_update_may_be_left_to_a_person_only_after_a_later_one() {
        let told_of_nothing = |later: bool| {
            broken(|history, records| {
                let update = |id: &str| {
                    let (customer, description) = ("cus_1".to_owned(), id.to_owned());
                    let change = Change::UpdateCustomer { customer, description };
                    let operation = Operation { order: "order-2".to_owned(), id: id.to_owned(), change };
                    Entry { operation, told: super::super::load::Told::default() }
                };
                let row = |id: &str| Audit {
                    rpc: "tollgate.v1.CustomerService/UpdateCustomer".to_owned(),
                    order_id: Some("order-2".to_owned()),
                    operation_id: Some(id.to_owned()),
                    operation: Some(format!("hash-{id}")),
                    ..intent(&format!("key-{id}"))
                };
                let ids = if later { ["a", "b"] } else { ["b", "a"] };
                records.audit.extend(ids.map(row));
                history.extend([update("a"), update("b")]);
                history[2].told.refused = true;
                let state = |state: OperationState| {
                    Some(LedgerEntry { state: state.into(), ..LedgerEntry::default() })
                };
                records.ledger.extend([state(OperationState::NeedsOperator), state(OperationState::Refused)]);
            })
        };
        assert_eq!(told_of_nothing(true), []);
        assert_eq!(told_of_nothing(false), [Rule::Unsettled]);
    }
}
