//! Many readers of one log: what they share, and that one who does not read costs the others nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tollgate::domain::clock::ManualClock;
use tollgate::events::{Arrival, Cause, Envelope, Feed, Filter, Item, LogEvent, Start, Subscription};
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::subscribe_response::Item as Sent;
use tollgate::proto::v1::{Event, EventSource, SubscribeRequest, SubscribeResponse};
use tollgate::sandbox::{BURST_FILL_BYTES_MAX, Burst};
use tollgate::store::{Store, Terms};
use tonic::Streaming;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use crate::rig::{Rig, TOKEN, Token, connect};

/// Longer than anything here takes, so that a test which would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long that no checkpoint comes while a test runs.
const NEVER: Duration = Duration::from_secs(3600);
/// Flow-control window of a reader, in bytes.
const WINDOW_BYTES: u32 = 64 * 1024;
/// Memory for recent events: room for a few.
const MEMORY_BYTES: usize = 256 * 1024;
/// Events that exceed, at 10 KB each, every window and buffer between gateway and reader.
const EVENTS: usize = 400;

/// A feed of its own, and the folder of its store.
async fn feed(memory_bytes: usize) -> (Feed, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Terms::default()).unwrap();
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    (Feed::new(store, clock, NEVER).with_memory(memory_bytes), folder)
}

/// Appends `evt_first` to `evt_last`.
async fn fill(feed: &Feed, first: u64, last: u64) {
    for number in first..=last {
        let json = format!(
            r#"{{"id":"evt_{number}","object":"event","type":"charge.succeeded","created":1700000000,"livemode":false,"data":{{"object":{{}}}}}}"#
        );
        let envelope = Envelope::parse(&json).unwrap();
        let arrival = Arrival {
            envelope,
            account: String::new(),
            source: EventSource::Webhook,
            json,
            cause: Cause::default(),
        };
        assert_eq!(feed.append(arrival).await.unwrap().position, number);
    }
}

async fn next_event(subscription: &mut Subscription) -> Arc<LogEvent> {
    loop {
        let item = timeout(PATIENCE, subscription.next()).await.expect("something comes").unwrap();
        if let Item::Event(logged) = item {
            return logged;
        }
    }
}

#[tokio::test]
async fn readers_of_recent_events_share_them() {
    let (feed, _folder) = feed(1 << 20).await;
    let mut first = feed.subscribe(Start::Latest, Filter::default()).await.unwrap();
    fill(&feed, 1, 20).await;
    let mut second = feed.subscribe(Start::Earliest, Filter::default()).await.unwrap();
    for position in 1..=20 {
        let (one, other) = (next_event(&mut first).await, next_event(&mut second).await);
        assert_eq!(one.position, position);
        assert!(Arc::ptr_eq(&one, &other));
    }
}

#[tokio::test]
async fn a_reader_who_is_too_late_for_memory_reads_the_disk_and_misses_nothing() {
    let (feed, _folder) = feed(0).await;
    let mut late = feed.subscribe(Start::Latest, Filter::default()).await.unwrap();
    let mut live = feed.subscribe(Start::Latest, Filter::default()).await.unwrap();
    for number in 1..=40 {
        fill(&feed, number, number).await;
        assert_eq!(next_event(&mut live).await.position, number);
    }
    for number in 1..=40 {
        let logged = next_event(&mut late).await;
        assert_eq!((logged.position, logged.event.id.as_str()), (number, format!("evt_{number}").as_str()));
    }
}

#[tokio::test]
async fn duplicates_take_no_place_in_memory() {
    let (feed, _folder) = feed(1 << 20).await;
    let mut reader = feed.subscribe(Start::Latest, Filter::default()).await.unwrap();
    fill(&feed, 1, 2).await;
    fill(&feed, 1, 2).await;
    fill(&feed, 3, 3).await;
    for position in 1..=3 {
        assert_eq!(next_event(&mut reader).await.position, position);
    }
}

/// A stream that begins at the next event, on a connection whose windows take a few events at most.
async fn subscribe(rig: &Rig) -> Streaming<SubscribeResponse> {
    let endpoint = Endpoint::from_shared(format!("http://{}", rig.gateway.grpc)).unwrap();
    let endpoint =
        endpoint.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let wire = InterceptedService::new(endpoint.connect().await.unwrap(), Token(TOKEN));
    EventServiceClient::new(wire).subscribe(SubscribeRequest::default()).await.unwrap().into_inner()
}

/// The next `count` events.
async fn events(stream: &mut Streaming<SubscribeResponse>, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let message = timeout(PATIENCE, stream.message()).await.expect("something comes").unwrap().unwrap();
        if let Some(Sent::Event(event)) = message.item {
            events.push(event);
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_subscriber_holds_nobody_up_and_gets_everything_once_it_reads() {
    let rig = Rig::start_with(|config| config.events.memory_bytes = MEMORY_BYTES).await;
    let mut stalled = subscribe(&rig).await;
    let mut live = subscribe(&rig).await;
    let burst = Burst { count: EVENTS, objects: 10, fill_bytes: BURST_FILL_BYTES_MAX };
    let made: BTreeSet<String> = rig.control().burst(burst).unwrap().into_iter().collect();
    let seen = events(&mut live, EVENTS).await;
    assert!(seen.iter().map(|event| event.position).eq(1..=EVENTS as u64));
    assert_eq!(seen.iter().map(|event| event.id.clone()).collect::<BTreeSet<_>>(), made);
    assert!(seen.iter().all(|event| event.object.is_some()));
    // By now memory has long forgotten what the stalled one has to read.
    assert_eq!(events(&mut stalled, EVENTS).await, seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_on_ten_connections_get_everything() {
    const CONNECTIONS: usize = 10;
    const STREAMS: usize = 100;
    const COUNT: usize = 20;
    let rig = Rig::start().await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let wire = InterceptedService::new(connect(rig.gateway.grpc).await, Token(TOKEN));
        for _ in 0..STREAMS {
            let mut client = EventServiceClient::new(wire.clone());
            streams.push(client.subscribe(SubscribeRequest::default()).await.unwrap().into_inner());
        }
    }
    let burst = Burst { count: COUNT, objects: 5, fill_bytes: 0 };
    let made: BTreeSet<String> = rig.control().burst(burst).unwrap().into_iter().collect();
    let mut readers = JoinSet::new();
    for mut stream in streams {
        readers.spawn(async move { events(&mut stream, COUNT).await });
    }
    let all = readers.join_all().await;
    assert_eq!(all.len(), CONNECTIONS * STREAMS);
    for seen in &all {
        assert!(seen.iter().map(|event| event.position).eq(1..=COUNT as u64));
        assert_eq!(seen.iter().map(|event| event.id.clone()).collect::<BTreeSet<_>>(), made);
    }
}
