//! What is on the disk after waits that were given up, after writes of unknown end, and after a deletion in between.

use std::future::Future as _;
use std::task::{Context, Waker};
use std::time::Duration;

use tempfile::TempDir;

use super::super::consumer::Supply;
use super::super::progress::Delivering;
use super::super::registry::{Error, Subscriptions};
use super::*;
use crate::domain::clock::{Clock as _, ManualClock};

async fn open(store: &Store) -> Subscriptions {
    let clock = Arc::new(ManualClock::at(1_000));
    Subscriptions::open(Feed::new(store.clone(), clock.clone(), Duration::from_secs(15)), clock)
        .await
        .unwrap()
}

fn store(folder: &TempDir) -> Store {
    Store::open(folder.path(), store::Terms::default()).unwrap()
}

fn terms() -> Terms {
    Terms {
        id: 1,
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
        account: String::new(),
        types: Vec::new(),
        presets: Vec::new(),
        filter: Vec::new(),
        delivering: Delivering { lease_ms: 100, in_flight_max: 3, in_flight_bytes_max: 9, attempts_max: 3 },
        created_ms: 1_000,
        created_by: "rig".to_owned(),
    }
}

fn now() -> Moment {
    ManualClock::at(1_000).now()
}

/// Has somebody take the event at position 1.
fn taken(named: &Named) -> AckId {
    let known = Known { object: "a".into(), kind: "a.b".into(), bytes: 1, received_ms: 1_000 };
    let taker = Taker { stream: 1, name: "".into(), in_flight_max: 9 };
    let mut state = named.state();
    state.progress.look(1, known, true);
    let (taken, generation) = state.take(&taker, now(), |_| true).unwrap();
    named.ack_id(generation, taken)
}

async fn created(subscriptions: &Subscriptions) -> Arc<Named> {
    subscriptions.create(terms(), (0, UnixMillis::MIN), Vec::new()).await.unwrap()
}

/// What is parked and open after a restart.
async fn left(store: Store, folder: &TempDir) -> (usize, u64) {
    store.close().await;
    let subscriptions = open(&self::store(folder)).await;
    let named = subscriptions.find("shop", "orders").unwrap();
    let state = named.state();
    (state.progress.parked().len(), state.progress.lag(1))
}

#[tokio::test]
async fn an_answer_whose_caller_left_is_kept_whole_and_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder);
    let named = created(&open(&store).await).await;
    let id = taken(&named);
    let mut rejected = Box::pin(named.reject((id, now()), (Verdict::Park, "bad"), Vec::new()));
    assert!(rejected.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(rejected);
    named.acknowledge(&[id], 1).await.unwrap();
    assert_eq!(left(store, &folder).await, (0, 0));
}

#[tokio::test]
async fn a_write_of_unknown_end_is_made_good_by_the_next() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder);
    let named = created(&open(&store).await).await;
    let id = taken(&named);
    let entries = {
        let mut state = named.state();
        assert_eq!(state.progress.reject(id, Verdict::Park, "bad", now()), Ok(true));
        named.begin_write(&mut state)
    };
    // It is there, and nobody was told.
    store.commit(Batch { entries, ..Batch::default() }).await.unwrap();
    named.acknowledge(&[id], 1).await.unwrap();
    assert_eq!(left(store, &folder).await, (0, 0));
}

#[tokio::test]
async fn what_was_deleted_takes_no_word_and_takes_nothing_of_its_successor() {
    let folder = TempDir::new().unwrap();
    let subscriptions = open(&store(&folder)).await;
    let first = created(&subscriptions).await;
    let id = taken(&first);
    subscriptions.delete(Arc::clone(&first), Vec::new()).await.unwrap();
    let paused = first.manage(Vec::new(), |progress| progress.pause(true)).await;
    assert!(matches!(paused, Err(Unkept::Ended)), "{paused:?}");
    let acknowledged = first.acknowledge(&[id], 1).await;
    assert!(matches!(acknowledged, Err(Refused::Unkept(Unkept::Ended))), "{acknowledged:?}");
    let second = created(&subscriptions).await;
    let deleted = subscriptions.delete(first, Vec::new()).await;
    assert!(matches!(deleted, Err(Error::Ended)), "{deleted:?}");
    let found = subscriptions.find("shop", "orders").unwrap();
    assert!(Arc::ptr_eq(&found, &second));
}

#[tokio::test]
async fn an_answer_for_what_a_restored_copy_lacks_counts_for_nothing_else() {
    let (folder, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = store(&folder);
    let named = created(&open(&first).await).await;
    let database = rusqlite::Connection::open(folder.path().join("tollgate.db")).unwrap();
    database.execute("VACUUM INTO ?1", [copy.path().join("tollgate.db").to_str().unwrap()]).unwrap();
    let id = taken(&named);
    named.acknowledge(&[id], 1).await.unwrap();

    let restored = open(&store(&copy)).await.find("shop", "orders").unwrap();
    let another = taken(&restored);
    assert_eq!((id.subscription, id.position), (another.subscription, another.position));
    let stale = restored.acknowledge(&[id], 1).await;
    assert!(matches!(stale, Err(Refused::Stale(0, Stale::Generation))), "{stale:?}");
    let stale = restored.reject((id, now()), (Verdict::Skip, ""), Vec::new()).await;
    assert!(matches!(stale, Err(Refused::Stale(0, Stale::Generation))), "{stale:?}");
    restored.acknowledge(&[another], 1).await.unwrap();
}

#[tokio::test]
async fn an_event_whose_lease_ends_before_it_goes_out_is_taken_anew() {
    let folder = TempDir::new().unwrap();
    let (store, clock) = (store(&folder), Arc::new(ManualClock::at(1_000)));
    let feed = Feed::new(store.clone(), clock.clone(), Duration::from_secs(15));
    let subscriptions = Subscriptions::open(feed, clock.clone()).await.unwrap();
    let named = created(&subscriptions).await;
    let event = store::NewEvent { id: "evt_1".to_owned(), json: "{}".to_owned(), ..<_>::default() };
    store.commit(Batch { events: vec![event], ..Batch::default() }).await.unwrap();
    let mut consumer = subscriptions.consume(Arc::clone(&named), "", 9);
    let mut is_late = true;
    // It is asked without the lock only right before an event goes out.
    let shown = |_: &str| {
        if let Ok(mut state) = named.state.try_lock() {
            clock.advance(Duration::from_secs(u64::from(std::mem::take(&mut is_late))));
            state.progress.expire(clock.now());
        }
        true
    };
    let Supply::Event { taken, .. } = consumer.next(shown, |_| true).await.unwrap() else {
        panic!("no event")
    };
    assert_eq!((taken.position, taken.attempt), (1, 2));
}
