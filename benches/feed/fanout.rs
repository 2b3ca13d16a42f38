//! How many deliveries a second come to many subscribers, and what each costs the server: the gateway's streams against
//! nats-server's, where whoever publishes waits for the slowest subscriber.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tollgate::domain::clock::{Clock as _, SystemClock};
use tollgate::domain::secret::Secret;

use crate::ingest::{MESSAGE_BYTES, deliver, event};
use crate::nats::{Connection, Keeps, Nats, SUBJECT};
use crate::process::{Process, connect};
use crate::rig::Rig;
use crate::setup::SECRET;
use crate::subscriber::Subscriber;

const SUBSCRIBERS: [usize; 4] = [1, 10, 100, 500];
/// Messages that may be on their way to the slowest subscriber.
const WINDOW: u64 = 256;
/// Connections that publish; each waits for its answer where there is one.
const SENDERS: usize = 64;
/// What is sent before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// Readers say how far they are each time they have come this much further.
const STEP: u64 = 32;

/// Who delivers the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deliverer {
    Gateway,
    Core,
    JetStream,
}

const DELIVERERS: [Deliverer; 3] = [Deliverer::Gateway, Deliverer::Core, Deliverer::JetStream];

/// One round.
#[derive(Clone, Copy, Debug)]
struct Cell {
    per_second: f64,
    cpu_us: f64,
    memory_bytes: u64,
}

/// The section of the page: rounds of each server by turns, the middle one of each counts.
pub(crate) async fn section(disk: &Path, rounds: usize, round: Duration) -> String {
    let mut rows = String::new();
    for subscribers in SUBSCRIBERS {
        let mut cells = DELIVERERS.map(|_| Vec::new());
        for number in 1..=rounds {
            for (deliverer, cells) in DELIVERERS.into_iter().zip(&mut cells) {
                let cell = measure(disk, deliverer, subscribers, round).await;
                println!("fan-out to {subscribers}, round {number}: {deliverer:?} {cell:.2?}");
                cells.push(cell);
            }
        }
        let [gateway, core, jetstream] = cells.map(middle);
        writeln!(rows, "| {subscribers} | {gateway} | {core} | {jetstream} |").unwrap();
    }
    format!(
        "\
## Delivering to many

Subscribers, each with a connection of its own, get every message of {} KiB; {SENDERS} senders go on as long as the slowest
subscriber is no more than {WINDOW} messages behind. Readers are lean on both sides: bare HTTP/2 with frames of up to 64 KiB
for the gateway, the bare text protocol for nats-server. Taking the messages in is part of the figures: Tollgate verifies
each one and has it on the disk before anybody gets it, JetStream writes it to a file that is synced later, core NATS keeps
nothing. With few subscribers that is most of what is measured.

| Subscribers | Tollgate: deliveries per second | CPU \u{b5}s each | memory MB | core NATS: deliveries per second | CPU \u{b5}s each | memory MB | JetStream: deliveries per second | CPU \u{b5}s each | memory MB |
|---|---|---|---|---|---|---|---|---|---|
{rows}",
        MESSAGE_BYTES / 1024,
    )
}

/// One round with a server of its own.
async fn measure(disk: &Path, deliverer: Deliverer, subscribers: usize, round: Duration) -> Cell {
    let pace = Arc::new(Pace::new(subscribers));
    let mut tasks = JoinSet::new();
    if deliverer == Deliverer::Gateway {
        let gateway = Rig::start(disk).await;
        for number in 0..subscribers {
            let subscriber = Subscriber::open(gateway.grpc).await;
            tasks.spawn(read_stream(subscriber, Arc::clone(&pace), number));
        }
        for _ in 0..SENDERS {
            let sender = Webhooks { stream: connect(gateway.webhook).await, pace: Arc::clone(&pace) };
            tasks.spawn(sender.send());
        }
        let cell = run(&gateway.process, &pace, round).await;
        tasks.shutdown().await;
        gateway.stop().await;
        return cell;
    }
    let keeps = if deliverer == Deliverer::Core { Keeps::Nothing } else { Keeps::Files };
    let nats = Nats::start(disk, keeps).await;
    for number in 0..subscribers {
        let mut connection = nats.connect().await;
        match keeps {
            Keeps::Nothing => connection.subscribe(SUBJECT).await,
            Keeps::Files | Keeps::Synced => connection.consume().await,
        }
        tasks.spawn(read_subject(connection, Arc::clone(&pace), number));
    }
    for _ in 0..SENDERS {
        let mut connection = nats.connect().await;
        connection.await_answers().await;
        tasks.spawn(publish(connection, Arc::clone(&pace), keeps));
    }
    let cell = run(&nats.process, &pace, round).await;
    tasks.shutdown().await;
    cell
}

