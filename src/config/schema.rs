//! The table of keys as a JSON Schema of the TOML file, for editors. It checks nothing itself.
//! Source: json-schema.org/draft/2020-12.

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key, Shape};

/// The names that an operator may choose.
const NAMES: &str = "^[A-Za-z0-9_-]{1,100}$";

/// The schema of the configuration file.
#[must_use]
pub fn schema() -> Value {
    let mut root = object("Tollgate's configuration");
    if let Some(members) = root.as_object_mut() {
        members.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    }
    for key in KEYS {
        let path: Vec<&str> = key.path.split('.').collect();
        let Some((name, sections)) = path.split_last() else { continue };
        let mut at = &mut root;
        for section in sections {
            let kind = if *section == "*" { "patternProperties" } else { "properties" };
            let name = if *section == "*" { NAMES } else { section };
            at = member(at, kind, name, || object(""));
        }
        member(at, "properties", name, || of(key));
        if key.shape.is_secret() {
            member(
                at,
                "properties",
                &format!("{name}_file"),
                || json!({"type": "string", "description": format!("File that holds `{}`.", key.path)}),
            );
        }
    }
    root
}

/// A table whose members are all known.
fn object(about: &str) -> Value {
    let mut object = json!({"type": "object", "additionalProperties": false});
    if let (Some(members), false) = (object.as_object_mut(), about.is_empty()) {
        members.insert("title".to_owned(), json!(about));
    }
    object
}

/// The schema that stands under `kind` and `name`, made if it is not there yet.
fn member<'a>(at: &'a mut Value, kind: &str, name: &str, make: impl FnOnce() -> Value) -> &'a mut Value {
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    let group = &mut at[kind];
    if group.is_null() {
        *group = json!({});
    }
    let place = &mut group[name];
    if place.is_null() {
        *place = make();
    }
    place
}

fn of(key: &Key) -> Value {
    let mut schema = match key.shape {
        Shape::Seconds(low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
        Shape::Days(low, high) | Shape::Count(low, high) => {
            json!({"type": "integer", "minimum": low, "maximum": high})
        }
        Shape::Amount => json!({"type": "integer", "minimum": 0}),
        Shape::Choice(words) if words.contains(&"true") => json!({"type": "boolean"}),
        Shape::Choice(words) => json!({"enum": words}),
        Shape::Secrets | Shape::Texts => {
            let text = json!({"type": "string"});
            json!({"anyOf": [text, {"type": "array", "items": text}]})
        }
        Shape::Bytes(..) => {
            json!({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[0-9]+(KiB|MiB|GiB)?$"}]})
        }
        Shape::Text | Shape::Secret | Shape::Url | Shape::Address | Shape::Folder | Shape::File => {
            json!({"type": "string"})
        }
    };
    let default = match key.shape {
        _ if key.default.is_empty() => None,
        Shape::Seconds(..) | Shape::Days(..) | Shape::Count(..) => {
            key.default.parse().ok().map(Value::Number)
        }
        Shape::Choice(words) if words.contains(&"true") => Some(json!(key.default == "true")),
        _ => Some(json!(key.default)),
    };
    if let Some(members) = schema.as_object_mut() {
        members.insert("description".to_owned(), json!(key.about));
        members.extend(default.map(|default| ("default".to_owned(), default)));
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_schema_and_nothing_else_is_allowed() {
        let schema = schema();
        for key in KEYS {
            let path = key.path.replace('*', NAMES);
            let place = path.split('.').try_fold(&schema, |at, part| {
                let kind = if part == NAMES { "patternProperties" } else { "properties" };
                at.get(kind)?.get(part)
            });
            assert_eq!(place.and_then(|place| place["description"].as_str()), Some(key.about), "{path}");
        }
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["stripe"]["additionalProperties"], false);
        assert_eq!(schema["properties"]["stripe"]["properties"]["key_file"]["type"], "string");
        let timeout = &schema["properties"]["stripe"]["properties"]["attempt_timeout_s"];
        assert_eq!((&timeout["maximum"], &timeout["default"]), (&json!(600), &json!(80)));
        let admin = &schema["properties"]["callers"]["patternProperties"][NAMES]["properties"]["namespace"];
        assert_eq!(admin["type"], "string");
    }
}
