//! What the writer shows to the callers without a look at the disk: the tail, the heads, and the buffer of lazy rows.

use std::sync::atomic::AtomicU64;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::commit::{Last, number};
use super::lazy::Lazy;
use super::tail::Tail;

/// What the writer shows to the callers.
#[derive(Debug)]
pub(super) struct Shared {
    tail: RwLock<Tail>,
    pub(super) head: watch::Sender<u64>,
    pub(super) audit_head: watch::Sender<u64>,
    pub(super) lazy: Lazy,
    pub(super) groups: AtomicU64,
}

impl Shared {
    pub(super) fn new(tail: Tail, last: Last) -> Self {
        Self {
            tail: RwLock::new(tail),
            head: watch::Sender::new(number(last.position)),
            audit_head: watch::Sender::new(number(last.audit)),
            lazy: Lazy::default(),
            groups: AtomicU64::new(0),
        }
    }

    /// Announces the last rows of the logs, where they are new.
    pub(super) fn announce(&self, last: Last) {
        for (head, last) in [(&self.head, last.position), (&self.audit_head, last.audit)] {
            let last = number(last);
            head.send_if_modified(|head| std::mem::replace(head, last) != last);
        }
    }

    pub(super) fn tail(&self) -> RwLockReadGuard<'_, Tail> {
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only the writer changes it.
    pub(super) fn tail_mut(&self) -> RwLockWriteGuard<'_, Tail> {
        self.tail.write().unwrap_or_else(PoisonError::into_inner)
    }
}
