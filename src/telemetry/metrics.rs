//! The instruments, as one handle that every room can count with; names and label values stand in [`super::names`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{
    AsyncInstrument, Counter, Gauge, Histogram, Meter, MeterProvider as _, UpDownCounter,
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder as _, TextEncoder};
use prost::Message as _;

use super::names::{self, Cut, OTHER, Port, Replay, StoreFailure, Way, Webhook};
use crate::proto::DESCRIPTORS;

/// Upper bounds of the duration buckets, seconds, as the semantic conventions advise, and up to Stripe's 80 s.
const DURATION_BUCKETS_S: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 80.0];
/// Methods that the server has and the contract does not.
const STANDARD_METHODS: [&str; 4] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Counts; cheap to clone, all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Instruments>);

#[derive(Debug)]
struct Instruments {
    registry: prometheus::Registry,
    // The instruments stop counting when their provider goes away.
    _provider: SdkMeterProvider,
    rpc_methods: HashSet<String>,
    rpc_duration: Histogram<f64>,
    stripe_duration: Histogram<f64>,
    stripe_resends: Counter<u64>,
    stripe_keys_refused: Counter<u64>,
    config_reloads: Counter<u64>,
    config_reload_failed: Gauge<u64>,
    replays: Counter<u64>,
    unknown_outcomes: Counter<u64>,
    resolutions: Counter<u64>,
    webhooks: Counter<u64>,
    events_appended: Counter<u64>,
    strangers: Counter<u64>,
    subscribers: UpDownCounter<i64>,
    store_errors: Counter<u64>,
    connections_open: UpDownCounter<i64>,
    connections_cut: Counter<u64>,
    meter: Meter,
}

/// How one HTTP attempt at Stripe ended.
#[derive(Clone, Copy, Debug)]
pub struct StripeAttempt<'a> {
    /// HTTP method.
    pub verb: &'static str,
    /// Path template, such as `/v1/refunds/{id}`.
    pub template: &'a str,
    /// HTTP status, or the name of what went wrong instead.
    pub end: Result<u16, &'static str>,
    /// It repeats an earlier attempt.
    pub resend: bool,
    /// How long it took.
    pub elapsed: Duration,
}

