//! Small operations on JSON objects: reading fields, merging, comparing, showing. It must not know any resource.

use serde_json::{Map, Value};

/// A resource, or the parameters of a call. Keys that begin with `_` are the sandbox's own and are never shown.
pub(super) type Object = Map<String, Value>;

/// The string under `key`; empty when absent or not a string.
pub(super) fn text<'a>(object: &'a Object, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The integer under `key`; zero when absent or not an integer.
pub(super) fn int(object: &Object, key: &str) -> i64 {
    object.get(key).and_then(Value::as_i64).unwrap_or_default()
}

/// The boolean under `key`; false when absent or not a boolean.
pub(super) fn flag(object: &Object, key: &str) -> bool {
    object.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// The object under `key`.
pub(super) fn sub<'a>(object: &'a Object, key: &str) -> Option<&'a Object> {
    object.get(key).and_then(Value::as_object)
}

/// The parameter under `key`, or JSON null.
pub(super) fn or_null(params: &Object, key: &str) -> Value {
    params.get(key).cloned().unwrap_or(Value::Null)
}

/// Turns a `json!({..})` literal into an object.
pub(super) fn from(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

/// Copies the given parameters over the object's fields of the same name; an absent parameter changes nothing.
pub(super) fn set(object: &mut Object, params: &Object, keys: &[&str]) {
    for key in keys {
        if let Some(value) = params.get(*key) {
            object.insert((*key).to_owned(), value.clone());
        }
    }
}

/// Merges a nested object field by field, as Stripe does for `metadata`, `evidence` and the like: a null parameter
/// clears the whole field, a null inside `metadata` removes the key, elsewhere it is kept as null.
pub(super) fn merge(object: &mut Object, params: &Object, key: &str) {
    let Some(given) = params.get(key) else { return };
    let Value::Object(given) = given else {
        let cleared = if key == "metadata" { Value::Object(Object::new()) } else { given.clone() };
        object.insert(key.to_owned(), cleared);
        return;
    };
    let target = object.entry(key).or_insert(Value::Null);
    if !target.is_object() {
        *target = Value::Object(Object::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (name, value) in given {
        if value.is_null() && key == "metadata" {
            target.shift_remove(name);
        } else {
            target.insert(name.clone(), value.clone());
        }
    }
}

/// The object as callers see it: without the sandbox's own keys, at any depth.
pub(super) fn shown(object: &Object) -> Value {
    fn show(value: &Value) -> Value {
        match value {
            Value::Object(object) => shown(object),
            Value::Array(items) => Value::Array(items.iter().map(show).collect()),
            other => other.clone(),
        }
    }
    let visible = object.iter().filter(|(key, _)| !key.starts_with('_'));
    Value::Object(visible.map(|(key, value)| (key.clone(), show(value))).collect())
}

/// `previous_attributes` of an update event: the old value of every field that changed, nested objects by their changed
/// fields only.
pub(super) fn previous(before: &Object, after: &Object) -> Object {
    let mut changed = Object::new();
    let names = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    for name in names.filter(|name| !name.starts_with('_')) {
        let old = before.get(name).unwrap_or(&Value::Null);
        let new = after.get(name).unwrap_or(&Value::Null);
        let value = match (old, new) {
            (old, new) if old == new => continue,
            (Value::Object(old), Value::Object(new)) => Value::Object(previous(old, new)),
            (old, _) => old.clone(),
        };
        changed.insert(name.clone(), value);
    }
    changed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{from, merge, previous, shown};

    #[test]
    fn metadata_merges_and_a_null_removes() {
        let mut object = from(json!({"metadata": {"a": "1", "b": "2"}}));
        merge(&mut object, &from(json!({"metadata": {"a": null, "c": "3"}})), "metadata");
        assert_eq!(object["metadata"], json!({"b": "2", "c": "3"}));
        merge(&mut object, &from(json!({"metadata": null})), "metadata");
        assert_eq!(object["metadata"], json!({}));
    }

    #[test]
    fn previous_attributes_hold_only_what_changed() {
        let before = from(json!({"a": 1, "b": {"x": 1, "y": 2}, "_own": 1}));
        let after = from(json!({"a": 1, "b": {"x": 1, "y": 3, "z": 4}, "_own": 2, "c": 5}));
        assert_eq!(
            serde_json::Value::Object(previous(&before, &after)),
            json!({"b": {"y": 2, "z": null}, "c": null})
        );
    }

    #[test]
    fn own_keys_are_not_shown() {
        assert_eq!(shown(&from(json!({"a": {"_x": 1}, "_b": 2}))), json!({"a": {}}));
    }
}
