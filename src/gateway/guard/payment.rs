//! What the event log knows of one payment: what was paid, what went back and what is disputed. Pure; what is not known
//! raises no doubt.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::store::NewEvent;

/// Refunds that took or will take money, in the order in which a refund comes to its states; then those that gave it
/// back (docs.stripe.com/api/refunds/object).
const REFUND_STATES: [&str; 5] = ["pending", "requires_action", "succeeded", "failed", "canceled"];
/// States of a refund whose money stayed.
const UNDONE: [&str; 2] = ["failed", "canceled"];
/// Disputes that forbid a refund; an inquiry (`warning_...`) is best answered by one
/// (docs.stripe.com/disputes/how-disputes-work).
const DISPUTED: [&str; 4] =
    ["needs_response", "under_review", "appeal_needs_response", "appeal_under_review"];

/// Why a change may be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    /// In words.
    pub(super) message: String,
    /// Ids of what raised it.
    pub(super) objects: Vec<String>,
}

/// One payment, by the newest state of every object that belongs to it.
#[derive(Debug, Default)]
pub(super) struct Payment {
    /// By kind and id.
    newest: BTreeMap<(String, String), Seen>,
}

/// An object as it was at some time.
#[derive(Debug)]
struct Seen {
    /// When, in seconds since the Unix epoch; then how far it had come. What is greater is newer.
    order: (i64, i64),
    object: Map<String, Value>,
}

impl Payment {
    /// Adds what the events tell of the payment that `target`, a charge or a payment intent, stands for.
    pub(super) fn learn<'a>(&mut self, target: &str, events: impl Iterator<Item = &'a NewEvent>) {
        for event in events {
            let json: Option<Value> = serde_json::from_str(&event.json).ok();
            let object = json.and_then(|mut json| json.pointer_mut("/data/object").map(Value::take));
            if let Some(Value::Object(object)) = object
                && ["id", "charge", "payment_intent"].iter().any(|name| id(&object, name) == target)
            {
                self.take(event.created_s, object);
            }
        }
    }

    /// Events arrive in any order: the newest state counts, and of one second the furthest.
    fn take(&mut self, created_s: i64, object: Map<String, Value>) {
        let further = match id(&object, "object") {
            "refund" => index(&REFUND_STATES, id(&object, "status")),
            "dispute" => i64::from(!DISPUTED.contains(&id(&object, "status"))),
            "charge" => number(&object, "amount_refunded"),
            _ => 0,
        };
        let key = (id(&object, "object").to_owned(), id(&object, "id").to_owned());
        let order = (created_s, further);
        if self.newest.get(&key).is_none_or(|known| order >= known.order) {
            self.newest.insert(key, Seen { order, object });
        }
    }

    fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Map<String, Value>> {
        self.newest.iter().filter(move |((own, _), _)| own == kind).map(|(_, seen)| &seen.object)
    }

    /// Whether giving `amount` back, or without one all that remains, would be more than was paid.
    pub(super) fn over_refund(&self, amount: Option<i64>) -> Option<Doubt> {
        let sum = |kind, name| self.all(kind).fold(0_i64, |sum, one| sum.saturating_add(number(one, name)));
        let paid = match sum("charge", "amount_captured") {
            0 => sum("payment_intent", "amount_received"),
            captured => captured,
        };
        let alive = |refund: &&Map<String, Value>| !UNDONE.contains(&id(refund, "status"));
        let seen = self
            .all("refund")
            .filter(alive)
            .fold(0_i64, |sum, one| sum.saturating_add(number(one, "amount")));
        // What the charge counts beyond all refunds of the log went back before the log began.
        let unseen = sum("charge", "amount_refunded").saturating_sub(sum("refund", "amount")).max(0);
        let back = seen.saturating_add(unseen);
        let remains = paid.saturating_sub(back);
        if paid == 0 || amount.map_or(remains > 0, |amount| amount <= remains) {
            return None;
        }
        let currency =
            self.all("charge").chain(self.all("payment_intent")).map(|one| id(one, "currency")).next();
        let asked = amount.map_or_else(|| "the rest".to_owned(), |amount| amount.to_string());
        let message = format!(
            "of {paid} {} paid, {back} went back or is about to, so {asked} cannot go back too",
            currency.unwrap_or_default()
        );
        let objects = self.all("refund").filter(alive).map(|refund| id(refund, "id").to_owned()).collect();
        Some(Doubt { message, objects })
    }

    /// Whether a bank may give the money back as well.
    pub(super) fn open_dispute(&self) -> Option<Doubt> {
        let open = self.all("dispute").filter(|dispute| DISPUTED.contains(&id(dispute, "status")));
        let objects: Vec<String> = open.map(|dispute| id(dispute, "id").to_owned()).collect();
        let first = objects.first()?;
        let message =
            format!("the payment is disputed (`{first}`), and its bank may give the money back as well");
        Some(Doubt { message, objects })
    }
}

/// A text, or the id of an object that stands whole in its place; empty without either.
fn id<'a>(object: &'a Map<String, Value>, name: &str) -> &'a str {
    let value = object.get(name);
    value.and_then(|value| value.as_str().or_else(|| value.get("id")?.as_str())).unwrap_or_default()
}

