//! The callers: they make changes, send them again, twice at once or altered, and remember what they were told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::{GetOperationRequest, Operation as LedgerEntry};
use tonic::Code;

use super::change::{Answer, Change, Operation, Stock};
use super::random::Random;
use crate::rig::Wire;

const CALLERS: usize = 12;
/// Operations that share an order id.
const OPERATIONS_PER_ORDER: usize = 3;
/// Pause of a caller between two changes, at most.
const PAUSE_MS_MAX: u64 = 30;
/// Pause before the same is sent again, at most.
const AGAIN_MS_MAX: u64 = 40;
/// How long most callers wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one in eight calls waits, at most.
const IMPATIENCE_MS_MAX: u64 = 300;
/// Answers of `OUTCOME_UNKNOWN` after which a caller goes on to other work.
const UNKNOWN_MAX: u32 = 3;
/// How long everything may take to come to an end when nothing is killed any more.
const END_MAX: Duration = Duration::from_secs(120);

/// What the callers were told of one operation.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) done: BTreeSet<(String, Option<i64>)>,
    pub(crate) refused: bool,
    pub(crate) unknown: bool,
    pub(crate) wrong: Vec<String>,
}

impl Told {
    /// The outcome is known.
    pub(crate) fn settled(&self) -> bool {
        self.refused || !self.done.is_empty()
    }
}

/// One operation with its story.
pub(crate) struct Entry {
    pub(crate) operation: Operation,
    pub(crate) told: Told,
}

/// What all callers share.
pub(crate) struct Load {
    wire: Wire,
    pub(crate) stock: Stock,
    seed: u64,
    history: Mutex<Vec<Entry>>,
    over: AtomicBool,
    pub(crate) calls: AtomicU64,
    /// Calls that ended without a word of the gateway.
    pub(crate) cut: AtomicU64,
}

