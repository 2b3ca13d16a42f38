//! Durable state: the operations' journal, the audit records and the event log, in one SQLite database per data folder.
//!
//! It knows rows and what makes them durable, never what they mean. A commit that returns is on the disk.

mod commit;
mod error;
mod expiry;
mod files;
mod index;
mod inspect;
mod lazy;
mod limits;
mod query;
mod readers;
mod rows;
mod runs;
mod schema;
mod settings;
mod shared;
mod tail;
mod terms;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot, watch};

pub use self::error::Error;
pub use self::inspect::Inspection;
pub use self::rows::{
    Appended, AuditRow, Batch, Entry, EventSpan, JournalRow, Movement, NewEvent, OperationRow, Receipt,
    Setting, StoredAudit, StoredEvent, StoredMovement, StoredOperation,
};
pub use self::terms::Terms;

use self::commit::stored;
use self::expiry::Expiry;
use self::files::Folder;
use self::limits::{BATCH_BYTES_MAX, QUEUE_BATCHES_MAX, READERS_MAX, SEARCHERS_MAX};
use self::readers::Readers;
use self::runs::Runs;
use self::shared::Shared;
pub use self::shared::Sink;
use self::terms::Window;
use self::writer::{Job, Opened, Pending, Writer};
use crate::domain::clock::UnixMillis;
use crate::domain::operation::OperationHash;
use crate::domain::planted;

/// Setting that tells this event log from every other.
const LOG_ID: &str = "log_id";

/// The store of one gateway; clones share it. Call [`Store::close`] before the process ends, so that the audit rows of
/// the last reads are written too.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    places: Arc<Semaphore>,
    readers: Arc<Readers>,
    /// A slow search of the log must not stall a call.
    searchers: Arc<Readers>,
    log_id: u64,
    runs: Arc<Runs>,
    terms: Terms,
}

