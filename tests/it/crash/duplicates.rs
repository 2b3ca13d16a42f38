//! The proof by repetition: callers send what was sent before, half of it altered, and now and then something new, while
//! requests and answers get lost. Nothing is killed. At the end the same three records are compared.
//! `TOLLGATE_PROVE_CALLS` says how many repeated calls there are, `TOLLGATE_PROVE_SEED` brings the choices back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate::sandbox::Fault;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use super::end::{Ended, end};
use super::gateway::Gateway;
use super::load::Load;
use super::random::Random;
use super::records::Book;
use super::{start_sandbox, stock};
use crate::prove::{keep, seed, setting};
use crate::rig::{TOKEN, Token};

const CALLS_DEFAULT: u64 = 400;
const CALLERS: usize = 32;
/// How many of the youngest changes are sent again.
const REMEMBERED: usize = 1_024;
/// How often one is looked for that can be altered.
const PICKS_MAX: usize = 16;
/// Changes whose failure the sandbox keeps under their key, with and without their effect.
const KEPT_500S: u32 = 3;

/// What the callers did.
#[derive(Default)]
struct Counts {
    /// Of what was sent before.
    begun: AtomicU64,
    new: AtomicU64,
    same: AtomicU64,
    altered: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_happens_once_and_what_is_altered_is_refused() {
    let (calls, seed) = (setting("TOLLGATE_PROVE_CALLS").unwrap_or(CALLS_DEFAULT), seed());
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let folder = TempDir::new().unwrap();
    let sandbox = start_sandbox(seed).await;
    let control = sandbox.control();
    let mut gateway =
        Gateway::new(env!("CARGO_BIN_EXE_tollgate").into(), None, folder.path(), sandbox.address());
    let stock = stock(&control);
    let seeded = Book::read(&control).effects.len();
    let channel = Endpoint::from_shared(format!("http://{}", gateway.grpc)).unwrap().connect_lazy();
    let load = Load::new(InterceptedService::new(channel, Token(TOKEN)), stock, seed);
    gateway.spawn();
    gateway.ready().await;

    faults().into_iter().for_each(|fault| control.add_fault(fault));
    let counts = Arc::new(Counts::default());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(caller(Arc::clone(&load), Arc::clone(&counts), calls, random.fork()));
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    control.clear_faults();
    load.end();
    load.settle(&mut random).await;
    let unknown_max = usize::try_from(2 * KEPT_500S).unwrap();
    let Ended { effects, violations, .. } = end(&load, &mut gateway, &control, seeded, unknown_max).await;
    for (rule, found) in &violations {
        println!("{} x {}: {:?}", found.len(), rule.says(), found.first());
    }
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (new, same, altered) = (count(&counts.new), count(&counts.same), count(&counts.altered));
    let note = format!("{new} new, {same} sent again, {altered} sent again altered; {effects} effects");
    keep("duplicates", seed, same + altered, violations.values().map(Vec::len).sum(), &note);
    assert!(violations.is_empty(), "see above; seed {seed}");
    assert!(same + altered >= calls && altered * 3 > calls && same * 3 > calls, "{note}");
    sandbox.stop().await;
}

/// Repeats changes until there were enough, and asks for a new one every fifth time, or where none can be repeated.
async fn caller(load: Arc<Load>, counts: Arc<Counts>, calls: u64, mut random: Random) {
    while counts.begun.load(Ordering::Relaxed) < calls {
        let kind = random.below(10);
        let altered = kind % 2 == 1;
        let mut picks = (0..PICKS_MAX).filter_map(|_| load.known_of_the_last(REMEMBERED, &mut random));
        let known = picks.find(|at| !altered || load.succeeded(*at));
        let counted = match (kind, known) {
            (2.., Some(at)) => {
                counts.begun.fetch_add(1, Ordering::Relaxed);
                // One whose outcome is a success: of another, altered parameters are a new try.
                if altered {
                    load.alter(at, &mut random).await;
                    &counts.altered
                } else {
                    load.drive(at, &mut random, || false).await;
                    &counts.same
                }
            }
            _ => {
                let at = load.new_operation(&mut random);
                load.drive(at, &mut random, || false).await;
                &counts.new
            }
        };
        counted.fetch_add(1, Ordering::Relaxed);
    }
}

/// What goes wrong meanwhile.
fn faults() -> Vec<Fault> {
    let post = |mut fault: serde_json::Value| {
        fault["match"] = json!({"method": "POST"});
        Fault::from_json(fault).unwrap()
    };
    let kept = |effect: bool| {
        post(json!({
            "kind": "status", "status": 500, "saved": true, "effect": effect, "should_retry": false,
            "times": KEPT_500S, "probability": 0.01,
        }))
    };
    vec![
        kept(true),
        kept(false),
        post(json!({"kind": "drop_before", "probability": 0.01})),
        post(json!({"kind": "drop_after", "probability": 0.02})),
        post(json!({"kind": "half_body", "probability": 0.01})),
        post(json!({"kind": "status", "status": 409, "probability": 0.01})),
        post(
            json!({"kind": "status", "status": 429, "rate_limited_reason": "global-rate", "probability": 0.01}),
        ),
        post(json!({"kind": "latency_after", "ms": 20, "probability": 0.1})),
    ]
}
