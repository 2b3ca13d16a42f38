//! How fast and how many at once: a token bucket, and a limit that gives way and climbs back. Pure; time comes in.

use std::time::Duration;

/// One request in the bucket's unit: a thousandth of a request per second, for a microsecond, is one part.
const REQUEST_PARTS: u64 = 1_000_000_000;
/// How long a limit keeps to one cut, in milliseconds: refusals that were under way together are one word of Stripe's.
const CUT_PAUSE_MS: u64 = 1_000;
/// What a cut leaves, in tenths.
const CUT_LEAVES_TENTHS: u64 = 7;
/// The least that cuts leave, as a part of the full limit.
const CUT_FLOOR_PARTS: u64 = 20;
/// How long a limit takes to climb from nought to its full height, in seconds.
const CLIMB_S: u64 = 120;

/// A bucket of requests that fills up with time. It holds whole parts, so nothing is lost between two looks.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    parts: u64,
    parts_max: u64,
}

impl Bucket {
    /// A full bucket that holds what `milli_per_s`, thousandths of requests a second, bring in `time`; one request at
    /// least.
    pub(super) fn full(milli_per_s: u64, time: Duration) -> Self {
        let parts = brought(milli_per_s, time).max(REQUEST_PARTS);
        Self { parts, parts_max: parts }
    }

    /// Puts parts in and gives back what has no room.
    pub(super) fn fill(&mut self, parts: u64) -> u64 {
        let sum = self.parts.saturating_add(parts);
        self.parts = sum.min(self.parts_max);
        sum - self.parts
    }

    pub(super) fn is_full(&self) -> bool {
        self.parts == self.parts_max
    }

    /// Whether a request is in it.
    pub(super) fn has_one(&self) -> bool {
        self.parts >= REQUEST_PARTS
    }

    /// Takes a request out; `false` when there is none.
    pub(super) fn take(&mut self) -> bool {
        let has_one = self.has_one();
        if has_one {
            self.parts -= REQUEST_PARTS;
        }
        has_one
    }

    /// Takes everything out.
    pub(super) fn empty(&mut self) {
        self.parts = 0;
    }

    /// How long it takes until `count` requests more than are in it now have come in at this rate.
    pub(super) fn until(&self, count: u64, milli_per_s: u64) -> Duration {
        let missing = count.saturating_mul(REQUEST_PARTS).saturating_sub(self.parts);
        Duration::from_micros(missing.div_ceil(milli_per_s.max(1)))
    }
}

/// The parts that a rate brings in a time.
pub(super) fn brought(milli_per_s: u64, time: Duration) -> u64 {
    micros(time).saturating_mul(milli_per_s)
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A limit that Stripe's word lowers and time raises again: cut by a part, then up by a straight line.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    full: u64,
    cut: Option<(Duration, u64)>,
}

impl Limit {
    pub(super) fn new(full: u64) -> Self {
        Self { full, cut: None }
    }

    /// How high it is now.
    pub(super) fn at(&self, now: Duration) -> u64 {
        let Some((since, left)) = self.cut else { return self.full };
        let climbed = self.full.saturating_mul(micros(now.saturating_sub(since))) / (CLIMB_S * 1_000_000);
        left.saturating_add(climbed).min(self.full)
    }

    /// Lowers it, from `used` where not even that much was in use; says whether that was a new cut.
    pub(super) fn cut(&mut self, now: Duration, used: u64) -> bool {
        let pause = Duration::from_millis(CUT_PAUSE_MS);
        if self.cut.is_some_and(|(since, _)| now < since + pause) {
            return false;
        }
        let floor = (self.full / CUT_FLOOR_PARTS).max(1);
        let left = self.at(now).min(used) * CUT_LEAVES_TENTHS / 10;
        self.cut = Some((now, left.max(floor)));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_gives_what_came_in_and_not_more() {
        let mut bucket = Bucket::full(25_000, Duration::from_millis(100));
        assert!(bucket.take() && bucket.take() && !bucket.take());
        assert_eq!(bucket.until(1, 25_000), Duration::from_millis(20));
        assert_eq!(bucket.fill(brought(25_000, Duration::from_millis(20))), 0);
        assert!(bucket.take() && !bucket.take());
        assert!(bucket.fill(brought(25_000, Duration::from_secs(1))) > 0 && bucket.is_full());
    }

    #[test]
    fn a_limit_is_cut_once_for_refusals_that_come_together_and_climbs_back() {
        let mut limit = Limit::new(100);
        let second = Duration::from_secs;
        assert!(limit.cut(second(10), u64::MAX));
        assert!(!limit.cut(second(10), u64::MAX));
        assert_eq!((limit.at(second(10)), limit.at(second(22)), limit.at(second(60))), (70, 80, 100));
        for at in 100..200 {
            limit.cut(second(at), 1);
        }
        assert_eq!(limit.at(second(199)), 5);
    }

    proptest! {
        #[test]
        fn a_bucket_lets_no_more_through_in_any_time_than_it_holds_and_what_came_in(
            rate in 1_000u64..100_000,
            hold_ms in 0u64..2_000,
            pauses in proptest::collection::vec(0u64..200_000, 1..200),
        ) {
            let mut bucket = Bucket::full(rate, Duration::from_millis(hold_ms));
            let (held, mut now, mut taken) = (bucket.parts_max, 0u64, Vec::new());
            for pause in pauses {
                bucket.fill(brought(rate, Duration::from_micros(pause)));
                now += pause;
                while bucket.take() {
                    taken.push(now);
                }
            }
            for (at, from) in taken.iter().enumerate() {
                for (count, to) in taken[at..].iter().enumerate() {
                    let most = held + (to - from) * rate;
                    prop_assert!((count as u64 + 1) * REQUEST_PARTS <= most);
                }
            }
        }

        #[test]
        fn a_limit_stays_between_its_floor_and_its_full_height(
            full in 1u64..200_000,
            steps in proptest::collection::vec((0u64..5_000, any::<bool>()), 1..100),
        ) {
            let (mut limit, mut now) = (Limit::new(full), Duration::ZERO);
            for (pause_ms, refused) in steps {
                now += Duration::from_millis(pause_ms);
                if refused {
                    limit.cut(now, u64::MAX);
                }
                prop_assert!((1..=full).contains(&limit.at(now)));
            }
        }
    }
}
