//! Named subscriptions over the wire: what was acknowledged never comes again and what was not does, whatever dies in
//! between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;
use tollgate::domain::clock::SystemClock;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::feed_service_client::FeedServiceClient;
use tollgate::proto::v1::reject_request::Verdict;
use tollgate::proto::v1::seek_subscription_request::To;
use tollgate::proto::v1::subscription_service_client::SubscriptionServiceClient;
use tollgate::proto::v1::{
    AcknowledgeRequest, ConsumeRequest, ConsumeResponse, CreateSubscriptionRequest,
    DeleteSubscriptionRequest, Delivery, DeliveryOptions, Event, GetFeedRequest, GetSubscriptionRequest,
    ListEventsRequest, ListParkedEventsRequest, ListSubscriptionsRequest, PauseSubscriptionRequest,
    RejectRequest, ReplayEventsRequest, ReplayParkedEventsRequest, ResumeSubscriptionRequest,
    SeekSubscriptionRequest, Subscription, SubscriptionStatus, create_subscription_request,
};
use tollgate::sandbox::{Burst, Control, WebhookTarget};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::crash::gateway::Gateway;
use crate::rig::{self, Rig, SECRET, TOKEN, Token, Wire, until};

/// Longer than anything here takes, so that a test which would hang fails instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "orders";

pub(crate) type Client = SubscriptionServiceClient<Wire>;

pub(crate) fn client(rig: &Rig) -> Client {
    SubscriptionServiceClient::new(rig.wire())
}

pub(crate) fn name() -> String {
    NAME.to_owned()
}

pub(crate) fn creation() -> CreateSubscriptionRequest {
    let start = Some(create_subscription_request::Start::Earliest(true));
    CreateSubscriptionRequest { name: name(), start, ..CreateSubscriptionRequest::default() }
}

pub(crate) async fn created(client: &mut Client, options: DeliveryOptions) -> Subscription {
    let request = CreateSubscriptionRequest { options: Some(options), ..creation() };
    client.create_subscription(request).await.unwrap().into_inner().subscription.unwrap()
}

pub(crate) async fn status_of(client: &mut Client) -> SubscriptionStatus {
    let answer = client.get_subscription(GetSubscriptionRequest { name: name() }).await.unwrap();
    answer.into_inner().subscription.unwrap().status.unwrap()
}

pub(crate) async fn consume(client: &mut Client, consumer: &str) -> Streaming<ConsumeResponse> {
    let request = ConsumeRequest { name: name(), consumer: consumer.to_owned(), ..ConsumeRequest::default() };
    client.consume(request).await.unwrap().into_inner()
}

/// The next event; signs of life are passed over.
pub(crate) async fn next(stream: &mut Streaming<ConsumeResponse>) -> Result<(Event, Delivery), Status> {
    loop {
        let message = timeout(PATIENCE, stream.message()).await.expect("something comes")?;
        let message = message.expect("a stream ends with a status only");
        if let (Some(event), Some(delivery)) = (message.event, message.delivery) {
            return Ok((event, delivery));
        }
    }
}

pub(crate) async fn take(stream: &mut Streaming<ConsumeResponse>, count: usize) -> Vec<(Event, Delivery)> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(next(stream).await.unwrap());
    }
    taken
}

pub(crate) async fn acknowledge<'a>(
    client: &mut Client,
    deliveries: impl IntoIterator<Item = &'a (Event, Delivery)>,
) -> Result<(), Status> {
    let ack_ids = deliveries.into_iter().map(|(_, delivery)| delivery.ack_id.clone()).collect();
    client.acknowledge(AcknowledgeRequest { name: name(), ack_ids }).await.map(drop)
}

pub(crate) async fn reject(
    client: &mut Client,
    delivery: &Delivery,
    verdict: Verdict,
) -> Result<bool, Status> {
    let (ack_id, reason) = (delivery.ack_id.clone(), "it was too much".to_owned());
    let request = RejectRequest { name: name(), ack_id, verdict: Some(verdict), reason };
    client.reject(request).await.map(|answer| answer.into_inner().parked)
}

fn positions<'a>(taken: impl IntoIterator<Item = &'a (Event, Delivery)>) -> Vec<u64> {
    taken.into_iter().map(|(event, _)| event.position).collect()
}

pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

/// Makes events of so many customers, by turns, and waits until the log has them.
pub(crate) async fn make(rig: &Rig, count: usize, objects: usize) {
    let before = head(rig).await;
    rig.control().burst(Burst { count, objects, fill_bytes: 0 }).unwrap();
    let wanted = before + u64::try_from(count).unwrap();
    until(async || (head(rig).await >= wanted).then_some(())).await;
}

