//! W3C trace context (w3.org/TR/trace-context): takes a caller's trace over and names the trace that a span belongs to.

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The trace that the headers (or gRPC metadata) say the call is part of; empty without a valid `traceparent`.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

/// Makes `span` a child of the caller's span. Has to happen before the span is entered for the first time.
pub fn adopt(span: &Span, headers: &HeaderMap) {
    // It fails where nobody collects spans, and then nothing is lost.
    span.set_parent(extract(headers)).ok();
}

/// Id of the trace that `span` belongs to, 32 hexadecimal digits; `None` where nobody collects spans.
#[must_use]
pub fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| context.trace_id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Format, Options, RPC_TARGET, build};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn in_span<T>(run: impl FnOnce(&Span) -> T) -> T {
        let options = Options { log: "off".into(), format: Format::Json, otlp_endpoint: None };
        let (dispatch, _guard) = build(&options).unwrap();
        tracing::dispatcher::with_default(&dispatch, || run(&tracing::info_span!(target: RPC_TARGET, "call")))
    }

    #[test]
    fn a_span_joins_the_callers_trace() {
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), PARENT.parse().unwrap())]);
        let id = in_span(|span| {
            adopt(span, &headers);
            trace_id(span)
        });
        assert_eq!(id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    }

    #[test]
    fn a_span_without_a_caller_has_a_trace_of_its_own() {
        for parent in [None, Some("00-zz-b7ad6b7169203331-01")] {
            let mut headers = HeaderMap::new();
            headers.extend(
                parent.map(|text| (http::HeaderName::from_static("traceparent"), text.parse().unwrap())),
            );
            let id = in_span(|span| {
                adopt(span, &headers);
                trace_id(span)
            });
            assert!(id.is_some_and(|id| id.len() == 32));
        }
    }

    #[test]
    fn without_a_collector_there_is_no_trace() {
        assert_eq!(trace_id(&Span::none()), None);
    }
}
