//! What is read from the database, one function per question. Nothing is written here.

use rusqlite::{Connection, OptionalExtension as _, Row, Rows, params};

use super::commit::{number, stored};
use super::expiry::LEFT_MS;
use super::rows::{
    AuditRow, EventSpan, JournalRow, Movement, NewEvent, StoredAudit, StoredEvent, StoredMovement,
    StoredOperation,
};
use super::tail::{INDEXED, Listed};
use crate::domain::clock::UnixMillis;
use crate::domain::limits::EVENT_DISORDER_MS_MAX;
use crate::domain::operation::OperationHash;

/// What the log of events had held before one of them.
const BYTES_BEFORE: &str =
    "total_bytes - octet_length(json) - octet_length(cause) - octet_length(id) - octet_length(kind)";

/// The indexed record of an operation, index and journal seen at one moment.
pub(super) fn operation(connection: &Connection, hash: &OperationHash) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached(
            "SELECT record FROM operation_index JOIN journal USING (seq) WHERE operation_index.operation = ?1",
        )?
        .query_row([hash.0], |row| row.get(0))
        .optional()
}

/// The operations with their records, which are read where only the index can tell; without those that have left the
/// list meanwhile.
pub(super) fn listed(connection: &Connection, page: Vec<Listed>) -> rusqlite::Result<Vec<StoredOperation>> {
    let mut indexed = connection.prepare_cached(
        "SELECT record FROM operation_index JOIN journal USING (seq)
         WHERE operation_index.operation = ?1 AND listed",
    )?;
    let mut found = Vec::with_capacity(page.len());
    for (hash, record) in page {
        let record = match record {
            Some(record) => Some(record),
            None => indexed.query_row([hash.0], |row| row.get(0)).optional()?,
        };
        found.extend(record.map(|record| StoredOperation { hash, record }));
    }
    Ok(found)
}

/// Records after `sequence` that are not listed, at most `count_max`: of the rows that the index knows, each that is
/// still there is its operation's newest.
pub(super) fn unlisted_after(
    connection: &Connection,
    sequence: u64,
    count_max: usize,
) -> rusqlite::Result<Vec<JournalRow>> {
    connection
        .prepare_cached(
            "SELECT seq, operation, record FROM journal
             WHERE seq > ?1 AND seq <= (SELECT value FROM counters WHERE name = ?2) AND NOT listed
             ORDER BY seq LIMIT ?3",
        )?
        .query_map(params![stored(sequence), INDEXED, limit(count_max)], |row| {
            let hash = OperationHash(row.get(1)?);
            Ok(JournalRow { sequence: number(row.get(0)?), hash, record: row.get(2)? })
        })?
        .collect()
}

/// The entries of a kind, in the order of their ids.
pub(super) fn entries(connection: &Connection, kind: &str) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    connection
        .prepare_cached("SELECT id, body FROM entries WHERE kind = ?1 ORDER BY id")?
        .query_map([kind], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Movements in the order of their times, after one of `at_ms` at the place `sequence`; at most `count_max`.
pub(super) fn movements_after(
    connection: &Connection,
    (at_ms, sequence): (UnixMillis, u64),
    count_max: usize,
) -> rusqlite::Result<Vec<StoredMovement>> {
    connection
        .prepare_cached("SELECT * FROM movements WHERE (at_ms, seq) > (?1, ?2) ORDER BY at_ms, seq LIMIT ?3")?
        .query_map(params![at_ms, stored(sequence), limit(count_max)], movement_of)?
        .collect()
}

/// The movements of a group.
pub(super) fn movements_of(
    connection: &Connection,
    group: &[u8; 32],
) -> rusqlite::Result<Vec<StoredMovement>> {
    connection
        .prepare_cached("SELECT * FROM movements WHERE grouped = ?1 ORDER BY seq")?
        .query_map([group], movement_of)?
        .collect()
}

fn movement_of(row: &Row<'_>) -> rusqlite::Result<StoredMovement> {
    let movement = Movement { at_ms: row.get("at_ms")?, group: row.get("grouped")?, body: row.get("body")? };
    Ok(StoredMovement { sequence: number(row.get("seq")?), movement })
}

/// Events after `position` up to `head`, at most `count_max`, and none beyond `bytes_max` but the first.
pub(super) fn events_after(
    connection: &Connection,
    position: u64,
    head: u64,
    count_max: usize,
    bytes_max: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM events WHERE position > ?1 AND position <= ?2 ORDER BY position LIMIT ?3",
    )?;
    within(statement.query(params![stored(position), stored(head), limit(count_max)])?, bytes_max)
}

