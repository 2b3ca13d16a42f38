//! Sends spans and metrics over OTLP; it knows nothing of what they are about.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

use super::Error;

/// Longest that one batch of spans or metrics may take to send.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often metrics are sent; as often as Prometheus would come for them by its own example.
const METRICS_EVERY: Duration = Duration::from_secs(15);
/// Longest that a process which stops waits for its last spans.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is reporting, for traces and metrics alike.
pub(super) fn resource() -> Resource {
    Resource::builder()
        .with_service_name("tollgate")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Spans have ids even when nothing is exported: logs and audit records quote them.
pub(super) fn provider(endpoint: Option<&str>) -> Result<SdkTracerProvider, Error> {
    let builder = SdkTracerProvider::builder().with_resource(resource());
    let Some(endpoint) = endpoint else {
        return Ok(builder.with_sampler(Sampler::AlwaysOff).build());
    };
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|source| Error::Exporter { endpoint: endpoint.to_owned(), source })?;
    Ok(builder
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_batch_exporter(exporter)
        .build())
}

/// What sends all metrics at intervals.
pub(super) fn metrics(endpoint: &str) -> Result<PeriodicReader<MetricExporter>, Error> {
    let exporter = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|source| Error::Exporter { endpoint: endpoint.to_owned(), source })?;
    Ok(PeriodicReader::builder(exporter).with_interval(METRICS_EVERY).build())
}