pub(crate) async fn head(rig: &Rig) -> u64 {
    let request = ListEventsRequest { page_size: 1, ..ListEventsRequest::default() };
    let page = EventServiceClient::new(rig.wire()).list_events(request).await.unwrap().into_inner();
    page.events.first().map_or(0, |event| event.position)
}

#[tokio::test]
async fn what_was_acknowledged_stays_away_over_a_restart_and_the_rest_comes_again() {
    let rig = Rig::start().await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions::default()).await;
    make(&rig, 6, 6).await;
    let taken = take(&mut consume(&mut client, "").await, 6).await;
    assert_eq!(positions(&taken), [1, 2, 3, 4, 5, 6]);
    acknowledge(&mut client, [&taken[0], &taken[2], &taken[5]]).await.unwrap();
    acknowledge(&mut client, [&taken[0]]).await.unwrap();
    let status = status_of(&mut client).await;
    assert_eq!((status.position, status.lag_events, status.in_flight), (1, 3, 3));

    let rig = rig.restart().await;
    let mut client = self::client(&rig);
    let mut stream = consume(&mut client, "").await;
    make(&rig, 1, 1).await;
    let again = take(&mut stream, 4).await;
    assert_eq!(positions(&again), [2, 4, 5, 7]);
    // An answer from before the restart counts.
    acknowledge(&mut client, [&taken[1], &again[1], &again[2], &again[3]]).await.unwrap();
    let status = status_of(&mut client).await;
    assert_eq!((status.position, status.head_position, status.lag_events, status.lag_s), (7, 7, 0, 0));
}

#[tokio::test]
async fn a_lease_that_ends_brings_the_event_back_until_it_is_parked() {
    let rig = Rig::start().await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions { lease_s: 5, max_attempts: 2, ..DeliveryOptions::default() }).await;
    make(&rig, 2, 1).await;
    let mut stream = consume(&mut client, "").await;
    for attempt in [1, 2] {
        let (event, delivery) = next(&mut stream).await.unwrap();
        assert_eq!((event.position, delivery.attempt), (1, attempt));
        rig.clock.advance(Duration::from_secs(6));
    }
    let (event, delivery) = next(&mut stream).await.unwrap();
    assert_eq!((event.position, delivery.attempt), (2, 1), "the object goes on without what is parked");
    let parked = ListParkedEventsRequest { name: name(), ..ListParkedEventsRequest::default() };
    let parked = client.list_parked_events(parked).await.unwrap().into_inner().events;
    assert_eq!((parked.len(), parked[0].position, parked[0].attempts), (1, 1, 2));
    assert!(parked[0].event.is_some() && parked[0].reason.contains("lease"), "{parked:?}");
    assert!(!reject(&mut client, &delivery, Verdict::RetryAfterS(60)).await.unwrap());

    let rig = rig.restart().await;
    let mut client = self::client(&rig);
    assert_eq!(status_of(&mut client).await.parked, 1);
    let all = ReplayParkedEventsRequest { name: name(), positions: Vec::new() };
    let replayed = client.replay_parked_events(all).await.unwrap().into_inner().replayed;
    assert_eq!(replayed, 1);
    let (event, delivery) = next(&mut consume(&mut client, "").await).await.unwrap();
    assert_eq!((event.position, delivery.attempt), (1, 1));
    assert_eq!(status_of(&mut client).await.parked, 0);
}

#[tokio::test]
async fn consumers_share_a_subscription_and_each_object_keeps_its_order() {
    const EVENTS: usize = 120;
    let rig = Rig::start().await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions { max_in_flight: 12, ..DeliveryOptions::default() }).await;
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let (mut client, sender) = (client.clone(), sender.clone());
        workers.spawn(async move {
            let mut stream = consume(&mut client, &format!("worker-{worker}")).await;
            loop {
                let taken = next(&mut stream).await.unwrap();
                sender.send((taken.0.object_id.clone(), taken.0.position, worker, false)).unwrap();
                tokio::task::yield_now().await;
                sender.send((taken.0.object_id.clone(), taken.0.position, worker, true)).unwrap();
                acknowledge(&mut client, [&taken]).await.unwrap();
            }
        });
    }
    make(&rig, EVENTS, 7).await;
    let (mut last, mut out) = (BTreeMap::<String, u64>::new(), BTreeSet::new());
    let (mut done, mut working) = (BTreeSet::new(), BTreeSet::new());
    while done.len() < EVENTS {
        let (object, position, worker, ends) = timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
        if ends {
            assert!(out.remove(&object) && done.insert(position), "{position} came twice");
            continue;
        }
        assert!(out.insert(object.clone()), "two events of {object} are out");
        assert!(out.len() <= 12);
        let before = last.insert(object.clone(), position).unwrap_or_default();
        assert!(before < position, "{position} of {object} came after {before}");
        working.insert(worker);
    }
    assert!(working.len() > 1, "one worker did everything");
    workers.shutdown().await;
    until(async || (status_of(&mut client).await.lag_events == 0).then_some(())).await;
}

