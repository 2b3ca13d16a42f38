//! The store as its callers see it, on a real disk, through reopenings and failures.

use super::*;

fn hash(number: u8) -> OperationHash {
    OperationHash([number; 32])
}

fn record(number: u8, text: &str) -> Batch {
    Batch {
        operations: vec![OperationRow { hash: hash(number), record: text.as_bytes().to_vec() }],
        audit: vec![AuditRow { id: format!("aud_{text}"), record: text.as_bytes().to_vec() }],
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
    }
}

fn events(events: Vec<NewEvent>) -> Batch {
    Batch { events, ..Batch::default() }
}

#[tokio::test]
async fn a_committed_batch_reads_back_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    store.commit(record(1, "second")).await.unwrap();
    let receipt = store.commit(events(vec![event("evt_1", 10)])).await.unwrap();
    assert_eq!(receipt.events, [Appended { position: 1, duplicate: false }]);
    let (log_id, secret) = (store.log_id(), store.secret("audit").await.unwrap());
    for reopened in [false, true] {
        let store = if reopened {
            store.close().await;
            Store::open(dir.path()).unwrap()
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

/// Runs SQL on the writer's own connection, where the limits of the disk can be played.
async fn on_writer(store: &Store, sql: &str) {
    let (done, ran) = oneshot::channel();
    store.jobs.send(Job::Run(sql.to_owned(), done)).unwrap();
    ran.await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_writes_certainly_serves_reads_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.commit(record(1, "first")).await.unwrap();
    on_writer(&store, "PRAGMA max_page_count = 1").await;
    let large = "x".repeat(100_000);
    for _ in 0..2 {
        assert_eq!(store.commit(record(2, &large)).await, Err(Error::Full));
        assert_eq!(store.operation(&hash(2)).await, Ok(None));
        assert_eq!(store.operation(&hash(1)).await, Ok(Some(b"first".to_vec())));
    }
    on_writer(&store, "PRAGMA max_page_count = 1000000").await;
    store.commit(record(2, &large)).await.unwrap();
    assert_eq!(store.operation(&hash(2)).await, Ok(Some(large.into_bytes())));
}
