//! What the ledger does without being asked by a caller: finding what an earlier process left behind, watching the wall
//! clock, and dropping what need not be kept. When it is done is for others to say.

use std::sync::{MutexGuard, PoisonError};

use super::finding;
use super::flights::Place;
use super::resolve::Entry;
use super::state::{Record, Unreadable};
use super::{Census, Error, Ledger, lease, not_recorded};
use crate::domain::clock::{Moment, UnixMillis};
use crate::domain::limits::LEDGER_PAGE_OPERATIONS;
use crate::domain::operation::OperationHash;
use crate::store::{Batch, Setting, StoredOperation};

/// The durable place up to which entries have been looked at for what need not be kept.
const PRUNED_UP_TO: &str = "ledger.pruned_up_to";

/// What both clocks showed when they were last seen.
const CLOCK_SEEN: &str = "ledger.clock_seen";
/// How often that is kept, in milliseconds: a clock that is set back while the machine is down is noticed if it is set
/// back further than this before the moment it stopped.
const CLOCK_KEPT_EVERY_MS: u64 = 30_000;

/// What a round of pruning did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Entries that were looked at.
    pub looked_at: usize,
    /// Entries that lost their answer or their request.
    pub dropped: usize,
}

impl Ledger {
    /// Learns which operations are unresolved, and where the wall clock was set back while nobody watched. To be called
    /// once, before the first call.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn recover(&self) -> Result<Census, Error> {
        let seen = self.store.setting(CLOCK_SEEN).await.map_err(Error::Unread)?;
        // Nothing seen is nothing to compare with.
        *self.seen() = seen.and_then(|seen| serde_json::from_slice(&seen).ok());
        let now = self.clock.now();
        self.budgets.recover(now.wall_ms).await?;
        let page = |after| self.store.listed(after, LEDGER_PAGE_OPERATIONS);
        let mut stored = page(None).await.map_err(Error::Unread)?;
        while let Some(end) = stored.last().map(|last| last.hash) {
            // The start waits for this, so the next ones are read while these are learnt.
            let (next, learnt) = tokio::join!(page(Some(end)), self.learn(stored, now));
            learnt?;
            stored = next.map_err(Error::Unread)?;
        }
        self.keep_clock(now).await?;
        Ok(self.census())
    }

    /// Takes note of unresolved operations, and marks those that need it.
    async fn learn(&self, stored: Vec<StoredOperation>, now: Moment) -> Result<(), Error> {
        for StoredOperation { hash, record } in stored {
            let record = Record::decode(&record)?;
            self.roster.note(hash, &record);
            self.budgets.note_held(hash, &record);
            self.mark(hash, &record, now).await?;
        }
        Ok(())
    }

    /// Unresolved operations after `after`, in the order of their hashes; only an empty answer is the end.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn unresolved(
        &self,
        after: Option<OperationHash>,
        count_max: usize,
    ) -> Result<Vec<Entry>, Error> {
        let stored = self.store.listed(after, count_max).await.map_err(Error::Unread)?;
        let entry = |stored: StoredOperation| {
            let (hash, record) = (stored.hash, Record::decode(&stored.record)?);
            Ok(Entry { hash, record, live: self.flights.live(&hash) })
        };
        stored.into_iter().map(entry).collect()
    }

    /// Marks every unresolved operation whose age the wall clock cannot tell any more, since it was set back, and keeps
    /// what both clocks show. To be called about every minute: a clock that is right again by chance looks like one that
    /// was never wrong.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn watch_clock(&self) -> Result<(), Error> {
        let now = self.clock.now();
        self.clear_doubts(now).await;
        if !self.mark_all(now).await? {
            // What is in flight is marked when it has landed, so the clock is compared with the same again.
            return Ok(());
        }
        self.keep_clock(now).await
    }

    /// Keeps what both clocks show, once every entry that needs a mark has one.
    async fn keep_clock(&self, now: Moment) -> Result<(), Error> {
        let before = *self.seen();
        let seen = before.map_or(now, |seen| lease::watched(seen, now));
        let news = before.is_none_or(|before| {
            before.boot.boot_id != seen.boot.boot_id
                || before.wall_ms.abs_diff(seen.wall_ms) >= CLOCK_KEPT_EVERY_MS
        });
        if news {
            let value = serde_json::to_vec(&seen).map_err(Unreadable::Damaged)?;
            let state = vec![Setting { name: CLOCK_SEEN.to_owned(), value }];
            self.store.commit(Batch { state, ..Batch::default() }).await.map_err(not_recorded)?;
            *self.seen() = Some(seen);
        }
        Ok(())
    }

    /// Marks every unresolved operation of an earlier run of the machine: the wall clock was found to be wrong, and
    /// nothing else tells their age. To be called after [`Ledger::recover`], before the first call.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn distrust_clock(&self) -> Result<(), Error> {
        // Beside this, whatever the clock shows is a time that it was set back to.
        *self.seen() = Some(Moment { wall_ms: UnixMillis::MAX, ..self.clock.now() });
        self.watch_clock().await
    }

    /// Learns what became of writes that may or may not be stored, where it can be learnt by now.
    async fn clear_doubts(&self, now: Moment) {
        for hash in self.budgets.doubted() {
            if let Place::Lead(_flight) = self.flights.enter(hash) {
                // What cannot be read yet stays in doubt.
                drop(self.read_now(&hash, now).await);
            }
        }
    }

    /// Whether every entry that needs a mark has one now.
    async fn mark_all(&self, now: Moment) -> Result<bool, Error> {
        let (mut last, mut all) = (None, true);
        loop {
            let page = self.unresolved(last, LEDGER_PAGE_OPERATIONS).await?;
            let Some(end) = page.last() else { return Ok(all) };
            last = Some(end.hash);
            for Entry { hash, record, .. } in page {
                all &= self.mark(hash, &record, now).await?;
            }
        }
    }

    /// Whether an entry has the mark now that it needs, if it needs one.
    async fn mark(&self, hash: OperationHash, record: &Record, now: Moment) -> Result<bool, Error> {
        if lease::doubted(record, now, self.went_back(now)).is_none() {
            return Ok(true);
        }
        match self.flights.enter(hash) {
            Place::Lead(_flight) => self.read_now(&hash, now).await.map(|_| true),
            Place::Follow(_) | Place::Full => Ok(false),
        }
    }

    /// Whether the wall clock was set back since it was last seen.
    pub(super) fn went_back(&self, now: Moment) -> bool {
        self.seen().is_some_and(|seen| lease::went_back(seen, now))
    }

    /// A panic elsewhere leaves it whole: each use is one read or one write.
    fn seen(&self) -> MutexGuard<'_, Option<Moment>> {
        self.clock_seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the answers and requests that are kept no longer, from at most `count_max` entries: the oldest first, going
    /// on where the last round ended. What an operation came to is kept for good.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn prune(&self, count_max: usize) -> Result<Pruned, Error> {
        let before = self.pruned_up_to().await?;
        let rows = self.store.unlisted_after(before, count_max).await.map_err(Error::Unread)?;
        let (mut up_to, mut pruned) = (before, Pruned::default());
        for row in rows {
            let now = self.clock.now();
            // An entry that makes no sense holds up nothing but itself.
            let seen = Record::decode(&row.record).ok();
            if seen.as_ref().is_some_and(|record| finding::kept(record, now)) {
                break;
            }
            if seen.as_ref().is_some_and(|record| finding::pruned(record, now).is_some()) {
                // Somebody uses it; the next round will find it again.
                let Place::Lead(_flight) = self.flights.enter(row.hash) else { break };
                let record = self.read(&row.hash).await?;
                if let Some(record) = record.and_then(|record| finding::pruned(&record, now)) {
                    let pending = self.budgets.follow(record.taken(), &record).await;
                    self.keep(pending, &record, Vec::new()).await?;
                    pruned.dropped += 1;
                }
            }
            pruned.looked_at += 1;
            up_to = row.sequence;
        }
        if up_to > before {
            let value = up_to.to_be_bytes().to_vec();
            let state = vec![Setting { name: PRUNED_UP_TO.to_owned(), value }];
            self.store.commit(Batch { state, ..Batch::default() }).await.map_err(not_recorded)?;
        }
        Ok(pruned)
    }

    async fn pruned_up_to(&self) -> Result<u64, Error> {
        let value = self.store.setting(PRUNED_UP_TO).await.map_err(Error::Unread)?;
        // Beginning anew costs time and loses nothing.
        Ok(value.and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes))
    }
}
