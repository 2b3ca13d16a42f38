//! The part of a subscription's progress that outlives a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Delivering, Lost, Open, Parked, Progress};
use crate::domain::clock::UnixMillis;
use crate::domain::limits::SUBSCRIPTION_PARKED_MAX;

/// What is kept of a subscription's progress, but for what is parked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// How often it was moved.
    pub generation: u32,
    /// Replays so far.
    pub replays: u32,
    /// Whether deliveries are stopped.
    pub paused: bool,
    /// Events that were received before this do not match.
    pub since_ms: UnixMillis,
    /// Everything up to here was looked at.
    pub reach: u64,
    /// What has still to be dealt with: position, attempts, replay, and the time before which it waits.
    pub open: Vec<(u64, u32, u32, UnixMillis)>,
    /// What was acknowledged beyond the reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead: Vec<u64>,
    /// What was gone before it was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

impl Progress {
    /// What has to be kept.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let open = self.open.iter();
        Saved {
            generation: self.generation,
            replays: self.replays,
            paused: self.paused,
            since_ms: self.since_ms,
            reach: self.reach,
            open: open
                .map(|(position, open)| (*position, open.attempts, open.replay, open.retry_at_ms))
                .collect(),
            ahead: self.ahead.iter().copied().collect(),
            lost: self.lost,
        }
    }

    /// Goes on from what was kept; nothing is out. What has used up its attempts is parked at `now_ms`: it may be what
    /// brought its consumers down.
    #[must_use]
    pub fn load(
        delivering: Delivering,
        saved: Saved,
        parked: BTreeMap<u64, Parked>,
        now_ms: UnixMillis,
    ) -> Self {
        let mut progress = Self {
            delivering,
            generation: saved.generation,
            replays: saved.replays,
            paused: saved.paused,
            since_ms: saved.since_ms,
            reach: saved.reach,
            open: BTreeMap::new(),
            ahead: saved.ahead.into_iter().collect(),
            parked,
            lost: saved.lost,
            looked: saved.reach,
            lines: super::Lines::default(),
            leases: std::collections::BTreeSet::new(),
            out_by_stream: BTreeMap::new(),
            bytes_out: 0,
        };
        for (position, attempts, replay, retry_at_ms) in saved.open {
            let spent = attempts >= delivering.attempts_max && retry_at_ms == 0;
            if spent && progress.parked.len() < SUBSCRIPTION_PARKED_MAX {
                let reason = "its attempts were used up when the gateway went down".to_owned();
                progress.parked.insert(position, Parked { attempts, replay, reason, at_ms: now_ms });
            } else {
                progress.open.insert(position, Open { attempts, replay, retry_at_ms, ..Open::default() });
            }
        }
        progress.looked = progress.position();
        progress
    }
}
