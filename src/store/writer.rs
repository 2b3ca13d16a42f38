//! The one thread that writes: it lets waiting batches share transactions and does the rest while nobody waits.
//! What a transaction consists of is `commit`'s and `index`'s business.

mod faults;
mod recovery;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::recovery::Connected;
use super::commit::{self, Failure, Last};
use super::error::Error;
use super::expiry::{self, Expiry};
use super::index;
use super::limits::{
    ERASE_ROWS_MAX, GROUP_BATCHES_MAX, GROUP_BYTES_MAX, INDEX_ROWS_MAX, INDEX_WAIT, LAZY_WAIT_MAX,
    RETRY_PAUSE, TAIL_BYTES_MAX, TERMS_BEHIND_ROWS_MAX, TERMS_ROWS_MAX,
};
use super::rows::{AuditRow, Batch, Receipt, StoredEvent};
use super::schema;
use super::shared::Shared;
use super::tail::Tail;
use super::terms::{Reached, Terms};
use crate::domain::planted;

/// What the writer is asked to do.
pub(super) enum Job {
    /// Make a batch durable.
    Commit(Pending),
    /// The lazy rows have begun to wait.
    Nudge,
    /// Erase the next audit records, none beyond this one, and answer up to which all are erased.
    EraseAudit(i64, oneshot::Sender<Result<i64, Error>>),
    /// Remove the next events and marks that are to go, and answer whether there are more.
    Expire(Expiry, oneshot::Sender<Result<bool, Error>>),
    /// Write what waits, close the database and let the folder go.
    Close(oneshot::Sender<()>),
    /// Anything, between two commits.
    #[cfg(test)]
    Run(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// A batch and the caller who waits for it.
pub(super) struct Pending {
    pub(super) batch: Batch,
    pub(super) answer: Answer,
    /// The caller's place in the queue.
    pub(super) place: OwnedSemaphorePermit,
}

/// Where the caller of a batch waits.
pub(super) type Answer = oneshot::Sender<Result<Receipt, Error>>;

/// A database that was opened, checked and read.
pub(super) struct Opened {
    connection: Connection,
    /// What it holds.
    pub(super) last: Last,
    reached: Reached,
}

impl Opened {
    /// Opens the database for writing; answers with it the tail that it holds.
    pub(super) fn open(path: &Path, terms: Terms) -> Result<(Self, Tail), Error> {
        let mut connection = schema::open_writer(path)?;
        // It is asked anew at the next opening, whatever became of it.
        let reached = Reached::load(&mut connection, terms).map_err(|failure| match failure {
            Failure::Before(error) | Failure::AtCommit(error) => error,
        })?;
        let last = Last::load(&connection)?;
        let tail = Tail::load(&connection)?;
        Ok((Self { connection, last, reached }, tail))
    }

    /// The connection.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// The writer's state.
pub(super) struct Writer {
    path: PathBuf,
    connection: Connected,
    last: Last,
    terms: Terms,
    /// How far the index of terms reaches.
    reached: Reached,
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

impl Writer {
    /// A writer that holds the folder's lock; `last` and the tail in `shared` are what `connection` holds.
    pub(super) fn new(
        path: PathBuf,
        lock: File,
        opened: Opened,
        terms: Terms,
        shared: Arc<Shared>,
        jobs: Receiver<Job>,
    ) -> Self {
        let Opened { connection, last, reached } = opened;
        Self {
            path,
            connection: Connected::Yes(Box::new(connection)),
            last,
            terms,
            reached,
            shared,
            jobs,
            next: None,
            flush_at: None,
            // A pass that has nothing to do is cheap.
            index_at: Some(Instant::now()),
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
                Ok(Job::EraseAudit(up_to, answer)) => {
                    // A caller who is gone asks again, or not.
                    drop(answer.send(self.erase_audit(up_to)));
                }
                Ok(Job::Expire(expiry, answer)) => drop(answer.send(self.expire(expiry))),
                Ok(Job::Close(closed)) => break Some(closed),
                #[cfg(test)]
                Ok(Job::Run(work)) => work(&mut self),
                Err(RecvTimeoutError::Timeout) => self.catch_up(),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        self.flush();
        if !self.shared.lazy.is_empty() {
            tracing::error!("audit records that nobody waited for are lost, the database does not take them");
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

    /// When [`Writer::catch_up`] has something to do.
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
            if self.shared.tail().indexed() < self.last.journal {
                self.index(INDEX_ROWS_MAX);
            } else {
                self.index_terms(TERMS_ROWS_MAX);
            }
        }
    }

    /// Commits a batch together with those that wait behind it, and answers their callers.
    fn commit(&mut self, first: Pending) {
        let group = self.gather(first);
        let (mut batches, mut callers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|pending| (pending.batch, (pending.answer, pending.place))).unzip();
        let late = self.spoil(&mut batches, &mut callers);
        let written = self.write(batches);
        self.come_late(late);
        let wrote = written.is_ok();
        let answers = match written {
            Ok(receipts) => receipts.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); callers.len()],
        };
        for ((caller, _place), answer) in callers.into_iter().zip(answers) {
            // A caller who is gone finds the rows when it asks again.
            drop(caller.send(answer));
        }
        if wrote {
            self.index_what_is_long();
        }
    }

    /// Indexes although callers may wait, where more of them would wait longer.
    fn index_what_is_long(&mut self) {
        if self.tail_is_long() {
            self.index(INDEX_ROWS_MAX);
        } else if self.terms_behind() > TERMS_BEHIND_ROWS_MAX {
            self.index_terms(TERMS_ROWS_MAX);
        }
    }

    /// Rows that the index of terms does not know yet.
    pub(super) fn terms_behind(&self) -> i64 {
        if self.terms.version == 0 { 0 } else { self.reached.behind(self.last) }
    }

    /// Whether the tail takes more memory than it should.
    fn tail_is_long(&self) -> bool {
        let tail = self.shared.tail();
        let rows = self.last.journal - tail.indexed();
        rows >= i64::try_from(INDEX_ROWS_MAX).unwrap_or(i64::MAX) || tail.bytes() >= TAIL_BYTES_MAX
    }

    /// The batch and those that wait behind it, within the limits of a group.
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
        match faults::misread(written) {
            Ok((receipts, last)) => {
                planted::point("write-durable");
                self.publish(last, batches, &receipts);
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

    /// Shows what has become durable, before anybody is told so.
    fn publish(&mut self, last: Last, batches: Vec<Batch>, receipts: &[Receipt]) {
        let mut seq = self.last.journal;
        let (operations, events): (Vec<_>, Vec<_>) =
            batches.into_iter().map(|batch| (batch.operations, batch.events)).unzip();
        if last.journal > seq {
            let mut tail = self.shared.tail_mut();
            for row in operations.into_iter().flatten() {
                seq += 1;
                tail.append(seq, row);
            }
        }
        if let Some(sink) = self.shared.sink.get().filter(|_| last.position > self.last.position) {
            let appended = receipts.iter().flat_map(|receipt| &receipt.events);
            let appended =
                appended.zip(events.into_iter().flatten()).filter(|(appended, _)| !appended.duplicate);
            sink(
                appended
                    .map(|(appended, event)| StoredEvent { position: appended.position, event })
                    .collect(),
            );
        }
        self.shared.announce(last);
        self.index_at.get_or_insert_with(|| Instant::now() + INDEX_WAIT);
        self.shared.groups.fetch_add(1, Ordering::Relaxed);
        self.last = last;
    }

    /// Writes the lazy rows, which nobody waits for.
    fn flush(&mut self) {
        self.flush_at = None;
        if !self.shared.lazy.is_empty() {
            // A failure is logged where it happens, and the rows are kept for the next commit.
            if self.write(Vec::new()).is_ok() {
                self.index_what_is_long();
            }
        }
    }

    /// One pass of the index of operations; the next pass of an index is due at once until all is indexed.
    pub(super) fn index(&mut self, rows_max: usize) {
        let Ok((connection, _)) = self.connected() else { return };
        match index::pass(connection, rows_max) {
            Ok(indexed) => {
                planted::point("index-durable");
                self.shared.tail_mut().forget(indexed);
                let behind = indexed < self.last.journal || self.terms_behind() > 0;
                self.index_at = behind.then(Instant::now);
            }
            Err(failure) => drop(self.put_off(failure)),
        }
    }

    /// One pass of the index of terms.
    pub(super) fn index_terms(&mut self, rows_max: usize) {
        self.index_at = None;
        if self.terms_behind() == 0 {
            return;
        }
        let terms = self.terms;
        let Ok((connection, _)) = self.connected() else { return };
        match terms.pass(connection, rows_max) {
            Ok(reached) => {
                planted::point("terms-durable");
                self.reached = reached;
                let behind = self.shared.tail().indexed() < self.last.journal || self.terms_behind() > 0;
                self.index_at = behind.then(Instant::now);
            }
            Err(failure) => drop(self.put_off(failure)),
        }
    }

    /// Background work that failed is done again, by numbers that the database holds.
    fn put_off(&mut self, failure: Failure) -> Error {
        self.index_at = Some(Instant::now() + RETRY_PAUSE);
        match failure {
            Failure::Before(error) => self.failed_before(error.into()),
            Failure::AtCommit(error) => {
                self.disconnect(error.into());
                Error::Uncertain
            }
        }
    }

    fn expire(&mut self, expiry: Expiry) -> Result<bool, Error> {
        let terms = self.terms;
        let (connection, last) = self.connected()?;
        expiry::step(connection, terms, last.position, expiry).map_err(|failure| self.put_off(failure))
    }

    fn erase_audit(&mut self, up_to: i64) -> Result<i64, Error> {
        let terms = self.terms;
        let (connection, last) = self.connected()?;
        terms
            .erase_audit(connection, up_to.min(last.audit), ERASE_ROWS_MAX)
            .map_err(|failure| self.put_off(failure))
    }
}
