//! The store as its callers see it, on a real disk, through reopenings and failures.

mod aging;
mod expiry;
mod faults;
mod model;
mod trouble;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn hash(number: u8) -> OperationHash {
    OperationHash([number; 32])
}

/// Everything is found by its words.
fn terms() -> Terms {
    Terms {
        version: 1,
        audit: |record| words(&String::from_utf8_lossy(record)),
        event: |event| words(&event.json),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split([' ', '"']).map(str::to_owned).collect()
}

fn audit(id: &str, text: &str) -> AuditRow {
    AuditRow {
        id: id.to_owned(),
        leaf: [u8::try_from(text.len() % 256).unwrap(); 32],
        record: text.as_bytes().to_vec(),
    }
}

fn record(number: u8, text: &str) -> Batch {
    Batch {
        operations: vec![OperationRow {
            hash: hash(number),
            record: text.as_bytes().to_vec(),
            listed: false,
        }],
        audit: vec![audit(&format!("aud_{text}"), text)],
        ..Batch::default()
    }
}

fn event(id: &str, received_ms: i64) -> NewEvent {
    NewEvent {
        id: id.to_owned(),
        kind: "refund.created".to_owned(),
        created_s: received_ms / 1000,
        received_ms,
        account: "acct_1".to_owned(),
        livemode: false,
        api_version: "2026-10-28.endive".to_owned(),
        source: 1,
        json: format!("{{\"id\": \"{id}\"}}"),
        cause: vec![7],
    }
}

/// Runs something on the writer's thread, between two commits, and waits for it.
async fn on_writer(store: &Store, work: impl FnOnce(&mut Writer) + Send + 'static) {
    let (done, ran) = oneshot::channel();
    let work = Box::new(|writer: &mut Writer| {
        work(writer);
        done.send(()).unwrap();
    });
    store.jobs.send(Job::Run(work)).unwrap();
    ran.await.unwrap();
}

/// A deferred constraint is violated at the commit itself, like a sync that fails.
const TRAP_AT_COMMIT: &str = "
    CREATE TABLE parent (id INTEGER PRIMARY KEY);
    CREATE TABLE child (parent REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER trap AFTER INSERT ON journal BEGIN INSERT INTO child VALUES (1); END;";

/// Runs SQL on the writer's own connection.
async fn sql_on_writer(store: &Store, sql: &'static str) {
    on_writer(store, move |writer| writer.connected().unwrap().0.execute_batch(sql).unwrap()).await;
}

/// Asks until the answer is there; the writer works behind the caller's back.
async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to pass");
}

fn database(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("tollgate.db")
}

fn positions(receipt: &Receipt) -> Vec<(u64, bool)> {
    receipt.events.iter().map(|event| (event.position, event.duplicate)).collect()
}

fn events(events: Vec<NewEvent>) -> Batch {
    Batch { events, ..Batch::default() }
}

#[tokio::test]
async fn a_committed_batch_reads_back_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    store.commit(record(1, "second")).await.unwrap();
    let receipt = store.commit(events(vec![event("evt_1", 10)])).await.unwrap();
    assert_eq!(receipt.events, [Appended { position: 1, duplicate: false }]);
    let (log_id, secret) = (store.log_id(), store.secret("audit").await.unwrap());
    for reopened in [false, true] {
        let store = if reopened {
            store.close().await;
            Store::open(dir.path(), terms()).unwrap()
        } else {
            store.clone()
        };
        assert_eq!(store.operation(&hash(1)).await, Ok(Some(b"second".to_vec())));
        assert_eq!(store.operation(&hash(2)).await, Ok(None));
        let audit = store.audit_after(0, 10).await.unwrap();
        assert_eq!(audit.iter().map(|row| &*row.row.id).collect::<Vec<_>>(), ["aud_first", "aud_second"]);
        let stored = StoredEvent { position: 1, event: event("evt_1", 10) };
        assert_eq!(store.events_after(0, 10, 1000).await.unwrap(), vec![stored.clone()]);
        assert_eq!(store.event("evt_1").await.unwrap(), Some(stored));
        assert_eq!(*store.events_head().borrow(), 1);
        assert_eq!((store.log_id(), store.secret("audit").await.unwrap()), (log_id, secret));
        assert_ne!(store.secret("other").await.unwrap(), secret);
    }
}

