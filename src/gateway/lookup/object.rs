//! What a look-up takes from Stripe's objects: the stamp, the age, what an operator sees, and the answer that is kept.

use serde_json::{Map, Value, json};

use crate::contract::Spec;
use crate::domain::limits::METADATA_STAMP;
use crate::ledger::{Found, Success};

/// What an operator is shown of an object that could be the effect; none of it is personal.
const SHOWN: [&str; 9] =
    ["object", "amount", "currency", "status", "created", "reason", "payment_intent", "charge", "type"];

/// The stamp of the operation that made the object.
pub(in crate::gateway) fn stamp_of(object: &Value) -> Option<&str> {
    object.get("metadata")?.get(METADATA_STAMP)?.as_str()
}

/// When the object was created, in seconds since the Unix epoch.
pub(super) fn created_s(object: &Value) -> Option<i64> {
    object.get("created")?.as_i64()
}

/// The object as an operator sees it; `None` without an id.
pub(super) fn summary(object: &Value) -> Option<Found> {
    let object_id = object.get("id")?.as_str()?.to_owned();
    let mut shown = Map::new();
    for name in SHOWN {
        let value = object.get(name).map(|value| value.get("id").unwrap_or(value));
        if let Some(value) = value.filter(|value| !value.is_null() && !value.is_object() && !value.is_array())
        {
            shown.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(stamp) = stamp_of(object) {
        shown.insert("stamp".to_owned(), json!(stamp));
    }
    Some(Found { object_id, summary: Value::Object(shown).to_string() })
}

/// The object as the answer of the RPC. Where the answer is of another kind, as after taking a discount off a customer,
/// it is the little that is known for certain.
pub(in crate::gateway) fn success(spec: &Spec, object: &Value, request_id: Option<String>) -> Success {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let own = spec.object.is_empty() || text("object") == Some(spec.object);
    let (json, object_id) = if own {
        (object.to_string(), text("id").map(str::to_owned))
    } else {
        (
            json!({"object": spec.object, "deleted": true, text("object").unwrap_or("of"): text("id")})
                .to_string(),
            None,
        )
    };
    Success { json: Some(json), request_id, object_id, turned_by: None, turned_s: None }
}

/// The answer to the deletion of an object that is gone: what Stripe answers to every deletion.
pub(in crate::gateway) fn removed(spec: &Spec, id: &str, request_id: Option<String>) -> Success {
    let json = json!({"id": id, "object": spec.object, "deleted": true}).to_string();
    Success { json: Some(json), request_id, object_id: Some(id.to_owned()), turned_by: None, turned_s: None }
}
