//! The trace behind each bucket of a histogram, so that whoever sees a slow call in a graph can open it. Traces that
//! nobody keeps are not quoted.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Mutex;

use opentelemetry::trace::{TraceContextExt as _, TraceId};
use prometheus::proto::LabelPair;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::DURATION_BUCKETS_S;

/// What parts the label values of a series; no value has it.
const BETWEEN: &str = "\u{1f}";
/// The label that the exporter adds to every series.
const SCOPE_LABEL: &str = "otel_scope_name";

/// One measurement and the trace that it was made in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exemplar {
    pub(super) trace_id: TraceId,
    pub(super) value: f64,
}

/// The latest exemplar of each bucket of the series of one histogram of durations. There are as many as its labels have
/// values.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Mutex<HashMap<String, Buckets>>);

/// The buckets in their order, the one without an upper bound last.
type Buckets = [Option<Exemplar>; DURATION_BUCKETS_S.len() + 1];

impl Exemplars {
    /// Keeps what was measured in the current span, where its trace is kept. `values` are those of the series' labels, in the
    /// order of the labels' names. It never waits: while another is being kept, this one is left out.
    pub(super) fn see(&self, values: &[&dyn Display], value: f64) {
        let context = Span::current().context();
        let context = context.span().span_context().clone();
        if !context.is_sampled() {
            return;
        }
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        let name = values.join(BETWEEN);
        let Ok(mut series) = self.0.try_lock() else { return };
        let buckets = series.entry(name).or_default();
        if let Some(place) = buckets.get_mut(DURATION_BUCKETS_S.partition_point(|bound| *bound < value)) {
            *place = Some(Exemplar { trace_id: context.trace_id(), value });
        }
    }

    /// The exemplars of the series with these labels.
    pub(super) fn of(&self, labels: &[LabelPair]) -> Buckets {
        let values: Vec<&str> =
            labels.iter().filter(|label| label.name() != SCOPE_LABEL).map(LabelPair::value).collect();
        let series = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        series.get(&values.join(BETWEEN)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Format, Options, RPC_TARGET, build};

    #[tokio::test]
    async fn a_trace_is_quoted_in_its_bucket_where_it_is_kept() {
        let nobody_there = Some("http://127.0.0.1:1".to_owned());
        for (otlp_endpoint, quoted) in [(None, None), (nobody_there, Some(0.02))] {
            let options = Options { log: "off".into(), format: Format::Json, otlp_endpoint };
            let (dispatch, guard) = build(&options).unwrap();
            let _second = tracing::Dispatch::new(tracing_subscriber::registry());
            let exemplars = Exemplars::default();
            let see = || exemplars.see(&[&"a", &"b"], 0.02);
            let span = || tracing::info_span!(target: RPC_TARGET, "call").in_scope(see);
            tracing::dispatcher::with_default(&dispatch, span);
            let labels = [("first", "a"), ("second", "b"), (SCOPE_LABEL, "tollgate")].map(|(name, value)| {
                let mut label = LabelPair::default();
                label.set_name(name.to_owned());
                label.set_value(value.to_owned());
                label
            });
            let kept = exemplars.of(&labels);
            let place = DURATION_BUCKETS_S.iter().position(|bound| *bound == 0.025).unwrap();
            assert_eq!(kept[place].map(|exemplar| exemplar.value), quoted);
            assert_eq!(kept.iter().flatten().count(), usize::from(quoted.is_some()));
            drop(dispatch);
            guard.stop().await;
        }
    }
}
