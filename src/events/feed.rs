//! The one handle to the event log: appends what has been verified, and opens the ways to read it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::cause::Cause;
use super::envelope::Envelope;
use super::filter::Filter;
use super::head::Head;
use super::listing::{self, Page, Query};
use super::log_event::{self, LogEvent};
use super::notes::Notes;
use super::recent::Recent;
use super::subscription::Subscription;
use crate::domain::clock::{Clock, UnixMillis};
use crate::domain::cursor::Cursor;
use crate::domain::limits::EVENT_BATCH_BYTES_MAX;
use crate::domain::planted;
use crate::proto::v1::EventSource;
use crate::store::{self, Appended, Batch, EventSpan, NewEvent, Store, StoredEvent};

/// The event log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    store: Store,
    clock: Arc<dyn Clock>,
    checkpoint_every: Duration,
    recent: Arc<Recent>,
    head: Arc<Head>,
}

/// A verified event on its way into the log.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What was read out of `json`, and the connected account that it came from, which the JSON may leave out.
    pub envelope: Envelope,
    /// Alias of the Stripe account whose endpoint received it; empty for the default.
    pub account: String,
    /// How it came.
    pub source: EventSource,
    /// The event as Stripe sent it.
    pub json: String,
    /// What caused it.
    pub cause: Cause,
}

/// Where in the log a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest event.
    Earliest,
    /// At the next one to come in.
    Latest,
    /// Right behind a place that was read before.
    After(Cursor),
    /// At the first event that was received at or after this instant.
    At(UnixMillis),
}

