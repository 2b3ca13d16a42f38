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
    Ok(Value::Object(shown(event.clone())))
}

/// As it is read, which is under the name of its account: that stands in it where it is delivered to another.
fn shown(mut event: Object) -> Object {
    event.remove("account");
    event
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
    let mut page = page::list(call, "event", |event, _| {
        let kind = text(event, "type");
        int(event, "created") >= oldest
            && one.is_none_or(|pattern| fits(pattern, kind))
            && (types.is_empty() || types.iter().any(|pattern| fits(pattern, kind)))
            && delivered.is_none_or(|wanted| wanted == (int(event, "pending_webhooks") == 0))
    })?;
    for event in page.get_mut("data").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(event) = event {
            *event = shown(std::mem::take(event));
        }
    }
    Ok(page)
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
    use crate::sandbox::Further;
    use crate::sandbox::tests::Stage;

    #[tokio::test]
    async fn an_event_that_is_read_under_the_name_of_its_account_does_not_repeat_it() {
        let shop = Further { account_id: "acct_shop".to_owned(), secret_key: None };
        let stage = Stage::with(|options| options.accounts = vec![shop]).await;
        stage.handle.control_of("acct_shop").unwrap().trigger("customer.created").unwrap();
        let read = async |path: &str| {
            let url = format!("http://{}{path}", stage.handle.address());
            let request = stage.client.get(url).bearer_auth("sk_test_sandbox");
            let answer = request.header("Stripe-Account", "acct_shop").send().await.unwrap();
            serde_json::from_str::<serde_json::Value>(&answer.text().await.unwrap()).unwrap()
        };
        let listed = read("/v1/events").await["data"][0].clone();
        assert_eq!((listed["type"].as_str(), listed.get("account")), (Some("customer.created"), None));
        assert_eq!(read(&format!("/v1/events/{}", listed["id"].as_str().unwrap())).await, listed);
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(fits("charge.*", "charge.dispute.created") && fits("*", "a") && fits("a.b", "a.b"));
        assert!(!fits("charge.*", "refund.created") && !fits("a.b", "a.b.c") && !fits("aa*aa", "aaa"));
    }
}
