//! What subscribers who do not read cost the others, and the gateway: the time from sending an event to having it, with and
//! without them by turns, and the gateway's memory while they stay.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use tollgate::domain::clock::{Clock as _, SystemClock};
use tollgate::domain::secret::Secret;

use crate::ingest::{deliver, event};
use crate::process::connect;
use crate::rig::Rig;
use crate::setup::SECRET;
use crate::subscriber::Subscriber;

/// Subscribers that read what comes, that read nothing, and that read one event a second.
const GOOD: usize = 89;
const STALLED: usize = 10;
const SLOW: usize = 1;
/// Events a second that come in, and the connections that they come over, each at its share of the pace.
const EVENTS_PER_SECOND: u32 = 2_000;
const SENDERS: u32 = 8;
/// The last event of a round.
const END: &str = "evt_end";
/// What is sent before anything is counted.
const WARM_UP: Duration = Duration::from_secs(2);
/// Events that a reader keeps the times of: those of a round. What goes on for longer is about memory alone.
const KEPT_MAX: usize = 20_000;
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One round, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Cell {
    median_us: u64,
    slow_us: u64,
}

/// The section of the page: rounds by turns, the middle one of each counts, and a long run with all of them.
pub(crate) async fn section(disk: &Path, rounds: usize, round: Duration, long: Duration) -> String {
    let [mut without, mut with] = [const { Vec::new() }; 2];
    for number in 1..=rounds {
        for (bad, cells) in [(false, &mut without), (true, &mut with)] {
            let (cell, _) = measure(disk, bad, round).await;
            println!("stalled, round {number}, bad ones {bad}: {cell:?}");
            cells.push(cell);
        }
    }
    let (without, with) = (middle(without), middle(with));
    let (_, memory) = measure(disk, true, long).await;
    println!("stalled, memory: {memory:?}");
    let mut rows = String::new();
    for (name, cell) in [("without them", without), ("with them", with)] {
        let ms = |us: u64| us as f64 / 1000.0;
        writeln!(rows, "| {name} | {:.2} | {:.2} |", ms(cell.median_us), ms(cell.slow_us)).unwrap();
    }
    let [early, late] = halves(&memory).map(|bytes| bytes as f64 / 1e6);
    format!(
        "\
## Subscribers that do not read

{EVENTS_PER_SECOND} events a second come in, and {GOOD} subscribers read them: the time from sending an event to having it,
without and with {STALLED} more who read nothing and {SLOW} who reads an event a second.

| | median ms | 99 % ms |
|---|---|---|
{rows}
The 99 % with them is {:.2} times that without. Over {:.0} s with them the gateway held at most {early:.0} MB in the first half
and {late:.0} MB in the second.
",
        with.slow_us as f64 / without.slow_us as f64,
        long.as_secs_f64(),
    )
}

/// One round with a gateway of its own: how long the good ones waited, and the memory over time.
async fn measure(disk: &Path, bad: bool, round: Duration) -> (Cell, Vec<u64>) {
    let gateway = Rig::start(disk).await;
    let mut held = JoinSet::new();
    for number in 0..if bad { STALLED + SLOW } else { 0 } {
        held.spawn(hold(Subscriber::open(gateway.grpc).await, number < SLOW));
    }
    let (mut readers, started) = (JoinSet::new(), Instant::now());
    for _ in 0..GOOD {
        readers.spawn(read(Subscriber::open(gateway.grpc).await, started));
    }
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        senders.spawn(send(connect(gateway.webhook).await, number, started));
    }
    sleep(WARM_UP).await;
    let (counted, mut memory) = (since(started), Vec::new());
    let end = Instant::now() + round;
    while Instant::now() < end {
        sleep(LOOK_EVERY.min(round)).await;
        memory.push(gateway.process.memory_bytes());
    }
    senders.shutdown().await;
    // Everybody reads to the end, so that what comes late counts too.
    let (clock, secret) = (SystemClock::new(), Secret::from(SECRET));
    let now_s = clock.wall() / 1000;
    deliver(&mut connect(gateway.webhook).await, &secret, now_s, &event(END, now_s)).await;
    let seen = readers.join_all().await.concat();
    held.shutdown().await;
    gateway.stop().await;
    let of_round = seen.into_iter().filter(|(sent_us, _)| *sent_us >= counted);
    let mut latencies_us: Vec<u32> = of_round.map(|(_, latency_us)| latency_us).collect();
    assert!(
        !latencies_us.is_empty(),
        "the machine does not keep up with {EVENTS_PER_SECOND} events a second"
    );
    latencies_us.sort_unstable();
    let at = |percent: usize| u64::from(latencies_us[latencies_us.len() * percent / 100]);
    (Cell { median_us: at(50), slow_us: at(99) }, memory)
}

/// Keeps a stream open, and reads an event a second of it or nothing.
async fn hold(mut subscriber: Subscriber, reads: bool) {
    loop {
        sleep(Duration::from_secs(1)).await;
        if reads {
            subscriber.next().await;
        }
    }
}

/// Reads to the last event, and answers when each was sent and how long it took, in microseconds.
async fn read(mut subscriber: Subscriber, started: Instant) -> Vec<(u32, u32)> {
    let mut seen = Vec::new();
    loop {
        let Some(event) = subscriber.next().await.event else { continue };
        if event.id == END {
            return seen;
        }
        if seen.len() < KEPT_MAX {
            // `evt_SENDER_MICROSECONDS`
            let sent_us: u32 = event.id.rsplit('_').next().unwrap().parse().unwrap();
            seen.push((sent_us, since(started) - sent_us));
        }
    }
}

/// Sends events at its share of the pace, each named for the moment at which it was due: whoever is held up does not get
/// to leave the wait out.
async fn send(mut stream: tokio::net::TcpStream, number: u32, started: Instant) {
    let (clock, secret) = (SystemClock::new(), Secret::from(SECRET));
    let pace = Duration::from_secs(1) * SENDERS / EVENTS_PER_SECOND;
    let mut due = Instant::now() + pace * number / SENDERS;
    loop {
        sleep_until(due.into()).await;
        let id = format!("evt_{number}_{}", (due - started).as_micros());
        let now_s = clock.wall() / 1000;
        deliver(&mut stream, &secret, now_s, &event(&id, now_s)).await;
        due += pace;
    }
}

fn since(started: Instant) -> u32 {
    u32::try_from(started.elapsed().as_micros()).unwrap()
}

/// The most memory in each half of the time.
fn halves(memory: &[u64]) -> [u64; 2] {
    let (early, late) = memory.split_at(memory.len() / 2);
    [early, late].map(|half| half.iter().copied().max().unwrap_or_default())
}

/// The round in the middle, by its 99 %.
fn middle(mut cells: Vec<Cell>) -> Cell {
    cells.sort_by_key(|cell| cell.slow_us);
    cells.swap_remove(cells.len() / 2)
}