/// The log cannot be read or written as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Events that the reader would see have left the log.
    #[error("the log no longer has all events from there on")]
    Expired {
        /// The oldest cursor that works.
        oldest: Cursor,
    },
    /// The cursor belongs to another log, or to what this one was before it was restored from an older copy.
    #[error("the cursor is of another log, or of a part of this one that it does not have any more")]
    Foreign {
        /// The oldest cursor that works.
        oldest: Cursor,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Feed {
    /// The log in `store`. Streams show signs of life at least every `checkpoint_every`, as their readers see it.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, checkpoint_every: Duration) -> Self {
        let recent = Arc::<Recent>::default();
        let sink = Arc::clone(&recent);
        store.events_into(Box::new(move |stored| sink.append(stored)));
        // A little early, so that the way to the reader does not break the promise.
        let checkpoint_every = checkpoint_every - checkpoint_every / 10;
        Self { store, clock, checkpoint_every, recent, head: Arc::default() }
    }

    /// The same feed, keeping the newest events at hand for its readers in `bytes_max` of memory, about; they share them.
    #[must_use]
    pub fn with_memory(self, bytes_max: usize) -> Self {
        self.recent.limit(bytes_max);
        self
    }

    /// Appends an event, unless the log has its id already. It is durable when this returns.
    ///
    /// # Errors
    /// When the store failed; Stripe must then be told to deliver again.
    pub async fn append(&self, arrival: Arrival) -> Result<Appended, Error> {
        let Arrival { envelope, account, source, json, cause } = arrival;
        let event = NewEvent {
            id: envelope.id,
            kind: envelope.kind,
            created_s: envelope.created_s,
            received_ms: self.clock.wall(),
            account,
            livemode: envelope.livemode,
            api_version: envelope.api_version,
            source: source.into(),
            json,
            cause: Notes { cause, connected_account: envelope.connected_account }.encode(),
        };
        let receipt = self.store.commit(Batch { events: vec![event], ..Batch::default() }).await?;
        // One row in, one answer out; a store that breaks this has not kept the event.
        Ok(receipt.events.first().copied().ok_or(store::Error::Uncertain)?)
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// When the log does not reach back to the start, or the store failed.
    pub async fn subscribe(&self, start: Start, filter: Filter) -> Result<Subscription, Error> {
        let (position, since_ms) = self.place(start).await?;
        let head = self.head.of(&self.store);
        Ok(Subscription::new(self.clone(), (filter, since_ms), position, head, self.checkpoint_every))
    }

    /// The position right before a start, and the time of receipt from which on events count there. Where that time has
    /// come, every further event counts, even if the clock is set back: none may be left out.
    ///
    /// # Errors
    /// When the log does not reach back to the start, or the store failed.
    pub async fn place(&self, start: Start) -> Result<(u64, UnixMillis), Error> {
        let now = *self.store.events_head().borrow();
        let mut since_ms = UnixMillis::MIN;
        let position = match start {
            Start::Latest => now,
            Start::Earliest => self.floor().await?,
            Start::At(instant) => {
                let left_ms = self.span().await?.and_then(|span| span.left_ms);
                if left_ms.is_some_and(|left_ms| instant <= left_ms) {
                    return Err(Error::Expired { oldest: self.cursor(self.floor().await?) });
                }
                if instant > self.clock.wall() {
                    since_ms = instant;
                }
                self.store.event_position_at(instant).await?.saturating_sub(1)
            }
            Start::After(cursor) => {
                let floor = self.floor().await?;
                let oldest = self.cursor(floor);
                if cursor.log != self.store.run_at(cursor.position) || cursor.position > now {
                    return Err(Error::Foreign { oldest });
                }
                if cursor.position < floor {
                    return Err(Error::Expired { oldest });
                }
                resumed(cursor.position)
            }
        };
        Ok((position, since_ms))
    }

    /// How often streams show signs of life.
    pub(super) fn checkpoint_every(&self) -> Duration {
        self.checkpoint_every
    }

    /// Reads a page of events, the latest arrival first.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn list(&self, query: &Query) -> Result<Page, Error> {
        listing::read(&self.store, query).await
    }

    /// Reads the event with Stripe's id `id` that `account` received, if the log has it.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn get(&self, account: &str, id: &str) -> Result<Option<StoredEvent>, Error> {
        let found = self.store.event(id).await?;
        Ok(found.filter(|stored| stored.event.account == account))
    }

    /// The events after `position` in log order: at most `count_max`, and no more once their bodies exceed `bytes_max`; an
    /// event that is larger alone still comes. Recent ones come from memory, shared with everybody else who reads them.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn after(
        &self,
        position: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<LogEvent>>, Error> {
        if let Some(recent) = self.recent.after(position, count_max, bytes_max) {
            return Ok(recent);
        }
        Ok(log_event::shared(self.store.events_after(position, count_max, bytes_max).await?))
    }

    /// Events that concern the object `id`, after `position` in log order: at most `count_max`, and fewer where they are
    /// large. Only an empty answer is the end.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn about(
        &self,
        id: &str,
        position: u64,
        count_max: usize,
    ) -> Result<Vec<StoredEvent>, store::Error> {
        self.store.events_with(id, position, count_max, EVENT_BATCH_BYTES_MAX).await
    }

    /// From where to where the log reaches, or `None` while it has had no event. Events of the gateway's own say nothing of
    /// when Stripe made the newest.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn span(&self) -> Result<Option<EventSpan>, Error> {
        Ok(self.store.event_span(EventSource::Synthetic.into()).await?)
    }

    /// The position of the newest event, 0 before the first; it announces every change.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<u64> {
        self.store.events_head()
    }

    /// The cursor that stands right behind `position`.
    #[must_use]
    pub fn cursor(&self, position: u64) -> Cursor {
        Cursor { log: self.store.run_at(position), position }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The position before that of the oldest event.
    pub(super) async fn floor(&self) -> Result<u64, Error> {
        let head = *self.store.events_head().borrow();
        Ok(self.store.events_oldest().await?.map_or(head, |oldest| oldest.saturating_sub(1)))
    }
}

/// Where a reader goes on that has come to `position`: there, unless a planted fault skips an event or shows one again.
fn resumed(position: u64) -> u64 {
    let skipped = u64::from(planted::active("cursor-skips"));
    let again = u64::from(planted::active("cursor-repeats"));
    position.saturating_add(skipped).saturating_sub(again)
}
