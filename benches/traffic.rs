//! What a caller notices of another that floods the gateway at fifty times its share, when Stripe lets 25 requests through a
//! second: how long its calls take beside how long they take in quiet, and how much of Stripe's limit is used meanwhile.
//! `cargo bench --bench traffic` runs it, `-- --quick` looks whether it works, and `-- --write` also writes
//! docs/benchmark-traffic.md.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
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
#[path = "common/metrics.rs"]
mod metrics;
#[path = "common/setup.rs"]
mod setup;
#[path = "traffic/stage.rs"]
mod stage;
#[path = "common/times.rs"]
mod times;

use std::path::Path;
use std::time::Duration;

use stage::{Caller, End, REQUESTS_PER_S, STRIPE_MS, Stage};
use times::percentile_ms;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmark-traffic.md");
/// Calls a second of the caller that is measured: well within its share, which is half.
const QUIET_PER_S: f64 = 5.0;
/// What the other one offers, in shares.
const FLOOD_SHARES: f64 = 50.0;
/// How long the flood has come in before anything is measured: what the bucket saved in quiet is used up by then.
const FLOODED_BEFORE: Duration = Duration::from_secs(3);

/// How much is measured.
struct Size {
    rounds: usize,
    /// How long each half of a round is.
    half: Duration,
}

const QUICK: Size = Size { rounds: 1, half: Duration::from_secs(4) };
const USUAL: Size = Size { rounds: 5, half: Duration::from_secs(30) };

/// What one round came to.
#[derive(Clone, Copy)]
struct Round {
    quiet: Times,
    flooded: Times,
    /// Calls of the flood a second: offered, answered, refused.
    flood_per_s: [f64; 3],
    refusal_p99_ms: f64,
    /// Part of Stripe's limit that was used under the flood.
    used: f64,
    limited: u64,
}

#[derive(Clone, Copy)]
struct Times {
    median_ms: f64,
    p99_ms: f64,
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| given.iter().any(|given| given == word);
    let size = if has("--quick") { QUICK } else { USUAL };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let rounds: Vec<Round> = (0..size.rounds).map(|_| runtime.block_on(round(size.half))).collect();
    let page = page(&rounds, &size, &machine::measured(Path::new(env!("CARGO_TARGET_TMPDIR"))));
    if has("--write") {
        std::fs::write(PAGE, &page).unwrap();
    }
    println!("{page}");
}

/// One round: the caller alone, then beside the flood.
async fn round(half: Duration) -> Round {
    let stage = Stage::start().await;
    let (quiet, flood) = (stage.caller("quiet").await, stage.caller("flood").await);
    // The first calls open connections and wake what sleeps.
    offered(&quiet, 0, QUIET_PER_S, Duration::from_secs(2)).await;
    let alone = offered(&quiet, 1_000_000, QUIET_PER_S, half).await;

    let flood_per_s = FLOOD_SHARES * f64::from(REQUESTS_PER_S) / 2.0;
    let long = FLOODED_BEFORE + half + Duration::from_secs(1);
    let flooding = tokio::spawn(async move { offered(&flood, 0, flood_per_s, long).await });
    tokio::time::sleep(FLOODED_BEFORE).await;
    let (started, before) = (Instant::now(), stage.received());
    let beside = offered(&quiet, 2_000_000, QUIET_PER_S, half).await;
    let (elapsed, received) = (started.elapsed().as_secs_f64(), stage.received() - before);
    let flood = flooding.await.unwrap();
    let limited = stage.limited().await;
    stage.stop().await;

    let per_s = |end: End| flood.iter().filter(|(how, _)| *how == end).count() as f64 / long.as_secs_f64();
    let refusals: Vec<Duration> =
        flood.iter().filter(|(end, _)| *end == End::Refused).map(|(_, took)| *took).collect();
    Round {
        quiet: times(&alone),
        flooded: times(&beside),
        flood_per_s: [flood.len() as f64 / long.as_secs_f64(), per_s(End::Answered), per_s(End::Refused)],
        refusal_p99_ms: percentile_ms(&refusals, 99),
        used: received as f64 / (f64::from(REQUESTS_PER_S) * elapsed),
        limited,
    }
}

/// Has a caller make so many calls a second for so long, whatever comes of them, numbered from `first` on.
async fn offered(caller: &Caller, first: usize, per_s: f64, long: Duration) -> Vec<(End, Duration)> {
    let (started, mut calls) = (Instant::now(), JoinSet::new());
    for number in 0..(per_s * long.as_secs_f64()) as usize {
        sleep_until(started + Duration::from_secs_f64(number as f64 / per_s)).await;
        let caller = caller.clone();
        calls.spawn(async move { caller.call(first + number).await });
    }
    calls.join_all().await
}

/// How long the calls of the caller that is measured took; each of them has to be answered.
fn times(calls: &[(End, Duration)]) -> Times {
    assert!(calls.iter().all(|(end, _)| *end == End::Answered), "a call within its caller's share failed");
    let took: Vec<Duration> = calls.iter().map(|(_, took)| *took).collect();
    Times { median_ms: percentile_ms(&took, 50), p99_ms: percentile_ms(&took, 99) }
}

/// The middle one of what the rounds came to.
fn middle(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn page(rounds: &[Round], size: &Size, machine: &str) -> String {
    let of = |value: fn(&Round) -> f64| middle(rounds, value);
    let ratios: Vec<String> =
        rounds.iter().map(|round| format!("{:.2}", round.flooded.p99_ms / round.quiet.p99_ms)).collect();
    format!(
        "\
# Benchmark: one caller floods

<!-- Written by `cargo bench --bench traffic -- --write`; do not edit. -->

Two callers make customers through one gateway. The sandbox lets {REQUESTS_PER_S} requests through a second, as Stripe does in
test mode, and takes {STRIPE_MS} ms for each. One caller makes {QUIET_PER_S} calls a second, first alone and then beside the
other, who offers {FLOOD_SHARES} times its share. Each half of a round takes {:.0} s; a figure is the middle one of
{} rounds.

| | Alone | Beside the flood | Ratio |
|---|---|---|---|
| median, ms | {:.1} | {:.1} | {:.2} |
| 99 %, ms | {:.1} | {:.1} | {:.2} |

| Beside the flood | |
|---|---|
| calls of the flood a second: offered | {:.0} |
| answered | {:.1} |
| refused | {:.0} |
| 99 % of the refusals are answered within, ms | {:.1} |
| part of Stripe's limit that was used | {:.1} % |
| requests that Stripe refused for its limit, in all rounds | {} |

The ratio of the 99 % in each round: {}. What the caller waits more than alone is the pause until the next request may go, {}
ms at this limit, and one more where the flood's turn comes first.

{machine}
",
        size.half.as_secs_f64(),
        rounds.len(),
        of(|round| round.quiet.median_ms),
        of(|round| round.flooded.median_ms),
        of(|round| round.flooded.median_ms / round.quiet.median_ms),
        of(|round| round.quiet.p99_ms),
        of(|round| round.flooded.p99_ms),
        of(|round| round.flooded.p99_ms / round.quiet.p99_ms),
        of(|round| round.flood_per_s[0]),
        of(|round| round.flood_per_s[1]),
        of(|round| round.flood_per_s[2]),
        of(|round| round.refusal_p99_ms),
        100.0 * of(|round| round.used),
        rounds.iter().map(|round| round.limited).sum::<u64>(),
        ratios.join(", "),
        1_000 / REQUESTS_PER_S,
    )
}
