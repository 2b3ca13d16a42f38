//! How one account stands compared with Stripe's list, and the allotment of reads. Pure: it knows no store and no clock.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::domain::clock::UnixMillis;

/// Seconds of a day.
pub(super) const DAY_S: i64 = 86_400;

/// One account's comparison with the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::gateway) struct Standing {
    /// From when on, in seconds of Unix time, events are wanted: since shortly before the gateway first ran.
    pub since_s: i64,
    /// Up to when the schedule is done, in seconds of Unix time: it read everything before so long after it happened that
    /// the list shows no more of it. What an operator has read besides does not move it, so nothing is left out.
    #[serde(default)]
    pub done_to_s: Option<i64>,
    /// The span, in seconds of Unix time, of which everything that Stripe lists is in the log; its end is not in it.
    pub swept: Option<(i64, i64)>,
    /// For which types that holds, as [`fingerprint`] tells them apart.
    #[serde(default)]
    pub types: u64,
    /// When the last sweep ended.
    pub last_ms: UnixMillis,
    /// Why it did not come to its end; empty when it did.
    pub last_error: String,
    /// Whether Stripe would not show the events of this connected account.
    #[serde(default)]
    pub refused: bool,
    /// Events that sweeps added.
    pub repaired: u64,
}

impl Standing {
    /// From where a sweep goes on, which is nowhere before `oldest_s`.
    pub(super) fn next_s(&self, oldest_s: i64) -> i64 {
        self.done_to_s.unwrap_or(self.since_s).max(oldest_s)
    }

    /// Unsays what lies further ahead than a sweep would make up for: it was noted under a wrong clock.
    pub(super) fn doubt(&mut self, now_s: i64, overlap_s: i64) {
        if self.since_s > now_s {
            self.since_s = now_s.saturating_sub(overlap_s);
        }
        let is_ahead = |(_, to_s): (i64, i64)| to_s > now_s.saturating_add(overlap_s);
        if self.done_to_s.is_some_and(|to_s| to_s > now_s) || self.swept.is_some_and(is_ahead) {
            self.done_to_s = self.swept.map(|(from_s, _)| from_s).filter(|from_s| *from_s <= now_s);
            self.swept = None;
        }
    }

    /// Unsays what was read of other types. The schedule goes on where it is.
    pub(super) fn want(&mut self, types: u64) {
        if self.types != types {
            (self.types, self.swept) = (types, None);
        }
    }

    /// Takes note of a span that the schedule read to its end; what lies in it before `settled_s` need not be read again.
    /// Spans that touch become one; where they do not, nothing vouches for what lies between, and the later one stands.
    pub(super) fn go_on(&mut self, (from_s, to_s): (i64, i64), settled_s: i64) {
        self.done_to_s = self.done_to_s.max(Some(to_s.min(settled_s).max(from_s)));
        if self.swept.is_some_and(|(_, old_to)| old_to < from_s) {
            self.swept = None;
        }
        self.add(from_s, to_s);
    }

    /// Takes note of a span that was read to its end besides. It stands where it touches what stands, or nothing does.
    pub(super) fn add(&mut self, from_s: i64, to_s: i64) {
        self.swept = Some(match self.swept {
            Some((old_from, old_to)) if from_s <= old_to && old_from <= to_s => {
                (from_s.min(old_from), to_s.max(old_to))
            }
            Some(old) => old,
            None => (from_s, to_s),
        });
    }

    /// Whether nothing that the list still shows was ever read.
    pub(super) fn is_bare(&self, oldest_s: i64) -> bool {
        self.done_to_s.max(self.swept.map(|(_, to_s)| to_s)).is_none_or(|to_s| to_s < oldest_s)
    }
}

/// Tells sets of types apart; 0 is every type.
pub(super) fn fingerprint(types: &[String]) -> u64 {
    if types.is_empty() {
        return 0;
    }
    let names: BTreeSet<&str> = types.iter().map(String::as_str).collect();
    let digest = names.iter().fold(Sha256::new(), |digest, name| digest.chain_update(name).chain_update([0]));
    digest.finalize().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// The reads of one day, by UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::gateway) struct Reads {
    day: i64,
    made: u64,
}

impl Reads {
    /// Takes one read of the day; false when they are used up.
    pub(super) fn take(&mut self, now_s: i64, most: u64) -> bool {
        *self = Self { day: now_s.div_euclid(DAY_S), made: self.today(now_s) };
        let is_left = self.made < most;
        self.made += u64::from(is_left);
        is_left
    }

    /// How many were made today.
    pub(super) fn today(self, now_s: i64) -> u64 {
        if self.day == now_s.div_euclid(DAY_S) { self.made } else { 0 }
    }
}

/// A span that is read in parts, the oldest first: each that comes to its end is done with, whatever becomes of the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    at_s: i64,
    to_s: i64,
    width_s: i64,
    width_s_max: i64,
}

impl Parts {
    /// The parts of the span from `from_s` on and before `to_s`, of which none is longer than `width_s_max`.
    pub(super) fn new((from_s, to_s): (i64, i64), width_s_max: i64) -> Self {
        Self { at_s: from_s, to_s, width_s: width_s_max, width_s_max }
    }

    /// The next one.
    pub(super) fn next(&self) -> Option<(i64, i64)> {
        let end_s = self.at_s.saturating_add(self.width_s).min(self.to_s);
        (self.at_s < end_s).then_some((self.at_s, end_s))
    }