impl Load {
    pub(crate) fn new(wire: Wire, stock: Stock, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            wire,
            stock,
            seed,
            history: Mutex::default(),
            over: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        })
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.history.lock().unwrap()
    }

    pub(crate) fn start(self: &Arc<Self>, random: &mut Random) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(Arc::clone(self).caller(random.fork()));
        }
        callers
    }

    /// Callers end when the call they are in does.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    async fn caller(self: Arc<Self>, mut random: Random) {
        let over = || self.over.load(Ordering::Relaxed);
        while !over() {
            tokio::time::sleep(random.pause(PAUSE_MS_MAX)).await;
            let kind = random.below(10);
            let known = self.known(&mut random);
            match (kind, known) {
                (0..=1, Some(at)) => self.drive(at, &mut random, over).await,
                (2, Some(at)) => self.alter(at, &mut random).await,
                (3..=4, _) => {
                    let (at, mut other) = (self.new_operation(&mut random), random.fork());
                    tokio::join!(self.drive(at, &mut random, over), self.drive(at, &mut other, over));
                }
                _ => {
                    let at = self.new_operation(&mut random);
                    self.drive(at, &mut random, over).await;
                }
            }
        }
    }

    fn known(&self, random: &mut Random) -> Option<usize> {
        self.known_of_the_last(usize::MAX, random)
    }

    /// One of the youngest operations.
    pub(crate) fn known_of_the_last(&self, count: usize, random: &mut Random) -> Option<usize> {
        let all = self.history().len();
        let count = count.min(all);
        (count > 0).then(|| all - count + usize::try_from(random.below(count as u64)).unwrap())
    }

    pub(crate) fn succeeded(&self, at: usize) -> bool {
        !self.history()[at].told.done.is_empty()
    }

    /// Puts an operation on the list.
    pub(crate) fn add(&self, operation: Operation) -> usize {
        let mut history = self.history();
        history.push(Entry { operation, told: Told::default() });
        history.len() - 1
    }

    pub(crate) fn new_operation(&self, random: &mut Random) -> usize {
        let mut history = self.history();
        let at = history.len();
        let operation = Operation {
            order: format!("order-{}-{}", self.seed, at / OPERATIONS_PER_ORDER),
            id: format!("{}", at % OPERATIONS_PER_ORDER),
            change: Change::by_chance(random, &self.stock, at),
        };
        history.push(Entry { operation, told: Told::default() });
        at
    }

    /// Sends an operation until its outcome is known, it stays unknown, or it is time to give up.
    pub(crate) async fn drive(&self, at: usize, random: &mut Random, give_up: impl Fn() -> bool) {
        let operation = self.history()[at].operation.clone();
        let mut unknown_left = UNKNOWN_MAX;
        while let Some(unknown) = self.ask(at, &operation, random).await {
            unknown_left -= u32::from(unknown);
            if unknown_left == 0 || give_up() {
                return;
            }
            tokio::time::sleep(random.pause(AGAIN_MS_MAX)).await;
        }
    }

    /// One call, remembered. `None` when the answer is final; otherwise whether the gateway said that the outcome is
    /// unknown.
    async fn ask(&self, at: usize, operation: &Operation, random: &mut Random) -> Option<bool> {
        let wait = self.patience(random);
        self.ask_within(at, operation, wait).await
    }

    /// The same with a deadline of its own.
    pub(crate) async fn ask_within(&self, at: usize, operation: &Operation, wait: Duration) -> Option<bool> {
        let answer = self.send(operation, wait).await;
        let told = &mut self.history()[at].told;
        match answer {
            Answer::Done { object, amount } => {
                told.done.insert((object, amount));
                None
            }
            Answer::Refused => {
                told.refused = true;
                None
            }
            Answer::Later { unknown, .. } => {
                told.unknown |= unknown;
                Some(unknown)
            }
            Answer::Reused => {
                told.wrong.push("its own parameters were taken for others".to_owned());
                None
            }
            Answer::Wrong(what) => {
                told.wrong.push(what);
                None
            }
        }
    }

    fn patience(&self, random: &mut Random) -> Duration {
        let impatient = !self.over.load(Ordering::Relaxed) && random.below(8) == 0;
        if impatient { Duration::from_millis(1) + random.pause(IMPATIENCE_MS_MAX) } else { PATIENCE }
    }

    async fn send(&self, operation: &Operation, wait: Duration) -> Answer {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let answer = operation.send(self.wire.clone(), wait).await;
        if matches!(&answer, Answer::Later { reason, .. } if reason == "transport") {
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Sends another change under the reference of one that succeeded: it has to be refused by name.
    pub(crate) async fn alter(&self, at: usize, random: &mut Random) {
        let operation = {
            let entry = &self.history()[at];
            if entry.told.done.is_empty() {
                return;
            }
            Operation { change: entry.operation.change.altered(&self.stock), ..entry.operation.clone() }
        };
        loop {
            let wait = self.patience(random);
            match self.send(&operation, wait).await {
                Answer::Reused => return,
                Answer::Later { .. } if self.over.load(Ordering::Relaxed) => return,
                Answer::Later { .. } => tokio::time::sleep(random.pause(AGAIN_MS_MAX)).await,
                other => {
                    let what = format!("another change under its reference was answered with {other:?}");
                    self.history()[at].told.wrong.push(what);
                    return;
                }
            }
        }
    }

    /// Sends everything that is open until it is known, now that nothing fails any more.
    pub(crate) async fn settle(self: &Arc<Self>, random: &mut Random) {
        let until = Instant::now() + END_MAX;
        let open: Vec<usize> = {
            let history = self.history();
            history.iter().enumerate().filter(|(_, one)| !one.told.settled()).map(|(at, _)| at).collect()
        };
        let mut left = JoinSet::new();
        for lane in 0..CALLERS {
            let lane: Vec<usize> = open.iter().copied().skip(lane).step_by(CALLERS).collect();
            let (load, mut random) = (Arc::clone(self), random.fork());
            left.spawn(async move {
                for at in lane {
                    load.drive(at, &mut random, || Instant::now() > until).await;
                }
            });
        }
        while let Some(ended) = left.join_next().await {
            ended.unwrap();
        }
    }

    /// What the ledger has of each operation, in the order of the history.
    pub(crate) async fn ledger(&self) -> Vec<Option<LedgerEntry>> {
        let asked: Vec<(Operation, &'static str)> = {
            let history = self.history();
            history.iter().map(|entry| (entry.operation.clone(), entry.operation.change.rpc())).collect()
        };
        let lanes = asked.chunks(asked.len().div_ceil(CALLERS).max(1)).map(|lane| {
            let (mut client, lane) = (OperationServiceClient::new(self.wire.clone()), lane.to_vec());
            tokio::spawn(async move {
                let mut found = Vec::with_capacity(lane.len());
                for (operation, rpc) in lane {
                    let request = GetOperationRequest {
                        operation: operation.reference(),
                        rpc: rpc.to_owned(),
                        account: String::new(),
                    };
                    found.push(match client.get_operation(request).await {
                        Ok(answer) => answer.into_inner().operation,
                        Err(status) if status.code() == Code::NotFound => None,
                        Err(status) => panic!("the ledger was not read: {status}"),
                    });
                }
                found
            })
        });
        let mut found = Vec::with_capacity(asked.len());
        for lane in lanes.collect::<Vec<_>>() {
            found.extend(lane.await.unwrap());
        }
        found
    }
}
