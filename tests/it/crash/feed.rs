//! The proof of the feed by crashing: the sandbox makes events all the time and sends them twice and out of order, the
//! gateway is killed at random moments, and so are those who read its streams. Then what each stream said is compared with
//! the log that is left, and the log with what the sandbox made. `TOLLGATE_PROVE_KILLS` says how often the gateway is
//! killed, `TOLLGATE_PROVE_SEED` brings a run's choices back.

pub(super) mod compare;
pub(super) mod consumer;
pub(super) mod maker;
pub(super) mod reader;
mod tail;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tollgate::sandbox::{Control, Fault, WebhookTarget};

use self::compare::{Read, Sides};
use self::consumer::{Consumed, Subscription};
use self::maker::{Made, Maker};
use self::reader::Reader;
use self::tail::Tail;
use super::compare::{Rule, Violations};
use super::gateway::Gateway;
use super::random::Random;
use super::records::{self, Book};
use super::report::print_violations;
use super::{deliver_all, planted_binary, start_sandbox};
use crate::prove::{self, seed, setting};
use crate::rig::SECRET;

const KILLS_DEFAULT: u64 = 30;
/// Enough for a feed that skips or loses to show it, as a rule.
const KILLS_PLANTED: u64 = 6;
/// What a fault breaks takes a moment that not every run meets, so it gets so many.
const RUNS_PLANTED: u64 = 5;
/// What the readers ask for; an empty list is every event. More than one reads everything, since each dies at other
/// moments.
const READERS: [&[&str]; 6] =
    [&[], &[], &[], &["customer.*"], &["charge.refunded", "refund.*"], &["payout.paid"]];
/// Readers that are processes of their own.
const TAILS: [&[&str]; 2] = [&[], &["customer.*"]];
/// Consumers that share a named subscription.
const CONSUMERS: usize = 3;
/// A quiet stream shows a sign of life so often, in seconds, so that readers have places besides events to resume at.
const CHECKPOINT_S: u64 = 1;
/// How long readers may take to come up to the head when nothing is killed any more: of a feed that is sound, and of one
/// that is not and that some never read to its end.
const PATIENCE: Duration = Duration::from_secs(120);
const PATIENCE_PLANTED: Duration = Duration::from_secs(20);
/// Events that are made a second, at the least, where the size of the proof was asked for: a sample says nothing of it,
/// since it runs beside other tests.
const PER_SECOND_MIN: f64 = 150.0;
/// How much of Stripe's list is read again at each start.
const SWEEP_OVERLAP_S: u64 = 5;

/// One run.
struct Run {
    binary: PathBuf,
    planted: Option<&'static str>,
    kills: u64,
    seed: u64,
}

