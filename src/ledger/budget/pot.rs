//! The sum of one budget for one caller, minute by minute. It knows no limit and no clock.

use std::collections::BTreeMap;

use crate::domain::operation::OperationHash;

/// Minutes that are kept apart: those of the longest window and a day. Older ones go only when there are more, so that a
/// clock that jumps ahead and back again forgets nothing.
const MINUTES_MAX: usize = 32 * 24 * 60;

/// What was taken, by the minute that it counts for.
#[derive(Debug)]
pub(super) struct Pot {
    minutes: BTreeMap<i64, i128>,
    /// What is held by operations without an outcome; part of the minutes too.
    held: BTreeMap<(i64, OperationHash), i64>,
    /// The sum of the minutes from `since` on.
    sum: i128,
    since: i64,
}

impl Default for Pot {
    fn default() -> Self {
        Self { minutes: BTreeMap::new(), held: BTreeMap::new(), sum: 0, since: i64::MIN }
    }
}

impl Pot {
    /// Counts an amount for a minute, or takes a negative one back.
    pub(super) fn add(&mut self, minute: i64, amount: i128) {
        let counted = self.minutes.entry(minute).or_default();
        *counted += amount;
        if *counted == 0 {
            self.minutes.remove(&minute);
        }
        if minute >= self.since {
            self.sum += amount;
        }
        while self.minutes.len() > MINUTES_MAX
            && let Some((oldest, amount)) = self.minutes.pop_first()
        {
            self.sum -= if oldest >= self.since { amount } else { 0 };
        }
    }

    /// Notes that an operation without an outcome holds an amount of a minute.
    pub(super) fn hold(&mut self, minute: i64, operation: OperationHash, amount: i64) {
        self.held.insert((minute, operation), amount);
    }

    /// Notes that it holds it no more.
    pub(super) fn release(&mut self, minute: i64, operation: OperationHash) {
        self.held.remove(&(minute, operation));
    }

    /// What was taken since a minute, with all that is still held from before.
    pub(super) fn total(&mut self, since: i64) -> i128 {
        if since < self.since {
            self.sum = self.minutes.range(since..).map(|(_, amount)| amount).sum();
        } else if since > self.since {
            self.sum -= self.minutes.range(self.since..since).map(|(_, amount)| amount).sum::<i128>();
        }
        self.since = since;
        let older = self.held.range(..(since, OperationHash([0; 32])));
        self.sum + older.map(|(_, amount)| i128::from(*amount)).sum::<i128>()
    }

    /// What is held.
    pub(super) fn held(&self) -> i128 {
        self.held.values().map(|amount| i128::from(*amount)).sum()
    }

    /// The minute from `since` on with whose end `wanted` is free again, unless what is held is in the way.
    pub(super) fn frees(&self, since: i64, wanted: i128) -> Option<i64> {
        let mut free = 0;
        self.minutes.range(since..).find_map(|(minute, amount)| {
            let of_minute = (*minute, OperationHash([0; 32]))..=(*minute, OperationHash([u8::MAX; 32]));
            let held = self.held.range(of_minute).map(|(_, amount)| i128::from(*amount)).sum::<i128>();
            free += amount - held;
            (free >= wanted).then_some(*minute)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sum_is_that_of_a_plain_list_whichever_way_the_clock_goes(
            steps in prop::collection::vec((-50..50_i64, 0..1000_i64, -60..60_i64), 1..60),
        ) {
            let (mut pot, mut list) = (Pot::default(), Vec::new());
            for (minute, amount, since) in steps {
                pot.add(minute, amount.into());
                list.push((minute, i128::from(amount)));
                let expected: i128 = list.iter().filter(|(at, _)| *at >= since).map(|(_, amount)| amount).sum();
                prop_assert_eq!(pot.total(since), expected);
            }
        }
    }

    #[test]
    fn what_is_held_counts_however_old_it_is_and_nothing_twice() {
        let mut pot = Pot::default();
        let operation = OperationHash([7; 32]);
        pot.add(1, 30);
        pot.hold(1, operation, 30);
        pot.add(5, 4);
        assert_eq!((pot.total(0), pot.total(3), pot.held()), (34, 34, 30));
        assert_eq!((pot.frees(0, 4), pot.frees(0, 5)), (Some(5), None), "what is held frees at no time");
        pot.release(1, operation);
        assert_eq!((pot.total(3), pot.held(), pot.frees(0, 30)), (4, 0, Some(1)));
    }
}
