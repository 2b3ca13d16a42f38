//! A durable place in the event log, for a reader inside the gateway. It reads; what to do with an event is the reader's.

use tokio::sync::watch;

use super::feed::{Error, Feed};
use crate::domain::limits::{EVENT_BATCH_BYTES_MAX, EVENT_BATCH_EVENTS_MAX};
use crate::store::{Batch, Setting, StoredEvent};

/// What stands before the name of a bookmark in the store.
const PREFIX: &str = "bookmark.";

/// A reader's place, kept under a name.
#[derive(Debug)]
pub struct Bookmark {
    feed: Feed,
    name: String,
    position: u64,
    head: watch::Receiver<u64>,
}

impl Bookmark {
    /// The place that was kept under this name, or the beginning of the log.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn open(feed: Feed, name: &str) -> Result<Self, Error> {
        let name = format!("{PREFIX}{name}");
        let kept = feed.store().setting(&name).await?;
        let kept = kept.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let head = feed.store().events_head();
        // A log that is shorter than the place is not the one in which it was kept.
        let place = kept.filter(|position| *position <= *head.borrow()).unwrap_or_default();
        let position = place.max(feed.floor().await?);
        Ok(Self { feed, name, position, head })
    }

    /// The events behind the place, some of them; waits while there are none.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn next(&mut self) -> Result<Vec<StoredEvent>, Error> {
        loop {
            let position = self.position;
            // The head is watched as long as the store lives.
            if self.head.wait_for(|head| *head > position).await.is_err() {
                return std::future::pending().await;
            }
            let store = self.feed.store();
            let events = store.events_after(position, EVENT_BATCH_EVENTS_MAX, EVENT_BATCH_BYTES_MAX).await?;
            if !events.is_empty() {
                return Ok(events);
            }
            // Retention has taken everything up to the head.
            self.position = self.feed.floor().await?.max(position);
        }
    }

    /// Moves the place behind `position`. Not durable before [`Bookmark::keep`].
    pub fn advance(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// Makes the place durable: after a crash the reader begins here or earlier.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn keep(&self) -> Result<(), Error> {
        let state = vec![Setting { name: self.name.clone(), value: self.position.to_be_bytes().to_vec() }];
        self.feed.store().commit(Batch { state, ..Batch::default() }).await?;
        Ok(())
    }
}
