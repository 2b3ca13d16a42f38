//! When a host of Stripe's is not asked any more because it does not answer, and when it is tried again. Pure: the time
//! comes from outside, and it neither waits nor sends.

use std::time::Duration;

use super::answer::{Attempt, Trouble};
use crate::domain::limits::{BREAKER_FAILURES_MAX, BREAKER_PAUSE_MS_MAX, BREAKER_PAUSE_MS_MIN};
use crate::telemetry::names::BreakerState;

/// A circuit breaker. It opens after a run of failures with no answer between them, lets one attempt through at the end
/// of each pause, and closes with the first of them that is answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last answer, while it is closed.
    failures: u32,
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    /// The time between two probes.
    pause: Duration,
    /// When the next one may be made.
    next: Duration,
    /// Whether one is under way.
    is_probing: bool,
}

/// The leave to make one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// As ever.
    Usual,
    /// To find out whether the host answers again.
    Probe,
}

impl Breaker {
    /// How it stands.
    pub(super) fn state(&self) -> BreakerState {
        match &self.open {
            None => BreakerState::Closed,
            Some(Open { is_probing: true, .. }) => BreakerState::HalfOpen,
            Some(Open { is_probing: false, .. }) => BreakerState::Open,
        }
    }

    /// How long no attempt is let through; `None` where one would be let through now.
    pub(super) fn closed_off(&self, now: Duration) -> Option<Duration> {
        self.open.as_ref()?.next.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Asks for the leave to make an attempt now.
    ///
    /// # Errors
    /// How long no attempt is let through.
    pub(super) fn pass(&mut self, now: Duration) -> Result<Pass, Duration> {
        if let Some(left) = self.closed_off(now) {
            return Err(left);
        }
        Ok(match &mut self.open {
            None => Pass::Usual,
            Some(open) => {
                // One that is not answered holds up the next no longer than this.
                *open = Open { next: now + open.pause, is_probing: true, ..*open };
                Pass::Probe
            }
        })
    }

    /// Takes note of how an attempt ended; `None` for one that was given up. While the breaker is open, attempts that
    /// were made before say nothing new.
    pub(super) fn heard(&mut self, now: Duration, pass: Pass, attempt: Option<&Attempt>) {
        let is_alive = attempt.and_then(is_alive);
        match (&mut self.open, pass, is_alive) {
            (None, _, Some(true)) => self.failures = 0,
            (None, _, Some(false)) => {
                self.failures += 1;
                if self.failures >= BREAKER_FAILURES_MAX {
                    let pause = Duration::from_millis(BREAKER_PAUSE_MS_MIN);
                    self.open = Some(Open { pause, next: now + pause, is_probing: false });
                }
            }
            (Some(_), Pass::Probe, Some(true)) => *self = Self::default(),
            (Some(open), Pass::Probe, Some(false)) => {
                let pause = (open.pause * 2).min(Duration::from_millis(BREAKER_PAUSE_MS_MAX));
                *open = Open { pause, next: now + pause, is_probing: false };
            }
            (Some(open), Pass::Probe, None) => *open = Open { next: now, is_probing: false, ..*open },
            (None, _, None) | (Some(_), Pass::Usual, _) => {}
        }
    }
}

/// Whether the host answers, as far as the attempt tells. A refusal is an answer, and so is what Stripe remembers of an
/// earlier failure; a failure of Stripe's is none.
fn is_alive(attempt: &Attempt) -> Option<bool> {
    match attempt {
        Attempt::Answered(answer) => Some(answer.status < 500 || answer.replayed),
        Attempt::NotSent(trouble) | Attempt::Broken(trouble) => match trouble {
            Trouble::Dns
            | Trouble::Connect
            | Trouble::Tls
            | Trouble::Timeout
            | Trouble::Reset
            | Trouble::Protocol => Some(false),
            Trouble::TooLarge => Some(true),
            Trouble::BreakerOpen { .. }
            | Trouble::Crowded { .. }
            | Trouble::Deadline
            | Trouble::Unsendable => None,
        },
    }
}

#[cfg(test)]
mod tests;