/// The metrics cannot be set up or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instruments cannot be registered.
    #[error("metrics cannot be set up")]
    Setup(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// The text form cannot be written.
    #[error("metrics cannot be written as text")]
    Text(#[from] prometheus::Error),
}

impl Metrics {
    /// Instruments that count from nought into a registry of their own.
    ///
    /// # Errors
    /// When the registry refuses the exporter.
    pub fn new() -> Result<Self, Error> {
        let registry = prometheus::Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let provider =
            SdkMeterProvider::builder().with_resource(super::export::resource()).with_reader(reader).build();
        let meter = provider.meter("tollgate");
        Ok(Self(Arc::new(Instruments {
            registry,
            _provider: provider,
            rpc_methods: rpc_methods(),
            rpc_duration: duration(&meter, names::RPC_DURATION, "Duration of gRPC calls"),
            stripe_duration: duration(&meter, names::STRIPE_DURATION, "Duration of HTTP attempts at Stripe"),
            stripe_resends: counter(
                &meter,
                names::STRIPE_RESENDS,
                "Attempts at Stripe that repeat an earlier one",
            ),
            stripe_keys_refused: counter(
                &meter,
                names::STRIPE_KEYS_REFUSED,
                "Answers of Stripe that refuse an API key",
            ),
            config_reloads: counter(&meter, names::CONFIG_RELOADS, "Readings of the settings while running"),
            config_reload_failed: meter
                .u64_gauge(names::CONFIG_RELOAD_FAILED)
                .with_description("Whether older settings are in use because the new ones cannot be taken")
                .build(),
            replays: counter(&meter, names::REPLAYS, "Changes answered from the ledger"),
            unknown_outcomes: counter(
                &meter,
                names::UNKNOWN_OUTCOMES,
                "Changes whose outcome could not be told",
            ),
            resolutions: counter(&meter, names::RESOLUTIONS, "Unknown outcomes that were found out"),
            webhooks: counter(&meter, names::WEBHOOKS, "Webhook deliveries by result"),
            events_appended: counter(&meter, names::EVENTS_APPENDED, "Events appended to the feed"),
            strangers: counter(&meter, names::STRANGERS, "Calls without a credential of a caller, by cause"),
            subscribers: meter
                .i64_up_down_counter(names::SUBSCRIBERS)
                .with_description("Open event streams")
                .build(),
            store_errors: counter(&meter, names::STORE_ERRORS, "Failed operations of the store"),
            connections_open: meter
                .i64_up_down_counter(names::CONNECTIONS_OPEN)
                .with_description("Open connections")
                .build(),
            connections_cut: counter(
                &meter,
                names::CONNECTIONS_CUT,
                "Connections that were refused or cut, by reason",
            ),
            meter,
        })))
    }

    /// One finished gRPC call. `path` is that of the HTTP/2 request, with or without its leading slash; a method that
    /// the server does not have counts as [`OTHER`]. `code` is the number of the gRPC status.
    pub fn rpc(&self, path: &str, code: i32, elapsed: Duration) {
        let path = path.strip_prefix('/').unwrap_or(path);
        let method = if self.0.rpc_methods.contains(path) { path } else { OTHER };
        self.0.rpc_duration.record(
            elapsed.as_secs_f64(),
            &[
                KeyValue::new(names::LABEL_RPC_SYSTEM, "grpc"),
                KeyValue::new(names::LABEL_RPC_METHOD, method.to_owned()),
                KeyValue::new(names::LABEL_RPC_STATUS, names::rpc_status(code)),
            ],
        );
    }

    /// One HTTP attempt at Stripe.
    pub fn stripe_attempt(&self, attempt: StripeAttempt<'_>) {
        let end = match attempt.end {
            Ok(status) => KeyValue::new(names::LABEL_HTTP_STATUS, i64::from(status)),
            Err(name) => KeyValue::new(names::LABEL_ERROR_TYPE, name),
        };
        let labels = [
            KeyValue::new(names::LABEL_HTTP_METHOD, attempt.verb),
            KeyValue::new(names::LABEL_URL_TEMPLATE, attempt.template.to_owned()),
            end,
        ];
        self.0.stripe_duration.record(attempt.elapsed.as_secs_f64(), &labels);
        if attempt.resend {
            self.0.stripe_resends.add(1, &[]);
        }
    }

    /// Stripe refused an API key.
    pub fn stripe_key_refused(&self) {
        self.0.stripe_keys_refused.add(1, &[]);
    }

    /// The settings were read again, and taken or not; when not, the older ones stay in use.
    pub fn config_reload(&self, is_taken: bool) {
        let result = if is_taken { "taken" } else { "failed" };
        self.0.config_reloads.add(1, &[KeyValue::new(names::LABEL_RESULT, result)]);
        self.0.config_reload_failed.record(u64::from(!is_taken), &[]);
    }

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

    /// From now on shows the rights that keys lack, by the account's alias and the right; `missing` tells them whenever
    /// somebody looks.
    pub fn rights_missing(&self, missing: impl Fn() -> Vec<(String, String)> + Send + Sync + 'static) {
        let gauge = self.0.meter.u64_observable_gauge(names::STRIPE_RIGHTS_MISSING);
        let observe = move |seen: &dyn AsyncInstrument<u64>| {
            for (account, right) in missing() {
                let account = KeyValue::new(names::LABEL_ACCOUNT, account);
                seen.observe(1, &[account, KeyValue::new(names::LABEL_RIGHT, right)]);
            }
        };
        gauge.with_description("Rights that a restricted key lacks").with_callback(observe).build();
    }

    /// A webhook delivery came to its end.
    pub fn webhook(&self, result: Webhook) {
        self.0.webhooks.add(1, &[KeyValue::new(names::LABEL_RESULT, result.as_str())]);
    }

    /// Events were appended to the feed.
    pub fn events_appended(&self, count: u64) {
        self.0.events_appended.add(count, &[]);
    }

    /// A call was nobody's; the cause is one of a few words.
    pub fn stranger(&self, cause: &'static str) {
        self.0.strangers.add(1, &[KeyValue::new(names::LABEL_RESULT, cause)]);
    }

    /// Counts an event stream as open for as long as the guard lives.
    pub fn subscriber(&self) -> Subscriber {
        self.0.subscribers.add(1, &[]);
        Subscriber(self.clone())
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
        gauge.with_description(about).with_callback(move |seen| seen.observe(number(), &[])).build();
    }

    /// The store failed.
    pub fn store_error(&self, kind: StoreFailure) {
        self.0.store_errors.add(1, &[KeyValue::new(names::LABEL_KIND, kind.as_str())]);
    }

    /// Counts a connection as open for as long as the guard lives.
    pub fn connection(&self, port: Port) -> Connection {
        self.0.connections_open.add(1, &[KeyValue::new(names::LABEL_PORT, port.as_str())]);
        Connection(self.clone(), port)
    }

    /// A connection was refused or cut.
    pub fn connection_cut(&self, port: Port, why: Cut) {
        let labels = [
            KeyValue::new(names::LABEL_PORT, port.as_str()),
            KeyValue::new(names::LABEL_REASON, why.as_str()),
        ];
        self.0.connections_cut.add(1, &labels);
    }

    /// From now on shows when the gateway's certificate ends; `end_s` tells it whenever somebody looks, in seconds of
    /// Unix time.
    pub fn certificate_end(&self, end_s: impl Fn() -> i64 + Send + Sync + 'static) {
        let gauge = self.0.meter.i64_observable_gauge(names::CERTIFICATE_END).with_unit("s");
        let about = "When the gateway's certificate ends, in Unix time";
        gauge.with_description(about).with_callback(move |seen| seen.observe(end_s(), &[])).build();
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When the registry holds what the format cannot express.
    pub fn text(&self) -> Result<String, Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// An open event stream.
#[derive(Debug)]
#[must_use = "the stream counts as closed as soon as this is dropped"]
pub struct Subscriber(Metrics);

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.0.subscribers.add(-1, &[]);
    }
}

/// An open connection.
#[derive(Debug)]
#[must_use = "the connection counts as closed as soon as this is dropped"]
pub struct Connection(Metrics, Port);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.0.connections_open.add(-1, &[KeyValue::new(names::LABEL_PORT, self.1.as_str())]);
    }
}

