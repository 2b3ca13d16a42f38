//! `/v1/events`: the event log of the last 30 days. It must not deliver anything.
//! Source: <https://docs.stripe.com/api/events>.

use serde_json::Value;

use super::error::Error;
use super::object::{Object, int, text};
use super::page;
use super::routes::{Call, LIST, Route, get, list};

/// How long events can be read: <https://docs.stripe.com/api/events>.
const WINDOW_SECONDS: i64 = 30 * 24 * 60 * 60;

/// Most types in one filter.
const TYPES_MAX: usize = 20;

pub(super) const ROUTES: &[Route] = &[
    list("/v1/events", "event", &[LIST, "type types:list delivery_success:bool"], all),
    get("/v1/events/{id}", "event", &[], show),
];

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    let oldest = call.state.now() - WINDOW_SECONDS;
    let event = call.state.find("event", call.id(0))?;
    if int(event, "created") < oldest {
        return Err(Error::not_found("event", call.id(0)));
    }
    Ok(Value::Object(event.clone()))
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    let types: Vec<_> = strings(&call.params, "types").collect();
    if types.len() > TYPES_MAX {
        return Err(Error::invalid(format!("At most {TYPES_MAX} types can be given.")).param("types"));
    }
    let one = call.params.get("type").and_then(Value::as_str);
    if one.is_some() && !types.is_empty() {
        let message = "Only one of type and types may be given.";
        return Err(Error::invalid(message).code("parameters_exclusive").param("type"));
    }
    let oldest = call.state.now() - WINDOW_SECONDS;
    let delivered = call.params.get("delivery_success").and_then(Value::as_bool);
    page::list(call, "event", |event, _| {
        let kind = text(event, "type");
        int(event, "created") >= oldest
            && one.is_none_or(|pattern| fits(pattern, kind))
            && (types.is_empty() || types.iter().any(|pattern| fits(pattern, kind)))
            && delivered.is_none_or(|wanted| wanted == (int(event, "pending_webhooks") == 0))
    })
}

/// Whether an event type fits a pattern, in which `*` stands for any text.
pub(super) fn fits(pattern: &str, kind: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == kind,
        Some((start, end)) => {
            kind.len() >= start.len() + end.len() && kind.starts_with(start) && kind.ends_with(end)
        }
    }
}

fn strings<'a>(params: &'a Object, key: &str) -> impl Iterator<Item = &'a str> {
    params.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(fits("charge.*", "charge.dispute.created") && fits("*", "a") && fits("a.b", "a.b"));
        assert!(!fits("charge.*", "refund.created") && !fits("a.b", "a.b.c") && !fits("aa*aa", "aaa"));
    }
}
