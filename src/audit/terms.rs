//! The names by which an audit record can be found again.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::domain::identifier::{is_name, is_stripe_id};

/// Most names of one record.
const TERMS_MAX: usize = 256;
/// Members that are names whatever they look like.
const NAMES: [&str; 9] =
    ["id", "order_id", "operation", "idempotency_key", "path", "object_id", "trace_id", "event_id", "hash"];
/// Members whose ids stand in every record and so find nothing.
const COMMON: [&str; 1] = ["account"];

/// What a stored record may be found by: its id, order, operation, idempotency key, path, trace, Stripe's request ids, every
/// Stripe id among its values, and the keyed hashes of personal values. Sorted, without duplicates; none for bytes that
/// are no record.
#[must_use]
pub fn terms(record: &[u8]) -> Vec<String> {
    let mut terms = BTreeSet::new();
    if let Ok(Value::Object(members)) = serde_json::from_slice(record) {
        for (name, value) in &members {
            gather(name, value, &mut terms);
        }
    }
    terms.into_iter().take(TERMS_MAX).collect()
}

fn gather(name: &str, value: &Value, terms: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let named = NAMES.contains(&name) && is_name(text);
            if named || is_stripe_id(text) && !COMMON.contains(&name) {
                terms.insert(text.clone());
            }
        }
        Value::Array(items) => items.iter().for_each(|item| gather(name, item, terms)),
        Value::Object(members) => members.iter().for_each(|(name, value)| gather(name, value, terms)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_by_everything_that_names_it() {
        let record = br#"{"version":1,"id":"aud_01","at_ms":1,"phase":"outcome","account":"acct_1","order_id":"1001",
            "operation_id":"second","operation":"00ff","params":[{"name":"payment_intent","value":"pi_1"},
            {"name":"reason","value":"requested_by_customer"},{"name":"email","hash":"2026-11:ab"}],
            "outcome":{"result":"refused","reason":"charge_already_refunded"},"stripe_request_ids":["req_1","req_2"],
            "object_id":"re_1","trace_id":"0af7651916cd43dd8448eb211c80319c"}"#;
        assert_eq!(
            terms(record),
            [
                "00ff",
                "0af7651916cd43dd8448eb211c80319c",
                "1001",
                "2026-11:ab",
                "aud_01",
                "pi_1",
                "re_1",
                "req_1",
                "req_2"
            ]
        );
        assert_eq!(terms(b"no record"), Vec::<String>::new());
        assert_eq!(terms(b""), Vec::<String>::new());
    }
}