impl Store {
    /// Opens the data folder, and makes it if it is missing; its rows are found by `terms`. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Locked`] while another gateway has the folder, [`Error::Vanished`] when it lost its database,
    /// [`Error::TooNew`] when a newer build made it, and whatever the disk says.
    pub fn open(dir: &Path, terms: Terms) -> Result<Self, Error> {
        let folder = Folder::claim(dir)?;
        let (opened, tail) = Opened::open(&folder.database, terms)?;
        folder.mark_used()?;
        planted::point("open-migrated");
        let log_id = log_id(opened.connection())?;
        let runs = Arc::new(Runs::begin(opened.connection(), log_id, opened.last.position)?);
        let shared = Arc::new(Shared::new(tail, opened.last));
        let [readers, searchers] = [READERS_MAX, SEARCHERS_MAX]
            .map(|count_max| Arc::new(Readers::new(folder.database.clone(), count_max)));
        let (jobs, queue) = mpsc::channel();
        let writer = Writer::new(folder.database, folder.lock, opened, terms, Arc::clone(&shared), queue);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| Error::Io(error.to_string()))?;
        let places = Arc::new(Semaphore::new(QUEUE_BATCHES_MAX));
        Ok(Self { shared, jobs, places, readers, searchers, log_id, runs, terms })
    }

    /// Makes the rows durable, all or none. Batches that wait at the same time share one transaction and one sync.
    ///
    /// A caller that stops waiting does not take its batch back.
    ///
    /// # Errors
    /// After [`Error::Uncertain`] the rows may or may not be there; after every other error they certainly are not.
    pub async fn commit(&self, batch: Batch) -> Result<Receipt, Error> {
        let bytes = batch.bytes();
        if bytes > BATCH_BYTES_MAX {
            return Err(Error::TooLarge { bytes, bytes_max: BATCH_BYTES_MAX });
        }
        let asked = Instant::now();
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Error::Closed)?;
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Commit(Pending { batch, answer, place })).map_err(|_| Error::Closed)?;
        // A writer that ends without an answer may have committed before.
        let receipt = answered.await.unwrap_or(Err(Error::Uncertain))?;
        if let Some(told) = self.shared.stopwatch.get() {
            told(asked.elapsed());
        }
        Ok(receipt)
    }

    /// Tells `stopwatch` of each batch how long it took until it was durable, waiting included. The first one stays.
    pub fn time_commits(&self, stopwatch: impl Fn(Duration) + Send + Sync + 'static) {
        drop(self.shared.stopwatch.set(Box::new(stopwatch)));
    }

    /// Keeps an audit row without waiting: it goes along with the next commit, within a tenth of a second. What finds
    /// no room is dropped and counted.
    pub fn append_audit_lazily(&self, row: AuditRow) {
        if self.shared.lazy.push(row) {
            // A closed store takes no more rows.
            drop(self.jobs.send(Job::Nudge));
        }
    }

    /// Audit rows that [`Store::append_audit_lazily`] had no room for, since the start.
    #[must_use]
    pub fn lazily_dropped(&self) -> u64 {
        self.shared.lazy.dropped()
    }

    /// Transactions that made batches durable, since the start; fewer than batches when they share them.
    #[must_use]
    pub fn groups_committed(&self) -> u64 {
        self.shared.groups.load(Ordering::Relaxed)
    }

    /// The newest record of an operation, or `None` if it never had one.
    ///
    /// # Errors
    /// [`Error::Uncertain`] while it is not known whether the operation's last write is stored; whatever the disk says.
    pub async fn operation(&self, hash: &OperationHash) -> Result<Option<Vec<u8>>, Error> {
        if let Some(record) = self.shared.tail().get(hash)? {
            return Ok(Some(record));
        }
        let hash = *hash;
        self.readers.read(move |connection| query::operation(connection, &hash)).await
    }

    /// Operations after `after`, in the order of their hashes, whose newest record is listed; at most `count_max`, and
    /// fewer when some leave the list meanwhile. Only an empty answer is the end.
    ///
    /// # Errors
    /// [`Error::Uncertain`] while it is not known whether some operation's last write is stored; whatever the disk says.
    pub async fn listed(
        &self,
        after: Option<OperationHash>,
        count_max: usize,
    ) -> Result<Vec<StoredOperation>, Error> {
        let mut after = after;
        loop {
            let page = self.shared.tail().listed(after, count_max)?;
            let Some((last, _)) = page.last() else { return Ok(Vec::new()) };
            after = Some(*last);
            let found = self.searchers.read(move |connection| query::listed(connection, page)).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Newest records after `sequence` (0 for all) that are not listed, in the order they were written, at most
    /// `count_max`. Only what is indexed counts, which all is once the store has been quiet for a moment. Each may be
    /// replaced while it is looked at.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn unlisted_after(&self, sequence: u64, count_max: usize) -> Result<Vec<JournalRow>, Error> {
        let mut rows = self
            .searchers
            .read(move |connection| query::unlisted_after(connection, sequence, count_max))
            .await?;
        let tail = self.shared.tail();
        rows.retain(|row| !tail.holds(&row.hash));
        Ok(rows)
    }

    /// Events after `position` in log order: at most `count_max` of them, and no more once their bodies exceed
    /// `bytes_max`; an event that is larger alone still comes.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn events_after(
        &self,
        position: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let head = self.head();
        if position >= head {
            return Ok(Vec::new());
        }
        self.readers
            .read(move |connection| query::events_after(connection, position, head, count_max, bytes_max))
            .await
    }

    /// Events before `position`, the latest first, within the limits of [`Store::events_after`].
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn events_before(
        &self,
        position: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let position = position.min(self.head().saturating_add(1));
        self.readers
            .read(move |connection| query::events_before(connection, position, count_max, bytes_max))
            .await
    }

    /// The event with this id, if the log has it.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        let (id, head) = (id.to_owned(), self.head());
        self.readers.read(move |connection| query::event(connection, &id, head)).await
    }

    /// The position of the newest durable event, 0 before the first; it announces every change.
    #[must_use]
    pub fn events_head(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    /// Hands every event to `sink` once it is durable, in log order and before anybody is told of it. It runs where rows
    /// are written, so it must be quick. There is one event feed to a store: a second sink is not taken.
    pub fn events_into(&self, sink: Sink) {
        // The first one stays.
        drop(self.shared.sink.set(sink));
    }

    /// The position of the oldest event that is kept, or `None` while there is none.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn events_oldest(&self) -> Result<Option<u64>, Error> {
        self.readers.read(query::events_oldest).await
    }

    /// From where to where the log of events reaches, or `None` while it has had none. When it was made last is asked of
    /// all but those of the source `made_here`.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn event_span(&self, made_here: i32) -> Result<Option<EventSpan>, Error> {
        self.readers.read(move |connection| query::event_span(connection, made_here)).await
    }

    /// The first position from which on the events take no more than `bytes`; the one that the next event will have, if the
    /// newest alone takes more.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn event_position_within(&self, bytes: u64) -> Result<u64, Error> {
        let head = self.head();
        self.readers.read(move |connection| query::position_within(connection, bytes, head)).await
    }

    /// Removes the events up to and including `position`, though never the newest, and the marks of removed events that
    /// were received before `marks_before`: an event whose mark is gone is a new one when it comes again. Commits go on in
    /// between. What an error interrupts is done when it is asked for again.
    ///
    /// # Errors
    /// As for [`Store::commit`].
    pub async fn expire_events(&self, position: u64, marks_before: UnixMillis) -> Result<(), Error> {
        let expiry = Expiry { events_up_to: stored(position), marks_before_ms: marks_before };
        loop {
            let (answer, answered) = oneshot::channel();
            self.jobs.send(Job::Expire(expiry, answer)).map_err(|_| Error::Closed)?;
            if !answered.await.unwrap_or(Err(Error::Uncertain))? {
                return Ok(());
            }
        }
    }

    /// The position of the first event received at or after `time`, or the one that the next event will have. As exact
    /// as the clock that stamped the events: where it was set back, the place is off by as much.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn event_position_at(&self, time: UnixMillis) -> Result<u64, Error> {
        let head = self.head();
        self.readers.read(move |connection| query::position_received_at(connection, time, head)).await
    }

    /// Events with this term after `position` in log order, within the limits of [`Store::events_after`]. Only an empty
    /// answer is the end.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn events_with(
        &self,
        term: &str,
        position: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let (terms, term) = (self.terms, term.to_owned());
        let window = Window { after: stored(position), head: stored(self.head()), count_max, bytes_max };
        self.readers.read(move |connection| terms.events_with(connection, &term, window)).await
    }

    /// Events with this term before `position`, the latest first, within the limits of [`Store::events_after`]. Only an empty
    /// answer is the end.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn events_with_before(
        &self,
        term: &str,
        position: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let (terms, term) = (self.terms, term.to_owned());
        let head = stored(position.saturating_sub(1).min(self.head()));
        let window = Window { after: 0, head, count_max, bytes_max };
        self.readers.read(move |connection| terms.events_with_before(connection, &term, window)).await
    }

    /// Audit records after `sequence` (0 for all) in the order of their commits, at most `count_max`.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn audit_after(&self, sequence: u64, count_max: usize) -> Result<Vec<StoredAudit>, Error> {
        let head = self.audit_sequence();
        self.searchers.read(move |connection| query::audit_after(connection, sequence, head, count_max)).await
    }

    /// Audit records before `sequence` (`u64::MAX` for all), the latest first, at most `count_max`.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn audit_before(&self, sequence: u64, count_max: usize) -> Result<Vec<StoredAudit>, Error> {
        let sequence = sequence.min(self.audit_sequence().saturating_add(1));
        self.searchers.read(move |connection| query::audit_before(connection, sequence, count_max)).await
    }

    /// Audit records with this term after `sequence`, in the order of their commits: at most `count_max` of them, and no
    /// more once they exceed `bytes_max`; a record that is larger alone still comes. Only an empty answer is the end.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn audit_with(
        &self,
        term: &str,
        sequence: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredAudit>, Error> {
        let (terms, term) = (self.terms, term.to_owned());
        let head = stored(self.audit_sequence());
        let window = Window { after: stored(sequence), head, count_max, bytes_max };
        self.searchers.read(move |connection| terms.audit_with(connection, &term, window)).await
    }

    /// The sequence of the newest durable audit record, 0 before the first; it announces every change.
    #[must_use]
    pub fn audit_head(&self) -> watch::Receiver<u64> {
        self.shared.audit_head.subscribe()
    }

    /// Erases the audit records up to and including `sequence`, and what they were found by; their ids and leaves stay.
    /// Commits go on in between. What an error interrupts is done when it is asked for again.
    ///
    /// # Errors
    /// As for [`Store::commit`].
    pub async fn erase_audit(&self, sequence: u64) -> Result<(), Error> {
        let up_to = stored(sequence.min(self.audit_sequence()));
        loop {
            let (answer, answered) = oneshot::channel();
            self.jobs.send(Job::EraseAudit(up_to, answer)).map_err(|_| Error::Closed)?;
            if answered.await.unwrap_or(Err(Error::Uncertain))? >= up_to {
                return Ok(());
            }
        }
    }

    /// The entries of a kind with their ids, in the order of these; all of them, so a kind is for what is few.
    ///
    /// # Errors
    /// [`Error::Uncertain`] while it is not known whether the last change of one is stored; whatever the disk says.
    pub async fn entries(&self, kind: &'static str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        if self.shared.tail().doubts_entries(kind) {
            return Err(Error::Uncertain);
        }
        self.readers.read(move |connection| query::entries(connection, kind)).await
    }

    /// Movements in the order of their times, after the one of time and place `after`, at most `count_max`; a place of 0
    /// is before all of its time.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn movements_after(
        &self,
        after: (UnixMillis, u64),
        count_max: usize,
    ) -> Result<Vec<StoredMovement>, Error> {
        self.searchers.read(move |connection| query::movements_after(connection, after, count_max)).await
    }

    /// All movements of a group, in the order they were written.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn movements_of(&self, group: [u8; 32]) -> Result<Vec<StoredMovement>, Error> {
        self.readers.read(move |connection| query::movements_of(connection, &group)).await
    }

    /// What tells this folder's logs from all others; random, and the same for the folder's whole life.
    #[must_use]
    pub fn log_id(&self) -> u64 {
        self.log_id
    }

    /// What tells the event at a position from every other that may stand there, be it in another log or in what became of
    /// this one before it was restored from an older copy.
    #[must_use]
    pub fn run_at(&self, position: u64) -> u64 {
        self.runs.at(position)
    }

    /// Ends the writing: what was asked before is finished, later calls answer [`Error::Closed`], and the folder is free
    /// for another process when this returns.
    pub async fn close(&self) {
        self.places.close();
        self.readers.close().await;
        self.searchers.close().await;
        let (closed, done) = oneshot::channel();
        if self.jobs.send(Job::Close(closed)).is_ok() {
            // A writer that is gone has closed already.
            drop(done.await);
        }
    }

    fn head(&self) -> u64 {
        *self.shared.head.borrow()
    }

    fn audit_sequence(&self) -> u64 {
        *self.shared.audit_head.borrow()
    }
}

fn log_id(connection: &rusqlite::Connection) -> Result<u64, Error> {
    connection.execute(
        "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        (LOG_ID, settings::random::<8>()?),
    )?;
    let stored = query::setting(connection, LOG_ID)?.and_then(|value| value.try_into().ok());
    stored
        .map(u64::from_be_bytes)
        .ok_or_else(|| Error::Corrupt(format!("setting `{LOG_ID}` has the wrong length")))
}

#[cfg(test)]
mod tests;
