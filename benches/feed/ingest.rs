//! How many events a second are taken in: webhooks that are verified and durable before the 2xx, against messages
//! published to JetStream, from the same number of senders that each wait for every answer.

use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollgate::domain::clock::{Clock as _, SystemClock};
use tollgate::domain::secret::Secret;
use tollgate::stripe::signature::sign;

use crate::nats::{Connection, Keeps, Nats};
use crate::process::{Process, connect};
use crate::rig::Rig;
use crate::setup::SECRET;

const SENDERS: usize = 64;
/// Size of a message, about: that of an event of Stripe's with a charge in it.
pub(crate) const MESSAGE_BYTES: usize = 2 * 1024;
/// What is sent before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// Who takes the messages in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    Gateway,
    JetStreamSynced,
    JetStream,
}

const TAKERS: [Taker; 3] = [Taker::Gateway, Taker::JetStreamSynced, Taker::JetStream];

/// One round of one taker.
#[derive(Clone, Copy, Debug)]
struct Cell {
    per_second: f64,
    cpu_us: f64,
    median_us: u64,
    slow_us: u64,
}

/// The section of the page: rounds of each taker by turns, the middle one of each counts.
pub(crate) async fn section(disk: &Path, rounds: usize, round: Duration) -> String {
    let mut cells = TAKERS.map(|_| Vec::new());
    for number in 1..=rounds {
        for (taker, cells) in TAKERS.into_iter().zip(&mut cells) {
            let cell = measure(disk, taker, round).await;
            println!("ingest, round {number}: {taker:?} {cell:.1?}");
            cells.push(cell);
        }
    }
    let [gateway, synced, plain] = cells.map(middle);
    let mut rows = String::new();
    for (name, cell) in [
        ("Tollgate: a signed webhook, verified, not known yet, durable before the 2xx", gateway),
        (
            "JetStream, `sync_interval: always`: a publish with a message id, durable before its answer",
            synced,
        ),
        ("JetStream as it comes: the same, but what is answered is not synced yet", plain),
    ] {
        writeln!(rows, "| {name} | {cell} |").unwrap();
    }
    format!(
        "\
## Taking events in

{SENDERS} senders, each with a connection of its own, send messages of {} KiB and wait for each answer. Signing them is the
senders' work; checking the signature is the gateway's, and a server that only keeps messages has no such work.

| | Events per second | CPU \u{b5}s per event | median ms | 99 % ms |
|---|---|---|---|---|
{rows}
Tollgate takes in {:.1} times as many events a second as JetStream with the same promise, and takes {:.2} times its CPU
for each.
",
        MESSAGE_BYTES / 1024,
        gateway.per_second / synced.per_second,
        gateway.cpu_us / synced.cpu_us,
    )
}

/// One round with a server of its own.
async fn measure(disk: &Path, taker: Taker, round: Duration) -> Cell {
    let keeps = if taker == Taker::JetStreamSynced { Keeps::Synced } else { Keeps::Files };
    match taker {
        Taker::Gateway => {
            let gateway = Rig::start(disk).await;
            let mut senders = Vec::new();
            for _ in 0..SENDERS {
                senders.push(Sender::Webhook(connect(gateway.webhook).await));
            }
            let cell = run(&gateway.process, senders, round).await;
            gateway.stop().await;
            cell
        }
        Taker::JetStream | Taker::JetStreamSynced => {
            let nats = Nats::start(disk, keeps).await;
            let mut senders = Vec::new();
            for _ in 0..SENDERS {
                let mut connection = nats.connect().await;
                connection.await_answers().await;
                senders.push(Sender::Nats(Box::new(connection)));
            }
            run(&nats.process, senders, round).await
        }
    }
}

async fn run(process: &Process, senders: Vec<Sender>, round: Duration) -> Cell {
    let begins = Instant::now() + WARM_UP;
    let mut tasks = JoinSet::new();
    for (number, sender) in senders.into_iter().enumerate() {
        tasks.spawn(sender.send(number, begins, begins + round));
    }
    tokio::time::sleep_until(begins.into()).await;
    let before = process.cpu();
    tokio::time::sleep_until((begins + round).into()).await;
    let cpu = process.cpu() - before;
    let mut latencies_us: Vec<u64> = tasks.join_all().await.concat();
    latencies_us.sort_unstable();
    let count = latencies_us.len();
    Cell {
        per_second: count as f64 / round.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
        median_us: latencies_us[count / 2],
        slow_us: latencies_us[count * 99 / 100],
    }
}

/// Sends one message after the other.
enum Sender {
    Webhook(TcpStream),
    Nats(Box<Connection>),
}

impl Sender {
    /// How long each message took that was answered between `begins` and `ends`, in microseconds.
    async fn send(mut self, sender: usize, begins: Instant, ends: Instant) -> Vec<u64> {
        let clock = SystemClock::new();
        let secret = Secret::from(SECRET);
        let mut latencies_us = Vec::new();
        for number in 0.. {
            let id = format!("evt_{sender}_{number}");
            let body = event(&id, clock.wall() / 1000);
            let started = Instant::now();
            match &mut self {
                Self::Webhook(stream) => deliver(stream, &secret, clock.wall() / 1000, &body).await,
                Self::Nats(connection) => connection.publish_once(&id, &body).await,
            }
            let now = Instant::now();
            if now >= ends {
                break;
            }
            if now >= begins {
                latencies_us.push(u64::try_from((now - started).as_micros()).unwrap());
            }
        }
        latencies_us
    }
}

/// An event of the size.
pub(crate) fn event(id: &str, now_s: i64) -> String {
    let mut body = format!(
        r#"{{"id":"{id}","object":"event","api_version":"2026-10-28.endive","created":{now_s},"livemode":false,
"pending_webhooks":1,"request":{{"id":null,"idempotency_key":null}},"type":"customer.updated",
"data":{{"object":{{"id":"cus_{id}","object":"customer","created":{now_s},"livemode":false,"description":""#
    );
    let end = r#""}}}"#;
    let fill = MESSAGE_BYTES.saturating_sub(body.len() + end.len());
    body.extend(std::iter::repeat_n('x', fill));
    body.push_str(end);
    body
}

/// Posts a webhook as Stripe does, and waits for the whole answer.
pub(crate) async fn deliver(stream: &mut TcpStream, secret: &Secret, now_s: i64, body: &str) {
    let request = format!(
        "POST /webhooks/stripe HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json; charset=utf-8\r\n\
         stripe-signature: {}\r\ncontent-length: {}\r\n\r\n{body}",
        sign(secret, now_s, body.as_bytes()),
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::with_capacity(512);
    loop {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the gateway closed the connection");
        let Some(end) = answer.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 2"), "{}", String::from_utf8_lossy(&answer));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if answer.len() >= end + 4 + length.map_or(0, |length| length.parse().unwrap()) {
            return;
        }
    }
}

/// The round in the middle, by events a second.
fn middle(mut cells: Vec<Cell>) -> Cell {
    cells.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    cells.swap_remove(cells.len() / 2)
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        let Self { per_second, cpu_us, median_us, slow_us } = self;
        write!(out, "{per_second:.0} | {cpu_us:.1} | {:.2} | {:.2}", ms(*median_us), ms(*slow_us))
    }
}
