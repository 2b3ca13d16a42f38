//! What is seen from outside: logs, traces and metrics. It decides how they look and where they go, never what is worth
//! reporting.

pub mod call;
pub mod context;
mod export;
pub mod metrics;
pub mod names;
pub mod process;

use std::io::IsTerminal as _;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, Targets, filter_fn};
use tracing_subscriber::fmt::format::{DefaultFields, Full, Json, JsonFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

/// The target of the spans of calls; all others of this crate are inside of one.
pub const RPC_TARGET: &str = "tollgate::rpc";

type JsonLines<S, T, W> = fmt::Layer<S, JsonFields, fmt::format::Format<Json, T>, W>;

/// Where logs and traces go.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which log lines are written, in the directives of `tracing-subscriber` (`info`, `tollgate=debug,warn`).
    pub log: String,
    /// How a log line looks.
    pub format: Format,
    /// OTLP receiver over gRPC, `http://host:port`; without one no trace leaves the process.
    pub otlp_endpoint: Option<String>,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Why logs and traces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log directives do not parse.
    #[error("the log filter `{0}` cannot be read")]
    Filter(String),
    /// The exporter cannot be made.
    #[error("traces and metrics cannot be exported to `{endpoint}`")]
    Exporter {
        /// The receiver.
        endpoint: String,
        /// What the exporter says.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// Somebody else in this process writes logs already.
    #[error("logging was set up twice")]
    Twice,
}

/// Keeps the exporter of traces; what is still in it goes out with [`Guard::stop`].
#[derive(Debug)]
#[must_use = "spans that were not exported yet are lost without `stop`"]
pub struct Guard {
    provider: SdkTracerProvider,
}

impl Guard {
    /// Sends what has not been sent; gives up after 5 s.
    pub async fn stop(self) {
        let flush = move || self.provider.shutdown_with_timeout(export::FLUSH_TIMEOUT);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(flush).await {
            tracing::warn!(%error, "some traces could not be exported");
        }
    }
}

/// Builds the subscriber and installs it for the whole process. Call it inside the runtime, once.
///
/// # Errors
/// When the options are wrong or a subscriber is installed already.
pub fn init(options: &Options) -> Result<Guard, Error> {
    let (dispatch, guard) = build(options)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| Error::Twice)?;
    Ok(guard)
}

/// Builds the subscriber without installing it. Call it inside the runtime that is to carry the exporter.
///
/// # Errors
/// When the options are wrong.
pub fn build(options: &Options) -> Result<(Dispatch, Guard), Error> {
    let filter = EnvFilter::try_new(&options.log).map_err(|_| Error::Filter(options.log.clone()))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match options.format {
        Format::Auto if std::io::stderr().is_terminal() => lines.with_target(false).compact().boxed(),
        Format::Text => lines.with_ansi(false).with_target(false).compact().boxed(),
        Format::Auto | Format::Json => json(lines).boxed(),
    };
    // What a line says does not depend on spans; to keep their fields for it would cost every call something.
    let filter = filter.and(filter_fn(|about| about.is_event()));
    let provider = export::provider(options.otlp_endpoint.as_deref())?;
    // Only this crate's spans: those of the exporter's own HTTP/2 would feed themselves for ever. Where none is exported,
    // the spans of calls alone are needed, for the ids of their traces.
    let kept = if options.otlp_endpoint.is_some() { "tollgate" } else { RPC_TARGET };
    let own = Targets::new().with_default(LevelFilter::OFF).with_target(kept, Level::INFO);
    // Of the log, what went wrong inside of a span is all that belongs into it.
    let own = own.and(filter_fn(|about| about.is_span() || *about.level() <= Level::WARN));
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tollgate"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_filter(own);
    let subscriber = Registry::default().with(lines.with_filter(filter)).with(spans);
    Ok((Dispatch::new(subscriber), Guard { provider }))
}

/// Lines as one JSON object each, with the fields of the event alone.
fn json<S, T, W>(lines: fmt::Layer<S, DefaultFields, fmt::format::Format<Full, T>, W>) -> JsonLines<S, T, W> {
    lines.json().flatten_event(true).with_current_span(false).with_span_list(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_filter_that_cannot_be_read_is_named() {
        let options = Options { log: "tollgate=loud".into(), format: Format::Json, otlp_endpoint: None };
        let error = build(&options).unwrap_err();
        assert_eq!(error.to_string(), "the log filter `tollgate=loud` cannot be read");
    }
}
