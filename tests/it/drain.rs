//! A gateway that goes: who hears of it when, and how readers go on elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tollgate::config::{Config, Environment, Flags, Loader};
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::feed_service_client::FeedServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::subscribe_request::Start;
use tollgate::proto::v1::subscribe_response::Item;
use tollgate::proto::v1::subscription_service_client::SubscriptionServiceClient;
use tollgate::proto::v1::{
    AcknowledgeRequest, ConsumeRequest, ConsumeResponse, CreateRefundRequest, CreateSubscriptionRequest,
    GetFeedRequest, GetSubscriptionRequest, Refund, SubscribeRequest, SubscribeResponse,
    create_subscription_request,
};
use tollgate::sandbox::{Burst, Fault, RestrictedKey};
use tollgate::server::Supervisor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::rig::{KEY, Rig, TOKEN, Token, Wire, connect, operation, until};

/// Longer than anything here takes, so that a test which would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the gateway serves on.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// What a reader has seen of a stream until it ended.
struct Read {
    positions: Vec<u64>,
    /// Of the last message that had one.
    cursor: Option<String>,
    end: Status,
}

async fn subscribe(wire: Wire, cursor: Option<&String>) -> Streaming<SubscribeResponse> {
    let start = cursor.map_or(Start::Earliest(true), |cursor| Start::AfterCursor(cursor.clone()));
    let request = SubscribeRequest { start: Some(start), ..SubscribeRequest::default() };
    EventServiceClient::new(wire).subscribe(request).await.unwrap().into_inner()
}

/// Reads until the stream ends, or has caught up behind the position `until`.
fn read(mut stream: Streaming<SubscribeResponse>, until: u64) -> JoinHandle<Read> {
    tokio::spawn(async move {
        let (mut positions, mut cursor) = (Vec::new(), None);
        loop {
            let item = match timeout(PATIENCE, stream.message()).await.expect("something comes") {
                Ok(message) => message.expect("a stream ends with a status only").item.unwrap(),
                Err(end) => return Read { positions, cursor, end },
            };
            let at = match item {
                Item::Event(event) => {
                    positions.push(event.position);
                    cursor = Some(event.cursor);
                    event.position
                }
                Item::Checkpoint(checkpoint) => {
                    cursor = Some(checkpoint.cursor);
                    checkpoint.position
                }
                Item::CaughtUp(mark) => {
                    cursor = Some(mark.cursor);
                    mark.position
                }
            };
            if at >= until {
                return Read { positions, cursor, end: Status::ok("") };
            }
        }
    })
}

fn burst(count: usize) -> Burst {
    Burst { count, objects: 5, fill_bytes: 0 }
}

async fn head(wire: Wire) -> u64 {
    let told = FeedServiceClient::new(wire).get_feed(GetFeedRequest::default()).await.unwrap();
    told.into_inner().head.map(|head| head.position).unwrap_or_default()
}

