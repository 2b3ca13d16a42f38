//! Makes the page of all metrics, docs/metrics.md, from what the golden test of the metrics has seen and from the names, so
//! that the page says what the gateway shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use tollgate::domain::limits::{SUBSCRIPTIONS_PER_NAMESPACE_MAX, SUBSCRIPTIONS_SHOWN_MAX};

const PAGE: &str = "docs/metrics.md";
/// Every metric with every label, as the gateway shows it.
const SHOWN: &str = "tests/golden/metrics.txt";
const NAMES: &str = "src/telemetry/names.rs";

fn introduction() -> String {
    format!(
        "\
# Metrics

<!-- Made from the names and the golden file of the metrics; `UPDATE_GOLDEN=1 cargo test metrics` writes it anew. -->

`/metrics` on the operations port shows them in Prometheus' text format; names and labels follow the conventions of
OpenTelemetry where it has some ([RPC](https://opentelemetry.io/docs/specs/semconv/rpc/),
[HTTP](https://opentelemetry.io/docs/specs/semconv/http/)), with underscores for dots. Every sample also has the label
`otel_scope_name=\"tollgate\"`. Values of labels come from the contract, from the settings or from a fixed list, so callers
cannot make up time series, but for one label; `_OTHER` stands for whatever is none of them. That one is
`tollgate_subscription`, the names that callers give their named subscriptions: {SUBSCRIPTIONS_SHOWN_MAX} of them are shown at once at the
most, the first by namespace and name, and a namespace has {SUBSCRIPTIONS_PER_NAMESPACE_MAX} at the most. What to watch, and what to do then, is in
[operations.md](operations.md).

| Metric | Type | Labels and their values | What it shows |
|---|---|---|---|
"
    )
}

const LABELS: &str = "
## Labels

| Label | Meaning |
|---|---|
";

/// One metric as the golden file shows it.
#[derive(Default)]
struct Shown {
    about: String,
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The labels of a sample and their values.
fn labels(sample: &str) -> Vec<(&str, &str)> {
    let Some((_, rest)) = sample.split_once('{') else { return Vec::new() };
    let inside = rest.split_once("\"} ").unwrap_or_else(|| panic!("`{sample}` has labels without an end")).0;
    inside.split("\",").map(|label| label.split_once("=\"").unwrap()).collect()
}

/// Every metric by its name.
fn shown(text: &str) -> BTreeMap<String, Shown> {
    let (mut metrics, mut current) = (BTreeMap::<String, Shown>::new(), String::new());
    for line in text.lines() {
        if let Some((name, about)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            metrics.entry(current.clone()).or_default().about = about.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            current = name.to_owned();
            metrics.entry(current.clone()).or_default().kind = kind.to_owned();
        } else {
            let metric = metrics.get_mut(&current).expect("a sample comes behind its metric");
            for (label, value) in
                labels(line).into_iter().filter(|(label, _)| !["le", "otel_scope_name"].contains(label))
            {
                metric.labels.entry(label.to_owned()).or_default().insert(value.to_owned());
            }
        }
    }
    metrics
}

/// Names of labels as Prometheus has them, with what their comments say.
fn meanings(source: &str) -> Vec<(String, String)> {
    let (mut found, mut comment) = (Vec::new(), Vec::new());
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            comment.push(text);
            continue;
        }
        if line.starts_with("pub const LABEL_") {
            let name = line.split('"').nth(1).unwrap().replace('.', "_");
            found.push((name, comment.join(" ")));
        }
        comment.clear();
    }
    found
}

fn page() -> String {
    let mut page = introduction();
    for (name, Shown { about, kind, labels }) in shown(&fs::read_to_string(SHOWN).unwrap()) {
        let told = labels.into_iter().map(|(label, values)| {
            // One of ours with several values comes from a fixed list, all of which the golden test counts.
            let values: Vec<_> = values.into_iter().map(|value| format!("`{value}`")).collect();
            let is_fixed = label.starts_with("tollgate_") && values.len() > 1;
            if is_fixed { format!("`{label}`: {}", values.join(", ")) } else { format!("`{label}`") }
        });
        let told: Vec<_> = told.collect();
        let told = if told.is_empty() { "–".to_owned() } else { told.join("; ") };
        assert!(!about.is_empty() && !kind.is_empty(), "{name} is not described");
        writeln!(page, "| `{name}` | {kind} | {told} | {about} |").unwrap();
    }
    page += LABELS;
    for (name, meaning) in meanings(&fs::read_to_string(NAMES).unwrap()) {
        writeln!(page, "| `{name}` | {meaning} |").unwrap();
    }
    page
}

/// Refreshed with `UPDATE_GOLDEN=1 cargo test metrics`, which writes the golden file first.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the flag that refreshes golden files comes from the environment"
)]
fn the_page_of_metrics_is_up_to_date() {
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        fs::write(PAGE, page()).unwrap();
    }
    assert_eq!(fs::read_to_string(PAGE).unwrap_or_default(), page());
}

#[test]
fn samples_are_read_with_all_their_labels() {
    let text = "# HELP a_total About a.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q,r\"} 1\na_total{x=\"2\",y=\"q,r\"} 1\n";
    let metrics = shown(text);
    let a = &metrics["a_total"];
    assert_eq!((a.about.as_str(), a.kind.as_str()), ("About a.", "counter"));
    assert_eq!(a.labels["x"], BTreeSet::from(["1".to_owned(), "2".to_owned()]));
    assert_eq!(a.labels["y"], BTreeSet::from(["q,r".to_owned()]));
}
