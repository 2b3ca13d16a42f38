//! A durable place in the event log, for a reader inside the gateway. It reads; what to do with an event is the reader's.

use std::sync::Arc;

use tokio::sync::watch;

use super::feed::{Error, Feed};
use super::log_event::LogEvent;
use crate::domain::limits::{EVENT_BATCH_BYTES_MAX, EVENT_BATCH_EVENTS_MAX};
use crate::store::{Batch, Setting};

/// What stands before the name of a bookmark in the store.
const PREFIX: &str = "bookmark.";

/// A reader's place, kept under a name.
#[derive(Debug)]
pub struct Bookmark {
    feed: Feed,
    name: String,
    position: u64,
    /// The place that is durable.
    kept: u64,
    head: watch::Receiver<u64>,
}

impl Bookmark {
    /// The place that was kept under this name, or the beginning of the log; see [`Bookmark::next`] for what has left it.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn open(feed: Feed, name: &str) -> Result<Self, Error> {
        let kept = Self::kept(&feed, name).await?;
        let (floor, head) = (feed.floor().await?, feed.store().events_head());
        // Whoever begins has missed nothing.
        let position = if kept == 0 { floor } else { kept };
        let mut bookmark = Self { feed, name: format!("{PREFIX}{name}"), position, kept, head };
        bookmark.skip_to(floor);
        Ok(bookmark)
    }

    /// How far the reader of this name had come when its place was last kept; 0 for one that was never kept.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn kept(feed: &Feed, name: &str) -> Result<u64, Error> {
        let kept = feed.store().setting(&format!("{PREFIX}{name}")).await?;
        let place = kept.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        // A log that is shorter than the place is not the one in which it was kept.
        let head = *feed.store().events_head().borrow();
        Ok(place.filter(|position| *position <= head).unwrap_or_default())
    }

    /// The events behind the place, some of them; waits while there are none. Nothing is lost when the wait is given up.
    /// Where events have left the log unread, which an error in the gateway's own log tells, it goes on behind them.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn next(&mut self) -> Result<Vec<Arc<LogEvent>>, Error> {
        loop {
            let position = self.position;
            // The head is watched as long as the store lives.
            if self.head.wait_for(|head| *head > position).await.is_err() {
                return std::future::pending().await;
            }
            let events = self.feed.after(position, EVENT_BATCH_EVENTS_MAX, EVENT_BATCH_BYTES_MAX).await?;
            match events.first() {
                Some(first) => {
                    self.skip_to(first.position.saturating_sub(1));
                    return Ok(events);
                }
                // Retention has taken everything up to the head.
                None => {
                    let floor = self.feed.floor().await?;
                    self.skip_to(floor);
                }
            }
        }
    }

    /// Passes over the events up to `last`, which are not there any more.
    fn skip_to(&mut self, last: u64) {
        if last > self.position {
            let (bookmark, first) = (&self.name, self.position.saturating_add(1));
            tracing::error!(bookmark, first, last, "events left the log before the gateway read them");
            self.position = last;
        }
    }

    /// Moves the place behind `position`. Not durable before [`Bookmark::keep`].
    pub fn advance(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// Whether the place is another than the durable one.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        self.position != self.kept
    }

    /// Whether there is nothing behind the place.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.position >= *self.head.borrow()
    }

    /// Makes the place durable: after a crash the reader begins here or earlier.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn keep(&mut self) -> Result<(), Error> {
        let state = vec![Setting { name: self.name.clone(), value: self.position.to_be_bytes().to_vec() }];
        self.feed.store().commit(Batch { state, ..Batch::default() }).await?;
        self.kept = self.position;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use super::*;
    use crate::domain::clock::ManualClock;
    use crate::store::{NewEvent, Store, Terms};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn take(&self) -> String {
            let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8(std::mem::take(&mut *bytes)).unwrap()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_reader_whose_events_have_left_goes_on_behind_them_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Terms::default()).unwrap();
        let feed =
            Feed::new(store.clone(), Arc::new(ManualClock::at(1)), Duration::from_secs(60)).with_memory(0);
        let events = (1..=6).map(|number| NewEvent { id: format!("evt_{number}"), ..NewEvent::default() });
        store.commit(Batch { events: events.collect(), ..Batch::default() }).await.unwrap();

        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::ERROR)
            .with_writer(move || writer.clone())
            .finish();
        // With one subscriber in the process, an event that another test's thread reaches first would count as wanted by
        // nobody; with two, both are asked.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        let _guard = tracing::subscriber::set_default(subscriber);

        let mut bookmark = Bookmark::open(feed.clone(), "reader").await.unwrap();
        assert_eq!(bookmark.next().await.unwrap().first().unwrap().position, 1);
        bookmark.advance(1);
        bookmark.keep().await.unwrap();
        assert_eq!(log.take(), "");

        store.expire_events(3, 0).await.unwrap();
        assert_eq!(bookmark.next().await.unwrap().first().unwrap().position, 4);
        let told = log.take();
        assert!(told.contains("ERROR") && told.contains("first=2 last=3"), "{told}");
        bookmark.next().await.unwrap();
        assert_eq!(log.take(), "", "it is said once");

        Bookmark::open(feed.clone(), "reader").await.unwrap();
        assert!(log.take().contains("first=2 last=3"), "a gap that came while nobody read is told too");
        let newcomer = Bookmark::open(feed, "newcomer").await.unwrap();
        assert_eq!((newcomer.position, log.take().as_str()), (3, ""));
    }
}