async fn run(process: &Process, pace: &Pace, round: Duration) -> Cell {
    tokio::time::sleep(WARM_UP).await;
    let (started, cpu, delivered) = (Instant::now(), process.cpu(), pace.delivered());
    tokio::time::sleep(round).await;
    let (elapsed, cpu) = (started.elapsed(), process.cpu() - cpu);
    let count = (pace.delivered() - delivered) as f64;
    assert!(count > 0.0, "nothing was delivered");
    Cell {
        per_second: count / elapsed.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / count,
        memory_bytes: process.memory_bytes(),
    }
}

/// How far everybody is.
struct Pace {
    read: Vec<AtomicU64>,
    sent: AtomicU64,
    moved: Notify,
}

impl Pace {
    fn new(subscribers: usize) -> Self {
        let read = std::iter::repeat_with(AtomicU64::default).take(subscribers).collect();
        Self { read, sent: AtomicU64::new(0), moved: Notify::new() }
    }

    fn slowest(&self) -> u64 {
        self.read.iter().map(|read| read.load(Ordering::Relaxed)).min().unwrap()
    }

    fn delivered(&self) -> u64 {
        self.read.iter().map(|read| read.load(Ordering::Relaxed)).sum()
    }

    fn count(&self, reader: usize, count: usize) {
        let count = u64::try_from(count).unwrap();
        let before = self.read[reader].fetch_add(count, Ordering::Relaxed);
        if before / STEP != (before + count) / STEP {
            self.moved.notify_waiters();
        }
    }

    /// Waits until there is room for one more message.
    async fn room(&self) -> u64 {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        loop {
            let moved = self.moved.notified();
            if number < self.slowest() + WINDOW {
                return number;
            }
            moved.await;
        }
    }
}

async fn read_stream(mut subscriber: Subscriber, pace: Arc<Pace>, reader: usize) {
    loop {
        let count = subscriber.count().await;
        pace.count(reader, count);
    }
}

async fn read_subject(mut connection: Connection, pace: Arc<Pace>, reader: usize) {
    loop {
        connection.next().await;
        pace.count(reader, 1);
    }
}

struct Webhooks {
    stream: tokio::net::TcpStream,
    pace: Arc<Pace>,
}

impl Webhooks {
    async fn send(mut self) {
        let (clock, secret) = (SystemClock::new(), Secret::from(SECRET));
        loop {
            let id = format!("evt_{}", self.pace.room().await);
            let now_s = clock.wall() / 1000;
            deliver(&mut self.stream, &secret, now_s, &event(&id, now_s)).await;
        }
    }
}

async fn publish(mut connection: Connection, pace: Arc<Pace>, keeps: Keeps) {
    let clock = SystemClock::new();
    loop {
        let id = format!("evt_{}", pace.room().await);
        let payload = event(&id, clock.wall() / 1000);
        match keeps {
            Keeps::Nothing => connection.publish(SUBJECT, &payload).await,
            Keeps::Files | Keeps::Synced => connection.publish_once(&id, &payload).await,
        }
    }
}

/// The round in the middle, by deliveries a second.
fn middle(mut cells: Vec<Cell>) -> Cell {
    cells.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    cells.swap_remove(cells.len() / 2)
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, cpu_us, memory_bytes } = self;
        write!(out, "{per_second:.0} | {cpu_us:.2} | {:.0}", *memory_bytes as f64 / 1e6)
    }
}