/// Method: a consumer takes what was out before, over a connection with room for a part of it, and reads nothing while it
/// answers.
#[tokio::test]
async fn a_consumer_that_does_not_read_while_it_answers_is_answered() {
    const EVENTS: usize = 100;
    let rig = Rig::start().await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions::default()).await;
    make(&rig, EVENTS, EVENTS).await;
    let taken = take(&mut consume(&mut client, "one").await, EVENTS).await;

    let narrow = Endpoint::from_shared(format!("http://{}", rig.gateway.grpc)).unwrap();
    let narrow = narrow.initial_stream_window_size(1 << 16).initial_connection_window_size(1 << 16);
    let narrow = InterceptedService::new(narrow.connect().await.unwrap(), Token(TOKEN));
    let _unread = consume(&mut SubscriptionServiceClient::new(narrow), "one").await;
    // The last first, so that most of what is answered has not gone out again yet.
    for delivery in taken.iter().rev() {
        timeout(PATIENCE, acknowledge(&mut client, [delivery])).await.expect("an answer").unwrap();
    }
    assert_eq!(status_of(&mut client).await.lag_events, 0);
}

#[tokio::test]
async fn rejected_events_come_later_or_not_at_all() {
    let rig = Rig::start().await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions::default()).await;
    make(&rig, 3, 3).await;
    let mut stream = consume(&mut client, "").await;
    let taken = take(&mut stream, 3).await;
    assert!(!reject(&mut client, &taken[0].1, Verdict::RetryAfterS(30)).await.unwrap());
    assert!(!reject(&mut client, &taken[1].1, Verdict::Skip(true)).await.unwrap());
    assert!(reject(&mut client, &taken[2].1, Verdict::Park(true)).await.unwrap());
    for (place, cause) in ["delivered_again", "answered", "parked"].into_iter().enumerate() {
        let stale = reject(&mut client, &taken[place].1, Verdict::Skip(true)).await.unwrap_err();
        assert_eq!((stale.code(), reason(&stale).as_str()), (Code::FailedPrecondition, "ACK_STALE"));
        assert_eq!(stale.get_details_error_info().unwrap().metadata["cause"], cause);
    }
    rig.clock.advance(Duration::from_secs(31));
    let (event, delivery) = next(&mut stream).await.unwrap();
    assert_eq!((event.position, delivery.attempt), (1, 2));
    // It was parked, and has been dealt with after all.
    acknowledge(&mut client, [&taken[2], &(event, delivery)]).await.unwrap();
    let status = status_of(&mut client).await;
    assert_eq!((status.lag_events, status.parked, status.position), (0, 0, 3));
}

#[tokio::test]
async fn a_seek_brings_everything_back_and_makes_older_answers_stale() {
    let rig = Rig::start().await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions::default()).await;
    make(&rig, 3, 3).await;
    let mut stream = consume(&mut client, "").await;
    let taken = take(&mut stream, 3).await;
    acknowledge(&mut client, &taken[..2]).await.unwrap();
    let to = Some(To::AfterCursor(taken[0].0.cursor.clone()));
    let seek = SeekSubscriptionRequest { name: name(), to, reason: "a bug was mended".to_owned() };
    let moved = client.seek_subscription(seek.clone()).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!(moved.status.map(|status| status.position), Some(1));
    assert_eq!(positions(&take(&mut stream, 2).await), [2, 3]);
    let stale = acknowledge(&mut client, &taken[2..]).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::FailedPrecondition, "ACK_STALE"));
    let info = stale.get_details_error_info().unwrap();
    assert_eq!((&*info.metadata["cause"], &*info.metadata["ack_id"]), ("generation", &*taken[2].1.ack_id));
    let nowhere = client.seek_subscription(SeekSubscriptionRequest { to: None, ..seek }).await.unwrap_err();
    assert_eq!(nowhere.code(), Code::InvalidArgument);
    let junk = AcknowledgeRequest { name: name(), ack_ids: vec!["junk".to_owned()] };
    assert_eq!(client.acknowledge(junk).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_replay_delivers_chosen_events_again_under_a_name_of_its_own() {
    let rig = Rig::start().await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions::default()).await;
    make(&rig, 3, 1).await;
    let mut stream = consume(&mut client, "").await;
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(take(&mut stream, 1).await);
        acknowledge(&mut client, taken.last()).await.unwrap();
    }
    let replay = ReplayEventsRequest {
        name: name(),
        event_ids: vec![taken[1].0.id.clone()],
        reason: "again please".to_owned(),
    };
    for expected in ["rpl_1", "rpl_2"] {
        let named = client.replay_events(replay.clone()).await.unwrap().into_inner().replay;
        let (event, delivery) = next(&mut stream).await.unwrap();
        assert_eq!((named.as_str(), delivery.replay.as_str()), (expected, expected));
        assert_eq!((event.position, delivery.attempt), (2, 1));
        acknowledge(&mut client, [&taken[1]]).await.unwrap();
        assert_eq!(status_of(&mut client).await.in_flight, 1, "the older answer is not for the replay");
        acknowledge(&mut client, [&(event, delivery)]).await.unwrap();
    }
    let unknown = ReplayEventsRequest { event_ids: vec!["evt_nothing".to_owned()], ..replay };
    let unknown = client.replay_events(unknown).await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "EVENT_NOT_FOUND"));
}

