//! For how long a change may be sent: by which process, and by both clocks. Pure.

use serde::{Deserialize, Serialize};

use super::state::{Record, State};
use crate::domain::clock::{BootTime, Moment, UnixMillis};
use crate::domain::limits::{CLOCK_BEHIND_MS_MAX, RESEND_MS_MAX, SEND_LEASE_MS, STRIPE_ATTEMPT_MS_MAX};
use crate::domain::planted;

/// The right of one process to begin attempts of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Which process: a number that each start draws anew.
    pub owner: u64,
    /// Until when by the wall clock, which another process can read.
    pub send_before_ms: UnixMillis,
    /// Until when by the clock that nobody can set.
    pub send_before_boot: BootTime,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The number of this process.
    pub owner: u64,
    /// Whether no other process can use the store, as is the case when the data folder is locked.
    pub alone: bool,
}

impl Lease {
    /// A lease from `now`, for a change whose key Stripe has known for `age_ms`.
    #[must_use]
    pub fn new(seat: Seat, now: Moment, age_ms: i64) -> Self {
        let age_ms = if planted::active("pruned-key-resent") { 0 } else { age_ms };
        let left = RESEND_MS_MAX.saturating_sub(age_ms).clamp(0, SEND_LEASE_MS);
        let send_before_boot = BootTime { ms: now.boot.ms.saturating_add(left), ..now.boot };
        Self { owner: seat.owner, send_before_ms: now.wall_ms.saturating_add(left), send_before_boot }
    }

    /// Whether the first byte of an attempt may go out now. To be asked right before each: the process may have been
    /// stopped since the intent was stored, and the wall clock set back.
    #[must_use]
    pub fn holds(&self, now: Moment) -> bool {
        if planted::active("lease-ignored") {
            return true;
        }
        let by_boot = self.send_before_boot.since(now.boot).is_some_and(|left| left > 0);
        now.wall_ms < self.send_before_ms && (by_boot || planted::active("wall-clock-only"))
    }

    /// Whether `seat` may take the change over, given that it has no flight of its own for it: the holder is gone, or
    /// its last attempt has ended.
    #[must_use]
    pub fn may_be_taken(&self, seat: Seat, now: Moment) -> bool {
        let attempt_ms = i64::try_from(STRIPE_ATTEMPT_MS_MAX).unwrap_or(i64::MAX);
        let ended_ms = self.send_before_ms.saturating_add(attempt_ms);
        seat.alone || self.owner == seat.owner || now.wall_ms >= ended_ms
    }
}

/// Whether `seat` may move on an operation of which it has no flight.
#[must_use]
pub fn may_take(record: &Record, seat: Seat, now: Moment) -> bool {
    match &record.state {
        State::InFlight { lease: Some(lease), .. } => lease.may_be_taken(seat, now),
        _ => true,
    }
}

/// How long ago Stripe can first have seen the key, by the clock that shows more; `None` when neither can tell.
#[must_use]
pub fn age_ms(record: &Record, now: Moment) -> Option<i64> {
    let by_wall = now.wall_ms.saturating_sub(record.first_sent_ms);
    if planted::active("wall-clock-only") {
        return Some(by_wall);
    }
    let by_boot = record.first_sent_boot.and_then(|first| now.boot.since(first));
    let known = !record.age_lost && !set_back(record, now);
    known.then(|| by_boot.map_or(by_wall, |by_boot| by_boot.max(by_wall)))
}

/// Whether Stripe may have forgotten the key, as far as can be told.
#[must_use]
pub fn over(record: &Record, now: Moment) -> bool {
    if planted::active("pruned-key-resent") {
        return false;
    }
    age_ms(record, now).is_none_or(|age_ms| age_ms >= RESEND_MS_MAX)
}

/// Whether Stripe may have forgotten the key by whichever clock shows less, so that it cannot be carrying out the request
/// any more.
#[must_use]
pub fn surely_over(record: &Record, now: Moment) -> bool {
    let by_wall = now.wall_ms.saturating_sub(record.first_sent_ms);
    let by_boot = record.first_sent_boot.and_then(|first| now.boot.since(first));
    by_boot.map_or(by_wall, |by_boot| by_boot.min(by_wall)) >= RESEND_MS_MAX
}

/// Whether the wall clock shows less than it must by now. Once it was set back, a later reading that looks right proves
/// nothing.
#[must_use]
pub fn set_back(record: &Record, now: Moment) -> bool {
    let by_boot = record.first_sent_boot.and_then(|first| now.boot.since(first));
    let expected_ms = by_boot
        .map_or(record.last_ms, |passed| record.first_sent_ms.saturating_add(passed).max(record.last_ms));
    now.wall_ms < expected_ms.saturating_sub(CLOCK_BEHIND_MS_MAX)
}

/// Whether the wall clock shows less than it must, after both clocks were `seen` before: by this process or by one that
/// worked on the same store.
#[must_use]
pub fn went_back(seen: Moment, now: Moment) -> bool {
    now.wall_ms < expected_ms(seen, now).saturating_sub(CLOCK_BEHIND_MS_MAX)
}

/// What is to be remembered of both clocks after `now`: the latest that the wall clock ever showed, carried on by the
/// clock that nobody can set. Once every entry knows that it went back, the new time counts.
#[must_use]
pub fn watched(seen: Moment, now: Moment) -> Moment {
    let wall_ms = if went_back(seen, now) { now.wall_ms } else { expected_ms(seen, now).max(now.wall_ms) };
    Moment { wall_ms, boot: now.boot }
}

