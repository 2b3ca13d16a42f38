//! The event feed over a real store: where readers start, what they see, and what they are told about their place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;
use tollgate::domain::clock::{Clock, ManualClock};
use tollgate::domain::cursor::Cursor;
use tollgate::domain::limits::EVENT_BATCH_EVENTS_MAX;
use tollgate::events::{
    Arrival, Cause, Envelope, Error, Feed, Filter, Item, Query, Start, Subscription, Types,
};
use tollgate::proto::v1::EventSource;
use tollgate::store::{Store, Terms};

/// Longer than anything here takes, so that a test which would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long that no checkpoint comes while a test runs.
const NEVER: Duration = Duration::from_secs(3600);

struct Fixture {
    feed: Feed,
    clock: Arc<ManualClock>,
    folder: TempDir,
}

fn fixture(checkpoint_every: Duration) -> Fixture {
    opened(tempfile::tempdir().unwrap(), checkpoint_every)
}

fn opened(folder: TempDir, checkpoint_every: Duration) -> Fixture {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let store = Store::open(folder.path(), Terms::default()).unwrap();
    let feed = Feed::new(store, Arc::clone(&clock) as Arc<dyn Clock>, checkpoint_every);
    Fixture { feed, clock, folder }
}

impl Fixture {
    async fn append(&self, number: usize, kind: &str) -> u64 {
        let json = format!(
            r#"{{"id":"evt_{number}","object":"event","type":"{kind}","created":{},"livemode":false,"data":{{"object":{{}}}}}}"#,
            1_700_000_000 + number
        );
        let envelope = Envelope::parse(&json).unwrap();
        let arrival = Arrival {
            envelope,
            account: String::new(),
            source: EventSource::Webhook,
            json,
            cause: Cause::default(),
        };
        self.feed.append(arrival).await.unwrap().position
    }

    /// Appends `evt_first` to `evt_last`.
    async fn fill(&self, first: usize, last: usize) {
        for number in first..=last {
            self.append(number, "charge.succeeded").await;
        }
    }

    async fn open(&self, start: Start) -> Subscription {
        self.feed.subscribe(start, Filter::default()).await.unwrap()
    }
}

async fn next(subscription: &mut Subscription) -> Item {
    timeout(PATIENCE, subscription.next()).await.expect("something comes").unwrap()
}

/// Ids up to the next caught-up mark.
async fn until_caught_up(subscription: &mut Subscription) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        match next(subscription).await {
            Item::Event(logged) => ids.push(logged.event.id.clone()),
            Item::CaughtUp(cursor) => {
                assert_eq!(cursor, subscription.cursor());
                return ids;
            }
            Item::Checkpoint(_) => {}
        }
    }
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("evt_{number}")).collect()
}

#[tokio::test]
async fn the_earliest_start_sees_everything_then_what_is_new() {
    let fixture = fixture(NEVER);
    fixture.fill(1, 5).await;
    let mut subscription = fixture.open(Start::Earliest).await;
    assert_eq!(until_caught_up(&mut subscription).await, ids(1..=5));
    fixture.fill(6, 6).await;
    let Item::Event(stored) = next(&mut subscription).await else { panic!("not an event") };
    assert_eq!((stored.position, stored.event.id.as_str()), (6, "evt_6"));
}

#[tokio::test]
async fn the_latest_start_is_caught_up_at_once_and_sees_only_what_is_new() {
    let fixture = fixture(NEVER);
    fixture.fill(1, 3).await;
    let mut subscription = fixture.open(Start::Latest).await;
    assert!(until_caught_up(&mut subscription).await.is_empty());
    fixture.fill(4, 4).await;
    assert!(matches!(next(&mut subscription).await, Item::Event(stored) if stored.position == 4));
}

#[tokio::test]
async fn an_empty_log_is_caught_up_from_either_end() {
    let fixture = fixture(NEVER);
    for start in [Start::Earliest, Start::Latest, Start::At(0)] {
        let mut subscription = fixture.open(start).await;
        assert!(until_caught_up(&mut subscription).await.is_empty());
        assert_eq!(subscription.cursor().position, 0);
    }
}

#[tokio::test]
async fn a_reader_that_resumes_at_any_cursor_misses_and_repeats_nothing() {
    let fixture = fixture(NEVER);
    fixture.fill(1, 6).await;
    for taken in 0..=6 {
        let mut first = fixture.open(Start::Earliest).await;
        for _ in 0..taken {
            assert!(matches!(next(&mut first).await, Item::Event(_)));
        }
        let cursor = Cursor::decode(&first.cursor().encode()).unwrap();
        let mut second = fixture.open(Start::After(cursor)).await;
        assert_eq!(until_caught_up(&mut second).await, ids(taken + 1..=6));
    }
}

