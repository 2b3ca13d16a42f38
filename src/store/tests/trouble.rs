//! Each way to fail: the error says whether the rows are absent, reads go on, and the store finds its way back.

use super::*;
use crate::store::commit::write;

async fn audit_ids(store: &Store) -> Vec<String> {
    store.audit_after(0, 100).await.unwrap().into_iter().map(|row| row.row.id).collect()
}

/// The record of an operation once it is known for sure.
async fn known(store: &Store, number: u8) -> Option<Vec<u8>> {
    eventually(async || store.operation(&hash(number)).await.ok()).await
}

#[tokio::test]
async fn a_full_disk_refuses_writes_certainly_serves_reads_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    sql_on_writer(&store, "PRAGMA max_page_count = 1").await;
    let large = "x".repeat(100_000);
    for _ in 0..2 {
        let error = store.commit(record(2, &large)).await.unwrap_err();
        assert_eq!((error.certain_not_written(), error), (true, Error::Full));
        assert_eq!(store.operation(&hash(2)).await, Ok(None));
        assert_eq!(store.operation(&hash(1)).await, Ok(Some(b"first".to_vec())));
    }
    sql_on_writer(&store, "PRAGMA max_page_count = 1000000").await;
    store.commit(record(2, &large)).await.unwrap();
    assert_eq!(store.operation(&hash(2)).await, Ok(Some(large.into_bytes())));
}

#[tokio::test]
async fn a_read_only_database_refuses_writes_certainly() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    sql_on_writer(&store, "PRAGMA query_only = on").await;
    let error = store.commit(record(1, "first")).await.unwrap_err();
    assert_eq!((error.certain_not_written(), error), (true, Error::ReadOnly));
    // The new connection may write.
    store.commit(record(1, "second")).await.unwrap();
    assert_eq!(audit_ids(&store).await, ["aud_second"]);
}

#[tokio::test]
async fn a_foreign_write_lock_is_busy_and_then_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    let foreign = rusqlite::Connection::open(database(&dir)).unwrap();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.commit(record(1, "second")).await.unwrap_err();
    assert_eq!((error.certain_not_written(), error), (true, Error::Busy));
    assert_eq!(store.operation(&hash(1)).await, Ok(Some(b"first".to_vec())));
    foreign.execute_batch("ROLLBACK").unwrap();
    store.commit(record(1, "third")).await.unwrap();
    assert_eq!(store.operation(&hash(1)).await, Ok(Some(b"third".to_vec())));
}

#[tokio::test]
async fn a_commit_that_fails_is_uncertain_until_the_database_was_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    sql_on_writer(&store, TRAP_AT_COMMIT).await;
    store.append_audit_lazily(audit("aud_read", "read"));
    let mut both = record(1, "second");
    both.events.push(event("evt_1", 1));
    both.state.push(Setting { name: "cursor".to_owned(), value: vec![1] });
    let error = store.commit(both.clone()).await.unwrap_err();
    assert_eq!((error.certain_not_written(), error), (false, Error::Uncertain));
    assert_eq!(eventually(async || store.setting("cursor").await.ok()).await, None);
    assert_eq!(known(&store, 1).await, Some(b"first".to_vec()));
    assert_eq!((*store.events_head().borrow(), store.event("evt_1").await), (0, Ok(None)));
    let database = rusqlite::Connection::open(database(&dir)).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    database.execute_batch("DROP TRIGGER trap").unwrap();
    assert_eq!(positions(&store.commit(both).await.unwrap()), [(1, false)]);
    let mut ids = eventually(async || Some(audit_ids(&store).await).filter(|ids| ids.len() >= 3)).await;
    ids.sort_unstable();
    assert_eq!(ids, ["aud_first", "aud_read", "aud_second"], "the read's row came once");
}

/// The other half: the commit was reported as failed and yet happened.
#[tokio::test]
async fn rows_of_a_failed_commit_that_landed_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    on_writer(&store, |writer| {
        let mut batch = record(1, "second");
        batch.events.push(event("evt_1", 1));
        let riding = vec![audit("aud_read", "read")];
        let (connection, last) = writer.connected().unwrap();
        write(connection, last, std::slice::from_ref(&batch), &riding).unwrap();
        writer.doubt(&[batch], riding);
        writer.disconnect(Error::Io("the answer was lost".to_owned()));
    })
    .await;
    let again = store.commit(events(vec![event("evt_1", 2), event("evt_2", 2)])).await.unwrap();
    assert_eq!(positions(&again), [(1, true), (2, false)]);
    assert_eq!(known(&store, 1).await, Some(b"second".to_vec()));
    store.commit(record(2, "third")).await.unwrap();
    assert_eq!(audit_ids(&store).await, ["aud_first", "aud_second", "aud_read", "aud_third"]);
}

