//! The proof by crashing: a real gateway process is killed at random moments under a load of changes, faults and
//! webhooks; then three records that know nothing of each other are compared. `TOLLGATE_PROVE_KILLS` says how often it
//! is killed, `TOLLGATE_PROVE_SEED` brings a run's choices back, `TOLLGATE_PROVE_RESULTS` names a folder for figures.

pub(crate) mod change;
pub(crate) mod compare;
mod drain;
mod duplicates;
pub(crate) mod end;
mod feed;
pub(crate) mod gateway;
pub(crate) mod load;
mod named;
pub(crate) mod random;
pub(crate) mod records;
pub(crate) mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate::domain::clock::SystemClock;
use tollgate::sandbox::{Control, Fault, Handle, Options, Sandbox, WebhookTarget};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use self::change::Stock;
use self::compare::Rule;
use self::gateway::Gateway;
use self::load::Load;
use self::random::Random;
use self::records::Book;
use self::report::Report;
use crate::prove::{self, seed, setting};
use crate::rig::{KEY, SECRET, TOKEN, Token};

const KILLS_DEFAULT: u64 = 30;
/// Enough for a gateway that doubles to show it.
const KILLS_PLANTED: u64 = 10;
/// How long a kill waits for a request to arrive at the sandbox.
const ARRIVAL_MS_MAX: u32 = 500;
const PAYMENTS: usize = 30;
const CUSTOMERS: usize = 5;
const DISPUTES: usize = 3;
/// How often the sandbox keeps a 500 under a key, once with and once without the effect: such an outcome stays unknown.
const KEPT_500S: usize = 3;
/// Step of the sandbox's clock at the end, so that webhooks to be sent again are due; all steps together stay far below
/// the day after which Stripe may forget keys.
const STEP: Duration = Duration::from_secs(600);
const STEPS_MAX: usize = 60;
const LOOKS_PER_STEP: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One run.
struct Run {
    binary: PathBuf,
    planted: Option<&'static str>,
    kills: u64,
    seed: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_at_random_doubles_nothing_and_loses_nothing() {
    let kills = setting("TOLLGATE_PROVE_KILLS").unwrap_or(KILLS_DEFAULT);
    let run = Run { binary: env!("CARGO_BIN_EXE_tollgate").into(), planted: None, kills, seed: seed() };
    let report = run.prove().await;
    finish(&report, "crash");
    prove::keep("crash", report.seed, report.kills, report.total(), &report.figures());
    assert_eq!(report.total(), 0, "see the table above; seed {}", report.seed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_a_new_key_per_retry_is_caught() {
    let run =
        Run { binary: planted_binary(), planted: Some("key-per-retry"), kills: KILLS_PLANTED, seed: seed() };
    let report = run.prove().await;
    finish(&report, "planted");
    let doubled = report.count(Rule::Doubled);
    prove::planted(
        "key-per-retry",
        doubled > 0,
        &format!("random kills: {doubled} operations took effect twice"),
    );
    assert!(report.count(Rule::Doubled) > 0, "the planted doubles were not found; seed {}", report.seed);
}

/// The binary with the deliberate faults.
pub(crate) fn planted_binary() -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_tollgate")).with_file_name("tollgate-planted");
    assert!(
        binary.exists(),
        "{} is missing; build it with `cargo build --features planted --bin tollgate-planted`",
        binary.display()
    );
    binary
}

fn finish(report: &Report, name: &str) {
    report.print(name);
    // A run without work, or whose kills met no call, proves nothing.
    assert!(report.effects > 0 && report.acknowledged > 0 && report.cut > 0, "the run was empty");
}

impl Run {
    async fn prove(self) -> Report {
        println!("seed {}", self.seed);
        let mut random = Random::new(self.seed);
        let folder = TempDir::new().unwrap();
        let sandbox = start_sandbox(self.seed).await;
        let control = sandbox.control();
        let mut gateway = Gateway::new(self.binary, self.planted, folder.path(), sandbox.address());
        let url = format!("http://{}/webhooks/stripe", gateway.webhook);
        control.set_webhooks(vec![WebhookTarget { url, secrets: vec![SECRET.to_owned()] }]);
        let stock = stock(&control);
        let seeded = Book::read(&control).effects.len();
        let channel = Endpoint::from_shared(format!("http://{}", gateway.grpc)).unwrap().connect_lazy();
        let load = Load::new(InterceptedService::new(channel, Token(TOKEN)), stock, self.seed);

        faults().into_iter().for_each(|fault| control.add_fault(fault));
        let mut callers = load.start(&mut random);
        for _ in 0..self.kills {
            gateway.spawn();
            live(&mut gateway, &control, &mut random).await;
            gateway.kill();
        }
        control.clear_faults();
        gateway.spawn();
        gateway.ready().await;
        load.end();
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
        load.settle(&mut random).await;
        let ended = end::end(&load, &mut gateway, &control, seeded, 2 * KEPT_500S).await;
        let unknown = ended.history.iter().filter(|one| !one.told.settled()).count();
        let report = Report {
            seed: self.seed,
            kills: self.kills,
            operations: ended.history.len(),
            calls: load.calls.load(Ordering::Relaxed),
            cut: load.cut.load(Ordering::Relaxed),
            effects: ended.effects,
            acknowledged: ended.acknowledged,
            unknown,
            violations: ended.violations,
        };
        sandbox.stop().await;
        report
    }
}

pub(crate) async fn start_sandbox(seed: u64) -> Handle {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { seed, ..Options::new(KEY, Arc::new(SystemClock::new())) };
    Sandbox::start(listener, options).await.unwrap()
}

/// What the load works on.
pub(crate) fn stock(control: &Control) -> Stock {
    let make = |event: &str, count: usize| -> Vec<String> {
        let ids = (0..count).map(|_| control.trigger(event).unwrap()["id"].as_str().unwrap().to_owned());
        ids.collect()
    };
    Stock {
        payments: make("payment_intent.succeeded", PAYMENTS),
        customers: make("customer.created", CUSTOMERS),
        disputes: make("charge.dispute.created", DISPUTES),
    }
}

/// What goes wrong at the sandbox meanwhile. Reads are spared, so that the gateway starts.
fn faults() -> Vec<Fault> {
    let post = |mut fault: serde_json::Value| {
        fault["match"] = json!({"method": "POST"});
        Fault::from_json(fault).unwrap()
    };
    let kept = |effect: bool, probability: f64| {
        post(json!({
            "kind": "status", "status": 500, "saved": true, "effect": effect, "should_retry": false,
            "times": KEPT_500S, "probability": probability,
        }))
    };
    let webhook = |fault| Fault::from_json(fault).unwrap();
    vec![
        kept(true, 0.05),
        kept(false, 0.05),
        post(json!({"kind": "drop_before", "probability": 0.02})),
        post(json!({"kind": "drop_after", "probability": 0.03})),
        post(json!({"kind": "half_body", "probability": 0.01})),
        post(json!({"kind": "reset", "probability": 0.01})),
        post(json!({"kind": "html", "probability": 0.01})),
        post(json!({"kind": "status", "status": 500, "probability": 0.01})),
        post(json!({"kind": "status", "status": 409, "probability": 0.01})),
        post(
            json!({"kind": "status", "status": 429, "rate_limited_reason": "global-rate", "probability": 0.01}),
        ),
        post(json!({"kind": "latency", "ms": 80, "probability": 0.05})),
        post(json!({"kind": "latency_after", "ms": 80, "probability": 0.15})),
        webhook(json!({"kind": "webhook_duplicate", "probability": 0.05})),
        webhook(json!({"kind": "webhook_reorder", "ms": 300, "probability": 0.05})),
    ]
}

/// One life of the gateway: how far it gets before it is killed.
async fn live(gateway: &mut Gateway, control: &Control, random: &mut Random) {
    match random.below(10) {
        0 => tokio::time::sleep(random.pause(150)).await,
        1..=3 => {
            gateway.ready().await;
            tokio::time::sleep(random.pause(300)).await;
        }
        4..=7 => {
            gateway.ready().await;
            tokio::time::sleep(random.pause(200)).await;
            let seen = control.received();
            // Right after a request arrived, when its effect may or may not be on record.
            for _ in 0..ARRIVAL_MS_MAX {
                if control.received() > seen {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(random.pause(10)).await;
        }
        _ => {
            gateway.ready().await;
            tokio::time::sleep(Duration::from_millis(400) + random.pause(1200)).await;
        }
    }
}

/// Lets the sandbox send every webhook that it still has, for as long as they become fewer.
pub(crate) async fn deliver_all(control: &Control) {
    let (mut fewest, mut since) = (usize::MAX, 0);
    for look in 0_usize.. {
        let left = control.undelivered();
        since = if left < fewest { 0 } else { since + 1 };
        fewest = fewest.min(left);
        if left == 0 {
            return;
        }
        if since > STEPS_MAX * LOOKS_PER_STEP {
            break;
        }
        if look % LOOKS_PER_STEP == 0 {
            control.advance(STEP);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("{} webhooks could not be delivered", control.undelivered());
}
