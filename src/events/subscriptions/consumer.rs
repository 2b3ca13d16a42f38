//! One stream of a subscription: takes events as it may, looks ahead in the log for more, and shows signs of life.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::ack::AckId;
use super::named::{Named, Standing, Unkept, known};
use super::progress::{Taken, Taker};
use crate::domain::clock::Clock;
use crate::domain::limits::{EVENT_BATCH_BYTES_MAX, EVENT_BATCH_EVENTS_MAX};
use crate::events::{self, Feed, LogEvent};
use crate::store;

/// A stream of one subscription. Dropping it ends it; what it has out stays so until the leases end.
#[derive(Debug)]
pub struct Consumer {
    feed: Feed,
    clock: Arc<dyn Clock>,
    named: Arc<Named>,
    taker: Taker,
    /// Taken, and not handed out yet.
    pending: Option<(Taken, u32)>,
    changes: watch::Receiver<u64>,
    head: watch::Receiver<u64>,
    checkpoint_every: Duration,
    checkpoint_due: Pin<Box<Sleep>>,
}

/// What comes next on a stream.
#[derive(Debug)]
pub enum Supply {
    /// An event to be dealt with.
    Event {
        /// The event.
        logged: Arc<LogEvent>,
        /// Its delivery.
        taken: Taken,
        /// What the delivery is named by.
        ack_id: AckId,
    },
    /// A sign of life.
    Checkpoint(Standing),
}

/// Why a stream ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The subscription was deleted.
    #[error("the subscription was deleted")]
    Ended,
    /// Another stream has taken the consumer's name.
    #[error("another stream of the same consumer name was opened")]
    Replaced,
    /// The log cannot be read, or what was taken cannot be put on record.
    #[error(transparent)]
    Feed(#[from] events::Error),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Feed(error.into())
    }
}

impl From<Unkept> for Error {
    fn from(error: Unkept) -> Self {
        match error {
            Unkept::Ended => Self::Ended,
            Unkept::Store(error) => error.into(),
        }
    }
}

impl Consumer {
    /// Opens a stream for a consumer of this name.
    pub(super) fn open(
        (feed, clock): (Feed, Arc<dyn Clock>),
        named: Arc<Named>,
        (name, in_flight_max): (&str, usize),
    ) -> Self {
        let (name, changes, head) = (Arc::from(name), named.changes(), feed.head());
        let stream = named.state().join(&name, clock.now());
        named.wake();
        let checkpoint_every = feed.checkpoint_every();
        Self {
            feed,
            clock,
            named,
            taker: Taker { stream, name, in_flight_max },
            pending: None,
            changes,
            head,
            checkpoint_every,
            checkpoint_due: Box::pin(sleep_until(Instant::now() + checkpoint_every)),
        }
    }

    /// The subscription.
    #[must_use]
    pub fn named(&self) -> &Arc<Named> {
        &self.named
    }