fn number(object: &Map<String, Value>, name: &str) -> i64 {
    object.get(name).and_then(Value::as_i64).unwrap_or_default()
}

fn index(states: &[&str], state: &str) -> i64 {
    states.iter().position(|known| *known == state).and_then(|at| i64::try_from(at).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event(created_s: i64, object: &Value) -> NewEvent {
        NewEvent {
            id: "evt_1".to_owned(),
            kind: String::new(),
            created_s,
            received_ms: 0,
            account: String::new(),
            livemode: false,
            api_version: String::new(),
            source: 1,
            json: json!({"data": {"object": object}}).to_string(),
            cause: Vec::new(),
        }
    }

    fn charge(at: i64, captured: i64, refunded: i64) -> NewEvent {
        let object = json!({"object": "charge", "id": "ch_1", "payment_intent": "pi_1", "currency": "usd",
            "amount_captured": captured, "amount_refunded": refunded});
        event(at, &object)
    }

    fn refund(at: i64, name: &str, amount: i64, status: &str) -> NewEvent {
        let object = json!({"object": "refund", "id": name, "charge": "ch_1", "payment_intent": "pi_1",
            "amount": amount, "status": status});
        event(at, &object)
    }

    fn dispute(at: i64, status: &str) -> NewEvent {
        event(at, &json!({"object": "dispute", "id": "dp_1", "charge": {"id": "ch_1"}, "status": status}))
    }

    fn known_from<'a>(target: &str, events: impl Iterator<Item = &'a NewEvent>) -> Payment {
        let mut payment = Payment::default();
        payment.learn(target, events);
        payment
    }

    fn remains(events: &[NewEvent], target: &str) -> i64 {
        let payment = known_from(target, events.iter());
        (0..2000).take_while(|amount| payment.over_refund(Some(*amount)).is_none()).last().unwrap_or(-1)
    }

    #[test]
    fn what_went_back_or_is_about_to_leaves_less() {
        let mut events = vec![charge(1, 1000, 0)];
        assert_eq!(remains(&events, "ch_1"), 1000);
        events.extend([refund(2, "re_1", 300, "succeeded"), charge(2, 1000, 300)]);
        assert_eq!((remains(&events, "ch_1"), remains(&events, "pi_1")), (700, 700));
        events.push(refund(3, "re_2", 500, "pending"));
        assert_eq!(remains(&events, "ch_1"), 200);
        events.extend([refund(4, "re_2", 500, "failed"), refund(5, "re_1", 300, "canceled")]);
        assert_eq!(remains(&events, "ch_1"), 1000, "what failed is free again");
        let payment = known_from("ch_1", events.iter());
        assert_eq!(payment.over_refund(None), None);
        events.push(refund(6, "re_3", 1000, "succeeded"));
        let doubt = known_from("ch_1", events.iter()).over_refund(None).unwrap();
        assert_eq!(doubt.objects, ["re_3"]);
        assert!(doubt.message.starts_with("of 1000 usd paid, 1000 went back"), "{}", doubt.message);
    }

    #[test]
    fn refunds_from_before_the_log_count_by_the_charge() {
        assert_eq!(remains(&[charge(1, 1000, 400)], "ch_1"), 600);
        assert_eq!(remains(&[charge(5, 1000, 700), refund(4, "re_1", 300, "succeeded")], "ch_1"), 300);
    }

    #[test]
    fn nothing_is_doubted_about_a_payment_that_the_log_does_not_know() {
        let unknown = known_from("ch_2", [charge(1, 10, 10), dispute(1, "needs_response")].iter());
        assert_eq!((unknown.over_refund(Some(5000)), unknown.open_dispute()), (None, None));
        let refunds_only = known_from("ch_1", [refund(1, "re_1", 10, "succeeded")].iter());
        assert_eq!(refunds_only.over_refund(Some(5000)), None);
    }

    #[test]
    fn a_dispute_is_open_until_it_is_decided_and_an_inquiry_is_none() {
        for (status, open) in [
            ("needs_response", true),
            ("under_review", true),
            ("appeal_under_review", true),
            ("won", false),
            ("lost", false),
            ("prevented", false),
            ("warning_needs_response", false),
            ("warning_closed", false),
        ] {
            let events = [charge(1, 10, 0), dispute(3, status), dispute(2, "needs_response")];
            let doubt = known_from("ch_1", events.iter()).open_dispute();
            assert_eq!(doubt.map(|doubt| doubt.objects), open.then(|| vec!["dp_1".to_owned()]), "{status}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_changes_nothing(
            mut events in prop::collection::vec((0..4_i64, 0..3_usize, 0..5_usize), 0..12),
            turn in 0..12_usize,
        ) {
            // One object has one state at a time: the further of those of one second.
            events.dedup();
            let made = |events: &[(i64, usize, usize)]| {
                let mut made = vec![charge(0, 1000, 0)];
                let refunds = events.iter().map(|(at, which, state)| {
                    refund(*at, ["re_1", "re_2", "re_3"][*which], 100, REFUND_STATES[*state])
                });
                made.extend(refunds);
                remains(&made, "ch_1")
            };
            let first = made(&events);
            let turn = turn.min(events.len());
            events.rotate_left(turn);
            prop_assert_eq!(made(&events), first);
            events.reverse();
            prop_assert_eq!(made(&events), first);
        }
    }
}
