//! Audit rows that nobody waits for: a bounded buffer between the callers and the writer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::limits::{LAZY_BYTES_MAX, LAZY_ROWS_MAX};
use super::rows::AuditRow;

/// The rows that wait for the next commit.
#[derive(Debug, Default)]
pub(super) struct Lazy {
    waiting: Mutex<Waiting>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    rows: Vec<AuditRow>,
    bytes: usize,
}

impl Lazy {
    /// Takes a row, or counts it as dropped when there is no room; answers whether it is the first one waiting.
    pub(super) fn push(&self, row: AuditRow) -> bool {
        let mut waiting = self.lock();
        let first = waiting.rows.is_empty();
        self.add(&mut waiting, row) && first
    }

    /// Hands over everything that waits.
    pub(super) fn take(&self) -> Vec<AuditRow> {
        std::mem::take(&mut *self.lock()).rows
    }

    /// Takes back rows that were not written, before those that came since.
    pub(super) fn put_back(&self, rows: Vec<AuditRow>) {
        let mut waiting = self.lock();
        let since = std::mem::take(&mut *waiting).rows;
        for row in rows.into_iter().chain(since) {
            self.add(&mut waiting, row);
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().rows.is_empty()
    }

    /// Rows that found no room since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn add(&self, waiting: &mut Waiting, row: AuditRow) -> bool {
        let bytes = waiting.bytes.saturating_add(row.bytes());
        let fits = waiting.rows.len() < LAZY_ROWS_MAX && bytes <= LAZY_BYTES_MAX;
        if fits {
            waiting.bytes = bytes;
            waiting.rows.push(row);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