    /// Waits for what comes next. Events of types that are not `shown` to the consumer are left for others, and passed over
    /// for the subscription where those are not `wanted` either, which is asked once of every such event. Nothing is lost
    /// when the wait is given up and begun anew.
    ///
    /// # Errors
    /// When the stream is over, or the store failed; after that the stream may be asked again.
    pub async fn next(
        &mut self,
        mut shown: impl FnMut(&str) -> bool,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<Supply, Error> {
        loop {
            self.changes.mark_unchanged();
            self.head.mark_unchanged();
            match self.named.state().has(self.taker.stream) {
                None => return Err(Error::Ended),
                Some(false) => return Err(Error::Replaced),
                Some(true) => {}
            }
            if Instant::now() >= self.checkpoint_due.deadline() {
                return self.checkpoint().await.map(Supply::Checkpoint);
            }
            let now = self.clock.now();
            if self.pending.is_none() {
                self.pending = self.named.state().take(&self.taker, now, &mut shown);
            }
            if let Some((taken, generation)) = self.pending {
                if let Some(logged) = self.fetch(taken, &mut shown).await? {
                    let ack_id = self.named.ack_id(generation, taken);
                    return Ok(Supply::Event { logged, taken, ack_id });
                }
            } else if !self.look(&mut shown, &mut wanted).await? {
                self.wait().await?;
            }
        }
    }

    /// The event that was taken, unless it is gone or may not be shown any more.
    async fn fetch(
        &mut self,
        taken: Taken,
        shown: &mut impl FnMut(&str) -> bool,
    ) -> Result<Option<Arc<LogEvent>>, Error> {
        let position = taken.position;
        let found = self.feed.after(position.saturating_sub(1), 1, 1).await?;
        let logged = found.into_iter().next().filter(|logged| logged.position == position);
        let Some(logged) = logged else {
            self.pending = None;
            self.named.lose(position);
            return Ok(None);
        };
        if !shown(&logged.event.kind) {
            // The policies have changed since it was taken.
            self.pending = None;
            self.named.state().progress.untake(taken, self.taker.stream);
            self.named.wake();
            return Ok(None);
        }
        if taken.attempt > 1 {
            self.named.keep(Vec::new()).await?;
        }
        self.pending = None;
        // A slow disk can outlast the lease, and then the event is another's.
        let is_out = self.named.state().progress.is_out(taken, self.taker.stream);
        Ok(is_out.then_some(logged))
    }

    /// Looks at what comes next in the log; answers whether there was anything.
    async fn look(
        &self,
        shown: &mut impl FnMut(&str) -> bool,
        wanted: &mut impl FnMut(&str) -> bool,
    ) -> Result<bool, Error> {
        let (from, generation, room) = {
            let progress = &mut self.named.state().progress;
            if progress.is_paused() || progress.has_ready(self.clock.now(), &mut *shown) {
                return Ok(false);
            }
            (progress.look_behind(), progress.generation(), progress.room())
        };
        if room == 0 || *self.head.borrow() <= from {
            return Ok(false);
        }
        let batch = self.feed.after(from, room.min(EVENT_BATCH_EVENTS_MAX), EVENT_BATCH_BYTES_MAX).await?;
        let looked: Vec<_> =
            batch.iter().map(|logged| (logged, known(logged), self.named.lets_through(logged))).collect();
        let mut state = self.named.state();
        let progress = &mut state.progress;
        // Another stream may have looked meanwhile, or the place may have been moved.
        if (progress.looked(), progress.generation()) != (from, generation) {
            return Ok(true);
        }
        let mut any_lost = false;
        for (logged, known, lets_through) in looked {
            let kind = &logged.event.kind;
            // What is open since before a restart is so whatever is said of it now.
            let matches = lets_through
                && logged.position > progress.reach()
                && progress.is_since(logged.event.received_ms)
                && (shown(kind) || wanted(kind));
            if let Some(lost) = progress.look(logged.position, known, matches) {
                self.named.tell(lost);
                any_lost = true;
            }
        }
        if any_lost {
            state.note();
        }
        drop(state);
        // Other consumers may be waiting for just these; this one looks for itself.
        self.named.wake();
        Ok(!batch.is_empty())
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self) -> Result<(), Error> {
        let due = self.named.state().progress.due_in_ms(self.clock.now());
        let due =
            due.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default().saturating_add(1)));
        let due = async {
            match due {
                Some(due) => sleep(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.head.changed() => changed.map_err(|_| store::Error::Closed)?,
            // It is changed for as long as this holds it.
            _ = self.changes.changed() => {}
            () = due => self.named.expire(self.clock.now()),
            () = &mut self.checkpoint_due => {}
        }
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<Standing, Error> {
        let standing = self.named.standing(&self.feed, self.clock.now()).await?;
        self.checkpoint_due.as_mut().reset(Instant::now() + self.checkpoint_every);
        Ok(standing)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let mut state = self.named.state();
        state.leave(self.taker.stream);
        if let Some((taken, _)) = self.pending {
            state.progress.untake(taken, self.taker.stream);
            drop(state);
            self.named.wake();
        }
    }
}
