//! The proof of the budgets: callers with many calls at once against the budget of one order that they share and the daily
//! budget that each of them has, with refunds that fail afterwards, answers that are lost and a gateway that is killed.
//! Never is more refunded at Stripe than a budget holds, and in the end all of it can be spent. `TOLLGATE_PROVE_KILLS` says
//! how often the gateway is killed, `TOLLGATE_PROVE_SEED` brings a run's choices back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate::proto::v1::budget_service_client::BudgetServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{BudgetUse, CreateRefundRequest, ListBudgetsRequest, OperationRef};
use tollgate::sandbox::{Control, Fault, Handle, WebhookTarget};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::crash::gateway::Gateway;
use crate::crash::random::Random;
use crate::crash::{deliver_all, planted_binary, start_sandbox};
use crate::prove::{self, seed, setting};
use crate::rig::{KEY, SECRET, TOKEN, Token, Wire, until};

/// 100.00, of the order, whoever calls.
const LIMIT: i64 = 10_000;
/// 25.00, of each caller in a day: together as much as the order has, so that both bind.
const LIMIT_OF_CALLER: i64 = 2_500;
/// The callers and their tokens; one namespace, so that they mean the same order.
const CALLERS: [(&str, &str); 4] = [
    ("prover", TOKEN),
    ("support", "token-of-support-for-tests-1"),
    ("orders", "token-of-orders-for-tests-2"),
    ("night", "token-of-night-for-tests-3"),
];
/// Calls of one caller at once.
const AT_ONCE: usize = 16;
/// The key of the metadata by which a refund at Stripe says whose it is.
const WHOSE: &str = "caller";
const KILLS_DEFAULT: u64 = 6;
/// Runs that a planted fault gets to show itself.
const RUNS_PLANTED: u64 = 4;
const PAYMENTS: usize = 48;
/// Beyond all that is refunded of one payment.
const PAYMENT_AMOUNT: i64 = 100_000;
/// Smallest and largest refund.
const REFUND_MIN: u64 = 100;
const REFUND_MAX: u64 = 999;
/// How long after a refund the sandbox lets it fail that has to fail, and a little more.
const FAILS_AFTER: Duration = Duration::from_secs(11);
/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause of a caller whose refund did not fit, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 150;

/// The callers and what they share.
struct Load {
    /// By the caller's place in [`CALLERS`].
    wires: Vec<Wire>,
    payments: Vec<String>,
    over: AtomicBool,
    next: AtomicU64,
    refunded: AtomicU64,
    exceeded: AtomicU64,
    /// Answers that left the outcome open.
    unclear: AtomicU64,
}

/// What became of one call.
enum Answer {
    Done,
    TooMuch,
    Refused,
    /// To be sent again.
    Unclear,
}

