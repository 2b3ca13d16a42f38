//! The times that budgets count over, in whole minutes and by UTC. It reads no clock.

use crate::config::BudgetWindow;
use crate::domain::clock::UnixMillis;

/// Milliseconds of the unit in which times are counted.
const MINUTE_MS: i64 = 60_000;
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// Days of the longest month.
pub(super) const MONTH_DAYS_MAX: i64 = 31;

/// The minute of an instant.
pub(super) fn minute(at_ms: UnixMillis) -> i64 {
    at_ms.div_euclid(MINUTE_MS)
}

/// When the minute is over.
pub(super) fn end_of(minute: i64) -> UnixMillis {
    minute.saturating_add(1).saturating_mul(MINUTE_MS)
}

/// The first minute that counts now. Of a rolling day it is the minute that lies across its beginning, so that a whole day
/// counts at the least.
pub(super) fn since(window: BudgetWindow, now_ms: UnixMillis) -> i64 {
    match window {
        BudgetWindow::RollingDay => minute(now_ms.saturating_sub(DAY_MS)),
        BudgetWindow::CalendarMonth => minute(month_start(now_ms)),
        BudgetWindow::Order => i64::MIN,
    }
}

/// When what was taken in `minute` counts no more; `None` for ever.
pub(super) fn frees(window: BudgetWindow, minute: i64, now_ms: UnixMillis) -> Option<UnixMillis> {
    match window {
        BudgetWindow::RollingDay => Some(end_of(minute).saturating_add(DAY_MS)),
        BudgetWindow::CalendarMonth => Some(next_month(now_ms)),
        BudgetWindow::Order => None,
    }
}

/// The window's own beginning and end, where it has them.
pub(super) fn bounds(window: BudgetWindow, now_ms: UnixMillis) -> (Option<UnixMillis>, Option<UnixMillis>) {
    match window {
        BudgetWindow::RollingDay => (Some(now_ms.saturating_sub(DAY_MS)), None),
        BudgetWindow::CalendarMonth => (Some(month_start(now_ms)), Some(next_month(now_ms))),
        BudgetWindow::Order => (None, None),
    }
}

/// Before this nothing counts in any window but an order's.
pub(super) fn longest_ago(now_ms: UnixMillis) -> UnixMillis {
    now_ms.saturating_sub((MONTH_DAYS_MAX + 1) * DAY_MS)
}

fn next_month(now_ms: UnixMillis) -> UnixMillis {
    month_start(month_start(now_ms).saturating_add(MONTH_DAYS_MAX * DAY_MS))
}

/// The beginning of the month, by the proleptic Gregorian calendar. Counted in years that begin in March, so that the
/// leap day is a year's last.
fn month_start(at_ms: UnixMillis) -> UnixMillis {
    let days = at_ms.div_euclid(DAY_MS);
    // Days from March 1st of the year 0 to the beginning of 1970.
    let days_of_era = (days + 719_468).rem_euclid(146_097);
    let year = (days_of_era - days_of_era / 1_460 + days_of_era / 36_524 - days_of_era / 146_096) / 365;
    let day_of_year = days_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    (days - day_of_month) * DAY_MS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        // `date -u -d 2026-11-23T12:00 +%s`, and so on.
        for (at_s, start_s) in [
            (1_795_435_200, 1_793_491_200),
            (1_709_251_199, 1_706_745_600),
            (1_709_251_200, 1_709_251_200),
            (951_782_400, 949_363_200),
            (0, 0),
            (-1, -2_678_400),
        ] {
            assert_eq!(month_start(at_s * 1_000), start_s * 1_000, "{at_s}");
        }
        assert_eq!(next_month(1_709_251_199_000), 1_709_251_200_000, "2024 has a 29th of February");
    }

    proptest! {
        #[test]
        fn an_instant_lies_in_its_month_and_months_follow_each_other(at_ms in -10_000_000_000_000_i64..10_000_000_000_000) {
            let (start, next) = (month_start(at_ms), next_month(at_ms));
            prop_assert!(start <= at_ms && at_ms < next);
            prop_assert!((28..=31).contains(&((next - start) / DAY_MS)));
            prop_assert_eq!(month_start(next), next);
            prop_assert_eq!(month_start(next - 1), start);
        }

        #[test]
        fn what_was_taken_counts_for_a_whole_day_and_no_longer_than_a_minute_more(
            at_ms in 0..10_000_000_000_000_i64, later_ms in 0..2 * DAY_MS,
        ) {
            let counts = minute(at_ms) >= since(BudgetWindow::RollingDay, at_ms + later_ms);
            prop_assert!(counts || later_ms >= DAY_MS);
            prop_assert!(!counts || later_ms < DAY_MS + MINUTE_MS);
            let frees = frees(BudgetWindow::RollingDay, minute(at_ms), at_ms).unwrap();
            prop_assert_eq!(counts, at_ms + later_ms < frees);
        }
    }
}
