//! What is counted of the traffic to Stripe.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Counter, Histogram, Meter};

use super::super::names;
use super::{Metrics, counter, duration};

/// What counts the traffic.
#[derive(Debug)]
pub(super) struct Instruments {
    wait: Histogram<f64>,
    refusals: Counter<u64>,
    shared_reads: Counter<u64>,
}

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            wait: duration(meter, names::QUEUE_WAIT, "How long requests waited for their turn at Stripe"),
            refusals: counter(
                meter,
                names::QUEUE_REFUSALS,
                "Requests that found no turn at Stripe in time and were not sent",
            ),
            shared_reads: counter(
                meter,
                names::SHARED_READS,
                "Reads that were answered by the same request as another one's",
            ),
        }
    }

    pub(super) fn begin_at_nought(&self) {
        self.shared_reads.add(0, &[]);
    }
}

/// How one account's traffic stands.
#[derive(Clone, Debug)]
pub struct AccountTraffic {
    /// The account's alias.
    pub account: String,
    /// Requests that wait for their turn.
    pub waiting: u64,
    /// Requests under way.
    pub under_way: u64,
    /// Requests a second that may go at most.
    pub limit: f64,
    /// The part of that which was not used of late, from 0 to 1.
    pub headroom: f64,
}

/// A gauge's name, what it is, and how it is read.
type Shown<T> = (&'static str, &'static str, fn(&AccountTraffic) -> T);

impl Metrics {
    /// A request of this class got its turn after a wait, which may be none.
    pub fn stripe_turn(&self, class: &'static str, waited: Duration) {
        self.0.traffic.wait.record(waited.as_secs_f64(), &[KeyValue::new(names::LABEL_CLASS, class)]);
    }

    /// A request of this class got no turn; why is one of a few words.
    pub fn stripe_turned_away(&self, class: &'static str, why: &'static str) {
        self.turned_away(1, class, why);
    }

    /// Requests of these classes may get no turn from now on, for these reasons: what counts that stands at nought.
    pub fn stripe_queue(&self, classes: &[&'static str], whys: &[&'static str]) {
        for class in classes {
            whys.iter().for_each(|why| self.turned_away(0, class, why));
        }
    }

    fn turned_away(&self, count: u64, class: &'static str, why: &'static str) {
        let labels = [KeyValue::new(names::LABEL_CLASS, class), KeyValue::new(names::LABEL_REASON, why)];
        self.0.traffic.refusals.add(count, &labels);
    }

    /// A read was answered by the same request as another one's.
    pub fn read_shared(&self) {
        self.0.traffic.shared_reads.add(1, &[]);
    }

    /// From now on shows how the traffic to each account stands; `all` tells it whenever somebody looks.
    pub fn traffic(&self, all: impl Fn() -> Vec<AccountTraffic> + Clone + Send + Sync + 'static) {
        let account = |one: &AccountTraffic| [KeyValue::new(names::LABEL_ACCOUNT, one.account.clone())];
        let counts: [Shown<u64>; 2] = [
            (names::QUEUE_WAITING, "Requests that wait for their turn at Stripe", |one| one.waiting),
            (names::STRIPE_IN_FLIGHT, "Requests that are under way at Stripe", |one| one.under_way),
        ];
        for (name, about, value) in counts {
            let all = all.clone();
            let observe = move |seen: &dyn AsyncInstrument<u64>| {
                all().iter().for_each(|one| seen.observe(value(one), &account(one)));
            };
            let gauge = self.0.meter.u64_observable_gauge(name).with_description(about);
            gauge.with_callback(observe).build();
        }
        let levels: [Shown<f64>; 2] = [
            (names::STRIPE_LIMIT, "Requests a second that may go to Stripe now", |one| one.limit),
            (names::STRIPE_HEADROOM, "Part of that limit that was not used of late", |one| one.headroom),
        ];
        for (name, about, value) in levels {
            let all = all.clone();
            let observe = move |seen: &dyn AsyncInstrument<f64>| {
                all().iter().for_each(|one| seen.observe(value(one), &account(one)));
            };
            let gauge = self.0.meter.f64_observable_gauge(name).with_description(about);
            gauge.with_callback(observe).build();
        }
    }
}
