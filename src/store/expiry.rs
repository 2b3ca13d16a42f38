//! How events leave the log, and later their marks; in bounded steps between the commits. When they may is decided above.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::commit::{Failure, counter, set_counter, stored, transact};
use super::limits::{EXPIRE_BYTES_MAX, EXPIRE_ROWS_MAX};
use super::query;
use super::rows::StoredEvent;
use super::terms::Terms;
use crate::domain::clock::UnixMillis;
use crate::domain::planted;

/// Counter of the time up to which events that were received have left the log; 0 while none has.
pub(super) const LEFT_MS: &str = "events_left_ms";

/// What is to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    /// Events up to this position; the newest of all stays, since it tells where the log goes on.
    pub(super) events_up_to: i64,
    /// Marks of events that have left the log and were received before this.
    pub(super) marks_before_ms: UnixMillis,
}

/// One step: removes the next events and marks, and answers whether there are more.
pub(super) fn step(
    connection: &mut Connection,
    terms: Terms,
    newest: i64,
    expiry: Expiry,
) -> Result<bool, Failure> {
    transact(connection, |transaction| {
        let events = remove_events(transaction, terms, expiry.events_up_to.min(newest - 1))?;
        let marks = remove_marks(transaction, expiry.marks_before_ms)?;
        planted::point("expire-rows");
        Ok(events || marks)
    })
}

/// Removes the oldest events with all they are found by but their marks.
fn remove_events(transaction: &Transaction<'_>, terms: Terms, up_to: i64) -> rusqlite::Result<bool> {
    let (mut left_ms, mut reached, mut bytes) = (counter(transaction, LEFT_MS)?, 0, 0_usize);
    let mut entries = BTreeSet::new();
    let mut rows = 0_usize;
    while rows < EXPIRE_ROWS_MAX
        && bytes < EXPIRE_BYTES_MAX
        && let Some((position, StoredEvent { event, .. })) = next_up_to(transaction, reached, up_to)?
    {
        entries.extend(terms.entries_of_event(position, &event));
        left_ms = left_ms.max(event.received_ms);
        (reached, rows, bytes) = (position, rows + 1, bytes.saturating_add(event.bytes()));
    }
    if rows == 0 {
        return Ok(false);
    }
    Terms::forget(transaction, entries)?;
    transaction
        .prepare_cached(
            "INSERT INTO spent_events SELECT position, id, received_ms FROM events WHERE position <= ?1",
        )?
        .execute([reached])?;
    transaction.prepare_cached("DELETE FROM events WHERE position <= ?1")?.execute([reached])?;
    set_counter(transaction, LEFT_MS, left_ms)?;
    Ok(true)
}

fn next_up_to(
    connection: &Connection,
    after: i64,
    up_to: i64,
) -> rusqlite::Result<Option<(i64, StoredEvent)>> {
    let next = query::next_event(connection, after)?.map(|row| (stored(row.position), row));
    Ok(next.filter(|(position, _)| *position <= up_to))
}

/// Removes the marks of the events that left the log first, as far as all of them are old enough.
fn remove_marks(transaction: &Transaction<'_>, before_ms: UnixMillis) -> rusqlite::Result<bool> {
    let mut removed = false;
    for _ in 0..EXPIRE_ROWS_MAX {
        let first = transaction
            .prepare_cached("SELECT position, id, received_ms FROM spent_events ORDER BY position LIMIT 1")?
            .query_row([], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, UnixMillis>(2)?))
            })
            .optional()?;
        let Some((position, id, _)) = first.filter(|(.., received_ms)| *received_ms < before_ms) else {
            break;
        };
        transaction
            .prepare_cached("DELETE FROM event_marks WHERE id = ?1 AND position = ?2")?
            .execute(params![id, position])?;
        transaction.prepare_cached("DELETE FROM spent_events WHERE position = ?1")?.execute([position])?;
        removed = true;
    }
    Ok(removed)
}