#[tokio::test]
async fn a_subscription_is_its_namespaces_own() {
    let rig = Rig::start().await;
    let mut client = client(&rig);
    let made = created(&mut client, DeliveryOptions::default()).await;
    let same = client.create_subscription(creation()).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!((made.created, made.created_by.as_str()), (same.created, "rig"));
    let other = CreateSubscriptionRequest { types: vec!["refund.*".to_owned()], ..creation() };
    let other = client.create_subscription(other).await.unwrap_err();
    assert_eq!((other.code(), reason(&other).as_str()), (Code::AlreadyExists, "SUBSCRIPTION_EXISTS"));
    let named = CreateSubscriptionRequest { name: "a/b".to_owned(), ..creation() };
    assert_eq!(client.create_subscription(named).await.unwrap_err().code(), Code::InvalidArgument);

    let mut stranger = SubscriptionServiceClient::new(rig.operator());
    let unseen = stranger.get_subscription(GetSubscriptionRequest { name: name() }).await.unwrap_err();
    assert_eq!((unseen.code(), reason(&unseen).as_str()), (Code::NotFound, "SUBSCRIPTION_NOT_FOUND"));
    let none = stranger.list_subscriptions(ListSubscriptionsRequest {}).await.unwrap().into_inner();
    assert!(none.subscriptions.is_empty());
    let seen = client.list_subscriptions(ListSubscriptionsRequest {}).await.unwrap().into_inner();
    assert_eq!(seen.subscriptions.len(), 1);
    stranger.create_subscription(creation()).await.unwrap();
}

#[tokio::test]
async fn pausing_replacing_and_deleting_do_what_they_say_to_open_streams() {
    let rig = Rig::start().await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions { max_in_flight: 1, ..DeliveryOptions::default() }).await;
    client.pause_subscription(PauseSubscriptionRequest { name: name() }).await.unwrap();
    make(&rig, 2, 2).await;
    let mut first = consume(&mut client, "worker").await;
    let status = status_of(&mut client).await;
    assert_eq!((status.paused, status.in_flight, status.lag_events), (true, 0, 2));
    client.resume_subscription(ResumeSubscriptionRequest { name: name() }).await.unwrap();
    assert_eq!(next(&mut first).await.unwrap().0.position, 1);

    let mut second = consume(&mut client, "worker").await;
    let (event, delivery) = next(&mut second).await.unwrap();
    assert_eq!((event.position, delivery.attempt), (1, 2), "it has what the first had");
    let replaced = next(&mut first).await.unwrap_err();
    assert_eq!((replaced.code(), reason(&replaced).as_str()), (Code::Aborted, "CONSUMER_REPLACED"));

    client.delete_subscription(DeleteSubscriptionRequest { name: name() }).await.unwrap();
    let ended = next(&mut second).await.unwrap_err();
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::NotFound, "SUBSCRIPTION_NOT_FOUND"));
    created(&mut client, DeliveryOptions::default()).await;
    let stale = acknowledge(&mut client, [&(event, delivery)]).await.unwrap_err();
    assert_eq!(reason(&stale), "ACK_STALE", "it was of another subscription of this name");
}