/// What the wall clock must show at least.
fn expected_ms(seen: Moment, now: Moment) -> UnixMillis {
    seen.wall_ms.saturating_add(now.boot.since(seen.boot).unwrap_or_default())
}

/// The entry as it is to be stored when the wall clock turns out to have been set back, by the entry's own times; `None`
/// when there is nothing to add.
#[must_use]
pub fn marked(record: &Record, now: Moment) -> Option<Record> {
    doubted(record, now, false)
}

/// The same, or as the process noticed. An entry of this run of the machine has its age from the clock that nobody can
/// set, and needs no such witness.
#[must_use]
pub fn doubted(record: &Record, now: Moment, went_back: bool) -> Option<Record> {
    let foreign = record.first_sent_boot.is_none_or(|first| now.boot.since(first).is_none());
    let doubtful = set_back(record, now) || (went_back && foreign);
    let news = record.unresolved() && !record.age_lost && doubtful;
    news.then(|| Record { age_lost: true, ..record.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{NOW, SEAT, at, record, unknown};
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_lease_ends_by_whichever_clock_says_so_first() {
        let lease = Lease::new(SEAT, at(0), 0);
        let moment = |wall_ms: i64, boot_ms: i64| Moment {
            wall_ms: NOW + wall_ms,
            boot: BootTime { ms: at(0).boot.ms + boot_ms, ..at(0).boot },
        };
        assert!(lease.holds(moment(SEND_LEASE_MS - 1, SEND_LEASE_MS - 1)));
        assert!(!lease.holds(moment(SEND_LEASE_MS, 0)));
        assert!(!lease.holds(moment(0, SEND_LEASE_MS)), "the wall clock was set back meanwhile");
        assert!(!lease.holds(moment(-9 * HOUR, 24 * HOUR)));
        let elsewhere = BootTime { boot_id: 99, ms: 0 };
        assert!(!lease.holds(Moment { boot: elsewhere, ..at(0) }));
    }

    #[test]
    fn no_lease_reaches_beyond_the_23rd_hour() {
        for age in [0, 22 * HOUR, 23 * HOUR - 1, 23 * HOUR, 99 * HOUR, i64::MAX] {
            let lease = Lease::new(SEAT, at(age), age);
            assert!(!lease.holds(at(age.max(RESEND_MS_MAX))), "{age}");
            assert_eq!(lease.holds(at(age)), age < RESEND_MS_MAX, "{age}");
        }
    }

    #[test]
    fn another_process_waits_for_the_last_attempt_unless_it_is_alone() {
        let lease = Lease::new(SEAT, at(0), 0);
        let other = Seat { owner: 2, alone: false };
        let ended = SEND_LEASE_MS + 80_000;
        assert!(!lease.may_be_taken(other, at(ended - 1)));
        assert!(lease.may_be_taken(other, at(ended)));
        assert!(lease.may_be_taken(Seat { alone: true, ..other }, at(0)));
        assert!(lease.may_be_taken(Seat { alone: false, ..SEAT }, at(0)));
    }

    #[test]
    fn the_clock_that_shows_more_tells_the_age() {
        let record = record(1, unknown(false));
        assert_eq!(age_ms(&record, at(5)), Some(5));
        assert_eq!(age_ms(&record, Moment { wall_ms: NOW + 9 * HOUR, ..at(5) }), Some(9 * HOUR));
        assert_eq!(age_ms(&record, Moment { wall_ms: NOW, ..at(59_000) }), Some(59_000));
        assert_eq!(age_ms(&record, Moment { wall_ms: NOW, ..at(24 * HOUR) }), None, "set back by a day");
        let rebooted = BootTime { boot_id: 99, ms: 0 };
        let later = |wall_ms| Moment { wall_ms, boot: rebooted };
        assert_eq!(age_ms(&record, later(NOW + HOUR)), Some(HOUR));
        assert_eq!(age_ms(&record, later(NOW - 61_000)), None);
    }

    #[test]
    fn a_clock_that_was_seen_to_go_back_is_never_believed_again() {
        let record = record(1, unknown(false));
        assert_eq!(marked(&record, at(HOUR)), None);
        let back = Moment { wall_ms: NOW - HOUR, ..at(0) };
        let lost = marked(&record, back).unwrap();
        assert!(over(&lost, at(1)) && !over(&record, at(1)));
        assert_eq!(doubted(&lost, back, true), None);
    }

    #[test]
    fn a_clock_that_goes_back_by_less_than_an_entrys_age_is_noticed_by_the_process() {
        let record = record(1, unknown(false));
        let rebooted =
            |wall_ms: i64, ms: i64| Moment { wall_ms: NOW + wall_ms, boot: BootTime { boot_id: 2, ms } };
        let (seen, now) = (rebooted(24 * HOUR, 0), rebooted(HOUR, 1));
        assert!(went_back(seen, now) && !set_back(&record, now));
        assert!(doubted(&record, now, true).is_some());
        assert_eq!(doubted(&record, at(HOUR), true), None, "the boot clock tells its age");
        assert_eq!(watched(seen, now), now);
        assert!(!went_back(now, rebooted(2 * HOUR, HOUR)));
    }

    #[test]
    fn a_clock_that_creeps_back_is_noticed_in_the_end() {
        let mut seen = at(0);
        let creeping = |step: i64| Moment { wall_ms: NOW + step * (HOUR - 20_000), ..at(step * HOUR) };
        let noticed = (1..9).find(|step| {
            let back = went_back(seen, creeping(*step));
            seen = watched(seen, creeping(*step));
            back
        });
        assert_eq!(noticed, Some(4));
    }
}
