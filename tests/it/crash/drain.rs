//! The proof by stopping: a real gateway process is told to go by SIGTERM at random moments under a load of changes, reads
//! and streams, and started again. What its callers, its records and the sandbox's book say is compared: no call that was
//! accepted may fail, nothing that was begun may be without its outcome when it has gone, and streams end with the place
//! at which they go on. `TOLLGATE_PROVE_STOPS` says how often it is stopped, `TOLLGATE_PROVE_SEED` brings a run's choices
//! back.

mod callers;
mod judge;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tollgate::sandbox::{Control, Fault, WebhookTarget};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use self::callers::{Callers, Seen};
use super::change::{Change, Operation};
use super::compare::{Rule, Violations};
use super::end;
use super::feed::compare::{self as feed, Read, Sides};
use super::feed::consumer::Consumed;
use super::feed::maker::Listing;
use super::feed::reader::{self, Reader};
use super::gateway::Gateway;
use super::load::Load;
use super::random::Random;
use super::records::{self, Book};
use super::report::print_violations;
use super::{deliver_all, planted_binary, start_sandbox, stock};
use crate::prove::{self, seed, setting};
use crate::rig::{SECRET, TOKEN, Token};

const STOPS_DEFAULT: u64 = 10;
/// Enough for a gateway that goes too early to show it, as a rule.
const STOPS_PLANTED: u64 = 5;
/// What a fault breaks takes a moment that not every run meets, so it gets so many.
const RUNS_PLANTED: u64 = 10;
/// What the readers ask for; an empty list is every event.
const READERS: [&[&str]; 4] = [&[], &[], &["customer.*"], &["charge.refunded", "refund.*"]];
/// A quiet stream shows a sign of life so often, in seconds, so that its end is not where its last event was.
const CHECKPOINT_S: u64 = 1;
/// How long readers may take to come up to the head when nothing is stopped any more.
const PATIENCE: Duration = Duration::from_secs(120);
/// When the caller of a slow change leaves it; it has arrived by then.
const LEFT_AFTER: Duration = Duration::from_millis(500);
/// How long a stop waits for a request to arrive at the sandbox.
const ARRIVAL_MS_MAX: u32 = 500;

/// One run.
struct Run {
    binary: PathBuf,
    planted: Option<&'static str>,
    stops: u64,
    seed: u64,
}

