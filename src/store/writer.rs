//! The one thread that writes: it lets waiting batches share transactions and finds its way back after failures.
//! What a transaction consists of is `commit`'s and `index`'s business.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::commit::{self, Failure, Last, number};
use super::error::Error;
use super::lazy::Lazy;
use super::limits::{
    GROUP_BATCHES_MAX, GROUP_BYTES_MAX, INDEX_QUIET, INDEX_ROWS_MAX, LAZY_WAIT_MAX, RETRY_PAUSE,
    TAIL_BYTES_MAX,
};
use super::rows::{AuditRow, Batch, Receipt};
use super::tail::Tail;
use super::{index, schema};

/// What the writer is asked to do.
pub(super) enum Job {
    /// Make a batch durable.
    Commit(Pending),
    /// The lazy rows have begun to wait.
    Nudge,
    /// Write what waits, close the database and let the folder go.
    Close(oneshot::Sender<()>),
    /// Anything, between two commits.
    #[cfg(test)]
    Run(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// A batch and the caller who waits for it.
pub(super) struct Pending {
    pub(super) batch: Batch,
    pub(super) answer: oneshot::Sender<Result<Receipt, Error>>,
    /// The caller's place in the queue.
    pub(super) place: OwnedSemaphorePermit,
}

/// What the writer shows to the callers.
#[derive(Debug)]
pub(super) struct Shared {
    tail: RwLock<Tail>,
    pub(super) head: watch::Sender<u64>,
    pub(super) lazy: Lazy,
    pub(super) groups: AtomicU64,
}

/// The writer's state.
pub(super) struct Writer {
    path: PathBuf,
    connection: Connected,
    last: Last,
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    /// A job that ended the gathering of a group.
    next: Option<Job>,
    flush_at: Option<Instant>,
    index_at: Option<Instant>,
    /// Lazy rows of a failed commit, with the last audit number before it.
    in_doubt: Option<(i64, Vec<AuditRow>)>,
    /// Held as long as the database may be written.
    _lock: File,
}

#[derive(Debug)]
enum Connected {
    Yes(Box<Connection>),
    /// No write is taken until a new connection has been checked.
    No {
        why: Error,
        retry_at: Instant,
    },
}

impl Shared {
    pub(super) fn new(tail: Tail, last: Last) -> Self {
        let head = watch::Sender::new(number(last.position));
        Self { tail: RwLock::new(tail), head, lazy: Lazy::default(), groups: AtomicU64::new(0) }
    }

    pub(super) fn tail(&self) -> RwLockReadGuard<'_, Tail> {
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail_mut(&self) -> RwLockWriteGuard<'_, Tail> {
        self.tail.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        lock: File,
        connection: Connection,
        last: Last,
        shared: Arc<Shared>,
        jobs: Receiver<Job>,
    ) -> Self {
        let connection = Connected::Yes(Box::new(connection));
        let index_at = (shared.tail().indexed() < last.journal).then(Instant::now);
        Self {
            path,
            connection,
            last,
            shared,
            jobs,
            next: None,
            flush_at: None,
            index_at,
            in_doubt: None,
            _lock: lock,
        }
    }

    /// Serves jobs until the store is closed or nobody is left who could send one.
    pub(super) fn run(mut self) {
        let closed = loop {
            match self.wait() {
                Ok(Job::Commit(first)) => self.commit(first),
                Ok(Job::Nudge) => self.flush_at = Some(Instant::now() + LAZY_WAIT_MAX),
                Ok(Job::Close(closed)) => break Some(closed),
                #[cfg(test)]
                Ok(Job::Run(work)) => work(&mut self),
                Err(RecvTimeoutError::Timeout) => self.catch_up(),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        if !self.shared.lazy.is_empty() {
            self.flush();
        }
        while let Ok(job) = self.jobs.try_recv() {
            if let Job::Commit(pending) = job {
                // A caller who is gone needs no answer.
                drop(pending.answer.send(Err(Error::Closed)));
            }
        }
        drop(self);
        if let Some(closed) = closed {
            _ = closed.send(());
        }
    }

    /// The next job, or a timeout when something else is due first.
    fn wait(&mut self) -> Result<Job, RecvTimeoutError> {
        if let Some(job) = self.next.take() {
            return Ok(job);
        }
        match self.due_at() {
            Some(due) => self.jobs.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn due_at(&self) -> Option<Instant> {
        match &self.connection {
            Connected::Yes(_) => [self.flush_at, self.index_at].into_iter().flatten().min(),
            Connected::No { retry_at, .. } => Some(*retry_at),
        }
    }

    /// Does what has become due while nobody asked for anything.
    fn catch_up(&mut self) {
        if self.connected().is_err() {
            return;
        }
        let now = Instant::now();
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
        if self.index_at.is_some_and(|at| at <= now) {
            self.index();
        }
    }

    /// Commits a batch and those that wait behind it.
    fn commit(&mut self, first: Pending) {
        let group = self.gather(first);
        let (batches, callers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|pending| (pending.batch, (pending.answer, pending.place))).unzip();
        let written = self.write(batches);
        let index = written.is_ok() && self.tail_is_long();
        let answers = match written {
            Ok(receipts) => receipts.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); callers.len()],
        };
        for ((caller, _place), answer) in callers.into_iter().zip(answers) {
            // A caller who is gone finds the rows when it asks again.
            drop(caller.send(answer));
        }
        if index {
            self.index();
        }
    }

    fn tail_is_long(&self) -> bool {
        let tail = self.shared.tail();
        let rows = self.last.journal - tail.indexed();
        rows >= i64::try_from(INDEX_ROWS_MAX).unwrap_or(i64::MAX) || tail.bytes() >= TAIL_BYTES_MAX
    }

    fn gather(&mut self, first: Pending) -> Vec<Pending> {
        let mut bytes = first.batch.bytes();
        let mut group = vec![first];
        while group.len() < GROUP_BATCHES_MAX && bytes < GROUP_BYTES_MAX {
            match self.jobs.try_recv() {
                Ok(Job::Commit(pending)) => {
                    bytes = bytes.saturating_add(pending.batch.bytes());
                    group.push(pending);
                }
                // The lazy rows ride along with this very group.
                Ok(Job::Nudge) => {}
                Ok(other) => {
                    self.next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        group
    }

    /// One transaction, and all that follows from its outcome.
    fn write(&mut self, batches: Vec<Batch>) -> Result<Vec<Receipt>, Error> {
        let riding = self.shared.lazy.take();
        self.flush_at = None;
        let written = match self.connected() {
            Ok((connection, last)) => commit::write(connection, last, &batches, &riding),
            Err(error) => {
                self.keep(riding);
                return Err(error);
            }
        };
        match written {
            Ok((receipts, last)) => {
                self.publish(last, batches);
                Ok(receipts)
            }
            Err(Failure::Before(error)) => {
                self.keep(riding);
                Err(self.failed_before(error.into()))
            }
            Err(Failure::AtCommit(error)) => {
                self.doubt(&batches, riding);
                self.disconnect(error.into());
                Err(Error::Uncertain)
            }
        }
    }

    /// Marks what may or may not be stored until the database has been opened anew.
    pub(super) fn doubt(&mut self, batches: &[Batch], riding: Vec<AuditRow>) {
        let mut tail = self.shared.tail_mut();
        for row in batches.iter().flat_map(|batch| &batch.operations) {
            tail.doubt(row.hash);
        }
        self.in_doubt = Some((self.last.audit, riding));
    }

    /// Shows what has become durable, before anybody is told so.
    fn publish(&mut self, last: Last, batches: Vec<Batch>) {
        let mut seq = self.last.journal;
        if last.journal > seq {
            let mut tail = self.shared.tail_mut();
            for row in batches.into_iter().flat_map(|batch| batch.operations) {
                seq += 1;
                tail.append(seq, row);
            }
            self.index_at = Some(Instant::now() + INDEX_QUIET);
        }
        if last.position > self.last.position {
            self.shared.head.send_replace(number(last.position));
        }
        self.shared.groups.fetch_add(1, Ordering::Relaxed);
        self.last = last;
    }

    /// Writes the lazy rows, which nobody waits for.
    fn flush(&mut self) {
        // A failure is logged where it happens, and the rows are kept for the next commit.
        drop(self.write(Vec::new()));
    }

    /// Lazy rows that are certainly not written wait on.
    fn keep(&mut self, rows: Vec<AuditRow>) {
        if !rows.is_empty() {
            self.shared.lazy.put_back(rows);
            self.flush_at = Some(Instant::now() + RETRY_PAUSE);
        }
    }

    /// One pass of the index; the next is due at once until the tail is empty.
    pub(super) fn index(&mut self) {
        let Ok((connection, _)) = self.connected() else { return };
        self.index_at = match index::pass(connection) {
            Ok(indexed) => {
                self.shared.tail_mut().forget(indexed);
                (indexed < self.last.journal).then(Instant::now)
            }
            Err(Failure::Before(error)) => {
                self.failed_before(error.into());
                Some(Instant::now() + RETRY_PAUSE)
            }
            Err(Failure::AtCommit(error)) => {
                self.disconnect(error.into());
                Some(Instant::now() + RETRY_PAUSE)
            }
        };
    }

    fn failed_before(&mut self, error: Error) -> Error {
        if error.spares_the_connection() {
            tracing::warn!(%error, "a write to the store was refused");
        } else {
            self.disconnect(error.clone());
        }
        error
    }

    pub(super) fn disconnect(&mut self, why: Error) {
        tracing::error!(error = %why, "a write to the store failed, the database is opened anew");
        self.connection = Connected::No { why, retry_at: Instant::now() };
    }

    /// A connection that may be written to, opened anew and checked if the last one failed, and what it holds.
    pub(super) fn connected(&mut self) -> Result<(&mut Connection, Last), Error> {
        if let Connected::No { why, retry_at } = &self.connection {
            if *retry_at > Instant::now() {
                return Err(why.clone());
            }
            if let Err(why) = self.reconnect() {
                tracing::error!(error = %why, "the database cannot be opened anew yet");
                self.connection = Connected::No { why: why.clone(), retry_at: Instant::now() + RETRY_PAUSE };
                return Err(why);
            }
        }
        match &mut self.connection {
            Connected::Yes(connection) => Ok((connection, self.last)),
            Connected::No { why, .. } => Err(why.clone()),
        }
    }

    /// Finds out what the failed commit left behind and shows that.
    fn reconnect(&mut self) -> Result<(), Error> {
        let connection = schema::open_writer(&self.path)?;
        let last = Last::load(&connection)?;
        let tail = Tail::load(&connection)?;
        self.connection = Connected::Yes(Box::new(connection));
        *self.shared.tail_mut() = tail;
        self.shared.head.send_replace(number(last.position));
        self.last = last;
        self.index_at = Some(Instant::now() + INDEX_QUIET);
        if let Some((before, rows)) = self.in_doubt.take()
            && last.audit == before
        {
            self.keep(rows);
        }
        tracing::info!("the database is open again");
        Ok(())
    }
}
