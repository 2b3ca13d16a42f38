//! The records that are compared: what the sandbox did, what the gateway wrote, what the callers were told. Reading only.

use std::path::Path;

use serde::Deserialize;
use tollgate::events::Envelope;
use tollgate::proto::v1::Operation as LedgerEntry;
use tollgate::sandbox::Control;
use tollgate::store::{Store, Terms};

use super::load::Entry;
use crate::audit::verify_left_behind;

/// Rows read at a time.
const PAGE_ROWS: usize = 1_000;
const PAGE_BYTES: usize = 64 * 1024 * 1024;

/// One effect in the sandbox's book.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Effect {
    pub(crate) n: u64,
    pub(crate) at: i64,
    pub(crate) path: String,
    pub(crate) idempotency_key: Option<String>,
    /// The stamp in its metadata.
    pub(crate) operation: Option<String>,
    pub(crate) object: Option<String>,
    pub(crate) amount: Option<i64>,
}

/// The sandbox's book.
#[derive(Debug, Deserialize)]
pub(crate) struct Book {
    pub(crate) effects: Vec<Effect>,
    pub(crate) acknowledged: Vec<String>,
}

/// One audit record, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Audit {
    pub(crate) at_ms: i64,
    pub(crate) phase: String,
    pub(crate) caller: String,
    pub(crate) rpc: String,
    pub(crate) order_id: Option<String>,
    pub(crate) operation_id: Option<String>,
    /// The operation's hash, which is also the stamp.
    pub(crate) operation: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    /// The trace of the call.
    pub(crate) trace_id: Option<String>,
    /// The rule that decided.
    pub(crate) decision: Option<String>,
    pub(crate) note: Option<String>,
    /// How many calls it stands for, where it is a sum.
    pub(crate) count: Option<u64>,
}

/// One event in the log.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) position: u64,
    pub(crate) id: String,
    /// Its type.
    pub(crate) kind: String,
    /// Id of the object that it is about; empty without one.
    pub(crate) object: String,
}

/// Everything that is known at the end.
pub(crate) struct Records<'a> {
    pub(crate) history: &'a [Entry],
    /// In the order of the history.
    pub(crate) ledger: Vec<Option<LedgerEntry>>,
    pub(crate) book: Book,
    pub(crate) audit: Vec<Audit>,
    /// Ids in the event log, in its order.
    pub(crate) events: Vec<String>,
    /// Operations whose outcome no resend can tell, at most: the sandbox kept a 500 for so many.
    pub(crate) unknown_max: usize,
}

impl Book {
    pub(crate) fn read(control: &Control) -> Self {
        serde_json::from_value(control.book()).unwrap()
    }
}

/// What a gateway that is gone left in its data folder: audit records and events.
pub(crate) async fn stored(data: &Path) -> (Vec<Audit>, Vec<Logged>) {
    let store = Store::open(data, Terms::default()).unwrap();
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
        events.extend(rows.into_iter().map(|row| Logged {
            position: row.position,
            object: Envelope::parse(&row.event.json).unwrap().object_id,
            id: row.event.id,
            kind: row.event.kind,
        }));
    }
    verify_left_behind(&store, data).await;
    store.close().await;
    (audit, events)
}