/// What a run came to.
struct Ran {
    stops: u64,
    /// Stops that met an open call.
    met: u64,
    /// The longest time from the signal to the end of the process.
    slowest: Duration,
    operations: usize,
    effects: usize,
    seen: Seen,
    /// Streams that were opened, how many of them were told goodbye, and what they showed.
    streams: usize,
    goodbyes: usize,
    messages: usize,
    violations: Violations,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_told_to_go_finishes_what_it_accepted() {
    let (stops, seed) = (setting("TOLLGATE_PROVE_STOPS").unwrap_or(STOPS_DEFAULT), seed());
    let run = Run { binary: env!("CARGO_BIN_EXE_tollgate").into(), planted: None, stops, seed };
    let ran = run.prove().await;
    ran.print(seed);
    prove::keep("drain", seed, ran.stops, ran.total(), &ran.figures());
    let is_full = ran.seen.calls > 100 && ran.met >= ran.stops / 2 && ran.goodbyes > 0 && ran.messages > 100;
    assert!(is_full, "the run was empty, or its stops met nobody");
    assert_eq!(ran.total(), 0, "see above; seed {seed}");
}

/// Faults of the end, and by which broken promise each shows.
const PLANTED: [(&str, Rule); 3] = [
    ("drain-cuts-calls", Rule::CallCut),
    ("drain-leaves-changes", Rule::LeftOpen),
    ("drain-mutes-streams", Rule::StreamCut),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_faults_of_the_end_are_noticed() {
    let seed = seed();
    let mut missed = Vec::new();
    for (fault, rule) in PLANTED {
        let (mut times, mut stops) = (0, 0);
        for seed in seed..seed + RUNS_PLANTED {
            let run = Run { binary: planted_binary(), planted: Some(fault), stops: STOPS_PLANTED, seed };
            let ran = run.prove().await;
            times = ran.violations.get(&rule).map_or(0, Vec::len);
            stops += ran.stops;
            if times > 0 {
                break;
            }
            ran.print(seed);
        }
        prove::planted(fault, times > 0, &format!("drain: {times} x {} in {stops} stops", rule.says()));
        if times == 0 {
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
        let url = format!("http://{}/webhooks/stripe", gateway.webhook);
        control.set_webhooks(vec![WebhookTarget { url, secrets: vec![SECRET.to_owned()] }]);
        let stock = stock(&control);
        let seeded = Book::read(&control).effects.len();
        let channel = Endpoint::from_shared(format!("http://{}", gateway.grpc)).unwrap().connect_lazy();
        let load = Load::new(InterceptedService::new(channel, Token(TOKEN)), stock, self.seed);
        set_faults(&control, None);

        let callers = Callers::start(Arc::clone(&load), gateway.grpc, &mut random);
        let (head, ends) = watch::channel(None);
        let mut readers = JoinSet::new();
        for (number, types) in READERS.into_iter().enumerate() {
            let reader = Reader::new(number, gateway.grpc, types, random.fork());
            readers.spawn(reader.run(ends.clone(), PATIENCE));
        }
        let (mut met, mut slowest, mut violations) = (0, Duration::ZERO, Violations::new());
        for _ in 0..self.stops {
            gateway.spawn();
            live(&mut gateway, &load, &control, &mut random).await;
            met += u64::from(callers.open() > 0);
            let told = Instant::now();
            let ended = gateway.terminate().await;
            slowest = slowest.max(told.elapsed());
            if !ended.success() {
                violations.entry(Rule::Process).or_default().push(ended.to_string());
            }
        }
        control.clear_faults();
        gateway.spawn();
        gateway.ready().await;
        let seen = callers.end().await;
        load.end();
        load.settle(&mut random).await;
        deliver_all(&control).await;
        head.send_replace(Some(reader::head(gateway.grpc).await));
        let read: Vec<Read> = readers.join_all().await;
        let made = Listing::new(sandbox.address()).events().await;

        let ended = end::end(&load, &mut gateway, &control, seeded, 0).await;
        let (audit, log) = records::stored(&gateway.data()).await;
        let acknowledged = Book::read(&control).acknowledged;
        let consumed = Consumed::default();
        let sides =
            Sides { made: &made, acknowledged: &acknowledged, log: &log, read: &read, consumed: &consumed };
        let found = [ended.violations, feed::violations(&sides), judge::violations(&seen, &audit, &read)];
        for (rule, what) in found.into_iter().flatten() {
            violations.entry(rule).or_default().extend(what);
        }
        sandbox.stop().await;
        Ran {
            stops: self.stops,
            met,
            slowest,
            operations: ended.history.len(),
            effects: ended.effects,
            seen,
            streams: read.iter().map(|read| read.streams.len()).sum(),
            goodbyes: read.iter().map(|read| read.goodbyes).sum(),
            messages: read.iter().flat_map(|read| &read.streams).map(|stream| stream.sights.len()).sum(),
            violations,
        }
    }
}

impl Ran {
    fn total(&self) -> usize {
        self.violations.values().map(Vec::len).sum()
    }

    fn figures(&self) -> String {
        let Self { met, seen, operations, effects, streams, goodbyes, messages, slowest, .. } = self;
        format!(
            "{} calls of {operations} operations, {effects} effects; {met} stops met open calls; {} calls not accepted and sent \
             again, {} callers left; {messages} messages on {streams} streams, {goodbyes} of them told goodbye; the longest \
             end took {} ms",
            seen.calls,
            seen.cut.len(),
            seen.left,
            slowest.as_millis(),
        )
    }

    fn print(&self, seed: u64) {
        println!("drain: seed {seed}, {} stops, {}", self.stops, self.figures());
        print_violations(&self.violations);
    }
}

/// Makes calls last, so that some are open at every moment; nothing fails. The first that fits meets a request.
fn set_faults(control: &Control, first: Option<Value>) {
    let usual = [
        json!({"kind": "latency", "ms": 60, "probability": 0.3}),
        json!({"kind": "latency_after", "ms": 250, "probability": 0.3}),
        json!({"kind": "latency_after", "ms": 1_200, "probability": 0.05}),
        json!({"kind": "webhook_duplicate", "probability": 0.05}),
    ];
    control.clear_faults();
    first.into_iter().chain(usual).for_each(|fault| control.add_fault(Fault::from_json(fault).unwrap()));
}

/// One life of the gateway until it is told to go.
async fn live(gateway: &mut Gateway, load: &Load, control: &Control, random: &mut Random) {
    gateway.ready().await;
    match random.below(10) {
        0..=1 => tokio::time::sleep(random.pause(60)).await,
        2..=3 => {
            tokio::time::sleep(random.pause(600)).await;
            let seen = control.received();
            // Right after a request arrived, so that its call is open.
            for _ in 0..ARRIVAL_MS_MAX {
                if control.received() > seen {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        4..=7 => leave_a_change(gateway.grpc, load, control, random).await,
        _ => tokio::time::sleep(Duration::from_millis(200) + random.pause(1_500)).await,
    }
}

/// Leaves a change that takes longer than whatever else is open, so that nobody but its record waits for it at the end.
async fn leave_a_change(grpc: SocketAddr, load: &Load, control: &Control, random: &mut Random) {
    let customer = random.pick(&load.stock.customers).clone();
    let path = format!("/v1/customers/{customer}");
    let slow = json!({"kind": "latency_after", "ms": 4_000, "times": 1, "match": {"method": "POST", "path_prefix": path}});
    set_faults(control, Some(slow));
    let change = Change::UpdateCustomer { customer, description: "left by its caller".to_owned() };
    let order = format!("left-{}", load.history().len());
    let operation = Operation { order, id: String::new(), change };
    load.add(operation.clone());
    // On a connection of its own, since one that an earlier gateway ended would fail at once.
    operation.send(callers::wire(grpc), LEFT_AFTER).await;
}
