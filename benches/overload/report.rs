//! What the calls of one load came to, and the page about it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::rig::{Answer, LATENCY_MS, PLACES};

/// One load, of one round or of the middle one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Changes and refusals a second.
    pub(crate) goodput: f64,
    refusals: f64,
    /// Median and 99th per cent of how long each kind took, in milliseconds.
    done_ms: (f64, f64),
    refused_ms: (f64, f64),
}

impl Row {
    /// From when each call was made, how it ended and when.
    pub(crate) fn new<'a>(
        answers: impl Iterator<Item = &'a (Instant, Answer, Instant)>,
        step: Duration,
    ) -> Self {
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for (sent, answer, answered) in answers {
            let ms = answered.duration_since(*sent).as_secs_f64() * 1e3;
            if *answer == Answer::Done { &mut done } else { &mut refused }.push(ms);
        }
        let per_second = |calls: &Vec<f64>| calls.len() as f64 / step.as_secs_f64();
        Self {
            goodput: per_second(&done),
            refusals: per_second(&refused),
            done_ms: median_and_slow(done),
            refused_ms: median_and_slow(refused),
        }
    }

    /// The one in the middle by its goodput.
    pub(crate) fn middle(mut rows: Vec<Self>) -> Self {
        rows.sort_by(|one, other| one.goodput.total_cmp(&other.goodput));
        rows[rows.len() / 2]
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { goodput, refusals, done_ms, refused_ms } = self;
        write!(
            out,
            "{goodput:.0} changes/s ({:.0} / {:.0} ms), {refusals:.0} refusals/s ({:.2} / {:.2} ms)",
            done_ms.0, done_ms.1, refused_ms.0, refused_ms.1
        )
    }
}

fn median_and_slow(mut ms: Vec<f64>) -> (f64, f64) {
    ms.sort_by(f64::total_cmp);
    let at = |percent: usize| ms.get(ms.len() * percent / 100).copied().unwrap_or_default();
    (at(50), at(99))
}

pub(crate) fn page(capacity: f64, rows: &[(f64, Row)], rounds: usize, step: Duration) -> String {
    let peak = rows.iter().map(|(_, row)| row.goodput).fold(0.0, f64::max);
    let lines: String = rows.iter().map(|(load, row)| line(capacity, peak, *load, row)).collect();
    let last = rows[rows.len() - 1].1;
    format!(
        "\
# Benchmark of the door under overload

<!-- Written by `cargo bench --bench overload -- --write`; do not edit. -->

A gateway with room for {PLACES} calls of one caller, in front of a sandbox that takes {LATENCY_MS} ms for a change, is offered
changes at a steady pace, whatever becomes of those before: from half of what it can do to ten times as much. What it can do
is measured first, with {PLACES} callers of which each makes one change after the other: {capacity:.0} a second. Each load is
offered for {} s, {rounds} times by turns; the round in the middle by its goodput counts. Everything runs on one machine, so
what the callers of the flood need themselves is taken from the gateway.

| Load | offered/s | changes/s | of the most | change ms, median / 99 % | refused/s | refusal ms, median / 99 % |
|---|---|---|---|---|---|---|
{lines}
At {:.0} times the capacity the gateway makes {:.0} % of the most changes a second that it made at any load, and 99 % of its
refusals are answered within {:.2} ms.
",
        step.as_secs_f64(),
        rows[rows.len() - 1].0,
        100.0 * last.goodput / peak,
        last.refused_ms.1,
    )
}

fn line(capacity: f64, peak: f64, load: f64, row: &Row) -> String {
    let Row { goodput, refusals, done_ms, refused_ms } = row;
    let refusal = match *refusals {
        0.0 => "–".to_owned(),
        _ => format!("{:.2} / {:.2}", refused_ms.0, refused_ms.1),
    };
    format!(
        "| {load} x | {:.0} | {goodput:.0} | {:.0} % | {:.0} / {:.0} | {refusals:.0} | {refusal} |\n",
        capacity * load,
        100.0 * goodput / peak,
        done_ms.0,
        done_ms.1,
    )
}
