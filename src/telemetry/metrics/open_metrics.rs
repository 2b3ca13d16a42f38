//! The text of OpenMetrics 1.0 (prometheus.io/docs/specs/om/open_metrics_spec), the one format in which Prometheus reads
//! exemplars. It writes down what it is given.

use std::fmt::{self, Display, Write};

use prometheus::proto::{Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::exemplars::Exemplar;

/// What the name of a counter's sample ends with, and the name of the counter does not.
const TOTAL: &str = "_total";

/// Writes all families; `exemplars` tells those of a histogram's series, bucket by bucket.
pub(super) fn encode<const N: usize>(
    families: &[MetricFamily],
    exemplars: impl Fn(&str, &[LabelPair]) -> [Option<Exemplar>; N],
) -> Result<String, fmt::Error> {
    let mut out = String::new();
    for family in families {
        let name = family.name();
        let (of, kind) = match family.get_field_type() {
            MetricType::COUNTER => (name.trim_end_matches(TOTAL), "counter"),
            MetricType::HISTOGRAM => (name, "histogram"),
            _ => (name, "gauge"),
        };
        writeln!(out, "# TYPE {of} {kind}")?;
        writeln!(out, "# HELP {of} {}", Escaped(family.help()))?;
        for metric in family.get_metric() {
            let labels = metric.get_label();
            match family.get_field_type() {
                MetricType::HISTOGRAM => {
                    buckets(&mut out, name, metric, &exemplars(name, labels))?;
                }
                MetricType::COUNTER => {
                    writeln!(out, "{name}{} {}", Labels(labels, None), metric.get_counter().get_value())?;
                }
                _ => writeln!(out, "{name}{} {}", Labels(labels, None), metric.get_gauge().get_value())?,
            }
        }
    }
    out.push_str("# EOF\n");
    Ok(out)
}

fn buckets(out: &mut String, name: &str, metric: &Metric, exemplars: &[Option<Exemplar>]) -> fmt::Result {
    let (labels, histogram): (_, &Histogram) = (metric.get_label(), metric.get_histogram());
    let counts =
        histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    let all = (f64::INFINITY, histogram.get_sample_count());
    for (place, (bound, count)) in counts.chain([all]).enumerate() {
        write!(out, "{name}_bucket{} {count}", Labels(labels, Some(bound)))?;
        if let Some(Exemplar { trace_id, value }) = exemplars.get(place).copied().flatten() {
            write!(out, " # {{trace_id=\"{trace_id}\"}} {value}")?;
        }
        out.push('\n');
    }
    writeln!(out, "{name}_sum{} {}", Labels(labels, None), histogram.get_sample_sum())?;
    writeln!(out, "{name}_count{} {}", Labels(labels, None), histogram.get_sample_count())
}

/// The labels of a sample, and the upper bound of a bucket.
struct Labels<'a>(&'a [LabelPair], Option<f64>);

impl Display for Labels<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        for label in self.0 {
            write!(out, "{before}{}=\"{}\"", label.name(), Escaped(label.value()))?;
            before = ',';
        }
        match self.1 {
            Some(bound) if bound.is_infinite() => write!(out, "{before}le=\"+Inf\"")?,
            // With a decimal point, as the format wants bounds to be.
            Some(bound) => write!(out, "{before}le=\"{bound:?}\"")?,
            None if before == '{' => return Ok(()),
            None => {}
        }
        out.write_char('}')
    }
}

/// Text in which a backslash, a quotation mark and the end of a line cannot be taken for the format's own.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => out.write_str("\\\\"),
            '"' => out.write_str("\\\""),
            '\n' => out.write_str("\\n"),
            other => out.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceId;
    use prometheus::proto::{Bucket, Counter};

    use super::*;

    fn label(name: &str, value: &str) -> LabelPair {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value.to_owned());
        label
    }

    fn family(name: &str, kind: MetricType, metric: Metric) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help("It says \"help\"".to_owned());
        family.set_field_type(kind);
        family.set_metric(vec![metric]);
        family
    }

    #[test]
    fn a_bucket_quotes_its_trace_and_the_last_is_unbounded() {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(1.0);
        bucket.set_cumulative_count(2);
        let mut histogram = Histogram::default();
        histogram.set_bucket(vec![bucket]);
        histogram.set_sample_count(3);
        histogram.set_sample_sum(4.5);
        let mut metric = Metric::from_label(vec![label("a", "b\n")]);
        metric.set_histogram(histogram);
        let exemplar = Exemplar { trace_id: TraceId::from(7_u128), value: 0.5 };
        let families = [family("wait_seconds", MetricType::HISTOGRAM, metric)];
        let text = encode(&families, |_, _| [Some(exemplar), None]).unwrap();
        let expected = r#"# TYPE wait_seconds histogram
# HELP wait_seconds It says \"help\"
wait_seconds_bucket{a="b\n",le="1.0"} 2 # {trace_id="00000000000000000000000000000007"} 0.5
wait_seconds_bucket{a="b\n",le="+Inf"} 3
wait_seconds_sum{a="b\n"} 4.5
wait_seconds_count{a="b\n"} 3
# EOF
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn a_counter_is_named_without_the_ending_of_its_sample() {
        let mut counter = Counter::default();
        counter.set_value(1.0);
        let mut metric = Metric::from_label(Vec::new());
        metric.set_counter(counter);
        let text = encode(&[family("calls_total", MetricType::COUNTER, metric)], |_, _| [None; 1]).unwrap();
        assert_eq!(text, "# TYPE calls counter\n# HELP calls It says \\\"help\\\"\ncalls_total 1\n# EOF\n");
    }
}