#[tokio::test]
async fn a_stream_of_deliveries_shows_signs_of_life_and_metrics_show_the_lag() {
    let rig = Rig::start_with(|config| config.feed.checkpoint_interval = Duration::from_millis(50)).await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions { max_in_flight: 1, ..DeliveryOptions::default() }).await;
    make(&rig, 4, 4).await;
    let mut stream = consume(&mut client, "").await;
    next(&mut stream).await.unwrap();
    let mut checkpoints = Vec::new();
    while checkpoints.len() < 2 {
        let message = timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
        checkpoints.extend(message.checkpoint);
    }
    let last = checkpoints.last().unwrap();
    assert_eq!((last.position, last.head_position, last.lag_events, last.consumers), (0, 4, 4, 1));
    let whose = r#"tollgate_subscription="rig/orders""#;
    assert_eq!(rig.sample("tollgate_events_subscription_lag", whose).await, Some(4.0));
}

#[tokio::test]
async fn the_log_waits_for_what_is_not_acknowledged_and_tells_what_is_lost_past_the_hard_limit() {
    const TWO_DAYS: Duration = Duration::from_secs(48 * 3600);
    let rig = Rig::start_with(|config| {
        config.events.retention_days = 1;
        config.events.retention_hard_days = 3;
    })
    .await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions::default()).await;
    make(&rig, 4, 4).await;
    let taken = take(&mut consume(&mut client, "").await, 4).await;
    acknowledge(&mut client, &taken[..2]).await.unwrap();
    rig.clock.advance(TWO_DAYS);
    let left = until(async || {
        // The gateway keeps its own place, before which nothing goes, as it reads on.
        make(&rig, 1, 1).await;
        Some(oldest(&rig).await).filter(|oldest| *oldest > 1)
    });
    assert_eq!((left.await, status_of(&mut client).await.lost), (3, None));

    rig.clock.advance(TWO_DAYS);
    make(&rig, 1, 1).await;
    let lost = until(async || status_of(&mut client).await.lost).await;
    assert_eq!((lost.first_position, lost.last_position), (3, 4));
    let rig = rig.restart().await;
    let mut client = self::client(&rig);
    assert_eq!(status_of(&mut client).await.lost, Some(lost));
    assert_eq!(next(&mut consume(&mut client, "").await).await.unwrap().0.position, 5);
    until(async || (oldest(&rig).await == 5).then_some(())).await;
}

async fn oldest(rig: &Rig) -> u64 {
    let told = FeedServiceClient::new(rig.wire()).get_feed(GetFeedRequest::default()).await.unwrap();
    told.into_inner().oldest.map_or(0, |oldest| oldest.position)
}

/// A gateway process, killed while consumers work: at every moment what was acknowledged stays away.
#[tokio::test]
async fn a_killed_gateway_redelivers_what_was_not_acknowledged_and_nothing_else() {
    const EVENTS: usize = 60;
    let folder = TempDir::new().unwrap();
    let sandbox = rig::sandbox(Arc::new(SystemClock::new())).await;
    let mut gateway =
        Gateway::new(env!("CARGO_BIN_EXE_tollgate").into(), None, folder.path(), sandbox.address());
    gateway.spawn();
    gateway.ready().await;
    deliver(&sandbox.control(), &gateway);
    let mut client = connect(&gateway).await;
    created(&mut client, DeliveryOptions { max_in_flight: 8, ..DeliveryOptions::default() }).await;
    sandbox.control().burst(Burst { count: EVENTS, objects: 5, fill_bytes: 0 }).unwrap();
    let (mut acknowledged, mut kills) = (BTreeSet::new(), 0_usize);
    while acknowledged.len() < EVENTS {
        let mut stream = consume(&mut client, "worker").await;
        // A few further each time, so that it dies with different things out.
        for _ in 0..7 + kills {
            if acknowledged.len() == EVENTS {
                break;
            }
            let taken = next(&mut stream).await.unwrap();
            assert!(!acknowledged.contains(&taken.0.id), "{} was acknowledged before", taken.0.position);
            acknowledge(&mut client, [&taken]).await.unwrap();
            acknowledged.insert(taken.0.id);
        }
        gateway.kill();
        gateway.spawn();
        gateway.ready().await;
        client = connect(&gateway).await;
        kills += 1;
    }
    let status = until(async || {
        let status = status_of(&mut client).await;
        (status.lag_events == 0).then_some(status)
    });
    assert_eq!(status.await.parked, 0);
    assert!(kills > 3);
}

fn deliver(control: &Control, gateway: &Gateway) {
    let url = format!("http://{}/webhooks/stripe", gateway.webhook);
    control.set_webhooks(vec![WebhookTarget { url, secrets: vec![SECRET.to_owned()] }]);
}

async fn connect(gateway: &Gateway) -> Client {
    let channel = rig::connect(gateway.grpc).await;
    SubscriptionServiceClient::new(InterceptedService::new(channel, Token(TOKEN)))
}
