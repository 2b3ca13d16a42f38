//! How many changes a second the gateway makes, with and without durability, beside the commits that they cost. Client,
//! gateway and sandbox share this machine, so the ratios mean more than the figures. `cargo bench --bench mutations` runs it,
//! `cargo bench --bench mutations -- --write` also writes docs/benchmarks.md.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark fails by panicking and prints"
)]

#[path = "common/machine.rs"]
mod machine;
#[path = "mutations/report.rs"]
mod report;
#[path = "mutations/run.rs"]
mod run;
#[path = "common/setup.rs"]
mod setup;

use std::path::Path;
use std::time::Duration;

use report::{Cell, Row};

/// How many callers make changes at the same time, each one after the other.
const CALLERS: [usize; 4] = [1, 16, 64, 256];
/// Runs of each kind; the one in the middle counts.
const ROUNDS: usize = 3;
/// How long a run is measured, in milliseconds.
const RUN_MS: u64 = 3_000;
/// Where a file system lies in memory on Linux: the same code, and a sync that costs nothing.
const MEMORY: &str = "/dev/shm";
/// A folder on the disk of the build.
const DISK: &str = env!("CARGO_TARGET_TMPDIR");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md");

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let quick = given.iter().any(|word| word == "--quick");
    let (rounds, run) =
        if quick { (1, Duration::from_millis(300)) } else { (ROUNDS, Duration::from_millis(RUN_MS)) };
    let machine = machine::measured(Path::new(DISK));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut rows = Vec::new();
    for callers in CALLERS {
        let (mut durable, mut memory) = (Vec::new(), Vec::new());
        // In turns, so that a slow minute of the machine falls on both.
        for _ in 0..rounds {
            durable.push(runtime.block_on(run::mutations(Path::new(DISK), callers, run)));
            memory.push(runtime.block_on(run::mutations(Path::new(MEMORY), callers, run)));
        }
        let row = Row { callers, durable: Cell::middle(durable), memory: Cell::middle(memory) };
        println!("{row}");
        rows.push(row);
    }
    let page = report::page(&rows, &machine, rounds, run);
    if given.iter().any(|word| word == "--write") {
        std::fs::write(PAGE, &page).unwrap();
    }
    println!("\n{page}");
}
