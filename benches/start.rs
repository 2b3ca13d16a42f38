//! How long a gateway takes until it serves, by how many operations an earlier one left open, in turns. The sandbox and the
//! caller who asks for its health share this machine. `cargo bench --bench start` runs it, `-- --write` also writes
//! docs/benchmark-start.md, and `-- --quick` is a sample of it.

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

#[path = "start/left.rs"]
mod left;
#[path = "common/setup.rs"]
mod setup;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use setup::{Wanted, connect};
use tollgate::config::Config;
use tollgate::domain::clock::Clock;
use tollgate::server;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Operations left open.
const OPEN: [usize; 3] = [0, 10_000, 100_000];
const OPEN_QUICK: [usize; 2] = [0, 1_000];
/// Starts with each; the one in the middle counts.
const ROUNDS: usize = 5;
/// What a start with 100,000 may take.
const GOAL: Duration = Duration::from_secs(2);
/// A folder on the disk of the build.
const DISK: &str = env!("CARGO_TARGET_TMPDIR");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmark-start.md");

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let is = |word: &str| given.iter().any(|given| given == word);
    let (open, rounds) = if is("--quick") { (&OPEN_QUICK[..], 1) } else { (&OPEN[..], ROUNDS) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let rows = runtime.block_on(measured(open, rounds));
    let page = page(&rows, rounds);
    if is("--write") {
        std::fs::write(PAGE, &page).unwrap();
    }
    println!("{page}");
}

/// The times of all rounds, by how many operations were open.
async fn measured(open: &[usize], rounds: usize) -> Vec<(usize, Vec<Duration>)> {
    let (clock, sandbox) = (setup::clock(), setup::sandbox(None).await);
    let folder = tempfile::tempdir_in(DISK).unwrap();
    let mut rows = Vec::new();
    for count in open {
        let prepared = folder.path().join(count.to_string());
        // The first start of all makes what every gateway has, and what is loaded once is not counted.
        start(config(sandbox.address(), folder.path(), &prepared), &clock).await;
        left::open(&prepared, *count, clock.as_ref()).await;
        rows.push((*count, Vec::new()));
    }
    for _ in 0..rounds {
        for (count, times) in &mut rows {
            // A gateway works on what it finds, so each start has a copy of its own.
            let copy = tempfile::tempdir_in(folder.path()).unwrap();
            left::copy(&folder.path().join(count.to_string()), copy.path());
            let time = start(config(sandbox.address(), folder.path(), copy.path()), &clock).await;
            println!("{count} open: {} ms", time.as_millis());
            times.push(time);
        }
    }
    sandbox.stop().await;
    rows
}

/// Starts a gateway and stops it; answers how long it took until it said that it serves.
async fn start(config: Config, clock: &Arc<dyn Clock>) -> Duration {
    let started = Instant::now();
    let gateway = server::start(config, Arc::clone(clock)).await.unwrap();
    let request = HealthCheckRequest { service: String::new() };
    let status =
        HealthClient::new(connect(gateway.grpc).await).check(request).await.unwrap().into_inner().status();
    let time = started.elapsed();
    assert_eq!(status, ServingStatus::Serving);
    gateway.stop().await;
    time
}

fn config(stripe: SocketAddr, folder: &Path, data: &Path) -> Config {
    Config { data: data.to_owned(), ..setup::config(folder, stripe, Wanted::default()) }
}

fn page(rows: &[(usize, Vec<Duration>)], rounds: usize) -> String {
    let ms = |time: &Duration| time.as_secs_f64() * 1_000.0;
    let table: String = rows
        .iter()
        .map(|(open, times)| {
            let mut times = times.clone();
            times.sort_unstable();
            let (middle, slowest) = (&times[times.len() / 2], &times[times.len() - 1]);
            format!("| {open} | {:.0} | {:.0} |\n", ms(middle), ms(slowest))
        })
        .collect();
    format!(
        "\
# Benchmark of the start

<!-- Written by `cargo bench --bench start -- --write`; do not edit. -->

A gateway starts on a data folder in which an earlier one left so many operations with an unknown outcome, and is asked for
its health; the time is from the first line of its start to the answer `SERVING`. The store is on the disk, the sandbox that
names the account is on the same machine. {rounds} starts with each, in turns, each on a copy of the folder. The goal is
{} s for 100,000.

| Open operations | median ms | slowest ms |
|---|---|---|
{table}",
        GOAL.as_secs(),
    )
}
