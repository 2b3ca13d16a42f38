//! What a run came to, and the page that shows it.

use std::fmt;
use std::time::Duration;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    per_second: f64,
    median_us: u64,
    slow_us: u64,
    commits_each: f64,
}

impl Cell {
    /// Of how long each change took, in ascending order.
    pub(crate) fn new(latencies_us: &[u64], elapsed: Duration, commits: u64) -> Self {
        let changes = latencies_us.len();
        Self {
            per_second: changes as f64 / elapsed.as_secs_f64(),
            median_us: latencies_us[changes / 2],
            slow_us: latencies_us[changes * 99 / 100],
            commits_each: commits as f64 / changes as f64,
        }
    }

    /// The run in the middle, by changes a second.
    pub(crate) fn middle(mut runs: Vec<Self>) -> Self {
        runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        runs.swap_remove(runs.len() / 2)
    }
}

/// One number of callers.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) callers: usize,
    pub(crate) durable: Cell,
    pub(crate) memory: Cell,
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { callers, durable, memory } = self;
        write!(
            out,
            "| {callers} | {:.0} | {} | {} | {:.2} | {:.0} | {} | {} | {:.0} % |",
            durable.per_second,
            ms(durable.median_us),
            ms(durable.slow_us),
            durable.commits_each,
            memory.per_second,
            ms(memory.median_us),
            ms(memory.slow_us),
            100.0 * durable.per_second / memory.per_second,
        )
    }
}

fn ms(us: u64) -> String {
    format!("{:.2}", us as f64 / 1000.0)
}

/// The whole of docs/benchmarks.md.
pub(crate) fn page(rows: &[Row], machine: &str, rounds: usize, run: Duration) -> String {
    let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    format!(
        "\
# Benchmarks

<!-- Written by `cargo bench --bench mutations -- --write`; do not edit. -->

Changes a second: `CreateCustomer` through gRPC, every one an operation of its own, against the sandbox. Client, gateway and
sandbox run in one process on one machine, so the figures are those of the whole; compare columns of one row. Each figure
is from the middle one of {rounds} runs of {:.1} s.

*Durable* is the gateway as it is shipped. *In memory* is the same gateway with its data folder on a file system in memory,
where a sync costs nothing. *Commits* are the store's transactions for one change: its intent before it is sent, and its
outcome after it. Callers that commit at the same time share a transaction, so more callers need fewer each.

| Callers | Durable, per second | median ms | 99 % ms | Commits per change | In memory, per second | median ms | 99 % ms | Durable / in memory |
|---|---|---|---|---|---|---|---|---|
{}

{machine} Where a sync takes
longer, one change takes two such syncs longer, and many callers lose less each, since they share them.
",
        run.as_secs_f64(),
        rows.join("\n"),
    )
}
