//! Whether and when to try again: one pure rule for every call. It neither waits nor sends.

use std::time::Duration;

use super::answer::{Attempt, Trouble};
use crate::domain::limits::{
    STRIPE_ATTEMPTS_MAX, STRIPE_RETRY_AFTER_S_MAX, STRIPE_RETRY_MS_MAX, STRIPE_RETRY_MS_MIN,
};

/// The pause before the next attempt, after `made` attempts of which `attempt` was the last; `None` to stop.
///
/// The pause doubles from the shortest to the longest, times a factor between a half and one that `jitter` picks (0 the
/// half, `u32::MAX` the one), and is never below the shortest; a longer `Retry-After` is kept to. These are the delays
/// of Stripe's own libraries (docs.stripe.com/error-low-level).
#[must_use]
pub fn delay(attempt: &Attempt, made: u32, jitter: u32) -> Option<Duration> {
    if made >= STRIPE_ATTEMPTS_MAX || !is_worth_another(attempt) {
        return None;
    }
    let doubled = STRIPE_RETRY_MS_MIN.saturating_mul(1 << made.saturating_sub(1));
    let half = doubled.min(STRIPE_RETRY_MS_MAX) / 2;
    let jittered = half + half * u64::from(jitter) / u64::from(u32::MAX);
    let own = Duration::from_millis(jittered.max(STRIPE_RETRY_MS_MIN));
    match asked_for(attempt) {
        Some(asked) if asked > Duration::from_secs(STRIPE_RETRY_AFTER_S_MAX) => None,
        Some(asked) => Some(own.max(asked)),
        None => Some(own),
    }
}

/// Stripe's own word decides first. Without it: what never left or broke off, a conflict, a limit or a lock, and
/// Stripe's faults. Stripe's libraries leave 429 to their callers; callers of a gateway share one limit, so it waits.
fn is_worth_another(attempt: &Attempt) -> bool {
    match attempt {
        Attempt::Answered(answer) => match (answer.status, answer.should_retry) {
            // A success is one, whatever a header says.
            (..400, _) => false,
            (_, Some(told)) => told,
            (status, None) => matches!(status, 409 | 429 | 500..),
        },
        Attempt::NotSent(trouble) | Attempt::Broken(trouble) => match trouble {
            Trouble::Dns | Trouble::Connect | Trouble::Timeout | Trouble::Reset | Trouble::Protocol => true,
            // The next attempt would meet the same end, and what found no turn does not wait for another one.
            Trouble::Tls
            | Trouble::BreakerOpen { .. }
            | Trouble::Deadline
            | Trouble::Crowded { .. }
            | Trouble::Unsendable
            | Trouble::TooLarge => false,
        },
    }
}

fn asked_for(attempt: &Attempt) -> Option<Duration> {
    match attempt {
        Attempt::Answered(answer) => answer.retry_after,
        Attempt::NotSent(_) | Attempt::Broken(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stripe::Answer;

    fn answered(status: u16, should_retry: Option<bool>) -> Attempt {
        Attempt::Answered(Answer { status, should_retry, ..Answer::default() })
    }

    /// All but the 429 without a header is what stripe-node 23.1.0 was seen to do.
    #[test]
    fn the_header_decides_first_and_then_the_status() {
        let cases = [
            (409, None, true),
            (500, None, true),
            (502, None, true),
            (500, Some(false), false),
            (429, None, true),
            (429, Some(true), true),
            (429, Some(false), false),
            (400, Some(true), true),
            (400, None, false),
            (402, None, false),
            (404, None, false),
            (424, None, false),
            (200, None, false),
            (200, Some(true), false),
        ];
        for (status, header, again) in cases {
            let decided = delay(&answered(status, header), 1, 0).is_some();
            assert_eq!(decided, again, "status {status}, header {header:?}");
        }
    }

    #[test]
    fn what_would_fail_the_same_way_is_not_tried_again() {
        for trouble in [Trouble::Dns, Trouble::Connect] {
            assert!(delay(&Attempt::NotSent(trouble), 1, 0).is_some(), "{trouble:?}");
        }
        for trouble in [Trouble::Timeout, Trouble::Reset, Trouble::Protocol] {
            assert!(delay(&Attempt::Broken(trouble), 1, 0).is_some(), "{trouble:?}");
        }
        for trouble in [Trouble::Tls, Trouble::Deadline, Trouble::Unsendable] {
            assert_eq!(delay(&Attempt::NotSent(trouble), 1, 0), None, "{trouble:?}");
        }
        assert_eq!(delay(&Attempt::Broken(Trouble::TooLarge), 1, 0), None);
    }

    #[test]
    fn the_pause_doubles_and_attempts_end() {
        let pauses: Vec<_> = (1..=STRIPE_ATTEMPTS_MAX)
            .map(|made| delay(&answered(500, None), made, u32::MAX).map(|pause| pause.as_millis()))
            .collect();
        assert_eq!(pauses, [Some(500), Some(1000), Some(2000), Some(4000), None]);
    }

    #[test]
    fn a_longer_retry_after_is_kept_to_and_an_endless_one_ends_the_call() {
        let asking = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            Attempt::Answered(Answer { status: 429, retry_after, ..Answer::default() })
        };
        assert_eq!(delay(&asking(0), 1, 0), Some(Duration::from_millis(STRIPE_RETRY_MS_MIN)));
        assert_eq!(delay(&asking(7), 1, 0), Some(Duration::from_secs(7)));
        assert_eq!(delay(&asking(STRIPE_RETRY_AFTER_S_MAX + 1), 1, 0), None);
    }

    proptest! {
        #[test]
        fn pauses_stay_between_the_shortest_and_the_longest(made in 1u32.., jitter: u32) {
            if let Some(pause) = delay(&answered(503, None), made, jitter) {
                prop_assert!(made < STRIPE_ATTEMPTS_MAX);
                prop_assert!(pause >= Duration::from_millis(STRIPE_RETRY_MS_MIN));
                prop_assert!(pause <= Duration::from_millis(STRIPE_RETRY_MS_MAX));
            }
        }

        #[test]
        fn more_jitter_never_shortens_the_pause(made in 1..STRIPE_ATTEMPTS_MAX, a: u32, b: u32) {
            let pause = |jitter| delay(&answered(503, None), made, jitter);
            prop_assert!(pause(a.min(b)) <= pause(a.max(b)));
        }
    }
}