/// What a run came to.
struct Ran {
    kills: u64,
    refunded: u64,
    exceeded: u64,
    unclear: u64,
    most: i64,
    /// What was refunded beyond a budget, each time that somebody looked.
    overspent: Vec<String>,
    /// What else was not as it has to be.
    broken: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_once_never_overspend_a_budget_and_can_spend_all_of_it() {
    let (kills, seed) = (setting("TOLLGATE_PROVE_KILLS").unwrap_or(KILLS_DEFAULT), seed());
    let ran = run(env!("CARGO_BIN_EXE_tollgate").into(), None, kills, seed).await;
    let note = format!(
        "{} callers with {AT_ONCE} calls at once each, {} refunds, {} too much for the budget, {} without an outcome at first; at most {} of {LIMIT}",
        CALLERS.len(),
        ran.refunded,
        ran.exceeded,
        ran.unclear,
        ran.most
    );
    let broken = [ran.overspent, ran.broken].concat();
    prove::keep("budgets", seed, ran.kills, broken.len(), &note);
    assert!(ran.refunded > 0 && ran.exceeded > 0 && ran.unclear > 0, "the run was empty: {note}");
    assert!(broken.is_empty(), "{broken:#?}; seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_a_budget_that_is_not_reserved_is_caught() {
    planted("budget-not-reserved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_a_budget_that_lets_go_of_the_unknown_is_caught() {
    planted("budget-not-held").await;
}

async fn planted(fault: &'static str) {
    let seed = seed();
    let mut overspent = Vec::new();
    // It shows where calls meet, which on a busy machine they do not in every run.
    for seed in seed..seed + RUNS_PLANTED {
        // What else a run finds broken may have come about in another way.
        overspent = run(planted_binary(), Some(fault), 2, seed).await.overspent;
        if !overspent.is_empty() {
            break;
        }
    }
    prove::planted(
        fault,
        !overspent.is_empty(),
        &format!("budgets: {}", overspent.first().cloned().unwrap_or_default()),
    );
    assert!(!overspent.is_empty(), "`{fault}` was not noticed; seed {seed}");
}

async fn run(binary: PathBuf, fault: Option<&'static str>, kills: u64, seed: u64) -> Ran {
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let folder = TempDir::new().unwrap();
    let sandbox = start_sandbox(seed).await;
    let control = sandbox.control();
    let mut gateway = Gateway::new(binary, fault, folder.path(), sandbox.address());
    gateway.configure(&settings());
    let url = format!("http://{}/webhooks/stripe", gateway.webhook);
    control.set_webhooks(vec![WebhookTarget { url, secrets: vec![SECRET.to_owned()] }]);
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.grpc)).unwrap();
    let wire = |(_, token)| InterceptedService::new(endpoint.connect_lazy(), Token(token));
    let load = Arc::new(Load {
        wires: CALLERS.into_iter().map(wire).collect(),
        payments: payments(&sandbox).await,
        over: AtomicBool::default(),
        next: AtomicU64::default(),
        refunded: AtomicU64::default(),
        exceeded: AtomicU64::default(),
        unclear: AtomicU64::default(),
    });
    let (mut most, mut overspends) = (0, Vec::new());
    let mut look = async |when: String| {
        let by_caller = refunded(&sandbox).await;
        most = most.max(by_caller.values().sum());
        overspends.extend(overspent(&by_caller).map(|what| format!("{what} {when}")));
    };

    faults().into_iter().for_each(|fault| control.add_fault(fault));
    let mut callers = JoinSet::new();
    for who in (0..CALLERS.len()).cycle().take(CALLERS.len() * AT_ONCE) {
        callers.spawn(Arc::clone(&load).caller(who, random.fork()));
    }
    for life in 0..kills {
        gateway.spawn();
        gateway.ready().await;
        for _ in 0..4 {
            tokio::time::sleep(random.pause(300)).await;
            look(format!("in life {life}")).await;
        }
        control.advance(FAILS_AFTER);
        tokio::time::sleep(random.pause(400)).await;
        gateway.kill();
        look(format!("after kill {life}")).await;
    }
    control.clear_faults();
    gateway.spawn();
    gateway.ready().await;
    load.over.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    control.advance(FAILS_AFTER);
    deliver_all(&control).await;
    look("when all callers have their answers".to_owned()).await;
    let mut broken = load.spend_the_rest(&control, &sandbox).await;
    let ended = gateway.terminate().await;
    if !ended.success() || gateway.log().contains("panicked") {
        broken.push(format!("the gateway ended with {ended}"));
    }
    sandbox.stop().await;
    let [refunded, exceeded, unclear] =
        [&load.refunded, &load.exceeded, &load.unclear].map(|counter| counter.load(Ordering::Relaxed));
    Ran { kills: gateway.kills, refunded, exceeded, unclear, most, overspent: overspends, broken }
}

/// What is refunded beyond a budget.
fn overspent(by_caller: &BTreeMap<String, i64>) -> impl Iterator<Item = String> {
    let total = by_caller.values().sum::<i64>();
    let of_order = (total > LIMIT).then(|| format!("{total} of {LIMIT} are refunded"));
    let over = by_caller.iter().filter(|(_, refunded)| **refunded > LIMIT_OF_CALLER);
    let of_callers =
        over.map(|(caller, refunded)| format!("{refunded} of {LIMIT_OF_CALLER} are refunded by `{caller}`"));
    of_order.into_iter().chain(of_callers)
}

impl Load {
    /// Refunds by chance, each until its outcome is known.
    async fn caller(self: Arc<Self>, who: usize, mut random: Random) {
        while !self.over.load(Ordering::Relaxed) {
            let amount = i64::try_from(REFUND_MIN + random.below(REFUND_MAX - REFUND_MIN + 1)).unwrap();
            let payment = random.pick(&self.payments).clone();
            let request = self.request(who, payment, amount);
            loop {
                match self.send(who, &request).await {
                    Answer::Done => {
                        self.refunded.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Answer::TooMuch => {
                        self.exceeded.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(random.pause(PAUSE_MS_MAX)).await;
                        break;
                    }
                    Answer::Refused => break,
                    Answer::Unclear => {
                        self.unclear.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(random.pause(PAUSE_MS_MAX)).await;
                    }
                }
            }
        }
    }

    fn request(&self, who: usize, payment: String, amount: i64) -> CreateRefundRequest {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        CreateRefundRequest {
            operation: Some(OperationRef {
                order_id: "budget".to_owned(),
                operation_id: number.to_string(),
                retry_refused: false,
            }),
            payment_intent: Some(payment),
            amount: Some(amount),
            metadata: [(WHOSE.to_owned(), CALLERS[who].0.to_owned())].into(),
            ..Default::default()
        }
    }

    async fn send(&self, who: usize, request: &CreateRefundRequest) -> Answer {
        let mut request = Request::new(request.clone());
        request.set_timeout(PATIENCE);
        match RefundServiceClient::new(self.wires[who].clone()).create_refund(request).await {
            Ok(_) => Answer::Done,
            Err(status) if reason(&status) == "BUDGET_EXCEEDED" => Answer::TooMuch,
            Err(status) => match status.code() {
                Code::FailedPrecondition
                | Code::InvalidArgument
                | Code::NotFound
                | Code::PermissionDenied => {
                    println!("refused: {status:?}");
                    Answer::Refused
                }
                _ => Answer::Unclear,
            },
        }
    }

    /// Nothing is held any more, and what is left can be spent to the last unit, and not one unit more.
    async fn spend_the_rest(&self, control: &Control, sandbox: &Handle) -> Vec<String> {
        let settled = until(async || {
            deliver_all(control).await;
            let booked = refunded(sandbox).await;
            let total = booked.values().sum::<i64>();
            for (who, (caller, _)) in CALLERS.iter().enumerate() {
                let own = booked.get(*caller).copied().unwrap_or_default();
                let [day, order] = self.uses(who).await;
                let is_settled = (day.held, day.used, order.held, order.used) == (0, own, 0, total);
                is_settled.then_some(())?;
            }
            Some(())
        });
        if tokio::time::timeout(Duration::from_secs(30), settled).await.is_err() {
            let (uses, booked) = (self.uses(0).await, refunded(sandbox).await);
            return vec![format!("{booked:?} are refunded at Stripe, and the budgets say {uses:?}")];
        }
        let mut broken = Vec::new();
        for (who, (caller, _)) in CALLERS.iter().enumerate() {
            broken.extend(self.spend_the_rest_of(who).await.map(|what| format!("`{caller}`: {what}")));
        }
        let total = refunded(sandbox).await.values().sum::<i64>();
        if total != LIMIT {
            broken.push(format!("{total} of {LIMIT} are spent when nothing is left"));
        }
        broken
    }

    /// The same of one caller; what is wrong, if anything is.
    async fn spend_the_rest_of(&self, who: usize) -> Option<String> {
        // Those of the others fail afterwards, and would free the budget again.
        let lasting = &self.payments[0];
        let mut left = self.uses(who).await.iter().map(|used| used.remaining).min().unwrap_or_default();
        while left > 0 {
            let amount = left.min(i64::try_from(REFUND_MAX).unwrap());
            match self.send(who, &self.request(who, lasting.clone(), amount)).await {
                Answer::Done => left -= amount,
                Answer::Unclear => {}
                Answer::TooMuch | Answer::Refused => {
                    return Some(format!("{left} are left, and {amount} of them cannot be spent"));
                }
            }
        }
        let one_more = self.send(who, &self.request(who, lasting.clone(), 1)).await;
        (!matches!(one_more, Answer::TooMuch)).then(|| "one more than there is could be spent".to_owned())
    }

    /// The caller's day, and the order.
    async fn uses(&self, who: usize) -> [BudgetUse; 2] {
        let request = ListBudgetsRequest { order_id: "budget".to_owned(), ..Default::default() };
        let answer = BudgetServiceClient::new(self.wires[who].clone()).list_budgets(request).await;
        answer.unwrap().into_inner().budgets.try_into().unwrap()
    }
}

/// The budgets, and the callers besides the first, whom every gateway of the proofs knows.
fn settings() -> String {
    let others = CALLERS.iter().skip(1);
    let others = others
        .map(|(name, token)| format!("[callers.{name}]\nnamespace = \"prover\"\ntoken = \"{token}\"\n"));
    let names = CALLERS.map(|(name, _)| format!("\"{name}\"")).join(", ");
    format!(
        "{}[budgets.day]\ncallers = [{names}]\ncurrency = \"usd\"\nwindow = \"rolling_day\"\n\
         amount = {LIMIT_OF_CALLER}\n[budgets.order]\ncurrency = \"usd\"\nwindow = \"order\"\namount = {LIMIT}\n",
        others.collect::<String>()
    )
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Payments whose refunds last, and as many whose refunds fail after a while.
async fn payments(sandbox: &Handle) -> Vec<String> {
    let mut payments = Vec::new();
    for number in 0..PAYMENTS {
        let card = if number % 2 == 0 { "pm_card_bypassPending" } else { "pm_card_refundFail" };
        let form = format!(
            "amount={PAYMENT_AMOUNT}&currency=usd&payment_method={card}&confirm=true&automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never"
        );
        let payment = ask(sandbox, "POST", "/v1/payment_intents", form).await;
        payments.push(payment["id"].as_str().unwrap().to_owned());
    }
    payments
}

/// What is refunded at the sandbox and did not come back, by whose it is. The newest come first, so whatever counts on a
/// later page counted when the first one was read.
async fn refunded(sandbox: &Handle) -> BTreeMap<String, i64> {
    let (mut sums, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page = ask(sandbox, "GET", &format!("/v1/refunds?limit=100{after}"), String::new()).await;
        let refunds = page["data"].as_array().unwrap();
        let standing = refunds
            .iter()
            .filter(|refund| !["failed", "canceled"].contains(&refund["status"].as_str().unwrap()));
        for refund in standing {
            let whose = refund["metadata"][WHOSE].as_str().unwrap().to_owned();
            *sums.entry(whose).or_default() += refund["amount"].as_i64().unwrap();
        }
        match refunds.last() {
            Some(last) if page["has_more"] == true => {
                after = format!("&starting_after={}", last["id"].as_str().unwrap());
            }
            _ => return sums,
        }
    }
}

/// Asks the sandbox, until it answers with success: faults are for changes alone, and reads may meet the rate limit.
async fn ask(sandbox: &Handle, method: &str, path: &str, form: String) -> Value {
    // No gateway in this process has installed one; what another test has installed stays.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    until(async || {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = client.request(method, format!("http://{}{path}", sandbox.address())).bearer_auth(KEY);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.clone());
        let answer = request.send().await.ok().filter(|answer| answer.status().is_success())?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    })
    .await
}

/// What goes wrong with refunds: answers that are lost before and after the effect, failures, and slowness.
fn faults() -> Vec<Fault> {
    let on_refunds = |mut fault: Value| {
        fault["match"] = json!({"method": "POST", "path_prefix": "/v1/refunds"});
        Fault::from_json(fault).unwrap()
    };
    vec![
        on_refunds(json!({"kind": "drop_before", "probability": 0.1})),
        on_refunds(json!({"kind": "drop_after", "probability": 0.15})),
        on_refunds(json!({"kind": "half_body", "probability": 0.05})),
        on_refunds(json!({"kind": "reset", "probability": 0.05})),
        on_refunds(json!({"kind": "status", "status": 500, "probability": 0.05})),
        on_refunds(json!({"kind": "html", "probability": 0.03})),
        on_refunds(json!({"kind": "latency_after", "ms": 150, "probability": 0.2})),
    ]
}
