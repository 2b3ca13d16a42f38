//! One durable transaction for many batches, and what its failure means. It holds no state between transactions.

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::error::Error;
use super::rows::{Appended, AuditRow, Batch, Entry, Movement, NewEvent, OperationRow, Receipt, Setting};
use crate::domain::planted;

/// The highest number given out in each log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) journal: i64,
    pub(super) audit: i64,
    pub(super) position: i64,
    /// Bytes that the log of events has ever held.
    pub(super) event_bytes: i64,
}

/// Where a transaction failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Before its commit: none of it is stored or will be.
    Before(rusqlite::Error),
    /// At its commit: all of it may be stored, or nothing.
    AtCommit(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Before(error)
    }
}

impl Last {
    /// What the database holds. The newest journal row of all is never superseded, so its number is not given out anew.
    pub(super) fn load(connection: &Connection) -> Result<Self, Error> {
        let highest = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        Ok(Self {
            journal: highest("SELECT ifnull(max(seq), 0) FROM journal")?,
            audit: highest("SELECT ifnull(max(seq), 0) FROM audit")?,
            position: highest("SELECT ifnull(max(position), 0) FROM events")?,
            event_bytes: highest(
                "SELECT ifnull((SELECT total_bytes FROM events ORDER BY position DESC LIMIT 1), 0)",
            )?,
        })
    }
}

/// Runs `work` in one transaction; when this returns `Ok`, it is durable.
pub(super) fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    transaction.commit().map_err(Failure::AtCommit)?;
    Ok(done)
}

/// Makes the batches and `riding` durable together; answers a receipt for each batch and the numbers given out.
pub(super) fn write(
    connection: &mut Connection,
    last: Last,
    batches: &[Batch],
    riding: &[AuditRow],
) -> Result<(Vec<Receipt>, Last), Failure> {
    transact(connection, |transaction| {
        let mut last = last;
        let mut receipts = Vec::with_capacity(batches.len());
        for batch in batches {
            append_operations(transaction, &mut last.journal, &batch.operations)?;
            append_audit(transaction, &mut last.audit, &batch.audit)?;
            keep_settings(transaction, &batch.settings)?;
            replace_settings(transaction, &batch.state)?;
            replace_entries(transaction, &batch.entries)?;
            append_movements(transaction, &batch.movements)?;
            let append = |event| append_event(transaction, &mut last, event);
            receipts.push(Receipt { events: batch.events.iter().map(append).collect::<Result<_, _>>()? });
        }
        append_audit(transaction, &mut last.audit, riding)?;
        planted::point("write-rows");
        Ok((receipts, last))
    })
}

fn append_operations(connection: &Connection, seq: &mut i64, rows: &[OperationRow]) -> rusqlite::Result<()> {
    for row in rows {
        *seq += 1;
        connection
            .prepare_cached("INSERT INTO journal (seq, operation, record, listed) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![*seq, row.hash.0, row.record, row.listed])?;
    }
    Ok(())
}

fn append_audit(connection: &Connection, seq: &mut i64, rows: &[AuditRow]) -> rusqlite::Result<()> {
    for row in rows {
        *seq += 1;
        connection
            .prepare_cached("INSERT INTO audit (seq, id, leaf, record) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![*seq, row.id, row.leaf, row.record])?;
    }
    Ok(())
}

fn keep_settings(connection: &Connection, settings: &[Setting]) -> rusqlite::Result<()> {
    for setting in settings {
        connection
            .prepare_cached("INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute(params![setting.name, setting.value])?;
    }
    Ok(())
}

pub(super) fn replace_settings(connection: &Connection, settings: &[Setting]) -> rusqlite::Result<()> {
    for setting in settings {
        connection
            .prepare_cached(
                "INSERT INTO state (name, value) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![setting.name, setting.value])?;
    }
    Ok(())
}

fn replace_entries(connection: &Connection, entries: &[Entry]) -> rusqlite::Result<()> {
    for Entry { kind, id, body } in entries {
        match body {
            Some(body) => connection
                .prepare_cached(
                    "INSERT INTO entries (kind, id, body) VALUES (?1, ?2, ?3)
                     ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                )?
                .execute(params![kind, id, body])?,
            None => connection
                .prepare_cached("DELETE FROM entries WHERE kind = ?1 AND id = ?2")?
                .execute(params![kind, id])?,
        };
    }
    Ok(())
}

fn append_movements(connection: &Connection, movements: &[Movement]) -> rusqlite::Result<()> {
    for movement in movements {
        connection
            .prepare_cached("INSERT INTO movements (at_ms, grouped, body) VALUES (?1, ?2, ?3)")?
            .execute(params![movement.at_ms, movement.group, movement.body])?;
    }
    Ok(())
}

/// The mark and the event stand or fall together: a mark alone would lose the event for good.
fn append_event(connection: &Connection, last: &mut Last, event: &NewEvent) -> rusqlite::Result<Appended> {
    let next = last.position + 1;
    let marked = connection
        .prepare_cached("INSERT INTO event_marks (id, position) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![event.id, next])?;
    if marked == 0 {
        let first = connection
            .prepare_cached("SELECT position FROM event_marks WHERE id = ?1")?
            .query_row([&event.id], |row| row.get(0))?;
        return Ok(Appended { position: number(first), duplicate: true });
    }
    let total = last.event_bytes.saturating_add(i64::try_from(event.bytes()).unwrap_or(i64::MAX));
    connection
        .prepare_cached(
            "INSERT INTO events (position, id, kind, created_s, received_ms, account, livemode, api_version, source, json,
                                 cause, total_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            next,
            event.id,
            event.kind,
            event.created_s,
            event.received_ms,
            event.account,
            event.livemode,
            event.api_version,
            event.source,
            event.json,
            event.cause,
            total,
        ])?;
    // A log with a gap is what the proofs have to notice.
    let gap = i64::from(planted::active("position-gap") && next % 50 == 0);
    (last.position, last.event_bytes) = (next + gap, total);
    Ok(Appended { position: number(next), duplicate: false })
}

/// The value of a counter of the database.
pub(super) fn counter(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT value FROM counters WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
        .map(Option::unwrap_or_default)
}

/// Moves a counter of the database.
pub(super) fn set_counter(connection: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE counters SET value = ?2 WHERE name = ?1")?
        .execute(params![name, value])
        .map(drop)
}

/// SQLite counts in signed numbers; none of ours is negative.
pub(super) fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or_default()
}

/// The other way round; what SQLite cannot hold is beyond every row.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
