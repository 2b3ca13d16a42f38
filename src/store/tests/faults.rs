//! Each law of the store that a planted fault breaks: it holds without the fault, and is seen to be broken with it.

use super::*;

/// Makes a fault on the writer's thread, for the rest of the store's life.
async fn plant_on_writer(store: &Store, fault: Option<&'static str>) {
    if let Some(fault) = fault {
        on_writer(store, move |_| std::mem::forget(planted::plant(fault))).await;
    }
}

/// An event that comes again after the gateway died is still known.
async fn a_redelivered_event_is_known(fault: Option<&str>) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    store.commit(events(vec![event("evt_1", 1)])).await.unwrap();
    store.close().await;
    let held = fault.map(planted::plant);
    let store = Store::open(dir.path(), terms()).unwrap();
    drop(held);
    positions(&store.commit(events(vec![event("evt_1", 2)])).await.unwrap()) == [(1, true)]
}

#[tokio::test]
async fn a_lost_dedupe_mark_is_caught() {
    assert!(a_redelivered_event_is_known(None).await);
    assert!(!a_redelivered_event_is_known(Some("lost-dedupe-mark")).await);
}

/// What a gateway leaves that dies right after a commit has the operation and its audit record.
async fn an_operation_and_its_audit_record_are_one(fault: Option<&'static str>) -> bool {
    let (dir, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(dir.path(), terms()).unwrap();
    plant_on_writer(&store, fault).await;
    // The writer waits until both jobs are there, and so does nothing between them.
    let (open, gate) = mpsc::channel::<()>();
    let (from, to) = (dir.path().to_owned(), left.path().to_owned());
    let held = on_writer(&store, move |_| _ = gate.recv());
    let copied = on_writer(&store, move |_| {
        for file in ["tollgate.db", "tollgate.db-wal"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    });
    let opened = async { drop(open) };
    let ((), committed, (), ()) = tokio::join!(held, store.commit(record(1, "first")), copied, opened);
    committed.unwrap();
    let left = Store::open(left.path(), terms()).unwrap();
    assert_eq!(left.operation(&hash(1)).await, Ok(Some(b"first".to_vec())));
    left.audit_after(0, 9).await.unwrap().len() == 1
}

#[tokio::test]
async fn an_audit_record_in_a_transaction_of_its_own_is_caught() {
    assert!(an_operation_and_its_audit_record_are_one(None).await);
    assert!(!an_operation_and_its_audit_record_are_one(Some("audit-apart")).await);
}

/// A caller whose commit failed at its last step is not told that it certainly did not happen.
async fn a_failed_commit_is_uncertain(fault: Option<&'static str>) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), terms()).unwrap();
    plant_on_writer(&store, fault).await;
    sql_on_writer(&store, TRAP_AT_COMMIT).await;
    !store.commit(record(1, "first")).await.unwrap_err().certain_not_written()
}

#[tokio::test]
async fn a_failed_commit_that_is_taken_for_a_rollback_is_caught() {
    assert!(a_failed_commit_is_uncertain(None).await);
    assert!(!a_failed_commit_is_uncertain(Some("uncertain-as-failed")).await);
}
