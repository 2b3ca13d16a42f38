//! How many calls are let in at once, of everybody and of each caller, and how that number falls while the gateway is
//! behind. It knows callers by name alone and makes no answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::domain::drain::Drain;
use crate::domain::limits::{
    CALLS_IN_FLIGHT_MIN, CALLS_PER_CALLER_MIN, CALLS_PER_FREE_PLACE, LAG_MS_MAX, LAG_TICK_MS, LAG_TICKS,
};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::Shed;

/// The places for calls; clones share them.
#[derive(Clone, Debug)]
pub struct Load {
    places: Arc<Mutex<Places>>,
    metrics: Metrics,
}

/// A place for one call, free again when it is dropped.
#[derive(Debug)]
#[must_use = "the place is free again as soon as this is dropped"]
pub struct Place {
    places: Arc<Mutex<Places>>,
    caller: String,
}

impl Load {
    /// At most so many places.
    #[must_use]
    pub fn new(calls_in_flight_max: usize, metrics: Metrics) -> Self {
        let places = Arc::new(Mutex::new(Places::new(calls_in_flight_max)));
        let shown = Arc::clone(&places);
        metrics.calls_in_flight(move || {
            let places = lock(&shown);
            let number = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
            (number(places.taken), number(places.limit))
        });
        Self { places, metrics }
    }

    /// A place for a call of this caller's.
    ///
    /// # Errors
    /// Why there is none.
    pub fn enter(&self, caller: &str) -> Result<Place, Shed> {
        lock(&self.places).take(caller).inspect_err(|why| self.metrics.call_shed(*why))?;
        Ok(Place { places: Arc::clone(&self.places), caller: caller.to_owned() })
    }

    /// Measures how far the gateway is behind, and has it take fewer calls for as long as that is too far.
    pub async fn watch(self, drain: Drain) {
        while !drain.has_begun() {
            let lag = least_lag().await;
            self.metrics.runtime_lag(lag);
            lock(&self.places).adapt(lag);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places).give_back(&self.caller);
    }
}

/// The least of some measurements of how late a task gets to run that is ready.
async fn least_lag() -> Duration {
    let tick = Duration::from_millis(LAG_TICK_MS);
    let mut least = Duration::MAX;
    for _ in 0..LAG_TICKS {
        let due = Instant::now() + tick;
        sleep(tick).await;
        least = least.min(due.elapsed());
    }
    least
}

/// Who has how many places.
#[derive(Debug)]
struct Places {
    most: usize,
    /// Places there are now.
    limit: usize,
    taken: usize,
    by_caller: HashMap<String, usize>,
}

impl Places {
    fn new(most: usize) -> Self {
        Self { most, limit: most, taken: 0, by_caller: HashMap::new() }
    }

    /// Each caller may take a few places in any case. Beyond those a caller may hold so many for each place that is free
    /// (the dynamic thresholds of Choudhury and Hahne): alone it gets most of them, with others all get the same, and
    /// some stay free for whoever comes next.
    fn take(&mut self, caller: &str) -> Result<(), Shed> {
        let free = self.limit.saturating_sub(self.taken);
        let held = self.by_caller.get(caller).copied().unwrap_or_default();
        if held >= CALLS_PER_CALLER_MIN && held >= free.saturating_mul(CALLS_PER_FREE_PLACE) {
            return Err(if free == 0 { Shed::Full } else { Shed::Share });
        }
        self.taken += 1;
        *self.by_caller.entry(caller.to_owned()).or_default() += 1;
        Ok(())
    }

    fn give_back(&mut self, caller: &str) {
        self.taken = self.taken.saturating_sub(1);
        match self.by_caller.get_mut(caller) {
            Some(held) if *held > 1 => *held -= 1,
            _ => drop(self.by_caller.remove(caller)),
        }
    }