/// Events before `position`, the latest first, with the limits of [`events_after`].
pub(super) fn events_before(
    connection: &Connection,
    position: u64,
    count_max: usize,
    bytes_max: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut statement = connection
        .prepare_cached("SELECT * FROM events WHERE position < ?1 ORDER BY position DESC LIMIT ?2")?;
    within(statement.query(params![stored(position), limit(count_max)])?, bytes_max)
}

fn within(mut rows: Rows<'_>, bytes_max: usize) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut events = Vec::new();
    let mut bytes = 0_usize;
    while let Some(row) = rows.next()? {
        let event = event_of(row)?;
        bytes = bytes.saturating_add(event.event.json.len());
        if bytes > bytes_max && !events.is_empty() {
            break;
        }
        events.push(event);
    }
    Ok(events)
}

/// The event with this id, if it stands at or below `head`.
pub(super) fn event(connection: &Connection, id: &str, head: u64) -> rusqlite::Result<Option<StoredEvent>> {
    connection
        .prepare_cached(
            "SELECT events.* FROM event_marks JOIN events USING (position)
             WHERE event_marks.id = ?1 AND position <= ?2",
        )?
        .query_row(params![id, stored(head)], event_of)
        .optional()
}

/// The first event after a position.
pub(super) fn next_event(connection: &Connection, position: i64) -> rusqlite::Result<Option<StoredEvent>> {
    connection
        .prepare_cached("SELECT * FROM events WHERE position > ?1 ORDER BY position LIMIT 1")?
        .query_row([position], event_of)
        .optional()
}

/// The event at this position.
pub(super) fn event_at(connection: &Connection, position: i64) -> rusqlite::Result<Option<StoredEvent>> {
    connection
        .prepare_cached("SELECT * FROM events WHERE position = ?1")?
        .query_row([position], event_of)
        .optional()
}

/// Position of the oldest event kept.
pub(super) fn events_oldest(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let oldest: Option<i64> =
        connection.prepare_cached("SELECT min(position) FROM events")?.query_row([], |row| row.get(0))?;
    Ok(oldest.map(number))
}

/// From where to where the log reaches; `None` while it has had no event. The time of the newest is that of the newest
/// which is not of the source `made_here`.
pub(super) fn event_span(connection: &Connection, made_here: i32) -> rusqlite::Result<Option<EventSpan>> {
    connection
        .prepare_cached(&format!(
            "SELECT oldest.position, oldest.received_ms, newest.position, newest.received_ms,
                    newest.total_bytes - oldest.bytes_before,
                    (SELECT created_s FROM events WHERE source <> ?2 ORDER BY position DESC LIMIT 1),
                    (SELECT value FROM counters WHERE name = ?1)
             FROM (SELECT *, {BYTES_BEFORE} AS bytes_before FROM events ORDER BY position LIMIT 1) AS oldest,
                  (SELECT * FROM events ORDER BY position DESC LIMIT 1) AS newest"
        ))?
        .query_row(params![LEFT_MS, made_here], |row| {
            Ok(EventSpan {
                oldest: number(row.get(0)?),
                oldest_received_ms: row.get(1)?,
                newest: number(row.get(2)?),
                newest_received_ms: row.get(3)?,
                bytes: number(row.get(4)?),
                newest_created_s: row.get(5)?,
                left_ms: Some(row.get(6)?).filter(|left_ms| *left_ms != 0),
            })
        })
        .optional()
}

/// Position of the first event received at or after `time`, or the one after `head`.
pub(super) fn position_received_at(
    connection: &Connection,
    time: UnixMillis,
    head: u64,
) -> rusqlite::Result<u64> {
    // Deliveries that come at once may be stored in another order than they were received in.
    let early = time.saturating_sub(EVENT_DISORDER_MS_MAX);
    let sql = "SELECT received_ms FROM events WHERE position = ?1";
    let from = first_position(connection, sql, head, |at| at >= early)?;
    let first = connection
        .prepare_cached(
            "SELECT position FROM events WHERE position BETWEEN ?1 AND ?2 AND received_ms >= ?3
             ORDER BY position LIMIT 1",
        )?
        .query_row(params![stored(from), stored(head), time], |row| row.get(0))
        .optional()?;
    Ok(first.map_or_else(|| head.saturating_add(1), number))
}

