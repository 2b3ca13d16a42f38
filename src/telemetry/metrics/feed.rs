//! What is counted of the event feed.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Counter, Gauge, Meter, UpDownCounter};

use super::super::names;
use super::{Metrics, counter};

/// What counts the feed.
#[derive(Debug)]
pub(super) struct Instruments {
    appended: Counter<u64>,
    outside: Counter<u64>,
    other_version: Counter<u64>,
    sweep_reads: Counter<u64>,
    repaired: Counter<u64>,
    passed_over: Counter<u64>,
    log_bytes: Gauge<u64>,
    oldest_age: Gauge<u64>,
    subscribers: UpDownCounter<i64>,
}

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            appended: counter(meter, names::EVENTS_APPENDED, "Events appended to the feed"),
            outside: counter(
                meter,
                names::EVENTS_OUTSIDE,
                "Events appended to the feed that a request past the gateway caused, by account",
            ),
            other_version: counter(
                meter,
                names::EVENTS_OTHER_VERSION,
                "Events appended to the feed in another version than the contract's, by account",
            ),
            sweep_reads: counter(meter, names::SWEEP_READS, "Requests to Stripe for its list of events"),
            repaired: counter(meter, names::EVENTS_REPAIRED, "Events that only Stripe's list told of"),
            passed_over: counter(
                meter,
                names::EVENTS_PASSED_OVER,
                "Events that a named subscription passed over because policies show them to nobody of it",
            ),
            log_bytes: meter
                .u64_gauge(names::EVENTS_LOG_BYTES)
                .with_description("Bytes of the events in the log")
                .build(),
            oldest_age: meter
                .u64_gauge(names::EVENTS_OLDEST_AGE)
                .with_description("Age of the oldest event in the log")
                .with_unit("s")
                .build(),
            subscribers: meter
                .i64_up_down_counter(names::SUBSCRIBERS)
                .with_description("Open event streams")
                .build(),
        }
    }

    pub(super) fn begin_at_nought(&self) {
        for counter in [&self.appended, &self.sweep_reads, &self.repaired] {
            counter.add(0, &[]);
        }
        self.subscribers.add(0, &[]);
    }
}

/// An open event stream.
#[derive(Debug)]
#[must_use = "the stream counts as closed as soon as this is dropped"]
pub struct Subscriber(Metrics);

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.0.feed.subscribers.add(-1, &[]);
    }
}

impl Metrics {
    /// Events were appended to the feed.
    pub fn events_appended(&self, count: u64) {
        self.0.feed.appended.add(count, &[]);
    }

    /// An event was appended that a request past the gateway caused; `account` is an alias.
    pub fn event_outside(&self, account: &str) {
        self.0.feed.outside.add(1, &[KeyValue::new(names::LABEL_ACCOUNT, account.to_owned())]);
    }

    /// An event was appended that Stripe rendered in another version than the contract's; `account` is an alias.
    pub fn event_in_other_version(&self, account: &str) {
        self.0.feed.other_version.add(1, &[KeyValue::new(names::LABEL_ACCOUNT, account.to_owned())]);
    }

    /// Stripe was asked for a page of its list of events.
    pub fn sweep_read(&self) {
        self.0.feed.sweep_reads.add(1, &[]);
    }

    /// An event was found in Stripe's list that the log lacked.
    pub fn events_repaired(&self) {
        self.0.feed.repaired.add(1, &[]);
    }

    /// A named subscription passed an event over that the policies show to nobody of it.
    pub fn event_passed_over(&self) {
        self.0.feed.passed_over.add(1, &[]);
    }

    /// From now on shows up to when each account was compared with Stripe's list; `ends` tells it whenever somebody looks.
    pub fn swept_to(&self, ends: impl Fn() -> Vec<(String, i64)> + Send + Sync + 'static) {
        let gauge = self.0.meter.i64_observable_gauge(names::EVENTS_SWEPT_TO);
        let observe = move |seen: &dyn AsyncInstrument<i64>| {
            for (account, end_s) in ends() {
                seen.observe(end_s, &[KeyValue::new(names::LABEL_ACCOUNT, account)]);
            }
        };
        let about = "Up to when the log was compared with Stripe's list of events";
        gauge.with_description(about).with_callback(observe).build();
    }

    /// The event log has so many bytes, and its oldest event is so old.
    pub fn event_log(&self, bytes: u64, oldest_age: Duration) {
        self.0.feed.log_bytes.record(bytes, &[]);
        self.0.feed.oldest_age.record(oldest_age.as_secs(), &[]);
    }

    /// Counts an event stream as open for as long as the guard lives.
    pub fn subscriber(&self) -> Subscriber {
        self.0.feed.subscribers.add(1, &[]);
        Subscriber(self.clone())
    }

    /// From now on shows how far named subscriptions are behind, by what each is known by, in events and in seconds; `lags`
    /// tells it whenever somebody looks.
    pub fn subscription_lags(&self, lags: impl Fn() -> Vec<(String, u64, u64)> + Send + Sync + 'static) {
        let lags = Arc::new(lags);
        let observe = |pick: fn(&(String, u64, u64)) -> u64| {
            let lags = Arc::clone(&lags);
            move |seen: &dyn AsyncInstrument<u64>| {
                for lag in lags() {
                    let label = KeyValue::new(names::LABEL_SUBSCRIPTION, lag.0.clone());
                    seen.observe(pick(&lag), &[label]);
                }
            }
        };
        let gauge = self.0.meter.u64_observable_gauge(names::SUBSCRIPTION_LAG);
        let about = "Events that a named subscription has still to have acknowledged";
        gauge.with_description(about).with_callback(observe(|lag| lag.1)).build();
        let gauge = self.0.meter.u64_observable_gauge(names::SUBSCRIPTION_LAG_TIME).with_unit("s");
        let about = "How long ago the earliest of those events was received";
        gauge.with_description(about).with_callback(observe(|lag| lag.2)).build();
    }
}
