//! The records that are compared: what the sandbox did, what the gateway wrote, what the callers were told. Reading only.

use std::path::Path;

use serde::Deserialize;
use tollgate::proto::v1::Operation as LedgerEntry;
use tollgate::sandbox::Control;
use tollgate::store::Store;

use super::load::Entry;

/// Rows read at a time.
const PAGE_ROWS: usize = 1_000;
const PAGE_BYTES: usize = 64 * 1024 * 1024;

/// One effect in the sandbox's book.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Effect {
    pub(super) n: u64,
    pub(super) at: i64,
    pub(super) path: String,
    pub(super) idempotency_key: Option<String>,
    /// The stamp in its metadata.
    pub(super) operation: Option<String>,
    pub(super) object: Option<String>,
    pub(super) amount: Option<i64>,
}

/// The sandbox's book.
#[derive(Debug, Deserialize)]
pub(super) struct Book {
    pub(super) effects: Vec<Effect>,
    pub(super) acknowledged: Vec<String>,
}

/// One audit record, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Audit {
    pub(super) at_ms: i64,
    pub(super) phase: String,
    pub(super) rpc: String,
    pub(super) order_id: Option<String>,
    pub(super) operation_id: Option<String>,
    /// The operation's hash, which is also the stamp.
    pub(super) operation: Option<String>,
    pub(super) idempotency_key: Option<String>,
}

/// Everything that is known at the end.
pub(super) struct Records<'a> {
    pub(super) history: &'a [Entry],
    /// In the order of the history.
    pub(super) ledger: Vec<Option<LedgerEntry>>,
    pub(super) book: Book,
    pub(super) audit: Vec<Audit>,
    /// Ids in the event log, in its order.
    pub(super) events: Vec<String>,
    /// Operations whose outcome no resend can tell, at most: the sandbox kept a 500 for so many.
    pub(super) unknown_max: usize,
}

impl Book {
    pub(super) fn read(control: &Control) -> Self {
        serde_json::from_value(control.book()).unwrap()
    }
}

/// What a gateway that is gone left in its data folder: audit records and event ids.
pub(super) async fn stored(data: &Path) -> (Vec<Audit>, Vec<String>) {
    let store = Store::open(data).unwrap();
    let mut audit = Vec::new();
    let mut sequence = 0;
    loop {
        let rows = store.audit_after(sequence, PAGE_ROWS).await.unwrap();
        let Some(last) = rows.last() else { break };
        sequence = last.sequence;
        audit.extend(rows.iter().map(|row| serde_json::from_slice::<Audit>(&row.row.record).unwrap()));
    }
    let mut events = Vec::new();
    let mut position = 0;
    loop {
        let rows = store.events_after(position, PAGE_ROWS, PAGE_BYTES).await.unwrap();
        let Some(last) = rows.last() else { break };
        position = last.position;
        events.extend(rows.into_iter().map(|row| row.event.id));
    }
    store.close().await;
    (audit, events)
}
