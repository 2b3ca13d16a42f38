//! What the gateway gets done as callers ask for more than it can do: goodput, and how fast refusals are answered, from half
//! of its capacity to ten times as much. Callers, gateway and sandbox share this machine, so the capacity is set by places
//! and by a Stripe that takes its time, and not by the processor, which the callers of a flood would need themselves.
//! `cargo bench --bench overload` runs it, `-- --write` also writes docs/benchmark-overload.md, `-- --quick` is a short run.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark fails by panicking and prints"
)]

#[path = "overload/report.rs"]
mod report;
#[path = "overload/rig.rs"]
mod rig;
#[path = "common/setup.rs"]
mod setup;

use std::time::{Duration, Instant};

use report::Row;
use rig::{Answer, Rig};
use tokio::task::JoinSet;

/// Offered load, as a multiple of the capacity.
const LOADS: [f64; 7] = [0.5, 0.8, 1.0, 1.5, 2.5, 5.0, 10.0];
/// Rounds over all loads; for each load the one in the middle by its goodput counts.
const ROUNDS: usize = 5;
/// How long each load is offered.
const STEP: Duration = Duration::from_secs(4);
/// How long it is offered before anything counts.
const WARM_UP: Duration = Duration::from_millis(500);
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmark-overload.md");

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let quick = given.iter().any(|word| word == "--quick");
    let (rounds, step) = if quick { (1, Duration::from_millis(500)) } else { (ROUNDS, STEP) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (capacity, rows) = runtime.block_on(async {
        let rig = Rig::start().await;
        let capacity = capacity(&rig, step).await;
        println!("capacity: {capacity:.0} changes a second");
        let mut rows = LOADS.map(|_| Vec::new());
        // In turns, so that a slow minute of the machine falls on all.
        for _ in 0..rounds {
            for (load, rows) in LOADS.into_iter().zip(&mut rows) {
                let row = offer(&rig, capacity * load, step).await;
                println!("{load:>4} x: {row}");
                rows.push(row);
            }
        }
        rig.stop().await;
        (capacity, rows)
    });
    let rows: Vec<(f64, Row)> = LOADS.into_iter().zip(rows.map(Row::middle)).collect();
    let page = report::page(capacity, &rows, rounds, step);
    if given.iter().any(|word| word == "--write") {
        std::fs::write(PAGE, &page).unwrap();
    }
    println!("\n{page}");
}

/// Changes a second when each place is taken again as soon as it is free, and nobody asks for more.
async fn capacity(rig: &Rig, step: Duration) -> f64 {
    let end = Instant::now() + WARM_UP + step;
    let mut callers = JoinSet::new();
    for caller in 0..rig::PLACES {
        let calls = rig.calls(caller);
        callers.spawn(async move {
            let mut done = Vec::new();
            while Instant::now() < end {
                assert!(matches!(calls.one().await, Answer::Done), "nothing is refused below the limit");
                done.push(Instant::now());
            }
            done
        });
    }
    let done = callers.join_all().await.concat();
    done.into_iter().filter(|at| (end - step..end).contains(at)).count() as f64 / step.as_secs_f64()
}

/// Offers calls at a steady pace, whatever becomes of those before.
async fn offer(rig: &Rig, per_second: f64, step: Duration) -> Row {
    let (begin, mut calls) = (Instant::now(), JoinSet::new());
    let (from, end) = (begin + WARM_UP, begin + WARM_UP + step);
    for number in 0.. {
        let due = begin + Duration::from_secs_f64(f64::from(number) / per_second);
        if due >= end {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let call = rig.calls(number as usize);
        calls.spawn(async move {
            let sent = Instant::now();
            (sent, call.one().await, Instant::now())
        });
    }
    let answers = calls.join_all().await;
    Row::new(answers.iter().filter(|(_, _, answered)| (from..end).contains(answered)), step)
}
