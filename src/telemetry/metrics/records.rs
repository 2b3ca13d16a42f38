//! What is counted of decisions and of what becomes durable.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Counter, Histogram, Meter};

use super::super::names::{self, StoreFailure};
use super::{Metrics, counter, duration, zero};

/// What counts decisions and the store.
#[derive(Debug)]
pub(super) struct Instruments {
    denials: Counter<u64>,
    commit_duration: Histogram<f64>,
    store_errors: Counter<u64>,
}

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            denials: counter(meter, names::DENIALS, "Calls that policies denied, by rule"),
            commit_duration: duration(
                meter,
                names::COMMIT_DURATION,
                "Time until rows were durable, waiting included",
            ),
            store_errors: counter(meter, names::STORE_ERRORS, "Failed operations of the store"),
        }
    }

    pub(super) fn begin_at_nought(&self) {
        zero(&self.store_errors, names::LABEL_KIND, StoreFailure::ALL.map(StoreFailure::as_str));
    }
}

impl Metrics {
    /// Policies denied a call; `rule` is the name of the rule that decided.
    pub fn denied(&self, rule: String) {
        self.0.records.denials.add(1, &[KeyValue::new(names::LABEL_RULE, rule)]);
    }

    /// Takes down how long after somebody asked for it rows became durable. It holds the one instrument and not these
    /// metrics, whose gauges ask the store: each would keep the other alive.
    pub fn stopwatch(&self) -> impl Fn(Duration) + Send + Sync + use<> {
        let commit_duration = self.0.records.commit_duration.clone();
        move |elapsed| commit_duration.record(elapsed.as_secs_f64(), &[])
    }

    /// The store failed.
    pub fn store_error(&self, kind: StoreFailure) {
        self.0.records.store_errors.add(1, &[KeyValue::new(names::LABEL_KIND, kind.as_str())]);
    }

    /// From now on shows how many audit records the log has had, those of earlier runs too; `total` tells it whenever
    /// somebody looks.
    pub fn audit_records(&self, total: impl Fn() -> u64 + Send + Sync + 'static) {
        let counter = self.0.meter.u64_observable_counter(names::AUDIT_RECORDS);
        let about = "Audit records that were appended";
        counter.with_description(about).with_callback(move |seen| seen.observe(total(), &[])).build();
    }

    /// From now on shows how many audit records of reads were given up; `total` tells it whenever somebody looks.
    pub fn audit_dropped(&self, total: impl Fn() -> u64 + Send + Sync + 'static) {
        let counter = self.0.meter.u64_observable_counter(names::AUDIT_DROPPED);
        let about = "Audit records of reads that were given up";
        counter.with_description(about).with_callback(move |seen| seen.observe(total(), &[])).build();
    }

    /// From now on shows how many audit records are not signed; `number` tells it whenever somebody looks.
    pub fn audit_unsigned(&self, number: impl Fn() -> u64 + Send + Sync + 'static) {
        let gauge = self.0.meter.u64_observable_gauge(names::AUDIT_UNSIGNED);
        let about = "Audit records that no signed checkpoint covers yet";
        gauge
            .with_description(about)
            .with_callback(move |seen: &dyn AsyncInstrument<u64>| seen.observe(number(), &[]))
            .build();
    }
}
