//! One gateway and its sandbox through a row of cases, and the comparison at their end. It chooses no case.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate::sandbox::{Control, Handle, WebhookTarget};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use super::case::{ARRIVED, Case, EFFECTED, Timing};
use crate::crash::change::{Change, Operation};
use crate::crash::compare::Violations;
use crate::crash::end::{Ended, end};
use crate::crash::gateway::Gateway;
use crate::crash::load::Load;
use crate::crash::random::Random;
use crate::crash::records::Book;
use crate::crash::{start_sandbox, stock};
use crate::rig::{SECRET, TOKEN, Token};

/// How long a first call is waited for: too short for a second attempt, so that no case takes long.
const FIRST_WAIT: Duration = Duration::from_millis(400);
/// The same where the second attempt is what the case is about.
const SECOND_ATTEMPT_WAIT: Duration = Duration::from_millis(1_500);
/// How long later calls are waited for.
const WAIT: Duration = Duration::from_secs(5);
/// How often a process is looked at that may die by itself.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Time for what comes after the answer: a webhook, a pass of the index.
const AFTERMATH: Duration = Duration::from_millis(350);
/// What comes after the answer begins so.
const BEHIND: [&str; 6] = ["webhook", "index", "terms", "resolve", "found", "prove"];
/// How long a death is waited for.
const DEATH_MAX: Duration = Duration::from_secs(3);
/// Pause before the same is sent again.
const AGAIN: Duration = Duration::from_millis(15);
/// How long one operation may take to come to an end when nothing is killed any more.
const END_MAX: Duration = Duration::from_secs(30);

/// What a row of cases came to.
#[derive(Default)]
pub(super) struct Ran {
    pub(super) cases: usize,
    pub(super) kills: u64,
    pub(super) second_kills: u64,
    pub(super) effects: usize,
    /// Deaths that came at the chosen point, by point.
    pub(super) reached: BTreeMap<String, u64>,
    pub(super) violations: Violations,
}

/// A gateway with everything around it.
pub(super) struct Worker {
    folder: TempDir,
    sandbox: Handle,
    control: Control,
    gateway: Gateway,
    load: Arc<Load>,
    random: Random,
    seeded: usize,
    cases: Vec<Case>,
    ran: Ran,
}

impl Worker {
    pub(super) async fn start(binary: PathBuf, fault: Option<&'static str>, mut random: Random) -> Self {
        let folder = TempDir::new().unwrap();
        let sandbox = start_sandbox(random.below(u64::MAX)).await;
        let control = sandbox.control();
        let mut gateway = Gateway::new(binary, None, folder.path(), sandbox.address());
        let url = format!("http://{}/webhooks/stripe", gateway.webhook);
        control.set_webhooks(vec![WebhookTarget { url, secrets: vec![SECRET.to_owned()] }]);
        let stock = stock(&control);
        let seeded = Book::read(&control).effects.len();
        let channel = Endpoint::from_shared(format!("http://{}", gateway.grpc)).unwrap().connect_lazy();
        let load = Load::new(InterceptedService::new(channel, Token(TOKEN)), stock, random.below(1_000_000));
        gateway.spawn();
        gateway.ready().await;
        if fault.is_some() {
            // Only a folder that is set up shows what the fault does to changes.
            gateway.kill();
            gateway.kills = 0;
            gateway.planted = fault;
            gateway.spawn();
            gateway.ready().await;
        }
        let (cases, ran) = (Vec::new(), Ran::default());
        Self { folder, sandbox, control, gateway, load, random, seeded, cases, ran }
    }

    pub(super) fn kills(&self) -> u64 {
        self.gateway.kills
    }

