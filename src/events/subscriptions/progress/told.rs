//! What a subscription tells of itself; nothing here changes it.

use std::collections::BTreeMap;

use super::{Delivering, Lost, Parked, Progress};
use crate::domain::clock::UnixMillis;

impl Progress {
    /// How it delivers.
    #[must_use]
    pub fn delivering(&self) -> Delivering {
        self.delivering
    }

    /// How often it was moved.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether deliveries are stopped.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Everything up to here has been dealt with, is parked, or did not match.
    #[must_use]
    pub fn position(&self) -> u64 {
        let first = self.open.keys().next().map(|first| first.saturating_sub(1));
        first.map_or(self.reach, |before| before.min(self.reach))
    }

    /// Everything up to here was looked at, now or before a restart.
    #[must_use]
    pub fn reach(&self) -> u64 {
        self.reach
    }

    /// Everything up to here is of no use to it any more.
    #[must_use]
    pub fn needless(&self) -> u64 {
        let parked = self.parked.keys().next().map(|first| first.saturating_sub(1));
        parked.map_or(self.position(), |before| before.min(self.position()))
    }

    /// Events up to `head` that have still to be dealt with or looked at.
    #[must_use]
    pub fn lag(&self, head: u64) -> u64 {
        let open = self.open.range(..=self.reach).count();
        let ahead = self.ahead.range(..=head).count();
        let unread = head.saturating_sub(self.reach);
        unread.saturating_add(count(open)).saturating_sub(count(ahead))
    }

    /// When the earliest open event was received, as far as it was looked at.
    #[must_use]
    pub fn oldest_received_ms(&self) -> Option<UnixMillis> {
        self.open.values().next()?.known.as_ref().map(|known| known.received_ms)
    }

    /// Events that are out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.leases.len()
    }

    /// What is set aside, by position.
    #[must_use]
    pub fn parked(&self) -> &BTreeMap<u64, Parked> {
        &self.parked
    }

    /// What was gone before it was delivered.
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        self.lost
    }
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}
