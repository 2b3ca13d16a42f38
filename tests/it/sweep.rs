//! What webhooks did not bring: found in Stripe's own list, at start, on a schedule, on demand, or as the only way in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prost_types::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tollgate::config::{Config, EventsMode};
use tollgate::domain::clock::Clock as _;
use tollgate::proto::v1::audit_service_client::AuditServiceClient;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::feed_service_client::FeedServiceClient;
use tollgate::proto::v1::subscribe_request::Start;
use tollgate::proto::v1::subscribe_response::Item;
use tollgate::proto::v1::{
    BackfillRequest, BackfillResponse, Completeness, Event, EventSource, GetFeedRequest,
    SearchAuditRecordsRequest, SubscribeRequest,
};
use tollgate::sandbox::{Burst, Fault, WebhookTarget};
use tonic::{Code, Status};

use crate::rig::{Rig, until};

/// Enough for anything here.
const READS: usize = 1_000;

/// Sweeps at start, and then so seldom that none is made again.
fn once(config: &mut Config) {
    config.events.sweep_reads_per_day = READS;
    config.events.sweep_every = Duration::from_secs(86_400);
}

/// Sweeps all the time.
fn often(config: &mut Config) {
    config.events.sweep_reads_per_day = READS;
    config.events.sweep_every = Duration::from_millis(50);
}

async fn completeness(rig: &Rig) -> Option<Completeness> {
    let feed = FeedServiceClient::new(rig.wire()).get_feed(GetFeedRequest::default()).await.unwrap();
    feed.into_inner().completeness.into_iter().find(|one| one.connected_account.is_empty())
}

/// Waits for a sweep of which this holds.
async fn swept(rig: &Rig, holds: impl Fn(&Completeness) -> bool) -> Completeness {
    until(async || completeness(rig).await.filter(&holds)).await
}

