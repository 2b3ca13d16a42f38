//! What a client and its clones know together of how Stripe fares: a breaker for each host and the retry budget. It keeps
//! the time and tells of changes; the rules are [`super::breaker`]'s and [`super::retry_budget`]'s.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{Attempt, Trouble};
use super::breaker::{Breaker, Pass};
use super::retry_budget::RetryBudget;
use crate::contract::Host;
use crate::domain::limits::STRIPE_SILENCE_MS_MAX;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::BreakerState;

/// The health of Stripe as seen from one account.
#[derive(Debug)]
pub(super) struct Health {
    account: String,
    started: Instant,
    api: Mutex<Breaker>,
    files: Mutex<Breaker>,
    budget: Mutex<RetryBudget>,
    metrics: Option<Metrics>,
}

/// The leave to make one attempt, which ends with what came of it. Dropped before, the attempt was given up, which is a
/// failure of Stripe's after a long silence alone.
#[derive(Debug)]
#[must_use = "dropping it says that no attempt was made"]
pub(super) struct Trial<'a> {
    health: &'a Health,
    host: Host,
    pass: Pass,
    since: Instant,
    is_over: bool,
}

impl Health {
    /// Of an account by its alias, with everything in order.
    pub(super) fn new(account: String, metrics: Option<Metrics>) -> Self {
        let health = Self {
            account,
            started: Instant::now(),
            api: Mutex::default(),
            files: Mutex::default(),
            budget: Mutex::default(),
            metrics,
        };
        let hosts = [Host::Api, Host::Files];
        hosts.into_iter().for_each(|host| health.show(host, BreakerState::Closed));
        if let Some(metrics) = &health.metrics {
            metrics.stripe_account(&health.account, &hosts.map(Host::as_str));
        }
        health.show_budget(&lock(&health.budget));
        health
    }

    /// Why the host is not asked; `None` where an attempt would be let through now. To be asked before anything is
    /// waited for.
    pub(super) fn closed_off(&self, host: Host) -> Option<Trouble> {
        let left = self.breaker(host).closed_off(self.now());
        left.map(|left| self.refused(host, left))
    }

    /// Asks for the leave to make an attempt now, after `made` attempts of the same call.
    ///
    /// # Errors
    /// Why the host is not asked.
    pub(super) fn attempt(&self, host: Host, made: u32) -> Result<Trial<'_>, Trouble> {
        let pass = self.watched(host, |breaker, now| breaker.pass(now));
        let pass = pass.map_err(|left| self.refused(host, left))?;
        if made == 0 {
            let mut budget = lock(&self.budget);
            budget.earn();
            self.show_budget(&budget);
        }
        Ok(Trial { health: self, host, pass, since: Instant::now(), is_over: false })
    }

    /// Whether a call may make a further attempt; it counts as made.
    pub(super) fn may_resend(&self) -> bool {
        let mut budget = lock(&self.budget);
        let may = budget.spend();
        self.show_budget(&budget);
        if let (false, Some(metrics)) = (may, &self.metrics) {
            metrics.retry_refused(&self.account);
        }
        may
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn breaker(&self, host: Host) -> MutexGuard<'_, Breaker> {
        lock(match host {
            Host::Api => &self.api,
            Host::Files => &self.files,
        })
    }

    /// Does something with a breaker, and tells when that changes how it stands.
    fn watched<R>(&self, host: Host, change: impl FnOnce(&mut Breaker, Duration) -> R) -> R {
        let mut breaker = self.breaker(host);
        let before = breaker.state();
        let result = change(&mut breaker, self.now());
        let after = breaker.state();
        if after != before {
            let (account, host_name, state) = (self.account.as_str(), host.as_str(), after.as_str());
            match after {
                BreakerState::Open => {
                    tracing::warn!(
                        account,
                        host = host_name,
                        state,
                        "Stripe does not answer, and is left alone for a while"
                    );
                }
                BreakerState::HalfOpen => {
                    tracing::info!(account, host = host_name, state, "Stripe is tried again");
                }
                BreakerState::Closed => {
                    tracing::info!(account, host = host_name, state, "Stripe answers again");
                }
            }
            self.show(host, after);
        }
        result
    }

    fn refused(&self, host: Host, left: Duration) -> Trouble {
        if let Some(metrics) = &self.metrics {
            metrics.breaker_refused(&self.account, host.as_str());
        }
        Trouble::BreakerOpen { retry_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1) }
    }

    fn show(&self, host: Host, state: BreakerState) {
        if let Some(metrics) = &self.metrics {
            metrics.breaker(&self.account, host.as_str(), state);
        }
    }

    fn show_budget(&self, budget: &RetryBudget) {
        if let Some(metrics) = &self.metrics {
            metrics.retry_budget(&self.account, budget.left());
        }
    }
}

impl Trial<'_> {
    /// Says how the attempt ended.
    pub(super) fn ended(mut self, attempt: &Attempt) {
        self.is_over = true;
        self.heard(Some(attempt));
    }

    fn heard(&self, attempt: Option<&Attempt>) {
        self.health.watched(self.host, |breaker, now| breaker.heard(now, self.pass, attempt));
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // Nobody waits for a Stripe that hangs as long as an attempt may take, and it would never count.
        let is_silent = self.since.elapsed() >= Duration::from_millis(STRIPE_SILENCE_MS_MAX);
        self.heard(is_silent.then_some(&Attempt::Broken(Trouble::Timeout)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
