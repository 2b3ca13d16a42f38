//! One reader's way through the log. It reads ahead by a bounded batch and holds nothing else, so a slow reader costs
//! the same as a fast one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::cause::Viewer;
use super::feed::{Error, Feed};
use super::filter::Filter;
use super::log_event::LogEvent;
use crate::domain::clock::UnixMillis;
use crate::domain::cursor::Cursor;
use crate::domain::limits::{EVENT_BATCH_EVENTS_MAX, STREAM_AHEAD_BYTES_MAX};
use crate::domain::planted;
use crate::store;

/// A stream of events from one place in the log onwards.
#[derive(Debug)]
pub struct Subscription {
    feed: Feed,
    filter: Filter,
    /// Events that were received before this do not match.
    since_ms: UnixMillis,
    /// Everything up to here has been handed out or did not match.
    position: u64,
    /// What comes next, read ahead; begins right behind `position`.
    ahead: VecDeque<Arc<LogEvent>>,
    head: watch::Receiver<u64>,
    /// The reader has still to be told when it has caught up.
    behind: bool,
    checkpoint_every: Duration,
    /// Ends when a checkpoint is due; one timer for the stream's whole life.
    checkpoint_due: Pin<Box<Sleep>>,
}

/// What comes next on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The next event that matches.
    Event(Arc<LogEvent>),
    /// A sign of life.
    Checkpoint(Checkpoint),
    /// The reader has come up to the head, which is here.
    CaughtUp(Cursor),
}

/// How far a reader has come, and how far the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where the reader is.
    pub cursor: Cursor,
    /// Position of the last event; 0 when there is none.
    pub head: u64,
    /// When the last event was received, if the log still has it.
    pub head_received_ms: Option<UnixMillis>,
}

impl Subscription {
    pub(super) fn new(
        feed: Feed,
        (filter, since_ms): (Filter, UnixMillis),
        position: u64,
        head: watch::Receiver<u64>,
        checkpoint_every: Duration,
    ) -> Self {
        let checkpoint_due = Box::pin(sleep_until(Instant::now() + checkpoint_every));
        let ahead = VecDeque::new();
        Self { feed, filter, since_ms, position, ahead, head, behind: true, checkpoint_every, checkpoint_due }
    }

    /// Where the reader is: what has been handed out lies at or before it.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.feed.cursor(self.position)
    }

    /// From now on asks for its reader as it is now: see [`Filter::seen_by`].
    pub fn seen_by(&mut self, viewer: Viewer) {
        self.filter.seen_by(viewer);
    }

    /// Waits for what comes next. Nothing is lost when the wait is given up and begun anew.
    ///
    /// # Errors
    /// When the log has dropped what the reader had still to read, or the store failed or closed. The stream may be
    /// asked again after a failure of the store.
    pub async fn next(&mut self) -> Result<Item, Error> {
        loop {
            if Instant::now() >= self.checkpoint_due.deadline() {
                return self.checkpoint().await.map(Item::Checkpoint);
            }
            if let Some(event) = self.next_read() {
                return Ok(Item::Event(event));
            }
            if *self.head.borrow_and_update() > self.position {
                self.read_ahead().await?;
            } else if std::mem::take(&mut self.behind) {
                return Ok(Item::CaughtUp(self.cursor()));
            } else {
                tokio::select! {
                    changed = self.head.changed() => changed.map_err(|_| store::Error::Closed)?,
                    () = &mut self.checkpoint_due => {}
                }
            }
        }
    }

    /// The next matching event of those read ahead; passes over the others. `None` says only that there is something to
    /// wait for.
    pub fn next_read(&mut self) -> Option<Arc<LogEvent>> {
        while let Some(logged) = self.ahead.pop_front() {
            self.position = logged.position;
            if logged.event.received_ms >= self.since_ms && self.filter.matches(&logged) {
                return Some(logged);
            }
        }
        None
    }

    async fn read_ahead(&mut self) -> Result<(), Error> {
        // Whoever is this far behind wants to know when it is over.
        self.behind |= self.lag() > EVENT_BATCH_EVENTS_MAX as u64;
        let batch = self.feed.after(self.position, EVENT_BATCH_EVENTS_MAX, STREAM_AHEAD_BYTES_MAX).await?;
        let contiguous = batch.first().is_some_and(|first| first.position == self.position + 1);
        if !contiguous {
            let oldest = self.feed.cursor(self.feed.floor().await?);
            return Err(Error::Expired { oldest });
        }
        self.ahead = batch.into();
        Ok(())
    }

    /// Events between the reader and the head.
    fn lag(&self) -> u64 {
        self.head.borrow().saturating_sub(self.position)
    }

    async fn checkpoint(&mut self) -> Result<Checkpoint, Error> {
        // Who reads may know of more than was told.
        let head = self.position.max(*self.head.borrow());
        let last = self.feed.after(head.saturating_sub(1), 1, STREAM_AHEAD_BYTES_MAX).await?;
        // Late is better than never, and better than in a burst.
        self.checkpoint_due.as_mut().reset(Instant::now() + self.checkpoint_every);
        let head_received_ms = last.first().map(|logged| logged.event.received_ms);
        let cursor = if planted::active("checkpoint-ahead") { self.feed.cursor(head) } else { self.cursor() };
        Ok(Checkpoint { cursor, head, head_received_ms })
    }
}