    /// It came to its end; the one behind may be twice as long when it was small.
    pub(super) fn done(&mut self, is_small: bool) {
        self.at_s = self.at_s.saturating_add(self.width_s).min(self.to_s);
        if is_small {
            self.width_s = self.width_s.saturating_mul(2).min(self.width_s_max);
        }
    }

    /// It was too much when it was read from its end back to `back_to_s`: at most half of it comes next, no more than was
    /// read, and nothing of what was read.
    pub(super) fn divide(&mut self, back_to_s: i64) {
        let Some((start_s, end_s)) = self.next() else { return };
        let (read_s, unread_s) = (end_s.saturating_sub(back_to_s), back_to_s.saturating_sub(start_s));
        self.width_s = (end_s - start_s).div_euclid(2).min(read_s).min(unread_s).max(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sweep_goes_on_where_the_last_one_ended_and_reads_again_what_was_young_then() {
        let mut standing = Standing { since_s: 1_000, ..Standing::default() };
        assert_eq!(standing.next_s(0), 1_000);
        standing.go_on((1_000, 5_000), 4_400);
        assert_eq!(standing.next_s(0), 4_400);
        assert_eq!(standing.next_s(4_700), 4_700, "Stripe lists nothing older");
        standing.go_on((4_400, 4_500), 4_410);
        assert_eq!(standing.next_s(0), 4_410, "a sweep that is cut short gets on");
        standing.go_on((4_410, 4_900), 9_000);
        assert_eq!(standing.next_s(0), 4_900, "what was old when it was read is done with");
        standing.go_on((4_000, 4_500), 9_000);
        assert_eq!(standing.next_s(0), 4_900, "what is read again is no step back");
        let mut young = Standing { since_s: 1_000, ..Standing::default() };
        young.go_on((1_000, 1_100), 700);
        assert_eq!(young.next_s(0), 1_000, "nothing before is wanted");
    }

    #[test]
    fn nothing_vouches_for_what_was_not_read() {
        let mut standing = Standing::default();
        standing.go_on((100, 200), 150);
        standing.go_on((150, 300), 250);
        assert_eq!(standing.swept, Some((100, 300)));
        standing.add(50, 100);
        assert_eq!(standing.swept, Some((50, 300)), "spans that touch become one");
        standing.add(10, 20);
        assert_eq!(standing.swept, Some((50, 300)), "an old span alone vouches for nothing since");
        standing.go_on((400, 500), 450);
        assert_eq!(standing.swept, Some((400, 500)));
    }

    #[test]
    fn what_is_read_on_demand_does_not_move_the_schedule() {
        let mut standing = Standing::default();
        standing.add(700, 800);
        assert_eq!((standing.swept, standing.next_s(0)), (Some((700, 800)), 0));
        let mut standing = Standing::default();
        standing.go_on((100, 200), 190);
        standing.add(700, 800);
        assert_eq!((standing.swept, standing.next_s(0)), (Some((100, 200)), 190));
    }

    #[test]
    fn what_a_clock_that_was_ahead_vouched_for_is_read_again() {
        let sound =
            Standing { since_s: 10, swept: Some((10, 900)), done_to_s: Some(840), ..Standing::default() };
        let mut doubted = sound.clone();
        doubted.doubt(850, 60);
        assert_eq!(doubted, sound, "the overlap makes up for it");
        doubted.doubt(800, 60);
        assert_eq!((doubted.swept, doubted.next_s(0)), (None, 10));
        let mut late = Standing { since_s: 900, swept: Some((900, 950)), ..sound };
        late.doubt(800, 60);
        assert_eq!((late.swept, late.next_s(0)), (None, 740));
    }

    #[test]
    fn what_was_read_of_other_types_vouches_for_nothing() {
        let types =
            |names: &[&str]| fingerprint(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(types(&[]), 0);
        assert_eq!(types(&["a", "b"]), types(&["b", "a"]));
        assert_ne!(types(&["a", "b"]), types(&["ab"]));
        let mut standing = Standing { types: types(&["a"]), ..Standing::default() };
        standing.go_on((100, 200), 190);
        standing.want(types(&["a"]));
        assert_eq!(standing.swept, Some((100, 200)));
        standing.want(types(&["a", "b"]));
        assert_eq!((standing.swept, standing.next_s(0)), (None, 190));
    }

    #[test]
    fn reads_come_back_with_the_day() {
        let mut reads = Reads::default();
        assert!(reads.take(10, 2) && reads.take(20, 2) && !reads.take(30, 2));
        assert_eq!((reads.today(30), reads.today(DAY_S)), (2, 0));
        assert!(reads.take(DAY_S, 2));
        assert!(!Reads::default().take(0, 0));
    }

    proptest! {
        #[test]
        fn parts_cover_a_span_without_gap_or_overlap(
            from in 0_i64..10_000_000,
            length in 0_i64..5_000_000,
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0_i64..DAY_S), 0..40),
        ) {
            let to = from + length;
            let (mut parts, mut end, mut steps) = (Parts::new((from, to), DAY_S), from, steps.into_iter());
            while let Some((start, stop)) = parts.next() {
                prop_assert!(start == end && start < stop && stop <= to && stop - start <= DAY_S);
                match steps.next() {
                    Some((true, _, back)) if stop - start > 1 => {
                        parts.divide(stop - back);
                        let divided = parts.next().map(|(_, divided)| divided);
                        prop_assert!(divided.is_some_and(|divided| divided < stop));
                    }
                    step => {
                        parts.done(step.is_none_or(|(_, is_small, _)| is_small));
                        end = stop;
                    }
                }
            }
            prop_assert_eq!(end, to);
        }
    }
}
