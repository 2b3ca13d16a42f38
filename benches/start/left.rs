//! What an earlier gateway left: operations that were sent and whose outcome nobody knows.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tollgate::contract::{Host, Verb};
use tollgate::domain::clock::Clock;
use tollgate::domain::fingerprint::{Fingerprint, HashKey};
use tollgate::domain::operation::{Mode, Operation};
use tollgate::ledger::{Record, State};
use tollgate::store::{Batch, OperationRow, Store, Terms};
use tollgate::stripe::{AccountHeader, Body, Outgoing, STRIPE_VERSION};

/// Operations that become durable together.
const BATCH: usize = 500;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Leaves so many operations open in the folder, and one after them that needs nothing; all are in the index.
pub(crate) async fn open(data: &Path, count: usize, clock: &dyn Clock) {
    let store = Store::open(data, Terms::default()).unwrap();
    let mut rows = (0..count).map(|number| row(number, unknown(number), clock));
    loop {
        let operations: Vec<OperationRow> = rows.by_ref().take(BATCH).collect();
        if operations.is_empty() {
            break;
        }
        store.commit(Batch { operations, ..Batch::default() }).await.unwrap();
    }
    let operations = vec![row(count, State::Lapsed, clock)];
    store.commit(Batch { operations, ..Batch::default() }).await.unwrap();
    // The last is found through the index only.
    while store.unlisted_after(0, 1).await.unwrap().is_empty() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    store.close().await;
}

/// Copies a folder without folders in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn row(number: usize, state: State, clock: &dyn Clock) -> OperationRow {
    let now = clock.now();
    let operation = Operation {
        namespace: "shop".to_owned(),
        account: "acct_1Sandbox".to_owned(),
        mode: Mode::Test,
        rpc: "refunds.create".to_owned(),
        order_id: format!("order-{number}"),
        operation_id: String::new(),
    };
    let (key, amount) = (HashKey::new([1; 32]), number.to_string());
    let params = [("payment_intent", "pi_1"), ("amount", amount.as_str())];
    let fingerprint = Fingerprint::of(&key, "/v1/refunds", "/v1/refunds", params);
    let hash = operation.hash();
    let record = Record::new(operation, 1, fingerprint, (now.wall_ms, now), state);
    OperationRow { hash, record: record.encode().unwrap(), listed: record.unresolved() }
}

fn unknown(number: usize) -> State {
    let outgoing = Outgoing {
        verb: Verb::Post,
        host: Host::Api,
        template: "/v1/refunds".to_owned(),
        path: "/v1/refunds".to_owned(),
        query: String::new(),
        body: Body::Form(format!(
            "payment_intent=pi_{number}&amount={number}&metadata[order]=order-{number}"
        )),
        idempotency_key: Some(format!("tg1-{number:064x}")),
        version: STRIPE_VERSION.to_owned(),
        account: AccountHeader::None,
    };
    State::Unknown { outgoing, conflict: false }
}
