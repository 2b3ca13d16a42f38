//! Many events at once, for proofs and measurements: customers made and then changed by turns, through the API's own
//! endpoints. It must not deliver anything.

use std::fmt::Write as _;

use serde::Deserialize;

use super::object::text;
use super::state::State;
use super::triggers::ask;

/// Most events of one burst: the account stands still while it is made.
pub const BURST_EVENTS_MAX: usize = 10_000;

/// Longest text that each customer carries: <https://docs.stripe.com/api/customers/object>.
pub const BURST_FILL_BYTES_MAX: usize = 5_000;

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// How many events; 1 to [`BURST_EVENTS_MAX`].
    pub count: usize,
    /// About how many customers: as many `customer.created`, and the rest `customer.updated` of them by turns.
    #[serde(default = "one")]
    pub objects: usize,
    /// How much text each customer carries, so that events have a wanted size; at most [`BURST_FILL_BYTES_MAX`].
    #[serde(default)]
    pub fill_bytes: usize,
}

fn one() -> usize {
    1
}

/// Makes exactly that many events; their ids in the order in which they happened.
pub(super) fn make(state: &mut State, burst: Burst) -> Result<Vec<String>, String> {
    let Burst { count, objects, fill_bytes } = burst;
    if !(1..=BURST_EVENTS_MAX).contains(&count) || objects == 0 || fill_bytes > BURST_FILL_BYTES_MAX {
        return Err(format!(
            "a burst has 1 to {BURST_EVENTS_MAX} events of at least 1 object with at most {BURST_FILL_BYTES_MAX} bytes"
        ));
    }
    let mut form = String::from("name=Burst");
    if fill_bytes > 0 {
        // Writing to a text cannot fail.
        let _ = write!(form, "&description={}", "x".repeat(fill_bytes));
    }
    let mut customers = Vec::with_capacity(objects.min(count));
    for n in 0..count {
        let made = match customers.get(n % objects) {
            None => ask(state, "/v1/customers", &form),
            Some(id) => ask(state, &format!("/v1/customers/{id}"), &format!("metadata[burst]={n}")),
        };
        let customer = made.map_err(|error| error.to_string())?;
        if customers.len() < objects {
            customers.push(text(&customer, "id").to_owned());
        }
    }
    let mut ids: Vec<_> =
        state.all("event").rev().take(count).map(|event| text(event, "id").to_owned()).collect();
    ids.reverse();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::Burst;
    use crate::sandbox::tests::Stage;

    #[tokio::test]
    async fn a_burst_makes_exactly_as_many_events_as_asked_for() {
        let stage = Stage::new().await;
        let control = stage.handle.control();
        control.trigger("charge.succeeded").unwrap();
        let ids = control.burst(Burst { count: 7, objects: 3, fill_bytes: 100 }).unwrap();
        assert_eq!(ids.len(), 7);
        let list = stage.get("/v1/events?limit=7").await;
        let events: Vec<_> = list.body["data"].as_array().unwrap().iter().rev().collect();
        assert!(events.iter().map(|event| event["id"].as_str().unwrap()).eq(&ids));
        let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
        assert_eq!((of("customer.created"), of("customer.updated")), (3, 4));
        assert!(control.burst(Burst { count: 0, objects: 1, fill_bytes: 0 }).is_err());
    }

    #[tokio::test]
    async fn deliveries_that_are_given_up_leave_the_event_undelivered() {
        let stage = Stage::new().await;
        let control = stage.handle.control();
        let target = crate::sandbox::WebhookTarget { url: "http://127.0.0.1:1/".into(), secrets: vec![] };
        control.set_webhooks(vec![target]);
        control.burst(Burst { count: 3, objects: 1, fill_bytes: 0 }).unwrap();
        assert_eq!(control.give_up(), 3);
        assert_eq!(control.undelivered(), 0);
        for (query, count) in [("delivery_success=false", 3), ("delivery_success=true", 0)] {
            let list = stage.get(&format!("/v1/events?{query}")).await;
            assert_eq!(list.body["data"].as_array().unwrap().len(), count, "{query}");
        }
    }
}
