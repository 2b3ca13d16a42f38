//! The event service over the wire: what Stripe's account does arrives as webhooks and leaves as a stream.

use std::time::Duration;

use tokio::time::timeout;
use tollgate::domain::cursor::Cursor;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::subscribe_request::Start;
use tollgate::proto::v1::subscribe_response::Item;
use tollgate::proto::v1::{
    Event, EventPreset, EventSource, GetEventRequest, ListEventsRequest, SubscribeRequest, SubscribeResponse,
    TimeRange,
};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, Wire, until};

/// Longer than anything here takes, so that a test which would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(30);

fn client(rig: &Rig) -> EventServiceClient<Wire> {
    EventServiceClient::new(rig.wire())
}

async fn subscribe(rig: &Rig, request: SubscribeRequest) -> Result<Streaming<SubscribeResponse>, Status> {
    client(rig).subscribe(request).await.map(tonic::Response::into_inner)
}

fn from(start: Start) -> SubscribeRequest {
    SubscribeRequest { start: Some(start), ..SubscribeRequest::default() }
}

async fn next(stream: &mut Streaming<SubscribeResponse>) -> Result<Item, Status> {
    let message = timeout(PATIENCE, stream.message()).await.expect("something comes")?;
    Ok(message.expect("a stream ends with a status only").item.unwrap())
}

/// The next `count` events.
async fn events(stream: &mut Streaming<SubscribeResponse>, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        if let Item::Event(event) = next(stream).await.unwrap() {
            events.push(event);
        }
    }
    events
}

