//! Reads under way that others share: who asks for the very same gets the same answer of Stripe's. Each call is judged and
//! audited by itself before and after; only the request is one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::domain::limits::STRIPE_QUEUE_MS_MAX;
use crate::stripe::traffic::Why;
use crate::stripe::{Attempt, Outgoing, Sent, Trouble};

/// What a request is, and the account that it goes to by its alias.
type Key = (String, Outgoing);
type Cell = Arc<Reading>;

/// A read under way.
#[derive(Debug, Default)]
struct Reading {
    answer: OnceCell<Arc<Sent>>,
    /// What the first one got who waited for a turn in vain.
    in_vain: OnceLock<Arc<Sent>>,
}

/// The reads under way; cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedReads {
    reads: Arc<Mutex<HashMap<Key, Cell>>>,
    /// How long anybody waits for a turn.
    patience: Duration,
}

impl Default for SharedReads {
    fn default() -> Self {
        Self { reads: Arc::default(), patience: Duration::from_millis(STRIPE_QUEUE_MS_MAX) }
    }
}

impl SharedReads {
    /// What `own` comes to, or what the same read of somebody else's comes to that is under way; and whether it was
    /// somebody else's. Who leaves, or finds no turn, hands the read on to another one who waits for it; but nobody who
    /// has waited for a turn in vain behind another one begins to wait for one of its own.
    pub(super) async fn read(
        &self,
        alias: &str,
        outgoing: &Outgoing,
        own: impl Future<Output = Sent>,
    ) -> (Arc<Sent>, bool) {
        let place = Place::take(self, (alias.to_owned(), outgoing.clone()));
        let (since, mut sent_own) = (Instant::now(), false);
        let read = place.cell.answer.get_or_try_init(|| async {
            let in_vain = place.cell.in_vain.get().filter(|_| since.elapsed() >= self.patience);
            if let Some(in_vain) = in_vain {
                return Err(Arc::clone(in_vain));
            }
            sent_own = true;
            let sent = Arc::new(own.await);
            match sent.last() {
                // Another one may have more time, or a turn.
                Some(Attempt::NotSent(trouble)) if trouble.is_its_senders() => {
                    if let Trouble::Crowded { why: Why::Expired, .. } = trouble {
                        drop(place.cell.in_vain.set(Arc::clone(&sent)));
                    }
                    Err(sent)
                }
                _ => Ok(sent),
            }
        });
        let sent = read.await.map_or_else(|unsent| unsent, Arc::clone);
        (sent, !sent_own)
    }