    /// A tenth less than are taken while the gateway is behind, a twentieth more while it is not: calls that wait for
    /// Stripe cost it nothing, so their number alone says nothing.
    fn adapt(&mut self, lag: Duration) {
        self.limit = if lag > Duration::from_millis(LAG_MS_MAX) {
            (self.limit.min(self.taken) / 10 * 9).max(CALLS_IN_FLIGHT_MIN.min(self.most))
        } else {
            (self.limit + self.limit / 20 + 1).min(self.most)
        };
    }
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEHIND: Duration = Duration::from_millis(LAG_MS_MAX + 1);

    /// Has callers come by turns until nobody gets a place any more.
    fn flood(places: &mut Places, callers: &[&str]) {
        while callers.iter().filter(|caller| places.take(caller).is_ok()).count() > 0 {}
    }

    #[test]
    fn one_caller_alone_gets_most_places_and_leaves_some_for_the_next() {
        let mut places = Places::new(1000);
        flood(&mut places, &["flood"]);
        assert_eq!(places.taken, 800);
        assert_eq!(places.take("flood"), Err(Shed::Share));
        assert_eq!(places.take("quiet"), Ok(()));
    }

    #[test]
    fn callers_who_all_want_more_get_the_same() {
        let mut places = Places::new(1000);
        flood(&mut places, &["a"]);
        flood(&mut places, &["a", "b", "c"]);
        // What the first has is not taken from it; what it gives back goes to the others.
        for _ in 0..2000 {
            places.give_back("a");
            flood(&mut places, &["b", "c", "a"]);
        }
        let held: Vec<usize> = ["a", "b", "c"].iter().map(|caller| places.by_caller[*caller]).collect();
        assert!(held.iter().all(|one| held[0].abs_diff(*one) <= 8), "{held:?}");
    }

    #[test]
    fn a_few_places_are_for_everybody_even_where_none_is_left() {
        let mut places = Places::new(4);
        flood(&mut places, &["flood"]);
        for _ in 0..CALLS_PER_CALLER_MIN {
            assert_eq!(places.take("quiet"), Ok(()));
        }
        assert_eq!(places.take("quiet"), Err(Shed::Full));
    }

    #[test]
    fn a_gateway_that_is_behind_takes_fewer_until_it_is_not() {
        let mut places = Places::new(1000);
        flood(&mut places, &["flood"]);
        places.adapt(BEHIND);
        assert_eq!(places.limit, 720);
        (0..100).for_each(|_| places.adapt(BEHIND));
        assert_eq!(
            places.limit, CALLS_IN_FLIGHT_MIN,
            "calls that are under way stay, and no more are let in"
        );
        assert_eq!(places.take("flood"), Err(Shed::Full));
        (0..100).for_each(|_| places.adapt(Duration::ZERO));
        assert_eq!(places.limit, 1000);
        let mut few = Places::new(8);
        (0..100).for_each(|_| few.adapt(BEHIND));
        assert_eq!(few.limit, 8, "not even fewer than the few that were asked for");
    }

    proptest! {
        /// Method: `Some` is a caller who wants a place, `None` the longest-standing call's end.
        #[test]
        fn places_are_counted_right_and_none_but_the_few_are_given_beyond_the_limit(
            most in 1_usize..60,
            steps in prop::collection::vec(prop::option::of(0_u8..4), 0..400),
        ) {
            let (mut places, mut under_way) = (Places::new(most), std::collections::VecDeque::new());
            for step in steps {
                match step.map(|caller| caller.to_string()) {
                    Some(caller) => {
                        let held = under_way.iter().filter(|one| **one == caller).count();
                        match places.take(&caller) {
                            Ok(()) => {
                                prop_assert!(under_way.len() < most || held < CALLS_PER_CALLER_MIN);
                                under_way.push_back(caller);
                            }
                            Err(why) => {
                                prop_assert!(held >= CALLS_PER_CALLER_MIN);
                                prop_assert_eq!(why == Shed::Full, under_way.len() >= most);
                            }
                        }
                    }
                    None => under_way.pop_front().iter().for_each(|caller| places.give_back(caller)),
                }
                prop_assert_eq!(places.taken, under_way.len());
                prop_assert_eq!(places.by_caller.values().sum::<usize>(), under_way.len());
            }
        }
    }
}