#[tokio::test]
async fn a_start_in_time_begins_with_the_first_event_received_then_or_later() {
    let fixture = fixture(NEVER);
    let start = fixture.clock.wall();
    for number in 1..=4 {
        fixture.append(number, "charge.succeeded").await;
        fixture.clock.advance(Duration::from_secs(10));
    }
    for (offset_ms, first) in [(-1, 1), (0, 1), (1, 2), (10_000, 2), (29_999, 4), (30_001, 5)] {
        let mut subscription = fixture.open(Start::At(start + offset_ms)).await;
        assert_eq!(until_caught_up(&mut subscription).await, ids(first..=4), "{offset_ms}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_log_or_ahead_of_this_one_is_refused_with_the_oldest() {
    let fixture = fixture(NEVER);
    fixture.fill(1, 2).await;
    let oldest = fixture.feed.cursor(0);
    for cursor in [Cursor { log: oldest.log ^ 1, position: 1 }, fixture.feed.cursor(3)] {
        let refused = fixture.feed.subscribe(Start::After(cursor), Filter::default()).await;
        assert_eq!(refused.unwrap_err(), Error::Foreign { oldest });
    }
}

#[tokio::test]
async fn a_cursor_for_what_a_restored_copy_lacks_is_refused_however_much_has_come_in_since() {
    let fixture = fixture(NEVER);
    fixture.fill(1, 2).await;
    let copy = tempfile::tempdir().unwrap();
    let database = rusqlite::Connection::open(fixture.folder.path().join("tollgate.db")).unwrap();
    let into = copy.path().join("tollgate.db");
    database.execute("VACUUM INTO ?1", [into.to_str().unwrap()]).unwrap();
    fixture.fill(3, 4).await;
    let (kept, lost) = (fixture.feed.cursor(2), fixture.feed.cursor(4));

    let restored = opened(copy, NEVER);
    restored.fill(11, 15).await;
    assert_eq!(until_caught_up(&mut restored.open(Start::After(kept)).await).await, ids(11..=15));
    let refused = restored.feed.subscribe(Start::After(lost), Filter::default()).await;
    assert_eq!(refused.unwrap_err(), Error::Foreign { oldest: restored.feed.cursor(0) });
    let own = restored.feed.cursor(4);
    assert_eq!(until_caught_up(&mut restored.open(Start::After(own)).await).await, ids(13..=15));
}

#[tokio::test]
async fn a_clock_that_is_set_back_hides_nothing_from_whoever_starts_in_time() {
    let fixture = fixture(NEVER);
    fixture.fill(1, 2).await;
    fixture.clock.advance(Duration::from_secs(3600));
    let now = fixture.clock.wall();
    let (mut from_now, mut from_later) =
        (fixture.open(Start::At(now)).await, fixture.open(Start::At(now + 1)).await);
    assert!(
        until_caught_up(&mut from_now).await.is_empty() && until_caught_up(&mut from_later).await.is_empty()
    );
    fixture.clock.set_wall(now - 1_800_000);
    fixture.fill(3, 3).await;
    assert!(matches!(next(&mut from_now).await, Item::Event(logged) if logged.position == 3));
    fixture.clock.set_wall(now + 1);
    fixture.fill(4, 4).await;
    assert!(matches!(next(&mut from_later).await, Item::Event(logged) if logged.position == 4));
}

#[tokio::test]
async fn a_reader_whose_events_have_left_the_log_is_told_the_oldest_cursor() {
    let fixture = fixture(NEVER);
    // What is in memory is not missed.
    let fixture = Fixture { feed: fixture.feed.clone().with_memory(0), ..fixture };
    fixture.fill(1, 6).await;
    let mut late = fixture.open(Start::After(fixture.feed.cursor(1))).await;
    // What a retention would do.
    let database = rusqlite::Connection::open(fixture.folder.path().join("tollgate.db")).unwrap();
    database.execute("DELETE FROM events WHERE position <= 3", ()).unwrap();
    let oldest = fixture.feed.cursor(3);
    assert_eq!(timeout(PATIENCE, late.next()).await.unwrap(), Err(Error::Expired { oldest }));
    let again = fixture.feed.subscribe(Start::After(fixture.feed.cursor(2)), Filter::default()).await;
    assert_eq!(again.unwrap_err(), Error::Expired { oldest });
    for start in [Start::After(oldest), Start::Earliest, Start::At(0)] {
        assert_eq!(until_caught_up(&mut fixture.open(start).await).await, ids(4..=6));
    }
}

#[tokio::test]
async fn checkpoints_move_a_reader_whose_filter_lets_nothing_through() {
    let fixture = fixture(Duration::from_millis(5));
    let filter = Filter::new("", Types::new(&["payout.*".to_owned()], &[]).unwrap());
    let mut subscription = fixture.feed.subscribe(Start::Latest, filter).await.unwrap();
    let received = fixture.clock.wall();
    fixture.fill(1, 3).await;
    loop {
        match next(&mut subscription).await {
            Item::Checkpoint(checkpoint) if checkpoint.cursor.position == 3 => {
                assert_eq!((checkpoint.head, checkpoint.head_received_ms), (3, Some(received)));
                assert_eq!(checkpoint.cursor, fixture.feed.cursor(3));
                return;
            }
            Item::Checkpoint(checkpoint) => assert!(checkpoint.cursor.position <= checkpoint.head),
            Item::CaughtUp(_) => {}
            Item::Event(stored) => panic!("{stored:?} does not match"),
        }
    }
}

#[tokio::test]
async fn a_checkpoint_of_an_empty_log_has_no_head_time() {
    let fixture = fixture(Duration::from_millis(5));
    let mut subscription = fixture.open(Start::Latest).await;
    until_caught_up(&mut subscription).await;
    let Item::Checkpoint(checkpoint) = next(&mut subscription).await else { panic!("not a checkpoint") };
    assert_eq!((checkpoint.cursor.position, checkpoint.head, checkpoint.head_received_ms), (0, 0, None));
}

#[tokio::test]
async fn a_slow_reader_hinders_no_other_and_is_told_once_when_it_has_caught_up() {
    let fixture = fixture(NEVER);
    let mut slow = fixture.open(Start::Latest).await;
    let mut fast = fixture.open(Start::Latest).await;
    assert!(until_caught_up(&mut slow).await.is_empty());
    assert!(until_caught_up(&mut fast).await.is_empty());
    let last = EVENT_BATCH_EVENTS_MAX + 10;
    for number in 1..=last {
        fixture.append(number, "charge.succeeded").await;
        let Item::Event(logged) = next(&mut fast).await else { panic!("a live reader sees events only") };
        assert_eq!(logged.event.id, format!("evt_{number}"));
    }
    assert_eq!(until_caught_up(&mut slow).await, ids(1..=last));
    assert_eq!(slow.cursor(), fast.cursor());
}

#[tokio::test]
async fn waits_that_are_given_up_lose_nothing() {
    let fixture = fixture(NEVER);
    let mut subscription = fixture.open(Start::Latest).await;
    until_caught_up(&mut subscription).await;
    let mut seen = Vec::new();
    for number in 1..=50 {
        // Gives up after one poll, wherever the wait stands then.
        tokio::select! {
            biased;
            item = subscription.next() => if let Item::Event(logged) = item.unwrap() { seen.push(logged.event.id.clone()) },
            () = std::future::ready(()) => {}
        }
        fixture.append(number, "charge.succeeded").await;
    }
    while seen.len() < 50 {
        if let Item::Event(logged) = next(&mut subscription).await {
            seen.push(logged.event.id.clone());
        }
    }
    assert_eq!(seen, ids(1..=50));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_arrive_together_are_seen_once_each_and_in_order() {
    let fixture = Arc::new(fixture(NEVER));
    let mut subscription = fixture.open(Start::Earliest).await;
    let writers = (0..8_usize).map(|writer| {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move { fixture.fill(writer * 100, writer * 100 + 24).await })
    });
    let writers: Vec<_> = writers.collect();
    let mut seen = BTreeSet::new();
    let mut last = 0;
    while seen.len() < 200 {
        if let Item::Event(stored) = next(&mut subscription).await {
            assert_eq!(stored.position, last + 1);
            last = stored.position;
            assert!(seen.insert(stored.event.id.clone()));
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn an_event_is_found_by_its_id_and_is_byte_for_byte_what_came() {
    let fixture = fixture(NEVER);
    fixture.fill(1, 2).await;
    let stored = fixture.feed.get("", "evt_2").await.unwrap().unwrap();
    assert_eq!(stored.position, 2);
    assert!(stored.event.json.starts_with(r#"{"id":"evt_2","object":"event""#));
    assert_eq!(fixture.feed.get("", "evt_3").await.unwrap(), None);
    assert_eq!(fixture.feed.get("other", "evt_2").await.unwrap(), None);
}

#[tokio::test]
async fn pages_go_back_from_the_newest_and_hold_every_match_once() {
    let fixture = fixture(NEVER);
    for number in 1..=30 {
        let kind = if number % 3 == 0 { "charge.failed" } else { "charge.succeeded" };
        fixture.append(number, kind).await;
    }
    let failed = Filter::new("", Types::new(&["charge.failed".to_owned()], &[]).unwrap());
    let mut query =
        Query { filter: failed, created_s: 1_700_000_004..=1_700_000_027, before: None, events_max: 3 };
    let mut seen = Vec::new();
    loop {
        let page = fixture.feed.list(&query).await.unwrap();
        assert!(page.events.len() <= 3);
        seen.extend(page.events.into_iter().map(|stored| stored.event.id));
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(seen, ids([27, 24, 21, 18, 15, 12, 9, 6]));
}

#[tokio::test]
async fn an_empty_log_has_one_empty_page() {
    let query = Query { filter: Filter::default(), created_s: 0..=i64::MAX, before: None, events_max: 10 };
    let page = fixture(NEVER).feed.list(&query).await.unwrap();
    assert_eq!((page.events.len(), page.next), (0, None));
}