#[tokio::test]
async fn a_repeated_event_answers_its_first_position_in_the_same_group_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    let batch = events(vec![event("evt_1", 1), event("evt_2", 2), event("evt_1", 3)]);
    assert_eq!(positions(&store.commit(batch.clone()).await.unwrap()), [(1, false), (2, false), (1, true)]);
    store.close().await;
    let store = Store::open(dir.path(), terms()).unwrap();
    let again = events(vec![event("evt_2", 4), event("evt_3", 5)]);
    assert_eq!(positions(&store.commit(again).await.unwrap()), [(2, true), (3, false)]);
    assert_eq!(store.event("evt_1").await.unwrap().unwrap().event.received_ms, 1);
}

#[tokio::test]
async fn many_committers_share_a_transaction_and_get_contiguous_positions() {
    const COMMITTERS: u64 = 64;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    let (release, held) = mpsc::channel();
    store.jobs.send(Job::Run(Box::new(move |_| held.recv().unwrap()))).unwrap();
    let committers: Vec<_> = (0..COMMITTERS)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(events(vec![event(&format!("evt_{number}"), 1)])).await })
        })
        .collect();
    let waiting = QUEUE_BATCHES_MAX - usize::try_from(COMMITTERS).unwrap();
    // On this one thread, whoever has taken a place has also joined the queue.
    eventually(async || (store.places.available_permits() == waiting).then_some(())).await;
    release.send(()).unwrap();
    let mut given = Vec::new();
    for committer in committers {
        given.extend(positions(&committer.await.unwrap().unwrap()));
    }
    given.sort_unstable();
    assert_eq!(given, (1..=COMMITTERS).map(|position| (position, false)).collect::<Vec<_>>());
    assert_eq!(store.groups_committed(), 1);
    assert_eq!(*store.events_head().borrow(), COMMITTERS);
}

#[tokio::test]
async fn a_page_of_events_ends_at_its_count_its_bytes_and_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    assert_eq!(store.events_oldest().await, Ok(None));
    assert_eq!(store.event_position_at(0).await, Ok(1));
    let all = (1..=5).map(|number| event(&format!("evt_{number}"), number * 10)).collect();
    store.commit(events(all)).await.unwrap();
    let page = async |after, count, bytes| {
        let page = store.events_after(after, count, bytes).await.unwrap();
        page.iter().map(|event| event.position).collect::<Vec<_>>()
    };
    let bytes = event("evt_1", 1).json.len();
    assert_eq!(page(0, 100, 10_000).await, [1, 2, 3, 4, 5]);
    assert_eq!(page(2, 2, 10_000).await, [3, 4]);
    assert_eq!(page(0, 100, 2 * bytes).await, [1, 2]);
    assert_eq!(page(1, 100, 1).await, [2], "an event that is too large alone still comes");
    assert!(page(5, 100, 10_000).await.is_empty());
    assert!(page(u64::MAX, 100, 10_000).await.is_empty());
    assert_eq!(store.events_oldest().await, Ok(Some(1)));
    for (time, position) in [(i64::MIN, 1), (10, 1), (11, 2), (50, 5), (51, 6), (i64::MAX, 6)] {
        assert_eq!(store.event_position_at(time).await, Ok(position), "at {time}");
    }
}

