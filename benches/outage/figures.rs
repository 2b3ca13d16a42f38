//! What one phase came to, and the whole story. It neither calls nor waits.

use std::fmt;
use std::time::{Duration, Instant};

use crate::breaker::{Change, State};
use crate::callers::Call;
use crate::metrics;
use crate::rig::{Counters, Rig};
use crate::times::percentile_ms;

/// What was seen of the gateway in one phase: the most of what is bounded, its memory, and what its breaker did.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    begin: Instant,
    pub(crate) in_flight: f64,
    pub(crate) waiting: f64,
    pub(crate) at_stripe: f64,
    pub(crate) open: f64,
    pub(crate) memory_bytes: u64,
    pub(crate) peak_bytes: u64,
    changes: Vec<Change>,
}

/// One phase.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) watched: Watched,
    pub(crate) counted: Counters,
    /// Calls that sent for the first time what they sent.
    pub(crate) new: usize,
    pub(crate) answered: Calls,
    pub(crate) refused: Calls,
}

/// How many calls ended in one way, and how long they took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    pub(crate) count: usize,
    pub(crate) median_ms: f64,
    pub(crate) slow_ms: f64,
}

/// All phases in turn.
pub(crate) struct Story {
    pub(crate) phases: Vec<Figures>,
    pub(crate) total: Counters,
    /// Changes that callers know to be made, each once.
    pub(crate) made: usize,
}

impl Watched {
    pub(crate) fn begin() -> Self {
        Self {
            begin: Instant::now(),
            in_flight: 0.0,
            waiting: 0.0,
            at_stripe: 0.0,
            open: 0.0,
            memory_bytes: 0,
            peak_bytes: 0,
            changes: Vec::new(),
        }
    }

    /// Takes note of how the gateway stands now.
    pub(crate) async fn note(&mut self, rig: &Rig) {
        let page = rig.metrics().await;
        let all = |series| metrics::sum(&page, series, |_| true);
        self.in_flight = self.in_flight.max(all("tollgate_calls_in_flight{"));
        self.waiting = self.waiting.max(all("tollgate_stripe_queue_waiting{"));
        self.at_stripe = self.at_stripe.max(all("tollgate_stripe_in_flight{"));
        self.open = self.open.max(all("tollgate_ledger_unresolved{"));
        self.memory_bytes = rig.process().memory_bytes();
        self.peak_bytes = rig.process().peak_bytes();
        self.changes = rig.breaker.since(self.begin);
    }

    /// How often the breaker opened after it had been closed, and how often it let one attempt through.
    pub(crate) fn openings(&self) -> (usize, usize) {
        let opened = |change: &&Change| (change.from, change.to) == (State::Closed, State::Open);
        let tried = |change: &&Change| change.to == State::HalfOpen;
        (self.changes.iter().filter(opened).count(), self.changes.iter().filter(tried).count())
    }

    /// When it first opened, and when it last closed.
    pub(crate) fn opened_and_closed(&self) -> (Option<Duration>, Option<Duration>) {
        let at = |change: Option<&Change>| change.map(|change| change.at.duration_since(self.begin));
        let opened = self.changes.iter().find(|change| change.from == State::Closed);
        let closed = self.changes.iter().rfind(|change| change.to == State::Closed);
        (at(opened), at(closed))
    }
}

impl Figures {
    pub(crate) fn new(name: &'static str, watched: Watched, calls: &[Call], counted: Counters) -> Self {
        let ended = |is_answered: bool| {
            let ended = calls.iter().filter(|call| call.is_answered == is_answered);
            let times: Vec<Duration> = ended.map(|call| call.took).collect();
            let (median_ms, slow_ms) = (percentile_ms(&times, 50), percentile_ms(&times, 99));
            Calls { count: times.len(), median_ms, slow_ms }
        };
        let new = calls.iter().filter(|call| !call.is_again).count();
        Self { name, watched, counted, new, answered: ended(true), refused: ended(false) }
    }
}

impl Counters {
    /// Attempts that somebody was there to take.
    pub(crate) fn connected(&self) -> f64 {
        self.attempts - self.unconnected
    }

    /// Attempts that are the first of their call.
    pub(crate) fn firsts(&self) -> f64 {
        self.attempts - self.resends
    }

    /// Resends over first attempts.
    pub(crate) fn ratio(&self) -> f64 {
        self.resends / self.firsts()
    }
}

impl Story {
    /// The one in the middle by what resends added.
    pub(crate) fn middle(mut stories: Vec<Self>) -> Self {
        stories.sort_by(|one, other| one.total.ratio().total_cmp(&other.total.ratio()));
        stories.swap_remove(stories.len() / 2)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}: {:?}, {} new calls, answered {:?}, ",
            self.name, self.counted, self.new, self.answered
        )?;
        let Watched { in_flight, waiting, at_stripe, open, peak_bytes, .. } = &self.watched;
        write!(
            out,
            "refused {:?}, in flight {in_flight}, waiting {waiting}, at Stripe {at_stripe}, ",
            self.refused
        )?;
        write!(out, "open {open}, peak {peak_bytes} B, breaker {:?}", self.watched.openings())
    }
}