/// Everything that the log has, once it has at least `count` events.
async fn log_of(rig: &Rig, count: usize) -> Vec<Event> {
    let mut stream = subscribe(rig, from(Start::Earliest(true))).await.unwrap();
    events(&mut stream, count).await
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().unwrap().field_violations;
    violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn what_happens_at_stripe_arrives_on_a_stream_that_is_open_and_again_from_the_earliest() {
    let rig = Rig::start().await;
    let mut live = subscribe(&rig, SubscribeRequest::default()).await.unwrap();
    let Item::CaughtUp(mark) = next(&mut live).await.unwrap() else { panic!("nothing to catch up on") };
    assert_eq!(mark.position, 0);
    let payment = rig.payment(1000).await;
    let mut seen = Vec::new();
    while !seen.iter().any(|event: &Event| event.r#type == "payment_intent.succeeded") {
        seen.extend(events(&mut live, 1).await);
    }
    let event = seen.iter().find(|event| event.r#type == "payment_intent.succeeded").unwrap();
    assert_eq!((event.object_id.as_str(), event.object_type.as_str()), (payment.as_str(), "payment_intent"));
    assert_eq!((event.source(), event.livemode, event.account.as_str()), (EventSource::Webhook, false, ""));
    let json: serde_json::Value = serde_json::from_str(&event.json).unwrap();
    assert_eq!(
        (json["id"].as_str(), json["data"]["object"]["id"].as_str()),
        (Some(&*event.id), Some(&*payment))
    );
    assert!(seen.iter().all(|event| !event.json.contains("client_secret")));
    assert_eq!(log_of(&rig, seen.len()).await, seen);
    assert!(seen.iter().map(|event| event.position).eq(1..=seen.len() as u64));
}

#[tokio::test]
async fn types_and_presets_narrow_a_stream() {
    let rig = Rig::start().await;
    let request = SubscribeRequest {
        types: vec!["payment_intent.*".to_owned()],
        presets: vec![EventPreset::Charges.into()],
        ..from(Start::Earliest(true))
    };
    let mut stream = subscribe(&rig, request).await.unwrap();
    rig.stripe("/v1/customers", "name=Jenny").await;
    rig.payment(1000).await;
    let seen = events(&mut stream, 3).await;
    let mut types: Vec<_> = seen.iter().map(|event| event.r#type.as_str()).collect();
    types.sort_unstable();
    assert_eq!(types, ["charge.succeeded", "payment_intent.created", "payment_intent.succeeded"]);
}

#[tokio::test]
async fn a_stream_resumes_behind_any_cursor() {
    let rig = Rig::start().await;
    rig.payment(1000).await;
    let all = log_of(&rig, 3).await;
    for (taken, event) in all.iter().enumerate() {
        let mut stream = subscribe(&rig, from(Start::AfterCursor(event.cursor.clone()))).await.unwrap();
        assert_eq!(events(&mut stream, all.len() - taken - 1).await, all[taken + 1..]);
    }
    let mut stream = subscribe(&rig, from(Start::AtTime(all[0].received.unwrap()))).await.unwrap();
    assert_eq!(events(&mut stream, all.len()).await, all);
}

#[tokio::test]
async fn a_cursor_of_another_log_is_out_of_range_and_the_oldest_is_named() {
    let rig = Rig::start().await;
    let foreign = Cursor { log: 7, position: 1 }.encode();
    let status = subscribe(&rig, from(Start::AfterCursor(foreign))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "CURSOR_EXPIRED"));
    let oldest = status.get_details_error_info().unwrap().metadata["oldest_cursor"].clone();
    let mut stream = subscribe(&rig, from(Start::AfterCursor(oldest))).await.unwrap();
    assert!(matches!(next(&mut stream).await, Ok(Item::CaughtUp(_))));
}

#[tokio::test]
async fn every_fault_of_a_request_is_named() {
    let rig = Rig::start().await;
    let request = SubscribeRequest {
        types: vec!["charge.*".to_owned(), "Charge".to_owned()],
        presets: vec![99],
        ..from(Start::AfterCursor("junk".to_owned()))
    };
    let status = subscribe(&rig, request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut fields = fields(&status);
    fields.sort_unstable();
    assert_eq!(fields.len(), 3, "{fields:?}");
    assert!(fields[0] == "after_cursor" && fields[1].starts_with("presets") && fields[2] == "types[1]");

    let request = SubscribeRequest { account: "nobody".to_owned(), ..SubscribeRequest::default() };
    let status = subscribe(&rig, request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "ACCOUNT_UNKNOWN"));
}

#[tokio::test]
async fn a_gateway_that_stops_ends_its_streams_with_the_cursor_to_resume_at() {
    let rig = Rig::start().await;
    let mut stream = subscribe(&rig, from(Start::Earliest(true))).await.unwrap();
    rig.payment(1000).await;
    let before = events(&mut stream, 3).await;
    let reader = tokio::spawn(async move {
        loop {
            if let Err(status) = next(&mut stream).await {
                return status;
            }
        }
    });
    let rig = rig.restart().await;
    let status = reader.await.unwrap();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
    let cursor = status.get_details_error_info().unwrap().metadata["cursor"].clone();
    assert_eq!(cursor, before[2].cursor);
    let mut stream = subscribe(&rig, from(Start::AfterCursor(cursor))).await.unwrap();
    rig.payment(2000).await;
    let after = events(&mut stream, 3).await;
    assert!(after.iter().map(|event| event.position).eq(4..=6));
}

#[tokio::test]
async fn pages_of_events_go_back_from_the_newest() {
    let rig = Rig::start().await;
    rig.payment(1000).await;
    let mut all = log_of(&rig, 3).await;
    all.reverse();
    let first = ListEventsRequest { page_size: 2, ..ListEventsRequest::default() };
    let page = client(&rig).list_events(first.clone()).await.unwrap().into_inner();
    assert_eq!(page.events, all[..2]);
    let token = page.next_page_token;
    let second = ListEventsRequest { page_token: token.clone(), ..first.clone() };
    let page = client(&rig).list_events(second).await.unwrap().into_inner();
    assert_eq!((page.events.as_slice(), page.next_page_token.as_str()), (&all[2..], ""));

    let other = ListEventsRequest { page_token: token, types: vec!["charge.*".to_owned()], ..first };
    let status = client(&rig).list_events(other).await.unwrap_err();
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["page_token".to_owned()]));

    let created = TimeRange { gt: all[0].created, ..TimeRange::default() };
    let later = ListEventsRequest { created: Some(created), ..ListEventsRequest::default() };
    assert!(client(&rig).list_events(later).await.unwrap().into_inner().events.is_empty());
}

#[tokio::test]
async fn an_event_is_read_by_its_id() {
    let rig = Rig::start().await;
    rig.payment(1000).await;
    let all = log_of(&rig, 3).await;
    let request = |id: &str| GetEventRequest { id: id.to_owned(), ..GetEventRequest::default() };
    let found = client(&rig).get_event(request(&all[1].id)).await.unwrap().into_inner();
    assert_eq!(found.event.as_ref(), Some(&all[1]));
    let status = client(&rig).get_event(request("evt_none")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "EVENT_NOT_FOUND"));
    let status = client(&rig).get_event(request("")).await.unwrap_err();
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["id".to_owned()]));
}

#[tokio::test]
async fn a_stream_that_its_caller_leaves_is_over() {
    let rig = Rig::start().await;
    let open = async |expected: f64| {
        (rig.sample("tollgate_events_subscribers", "").await == Some(expected)).then_some(())
    };
    let stream = subscribe(&rig, SubscribeRequest::default()).await.unwrap();
    until(async || open(1.0).await).await;
    drop(stream);
    until(async || open(0.0).await).await;
}
