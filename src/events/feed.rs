//! The one handle to the event log: appends what has been verified, and opens the ways to read it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::envelope::Envelope;
use super::filter::Filter;
use super::listing::{self, Page, Query};
use super::subscription::Subscription;
use crate::domain::clock::{Clock, UnixMillis};
use crate::domain::cursor::Cursor;
use crate::domain::limits::{EVENT_BATCH_BYTES_MAX, EVENT_DISORDER_MS_MAX};
use crate::proto::v1::EventSource;
use crate::store::{self, Appended, Batch, NewEvent, Store, StoredEvent};

/// The event log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    store: Store,
    clock: Arc<dyn Clock>,
    checkpoint_every: Duration,
}

/// A verified event on its way into the log.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What was read out of `json`.
    pub envelope: Envelope,
    /// Alias of the Stripe account whose endpoint received it; empty for the default.
    pub account: String,
    /// How it came.
    pub source: EventSource,
    /// The event as Stripe sent it.
    pub json: String,
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
    /// Events behind the cursor have left the log.
    #[error("the log no longer has the events that follow the cursor")]
    Expired {
        /// The oldest cursor that works.
        oldest: Cursor,
    },
    /// The cursor belongs to another log, or to what this one was before it was restored from an older copy.
    #[error("the cursor is of another log than this one")]
    Foreign {
        /// The oldest cursor that works.
        oldest: Cursor,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Feed {
    /// The log in `store`. Streams show signs of life every `checkpoint_every`.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, checkpoint_every: Duration) -> Self {
        Self { store, clock, checkpoint_every }
    }

    /// Appends an event, unless the log has its id already. It is durable when this returns.
    ///
    /// # Errors
    /// When the store failed; Stripe must then be told to deliver again.
    pub async fn append(&self, arrival: Arrival) -> Result<Appended, Error> {
        let Arrival { envelope, account, source, json } = arrival;
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
        let head = self.store.events_head();
        let now = *head.borrow();
        let mut since_ms = UnixMillis::MIN;
        let position = match start {
            Start::Latest => now,
            Start::Earliest => self.floor().await?,
            Start::At(instant) => {
                since_ms = instant;
                // Deliveries that come at once may be stored in another order than they were received in.
                let early = instant.saturating_sub(EVENT_DISORDER_MS_MAX);
                self.store.event_position_at(early).await?.saturating_sub(1)
            }
            Start::After(cursor) => {
                let floor = self.floor().await?;
                let oldest = self.cursor(floor);
                if cursor.log != oldest.log || cursor.position > now {
                    return Err(Error::Foreign { oldest });
                }
                if cursor.position < floor {
                    return Err(Error::Expired { oldest });
                }
                cursor.position
            }
        };
        Ok(Subscription::new(self.clone(), (filter, since_ms), position, head, self.checkpoint_every))
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

    /// The position of the newest event, 0 before the first; it announces every change.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<u64> {
        self.store.events_head()
    }

    /// The cursor that stands right behind `position`.
    #[must_use]
    pub fn cursor(&self, position: u64) -> Cursor {
        Cursor { log: self.store.log_id(), position }
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
