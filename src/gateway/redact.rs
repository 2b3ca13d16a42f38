//! Takes client secrets out of Stripe's JSON: who holds one can act for the customer, so they end at the gateway.

use std::borrow::Cow;

use serde_json::Value;

const MEMBER: &str = "client_secret";
/// URLs that carry a client secret in their query.
const PARAMETER: &str = "client_secret=";

/// The same JSON with every client secret left out. Text without any is returned as it is, byte for byte.
#[must_use]
pub fn without_client_secrets(json: &str) -> Cow<'_, str> {
    if !json.contains(MEMBER) {
        return Cow::Borrowed(json);
    }
    match serde_json::from_str::<Value>(json) {
        Ok(mut value) => {
            strip(&mut value);
            Cow::Owned(value.to_string())
        }
        // What cannot be read cannot be cleaned.
        Err(_) => Cow::Borrowed(""),
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.shift_remove(MEMBER);
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::String(text) if text.contains(PARAMETER) => text.clear(),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_secrets_go_at_any_depth_and_all_else_stays() {
        let json = r#"{"a":[{"client_secret":"pi_1_secret_x","b":1}],"url":"https://h/?client_secret=y"}"#;
        assert_eq!(without_client_secrets(json), r#"{"a":[{"b":1}],"url":""}"#);
        let plain = "{ \"amount\" : 5 }";
        assert_eq!(without_client_secrets(plain), plain);
    }
}
