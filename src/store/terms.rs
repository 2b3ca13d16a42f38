//! What rows are found by: the index of terms, filled behind the callers, and the search that is exact without it.
//! Which terms a row has is decided by the rooms that own the rows.

use std::collections::BTreeSet;

use rusqlite::{Connection, Transaction, params};
use sha2::{Digest as _, Sha256};

use super::commit::{Failure, Last, counter, set_counter, stored, transact};
use super::limits::{TERMS_BUCKET_ROWS, TERMS_BYTES_MAX};
use super::query;
use super::rows::{NewEvent, StoredAudit, StoredEvent};
use crate::domain::planted;

const VERSION: &str = "terms_version";
const ERASED: &str = "audit_erased";

/// What the rows of each log may be found by. The functions are pure and do not panic: the writer calls them.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Raised whenever a function finds other terms than before: the index is then made anew. 0 finds nothing, and
    /// leaves the index of others alone.
    pub version: u32,
    /// The terms of an audit record.
    pub audit: fn(&[u8]) -> Vec<String>,
    /// The terms of an event.
    pub event: fn(&NewEvent) -> Vec<String>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { version: 0, audit: |_| Vec::new(), event: |_| Vec::new() }
    }
}

/// How far the index of terms reaches in each log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) audit: i64,
    pub(super) events: i64,
}

/// One of the logs that are searched by terms; the number is its name in the index.
#[derive(Clone, Copy, Debug)]
enum Log {
    Audit = 1,
    Events = 2,
}

/// Which rows are asked for: those beyond `after` and up to `head`, within the limits of one answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) after: i64,
    pub(super) head: i64,
    /// Most rows.
    pub(super) count_max: usize,
    /// Bytes that the rows behind the first do not exceed.
    pub(super) bytes_max: usize,
}

/// Rows found so far.
struct Page<T> {
    rows: Vec<T>,
    bytes: usize,
    full: bool,
}

/// A row of the index, in the index's own order.
pub(super) type Entry = (i64, i64, i64, i64);

impl Log {
    /// Name of the counter of the highest row that the index knows.
    fn indexed(self) -> &'static str {
        match self {
            Self::Audit => "terms_audit",
            Self::Events => "terms_events",
        }
    }

    fn entry(self, seq: i64, term: &str) -> Entry {
        (self as i64, bucket(seq), hash(term), seq)
    }
}

impl Reached {
    /// What the database says; the index is emptied first if it was made for other terms.
    pub(super) fn load(connection: &mut Connection, terms: Terms) -> Result<Self, Failure> {
        let version = i64::from(terms.version);
        if version != 0 && counter(connection, VERSION)? != version {
            // The index holds hashes alone, and writing zeros over all of it would take as long as making it.
            connection.pragma_update(None, "secure_delete", false)?;
            transact(connection, |transaction| {
                transaction.execute("DELETE FROM terms", [])?;
                set_counter(transaction, Log::Audit.indexed(), 0)?;
                set_counter(transaction, Log::Events.indexed(), 0)?;
                set_counter(transaction, VERSION, version)
            })?;
            connection.pragma_update(None, "secure_delete", true)?;
        }
        Ok(Self {
            audit: counter(connection, Log::Audit.indexed())?,
            events: counter(connection, Log::Events.indexed())?,
        })
    }

    /// Rows of `last` that the index does not know yet.
    pub(super) fn behind(self, last: Last) -> i64 {
        (last.audit - self.audit) + (last.position - self.events)
    }
}

impl Terms {
    /// Indexes the next rows of each log, at most `rows_max` of each, and answers how far the index reaches now.
    pub(super) fn pass(self, connection: &mut Connection, rows_max: usize) -> Result<Reached, Failure> {
        transact(connection, |transaction| {
            let audit = advance(transaction, Log::Audit, rows_max, |after| {
                let row = query::next_audit(transaction, after)?;
                Ok(row.map(|row| (stored(row.sequence), row.row.bytes(), self.of_audit(&row))))
            })?;
            let events = advance(transaction, Log::Events, rows_max, |after| {
                let row = query::next_event(transaction, after)?;
                Ok(row.map(|row| (stored(row.position), row.event.json.len(), (self.event)(&row.event))))
            })?;
            planted::point("terms-rows");
            Ok(Reached { audit, events })
        })
    }

