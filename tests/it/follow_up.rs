//! Events that the gateway makes of its own: what thin events only name, and the deadlines of disputes; and accounts that
//! it learns of by their events.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tollgate::config::{Config, Thin};
use tollgate::domain::clock::Clock as _;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::feed_service_client::FeedServiceClient;
use tollgate::proto::v1::{Event, EventSource, GetFeedRequest, ListEventsRequest};
use tollgate::sandbox::{Burst, Control, Fault, WebhookTarget};

use crate::rig::{CONNECTED, Rig, SECRET, until};

/// Most reads for a burst of events about two objects: they arrive within a few of the spans in which what tells of one
/// object is gathered, and each object is read once a span.
const READS_MAX: u64 = 10;
const DAY: Duration = Duration::from_secs(86_400);

/// The events of some types, the earliest arrival first.
async fn events(rig: &Rig, types: &[&str]) -> Vec<Event> {
    let request = ListEventsRequest {
        types: types.iter().map(|kind| (*kind).to_owned()).collect(),
        page_size: 100,
        ..ListEventsRequest::default()
    };
    let page = EventServiceClient::new(rig.wire()).list_events(request).await.unwrap();
    let mut events = page.into_inner().events;
    events.reverse();
    events
}

fn target(rig: &Rig) -> Vec<WebhookTarget> {
    let url = format!("http://{}/webhooks/stripe", rig.gateway.webhook);
    vec![WebhookTarget { url, secrets: vec![SECRET.to_owned()] }]
}

/// Has the sandbox deliver thin events alone.
fn thin_only(rig: &Rig) -> Control {
    let control = rig.control();
    control.set_webhooks(Vec::new());
    control.set_thin_webhooks(target(rig));
    control
}

fn json(event: &Event) -> Value {
    serde_json::from_str(&event.json).unwrap()
}