/// First position from which on the events up to `head` take no more than `bytes`, or the one after `head`.
pub(super) fn position_within(connection: &Connection, bytes: u64, head: u64) -> rusqlite::Result<u64> {
    let all: i64 = connection
        .prepare_cached("SELECT total_bytes FROM events WHERE position = ?1")?
        .query_row([stored(head)], |row| row.get(0))
        .optional()?
        .unwrap_or_default();
    let sql = format!("SELECT {BYTES_BEFORE} FROM events WHERE position = ?1");
    first_position(connection, &sql, head, |before| all.saturating_sub(before) <= stored(bytes))
}

/// The first position whose value in `sql` is such that `reached` holds, as it then does for all that follow; the one
/// after `head` if there is none. The positions are contiguous, so halving finds it without an index.
fn first_position(
    connection: &Connection,
    sql: &str,
    head: u64,
    reached: impl Fn(i64) -> bool,
) -> rusqlite::Result<u64> {
    let mut value = connection.prepare_cached(sql)?;
    let after_head = head.saturating_add(1);
    let mut low = events_oldest(connection)?.unwrap_or(after_head);
    let mut high = after_head;
    while low < high {
        let middle = low.midpoint(high);
        let at: Option<i64> = value.query_row([stored(middle)], |row| row.get(0)).optional()?;
        // An event that retention has taken meanwhile is before all that are left.
        if at.is_some_and(&reached) {
            high = middle;
        } else {
            low = middle.saturating_add(1);
        }
    }
    Ok(low)
}

/// Audit records after `sequence` up to `head`, at most `count_max`.
pub(super) fn audit_after(
    connection: &Connection,
    sequence: u64,
    head: u64,
    count_max: usize,
) -> rusqlite::Result<Vec<StoredAudit>> {
    connection
        .prepare_cached("SELECT * FROM audit WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3")?
        .query_map(params![stored(sequence), stored(head), limit(count_max)], audit_of)?
        .collect()
}

/// Audit records before `sequence`, the latest first, at most `count_max`.
pub(super) fn audit_before(
    connection: &Connection,
    sequence: u64,
    count_max: usize,
) -> rusqlite::Result<Vec<StoredAudit>> {
    connection
        .prepare_cached("SELECT * FROM audit WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2")?
        .query_map(params![stored(sequence), limit(count_max)], audit_of)?
        .collect()
}

/// The first audit record after a sequence.
pub(super) fn next_audit(connection: &Connection, sequence: i64) -> rusqlite::Result<Option<StoredAudit>> {
    connection
        .prepare_cached("SELECT * FROM audit WHERE seq > ?1 ORDER BY seq LIMIT 1")?
        .query_row([sequence], audit_of)
        .optional()
}

/// One audit record.
pub(super) fn audit(connection: &Connection, sequence: i64) -> rusqlite::Result<Option<StoredAudit>> {
    connection
        .prepare_cached("SELECT * FROM audit WHERE seq = ?1")?
        .query_row([sequence], audit_of)
        .optional()
}

fn audit_of(row: &Row<'_>) -> rusqlite::Result<StoredAudit> {
    let record = AuditRow { id: row.get("id")?, leaf: row.get("leaf")?, record: row.get("record")? };
    Ok(StoredAudit { sequence: number(row.get("seq")?), row: record })
}

/// The value of a setting of either kind.
pub(super) fn setting(connection: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached(
            "SELECT value FROM settings WHERE name = ?1 UNION ALL SELECT value FROM state WHERE name = ?1",
        )?
        .query_row([name], |row| row.get(0))
        .optional()
}

fn limit(count_max: usize) -> i64 {
    i64::try_from(count_max).unwrap_or(i64::MAX)
}

fn event_of(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let event = NewEvent {
        id: row.get("id")?,
        kind: row.get("kind")?,
        created_s: row.get("created_s")?,
        received_ms: row.get("received_ms")?,
        account: row.get("account")?,
        livemode: row.get("livemode")?,
        api_version: row.get("api_version")?,
        source: row.get("source")?,
        json: row.get("json")?,
        cause: row.get("cause")?,
    };
    Ok(StoredEvent { position: number(row.get("position")?), event })
}