    /// Audit records with this term.
    pub(super) fn audit_with(
        self,
        connection: &Connection,
        term: &str,
        window: Window,
    ) -> rusqlite::Result<Vec<StoredAudit>> {
        find(connection, Log::Audit, term, window, |seq| {
            let row = query::audit(connection, seq)?.filter(|row| contains(&self.of_audit(row), term));
            Ok(row.map(|row| (row.row.bytes(), row)))
        })
    }

    /// Events with this term.
    pub(super) fn events_with(
        self,
        connection: &Connection,
        term: &str,
        window: Window,
    ) -> rusqlite::Result<Vec<StoredEvent>> {
        find(connection, Log::Events, term, window, |seq| {
            let row = query::event_at(connection, seq)?;
            let row = row.filter(|row| contains(&(self.event)(&row.event), term));
            Ok(row.map(|row| (row.event.json.len(), row)))
        })
    }

    /// Events with this term up to the head of the window, the latest first.
    pub(super) fn events_with_before(
        self,
        connection: &Connection,
        term: &str,
        window: Window,
    ) -> rusqlite::Result<Vec<StoredEvent>> {
        find_back(connection, Log::Events, term, window, |seq| {
            let row = query::event_at(connection, seq)?;
            let row = row.filter(|row| contains(&(self.event)(&row.event), term));
            Ok(row.map(|row| (row.event.json.len(), row)))
        })
    }

    /// Erases the next audit records and their terms, at most `rows_max` records, none beyond `up_to`; answers up to
    /// which record all are erased.
    pub(super) fn erase_audit(
        self,
        connection: &mut Connection,
        up_to: i64,
        rows_max: i64,
    ) -> Result<i64, Failure> {
        transact(connection, |transaction| {
            let erased = counter(transaction, ERASED)?;
            let reached = up_to.min(erased + rows_max).max(erased);
            let mut entries = BTreeSet::new();
            for seq in erased + 1..=reached {
                if let Some(row) = query::audit(transaction, seq)? {
                    entries.extend(self.of_audit(&row).iter().map(|term| Log::Audit.entry(seq, term)));
                }
            }
            Self::forget(transaction, entries)?;
            transaction
                .prepare_cached("UPDATE audit SET record = x'' WHERE seq > ?1 AND seq <= ?2")?
                .execute([erased, reached])?;
            set_counter(transaction, ERASED, reached)?;
            planted::point("erase-rows");
            Ok(reached)
        })
    }

    /// What the index may have of an event at this position.
    pub(super) fn entries_of_event(self, position: i64, event: &NewEvent) -> impl Iterator<Item = Entry> {
        (self.event)(event).into_iter().map(move |term| Log::Events.entry(position, &term))
    }

    /// Takes entries out of the index, where it has them.
    pub(super) fn forget(transaction: &Transaction<'_>, entries: BTreeSet<Entry>) -> rusqlite::Result<()> {
        let mut delete = transaction
            .prepare_cached("DELETE FROM terms WHERE log = ?1 AND bucket = ?2 AND term = ?3 AND seq = ?4")?;
        entries.into_iter().try_for_each(|entry| delete.execute(entry).map(drop))
    }

    /// An erased record has none.
    fn of_audit(self, row: &StoredAudit) -> Vec<String> {
        if row.row.record.is_empty() { Vec::new() } else { (self.audit)(&row.row.record) }
    }
}

