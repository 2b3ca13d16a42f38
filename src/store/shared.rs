//! What the writer shows to the callers without a look at the disk: the tail, the heads, and the buffer of lazy rows.

use std::sync::atomic::AtomicU64;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::watch;

use super::commit::{Last, number};
use super::lazy::Lazy;
use super::rows::StoredEvent;
use super::tail::Tail;

/// Takes the events that have just become durable, in log order.
pub type Sink = Box<dyn Fn(Vec<StoredEvent>) + Send + Sync>;

/// Is told how long a commit took.
pub(super) type Stopwatch = Box<dyn Fn(Duration) + Send + Sync>;

/// What the writer shows to the callers.
pub(super) struct Shared {
    tail: RwLock<Tail>,
    pub(super) head: watch::Sender<u64>,
    pub(super) audit_head: watch::Sender<u64>,
    pub(super) lazy: Lazy,
    pub(super) groups: AtomicU64,
    pub(super) sink: OnceLock<Sink>,
    pub(super) stopwatch: OnceLock<Stopwatch>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Shared").field("head", &self.head).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(tail: Tail, last: Last) -> Self {
        Self {
            tail: RwLock::new(tail),
            head: watch::Sender::new(number(last.position)),
            audit_head: watch::Sender::new(number(last.audit)),
            lazy: Lazy::default(),
            groups: AtomicU64::new(0),
            sink: OnceLock::new(),
            stopwatch: OnceLock::new(),
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
