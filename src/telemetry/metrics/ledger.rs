//! What is counted of operations, freezes and budgets.

use opentelemetry::KeyValue;
use opentelemetry::metrics::AsyncInstrument;

use super::Metrics;
use super::names::{self, Replay, Way};

impl Metrics {
    /// A change was answered from the ledger.
    pub fn replay(&self, of: Replay) {
        self.0.replays.add(1, &[KeyValue::new(names::LABEL_RESULT, of.as_str())]);
    }

    /// A change ended without anybody knowing whether it happened.
    pub fn unknown_outcome(&self) {
        self.0.unknown_outcomes.add(1, &[]);
    }

    /// An unknown outcome was found out.
    pub fn resolved(&self, way: Way) {
        self.0.resolutions.add(1, &[KeyValue::new(names::LABEL_WAY, way.as_str())]);
    }

    /// From now on shows how many operations are not settled; `counts` tells it by state whenever somebody looks.
    pub fn unresolved(&self, counts: impl Fn() -> [(&'static str, u64); 3] + Send + Sync + 'static) {
        let gauge = self.0.meter.u64_observable_gauge(names::UNRESOLVED);
        let observe = move |seen: &dyn AsyncInstrument<u64>| {
            for (state, count) in counts() {
                seen.observe(count, &[KeyValue::new(names::LABEL_STATE, state)]);
            }
        };
        gauge.with_description("Operations that are not settled").with_callback(observe).build();
    }

    /// From now on shows how many freezes of changes stand; `count` tells it whenever somebody looks.
    pub fn freezes(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        let gauge = self.0.meter.u64_observable_gauge(names::FREEZES).with_description("Freezes of changes");
        gauge.with_callback(move |seen| seen.observe(count(), &[])).build();
    }

    /// A change did not fit into the budget of this name.
    pub fn budget_refused(&self, budget: &str) {
        self.0.budget_refusals.add(1, &[KeyValue::new(names::LABEL_BUDGET, budget.to_owned())]);
    }

    /// From now on shows how far budgets are used; `most` tells by name, whenever somebody looks, how much the caller who
    /// used it most has used, and the limit.
    pub fn budgets(&self, most: impl Fn() -> Vec<(String, i64, i64)> + Clone + Send + Sync + 'static) {
        let limits = most.clone();
        let label = |name: String| [KeyValue::new(names::LABEL_BUDGET, name)];
        let used = move |seen: &dyn AsyncInstrument<i64>| {
            most().into_iter().for_each(|(name, used, _)| seen.observe(used, &label(name)));
        };
        let limit = move |seen: &dyn AsyncInstrument<i64>| {
            limits().into_iter().for_each(|(name, _, limit)| seen.observe(limit, &label(name)));
        };
        let gauge = self.0.meter.i64_observable_gauge(names::BUDGET_USED);
        gauge.with_description("Most that one caller has used of a budget").with_callback(used).build();
        let gauge = self.0.meter.i64_observable_gauge(names::BUDGET_LIMIT);
        gauge.with_description("What a budget allows each caller").with_callback(limit).build();
    }
}