fn counter(meter: &Meter, name: &'static str, about: &'static str) -> Counter<u64> {
    meter.u64_counter(name).with_description(about).build()
}

fn duration(meter: &Meter, name: &'static str, about: &'static str) -> Histogram<f64> {
    let bounds = DURATION_BUCKETS_S.to_vec();
    meter.f64_histogram(name).with_unit("s").with_description(about).with_boundaries(bounds).build()
}

/// Every method that a caller can reach; anything else in a path is the caller's invention.
fn rpc_methods() -> HashSet<String> {
    let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
    let contract = files.iter().flat_map(|file| {
        file.service.iter().flat_map(move |service| {
            service
                .method
                .iter()
                .map(move |method| format!("{}.{}/{}", file.package(), service.name(), method.name()))
        })
    });
    contract.chain(STANDARD_METHODS.map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = "tests/golden/metrics.txt";

    fn everything_once() -> Metrics {
        let metrics = Metrics::new().unwrap();
        let elapsed = Duration::from_millis(20);
        metrics.rpc("/tollgate.v1.RefundService/CreateRefund", 0, elapsed);
        metrics.rpc("/tollgate.v1.RefundService/Invented", 99, elapsed);
        let attempt =
            StripeAttempt { verb: "POST", template: "/v1/refunds", end: Ok(200), resend: false, elapsed };
        metrics.stripe_attempt(attempt);
        metrics.stripe_attempt(StripeAttempt { end: Err("timeout"), resend: true, ..attempt });
        Replay::ALL.into_iter().for_each(|of| metrics.replay(of));
        Webhook::ALL.into_iter().for_each(|result| metrics.webhook(result));
        StoreFailure::ALL.into_iter().for_each(|kind| metrics.store_error(kind));
        metrics.config_reload(true);
        metrics.config_reload(false);
        metrics.unknown_outcome();
        Way::ALL.into_iter().for_each(|way| metrics.resolved(way));
        metrics.unresolved(|| [("in_flight", 1), ("unknown", 2), ("needs_operator", 3)]);
        metrics.freezes(|| 4);
        metrics.rights_missing(|| vec![("default".to_owned(), "refunds:write".to_owned())]);
        metrics.stripe_key_refused();
        metrics.events_appended(3);
        metrics.stranger("missing");
        metrics.audit_dropped(|| 2);
        metrics.audit_unsigned(|| 3);
        Cut::ALL.into_iter().for_each(|why| metrics.connection_cut(Port::Grpc, why));
        Port::ALL.into_iter().for_each(|port| drop(metrics.connection(port)));
        metrics.certificate_end(|| 4);
        metrics
    }

    /// Refreshed with `UPDATE_GOLDEN=1 cargo test metrics`.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the flag that refreshes golden files comes from the environment"
    )]
    fn names_and_labels_are_those_that_dashboards_know() {
        let metrics = everything_once();
        let _stream = metrics.subscriber();
        let text = metrics.text().unwrap();
        // What the exporter says of itself changes with every version.
        let text: String = text.split_inclusive('\n').filter(|line| !line.contains("target_info")).collect();
        if std::env::var("UPDATE_GOLDEN").is_ok() {
            std::fs::write(GOLDEN, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(GOLDEN).unwrap());
    }

    #[test]
    fn a_stream_counts_until_it_is_dropped() {
        let metrics = Metrics::new().unwrap();
        let shown = || {
            metrics
                .text()
                .unwrap()
                .lines()
                .any(|line| line.starts_with("tollgate_events_subscribers{") && line.ends_with(" 1"))
        };
        let stream = metrics.subscriber();
        assert!(shown());
        drop(stream);
        assert!(!shown());
    }
}