#[tokio::test]
async fn a_search_ends_at_its_bytes_and_goes_on_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    for number in 1..=5 {
        store.commit(record(number, "same")).await.unwrap();
    }
    let first = store.audit_with("same", 0, 9, 0).await.unwrap();
    assert_eq!(first.len(), 1, "one that is larger alone still comes");
    let two = first[0].row.bytes() * 2;
    for (after, expected) in [(0, vec![1, 2]), (2, vec![3, 4]), (4, vec![5]), (5, vec![])] {
        let page = store.audit_with("same", after, 9, two).await.unwrap();
        assert_eq!(page.iter().map(|stored| stored.sequence).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn the_head_announces_events_and_lazy_audit_rows_come_along() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    let mut head = store.events_head();
    let row = |number: usize| audit(&format!("aud_{number}"), "read");
    store.append_audit_lazily(row(1));
    eventually(async || (store.audit_after(0, 10).await.unwrap().len() == 1).then_some(())).await;
    store.append_audit_lazily(row(2));
    store.commit(events(vec![event("evt_1", 1)])).await.unwrap();
    head.changed().await.unwrap();
    assert_eq!(*head.borrow(), 1);
    store.append_audit_lazily(row(3));
    store.close().await;
    let store = Store::open(dir.path(), terms()).unwrap();
    let sequences: Vec<_> =
        store.audit_after(0, 10).await.unwrap().into_iter().map(|row| row.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(store.audit_after(1, 1).await.unwrap()[0].row, row(2));
}

#[tokio::test]
async fn a_replaced_record_leaves_no_bytes_in_the_files() {
    const BODY: &[u8] = b"amount=700&reason=";
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    // One record that fits a page and one that has pages of its own.
    for (number, repeat) in [(1, 1), (2, 2000)] {
        let row = OperationRow { hash: hash(number), record: BODY.repeat(repeat), listed: true };
        store.commit(Batch { operations: vec![row], ..Batch::default() }).await.unwrap();
        on_writer(&store, |writer| writer.index(9)).await;
        store.commit(record(number, "settled")).await.unwrap();
    }
    on_writer(&store, |writer| writer.index(9)).await;
    store.close().await;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(BODY.len()).any(|window| window == BODY));
    }
}

#[tokio::test]
async fn the_folder_and_its_files_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep").join("data");
    let store = Store::open(&data, terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let mut files = 0;
    for file in std::fs::read_dir(&data).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
        files += 1;
    }
    assert_eq!(files, 4, "database, write-ahead log, its shared memory and the lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_that_take_long_do_not_stall_look_ups() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    on_writer(&store, |writer| writer.index(9)).await;
    let (started, mut running) = tokio::sync::mpsc::channel(SEARCHERS_MAX);
    let mut ends = Vec::new();
    for _ in 0..SEARCHERS_MAX {
        let (end, ended) = mpsc::channel::<()>();
        let (searchers, started) = (Arc::clone(&store.searchers), started.clone());
        ends.push(end);
        tokio::spawn(async move {
            searchers
                .read(move |_| {
                    started.blocking_send(()).unwrap();
                    // Ends once nobody holds the other side.
                    _ = ended.recv();
                    Ok(())
                })
                .await
        });
        running.recv().await.unwrap();
    }
    assert_eq!(store.operation(&hash(1)).await, Ok(Some(b"first".to_vec())));
    drop(ends);
    assert_eq!(store.audit_after(0, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_page_whose_operations_have_all_left_the_list_is_not_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    for number in [1, 2] {
        let row = OperationRow { hash: hash(number), record: b"open".to_vec(), listed: true };
        store.commit(Batch { operations: vec![row], ..Batch::default() }).await.unwrap();
    }
    on_writer(&store, |writer| writer.index(9)).await;
    // As if it left between the look at the list and the look at the record.
    sql_on_writer(&store, "UPDATE journal SET listed = 0 WHERE seq = 1").await;
    let found = store.listed(None, 1).await.unwrap();
    assert_eq!(found.iter().map(|row| row.hash).collect::<Vec<_>>(), [hash(2)]);
    assert!(store.listed(Some(hash(2)), 1).await.unwrap().is_empty());
}
