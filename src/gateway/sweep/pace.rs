//! When which account is swept next. It keeps nothing, reads nothing and knows no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::book::Place;
use super::pass::Stop;

/// First pause after a sweep of a configured account that did not come to its end.
const RETRY_PAUSE: Duration = Duration::from_secs(30);
/// Longest pause between two sweeps of a connected account that do not come to their end.
const CONNECTED_PAUSE_MAX: Duration = Duration::from_secs(86_400);

/// The paces of all accounts that were swept since the start.
#[derive(Debug, Default)]
pub(super) struct Paces(BTreeMap<Place, Pace>);

#[derive(Debug)]
struct Pace {
    due: Instant,
    /// Sweeps in sequence that did not come to their end.
    failures: u32,
    /// Whether one ever did.
    was_well: bool,
}

impl Paces {
    /// Whether an account is to be swept.
    pub(super) fn is_due(&self, place: &Place, now: Instant) -> bool {
        self.0.get(place).is_none_or(|pace| pace.due <= now)
    }

    /// Whether a sweep of it came to its end since the start.
    pub(super) fn was_well(&self, place: &Place) -> bool {
        self.0.get(place).is_some_and(|pace| pace.was_well)
    }

    /// Takes note of how a sweep ended. That the reads of the day are used up is no failure of the account.
    pub(super) fn note(
        &mut self,
        place: &Place,
        swept: &Result<(), Stop>,
        (now, every): (Instant, Duration),
    ) {
        let pace = self.0.entry(place.clone()).or_insert(Pace { due: now, failures: 0, was_well: false });
        match swept {
            Ok(()) => (pace.failures, pace.was_well) = (0, true),
            Err(Stop::Allotment) => pace.failures = pace.failures.min(1),
            Err(_) => pace.failures = pace.failures.saturating_add(1),
        }
        pace.due = now + pause(pace.failures, every, !place.1.is_empty());
    }

    /// Leaves out accounts that are not swept any more, once they would be due.
    pub(super) fn retain(&mut self, places: &BTreeSet<Place>, now: Instant) {
        self.0.retain(|place, pace| places.contains(place) || pace.due > now);
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|pace| pace.due).min()
    }
}

/// How long an account is left alone. One that was configured is wanted back soon; one that is connected may be gone for
/// good, and must not use up the reads of the others.
fn pause(failures: u32, every: Duration, is_connected: bool) -> Duration {
    let (first, most) = match (failures, is_connected) {
        (0, _) => return every,
        (_, true) => (every, every.max(CONNECTED_PAUSE_MAX)),
        (_, false) => (every.min(RETRY_PAUSE), every),
    };
    first.saturating_mul(2_u32.saturating_pow(failures - 1)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stripe::events::ReadError;

    const EVERY: Duration = Duration::from_secs(300);

    fn place(connected: &str) -> Place {
        (String::new(), connected.to_owned())
    }

    #[test]
    fn an_account_that_fails_is_left_alone_for_longer_and_longer_and_no_other_is_swept_sooner() {
        let (mut paces, now) = (Paces::default(), Instant::now());
        let mut pauses = |connected: &str| -> Vec<u64> {
            let mut note = || {
                paces.note(&place(connected), &Err(Stop::Read(ReadError::Refused(500))), (now, EVERY));
                paces.0[&place(connected)].due.duration_since(now).as_secs()
            };
            (0..12).map(|_| note()).collect()
        };
        assert_eq!(pauses("")[..6], [30, 60, 120, 240, 300, 300]);
        let connected = pauses("acct_1");
        assert_eq!((&connected[..3], connected[11]), (&[300, 600, 1_200][..], 86_400));
        paces.note(&place(""), &Ok(()), (now, EVERY));
        assert_eq!(paces.next(), Some(now + EVERY), "a failing one has no other swept sooner");
        assert!(paces.was_well(&place("")) && !paces.was_well(&place("acct_1")));
        assert!(paces.is_due(&place("acct_2"), now), "it was never swept");
    }

    #[test]
    fn the_pace_of_an_account_that_was_dropped_stays_until_it_would_be_due() {
        let (mut paces, now) = (Paces::default(), Instant::now());
        paces.note(&place("acct_1"), &Err(Stop::Read(ReadError::KeyRefused)), (now, EVERY));
        paces.retain(&BTreeSet::new(), now);
        assert!(!paces.is_due(&place("acct_1"), now));
        paces.retain(&BTreeSet::new(), now + EVERY);
        assert_eq!(paces.next(), None);
    }
}