/// The thin events that follow-ups name, each with how often.
fn covered(events: &[Event]) -> BTreeMap<String, usize> {
    let mut covered = BTreeMap::new();
    for event in events.iter().filter(|event| event.source() == EventSource::Synthetic) {
        for id in json(event)["tollgate"]["covers"].as_array().unwrap() {
            *covered.entry(id.as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    covered
}

fn fetching(config: &mut Config) {
    config.events.thin = Thin::Fetch;
}

#[tokio::test]
async fn what_thin_events_name_is_fetched_once_for_all_that_tell_of_it() {
    let rig = Rig::start_with(fetching).await;
    let control = thin_only(&rig);
    let before = control.received();
    control.burst(Burst { count: 40, objects: 2, fill_bytes: 0 }).unwrap();
    let types = ["v1.customer.*"];
    let done = async |rig: &Rig, count: usize| {
        let events = events(rig, &types).await;
        let thin = events.iter().filter(|event| event.source() == EventSource::Webhook).count();
        (thin == count && covered(&events).len() == count).then_some(events)
    };
    let all = until(async || done(&rig, 40).await).await;
    let full: Vec<_> = all.iter().filter(|event| event.source() == EventSource::Synthetic).collect();
    let reads = control.received() - before;
    assert_eq!(reads, full.len() as u64, "Stripe is asked for nothing else");
    assert!((2..=READS_MAX).contains(&reads), "{reads} reads for 2 objects");
    assert!(covered(&all).values().all(|times| *times == 1), "no event is covered twice");
    for event in full {
        let object = &json(event)["data"]["object"];
        assert_eq!(
            (object["object"].as_str(), object["id"].as_str()),
            (Some("customer"), Some(&*event.object_id))
        );
        assert_eq!(object["name"], "Burst");
    }

    // What is done is not done again after a restart, and what comes then is.
    let rig = rig.restart_with(fetching).await;
    let control = thin_only(&rig);
    let before = events(&rig, &types).await.len();
    control.burst(Burst { count: 1, objects: 1, fill_bytes: 0 }).unwrap();
    let after = until(async || done(&rig, 41).await).await;
    assert_eq!(after.len(), before + 2);
}

#[tokio::test]
async fn thin_events_wait_for_a_stripe_that_does_not_answer() {
    let rig = Rig::start_with(fetching).await;
    let control = thin_only(&rig);
    control.add_fault(Fault::parse("status:GET:/v1/customers:status=500,times=2").unwrap());
    control.trigger("customer.created").unwrap();
    let all = until(async || Some(events(&rig, &["v1.*"]).await).filter(|all| all.len() == 2)).await;
    assert_eq!(covered(&all).into_keys().collect::<Vec<_>>(), [all[0].id.clone()]);
}

#[tokio::test]
async fn thin_events_are_kept_as_they_came_unless_they_are_to_be_fetched() {
    let rig = Rig::start().await;
    thin_only(&rig).trigger("customer.created").unwrap();
    let received = rig.control().received();
    let all = until(async || Some(events(&rig, &["v1.*"]).await).filter(|all| !all.is_empty())).await;
    assert_eq!((all.len(), json(&all[0])["object"].as_str()), (1, Some("v2.core.event")));
    assert_eq!(rig.control().received(), received, "nothing is asked of Stripe");
}

#[tokio::test]
async fn a_dispute_s_deadline_is_told_at_seven_three_and_one_day() {
    let rig = Rig::start().await;
    let dispute = rig.control().trigger("charge.dispute.created").unwrap();
    let due_s = dispute["evidence_details"]["due_by"].as_i64().unwrap();
    let opened = async |rig: &Rig| events(rig, &["charge.dispute.created"]).await.len();
    until(async || (opened(&rig).await == 1).then_some(())).await;
    let reminders = async |rig: &Rig| events(rig, &["tollgate.*"]).await;
    assert!(reminders(&rig).await.is_empty());

    // The gateway's clock alone moves: to Stripe the dispute is as it was.
    let left = |rig: &Rig| Duration::from_millis(u64::try_from(due_s * 1000 - rig.clock.wall()).unwrap());
    rig.clock.advance(left(&rig) - 5 * DAY);
    let first = until(async || Some(reminders(&rig).await).filter(|all| all.len() == 1)).await;
    assert_eq!(json(&first[0])["tollgate"]["days"], 7);
    assert_eq!(first[0].source(), EventSource::Synthetic);
    assert_eq!(first[0].object_id, dispute["id"].as_str().unwrap());
    assert_eq!(json(&first[0])["data"]["object"]["id"], dispute["id"]);

    // Over a restart each is told once, and of what has passed only the most urgent one.
    let rig = rig.restart().await;
    rig.clock.advance(left(&rig) - DAY / 2);
    let all = until(async || Some(reminders(&rig).await).filter(|all| all.len() > 1)).await;
    let days: Vec<_> = all.iter().map(|event| json(event)["tollgate"]["days"].clone()).collect();
    assert_eq!(days, [7, 1]);
}

#[tokio::test]
async fn a_dispute_that_is_answered_is_not_told_of() {
    let rig = Rig::start().await;
    let dispute = rig.control().trigger("charge.dispute.closed").unwrap();
    let other = rig.control().trigger("charge.dispute.created").unwrap();
    until(async || (rig.control().undelivered() == 0).then_some(())).await;
    let due_s = other["evidence_details"]["due_by"].as_i64().unwrap();
    rig.clock
        .advance(Duration::from_millis(u64::try_from(due_s * 1000 - rig.clock.wall()).unwrap()) - DAY * 2);
    let all = until(async || Some(events(&rig, &["tollgate.*"]).await).filter(|all| !all.is_empty())).await;
    assert!(all.iter().all(|event| event.object_id != dispute["id"].as_str().unwrap()));
    assert_eq!(all[0].object_id, other["id"].as_str().unwrap());
}

#[tokio::test]
async fn a_connected_account_is_swept_from_its_first_event_on() {
    let rig = Rig::start_with(|config| {
        config.events.sweep_reads_per_day = 1_000;
        config.events.sweep_every = Duration::from_millis(50);
    })
    .await;
    let shop = rig.control_of(CONNECTED);
    shop.set_webhooks(target(&rig));
    shop.trigger("customer.created").unwrap();
    let standing = async |rig: &Rig| {
        let feed = FeedServiceClient::new(rig.wire()).get_feed(GetFeedRequest::default()).await.unwrap();
        feed.into_inner().completeness.into_iter().find(|one| one.connected_account == CONNECTED)
    };
    until(async || standing(&rig).await.filter(|one| one.swept_to.is_some())).await;
    shop.set_webhooks(Vec::new());
    shop.trigger("customer.created").unwrap();
    rig.clock.advance(Duration::from_secs(60));
    let found = until(async || standing(&rig).await.filter(|one| one.repaired == 1)).await;
    assert_eq!(found.last_error, "");
    let all = events(&rig, &["customer.created"]).await;
    assert!(all.iter().all(|event| event.connected_account == CONNECTED) && all.len() == 2);
    assert_eq!(all[1].source(), EventSource::Backfill);
}