/// Waits until the log has this many events. Deliveries that failed are tried again after minutes or hours, so the clock
/// goes on meanwhile, though not so fast that signatures grow old on their way.
async fn reach(rig: &Rig, events: u64) {
    until(async || {
        rig.clock.advance(Duration::from_secs(20));
        (head(rig.wire()).await >= events).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_go_on_elsewhere_without_loss_or_repeat_however_their_gateway_ended() {
    let mut rig = Rig::start().await;
    let webhook = rig.gateway.webhook;
    let (mut seen, mut cursor) = (Vec::new(), None);
    for round in 0..6 {
        let reader = read(subscribe(rig.wire(), cursor.as_ref()).await, u64::MAX);
        let before = head(rig.wire()).await;
        rig.control().burst(burst(60)).unwrap();
        // So that the end comes in the middle of it, and not always at the same place.
        reach(&rig, before + 10 * round).await;
        let graceful = round % 2 == 0;
        // Stripe delivers again where it did not get through; readers look for another place.
        let same = |config: &mut Config| config.listen.webhook = webhook;
        rig = if graceful { rig.restart_with(same).await } else { rig.killed_with(same).await };
        let read = reader.await.unwrap();
        if graceful {
            let told = read.end.get_details_error_info().unwrap();
            assert_eq!((read.end.code(), told.reason.as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
            assert_eq!(told.metadata.get("cursor"), read.cursor.as_ref().or(cursor.as_ref()));
        }
        seen.extend(read.positions);
        cursor = read.cursor.or(cursor);
    }
    let last = 6 * 60;
    reach(&rig, last).await;
    assert_eq!(head(rig.wire()).await, last, "nothing that happened at Stripe is there twice or missing");
    let rest = read(subscribe(rig.wire(), cursor.as_ref()).await, last).await.unwrap();
    seen.extend(rest.positions);
    assert!(seen.iter().copied().eq(1..=last), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_says_so_and_serves_on_before_its_streams_end() {
    let rig = Rig::start_with(|config| config.listen.lame_duck = LAME_DUCK).await;
    let reader = read(subscribe(rig.wire(), None).await, u64::MAX);
    let mut health = HealthClient::new(rig.channel())
        .watch(HealthCheckRequest { service: String::new() })
        .await
        .unwrap()
        .into_inner();
    let mut status = async || {
        let message = timeout(PATIENCE, health.message()).await.expect("something comes");
        message.ok().flatten().map(|message| message.status())
    };
    assert_eq!(status().await, Some(ServingStatus::Serving));
    let (control, grpc, ops) = (rig.control(), rig.gateway.grpc, rig.gateway.ops);
    let stopped = tokio::spawn(rig.gateway.stop());

    assert_eq!(status().await, Some(ServingStatus::NotServing));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let readiness = client.get(format!("http://{ops}/readyz")).send().await.unwrap();
    assert_eq!(readiness.status(), 503);
    // One who has not heard of it yet is served, and webhooks are taken.
    control.burst(burst(7)).unwrap();
    let late = InterceptedService::new(connect(grpc).await, Token(TOKEN));
    until(async || (head(late.clone()).await == 7).then_some(())).await;

    let read = reader.await.unwrap();
    assert!(read.positions.iter().copied().eq(1..=7));
    let told = read.end.get_details_error_info().unwrap();
    assert_eq!((read.end.code(), told.reason.as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
    assert_eq!(told.metadata.get("cursor"), read.cursor.as_ref());
    stopped.await.unwrap();
    assert!(TcpStream::connect(grpc).await.is_err(), "nobody listens any more");
}

/// What is consumed here.
const NAME: &str = "orders";
/// Events made while a consumer has its stream, and how many of them it acknowledges; others that it has are left open.
const MADE: usize = 20;
const DEALT_WITH: usize = 12;

type Client = SubscriptionServiceClient<Wire>;

async fn consume(client: &mut Client) -> Streaming<ConsumeResponse> {
    let request = ConsumeRequest { name: NAME.to_owned(), ..ConsumeRequest::default() };
    client.consume(request).await.unwrap().into_inner()
}

async fn lag(client: &mut Client) -> u64 {
    let request = GetSubscriptionRequest { name: NAME.to_owned() };
    let told = client.get_subscription(request).await.unwrap().into_inner();
    told.subscription.unwrap().status.unwrap().lag_events
}

/// Acknowledges events until so many are dealt with in all, and reads on until the stream ends.
async fn deal(
    (mut client, mut stream): (Client, Streaming<ConsumeResponse>),
    mut dealt_with: BTreeSet<u64>,
    wanted: usize,
) -> (BTreeSet<u64>, Status) {
    loop {
        let message = match timeout(PATIENCE, stream.message()).await.expect("something comes") {
            Ok(message) => message.expect("a stream ends with a status only"),
            Err(end) => return (dealt_with, end),
        };
        let (Some(event), Some(delivery)) = (message.event, message.delivery) else { continue };
        assert!(!dealt_with.contains(&event.position), "{} was acknowledged before", event.position);
        if dealt_with.len() < wanted {
            let request = AcknowledgeRequest { name: NAME.to_owned(), ack_ids: vec![delivery.ack_id] };
            client.acknowledge(request).await.unwrap();
            dealt_with.insert(event.position);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_goes_on_after_a_restart_with_what_it_had_not_acknowledged() {
    let mut rig = Rig::start().await;
    let mut client = Client::new(rig.wire());
    let start = Some(create_subscription_request::Start::Earliest(true));
    let creation = CreateSubscriptionRequest { name: NAME.to_owned(), start, ..Default::default() };
    client.create_subscription(creation).await.unwrap();
    let (mut made, mut dealt_with) = (0, BTreeSet::new());
    for round in 1..=3 {
        let is_last = round == 3;
        let wanted = if is_last { MADE * round } else { DEALT_WITH * round };
        let stream = consume(&mut client).await;
        let dealing = tokio::spawn(deal((client.clone(), stream), dealt_with, wanted));
        rig.control().burst(burst(MADE)).unwrap();
        made += MADE as u64;
        until(async || {
            let is_dealt_with = lag(&mut client).await == made - wanted as u64;
            (is_dealt_with && head(rig.wire()).await == made).then_some(())
        })
        .await;
        rig = rig.restart().await;
        client = Client::new(rig.wire());
        let (all, end) = dealing.await.unwrap();
        let told = end.get_details_error_info().unwrap();
        assert_eq!((end.code(), told.reason.as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
        dealt_with = all;
    }
    assert!(dealt_with.iter().copied().eq(1..=made), "{dealt_with:?}");
    assert_eq!(lag(&mut client).await, 0);
}

type Refunds = RefundServiceClient<Wire>;

fn refund(payment: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        operation: operation("order-1", "refund"),
        payment_intent: Some(payment.to_owned()),
        amount: Some(100),
        ..Default::default()
    }
}

/// A refund that is on its way at the sandbox, which answers so late.
async fn refund_on_its_way(rig: &Rig, payment: &str, late_ms: u32) -> JoinHandle<Result<Refund, Status>> {
    let late = format!("latency_after:POST:/v1/refunds:ms={late_ms},times=1");
    rig.control().add_fault(Fault::parse(&late).unwrap());
    let before = rig.control().received();
    let (mut refunds, request) = (Refunds::new(rig.wire()), refund(payment));
    let call = tokio::spawn(async move {
        refunds.create_refund(request).await.map(|answer| answer.into_inner().refund.unwrap())
    });
    until(async || (rig.control().received() > before).then_some(())).await;
    call
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_is_alive_and_not_ready_until_its_calls_have_their_answers() {
    let rig = Rig::start().await;
    let payment = rig.payment(1_000).await;
    let call = refund_on_its_way(&rig, &payment, 5_000).await;
    let (grpc, ops) = (rig.gateway.grpc, rig.gateway.ops);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |path: &str| {
        let answer = client.get(format!("http://{ops}{path}")).send().await;
        answer.ok().map(|answer| answer.status().as_u16())
    };
    let stopped = tokio::spawn(rig.gateway.stop());
    until(async || TcpStream::connect(grpc).await.is_err().then_some(())).await;
    // Nobody new is served, and what is open goes on.
    assert!(!call.is_finished());
    assert_eq!((ask("/livez").await, ask("/readyz").await), (Some(200), Some(503)));
    assert_eq!(ask("/metrics").await, Some(200));
    assert_eq!(call.await.unwrap().unwrap().amount, 100);
    stopped.await.unwrap();
    assert_eq!(ask("/livez").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_the_grace_is_cut_and_found_out_by_the_next_gateway() {
    let rig = Rig::start_with(|config| config.listen.grace = Duration::from_secs(1)).await;
    let payment = rig.payment(1_000).await;
    let call = refund_on_its_way(&rig, &payment, 20_000).await;
    let rig = timeout(PATIENCE, rig.restart()).await.expect("the grace ends");
    assert!(call.await.unwrap().is_err());
    let again = Refunds::new(rig.wire()).create_refund(refund(&payment)).await.unwrap().into_inner();
    assert_eq!(again.refund.unwrap().amount, 100);
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_does_not_wait_for_what_stripe_says_of_a_new_key() {
    const NEW_KEY: &str = "rk_test_new";
    let mut rig = Rig::start().await;
    let file = rig.data.path().join("tollgate.toml");
    let flags = Flags { config: Some(file.clone()), values: Vec::new() };
    rig.gateway.follow(Loader::new(flags, Environment::default()), Arc::default(), Supervisor::default());
    rig.control().set_restricted_keys(vec![RestrictedKey::without(NEW_KEY, &[])]);
    rig.control().add_fault(Fault::parse("latency:GET:/v1/account:ms=60000").unwrap());
    let before = rig.control().received();
    let settings = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, settings.replace(KEY, NEW_KEY)).unwrap();
    until(async || (rig.control().received() > before).then_some(())).await;
    let asked = Instant::now();
    rig.gateway.stop().await;
    // Stripe would have ten seconds to name the account.
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}