/// What a run came to.
struct Ran {
    kills: u64,
    /// How often readers were killed or left their stream in the middle.
    deaths: usize,
    made: Made,
    /// Streams opened and messages read, by all readers together.
    streams: usize,
    messages: usize,
    consumed: Consumed,
    violations: Violations,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_seen_in_order_whoever_is_killed() {
    let (size, seed) = (setting("TOLLGATE_PROVE_KILLS"), seed());
    let kills = size.unwrap_or(KILLS_DEFAULT);
    let run = Run { binary: env!("CARGO_BIN_EXE_tollgate").into(), planted: None, kills, seed };
    let ran = run.prove().await;
    ran.print(seed);
    prove::keep("feed", seed, ran.kills, ran.total(), &ran.figures());
    assert!(ran.made.ids.len() > 100 && ran.messages > 1000, "the run was empty");
    assert!(ran.deaths > 0 && ran.consumed.deaths > 0, "none of those who read died");
    assert!(size.is_none() || ran.made.per_second >= PER_SECOND_MIN, "too few events were made");
    assert_eq!(ran.total(), 0, "see above; seed {seed}");
}

/// Faults of the feed, and by which broken promise each shows.
const PLANTED: [(&str, &[Rule]); 6] = [
    ("cursor-skips", &[Rule::EventSkipped]),
    ("cursor-repeats", &[Rule::EventRepeated]),
    ("checkpoint-ahead", &[Rule::EventSkipped]),
    ("event-ack-before-durable", &[Rule::EventLost]),
    ("position-gap", &[Rule::LogGap]),
    ("subscription-ack-lost", &[Rule::AcknowledgedAgain]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_faults_of_the_feed_are_noticed() {
    let seed = seed();
    let mut missed = Vec::new();
    for (fault, rules) in PLANTED {
        let (mut shown, mut kills) = (None, 0);
        for seed in seed..seed + RUNS_PLANTED {
            let run = Run { binary: planted_binary(), planted: Some(fault), kills: KILLS_PLANTED, seed };
            let ran = run.prove().await;
            kills += ran.kills;
            shown = rules.iter().find_map(|rule| Some((*rule, ran.violations.get(rule)?.len())));
            if shown.is_some() {
                break;
            }
            ran.print(seed);
        }
        let what = shown.map_or_else(
            || format!("feed: {kills} kills, nothing"),
            |(rule, times)| format!("feed: {times} x {} in {kills} kills", rule.says()),
        );
        prove::planted(fault, shown.is_some(), &what);
        if shown.is_none() {
            missed.push(fault);
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}; seed {seed}");
}

impl Run {
    async fn prove(self) -> Ran {
        println!("seed {}", self.seed);
        let mut random = Random::new(self.seed);
        let folder = TempDir::new().unwrap();
        let sandbox = start_sandbox(self.seed).await;
        let control = sandbox.control();
        let mut gateway = Gateway::new(self.binary, self.planted, folder.path(), sandbox.address());
        gateway.configure(&format!("[feed]\ncheckpoint_interval_s = {CHECKPOINT_S}\n"));
        // A reading of Stripe's list repairs what was lost, so every other run, and all that have to notice a loss, have none.
        if self.planted.is_none() && !self.seed.is_multiple_of(2) {
            gateway.sweep(SWEEP_OVERLAP_S);
        }
        let url = format!("http://{}/webhooks/stripe", gateway.webhook);
        control.set_webhooks(vec![WebhookTarget { url, secrets: vec![SECRET.to_owned()] }]);
        faults().into_iter().for_each(|fault| control.add_fault(fault));

        let patience = if self.planted.is_some() { PATIENCE_PLANTED } else { PATIENCE };
        let maker = Maker::start(control.clone(), sandbox.address(), random.fork());
        let (head, ends) = watch::channel(None);
        let mut readers = JoinSet::new();
        for (number, types) in READERS.into_iter().enumerate() {
            let reader = Reader::new(number, gateway.grpc, types, random.fork());
            readers.spawn(reader.run(ends.clone(), patience));
        }
        for (number, types) in TAILS.into_iter().enumerate() {
            let tail = Tail::new(number, gateway.grpc, types, folder.path(), random.fork());
            readers.spawn(tail.run(ends.clone(), patience));
        }
        let subscription = Subscription::new(gateway.grpc);
        let (over, ended) = watch::channel(false);
        let mut consumers = JoinSet::new();
        for number in 0..CONSUMERS {
            let (subscription, ended) = (Arc::clone(&subscription), ended.clone());
            let random = random.fork();
            consumers.spawn(async move {
                subscription.create().await;
                subscription.consume(number, random, ended).await;
            });
        }
        for _ in 0..self.kills {
            gateway.spawn();
            live(&mut gateway, &mut random).await;
            gateway.kill();
        }
        gateway.spawn();
        gateway.ready().await;
        let made = maker.end().await;
        control.clear_faults();
        deliver_all(&control).await;
        let last = reader::head(gateway.grpc).await;
        head.send_replace(Some(last));
        let read: Vec<Read> = readers.join_all().await;
        subscription.all_is_settled(last, patience).await;
        over.send_replace(true);
        consumers.join_all().await;
        let consumed = std::mem::take(&mut *subscription.consumed());
        let violations = compared(&mut gateway, &control, (&made, &read, &consumed)).await;
        sandbox.stop().await;
        Ran {
            kills: self.kills,
            deaths: read.iter().map(|read| read.deaths).sum(),
            streams: read.iter().map(|read| read.streams.len()).sum(),
            messages: read.iter().flat_map(|read| &read.streams).map(|stream| stream.sights.len()).sum(),
            made,
            consumed,
            violations,
        }
    }
}

/// The gateway ends in peace, and the records are compared.
async fn compared(
    gateway: &mut Gateway,
    control: &Control,
    (made, read, consumed): (&Made, &[Read], &Consumed),
) -> Violations {
    let ended = gateway.terminate().await;
    let (_, log) = records::stored(&gateway.data()).await;
    let acknowledged = Book::read(control).acknowledged;
    let mut violations = compare::violations(&Sides {
        made: &made.ids,
        acknowledged: &acknowledged,
        log: &log,
        read,
        consumed,
    });
    gateway.judge_end(ended, &mut violations);
    violations
}

impl Ran {
    fn total(&self) -> usize {
        self.violations.values().map(Vec::len).sum()
    }

    fn figures(&self) -> String {
        let Self { deaths, made, streams, messages, consumed, .. } = self;
        format!(
            "{} events made, {:.0} a second; {} readers, killed {deaths} times, read {messages} messages on {streams} \
             streams; {CONSUMERS} consumers of one subscription, killed {} times, were given {} and dealt with {}",
            made.ids.len(),
            made.per_second,
            READERS.len() + TAILS.len(),
            consumed.deaths,
            consumed.given.len(),
            consumed.settled.len(),
        )
    }

    fn print(&self, seed: u64) {
        println!("feed: seed {seed}, {} kills, {}", self.kills, self.figures());
        print_violations(&self.violations);
    }
}

/// What goes wrong on the way of the events.
fn faults() -> [Fault; 2] {
    [
        json!({"kind": "webhook_duplicate", "probability": 0.1}),
        json!({"kind": "webhook_reorder", "ms": 300, "probability": 0.1}),
    ]
    .map(|fault| Fault::from_json(fault).unwrap())
}

/// One life of the gateway: how far it gets before it is killed.
async fn live(gateway: &mut Gateway, random: &mut Random) {
    match random.below(10) {
        0 => tokio::time::sleep(random.pause(150)).await,
        1..=4 => {
            gateway.ready().await;
            tokio::time::sleep(random.pause(600)).await;
        }
        _ => {
            gateway.ready().await;
            tokio::time::sleep(Duration::from_millis(600) + random.pause(3_000)).await;
        }
    }
}
