//! The instruments, as one handle that every room can count with; names and label values stand in [`super::names`].

mod calls;
mod connections;
mod exemplars;
mod feed;
mod ledger;
mod open_metrics;
mod pressure;
mod records;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{
    AsyncInstrument, Counter, Gauge, Histogram, Meter, MeterProvider as _, UpDownCounter,
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::proto::LabelPair;
use prometheus::{Encoder as _, TextEncoder};

pub use self::connections::Connection;
use self::exemplars::Exemplars;
pub use self::feed::Subscriber;
pub use self::traffic::AccountTraffic;
use super::names::{self, Replay, Way, Webhook};

/// Upper bounds of the duration buckets, seconds, as the semantic conventions advise, and up to Stripe's 80 s.
const DURATION_BUCKETS_S: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 80.0];
/// Upper bounds of the buckets of ages, seconds, up to the three days for which Stripe repeats a delivery
/// (docs.stripe.com/webhooks). Events tell their time in whole seconds.
const AGE_BUCKETS_S: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 43_200.0, 86_400.0, 259_200.0];
/// What becomes of settings that are read while running.
const TAKEN: &str = "taken";
const FAILED: &str = "failed";

/// Counts; cheap to clone, all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Instruments>);

#[derive(Debug)]
struct Instruments {
    registry: prometheus::Registry,
    // The instruments stop counting when their provider goes away.
    provider: SdkMeterProvider,
    calls: calls::Instruments,
    stripe_duration: Histogram<f64>,
    stripe_exemplars: Exemplars,
    stripe_resends: Counter<u64>,
    stripe_keys_refused: Counter<u64>,
    config_reloads: Counter<u64>,
    config_reload_failed: Gauge<u64>,
    replays: Counter<u64>,
    unknown_outcomes: Counter<u64>,
    resolutions: Counter<u64>,
    budget_refusals: Counter<u64>,
    webhooks: Counter<u64>,
    webhook_age: Histogram<f64>,
    feed: feed::Instruments,
    pressure: pressure::Instruments,
    traffic: traffic::Instruments,
    strangers: Counter<u64>,
    records: records::Instruments,
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
    /// The text form with exemplars cannot be written.
    #[error("metrics cannot be written as text with exemplars")]
    OpenMetrics(#[from] std::fmt::Error),
    /// The exporter cannot be made.
    #[error("metrics cannot be exported")]
    Exporter(#[from] super::Error),
}

impl Metrics {
    /// Instruments that count from nought into a registry of their own.
    ///
    /// # Errors
    /// When the registry refuses the exporter.
    pub fn new() -> Result<Self, Error> {
        Self::exporting(None)
    }

    /// The same, sending what they count to an OTLP receiver as well, if one is named. Call it inside the runtime that is to
    /// carry the exporter; what was counted last goes out with [`Metrics::flush`].
    ///
    /// # Errors
    /// When the registry refuses the exporter, or the receiver's address is none.
    pub fn exporting(otlp_endpoint: Option<&str>) -> Result<Self, Error> {
        let registry = prometheus::Registry::new();
        let shown = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let readers = SdkMeterProvider::builder().with_resource(super::export::resource()).with_reader(shown);
        let provider = match otlp_endpoint {
            Some(endpoint) => readers.with_reader(super::export::metrics(endpoint)?).build(),
            None => readers.build(),
        };
        let meter = provider.meter("tollgate");
        let metrics = Self(Arc::new(Instruments {
            registry,
            provider,
            calls: calls::Instruments::new(&meter),
            stripe_duration: duration(&meter, names::STRIPE_DURATION, "Duration of HTTP attempts at Stripe"),
            stripe_exemplars: Exemplars::default(),
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
            budget_refusals: counter(
                &meter,
                names::BUDGET_REFUSALS,
                "Changes that did not fit into a budget",
            ),
            webhooks: counter(&meter, names::WEBHOOKS, "Webhook deliveries by result"),
            webhook_age: meter
                .f64_histogram(names::WEBHOOK_AGE)
                .with_unit("s")
                .with_description("Age of events when a webhook brought them")
                .with_boundaries(AGE_BUCKETS_S.to_vec())
                .build(),
            feed: feed::Instruments::new(&meter),
            pressure: pressure::Instruments::new(&meter),
            traffic: traffic::Instruments::new(&meter),
            strangers: counter(&meter, names::STRANGERS, "Calls without a credential of a caller, by cause"),
            records: records::Instruments::new(&meter),
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
        }));
        metrics.begin_at_nought();
        Ok(metrics)
    }

    /// Lets counters exist before they count: a first time that makes its own series is not an increase to Prometheus, and
    /// no alert would see it (prometheus.io/docs/practices/instrumentation, "avoid missing metrics").
    fn begin_at_nought(&self) {
        for counter in [&self.0.stripe_resends, &self.0.stripe_keys_refused, &self.0.unknown_outcomes] {
            counter.add(0, &[]);
        }
        zero(&self.0.replays, names::LABEL_RESULT, Replay::ALL.map(Replay::as_str));
        zero(&self.0.resolutions, names::LABEL_WAY, Way::ALL.map(Way::as_str));
        zero(&self.0.webhooks, names::LABEL_RESULT, Webhook::ALL.map(Webhook::as_str));
        zero(&self.0.config_reloads, names::LABEL_RESULT, [TAKEN, FAILED]);
        self.0.config_reload_failed.record(0, &[]);
        self.cuts_begin_at_nought();
        self.0.pressure.begin_at_nought();
        self.0.traffic.begin_at_nought();
        self.0.feed.begin_at_nought();
        self.0.records.begin_at_nought();
    }

    /// One HTTP attempt at Stripe.
    pub fn stripe_attempt(&self, attempt: StripeAttempt<'_>) {
        let (verb, template, elapsed_s) = (attempt.verb, attempt.template, attempt.elapsed.as_secs_f64());
        let end = match attempt.end {
            Ok(status) => {
                self.0.stripe_exemplars.see(&[&verb, &status, &template], elapsed_s);
                KeyValue::new(names::LABEL_HTTP_STATUS, i64::from(status))
            }
            Err(name) => {
                self.0.stripe_exemplars.see(&[&name, &verb, &template], elapsed_s);
                KeyValue::new(names::LABEL_ERROR_TYPE, name)
            }
        };
        let labels = [
            KeyValue::new(names::LABEL_HTTP_METHOD, verb),
            KeyValue::new(names::LABEL_URL_TEMPLATE, template.to_owned()),
            end,
        ];
        self.0.stripe_duration.record(elapsed_s, &labels);
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
        let result = if is_taken { TAKEN } else { FAILED };
        self.0.config_reloads.add(1, &[KeyValue::new(names::LABEL_RESULT, result)]);
        self.0.config_reload_failed.record(u64::from(!is_taken), &[]);
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

    /// A webhook brought an event that the log did not have; Stripe made it so long ago.
    pub fn webhook_age(&self, age: Duration) {
        self.0.webhook_age.record(age.as_secs_f64(), &[]);
    }

    /// A call was nobody's; the cause is one of a few words.
    pub fn stranger(&self, cause: &'static str) {
        self.0.strangers.add(1, &[KeyValue::new(names::LABEL_RESULT, cause)]);
    }

    /// From now on shows how much memory the process has; `bytes` tells it whenever somebody looks, if it can be told.
    pub fn memory(&self, bytes: impl Fn() -> Option<u64> + Send + Sync + 'static) {
        let gauge = self.0.meter.u64_observable_gauge(names::MEMORY_USAGE).with_unit("By");
        let observe = move |seen: &dyn AsyncInstrument<u64>| {
            if let Some(bytes) = bytes() {
                seen.observe(bytes, &[]);
            }
        };
        gauge.with_description("Memory that the process has in use").with_callback(observe).build();
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

    /// All metrics in the text format of OpenMetrics, with the traces behind the buckets of durations.
    ///
    /// # Errors
    /// When the text cannot be written.
    pub fn open_metrics(&self) -> Result<String, Error> {
        let of = |name: &str, labels: &[LabelPair]| match name {
            "rpc_server_call_duration_seconds" => self.0.calls.exemplars.of(labels),
            "http_client_request_duration_seconds" => self.0.stripe_exemplars.of(labels),
            _ => Default::default(),
        };
        Ok(open_metrics::encode(&self.0.registry.gather(), of)?)
    }

    /// Sends what was counted last to the OTLP receiver, if there is one; gives up after 5 s.
    pub async fn flush(&self) {
        let provider = self.0.provider.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || provider.force_flush()).await {
            tracing::warn!(%error, "some metrics could not be exported");
        }
    }
}

fn counter(meter: &Meter, name: &'static str, about: &'static str) -> Counter<u64> {
    meter.u64_counter(name).with_description(about).build()
}

/// Lets the series of a counter exist, one for each value of its label.
fn zero<const N: usize>(counter: &Counter<u64>, label: &'static str, values: [&'static str; N]) {
    for value in values {
        counter.add(0, &[KeyValue::new(label, value)]);
    }
}

fn duration(meter: &Meter, name: &'static str, about: &'static str) -> Histogram<f64> {
    let bounds = DURATION_BUCKETS_S.to_vec();
    meter.f64_histogram(name).with_unit("s").with_description(about).with_boundaries(bounds).build()
}

#[cfg(test)]
mod tests {
    use super::super::names::{Cut, Port, Stage, StoreFailure};
    use super::*;

    const GOLDEN: &str = "tests/golden/metrics.txt";

    fn everything_once() -> Metrics {
        let metrics = Metrics::new().unwrap();
        let elapsed = Duration::from_millis(20);
        metrics.rpc("tollgate.v1.RefundService/CreateRefund", 0, elapsed);
        metrics.rpc("tollgate.v1.RefundService/Invented", 99, elapsed);
        metrics.call_failed(7, "POLICY_DENIED");
        metrics.call_failed(14, "STRIPE_UNREACHABLE");
        metrics.call_failed(13, "MADE_UP");
        Stage::ALL.into_iter().for_each(|stage| metrics.stage(stage, elapsed));
        metrics.memory(|| Some(4096));
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
        metrics.budget_refused("daily");
        metrics.budgets(|| vec![("daily".to_owned(), 5, 10)]);
        metrics.rights_missing(|| vec![("default".to_owned(), "refunds:write".to_owned())]);
        metrics.stripe_key_refused();
        metrics.stripe_turn("write", elapsed);
        metrics.stripe_turned_away("read", "deadline");
        metrics.read_shared();
        let account = "default".to_owned();
        metrics.traffic(move || {
            let account = account.clone();
            vec![AccountTraffic { account, waiting: 1, under_way: 2, limit: 25.0, headroom: 0.5 }]
        });
        metrics.events_appended(3);
        metrics.event_outside("default");
        metrics.event_in_other_version("default");
        metrics.sweep_read();
        metrics.events_repaired();
        metrics.event_passed_over();
        metrics.swept_to(|| vec![("default".to_owned(), 5)]);
        metrics.event_log(4096, Duration::from_secs(86_400));
        metrics.stranger("missing");
        metrics.audit_records(|| 6);
        metrics.audit_dropped(|| 2);
        metrics.denied("default-deny".to_owned());
        metrics.stopwatch()(elapsed);
        metrics.webhook_age(Duration::from_secs(2));
        metrics.subscription_lags(|| vec![("shop/orders".to_owned(), 5, 6)]);
        metrics.audit_unsigned(|| 3);
        Cut::ALL.into_iter().for_each(|why| metrics.connection_cut(Port::Grpc, why));
        Port::ALL.into_iter().for_each(|port| drop(metrics.connection(port)));
        metrics.certificate_end(|| 4);
        metrics.breaker("default", "api", names::BreakerState::Open);
        metrics.breaker_refused("default", "api");
        metrics.retry_refused("default");
        metrics.retry_budget("default", 7);
        names::Shed::ALL.into_iter().for_each(|why| metrics.call_shed(why));
        metrics.runtime_lag(elapsed);
        metrics.calls_in_flight(|| (8, 1024));
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
    fn counters_of_trouble_stand_at_nought_before_any() {
        let text = Metrics::new().unwrap().text().unwrap();
        for series in [
            "tollgate_stripe_keys_refused_total{",
            "tollgate_ledger_unknown_outcomes_total{",
            "tollgate_webhook_deliveries_total{tollgate_result=\"bad_signature\"",
            "tollgate_store_errors_total{tollgate_kind=\"full\"",
            "tollgate_calls_shed_total{tollgate_reason=\"share\"",
            "tollgate_connections_cut_total{tollgate_port=\"grpc\",tollgate_reason=\"handshake\"",
            "tollgate_config_reloads_total{tollgate_result=\"failed\"",
            "tollgate_stripe_reads_shared_total{",
        ] {
            let line = text.lines().find(|line| line.starts_with(series));
            assert!(line.is_some_and(|line| line.ends_with(" 0")), "{series} {line:?}");
        }
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