/// Indexes rows of one log within the limits; `next` answers the place, bytes and terms of the row after a place. The
/// entries go in sorted, so that neighbours share their pages.
fn advance(
    transaction: &Transaction<'_>,
    log: Log,
    rows_max: usize,
    next: impl Fn(i64) -> rusqlite::Result<Option<(i64, usize, Vec<String>)>>,
) -> rusqlite::Result<i64> {
    // Not from memory: a pass that seemed to fail may have happened.
    let mut reached = counter(transaction, log.indexed())?;
    let (mut bytes, mut entries) = (0_usize, BTreeSet::new());
    for _ in 0..rows_max {
        let Some((seq, row_bytes, terms)) = next(reached)? else { break };
        entries.extend(terms.iter().map(|term| log.entry(seq, term)));
        reached = seq;
        bytes = bytes.saturating_add(row_bytes);
        if bytes >= TERMS_BYTES_MAX {
            break;
        }
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO terms (log, bucket, term, seq) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?;
    for entry in entries {
        insert.execute(entry)?;
    }
    set_counter(transaction, log.indexed(), reached)?;
    Ok(reached)
}

/// Rows of one log in their order: what the index points at, bucket by bucket, and then all that it does not know yet.
/// `read` looks at the row itself, since two terms may share a hash, and tells its bytes.
fn find<T>(
    connection: &Connection,
    log: Log,
    term: &str,
    window: Window,
    read: impl Fn(i64) -> rusqlite::Result<Option<(usize, T)>>,
) -> rusqlite::Result<Vec<T>> {
    let Window { after, head, count_max, .. } = window;
    if after >= head || count_max == 0 {
        return Ok(Vec::new());
    }
    // One moment for the index and the rows beyond it.
    let moment = connection.unchecked_transaction()?;
    let indexed = counter(&moment, log.indexed())?.min(head);
    let mut page = Page { rows: Vec::new(), bytes: 0, full: false };
    let mut pointed = moment.prepare_cached(
        "SELECT seq FROM terms WHERE log = ?1 AND bucket = ?2 AND term = ?3 AND seq > ?4 AND seq <= ?5 ORDER BY seq",
    )?;
    for bucket in bucket(after + 1)..=bucket(indexed) {
        let mut rows = pointed.query(params![log as i64, bucket, hash(term), after, indexed])?;
        while !page.full
            && let Some(row) = rows.next()?
        {
            page.take(read(row.get(0)?)?, window);
        }
    }
    for seq in after.max(indexed) + 1..=head {
        if page.full {
            break;
        }
        page.take(read(seq)?, window);
    }
    Ok(page.rows)
}

/// As [`find`], against the order of the log: first all rows that the index does not know yet, then bucket by bucket.
fn find_back<T>(
    connection: &Connection,
    log: Log,
    term: &str,
    window: Window,
    read: impl Fn(i64) -> rusqlite::Result<Option<(usize, T)>>,
) -> rusqlite::Result<Vec<T>> {
    let Window { after, head, count_max, .. } = window;
    if after >= head || count_max == 0 {
        return Ok(Vec::new());
    }
    let moment = connection.unchecked_transaction()?;
    let indexed = counter(&moment, log.indexed())?.min(head);
    let mut page = Page { rows: Vec::new(), bytes: 0, full: false };
    for seq in (after.max(indexed) + 1..=head).rev() {
        if page.full {
            break;
        }
        page.take(read(seq)?, window);
    }
    let mut pointed = moment.prepare_cached(
        "SELECT seq FROM terms WHERE log = ?1 AND bucket = ?2 AND term = ?3 AND seq > ?4 AND seq <= ?5 ORDER BY seq DESC",
    )?;
    for bucket in (bucket(after + 1)..=bucket(indexed)).rev() {
        let mut rows = pointed.query(params![log as i64, bucket, hash(term), after, indexed])?;
        while !page.full
            && let Some(row) = rows.next()?
        {
            page.take(read(row.get(0)?)?, window);
        }
    }
    Ok(page.rows)
}

impl<T> Page<T> {
    /// Adds a row, or finds the page full; the first row comes however large it is.
    fn take(&mut self, row: Option<(usize, T)>, window: Window) {
        let Some((bytes, row)) = row else { return };
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > window.bytes_max && !self.rows.is_empty() {
            self.full = true;
            return;
        }
        self.rows.push(row);
        self.full = self.rows.len() >= window.count_max;
    }
}

fn contains(terms: &[String], term: &str) -> bool {
    terms.iter().any(|found| found == term)
}

fn bucket(seq: i64) -> i64 {
    seq / TERMS_BUCKET_ROWS
}

/// The same in every build, since it is stored.
fn hash(term: &str) -> i64 {
    let digest: [u8; 32] = Sha256::digest(term).into();
    digest.first_chunk().copied().map(i64::from_be_bytes).unwrap_or_default()
}
