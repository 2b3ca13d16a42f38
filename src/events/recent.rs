//! The newest events in memory, so that readers near the head share them instead of each reading the store. It may lack
//! any of them and never makes one up: the log is the store's.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::log_event::{self, LogEvent};
use crate::domain::limits::EVENT_MEMORY_BYTES;
use crate::store::StoredEvent;

/// The end of the log, as much as fits.
#[derive(Debug)]
pub(super) struct Recent(RwLock<Ring>);

#[derive(Debug)]
struct Ring {
    /// In log order and without a gap.
    events: VecDeque<Arc<LogEvent>>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Recent {
    fn default() -> Self {
        let ring = Ring { events: VecDeque::new(), bytes: 0, bytes_max: EVENT_MEMORY_BYTES };
        Self(RwLock::new(ring))
    }
}

impl Recent {
    /// Changes how much memory the events may take, in bytes. The newest one stays whatever its size.
    pub(super) fn limit(&self, bytes_max: usize) {
        let mut ring = self.write();
        ring.bytes_max = bytes_max;
        ring.shrink();
    }

    /// Takes the events that have just become durable, in log order.
    pub(super) fn append(&self, stored: Vec<StoredEvent>) {
        let events = log_event::shared(stored);
        let mut ring = self.write();
        for event in events {
            // Rows whose commit was in doubt for a while may have been skipped.
            if ring.last().is_some_and(|last| last.position + 1 != event.position) {
                ring.clear();
            }
            ring.bytes += event.bytes_max();
            ring.events.push_back(event);
        }
        ring.shrink();
    }

    /// The events after `position`, at least one: at most `count_max` of them, and no more once their bodies exceed
    /// `bytes_max`. `None` where the memory does not reach back that far or has no such event.
    pub(super) fn after(
        &self,
        position: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> Option<Vec<Arc<LogEvent>>> {
        let ring = self.read();
        let first = ring.events.front()?.position;
        let skipped = usize::try_from((position + 1).checked_sub(first)?).ok()?;
        let mut bytes = 0_usize;
        let fits = |event: &&Arc<LogEvent>| {
            let begun = bytes > 0;
            bytes = bytes.saturating_add(event.event.json.len());
            !begun || bytes <= bytes_max
        };
        let events: Vec<_> =
            ring.events.iter().skip(skipped).take(count_max).take_while(fits).map(Arc::clone).collect();
        (!events.is_empty()).then_some(events)
    }

    fn read(&self) -> RwLockReadGuard<'_, Ring> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Ring> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn last(&self) -> Option<&LogEvent> {
        self.events.back().map(AsRef::as_ref)
    }

    fn clear(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }

    fn shrink(&mut self) {
        while self.bytes > self.bytes_max && self.events.len() > 1 {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.bytes_max();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::NewEvent;

    fn stored(position: u64, bytes: usize) -> StoredEvent {
        StoredEvent { position, event: NewEvent { json: "x".repeat(bytes), ..NewEvent::default() } }
    }

    fn positions(events: Option<Vec<Arc<LogEvent>>>) -> Vec<u64> {
        events.unwrap_or_default().iter().map(|event| event.position).collect()
    }

    #[test]
    fn a_gap_forgets_what_was_before_it() {
        let recent = Recent::default();
        recent.append(vec![stored(4, 1), stored(5, 1)]);
        assert_eq!(positions(recent.after(3, 9, 9)), [4, 5]);
        assert_eq!(recent.after(2, 9, 9), None);
        recent.append(vec![stored(7, 1)]);
        assert_eq!((recent.after(4, 9, 9), positions(recent.after(6, 9, 9))), (None, vec![7]));
    }

    #[test]
    fn the_newest_stays_whatever_its_size() {
        let recent = Recent::default();
        recent.limit(1);
        recent.append(vec![stored(1, 10), stored(2, 10_000)]);
        assert_eq!(positions(recent.after(1, 9, 9)), [2]);
    }

    proptest! {
        #[test]
        fn it_answers_as_the_log_would_or_not_at_all(
            sizes in prop::collection::vec(1_usize..300, 1..40),
            memory in 0_usize..40_000,
            after in 0_u64..45,
            count_max in 1_usize..10,
            bytes_max in 1_usize..1000,
        ) {
            let recent = Recent::default();
            recent.limit(memory);
            let log: Vec<StoredEvent> = (1..).zip(&sizes).map(|(position, bytes)| stored(position, *bytes)).collect();
            for chunk in log.chunks(3) {
                recent.append(chunk.to_vec());
            }
            let kept = recent.read().events.iter().map(|event| event.bytes_max()).sum::<usize>();
            prop_assert_eq!(kept, recent.read().bytes);
            prop_assert!(kept <= memory || recent.read().events.len() == 1);
            let mut bytes = 0;
            let expected: Vec<u64> = log
                .iter()
                .filter(|event| event.position > after)
                .take(count_max)
                .take_while(|event| {
                    bytes += event.event.json.len();
                    bytes == event.event.json.len() || bytes <= bytes_max
                })
                .map(|event| event.position)
                .collect();
            let found = recent.after(after, count_max, bytes_max);
            let first = recent.read().events.front().map(|event| event.position).unwrap();
            prop_assert_eq!(found.is_some(), after + 1 >= first && !expected.is_empty());
            if found.is_some() {
                prop_assert_eq!(positions(found), expected);
            }
        }
    }
}