    /// From now on reads are made anew: something has changed at Stripe that somebody knows of already, and who asks after
    /// that must not get an answer from before.
    pub(super) fn anew(&self) {
        self.under_way().clear();
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Key, Cell>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part in a read under way. With its answer, or with the last who waits for it, it is no longer one to join.
struct Place<'a> {
    reads: &'a SharedReads,
    key: Key,
    cell: Cell,
}

impl<'a> Place<'a> {
    fn take(reads: &'a SharedReads, key: Key) -> Self {
        let cell = Arc::clone(reads.under_way().entry(key.clone()).or_default());
        Self { reads, key, cell }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        /// The place itself, and the list's.
        const LAST: usize = 2;
        let mut under_way = self.reads.under_way();
        let is_over = self.cell.answer.initialized() || Arc::strong_count(&self.cell) <= LAST;
        if is_over && under_way.get(&self.key).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell)) {
            under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Poll;

    use super::*;
    use crate::contract::{Host, Verb};
    use crate::domain::account::AccountHeader;
    use crate::stripe::{Answer, Body};

    fn charge(id: &str) -> Outgoing {
        Outgoing {
            verb: Verb::Get,
            host: Host::Api,
            template: "/v1/charges/{charge}".to_owned(),
            path: format!("/v1/charges/{id}"),
            query: String::new(),
            body: Body::Empty,
            idempotency_key: None,
            version: String::new(),
            account: AccountHeader::None,
        }
    }

    fn answered(status: u16) -> Sent {
        Sent {
            attempts: vec![Attempt::Answered(Answer { status, ..Answer::default() })],
            queued: Duration::ZERO,
        }
    }

    fn status(sent: &Sent) -> u16 {
        sent.answer().unwrap().status
    }

    async fn slowly(made: &AtomicU32) -> Sent {
        let before = made.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
        answered(200 + u16::try_from(before).unwrap())
    }

    #[tokio::test]
    async fn the_same_read_under_way_is_one_request_and_another_read_another() {
        let (reads, made) = (SharedReads::default(), AtomicU32::new(0));
        let (first, second, other) = (charge("ch_1"), charge("ch_1"), charge("ch_2"));
        let ((a, a_shared), (b, b_shared), (c, _), (d, _)) = tokio::join!(
            reads.read("default", &first, slowly(&made)),
            reads.read("default", &second, slowly(&made)),
            reads.read("default", &other, slowly(&made)),
            reads.read("eu", &first, slowly(&made)),
        );
        assert_eq!((made.load(Ordering::SeqCst), a_shared, b_shared), (3, false, true));
        assert_eq!((status(&a), status(&b)), (200, 200));
        assert!(status(&c) != status(&d) && reads.under_way().is_empty());
    }

    #[tokio::test]
    async fn who_asks_after_a_change_gets_no_answer_from_before() {
        let (reads, made) = (SharedReads::default(), AtomicU32::new(0));
        let after = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            reads.anew();
            reads.read("default", &charge("ch_1"), slowly(&made)).await
        };
        let before = charge("ch_1");
        let ((first, _), (second, shared)) =
            tokio::join!(reads.read("default", &before, slowly(&made)), after);
        assert_eq!((status(&first), status(&second), shared), (200, 201, false));
        assert!(reads.under_way().is_empty());
    }

    #[tokio::test]
    async fn who_leaves_or_finds_no_turn_leaves_the_read_to_another() {
        let (reads, made, outgoing) = (SharedReads::default(), AtomicU32::new(0), charge("ch_1"));
        let none =
            async { Sent { attempts: vec![Attempt::NotSent(Trouble::Deadline)], queued: Duration::ZERO } };
        let ((unsent, _), (sent, shared)) = tokio::join!(
            reads.read("default", &outgoing, none),
            reads.read("default", &outgoing, slowly(&made)),
        );
        assert_eq!((unsent.answer(), status(&sent), shared), (None, 200, false));
        let mut leaving = Box::pin(reads.read("default", &outgoing, slowly(&made)));
        let mut staying = Box::pin(reads.read("default", &outgoing, slowly(&made)));
        let began = std::future::poll_fn(|context| {
            Poll::Ready((
                leaving.as_mut().poll(context).is_pending(),
                staying.as_mut().poll(context).is_pending(),
            ))
        });
        assert_eq!(began.await, (true, true));
        drop(leaving);
        assert!(!staying.await.1 && reads.under_way().is_empty());
    }

    async fn in_vain(made: &AtomicU32) -> Sent {
        made.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let crowded = Trouble::Crowded { why: Why::Expired, retry_ms: 500 };
        Sent { attempts: vec![Attempt::NotSent(crowded)], queued: Duration::from_millis(500) }
    }

    #[tokio::test]
    async fn who_waited_for_a_turn_in_vain_behind_another_waits_no_longer() {
        let reads = SharedReads { patience: Duration::from_millis(400), ..SharedReads::default() };
        let (made, outgoing) = (AtomicU32::new(0), charge("ch_1"));
        let late = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            reads.read("default", &outgoing, slowly(&made)).await
        };
        let ((first, _), (second, shared), (third, _), (late, late_shared)) = tokio::join!(
            reads.read("default", &outgoing, in_vain(&made)),
            reads.read("default", &outgoing, in_vain(&made)),
            reads.read("default", &outgoing, in_vain(&made)),
            late,
        );
        assert!(first.answer().is_none() && second == first && third == first && shared);
        assert_eq!((status(&late), late_shared), (201, false), "it had time left, and a turn");
        assert!(made.load(Ordering::SeqCst) == 2 && reads.under_way().is_empty());
    }
}
