//! Tables, their migrations and how a connection is set up. Rows are written and read elsewhere.

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::files;
use super::limits::{BUSY_WAIT_MAX, CACHE_KIB, CHECKPOINT_PAGES, WAL_BYTES_KEPT};
use crate::domain::planted;

/// Forward only: a shipped entry never changes, and its place in the list is the schema's number.
///
/// `journal` and `audit` only grow at their end; the random keys of `operation_index` are written in sorted lots away
/// from the callers, since a random index on their path costs more than half of the throughput. `event_marks` outlives
/// the events, so that a late redelivery is still known.
const MIGRATIONS: &[Migration] = &[
    |transaction| transaction.execute_batch(FIRST),
    |transaction| {
        transaction.execute_batch(SECOND)?;
        fill_leaves(transaction)
    },
    |transaction| transaction.execute_batch(THIRD),
    |transaction| {
        transaction.execute_batch(FOURTH)?;
        add_bytes_up(transaction)
    },
];

pub(super) type Migration = fn(&Transaction<'_>) -> rusqlite::Result<()>;

pub(super) const FIRST: &str = "
    CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO counters VALUES ('journal_indexed', 0), ('openings', 0);
    CREATE TABLE journal (seq INTEGER PRIMARY KEY, operation BLOB NOT NULL, record BLOB NOT NULL) STRICT;
    CREATE TABLE operation_index (operation BLOB PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE audit (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, record BLOB NOT NULL) STRICT;
    CREATE TABLE events (
        position INTEGER PRIMARY KEY, id TEXT NOT NULL, kind TEXT NOT NULL, created_s INTEGER NOT NULL,
        received_ms INTEGER NOT NULL, account TEXT NOT NULL, livemode INTEGER NOT NULL, api_version TEXT NOT NULL,
        source INTEGER NOT NULL, json TEXT NOT NULL
    ) STRICT;
    CREATE TABLE event_marks (id TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Operations written before there was a flag are listed, since whether they are unresolved cannot be told here.
///
/// `terms` and `listed_operations` are written behind the callers, like `operation_index`. A bucket is a stretch of a
/// log, so that what is added together lies together, however long the log has become.
const SECOND: &str = "
    ALTER TABLE journal ADD COLUMN listed INTEGER NOT NULL DEFAULT 1;
    CREATE TABLE listed_operations (operation BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
    INSERT INTO listed_operations SELECT operation FROM operation_index;
    ALTER TABLE audit ADD COLUMN leaf BLOB NOT NULL DEFAULT x'';
    CREATE TABLE terms (
        log INTEGER, bucket INTEGER, term INTEGER, seq INTEGER, PRIMARY KEY (log, bucket, term, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE state (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO counters VALUES
        ('terms_version', 0), ('terms_audit', 0), ('terms_events', 0), ('audit_erased', 0);
";

/// `movements` only grows, at a rate of money; the random keys of its second index are paid for by those changes alone.
const THIRD: &str = "
    CREATE TABLE entries (
        kind TEXT, id TEXT, body BLOB NOT NULL, PRIMARY KEY (kind, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE movements (
        seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, grouped BLOB NOT NULL, body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX movements_at ON movements (at_ms);
    CREATE INDEX movements_grouped ON movements (grouped);
";

/// `total_bytes` of an event is what the log has held up to it: the difference of two is the size of what lies between, so
/// that neither appending nor asking counts anything. `spent_events` tells, in the order of the log, how long the marks of
/// events have to stay that have left it; thus no index of times is written on the callers' path.
const FOURTH: &str = "
    ALTER TABLE events ADD COLUMN cause BLOB NOT NULL DEFAULT x'';
    ALTER TABLE events ADD COLUMN total_bytes INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE spent_events (
        position INTEGER PRIMARY KEY, id TEXT NOT NULL, received_ms INTEGER NOT NULL
    ) STRICT;
    INSERT INTO counters VALUES ('events_left_ms', 0);
";

/// Tells the events from before sizes were counted how much the log had held up to them.
fn add_bytes_up(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut rows =
        transaction.prepare("SELECT position, octet_length(json) FROM events ORDER BY position")?;
    let mut rows = rows.query([])?;
    let mut fill = transaction.prepare("UPDATE events SET total_bytes = ?2 WHERE position = ?1")?;
    let mut total = 0_i64;
    while let Some(row) = rows.next()? {
        total = total.saturating_add(row.get(1)?);
        fill.execute((row.get::<_, i64>(0)?, total))?;
    }
    Ok(())
}

/// Gives the audit records from before leaves were stored the leaf of RFC 6962, section 2.1.
fn fill_leaves(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut rows = transaction.prepare("SELECT seq, record FROM audit")?;
    let mut rows = rows.query([])?;
    let mut fill = transaction.prepare("UPDATE audit SET leaf = ?2 WHERE seq = ?1")?;
    while let Some(row) = rows.next()? {
        let record: Vec<u8> = row.get(1)?;
        let leaf: [u8; 32] = Sha256::new().chain_update([0]).chain_update(record).finalize().into();
        fill.execute((row.get::<_, i64>(0)?, leaf))?;
    }
    Ok(())
}

/// Opens the database for writing, migrates it and makes sure that all it shows is on the disk.
pub(super) fn open_writer(path: &Path) -> Result<Connection, Error> {
    if !planted::active("recovery-unsynced") {
        files::write_anew(&log_of(path))?;
    }
    let mut connection = Connection::open_with_flags(
        path,
        // Never created here: a database that vanished must not come back empty.
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_WAIT_MAX)?;
    checkpoint_on_close(&connection, false)?;
    keep_log(&connection)?;
    // With less than FULL a power cut loses rows that were acknowledged (sqlite.org/pragma.html#pragma_synchronous).
    let synchronous =
        ["off", "normal"].into_iter().find(|less| planted::active(&format!("synchronous-{less}")));
    connection.pragma_update(None, "synchronous", synchronous.unwrap_or("full"))?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    // ON rather than FAST: a long request body lies in pages of its own, which FAST frees without clearing them.
    // Rows are deleted in the background only, so no caller pays for it.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))?;
    name_log(&connection, path)?;
    migrate(&mut connection)?;
    make_sure(&connection)?;
    checkpoint_on_close(&connection, true)?;
    if planted::active("lost-dedupe-mark") {
        let newest = "SELECT max(position) FROM events";
        connection.execute(&format!("DELETE FROM event_marks WHERE position = ({newest})"), [])?;
    }
    Ok(connection)
}

/// Opens the database for reading, beside the writer.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT_MAX)?;
    Ok(connection)
}

/// Whether the last connection that closes copies the write-ahead log into the database. It must not once a sync has failed:
/// what was written before is taken for written from then on, though it may not be, so the copy could be torn by a power cut
/// with no log to mend it.
pub(super) fn checkpoint_on_close(connection: &Connection, does: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !does).map(drop)
}

/// Has the database keep a write-ahead log. It names the mode before it has written it, and tells only at the end of the
/// statement that this failed and that it goes on without.
fn keep_log(connection: &Connection) -> Result<(), Error> {
    let mut statement = connection.prepare("PRAGMA journal_mode = wal")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row.get_ref(0)?.as_str().unwrap_or_default() != "wal" {
            return Err(Error::Io("its file system does not carry a write-ahead log".to_owned()));
        }
    }
    Ok(())
}

/// Where SQLite keeps the write-ahead log of a database.
fn log_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// When SQLite cannot sync the name of a new write-ahead log it does not tell (`unixSync` in its os_unix.c), and a power cut
/// would take the log away, or bring back the one that it replaced. So it is done here, before anything is written to it.
fn name_log(connection: &Connection, path: &Path) -> Result<(), Error> {
    // The first read makes the log.
    connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))?;
    path.parent()
        .map_or(Ok(()), files::sync_names)
        .map_err(|error| Error::Io(format!("the data folder cannot be synced: {error}")))
}

/// The number of the schema that this build writes.
fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The migrations that the database has not seen.
pub(super) fn missing(connection: &Connection) -> Result<&'static [Migration], Error> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = known();
    let done = usize::try_from(found).map_err(|_| Error::Corrupt(format!("it has schema {found}")))?;
    MIGRATIONS.get(done..).ok_or(Error::TooNew { found, known })
}

fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let missing = missing(&transaction)?;
    for migration in missing {
        migration(&transaction)?;
    }
    if !missing.is_empty() {
        transaction.pragma_update(None, "user_version", known())?;
    }
    Ok(transaction.commit()?)
}

/// After a crash or a failed commit the write-ahead log may show rows that never reached the disk, or hide rows that a
/// restart would find. Copying it into the database writes and syncs all that is shown anew; the commit after it starts
/// the log over, which puts out what is hidden. It also proves that the disk takes writes.
fn make_sure(connection: &Connection) -> Result<(), Error> {
    if planted::active("recovery-unsynced") {
        return Ok(());
    }
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        return Err(Error::Busy);
    }
    connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'openings'", [])?;
    Ok(())
}
