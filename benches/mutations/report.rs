//! What a run came to, and the page that shows it.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Syncs that are timed to say how fast the disk is.
const SYNCS: usize = 200;

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

/// How long it takes to append 4 KiB and to make them durable, in microseconds: the run in the middle.
pub(crate) fn sync_us(disk: &Path) -> u128 {
    let folder = tempfile::tempdir_in(disk).unwrap();
    let mut file = File::create(folder.path().join("sync")).unwrap();
    let mut times: Vec<u128> = (0..SYNCS)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[1; 4096]).unwrap();
            file.sync_data().unwrap();
            started.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[SYNCS / 2]
}

/// The whole of docs/benchmarks.md.
pub(crate) fn page(rows: &[Row], sync_us: u128, rounds: usize, run: Duration) -> String {
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

Measured at commit {} on {}, Linux {}, with {} processors; appending 4 KiB and syncing them takes {sync_us} \u{b5}s on its
disk. Where a sync takes longer, one change takes two such syncs longer, and many callers lose less each, since they
share them.
",
        run.as_secs_f64(),
        rows.join("\n"),
        commit(),
        processor(),
        text("/proc/sys/kernel/osrelease"),
        std::thread::available_parallelism().map_or(0, usize::from),
    )
}

fn commit() -> String {
    let asked = std::process::Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    asked.map(|answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned()).unwrap_or_default()
}

fn processor() -> String {
    let known = text("/proc/cpuinfo");
    let name = known.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "an unnamed processor".to_owned(), |(_, name)| name.trim().to_owned())
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
