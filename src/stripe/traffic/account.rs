//! What one account lets through: how many requests a second and how many at once, with a part of both kept for refunds and
//! disputes. Pure.

use std::time::Duration;

use super::Settings;
use super::bucket::{Bucket, Limit, brought};
use super::lane::Class;

/// One of so many requests, and one of so many places, is kept for what is reserved.
const RESERVE_PARTS: u64 = 5;
/// What the reserve saves up while it is not used: its requests of so many milliseconds.
const RESERVE_BURST_MS: u64 = 1_000;
/// What all others save up: requests of so many milliseconds.
const BURST_MS: u64 = 250;
/// By what part the last request moves the mean of how long they take.
const MEAN_PARTS: u32 = 16;
/// Over how many seconds the use of the account is told.
const USE_S: usize = 10;

/// The two buckets and the places of one account. What the reserve has no room for flows into the common bucket, so
/// that nothing is lost while nobody needs it; of what comes in it gets its part and no more, so that it starves nobody.
#[derive(Debug)]
pub(super) struct Allowance {
    rate: Limit,
    common: Bucket,
    reserve: Bucket,
    at_once: Limit,
    under_way: u64,
    in_reserve: u64,
    /// How long a request takes, by the last ones.
    takes: Duration,
    used: [u64; USE_S],
    second: usize,
}

impl Allowance {
    pub(super) fn new(settings: &Settings) -> Self {
        let rate = u64::from(settings.requests_per_s) * 1_000;
        Self {
            rate: Limit::new(rate),
            common: Bucket::full(rate, Duration::from_millis(BURST_MS)),
            reserve: Bucket::full(rate / RESERVE_PARTS, Duration::from_millis(RESERVE_BURST_MS)),
            at_once: Limit::new(u64::from(settings.requests_at_once_max)),
            under_way: 0,
            in_reserve: 0,
            takes: Duration::ZERO,
            used: [0; USE_S],
            second: 0,
        }
    }

    /// Fills the buckets with what `passed` until `now` brings.
    pub(super) fn pass(&mut self, now: Duration, passed: Duration) {
        let parts = brought(self.rate.at(now), passed);
        let kept = parts / RESERVE_PARTS;
        let spilt = self.reserve.fill(kept);
        self.common.fill(parts - kept + spilt);
        let second = usize::try_from(now.as_secs()).unwrap_or_default();
        for new in second - second.saturating_sub(self.second).min(USE_S)..second {
            if let Some(used) = self.used.get_mut((new + 1) % USE_S) {
                *used = 0;
            }
        }
        self.second = second;
    }

    /// Whether the rate lets one more of this class go.
    pub(super) fn has_one(&self, class: Class) -> bool {
        self.common.has_one() || (class == Class::Reserved && self.reserve.has_one())
    }

    /// Whether there is a place for one more of this class under way.
    pub(super) fn has_place(&self, class: Class, now: Duration) -> bool {
        let at_once = self.at_once.at(now);
        let kept = at_once / RESERVE_PARTS;
        self.under_way - self.in_reserve < at_once - kept
            || (class == Class::Reserved && self.in_reserve < kept)
    }

    /// From when on, counted from now, time alone lets one more of this class go.
    pub(super) fn until_one(&self, class: Class, now: Duration) -> Duration {
        let rate = self.rate.at(now);
        let flows_in = if self.reserve.is_full() { rate } else { rate - rate / RESERVE_PARTS };
        self.until_of(class, 1, flows_in, rate)
    }

    /// How long `ahead` requests that go before it keep one of this class waiting which gets `milli_per_s`.
    pub(super) fn wait(&self, class: Class, ahead: u64, milli_per_s: u64, now: Duration) -> Duration {
        let by_rate = self.until_of(class, ahead + 1, milli_per_s, self.rate.at(now));
        if self.has_place(class, now) {
            return by_rate;
        }
        let count = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
        let places = u32::try_from(self.at_once.at(now)).unwrap_or(u32::MAX).max(1);
        by_rate.max(self.takes.saturating_mul(count) / places)
    }

    fn until_of(&self, class: Class, count: u64, milli_per_s: u64, rate: u64) -> Duration {
        let common = self.common.until(count, milli_per_s);
        if class == Class::Reserved {
            common.min(self.reserve.until(count, rate / RESERVE_PARTS))
        } else {
            common
        }
    }

    /// A request of this class goes; whether it takes a place of the reserve.
    pub(super) fn enter(&mut self, class: Class, counts: bool, now: Duration) -> bool {
        if counts {
            let from_reserve = class == Class::Reserved && self.reserve.take();
            if !from_reserve {
                self.common.take();
            }
            if let Some(used) = self.used.get_mut(self.second % USE_S) {
                *used += 1;
            }
        }
        let in_reserve = class == Class::Reserved && self.in_reserve < self.at_once.at(now) / RESERVE_PARTS;
        self.in_reserve += u64::from(in_reserve);
        self.under_way += 1;
        in_reserve
    }

    /// A turn has ended; with an attempt, that took so long.
    pub(super) fn leave(&mut self, in_reserve: bool, took: Option<Duration>) {
        self.under_way = self.under_way.saturating_sub(1);
        self.in_reserve = self.in_reserve.saturating_sub(u64::from(in_reserve));
        if let Some(took) = took {
            self.takes = (self.takes * (MEAN_PARTS - 1) + took) / MEAN_PARTS;
        }
    }

    /// Stripe refused for the account's rate; says whether that cut it.
    pub(super) fn cut_rate(&mut self, now: Duration) -> bool {
        let is_cut = self.rate.cut(now, u64::MAX);
        if is_cut {
            self.common.empty();
            self.reserve.empty();
        }
        is_cut
    }

    /// Stripe refused because too many were under way; says whether that cut the limit.
    pub(super) fn cut_at_once(&mut self, now: Duration) -> bool {
        self.at_once.cut(now, self.under_way)
    }

    /// Thousandths of requests a second that go now at most.
    pub(super) fn milli_per_s(&self, now: Duration) -> u64 {
        self.rate.at(now)
    }

    /// How long a request takes, by the last ones.
    pub(super) fn takes(&self) -> Duration {
        self.takes
    }

    /// Requests under way.
    pub(super) fn under_way(&self) -> u64 {
        self.under_way
    }

    /// Thousandths of the rate that were not used over the last seconds.
    pub(super) fn headroom_milli(&self, now: Duration) -> u64 {
        let used = self.used.iter().sum::<u64>() * 1_000 * 1_000;
        1_000u64.saturating_sub(used / (USE_S as u64 * self.rate.at(now)).max(1))
    }
}