#[tokio::test]
async fn a_pass_that_happened_unseen_is_not_made_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    on_writer(&store, |writer| {
        index::pass(writer.connected().unwrap().0, 1).unwrap();
        writer.index(1);
    })
    .await;
    assert_eq!(store.operation(&hash(1)).await, Ok(Some(b"first".to_vec())));
}

#[tokio::test]
async fn a_database_that_vanished_is_not_made_anew_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    let away = dir.path().join("away");
    std::fs::rename(database(&dir), &away).unwrap();
    on_writer(&store, |writer| writer.disconnect(Error::Io("the disk is gone".to_owned()))).await;
    let error = store.commit(record(1, "second")).await.unwrap_err();
    assert!(error.certain_not_written() && matches!(error, Error::Io(_)), "{error:?}");
    assert!(!database(&dir).exists());
    std::fs::rename(&away, database(&dir)).unwrap();
    eventually(async || store.commit(record(1, "third")).await.ok()).await;
    assert_eq!(store.operation(&hash(1)).await, Ok(Some(b"third".to_vec())));
    assert_eq!(audit_ids(&store).await, ["aud_first", "aud_third"]);
}

#[tokio::test]
async fn a_folder_belongs_to_one_store_and_a_newer_or_foreign_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    assert_eq!(Store::open(dir.path(), terms()).unwrap_err(), Error::Locked);
    store.close().await;
    assert_eq!(store.commit(record(1, "late")).await, Err(Error::Closed));
    assert_eq!(store.operation(&hash(1)).await, Err(Error::Closed));
    rusqlite::Connection::open(database(&dir)).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(Store::open(dir.path(), terms()).unwrap_err(), Error::TooNew { found: 99, known: 4 });
    std::fs::write(database(&dir), "not a database, but as long as the head of one would be".repeat(100))
        .unwrap();
    assert!(matches!(Store::open(dir.path(), terms()).unwrap_err(), Error::Corrupt(_)));
}

#[tokio::test]
async fn what_is_too_much_is_refused_or_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    let too_large = record(1, &"x".repeat(BATCH_BYTES_MAX));
    assert!(matches!(store.commit(too_large).await, Err(Error::TooLarge { .. })));
    let blocker = rusqlite::Connection::open(database(&dir)).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let rows = u64::try_from(limits::LAZY_ROWS_MAX).unwrap();
    for number in 0..rows + 10 {
        store.append_audit_lazily(audit(&format!("aud_{number}"), ""));
    }
    blocker.execute_batch("ROLLBACK").unwrap();
    store.close().await;
    let store_again = Store::open(dir.path(), terms()).unwrap();
    let kept = store_again.audit_after(0, usize::MAX).await.unwrap().len();
    assert_eq!(u64::try_from(kept).unwrap() + store.lazily_dropped(), rows + 10);
}

#[tokio::test]
async fn what_a_failed_commit_replaces_is_unknown_until_the_database_was_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    let state = |value| vec![Setting { name: "cursor".to_owned(), value: vec![value] }];
    let entries = || vec![Entry { kind: "token", id: "1".to_owned(), body: None }];
    store.commit(Batch { state: state(1), ..record(1, "first") }).await.unwrap();
    let away = dir.path().join("away");
    std::fs::rename(database(&dir), &away).unwrap();
    on_writer(&store, move |writer| {
        writer.doubt(&[Batch { state: state(2), entries: entries(), ..record(1, "second") }], Vec::new());
        writer.disconnect(Error::Io("the disk is gone".to_owned()));
    })
    .await;
    assert_eq!(store.operation(&hash(1)).await, Err(Error::Uncertain));
    assert_eq!(store.listed(None, 9).await, Err(Error::Uncertain));
    assert_eq!(store.setting("cursor").await, Err(Error::Uncertain));
    assert_eq!(store.entries("token").await, Err(Error::Uncertain));
    assert!(store.erase_audit(1).await.unwrap_err().certain_not_written());
    std::fs::rename(&away, database(&dir)).unwrap();
    assert_eq!(known(&store, 1).await, Some(b"first".to_vec()));
    assert_eq!(store.setting("cursor").await, Ok(Some(vec![1])));
    assert_eq!(store.listed(None, 9).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_database_that_is_gone_or_empty_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    store.close().await;
    let kept = std::fs::read(database(&dir)).unwrap();
    for found in [None, Some(&[][..])] {
        std::fs::remove_file(database(&dir)).unwrap();
        if let Some(bytes) = found {
            std::fs::write(database(&dir), bytes).unwrap();
        }
        let error = Store::open(dir.path(), terms()).unwrap_err();
        assert!(matches!(error, Error::Vanished { .. }), "{error}");
        std::fs::write(database(&dir), &kept).unwrap();
    }
    let store = Store::open(dir.path(), terms()).unwrap();
    assert_eq!(known(&store, 1).await, Some(b"first".to_vec()));
    store.close().await;
    std::fs::remove_file(database(&dir)).unwrap();
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    drop(Store::open(dir.path(), terms()).unwrap());
}
