//! The proof by wrong callers: a real gateway process is asked for every RPC of the contract by everybody who must not
//! have it. Nobody may be let in, Stripe may not be touched, and every denial has to be in the audit log, where calls by
//! nobody who is known stand in sums. `TOLLGATE_PROVE_ATTEMPTS` says how many attempts there are,
//! `TOLLGATE_PROVE_SEED` brings a run's choices back.

mod call;
mod certificates;
mod contract;
mod credentials;
mod house;
mod records;
mod wrong;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;

use self::call::{Came, call};
use self::certificates::Presents;
use self::contract::Rpc;
use self::house::House;
use self::records::{Denials, denials, place};
use self::wrong::{Who, Wrong};
use crate::crash::planted_binary;
use crate::crash::random::Random;
use crate::prove::{keep, planted, seed, setting};

const ATTEMPTS_DEFAULT: u64 = 20_000;
/// Connections, and calls that each of them has under way.
const CONNECTIONS: u64 = 4;
const CALLERS_PER_CONNECTION: usize = 8;
/// Violations that are shown, and kept of each worker.
const SHOWN_MAX: usize = 20;

/// One run.
struct Run {
    binary: PathBuf,
    planted: Option<&'static str>,
    attempts: u64,
    seed: u64,
}

/// What a run came to.
#[derive(Default)]
struct Report {
    attempts: u64,
    kinds: usize,
    rpcs: usize,
    violations: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wrong_caller_is_let_in_and_every_denial_is_on_record() {
    let attempts = setting("TOLLGATE_PROVE_ATTEMPTS").unwrap_or(ATTEMPTS_DEFAULT);
    let run = Run { binary: env!("CARGO_BIN_EXE_tollgate").into(), planted: None, attempts, seed: seed() };
    let seed = run.seed;
    let report = run.prove().await;
    let note = format!("{} kinds of wrong callers at {} RPCs", report.kinds, report.rpcs);
    keep("wrong-callers", seed, report.attempts, report.violations.len(), &note);
    report.violations.iter().take(SHOWN_MAX).for_each(|violation| println!("  {violation}"));
    assert!(report.violations.is_empty(), "see above; seed {seed}");
    assert!(report.attempts >= attempts && report.rpcs > 50, "the run was too small");
}

/// Holes that the attempts have to find.
const PLANTED: [&str; 3] = ["policy-skipped", "stale-identity", "freeze-not-rechecked"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_holes_are_found_by_wrong_callers() {
    let mut missed = Vec::new();
    for fault in PLANTED {
        let run = Run { binary: planted_binary(), planted: Some(fault), attempts: 0, seed: seed() };
        let report = run.prove().await;
        let found = report.violations.len();
        planted(
            fault,
            found > 0,
            &format!("wrong callers: {found} violations in {} attempts", report.attempts),
        );
        if found == 0 {
            missed.push(fault);
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

/// What the workers share.
struct Siege {
    house: House,
    rpcs: Vec<Rpc>,
    wrongs: Vec<Wrong>,
    /// Which kinds meet at which RPCs.
    pairs: Vec<(usize, usize)>,
    seed: u64,
    attempts: u64,
    next: AtomicU64,
}

impl Run {
    async fn prove(self) -> Report {
        println!("seed {}", self.seed);
        let mut random = Random::new(self.seed);
        let (rpcs, wrongs) = (contract::all(), wrong::all());
        let house = House::start(self.binary, self.planted, &rpcs).await;
        let mut violations = right_callers(&house, &mut random).await;
        let refund = rpcs.iter().find(|rpc| rpc.name() == "RefundService.CreateRefund").unwrap();
        let came = house.frozen_under_way(refund, &mut random).await;
        if came != Came::Refused(Code::FailedPrecondition, "FROZEN".to_owned()) {
            violations.push(format!("a change under way when its caller was frozen: {came:?}"));
        }
        let effects = house.effects();
        let pairs = (0..wrongs.len()).flat_map(|wrong| (0..rpcs.len()).map(move |rpc| (wrong, rpc)));
        let pairs: Vec<_> =
            pairs.filter(|(wrong, rpc)| (wrongs[*wrong].at)(&rpcs[*rpc], &house.purse)).collect();
        let next = AtomicU64::new(0);
        let attempts = self.attempts.max(pairs.len() as u64);
        let siege = Arc::new(Siege { house, rpcs, wrongs, pairs, seed: self.seed, attempts, next });
        let mut workers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let mut channels = BTreeMap::new();
            for presents in Presents::LET_THROUGH {
                channels.insert(presents, siege.house.connect(presents).await.unwrap());
            }
            for _ in 0..CALLERS_PER_CONNECTION {
                workers.spawn(Arc::clone(&siege).work(channels.clone()));
            }
        }
        let mut expected = Denials::new();
        while let Some(worked) = workers.join_next().await {
            let (denied, found) = worked.unwrap();
            denied.into_iter().for_each(|(place, count)| *expected.entry(place).or_default() += count);
            violations.extend(found);
        }
        let Some(Siege { house, rpcs, wrongs, .. }) = Arc::into_inner(siege) else {
            panic!("a worker is left")
        };
        violations.extend(right_callers(&house, &mut random).await);
        let let_in = house.refused_connections().await.into_iter();
        let let_in = let_in.filter(|(_, came)| matches!(came, Came::Allowed(_)));
        violations.extend(let_in.map(|(presents, came)| format!("a connection with {presents:?}: {came:?}")));
        let touched = house.effects() - effects;
        if touched > 0 {
            violations.push(format!("Stripe was touched {touched} times"));
        }
        let left = house.end().await;
        violations.extend(left.trouble);
        let mut found = denials(&left.audit);
        // A client may try more than once, so there are at least so many.
        let refused = place(&Who::Nobody("refused_certificate"), "");
        if found.remove(&refused).unwrap_or_default() < Presents::REFUSED.len() as u64 {
            violations.push("not every refused certificate is on record".to_owned());
        }
        violations.extend(differing(&expected, &found));
        Report { attempts, kinds: wrongs.len(), rpcs: rpcs.len(), violations }
    }
}

impl Siege {
    /// Attempts until there were enough; what has to be on record, and what went wrong.
    async fn work(self: Arc<Self>, channels: BTreeMap<Presents, Channel>) -> (Denials, Vec<String>) {
        let (mut expected, mut violations) = (Denials::new(), Vec::new());
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.attempts {
                return (expected, violations);
            }
            let at = usize::try_from(number).unwrap() % self.pairs.len();
            let (wrong, rpc) = self.pairs[at];
            let (wrong, rpc) = (&self.wrongs[wrong], &self.rpcs[rpc]);
            // Every attempt has its own choices, whoever makes it when.
            let mut random = Random::new(self.seed ^ number.rotate_left(32));
            let shown = (wrong.shown)(&self.house.purse, &mut random);
            let request = (wrong.request)(rpc, &self.house.purse, &mut random);
            let came = call(&channels[&wrong.presents], &rpc.path(), &shown, request).await;
            let (code, reason) = wrong.who.refusal();
            if came == Came::Refused(code, reason.to_owned()) {
                *expected.entry(place(&wrong.who, &rpc.full_name())).or_default() += 1;
            } else if violations.len() < SHOWN_MAX {
                violations.push(format!("{} at {}: {came:?}, attempt {number}", wrong.name, rpc.name()));
            }
        }
    }
}

/// Those who may call and are not let in.
async fn right_callers(house: &House, random: &mut Random) -> Vec<String> {
    let came = house.right_callers(random).await;
    let refused = came.into_iter().filter(|(_, came)| !matches!(came, Came::Allowed(_)));
    refused.map(|(name, came)| format!("{name} is refused: {came:?}")).collect()
}

/// Where the audit log does not say what the callers were told.
fn differing(expected: &Denials, found: &Denials) -> Vec<String> {
    let places: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let count = |denials: &Denials, place| denials.get(place).copied().unwrap_or_default();
    let counts = places.into_iter().map(|place| (place, count(expected, place), count(found, place)));
    let differing = counts.filter(|(_, expected, found)| expected != found);
    differing
        .map(|(place, expected, found)| format!("{place:?}: {expected} denials, {found} on record"))
        .collect()
}
