//! Compares the parameters of a change with Stripe's object: by type only, whatever the object is.

use serde_json::Value;

use crate::domain::limits::METADATA_RESERVED_PREFIX;

/// How an object agrees with the parameters that it can be compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// How many it shows as they were asked for.
    pub equal: usize,
    /// Names of those that it shows otherwise.
    pub different: Vec<String>,
}

/// Compares the parameters that belong to `fields` with the object.
pub(super) fn compare(params: &[(String, String)], fields: &[&str], object: &Value) -> Compared {
    let mut compared = Compared::default();
    for (name, value) in params.iter().filter(|(name, _)| fields.contains(&top_level(name))) {
        let path: Vec<&str> = name.split('[').map(|part| part.trim_end_matches(']')).collect();
        if shows(member(object, &path), value) {
            compared.equal += 1;
        } else {
            compared.different.push(name.clone());
        }
    }
    compared
}

/// Whether the object is in the target state `field=value`, where the field may be a path with dots, the value one of
/// several behind `|`, and an empty value stands for an absent one.
pub(super) fn reached(target: &str, object: &Value) -> bool {
    let (path, values) = target.split_once('=').unwrap_or((target, ""));
    let path: Vec<&str> = path.split('.').collect();
    values.split('|').any(|value| shows(member(object, &path), value))
}

/// The field that a parameter belongs to.
pub(super) fn top_level(name: &str) -> &str {
    name.split_once('[').map_or(name, |(top, _)| top)
}

fn member<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |at, part| match at {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}

/// Whether a member of the object is what the parameter's value says. An empty value unsets
/// (docs.stripe.com/api/metadata), so it agrees with whatever counts as unset.
fn shows(member: Option<&Value>, value: &str) -> bool {
    match member {
        None | Some(Value::Null) => value.is_empty(),
        Some(Value::String(text)) => text == value,
        Some(Value::Bool(set)) => value == if *set { "true" } else { "false" },
        Some(Value::Number(number)) => number.to_string() == value,
        Some(Value::Array(items)) => value.is_empty() && items.is_empty(),
        // An expanded object stands for its id; clearing all metadata leaves the gateway's own.
        Some(Value::Object(members)) if value.is_empty() => {
            members.keys().all(|key| key.starts_with(METADATA_RESERVED_PREFIX))
        }
        Some(Value::Object(members)) => members.get("id").and_then(Value::as_str) == Some(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differing(params: &[(&str, &str)], object: &Value) -> Vec<String> {
        let params: Vec<_> = params.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let fields: Vec<&str> = params.iter().map(|(name, _)| top_level(name)).collect();
        let compared = compare(&params, &fields, object);
        assert_eq!(compared.equal + compared.different.len(), params.len());
        compared.different
    }

    #[test]
    fn values_of_every_type_are_compared_as_they_were_sent() {
        let object = json!({
            "name": "Ada", "balance": -500, "tax": true, "customer": {"id": "cus_1", "object": "customer"},
            "address": {"city": "Turin", "line1": null}, "preferred_locales": ["it", "en"], "phone": null,
            "metadata": {"a": "1"}, "cleared": {}, "none": [], "stamped": {"tollgate_operation": "x"},
        });
        let equal = [
            ("name", "Ada"),
            ("balance", "-500"),
            ("tax", "true"),
            ("customer", "cus_1"),
            ("address[city]", "Turin"),
            ("address[line1]", ""),
            ("preferred_locales[1]", "en"),
            ("phone", ""),
            ("metadata[a]", "1"),
            ("metadata[gone]", ""),
            ("cleared", ""),
            ("none", ""),
            ("stamped", ""),
            ("absent", ""),
        ];
        assert_eq!(differing(&equal, &object), [""; 0]);
        let different = [
            ("name", "ada"),
            ("balance", "500"),
            ("tax", "false"),
            ("customer", "cus_2"),
            ("address[city]", ""),
            ("address[zip]", "1"),
            ("address", ""),
            ("preferred_locales[2]", "en"),
            ("preferred_locales[x]", "en"),
            ("phone", "1"),
            ("metadata[a]", ""),
            ("metadata", ""),
        ];
        assert_eq!(differing(&different, &object).len(), different.len());
    }

    #[test]
    fn parameters_of_other_fields_do_not_count() {
        let params = [("expand[0]".to_owned(), "charge".to_owned()), ("name".to_owned(), "Ada".to_owned())];
        let compared = compare(&params, &["name"], &json!({"name": "Bea"}));
        assert_eq!(compared, Compared { equal: 0, different: vec!["name".to_owned()] });
    }

    #[test]
    fn a_target_state_is_a_path_and_one_of_several_values() {
        let dispute =
            json!({"status": "warning_closed", "evidence_details": {"submission_method": "manual"}});
        assert!(reached("status=lost|warning_closed", &dispute));
        assert!(!reached("status=lost", &dispute));
        assert!(reached("evidence_details.submission_method=manual", &dispute));
        assert!(reached("discount=", &json!({"discount": null})));
        assert!(!reached("discount=", &json!({"discount": {"id": "di_1"}})));
        assert!(reached("deleted=true", &json!({"deleted": true})));
    }
}