/// Everything that a new subscriber is sent until it has caught up.
async fn log(rig: &Rig) -> Vec<Event> {
    let request = SubscribeRequest { start: Some(Start::Earliest(true)), ..SubscribeRequest::default() };
    let mut stream = EventServiceClient::new(rig.wire()).subscribe(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    loop {
        match stream.message().await.unwrap().unwrap().item.unwrap() {
            Item::Event(event) => events.push(event),
            Item::CaughtUp(_) => return events,
            _ => {}
        }
    }
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

async fn backfill(rig: &Rig, hours: i64) -> Result<BackfillResponse, Status> {
    let from = rig.clock.wall() / 1000 - hours * 3_600;
    let from = Some(Timestamp { seconds: from, nanos: 0 });
    let request = BackfillRequest { from, ..BackfillRequest::default() };
    FeedServiceClient::new(rig.operator()).backfill(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn what_stripe_gave_up_while_the_gateway_was_down_is_in_the_log_once() {
    let rig = Rig::start_with(once).await;
    rig.control().trigger("customer.created").unwrap();
    until(async || (log(&rig).await.len() == 1).then_some(())).await;
    swept(&rig, |one| one.swept_to.is_some()).await;

    let (control, mut missed) = (rig.control(), Vec::new());
    let burst = Burst { count: 1_000, objects: 50, fill_bytes: 0 };
    let between = |_: &std::path::Path| {
        missed = control.burst(burst).unwrap();
        assert_eq!(control.give_up(), 1_000);
    };
    let rig = rig.restarted(between, once).await;
    let found = swept(&rig, |one| one.repaired == 1_000).await;
    assert_eq!(found.last_error, "");

    let events = log(&rig).await;
    assert!(events.iter().map(|event| event.position).eq(1..=1_001), "positions have no gap");
    assert_eq!(ids(&events[1..]), missed, "each once, in the order in which it happened");
    assert_eq!(events[0].source(), EventSource::Webhook);
    assert!(events[1..].iter().all(|event| event.source() == EventSource::Backfill));

    // Stripe's own late tries, and further sweeps, add nothing.
    let rig = rig.restarted(|_| {}, once).await;
    swept(&rig, |one| one.reads_today > found.reads_today).await;
    let again = backfill(&rig, 1).await.unwrap();
    assert_eq!((again.added, again.known), (0, 1_001));
    assert_eq!(log(&rig).await.len(), 1_001);
}

/// The first reading asks for other types, so that what it passes over is to later ones what the list shows too late.
#[tokio::test]
async fn what_no_endpoint_took_is_found_however_late_the_list_shows_it() {
    const OVERLAP: Duration = Duration::from_secs(60);
    let other_types = |config: &mut Config| {
        often(config);
        config.events.sweep_overlap = OVERLAP;
        config.events.sweep_types = vec!["payout.paid".to_owned()];
    };
    let rig = Rig::start_with(other_types).await;
    swept(&rig, |one| one.swept_to.is_some()).await;
    let control = rig.control();
    // One that nobody was to get, and one that could not be delivered.
    control.set_webhooks(Vec::new());
    control.trigger("customer.created").unwrap();
    let url = "http://127.0.0.1:1/webhooks/stripe".to_owned();
    control.set_webhooks(vec![WebhookTarget { url, secrets: Vec::new() }]);
    let failed = control.burst(Burst { count: 1, objects: 1, fill_bytes: 0 }).unwrap();
    assert_eq!(control.give_up(), 1);
    rig.clock.advance(Duration::from_secs(24 * 3_600));
    let made_s = control.now_ms() / 1000 - 24 * 3_600;
    let is_past = |one: &Completeness| one.swept_to.is_some_and(|to| to.seconds > made_s + 3_600);
    swept(&rig, is_past).await;
    assert!(log(&rig).await.is_empty(), "it asked for other types");

    let every_type = |config: &mut Config| {
        often(config);
        config.events.sweep_overlap = OVERLAP;
    };
    let rig = rig.restarted(|_| {}, every_type).await;
    let found = swept(&rig, |one| one.repaired > 0 && one.last_error.is_empty()).await;
    assert_eq!(found.repaired, 1, "the rest of the time is not read again");
    let events = log(&rig).await;
    assert_eq!(ids(&events), failed);
    assert_eq!(events[0].source(), EventSource::Backfill);
}

#[tokio::test]
async fn without_any_address_events_are_read_from_the_list() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let poll = |config: &mut Config| {
        often(config);
        config.events.mode = EventsMode::Poll;
        config.listen.webhook = free;
    };
    let rig = Rig::start_with(poll).await;
    assert!(TcpStream::connect(free).await.is_err(), "nobody listens for webhooks");
    rig.control().set_webhooks(Vec::new());
    let made = rig.control().burst(Burst { count: 120, objects: 7, fill_bytes: 0 }).unwrap();
    let events = until(async || Some(log(&rig).await).filter(|events| events.len() == 120)).await;
    assert_eq!(ids(&events), made);
    assert!(events.iter().all(|event| event.source() == EventSource::Poll));
}

#[tokio::test]
async fn a_sweep_that_fails_vouches_for_nothing() {
    let rig = Rig::start_with(often).await;
    let before = swept(&rig, |one| one.swept_to.is_some()).await;
    let fault = Fault::parse("status:GET:/v1/events:status=500").unwrap();
    rig.control().add_fault(fault);
    swept(&rig, |one| !one.last_error.is_empty()).await;
    rig.clock.advance(Duration::from_secs(3_600));
    rig.control().set_webhooks(Vec::new());
    rig.control().trigger("customer.created").unwrap();
    let reads = completeness(&rig).await.unwrap().reads_today;
    let failed = swept(&rig, |one| one.reads_today > reads + 2).await;
    assert!(failed.last_error.contains("500"), "{}", failed.last_error);
    assert_eq!(failed.swept_to, before.swept_to);
    rig.control().clear_faults();
    let well = swept(&rig, |one| one.swept_to != before.swept_to && one.last_error.is_empty()).await;
    assert_eq!(well.swept_from, before.swept_from, "what was read before still stands");
    // The youngest events are left to their webhooks for a while.
    rig.clock.advance(Duration::from_secs(60));
    swept(&rig, |one| one.repaired == 1).await;
}

#[tokio::test]
async fn the_reads_of_a_day_are_not_exceeded() {
    let rig = Rig::start_with(|config| {
        often(config);
        config.events.sweep_reads_per_day = 3;
    })
    .await;
    let stopped = swept(&rig, |one| one.last_error.contains("allotted")).await;
    assert_eq!((stopped.reads_today, stopped.reads_per_day), (3, 3));
    assert_eq!(backfill(&rig, 1).await.unwrap_err().code(), Code::ResourceExhausted);
    rig.clock.advance(Duration::from_secs(86_400));
    swept(&rig, |one| one.last_error.is_empty() && one.reads_today > 0).await;
}

#[tokio::test]
async fn an_operator_has_a_span_read_again() {
    let rig = Rig::start_with(|config| config.events.sweep_reads_per_day = READS).await;
    swept(&rig, |one| one.swept_to.is_some()).await;
    rig.control().set_webhooks(Vec::new());
    let made: BTreeSet<_> =
        rig.control().burst(Burst { count: 250, objects: 1, fill_bytes: 0 }).unwrap().into_iter().collect();
    let first = backfill(&rig, 1).await.unwrap();
    assert_eq!((first.added, first.known, first.reads), (250, 0, 3));
    assert_eq!(first.completeness.unwrap().repaired, 250);
    assert_eq!(ids(&log(&rig).await).into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), made);
    let second = backfill(&rig, 24 * 3).await.unwrap();
    assert_eq!((second.added, second.known), (0, 250));

    let too_old = backfill(&rig, 24 * 31).await.unwrap_err();
    assert_eq!(too_old.code(), Code::InvalidArgument);
    let from = Some(Timestamp { seconds: rig.clock.wall() / 1000, nanos: 0 });
    let request = BackfillRequest { from, ..BackfillRequest::default() };
    let refused = FeedServiceClient::new(rig.wire()).backfill(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// What came of readings of Stripe's list that were asked for, as the audit log has it.
async fn results_on_record(rig: &Rig) -> Vec<String> {
    let rpc = "FeedService/Backfill".to_owned();
    let search = SearchAuditRecordsRequest { rpc, ..SearchAuditRecordsRequest::default() };
    let found = AuditServiceClient::new(rig.operator()).search_audit_records(search).await.unwrap();
    found.into_inner().records.into_iter().map(|record| record.result).collect()
}

/// Method: the sandbox holds back its list, and the caller leaves while the gateway waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_whose_caller_leaves_is_on_record_before_it_begins_and_goes_on() {
    let rig = Arc::new(Rig::start_with(|config| config.events.sweep_reads_per_day = READS).await);
    swept(&rig, |one| one.swept_to.is_some()).await;
    rig.control().set_webhooks(Vec::new());
    let made = rig.control().burst(Burst { count: 150, objects: 1, fill_bytes: 0 }).unwrap();
    rig.control().add_fault(Fault::parse("latency:GET:/v1/events:ms=6000,times=1").unwrap());
    let reads = completeness(&rig).await.unwrap().reads_today;
    let call = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { backfill(&rig, 1).await }
    });
    swept(&rig, |one| one.reads_today > reads).await;
    assert_eq!(results_on_record(&rig).await, ["begun"]);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    until(async || (log(&rig).await.len() == made.len()).then_some(())).await;
    until(async || (results_on_record(&rig).await == ["begun", "succeeded"]).then_some(())).await;
}

#[tokio::test]
async fn only_the_types_that_are_wanted_are_asked_for() {
    let rig = Rig::start_with(|config| {
        often(config);
        config.events.mode = EventsMode::Poll;
        let others = (0..25).map(|n| format!("other.type_{n}"));
        config.events.sweep_types = others.chain(["charge.succeeded".to_owned()]).collect();
    })
    .await;
    rig.control().trigger("charge.succeeded").unwrap();
    let events = until(async || Some(log(&rig).await).filter(|events| !events.is_empty())).await;
    assert!(events.iter().all(|event| event.r#type == "charge.succeeded"), "{:?}", ids(&events));
}
