//! What is counted while Stripe is in trouble, and while there are more calls than the gateway takes.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter};

use super::super::names::{self, BreakerState, Shed};
use super::{Metrics, counter, zero};

/// What counts the pressure.
#[derive(Debug)]
pub(super) struct Instruments {
    breaker: Gauge<u64>,
    breaker_refusals: Counter<u64>,
    retries_refused: Counter<u64>,
    retry_budget: Gauge<u64>,
    calls_shed: Counter<u64>,
    lag: Gauge<f64>,
}

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            breaker: meter
                .u64_gauge(names::STRIPE_BREAKER)
                .with_description("How the breaker before a host of Stripe's stands: 1 on one of the states")
                .build(),
            breaker_refusals: counter(
                meter,
                names::STRIPE_BREAKER_REFUSALS,
                "Attempts at Stripe that were not made because the breaker is open",
            ),
            retries_refused: counter(
                meter,
                names::STRIPE_RETRIES_REFUSED,
                "Further attempts at Stripe that the retry budget did not allow",
            ),
            retry_budget: meter
                .u64_gauge(names::STRIPE_RETRY_BUDGET)
                .with_description("Further attempts at Stripe that the retry budget allows now")
                .build(),
            calls_shed: counter(meter, names::CALLS_SHED, "Calls refused at the door, by reason"),
            lag: meter
                .f64_gauge(names::RUNTIME_LAG)
                .with_unit("s")
                .with_description("How late the gateway gets to work that is ready")
                .build(),
        }
    }

    pub(super) fn begin_at_nought(&self) {
        zero(&self.calls_shed, names::LABEL_REASON, Shed::ALL.map(Shed::as_str));
    }
}

impl Metrics {
    /// Stripe may be in trouble from now on at these hosts, for an account by its alias: what counts that stands at nought.
    pub fn stripe_account(&self, account: &str, hosts: &[&'static str]) {
        hosts.iter().for_each(|host| self.refused_by_breaker(0, account, host));
        self.refused_by_budget(0, account);
    }

    /// How the breaker before a host stands, for an account by its alias.
    pub fn breaker(&self, account: &str, host: &'static str, now: BreakerState) {
        for state in BreakerState::ALL {
            let labels = [
                KeyValue::new(names::LABEL_ACCOUNT, account.to_owned()),
                KeyValue::new(names::LABEL_HOST, host),
                KeyValue::new(names::LABEL_STATE, state.as_str()),
            ];
            self.0.pressure.breaker.record(u64::from(state == now), &labels);
        }
    }

    /// An attempt was not made because the breaker is open.
    pub fn breaker_refused(&self, account: &str, host: &'static str) {
        self.refused_by_breaker(1, account, host);
    }

    /// A further attempt was not made because the retry budget is spent.
    pub fn retry_refused(&self, account: &str) {
        self.refused_by_budget(1, account);
    }

    /// How many further attempts the retry budget allows.
    pub fn retry_budget(&self, account: &str, left: u32) {
        let account = KeyValue::new(names::LABEL_ACCOUNT, account.to_owned());
        self.0.pressure.retry_budget.record(u64::from(left), &[account]);
    }

    /// A call was refused at the door.
    pub fn call_shed(&self, why: Shed) {
        self.0.pressure.calls_shed.add(1, &[KeyValue::new(names::LABEL_REASON, why.as_str())]);
    }

    /// How late the gateway gets to work that is ready.
    pub fn runtime_lag(&self, lag: Duration) {
        self.0.pressure.lag.record(lag.as_secs_f64(), &[]);
    }

    /// From now on shows how many calls are under way and how many may be; `look` tells both whenever somebody looks.
    pub fn calls_in_flight(&self, look: impl Fn() -> (u64, u64) + Clone + Send + Sync + 'static) {
        let most = look.clone();
        let gauge = self.0.meter.u64_observable_gauge(names::CALLS_IN_FLIGHT);
        let gauge = gauge.with_description("Calls that are under way");
        gauge.with_callback(move |seen| seen.observe(look().0, &[])).build();
        let gauge = self.0.meter.u64_observable_gauge(names::CALLS_IN_FLIGHT_MAX);
        let gauge = gauge.with_description("Calls that may be under way; fewer while the gateway is behind");
        gauge.with_callback(move |seen| seen.observe(most().1, &[])).build();
    }

    fn refused_by_breaker(&self, count: u64, account: &str, host: &'static str) {
        let account = KeyValue::new(names::LABEL_ACCOUNT, account.to_owned());
        self.0.pressure.breaker_refusals.add(count, &[account, KeyValue::new(names::LABEL_HOST, host)]);
    }

    fn refused_by_budget(&self, count: u64, account: &str) {
        let account = KeyValue::new(names::LABEL_ACCOUNT, account.to_owned());
        self.0.pressure.retries_refused.add(count, &[account]);
    }
}
