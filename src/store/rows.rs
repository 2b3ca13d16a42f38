//! What goes into the store and comes out of it, as plain rows; their contents mean nothing here.

use crate::domain::clock::UnixMillis;
use crate::domain::operation::OperationHash;

/// Rows that become durable together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// New records of operations; each replaces the earlier record of its operation.
    pub operations: Vec<OperationRow>,
    /// Audit records, kept in this order.
    pub audit: Vec<AuditRow>,
    /// Events for the log; those it already has are answered as duplicates.
    pub events: Vec<NewEvent>,
    /// Settings that are written once and then stand.
    pub settings: Vec<Setting>,
    /// Settings that replace their earlier values; a name is of one kind only.
    pub state: Vec<Setting>,
    /// Entries that replace their earlier bodies, or end.
    pub entries: Vec<Entry>,
    /// Movements, kept for good.
    pub movements: Vec<Movement>,
}

/// One of the few things of a kind that a gateway is told while it runs, such as a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its kind.
    pub kind: &'static str,
    /// Its name among those of its kind.
    pub id: String,
    /// What it is from now on; `None` ends it.
    pub body: Option<Vec<u8>>,
}

/// What one write of an operation's record added to sums, or took from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The time that it counts for.
    pub at_ms: UnixMillis,
    /// What else it is found by.
    pub group: [u8; 32],
    /// Its contents.
    pub body: Vec<u8>,
}

/// A movement with its place; a later one of the same time has a higher place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMovement {
    /// Its place.
    pub sequence: u64,
    /// The movement.
    pub movement: Movement,
}

/// The record of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRow {
    /// The operation.
    pub hash: OperationHash,
    /// Its state, encoded by the ledger.
    pub record: Vec<u8>,
    /// Whether [`Store::listed`](super::Store::listed) shows the operation while this is its newest record.
    pub listed: bool,
}

/// The newest record of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOperation {
    /// The operation.
    pub hash: OperationHash,
    /// Its state, encoded by the ledger.
    pub record: Vec<u8>,
}

/// The newest record of an operation, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// Its place in the journal; a later record has a higher one.
    pub sequence: u64,
    /// The operation.
    pub hash: OperationHash,
    /// Its state, encoded by the ledger.
    pub record: Vec<u8>,
}

/// One audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its id, `aud_...`.
    pub id: String,
    /// What stands for the record in proofs, whether its bytes are still kept or not.
    pub leaf: [u8; 32],
    /// Its canonical bytes; empty once they are erased.
    pub record: Vec<u8>,
}

/// An event as it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// Stripe's id, `evt_...`; an event with an id that the log has is a duplicate.
    pub id: String,
    /// Its type, such as `refund.created`.
    pub kind: String,
    /// When Stripe made it, in seconds since the Unix epoch.
    pub created_s: i64,
    /// When it arrived here.
    pub received_ms: UnixMillis,
    /// The account it belongs to, `acct_...`.
    pub account: String,
    /// Live or test mode.
    pub livemode: bool,
    /// Stripe version its body is written in; empty where the event names none.
    pub api_version: String,
    /// How it came in, as the contract numbers it.
    pub source: i32,
    /// The body, byte for byte.
    pub json: String,
    /// What caused it and what else the feed noted of it, encoded by the feed; empty where there is nothing to say.
    pub cause: Vec<u8>,
}

/// A setting of this data folder.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value, which may be secret.
    pub value: Vec<u8>,
}

/// What became of a batch that is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// One for each event of the batch, in its order.
    pub events: Vec<Appended>,
}

/// Where an event stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its position; the first event of a log has 1.
    pub position: u64,
    /// Whether the log had it before, at that position.
    pub duplicate: bool,
}

/// An event of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its position.
    pub position: u64,
    /// The event.
    pub event: NewEvent,
}

/// The log of events from its oldest to its newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSpan {
    /// Position of the oldest event.
    pub oldest: u64,
    /// When that was received.
    pub oldest_received_ms: UnixMillis,
    /// Position of the newest event.
    pub newest: u64,
    /// When that was received.
    pub newest_received_ms: UnixMillis,
    /// When the newest event was made that did not come in the way asked about, in seconds since the Unix epoch; `None`
    /// while there is none.
    pub newest_created_s: Option<i64>,
    /// Bytes of all that lies between, and of both.
    pub bytes: u64,
    /// Every event that has left the log was received then or before; `None` while none has.
    pub left_ms: Option<UnixMillis>,
}

/// An audit record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAudit {
    /// Its place, contiguous from 1.
    pub sequence: u64,
    /// The record.
    pub row: AuditRow,
}

impl Batch {
    /// Bytes of the rows' variable parts, which is what the limits count.
    pub(super) fn bytes(&self) -> usize {
        let operations = self.operations.iter().map(|row| row.record.len());
        let audit = self.audit.iter().map(AuditRow::bytes);
        let events = self.events.iter().map(NewEvent::bytes);
        let settings = self.settings.iter().chain(&self.state).map(|setting| setting.value.len());
        let entries =
            self.entries.iter().map(|entry| entry.id.len() + entry.body.as_ref().map_or(0, Vec::len));
        let movements = self.movements.iter().map(|movement| movement.body.len() + movement.group.len());
        operations.chain(audit).chain(events).chain(settings).chain(entries).chain(movements).sum()
    }
}

impl NewEvent {
    /// Bytes of the row's variable parts.
    pub(super) fn bytes(&self) -> usize {
        self.json.len() + self.cause.len() + self.id.len() + self.kind.len()
    }
}

impl AuditRow {
    /// Bytes of the row.
    pub(super) fn bytes(&self) -> usize {
        self.id.len() + self.leaf.len() + self.record.len()
    }
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Setting").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The body may be secret.
impl std::fmt::Debug for Entry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, id, .. } = self;
        out.debug_struct("Entry").field("kind", kind).field("id", id).finish_non_exhaustive()
    }
}
