//! At most one call of an operation on its way in this process: the first leads, equal ones wait for what it learns. It
//! knows nothing of what an answer means.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::limits::FLIGHT_FOLLOWERS_MAX;
use crate::domain::operation::OperationHash;

/// The calls on their way, by operation; `A` is what a leader learns. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Flights<A> {
    leaders: Arc<Leaders<A>>,
}

type Leaders<A> = Mutex<HashMap<OperationHash, watch::Sender<Option<A>>>>;

/// The place of a call.
#[derive(Debug)]
pub(super) enum Place<A> {
    /// Nothing else of the operation is on its way.
    Lead(Flight<A>),
    /// Somebody leads.
    Follow(Follower<A>),
    /// Too many wait already.
    Full,
}

/// The right to send. Dropping it, in a panic too, lets the next one lead.
#[derive(Debug)]
pub(super) struct Flight<A> {
    operation: OperationHash,
    leaders: Arc<Leaders<A>>,
}

/// A call that waits for its leader.
#[derive(Debug)]
pub(super) struct Follower<A>(watch::Receiver<Option<A>>);

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited<A> {
    /// The leader learnt this.
    Landed(A),
    /// The leader is gone and left nothing.
    Lost,
    /// The time is over; the leader is still on its way.
    TimedOut,
}

impl<A> Default for Flights<A> {
    fn default() -> Self {
        Self { leaders: Arc::default() }
    }
}

impl<A: Clone> Flights<A> {
    /// Takes a place for a call of `operation`.
    pub(super) fn enter(&self, operation: OperationHash) -> Place<A> {
        match lock(&self.leaders).entry(operation) {
            Entry::Vacant(entry) => {
                entry.insert(watch::Sender::new(None));
                Place::Lead(Flight { operation, leaders: Arc::clone(&self.leaders) })
            }
            Entry::Occupied(entry) if entry.get().receiver_count() >= FLIGHT_FOLLOWERS_MAX => Place::Full,
            Entry::Occupied(entry) => Place::Follow(Follower(entry.get().subscribe())),
        }
    }

    /// Whether a call of `operation` is on its way.
    pub(super) fn live(&self, operation: &OperationHash) -> bool {
        lock(&self.leaders).contains_key(operation)
    }
}

impl<A> Flight<A> {
    /// Ends the flight and tells the followers what it learnt.
    pub(super) fn land(self, answer: A) {
        if let Some(leader) = lock(&self.leaders).get(&self.operation) {
            leader.send_replace(Some(answer));
        }
    }
}

impl<A> Drop for Flight<A> {
    fn drop(&mut self) {
        lock(&self.leaders).remove(&self.operation);
    }
}

impl<A: Clone> Follower<A> {
    /// Waits for the leader, until `deadline` at the longest.
    pub(super) async fn wait(mut self, deadline: Instant) -> Waited<A> {
        match tokio::time::timeout_at(deadline, self.0.wait_for(Option::is_some)).await {
            Err(_) => Waited::TimedOut,
            Ok(Err(_)) => Waited::Lost,
            Ok(Ok(answer)) => answer.clone().map_or(Waited::Lost, Waited::Landed),
        }
    }
}

/// A panic elsewhere leaves the map whole: each use is one insert, look-up or removal.
fn lock<A>(leaders: &Leaders<A>) -> MutexGuard<'_, HashMap<OperationHash, watch::Sender<Option<A>>>> {
    leaders.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ORDER: OperationHash = OperationHash([1; 32]);

    fn lead(flights: &Flights<u8>) -> Flight<u8> {
        let Place::Lead(flight) = flights.enter(ORDER) else { panic!("somebody leads already") };
        flight
    }

    fn follow(flights: &Flights<u8>) -> Follower<u8> {
        let Place::Follow(follower) = flights.enter(ORDER) else { panic!("nobody leads") };
        follower
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn followers_get_what_the_leader_learnt() {
        let flights = Flights::default();
        let flight = lead(&flights);
        let followers: Vec<_> = (0..5).map(|_| follow(&flights)).collect();
        let waits: Vec<_> =
            followers.into_iter().map(|follower| tokio::spawn(follower.wait(soon()))).collect();
        flight.land(7);
        for wait in waits {
            assert_eq!(wait.await.unwrap(), Waited::Landed(7));
        }
        assert!(!flights.live(&ORDER));
    }

    #[tokio::test]
    async fn followers_outlive_a_leader_that_panics() {
        let flights = Flights::default();
        let flight = lead(&flights);
        let follower = follow(&flights);
        let leader = tokio::spawn(async move {
            let _flight = flight;
            panic!("on purpose");
        });
        assert!(leader.await.is_err());
        assert_eq!(follower.wait(soon()).await, Waited::Lost);
        drop(lead(&flights));
    }

    #[tokio::test]
    async fn a_wait_ends_at_its_deadline_and_the_flight_goes_on() {
        let flights = Flights::default();
        let flight = lead(&flights);
        assert_eq!(follow(&flights).wait(Instant::now()).await, Waited::TimedOut);
        assert!(flights.live(&ORDER));
        flight.land(1);
    }

    #[test]
    fn no_more_wait_than_the_limit_and_other_operations_are_not_held_up() {
        let flights = Flights::default();
        let _flight = lead(&flights);
        let followers: Vec<_> = (0..FLIGHT_FOLLOWERS_MAX).map(|_| follow(&flights)).collect();
        assert!(matches!(flights.enter(ORDER), Place::Full));
        assert!(matches!(flights.enter(OperationHash([2; 32])), Place::Lead(_)));
        drop(followers);
        follow(&flights);
    }
}
