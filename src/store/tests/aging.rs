//! What becomes of rows with time: erasure, a new build's schema and a new build's terms.

use super::*;

async fn found(store: &Store, term: &str) -> Vec<u64> {
    store.audit_with(term, 0, 100, usize::MAX).await.unwrap().iter().map(|stored| stored.sequence).collect()
}

/// Entries of the index of terms.
async fn entries(store: &Store) -> i64 {
    let (answer, answered) = oneshot::channel();
    on_writer(store, |writer| {
        writer.index_terms(1000);
        let (connection, _) = writer.connected().unwrap();
        answer
            .send(connection.query_row("SELECT count(*) FROM terms", [], |row| row.get(0)).unwrap())
            .unwrap();
    })
    .await;
    answered.await.unwrap()
}

#[tokio::test]
async fn erased_records_leave_their_ids_and_leaves_and_nothing_else() {
    const SECRET: &str = "customer-4711-opened-a-dispute";
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    let rows: Vec<_> = (1..=600).map(|number| audit(&format!("aud_{number}"), SECRET)).collect();
    store.commit(Batch { audit: rows.clone(), ..Batch::default() }).await.unwrap();
    store.commit(Batch { audit: vec![audit("aud_kept", "kept")], ..Batch::default() }).await.unwrap();
    assert_eq!(entries(&store).await, 601);
    store.erase_audit(600).await.unwrap();
    store.erase_audit(5).await.unwrap();
    assert_eq!((found(&store, SECRET).await, found(&store, "kept").await), (vec![], vec![601]));
    assert_eq!(entries(&store).await, 1);
    for (erased, row) in store.audit_after(0, 600).await.unwrap().into_iter().zip(rows) {
        assert_eq!(erased.row, AuditRow { record: Vec::new(), ..row });
    }
    store.close().await;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
    }
    let store = Store::open(dir.path(), terms()).unwrap();
    store.erase_audit(u64::MAX).await.unwrap();
    store.commit(Batch { audit: vec![audit("aud_new", "new")], ..Batch::default() }).await.unwrap();
    assert_eq!((*store.audit_head().borrow(), found(&store, "new").await), (602, vec![602]));
}

#[tokio::test]
async fn an_erasure_in_the_middle_of_trouble_is_finished_when_it_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    let rows = (1..=300).map(|number| audit(&format!("aud_{number}"), "old")).collect();
    store.commit(Batch { audit: rows, ..Batch::default() }).await.unwrap();
    sql_on_writer(
        &store,
        "CREATE TEMP TRIGGER trap BEFORE UPDATE ON audit WHEN new.seq > 256 BEGIN SELECT raise(ABORT, 'trap'); END;",
    )
    .await;
    let error = store.erase_audit(300).await.unwrap_err();
    assert!(error.certain_not_written(), "{error:?}");
    assert_eq!(found(&store, "old").await, (257..=300).collect::<Vec<_>>());
    // The new connection knows no trap.
    store.erase_audit(300).await.unwrap();
    assert!(found(&store, "old").await.is_empty());
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_taken_over_whole() {
    let dir = tempfile::tempdir().unwrap();
    let database = rusqlite::Connection::open(database(&dir)).unwrap();
    database.execute_batch(schema::FIRST).unwrap();
    for (seq, operation, record) in [(2, hash(1), "indexed"), (3, hash(2), "above the index")] {
        let row = rusqlite::params![seq, operation.0, record.as_bytes()];
        database.execute("INSERT INTO journal VALUES (?1, ?2, ?3)", row).unwrap();
    }
    database.execute("INSERT INTO operation_index VALUES (?1, 2)", [hash(1).0]).unwrap();
    database
        .execute_batch(
            "UPDATE counters SET value = 2 WHERE name = 'journal_indexed';
             INSERT INTO audit VALUES (1, 'aud_old', CAST('' AS BLOB));
             INSERT INTO settings VALUES ('log_id', x'0000000000000007');
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(database);
    let store = Store::open(dir.path(), terms()).unwrap();
    assert_eq!(store.log_id(), 7);
    let listed = [(1, "indexed"), (2, "above the index")]
        .map(|(number, record)| StoredOperation { hash: hash(number), record: record.as_bytes().to_vec() });
    assert_eq!(store.listed(None, 10).await.unwrap(), listed, "who cannot tell lists all");
    store.commit(record(1, "settled")).await.unwrap();
    assert_eq!(store.listed(None, 10).await.unwrap(), listed[1..]);
    // The hash of the tree's empty leaf, `printf '\0' | sha256sum`.
    let leaf = store.audit_after(0, 1).await.unwrap()[0].row.leaf;
    assert_eq!(leaf[..4], [0x6e, 0x34, 0x0b, 0x9c]);
}

#[tokio::test]
async fn a_store_that_finds_nothing_leaves_the_index_to_those_that_do() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    assert_eq!(entries(&store).await, 1);
    store.close().await;
    let store = Store::open(dir.path(), Terms::default()).unwrap();
    store.commit(record(1, "second")).await.unwrap();
    assert_eq!((found(&store, "first").await, entries(&store).await), (vec![], 1));
    store.close().await;
    let store = Store::open(dir.path(), terms()).unwrap();
    assert_eq!((found(&store, "first").await, found(&store, "second").await), (vec![1], vec![2]));
    assert_eq!(entries(&store).await, 2);
}

#[tokio::test]
async fn rows_are_found_before_they_are_indexed_and_are_indexed_without_being_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    let mut batch = record(1, "early");
    batch.events.push(event("evt_1", 1));
    store.commit(batch).await.unwrap();
    assert_eq!(found(&store, "early").await, [1]);
    assert_eq!(store.events_with("evt_1", 0, 9, usize::MAX).await.unwrap().len(), 1);
    let reached = async || {
        let (answer, answered) = oneshot::channel();
        on_writer(&store, |writer| answer.send(writer.terms_behind()).unwrap()).await;
        (answered.await.unwrap() == 0).then_some(())
    };
    eventually(reached).await;
    assert_eq!(found(&store, "early").await, [1]);
    assert_eq!(store.events_with("evt_1", 0, 9, usize::MAX).await.unwrap().len(), 1);
}
