//! Events in their thin form (`v2.core.event`), made out of the snapshot event that tells of the same: it must not keep
//! any of its own. Source: <https://docs.stripe.com/event-destinations>.

use serde_json::{Value, json};

use super::error::Error;
use super::object::{self, Object, int, sub, text};
use super::routes::{self, Call, Route, get};

/// What stands before the id of a snapshot event, and of its thin twin.
const SNAPSHOT_PREFIX: &str = "evt_";
const THIN_PREFIX: &str = "evt_test_";

pub(super) const ROUTES: &[Route] = &[get("/v2/core/events/{id}", "event", &[], show)];

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    let missing = || Error::not_found("event", call.id(0));
    let id = call.id(0).strip_prefix(THIN_PREFIX).ok_or_else(missing)?;
    let event = call.state.get("event", &format!("{SNAPSHOT_PREFIX}{id}")).ok_or_else(missing)?;
    let mut full = object::from(notification(event));
    full.insert("snapshot_event".to_owned(), json!(text(event, "id")));
    Ok(Value::Object(full))
}

/// What is delivered: it names the object and does not carry it.
pub(super) fn notification(event: &Object) -> Value {
    let about = sub(event, "data").and_then(|data| sub(data, "object")).cloned().unwrap_or_default();
    let id = text(event, "id").trim_start_matches(SNAPSHOT_PREFIX);
    let mut thin = object::from(json!({
        "id": format!("{THIN_PREFIX}{id}"),
        "object": "v2.core.event",
        "type": format!("v1.{}", text(event, "type")),
        "created": instant(int(event, "created")),
        "livemode": false,
        "related_object": {
            "id": text(&about, "id"),
            "type": text(&about, "object"),
            "url": url(text(&about, "object"), text(&about, "id")),
        },
        "reason": null,
    }));
    if let Some(account) = event.get("account") {
        thin.insert("context".to_owned(), account.clone());
    }
    if let Some(request) = sub(event, "request").filter(|request| !text(request, "id").is_empty()) {
        thin.insert("reason".to_owned(), json!({"type": "request", "request": request}));
    }
    Value::Object(thin)
}

/// Where the object is read; null where no endpoint shows it alone.
fn url(kind: &str, id: &str) -> Value {
    let shows = |route: &&Route| route.method == "GET" && route.object == kind && !route.many;
    let alone = |pattern: &&str| pattern.matches('{').count() == 1 && pattern.ends_with('}');
    let pattern = routes::all().filter(shows).map(|route| route.pattern).find(alone);
    let start = pattern.and_then(|pattern| pattern.rsplit_once('/')).map(|(start, _)| start);
    start.map_or(Value::Null, |start| json!(format!("{start}/{id}")))
}

/// RFC 3339 with milliseconds, as the second version of the API has instants.
fn instant(seconds: i64) -> String {
    let whole = prost_types::Timestamp { seconds, nanos: 0 }.to_string();
    format!("{}.000Z", whole.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use crate::sandbox::tests::Stage;
    use serde_json::json;

    #[tokio::test]
    async fn the_full_form_names_the_object_and_the_snapshot() {
        let stage = Stage::new().await;
        stage.handle.control().trigger("refund.created").unwrap();
        let list = stage.get("/v1/events?type=refund.created").await;
        let snapshot = list.text("/data/0/id");
        let refund = list.text("/data/0/data/object/id");
        let id = snapshot.replace("evt_", "evt_test_");
        let full = stage.get(&format!("/v2/core/events/{id}")).await;
        assert_eq!((full.text("/type"), full.text("/snapshot_event")), ("v1.refund.created", snapshot));
        let related = json!({"id": refund, "type": "refund", "url": format!("/v1/refunds/{refund}")});
        assert_eq!(full.body["related_object"], related);
        assert_eq!(full.text("/created"), "2027-01-15T08:00:00.000Z");
        assert_eq!(stage.get(full.text("/related_object/url")).await.id(), refund);
        assert_eq!(stage.get(&format!("/v2/core/events/{snapshot}")).await.status, 404);
    }
}
