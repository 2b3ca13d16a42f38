//! The head of the log as readers hear of it: one task hears it from the store and tells all of them, so that the thread
//! that writes wakes one task and not a thousand. What a reader is told may be late, and never ahead of what is durable.

use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::limits::EVENT_HEAD_EVERY_MS;
use crate::store::Store;

/// The head, told on.
#[derive(Debug)]
pub(super) struct Head {
    told: Arc<watch::Sender<u64>>,
    begun: Once,
}

impl Default for Head {
    fn default() -> Self {
        Self { told: Arc::new(watch::Sender::new(0)), begun: Once::new() }
    }
}

impl Head {
    /// The head of the log of `store`: at least where it is now, and every change from now on. Needs a runtime.
    pub(super) fn of(&self, store: &Store) -> watch::Receiver<u64> {
        self.begun.call_once(|| {
            tokio::spawn(tell_on(store.events_head(), Arc::clone(&self.told)));
        });
        raise(&self.told, *store.events_head().borrow());
        self.told.subscribe()
    }
}

/// Ends with the store.
async fn tell_on(mut head: watch::Receiver<u64>, told: Arc<watch::Sender<u64>>) {
    while head.changed().await.is_ok() {
        let now = *head.borrow_and_update();
        raise(&told, now);
        tokio::time::sleep(Duration::from_millis(EVENT_HEAD_EVERY_MS)).await;
    }
}

/// Two may tell at once, and the later one of them an earlier head.
fn raise(told: &watch::Sender<u64>, now: u64) {
    told.send_if_modified(|head| std::mem::replace(head, now.max(*head)) < now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_told_once_and_never_taken_back() {
        let told = watch::Sender::new(5);
        let mut reader = told.subscribe();
        for now in [3, 5] {
            raise(&told, now);
            assert!(!reader.has_changed().unwrap());
        }
        raise(&told, 6);
        assert!(reader.has_changed().unwrap());
        assert_eq!(*reader.borrow_and_update(), 6);
    }
}
