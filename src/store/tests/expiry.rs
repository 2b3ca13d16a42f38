//! How events leave the log: the oldest first, never the newest, and their marks only after them.

use super::*;

/// A source that no event of these tests has, unless it says so.
const MADE_HERE: i32 = 9;

/// Time at which `evt_N` was received.
fn received_ms(number: u64) -> i64 {
    i64::try_from(number).unwrap() * 1000
}

async fn filled(dir: &tempfile::TempDir, count: u64) -> Store {
    let store = Store::open(dir.path(), terms()).unwrap();
    append(&store, 1..=count).await;
    store
}

async fn append(store: &Store, numbers: std::ops::RangeInclusive<u64>) -> Vec<(u64, bool)> {
    let all = numbers.map(|number| event(&format!("evt_{number}"), received_ms(number))).collect();
    positions(&store.commit(events(all)).await.unwrap())
}

async fn kept(store: &Store) -> Vec<u64> {
    let events = store.events_after(0, 10_000, usize::MAX).await.unwrap();
    events.iter().map(|stored| stored.position).collect()
}

/// Rows of a table.
async fn count(store: &Store, table: &'static str) -> i64 {
    let (answer, answered) = oneshot::channel();
    on_writer(store, move |writer| {
        let sql = format!("SELECT count(*) FROM {table}");
        let count = writer.connected().unwrap().0.query_row(&sql, [], |row| row.get(0)).unwrap();
        answer.send(count).unwrap();
    })
    .await;
    answered.await.unwrap()
}

#[tokio::test]
async fn events_leave_and_stay_known_until_their_marks_leave_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir, 600).await;
    store.expire_events(590, received_ms(0)).await.unwrap();
    assert_eq!(kept(&store).await, (591..=600).collect::<Vec<_>>());
    assert_eq!(store.event("evt_590").await, Ok(None));
    assert!(store.event("evt_591").await.unwrap().is_some());
    assert_eq!(append(&store, 1..=2).await, [(1, true), (2, true)]);
    store.expire_events(0, received_ms(401)).await.unwrap();
    assert_eq!((count(&store, "spent_events").await, count(&store, "event_marks").await), (190, 200));
    assert_eq!(append(&store, 400..=401).await, [(601, false), (401, true)]);
    assert_eq!(store.events_after(600, 1, usize::MAX).await.unwrap()[0].event.id, "evt_400");
}

#[tokio::test]
async fn the_newest_event_stays_and_the_log_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir, 3).await;
    store.expire_events(u64::MAX, received_ms(100)).await.unwrap();
    assert_eq!(kept(&store).await, [3]);
    store.close().await;
    let store = Store::open(dir.path(), terms()).unwrap();
    assert_eq!(append(&store, 4..=4).await, [(4, false)]);
    assert_eq!(append(&store, 3..=3).await, [(3, true)], "the mark of an event that is kept is kept");
}

#[tokio::test]
async fn what_has_left_is_found_by_nothing_whether_it_was_indexed_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir, 20).await;
    on_writer(&store, |writer| writer.index_terms(10)).await;
    store.expire_events(15, 0).await.unwrap();
    for (id, found) in [("evt_3", 0), ("evt_15", 0), ("evt_16", 1)] {
        assert_eq!(store.events_with(id, 0, 9, usize::MAX).await.unwrap().len(), found, "{id}");
    }
    on_writer(&store, |writer| writer.index_terms(100)).await;
    assert_eq!(store.events_with("evt_16", 0, 9, usize::MAX).await.unwrap().len(), 1);
    let each = i64::try_from(words(&event("evt_16", 0).json).len()).unwrap();
    assert!(count(&store, "terms").await <= 5 * each);
}

