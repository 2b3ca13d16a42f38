//! The event feed against nats-server, both as processes of their own on this machine, by turns and with the same
//! messages: how many events a second are taken in, how many come to many subscribers, and what subscribers who do not
//! read cost the others. `cargo bench --bench feed` runs it, `-- ingest`, `-- fanout` or `-- stalled` a part of it, `--quick`
//! looks whether it works, and `-- --write` takes its time and writes docs/benchmark-feed.md. `scripts/tools` brings
//! nats-server.

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

#[path = "feed/fanout.rs"]
mod fanout;
#[path = "feed/ingest.rs"]
mod ingest;
#[path = "common/machine.rs"]
mod machine;
#[path = "feed/nats.rs"]
mod nats;
#[path = "common/process.rs"]
mod process;
#[path = "feed/rig.rs"]
mod rig;
#[path = "common/setup.rs"]
mod setup;
#[path = "feed/stalled.rs"]
mod stalled;
#[path = "feed/subscriber.rs"]
mod subscriber;

use std::path::Path;
use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy)]
struct Size {
    /// Rounds of each kind, by turns; the one in the middle counts.
    rounds: usize,
    /// How long a round is.
    round: Duration,
    /// How long memory is watched.
    long: Duration,
}

const QUICK: Size = Size { rounds: 1, round: Duration::from_secs(1), long: Duration::from_secs(4) };
const USUAL: Size = Size { rounds: 5, round: Duration::from_secs(5), long: Duration::from_secs(30) };
const WRITTEN: Size = Size { long: Duration::from_secs(600), ..USUAL };
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmark-feed.md");

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let given: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| given.iter().any(|given| given == word);
    let all = !["ingest", "fanout", "stalled"].into_iter().any(has);
    let size = if has("--quick") {
        QUICK
    } else if has("--write") {
        WRITTEN
    } else {
        USUAL
    };
    let Size { rounds, round, long } = size;
    let sections = runtime.block_on(async {
        let mut sections = Vec::new();
        if all || has("ingest") {
            sections.push(ingest::section(disk, rounds, round).await);
        }
        if all || has("fanout") {
            sections.push(fanout::section(disk, rounds, round).await);
        }
        if all || has("stalled") {
            sections.push(stalled::section(disk, rounds, round, long).await);
        }
        sections
    });
    let page = page(&sections, size, &machine::measured(disk));
    if has("--write") {
        std::fs::write(PAGE, &page).unwrap();
    }
    println!("{page}");
}

fn page(sections: &[String], size: Size, machine: &str) -> String {
    format!(
        "\
# Benchmark: the event feed

<!-- Written by `cargo bench --bench feed -- --write`; do not edit. -->

The gateway and nats-server, each a process of its own with an empty folder on the same disk, take turns; senders and
readers share the machine with them, so compare rows of one table. Each figure is from the middle one of {} rounds
of {:.0} s. *CPU* is the processor time of the server alone, user and system, by what it did.

{}
{machine}
",
        size.rounds,
        size.round.as_secs_f64(),
        sections.join("\n"),
    )
}
