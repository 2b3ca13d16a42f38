//! The names by which an event can be found again: its own, those of its object and what belongs to it, and those of
//! the request that caused it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cause::Cause;
use super::envelope::Envelope;
use super::notes::Notes;
use crate::domain::identifier::{is_name, is_stripe_id};
use crate::domain::limits::METADATA_STAMP;
use crate::store::NewEvent;

/// Most names of one event.
const TERMS_MAX: usize = 32;
/// Members whose values look like ids and open doors instead.
const SECRETS: [&str; 1] = ["client_secret"];

/// The event's id, its object's id, the ids that stand directly in the object (its charge, payment intent, customer and
/// so on, expanded or not), the operation's stamp in the object's metadata, request id and idempotency key of the request
/// behind it, and the orders that it goes back to. Sorted, without duplicates.
#[must_use]
pub fn terms(event: &NewEvent) -> Vec<String> {
    let mut terms = BTreeSet::from([event.id.clone()]);
    if let Ok(envelope) = Envelope::parse(&event.json) {
        let Envelope { object_id, customer, request_id, idempotency_key, .. } = envelope;
        terms.extend([object_id, customer, request_id, idempotency_key]);
    }
    let json: Value = serde_json::from_str(&event.json).unwrap_or_default();
    let object = json.pointer("/data/object").and_then(Value::as_object);
    let stamp = object.and_then(|object| object.get("metadata")?.get(METADATA_STAMP)?.as_str());
    terms.extend(stamp.map(str::to_owned));
    terms.retain(|term| is_name(term));
    let Cause { call, origin } = Notes::decode(&event.cause).cause;
    terms.extend([call, origin].iter().flatten().map(|call| of_order(&call.namespace, &call.order_id)));
    for (name, value) in object.into_iter().flatten() {
        let id = value.as_str().or_else(|| value.get("id")?.as_str());
        let id = id.filter(|id| is_stripe_id(id) && !SECRETS.contains(&name.as_str()));
        // What lists are asked for has gone in before.
        terms.extend(id.filter(|id| terms.len() < TERMS_MAX && is_name(id)).map(str::to_owned));
    }
    terms.into_iter().collect()
}

/// The name of an order among those of its namespace. No id has spaces, so that nobody asks for another's by one.
pub(super) fn of_order(namespace: &str, order_id: &str) -> String {
    format!("order {namespace} {order_id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Call;

    fn event(json: &str) -> NewEvent {
        NewEvent {
            id: "evt_1".into(),
            kind: "refund.created".into(),
            created_s: 1,
            received_ms: 1,
            account: String::new(),
            livemode: false,
            api_version: String::new(),
            source: 1,
            json: json.into(),
            cause: Vec::new(),
        }
    }

    #[test]
    fn an_event_goes_by_all_it_concerns_and_by_no_secret() {
        let json = r#"{"id":"evt_1","object":"event","created":1,"type":"refund.created","livemode":false,
            "request":{"id":"req_1","idempotency_key":"tg1-00"},"data":{"object":{"id":"re_1","object":"refund",
            "charge":{"id":"ch_1","customer":"cus_9"},"payment_intent":"pi_1","reason":"requested_by_customer","amount":5,
            "client_secret":"pi_1_secret_2","metadata":{"tollgate_operation":"00ff","order":"1001"}}}}"#;
        let call =
            |order_id: &str| Call { namespace: "shop".into(), order_id: order_id.into(), ..Call::default() };
        let cause = Cause { call: Some(call("1001")), origin: Some(call("1001")) };
        let of_ours = NewEvent { cause: Notes::from(cause).encode(), ..event(json) };
        assert!(terms(&of_ours).contains(&"order shop 1001".to_owned()));
        assert_eq!(terms(&event(json)), ["00ff", "ch_1", "evt_1", "pi_1", "re_1", "req_1", "tg1-00"]);
    }

    #[test]
    fn what_lists_are_asked_for_is_not_crowded_out() {
        let ids: Vec<String> = (0..100).map(|id| format!(r#""a{id}":"aa_{id}""#)).collect();
        let json = format!(
            r#"{{"id":"evt_1","object":"event","created":1,"type":"a.b","livemode":false,
            "data":{{"object":{{"id":"re_x","object":"refund",{},"customer":"cus_x"}}}}}}"#,
            ids.join(",")
        );
        let terms = terms(&event(&json));
        assert!(
            terms.len() == TERMS_MAX && terms.contains(&"re_x".into()) && terms.contains(&"cus_x".into())
        );
    }

    #[test]
    fn an_event_that_cannot_be_read_still_goes_by_its_id() {
        assert_eq!(terms(&event("{")), ["evt_1"]);
    }
}