    /// One case from its change to its known outcome.
    pub(super) async fn run(&mut self, case: Case) {
        let number = self.cases.len();
        self.cases.push(case);
        self.control.clear_faults();
        if let Some(fault) = case.fault() {
            self.control.add_fault(fault);
        }
        let change = Change::by_chance(&mut self.random, &self.load.stock, number);
        let at = self.load.add(Operation { order: format!("case-{number}"), id: String::new(), change });

        let peace = Arc::new(AtomicBool::new(false));
        let load = Arc::clone(&self.load);
        // A failure that Stripe keeps is not worth the pauses between many attempts.
        let wait = if case.may_stay_unknown() { FIRST_WAIT } else { WAIT };
        let unknown_max = case.unknown_answers_max();
        let caller = || tokio::spawn(Arc::clone(&load).insist(at, (wait, unknown_max), Arc::clone(&peace)));
        let before = (self.control.received(), Book::read(&self.control).effects.len());
        self.gateway.order_death(case.point.0, case.point.1);
        let wait = if case.point == ("attempt-before", 2) { SECOND_ATTEMPT_WAIT } else { FIRST_WAIT };
        let first = tokio::spawn(Arc::clone(&self.load).once(at, wait));
        let mut other = (case.timing == Timing::Together).then(caller);
        if self.dies(&first, case.point.0, before).await {
            *self.ran.reached.entry(format!("{}:{}", case.point.0, case.point.1)).or_default() += 1;
        }
        self.gateway.kill();
        first.await.unwrap();

        if case.timing == Timing::AtStart {
            other = Some(caller());
        }
        if let Some(point) = case.second {
            self.gateway.order_death(point, 1);
            self.gateway.spawn();
            let alive = self.gateway.ready_alive().await;
            let other = other.get_or_insert_with(caller);
            if !alive || self.dies(other, point, before).await {
                *self.ran.reached.entry(format!("{point} in recovery")).or_default() += 1;
                self.ran.second_kills += 1;
            }
            self.gateway.kill();
        }
        self.gateway.spare();
        self.gateway.spawn();
        self.gateway.ready().await;
        peace.store(true, Ordering::Relaxed);
        other.unwrap_or_else(caller).await.unwrap();
    }

    /// Waits until the process is dead at its point, or the call and what follows it are over: then it lives still.
    async fn dies(&mut self, call: &JoinHandle<()>, point: &str, (received, effects): (u64, usize)) -> bool {
        let (mut until, latest) = (None, Instant::now() + DEATH_MAX);
        loop {
            let seen = match point {
                ARRIVED => self.control.received() > received,
                EFFECTED => Book::read(&self.control).effects.len() > effects,
                _ => false,
            };
            if seen {
                self.gateway.kill();
            }
            if self.gateway.dead() {
                return true;
            }
            let aftermath =
                if BEHIND.iter().any(|kind| point.starts_with(kind)) { AFTERMATH } else { LOOK_EVERY };
            if call.is_finished()
                && *until.get_or_insert_with(|| Instant::now() + aftermath) <= Instant::now()
            {
                return false;
            }
            // A caller whose answer stays unknown comes again and again.
            if Instant::now() > latest {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends in peace and compares what the callers, the gateway and the sandbox remember.
    pub(super) async fn end(mut self) -> Ran {
        self.control.clear_faults();
        let unknown_max = self.cases.iter().filter(|case| case.may_stay_unknown()).count();
        let Ended { effects, mut violations, .. } =
            end(&self.load, &mut self.gateway, &self.control, self.seeded, unknown_max).await;
        let Self { mut ran, cases, sandbox, gateway, folder, .. } = self;
        for found in violations.values_mut().flatten() {
            // The operation's order says which case it was.
            let number =
                found.split("case-").nth(1).and_then(|rest| rest.split('/').next()?.parse::<usize>().ok());
            if let Some(case) = number.and_then(|number| cases.get(number)) {
                found.push_str(&format!(" [TOLLGATE_PROVE_CASE={case}]"));
            }
        }
        ran.cases = cases.len();
        ran.kills = gateway.kills;
        ran.effects = effects;
        ran.violations = violations;
        sandbox.stop().await;
        drop(folder);
        ran
    }
}

impl Load {
    /// One call.
    async fn once(self: Arc<Self>, at: usize, wait: Duration) {
        let operation = self.history()[at].operation.clone();
        self.ask_within(at, &operation, wait).await;
    }

    /// The same call again and again until its outcome is known, or stays unknown although there is `peace`: so many such
    /// answers are taken for the last word.
    async fn insist(
        self: Arc<Self>,
        at: usize,
        (wait, mut unknown_left): (Duration, u32),
        peace: Arc<AtomicBool>,
    ) {
        let operation = self.history()[at].operation.clone();
        let mut until = None;
        while let Some(unknown) = self.ask_within(at, &operation, wait).await {
            if peace.load(Ordering::Relaxed) {
                unknown_left -= u32::from(unknown);
                let until = *until.get_or_insert_with(|| Instant::now() + END_MAX);
                if unknown_left == 0 || Instant::now() > until {
                    return;
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
