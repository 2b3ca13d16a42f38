//! What others feel while somebody attacks the gRPC port: the latency of calls at a steady pace, in quiet rounds and in
//! rounds under attack by turns. Callers, attackers and gateway share this machine, so the attackers' own work counts
//! against the gateway too. `cargo bench --bench door` runs it, `-- --write` also writes docs/benchmark-door.md.

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

#[path = "door/attack.rs"]
mod attack;
#[path = "../tests/it/abuse/attacker.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod attacker;
#[path = "common/metrics.rs"]
mod metrics;
#[path = "door/rig.rs"]
mod rig;
#[path = "common/setup.rs"]
mod setup;

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use rig::Rig;

/// Rounds of each kind, by turns; the one in the middle counts.
const ROUNDS: usize = 5;
/// How long a round is.
const ROUND: Duration = Duration::from_secs(5);
/// Callers, each with a connection of its own, and how often each of them calls.
const CALLERS: usize = 8;
const PACE: Duration = Duration::from_millis(10);
/// How often a new attack begins, whatever became of the ones before.
const ATTACK_EVERY: Duration = Duration::from_millis(50);
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmark-door.md");

/// One round, in microseconds.
#[derive(Clone, Copy)]
struct Round {
    median: u64,
    slow: u64,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut quiet, mut attacked, mut attacks) = (Vec::new(), Vec::new(), 0);
    runtime.block_on(async {
        let rig = Rig::start().await;
        // What is loaded at the first calls is not counted.
        println!("warm-up: 99 % in {} us", round(&rig, false).await.0.slow);
        for _ in 0..ROUNDS {
            quiet.push(round(&rig, false).await.0);
            let (round, begun) = round(&rig, true).await;
            attacked.push(round);
            attacks += begun;
        }
        println!("{}", rig.cuts().await);
        rig.stop().await;
    });
    let (quiet, attacked) = (middle(quiet), middle(attacked));
    let page = page(quiet, attacked, attacks);
    if std::env::args().any(|word| word == "--write") {
        std::fs::write(PAGE, &page).unwrap();
    }
    println!("{page}");
}

/// Calls for as long as a round is, under attack or not, and how many attacks began meanwhile.
async fn round(rig: &Rig, under_attack: bool) -> (Round, usize) {
    let end = Instant::now() + ROUND;
    let mut attacks = JoinSet::new();
    let idle = if under_attack { attack::idle(rig.address).await } else { Vec::new() };
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(rig.call_until(end, PACE));
    }
    let mut begun = 0;
    while under_attack && Instant::now() < end {
        attacks.spawn(attack::one(rig.address, begun));
        begun += 1;
        tokio::time::sleep(ATTACK_EVERY).await;
    }
    let mut latencies: Vec<u64> = callers.join_all().await.concat();
    attacks.shutdown().await;
    drop(idle);
    latencies.sort_unstable();
    let at = |percent: usize| latencies[latencies.len() * percent / 100];
    (Round { median: at(50), slow: at(99) }, begun)
}

fn middle(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by_key(|round| round.slow);
    rounds[rounds.len() / 2]
}

fn page(quiet: Round, attacked: Round, attacks: usize) -> String {
    let ms = |us: u64| us as f64 / 1_000.0;
    format!(
        "\
# Benchmark of the door

<!-- Written by `cargo bench --bench door -- --write`; do not edit. -->

{CALLERS} callers ask for an operation every {} ms each, on connections of their own. Under attack, one address holds as many
idle connections as it gets of 10,000, and a new attack begins every {} ms ({attacks} in all): pings, settings, rapid resets,
malformed headers and headers without end, each until it is cut, and slow prefaces. Quiet rounds and rounds under attack take
turns, {ROUNDS} of each, {} s long; the one in the middle by its 99 % counts. Everything runs on one machine, so the
attackers' own work counts too.

| Round | median ms | 99 % ms |
|---|---|---|
| quiet | {:.2} | {:.2} |
| under attack | {:.2} | {:.2} |

The 99 % under attack is {:.2} times the quiet one.
",
        PACE.as_millis(),
        ATTACK_EVERY.as_millis(),
        ROUND.as_secs(),
        ms(quiet.median),
        ms(quiet.slow),
        ms(attacked.median),
        ms(attacked.slow),
        attacked.slow as f64 / quiet.slow as f64,
    )
}
