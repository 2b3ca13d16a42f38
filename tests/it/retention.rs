//! What leaves the event log, and what readers are told about it.

use std::time::Duration;

use prost_types::Timestamp;
use tokio::time::timeout;
use tollgate::domain::clock::Clock as _;
use tollgate::proto::v1::create_subscription_request::Start as CreateAt;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::feed_service_client::FeedServiceClient;
use tollgate::proto::v1::subscribe_request::Start;
use tollgate::proto::v1::subscribe_response::Item;
use tollgate::proto::v1::subscription_service_client::SubscriptionServiceClient;
use tollgate::proto::v1::{
    CreateSubscriptionRequest, GetFeedRequest, GetFeedResponse, SubscribeRequest, SubscribeResponse,
};
use tollgate::sandbox::Burst;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, until};

/// Longer than anything here takes, so that a test which would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

async fn feed(rig: &Rig) -> GetFeedResponse {
    FeedServiceClient::new(rig.wire()).get_feed(GetFeedRequest::default()).await.unwrap().into_inner()
}

async fn subscribe(rig: &Rig, start: Start) -> Result<Streaming<SubscribeResponse>, Status> {
    let request = SubscribeRequest { start: Some(start), ..SubscribeRequest::default() };
    EventServiceClient::new(rig.wire()).subscribe(request).await.map(tonic::Response::into_inner)
}

/// Positions of the events up to the head.
async fn positions(mut stream: Streaming<SubscribeResponse>) -> Vec<u64> {
    let mut positions = Vec::new();
    loop {
        let message = timeout(PATIENCE, stream.message()).await.expect("something comes").unwrap();
        match message.and_then(|message| message.item) {
            Some(Item::Event(event)) => positions.push(event.position),
            Some(Item::CaughtUp(_)) => return positions,
            _ => {}
        }
    }
}

/// The oldest cursor that a refusal names.
fn oldest_named(refused: Result<Streaming<SubscribeResponse>, Status>) -> String {
    let status = refused.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str()), (Code::OutOfRange, "CURSOR_EXPIRED"));
    info.metadata["oldest_cursor"].clone()
}

fn at(ms: i64) -> Start {
    Start::AtTime(Timestamp { seconds: ms.div_euclid(1000), nanos: 0 })
}

/// A gateway whose log has some events, and keeps them for a day or two.
async fn of_few_days() -> (Rig, GetFeedResponse) {
    let rig = Rig::start_with(|config| {
        config.events.retention_days = 1;
        config.events.retention_hard_days = 2;
    })
    .await;
    rig.payment(1000).await;
    let before = until(async || {
        let delivered = rig.control().undelivered() == 0;
        let told = feed(&rig).await;
        (delivered && told.head.is_some()).then_some(told)
    })
    .await;
    (rig, before)
}

/// The same when it has kept them for two days and then got others.
async fn after_two_days() -> (Rig, GetFeedResponse) {
    let (rig, before) = of_few_days().await;
    rig.clock.advance(48 * HOUR);
    rig.payment(2000).await;
    (rig, before)
}

#[tokio::test]
async fn events_leave_with_time_and_readers_are_told_where_to_begin() {
    let (rig, before) = after_two_days().await;
    let (first, last) = (before.oldest.unwrap(), before.head.unwrap());
    assert_eq!(first.position, 1);
    let told = until(async || {
        let told = feed(&rig).await;
        (told.oldest.as_ref().unwrap().position > last.position).then_some(told)
    })
    .await;
    let oldest = told.oldest.unwrap();
    assert_eq!(oldest.position, last.position + 1, "what is younger stays");
    assert!(told.bytes > 0);
    let kept = told.retention.unwrap();
    assert_eq!((kept.days, kept.hard_days, kept.mark_days), (1, 2, 35));

    let stale = subscribe(&rig, Start::AfterCursor(first.cursor)).await;
    assert_eq!(oldest_named(stale), oldest.cursor);
    let too_early = subscribe(&rig, at(rig.clock.wall() - 72 * 3_600_000)).await;
    assert_eq!(oldest_named(too_early), oldest.cursor);

    until(async || (rig.control().undelivered() == 0).then_some(())).await;
    let head = feed(&rig).await.head.unwrap().position;
    let rest: Vec<u64> = (oldest.position..=head).collect();
    let hour_ago = at(rig.clock.wall() - 3_600_000);
    for start in [Start::AfterCursor(oldest.cursor), Start::Earliest(true), hour_ago] {
        let stream = subscribe(&rig, start.clone()).await.unwrap();
        assert_eq!(positions(stream).await, rest, "{start:?}");
    }
}

#[tokio::test]
async fn a_subscription_that_is_there_can_be_asked_for_again_when_its_start_has_left_the_log() {
    let (rig, before) = of_few_days().await;
    let (first, last) = (before.oldest.unwrap(), before.head.unwrap());
    let start = Some(CreateAt::AfterCursor(first.cursor));
    let request = CreateSubscriptionRequest { name: "orders".to_owned(), start, ..Default::default() };
    let create = async |request: &CreateSubscriptionRequest| {
        let created = SubscriptionServiceClient::new(rig.wire()).create_subscription(request.clone()).await;
        created.map(|created| created.into_inner().subscription.unwrap())
    };
    let made = create(&request).await.unwrap();
    rig.clock.advance(49 * HOUR);
    rig.payment(2000).await;
    until(async || (feed(&rig).await.oldest.unwrap().position > last.position).then_some(())).await;
    let again = create(&request).await.unwrap();
    assert_eq!((again.created, again.created_by), (made.created, made.created_by));
    let other = CreateSubscriptionRequest { name: "others".to_owned(), ..request };
    assert_eq!(create(&other).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn the_oldest_events_leave_a_log_that_is_too_large_and_no_more_of_them() {
    const LIMIT_BYTES: u64 = 256 * 1024;
    /// More than one of these events has.
    const EVENT_BYTES_MAX: u64 = 16 * 1024;
    const COUNT: usize = 200;
    let rig = Rig::start_with(|config| config.events.retention_bytes = LIMIT_BYTES).await;
    rig.payment(1000).await;
    let first = until(async || feed(&rig).await.oldest).await;
    rig.control().burst(Burst { count: COUNT, objects: 5, fill_bytes: 3_000 }).unwrap();
    until(async || (rig.control().undelivered() == 0).then_some(())).await;
    let told = until(async || {
        let told = feed(&rig).await;
        (told.bytes <= LIMIT_BYTES).then_some(told)
    })
    .await;
    assert!(told.bytes + EVENT_BYTES_MAX > LIMIT_BYTES, "what fits stays: {} bytes", told.bytes);
    let (oldest, head) = (told.oldest.unwrap(), told.head.unwrap());
    assert!(first.position < oldest.position && head.position > COUNT as u64);
    assert_eq!(oldest_named(subscribe(&rig, Start::AfterCursor(first.cursor)).await), oldest.cursor);
    let stream = subscribe(&rig, Start::Earliest(true)).await.unwrap();
    assert_eq!(positions(stream).await, (oldest.position..=head.position).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_empty_feed_has_neither_end() {
    let rig = Rig::start().await;
    let told = feed(&rig).await;
    assert_eq!((told.oldest, told.head, told.bytes), (None, None, 0));
    assert!(!told.call.unwrap().audit_id.is_empty());
    let unknown = GetFeedRequest { account: "nobody".to_owned() };
    let refused = FeedServiceClient::new(rig.wire()).get_feed(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
}
