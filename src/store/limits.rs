//! The limits of the store, by name and unit.

use std::time::Duration;

/// Batches that may wait for the writer; a further caller waits its turn without taking memory here.
pub(super) const QUEUE_BATCHES_MAX: usize = 1024;
/// Batches that share one transaction, so that none waits long for the others' rows.
pub(super) const GROUP_BATCHES_MAX: usize = 256;
/// Bytes that share one transaction, beyond which no further batch joins.
pub(super) const GROUP_BYTES_MAX: usize = 8 << 20;
/// Largest single batch, in bytes of its rows: the largest answer of Stripe fits, escaped inside its record.
pub(super) const BATCH_BYTES_MAX: usize = 32 << 20;

/// How long another program may hold the database before a write or read is refused.
pub(super) const BUSY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Pause between attempts to use the database again after a failure.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Audit rows of reads that may wait for the next commit.
pub(super) const LAZY_ROWS_MAX: usize = 4096;
/// Bytes of audit rows of reads that may wait for the next commit.
pub(super) const LAZY_BYTES_MAX: usize = 4 << 20;
/// Longest wait of an audit row of a read for a commit to ride along with.
pub(super) const LAZY_WAIT_MAX: Duration = Duration::from_millis(100);

/// Journal rows that one index pass moves; the callers of the next commit wait for it.
pub(super) const INDEX_ROWS_MAX: usize = 512;
/// Bytes of records in the tail that call for an index pass before its rows do.
pub(super) const TAIL_BYTES_MAX: usize = 8 << 20;
/// Time after which new rows are indexed although they are few, unless callers wait; it also erases superseded records.
pub(super) const INDEX_WAIT: Duration = Duration::from_millis(200);

/// Rows of each log that one pass of the index of terms takes; the callers of the next commit wait for it.
pub(super) const TERMS_ROWS_MAX: usize = 512;
/// Bytes of rows after which a pass of the index of terms ends.
pub(super) const TERMS_BYTES_MAX: usize = 1 << 20;
/// Rows beyond the index of terms that call for a pass although callers wait; a search reads as many one by one.
pub(super) const TERMS_BEHIND_ROWS_MAX: i64 = 1 << 16;
/// Rows of a log whose terms lie together, and for which a search asks once; few in tests, which have few rows.
pub(super) const TERMS_BUCKET_ROWS: i64 = if cfg!(test) { 8 } else { 1 << 16 };
/// Audit records that one transaction erases.
pub(super) const ERASE_ROWS_MAX: i64 = 256;

/// Events, and marks of events, that one transaction removes.
pub(super) const EXPIRE_ROWS_MAX: usize = 256;
/// Bytes of events beyond which such a transaction takes no further one.
pub(super) const EXPIRE_BYTES_MAX: usize = 1 << 20;

/// Connections that read what calls and subscribers wait for.
pub(super) const READERS_MAX: usize = 4;
/// Connections that read the audit log and the lists, which may take long.
pub(super) const SEARCHERS_MAX: usize = 2;
/// Pages of write-ahead log after which SQLite copies them into the database, inside the commit that crosses it.
pub(super) const CHECKPOINT_PAGES: u32 = 2048;
/// Bytes that the write-ahead log keeps on disk once it is empty.
pub(super) const WAL_BYTES_KEPT: u32 = 16 << 20;
/// Page cache of one connection, in KiB.
pub(super) const CACHE_KIB: u32 = 8192;
