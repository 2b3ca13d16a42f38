//! Stripe in trouble of every kind, one after the other, while callers go on: slow, failing now and then, cutting connections
//! off, gone, and back. How much load resends add, what the breaker does, what callers are told and how fast, how much
//! memory the gateway takes, and whether an outcome is lost or doubled. The gateway is a process of its own, callers and
//! sandbox share this one. `cargo bench --bench outage` runs it, `-- --quick` is a short run, `-- --rounds N` tells the story
//! more than once, and `-- --write` also writes docs/benchmark-outage.md.

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

#[path = "outage/breaker.rs"]
mod breaker;
#[path = "outage/callers.rs"]
mod callers;
#[path = "outage/figures.rs"]
mod figures;
#[path = "common/machine.rs"]
mod machine;
#[path = "common/metrics.rs"]
mod metrics;
#[path = "common/process.rs"]
mod process;
#[path = "../tests/it/outage/proxy.rs"]
mod proxy;
#[path = "outage/report.rs"]
mod report;
#[path = "outage/rig.rs"]
mod rig;
#[path = "common/setup.rs"]
mod setup;
#[path = "common/times.rs"]
mod times;

use std::path::Path;
use std::time::Duration;

use figures::{Figures, Story, Watched};
use rig::Rig;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmark-outage.md");
/// A folder on the disk of the build.
const DISK: &str = env!("CARGO_TARGET_TMPDIR");
/// How long each phase is.
const PHASE: Duration = Duration::from_secs(60);
const PHASE_QUICK: Duration = Duration::from_secs(6);
/// How long callers have called before anything counts.
const WARM_UP: Duration = Duration::from_secs(3);

/// How Stripe fares in one phase.
#[derive(Clone, Copy)]
enum Stripe {
    /// It answers, but for these faults.
    There(&'static [&'static str]),
    /// Connections to it are refused.
    Gone,
}

const PHASES: [(&str, Stripe); 6] = [
    ("quiet", Stripe::There(&[])),
    ("5 s late", Stripe::There(&["latency:*:*:ms=5000"])),
    ("20 % 500", Stripe::There(&["status:*:*:status=500,probability=0.2"])),
    // Half of the requests in all: a quarter before they are carried out, and a third of the others after it.
    ("50 % cut off", Stripe::There(&["reset:*:*:probability=0.25", "drop_after:*:*:probability=0.3333"])),
    ("gone", Stripe::Gone),
    ("back", Stripe::There(&[])),
];

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| given.iter().any(|given| given == word);
    let phase = if has("--quick") { PHASE_QUICK } else { PHASE };
    let rounds = given.iter().skip_while(|word| *word != "--rounds").nth(1);
    let rounds: usize = rounds.map_or(1, |rounds| rounds.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stories: Vec<Story> = (0..rounds).map(|_| runtime.block_on(story(phase))).collect();
    let page = report::page(&Story::middle(stories), rounds, phase, &machine::measured(Path::new(DISK)));
    if has("--write") {
        std::fs::write(PAGE, &page).unwrap();
    }
    println!("\n{page}");
}

/// Tells the whole story to a gateway of its own.
async fn story(phase: Duration) -> Story {
    let mut rig = Rig::start(Path::new(DISK)).await;
    let mut callers = rig.call().await;
    tokio::time::sleep(WARM_UP).await;
    rig.work.calls();
    let (begin, mut phases) = (rig.counters().await, Vec::new());
    for (number, (name, stripe)) in PHASES.into_iter().enumerate() {
        let before = rig.counters().await;
        rig.process().forget_peak();
        let mut watched = Watched::begin();
        rig.becomes(stripe).await;
        rig.watch(&mut watched, phase).await;
        if number == PHASES.len() - 1 {
            // What is open by now is sent until it is answered, and is of the last phase.
            rig.work.end();
            while let Some(ended) = callers.join_next().await {
                ended.unwrap();
            }
        }
        watched.note(&rig).await;
        let figures = Figures::new(name, watched, &rig.work.calls(), rig.counters().await - before);
        println!("{figures}");
        phases.push(figures);
    }
    rig.open_operations_end().await;
    let end = rig.counters().await;
    let story = Story { phases, total: end - begin, made: rig.judge(&end) };
    rig.stop().await;
    story
}
