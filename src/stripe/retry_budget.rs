//! How many resends an account may cost, as a share of what is sent for the first time. Pure; whether a resend makes
//! sense at all is [`super::retry`]'s business.

use crate::domain::limits::{RETRY_BUDGET_PERCENT, RETRY_BUDGET_RESENDS_MAX};

/// What one resend costs; a first attempt earns [`RETRY_BUDGET_PERCENT`] of it.
const RESEND: u32 = 100;

/// A bucket that first attempts fill and resends empty. A Stripe in trouble then meets at most a fifth more than the load
/// that callers make, rather than the five times as much that five attempts of every call would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RetryBudget {
    /// In hundredths of a resend.
    left: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { left: RETRY_BUDGET_RESENDS_MAX * RESEND }
    }
}

impl RetryBudget {
    /// A call makes its first attempt.
    pub(super) fn earn(&mut self) {
        self.left = (self.left + RETRY_BUDGET_PERCENT).min(RETRY_BUDGET_RESENDS_MAX * RESEND);
    }

    /// Whether a call may make a further attempt, which is then paid for.
    pub(super) fn spend(&mut self) -> bool {
        let rest = self.left.checked_sub(RESEND);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }

    /// Resends that it has left.
    pub(super) fn left(&self) -> u32 {
        self.left / RESEND
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many resends are granted in a row.
    fn spent(budget: &mut RetryBudget) -> u32 {
        let granted = std::iter::repeat_with(|| budget.spend()).take_while(|granted| *granted).count();
        u32::try_from(granted).unwrap()
    }

    #[test]
    fn five_first_attempts_pay_for_one_resend() {
        let mut budget = RetryBudget::default();
        assert_eq!(spent(&mut budget), RETRY_BUDGET_RESENDS_MAX);
        (0..4).for_each(|_| budget.earn());
        assert!(!budget.spend());
        budget.earn();
        assert_eq!((budget.left(), spent(&mut budget)), (1, 1));
    }

    proptest! {
        /// Method: `true` is a first attempt, `false` a wish to resend, and every stretch of the history is looked at.
        #[test]
        fn no_stretch_of_time_has_more_resends_than_a_fifth_of_its_first_attempts_and_the_reserve(
            history in prop::collection::vec(any::<bool>(), 0..300),
        ) {
            let mut budget = RetryBudget::default();
            let granted: Vec<(u32, u32)> = history
                .iter()
                .map(|first| if *first { budget.earn(); (1, 0) } else { (0, u32::from(budget.spend())) })
                .collect();
            for from in 0..granted.len() {
                let (mut firsts, mut resends) = (0, 0);
                for (first, resend) in &granted[from..] {
                    (firsts, resends) = (firsts + first, resends + resend);
                    prop_assert!(resends * RESEND <= firsts * RETRY_BUDGET_PERCENT + RETRY_BUDGET_RESENDS_MAX * RESEND);
                }
            }
        }

        #[test]
        fn where_fewer_than_one_call_in_five_fails_every_resend_is_granted(failed in prop::collection::vec(0_u32..5, 1..200)) {
            let mut budget = RetryBudget::default();
            for place in failed {
                for call in 0..5 {
                    budget.earn();
                    prop_assert!(call != place || budget.spend());
                }
            }
        }
    }
}