#[tokio::test]
async fn the_span_tells_what_is_there_and_when_what_left_was_received() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    assert_eq!(store.event_span(MADE_HERE).await, Ok(None));
    append(&store, 1..=9).await;
    let bytes = |number: u64| u64::try_from(event(&format!("evt_{number}"), 0).json.len()).unwrap();
    let span = store.event_span(MADE_HERE).await.unwrap().unwrap();
    assert_eq!((span.oldest, span.newest, span.left_ms), (1, 9, None));
    assert!(span.bytes >= (1..=9).map(bytes).sum());
    store.expire_events(4, 0).await.unwrap();
    let after = store.event_span(MADE_HERE).await.unwrap().unwrap();
    assert_eq!((after.oldest, after.oldest_received_ms), (5, received_ms(5)));
    assert_eq!((after.newest, after.newest_received_ms), (9, received_ms(9)));
    assert_eq!(after.left_ms, Some(received_ms(4)));
    assert!(after.bytes < span.bytes && after.bytes >= (5..=9).map(bytes).sum());
}

#[tokio::test]
async fn the_newest_event_that_was_not_made_here_tells_when_others_made_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    let newest_s = async || store.event_span(MADE_HERE).await.unwrap().unwrap().newest_created_s;
    let own = |id: &str| NewEvent { source: MADE_HERE, ..event(id, received_ms(1_000)) };
    store.commit(events(vec![own("evt_own")])).await.unwrap();
    assert_eq!(newest_s().await, None);
    append(&store, 1..=2).await;
    store.commit(events(vec![own("evt_own_too")])).await.unwrap();
    assert_eq!(newest_s().await, Some(2));
}

#[tokio::test]
async fn a_removal_in_the_middle_of_trouble_is_finished_when_it_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir, 600).await;
    sql_on_writer(
        &store,
        "CREATE TEMP TRIGGER trap BEFORE DELETE ON events WHEN old.position > 300 BEGIN SELECT raise(ABORT, 'trap'); END;",
    )
    .await;
    let error = store.expire_events(400, 0).await.unwrap_err();
    assert!(error.certain_not_written(), "{error:?}");
    assert_eq!(kept(&store).await.first(), Some(&257));
    // The new connection knows no trap.
    store.expire_events(400, 0).await.unwrap();
    assert_eq!(kept(&store).await, (401..=600).collect::<Vec<_>>());
    assert_eq!(append(&store, 300..=301).await, [(300, true), (301, true)]);
}

#[tokio::test]
async fn events_go_on_coming_in_while_others_leave() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir, 1_000).await;
    let (left, came) = tokio::join!(store.expire_events(900, 0), async {
        for number in 1_001..=1_020 {
            assert_eq!(append(&store, number..=number).await, [(number, false)]);
        }
    });
    assert_eq!((left, came), (Ok(()), ()));
    assert_eq!(kept(&store).await, (901..=1_020).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_size_of_the_log_tells_where_it_has_to_begin() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    assert_eq!(store.event_position_within(0).await, Ok(1));
    append(&store, 1..=50).await;
    let sizes: Vec<u64> =
        (1..=50).map(|number| u64::try_from(event(&format!("evt_{number}"), 0).bytes()).unwrap()).collect();
    for bytes in (0..sizes.iter().sum::<u64>() + 100).step_by(41) {
        let fits = |left: &usize| sizes[*left..].iter().sum::<u64>() <= bytes;
        let left = (0..=50).find(fits).unwrap();
        assert_eq!(store.event_position_within(bytes).await, Ok(u64::try_from(left).unwrap() + 1), "{bytes}");
    }
    let bytes = store.event_span(MADE_HERE).await.unwrap().unwrap().bytes;
    assert_eq!(bytes, sizes.iter().sum::<u64>());
    store.expire_events(20, 0).await.unwrap();
    assert_eq!(store.event_position_within(bytes).await, Ok(21), "what has left is not there to go");
    assert_eq!(store.event_span(MADE_HERE).await.unwrap().unwrap().bytes, sizes[20..].iter().sum::<u64>());
}
