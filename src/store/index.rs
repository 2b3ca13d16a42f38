//! Moves the journal's tail into the index of operations and the list, and deletes the rows that newer ones replace.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::commit::{Failure, counter, set_counter, transact};
use super::tail::INDEXED;
use crate::domain::planted;

/// Indexes the next `rows_max` rows that the index does not know, the oldest first, and answers up to which row it knows now.
///
/// The keys go in sorted, so that neighbours share their pages, and a replaced record leaves the database with its
/// request body.
pub(super) fn pass(connection: &mut Connection, rows_max: usize) -> Result<i64, Failure> {
    transact(connection, |transaction| {
        // Not from memory: a pass that seemed to fail may have happened, and the same rows must not be moved twice.
        let indexed = counter(transaction, INDEXED)?;
        let rows = rows_above(transaction, indexed, rows_max)?;
        let reached = rows.last().map_or(indexed, |row| row.seq);
        let mut newest = BTreeMap::new();
        let mut replaced: Vec<i64> = rows
            .into_iter()
            .filter_map(|row| newest.insert(row.operation, (row.seq, row.listed)))
            .map(|(seq, _)| seq)
            .collect();
        for (operation, (seq, listed)) in newest {
            replaced.extend(point_at(transaction, &operation, seq)?);
            list(transaction, &operation, listed)?;
        }
        for seq in replaced {
            transaction.prepare_cached("DELETE FROM journal WHERE seq = ?1")?.execute([seq])?;
        }
        planted::point("index-rows");
        set_counter(transaction, INDEXED, reached)?;
        Ok(reached)
    })
}

struct Unindexed {
    seq: i64,
    operation: [u8; 32],
    listed: bool,
}

fn rows_above(connection: &Connection, indexed: i64, rows_max: usize) -> rusqlite::Result<Vec<Unindexed>> {
    connection
        .prepare_cached("SELECT seq, operation, listed FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
        .query_map(params![indexed, i64::try_from(rows_max).unwrap_or(i64::MAX)], |row| {
            Ok(Unindexed { seq: row.get(0)?, operation: row.get(1)?, listed: row.get(2)? })
        })?
        .collect()
}

/// Makes `seq` the operation's newest row and answers the one before it.
fn point_at(connection: &Connection, operation: &[u8; 32], seq: i64) -> rusqlite::Result<Option<i64>> {
    let before = connection
        .prepare_cached("SELECT seq FROM operation_index WHERE operation = ?1")?
        .query_row([operation], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached(
            "INSERT INTO operation_index (operation, seq) VALUES (?1, ?2)
             ON CONFLICT (operation) DO UPDATE SET seq = excluded.seq",
        )?
        .execute(params![operation, seq])?;
    Ok(before)
}

/// Puts the operation on the list or takes it off.
fn list(connection: &Connection, operation: &[u8; 32], listed: bool) -> rusqlite::Result<()> {
    let sql = if listed {
        "INSERT INTO listed_operations (operation) VALUES (?1) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM listed_operations WHERE operation = ?1"
    };
    connection.prepare_cached(sql)?.execute([operation]).map(drop)
}
