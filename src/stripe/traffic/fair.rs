//! Whose turn it is among several that want one: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996). Pure.

use std::collections::BTreeMap;

/// What one turn costs a party of weight one.
const TURN_COST: u64 = 1 << 20;

/// How far each party has come, in turns by weight. Who wants nothing for a while saves nothing up.
#[derive(Clone, Debug)]
pub(super) struct Fair<K> {
    now: u64,
    spent: BTreeMap<K, u64>,
}

impl<K> Default for Fair<K> {
    fn default() -> Self {
        Self { now: 0, spent: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Fair<K> {
    /// The place of a party in the order of turns: the lowest is next.
    pub(super) fn place(&self, party: &K) -> u64 {
        self.spent.get(party).copied().unwrap_or_default().max(self.now)
    }

    /// Charges a party for a turn by its weight.
    pub(super) fn charge(&mut self, party: &K, weight: u32) {
        let start = self.place(party);
        // One that could not go while others did is not paid back for it.
        self.now = start;
        self.spent.insert(party.clone(), start + (TURN_COST / u64::from(weight.max(1))).max(1));
        self.spent.retain(|_, spent| *spent > start);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn turns_are_shared_by_weight_among_those_that_always_want_one(
            weights in proptest::collection::vec(1u32..20, 2..8),
            turns in 1usize..500,
        ) {
            let mut fair = Fair::default();
            let mut got = vec![0u64; weights.len()];
            for _ in 0..turns {
                let next = (0..weights.len()).min_by_key(|party| fair.place(party)).unwrap();
                fair.charge(&next, weights[next]);
                got[next] += 1;
            }
            for (one, other) in got.iter().zip(&weights).zip(got.iter().zip(&weights).skip(1)) {
                // Nobody is ahead of anybody by more than a turn of each.
                let ((got_a, weight_a), (got_b, weight_b)) = (one, other);
                let (weight_a, weight_b) = (u64::from(*weight_a), u64::from(*weight_b));
                let apart = (got_a * weight_b).abs_diff(got_b * weight_a);
                prop_assert!(apart <= weight_a + weight_b + 1, "{got:?} for {weights:?}");
            }
        }
    }

    #[test]
    fn who_was_away_saved_nothing_up() {
        let mut fair = Fair::default();
        (0..100).for_each(|_| fair.charge(&"busy", 1));
        fair.charge(&"back", 1);
        fair.charge(&"busy", 1);
        assert!(fair.place(&"back") >= fair.now && fair.place(&"busy") > fair.place(&"back"));
        assert!(fair.spent.len() <= 2);
    }
}
