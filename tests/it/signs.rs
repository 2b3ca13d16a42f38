//! Signs of life on a stream: often enough, and saying whether it is quiet or behind.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;
use tollgate::domain::clock::ManualClock;
use tollgate::events::{Feed, Filter, Item, Start};
use tollgate::proto::v1::SubscribeRequest;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::subscribe_response::Item as Sent;
use tollgate::store::{Batch, NewEvent, Store, Terms};

use crate::rig::Rig;

/// A log of so many events, whose streams give signs of life that often.
async fn log(count: i64, every: Duration) -> (Feed, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Terms::default()).unwrap();
    let event = |number: i64| NewEvent {
        id: format!("evt_{number}"),
        kind: "charge.succeeded".to_owned(),
        created_s: number,
        received_ms: number * 1000,
        account: String::new(),
        livemode: false,
        api_version: String::new(),
        source: 1,
        json: format!(
            r#"{{"id":"evt_{number}","object":"event","type":"charge.succeeded","created":{number},"livemode":false}}"#
        ),
        cause: Vec::new(),
    };
    let events = (1..=count).map(event).collect();
    store.commit(Batch { events, ..Batch::default() }).await.unwrap();
    (Feed::new(store, Arc::new(ManualClock::at(0)), every), folder)
}

/// In real time, since that is what is promised.
#[tokio::test]
async fn a_quiet_stream_shows_three_signs_of_life_in_45_seconds() {
    let rig = Rig::start().await;
    let opened = EventServiceClient::new(rig.wire()).subscribe(SubscribeRequest::default()).await;
    let mut stream = opened.unwrap().into_inner();
    let three = async {
        let mut signs = 0;
        while signs < 3 {
            let message = stream.message().await.unwrap().unwrap();
            if let Some(Sent::Checkpoint(quiet)) = message.item {
                assert_eq!((quiet.position, quiet.head_position, quiet.head_time), (0, 0, None));
                signs += 1;
            }
        }
    };
    timeout(Duration::from_secs(45), three).await.expect("three signs of life in 45 seconds");
}

#[tokio::test]
async fn a_stream_that_is_behind_says_so_and_by_how_much_and_a_quiet_one_does_not() {
    const EVERY: Duration = Duration::from_millis(50);
    let (feed, _folder) = log(500, EVERY).await;
    let mut behind = feed.subscribe(Start::Earliest, Filter::default()).await.unwrap();
    for read in 1..=3 {
        while !matches!(behind.next().await.unwrap(), Item::Event(event) if event.position == read) {}
        // The reader takes its time.
        tokio::time::sleep(EVERY).await;
        let Item::Checkpoint(told) = behind.next().await.unwrap() else { panic!("a sign of life is due") };
        assert_eq!((told.cursor.position, told.head, told.head_received_ms), (read, 500, Some(500_000)));
    }
    let mut quiet = feed.subscribe(Start::Latest, Filter::default()).await.unwrap();
    loop {
        if let Item::Checkpoint(told) = quiet.next().await.unwrap() {
            assert_eq!((told.cursor.position, told.head, told.head_received_ms), (500, 500, Some(500_000)));
            return;
        }
    }
}
