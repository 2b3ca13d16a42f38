//! The proof by chosen deaths: a gateway is killed at a named step of a change while Stripe answers it in a chosen way,
//! its equal comes at a chosen time, and the recovery may be killed as well. Then the same three records are compared.
//! `TOLLGATE_PROVE_CASE` runs one case alone; a violation names the case that it is of.

mod case;
mod worker;

use self::case::{CASES, Case, OUTCOMES, POINTS};
use self::worker::{Ran, Worker};
use super::compare::Rule;
use super::planted_binary;
use super::random::Random;
use crate::prove::{keep, planted, seed, setting, text};

/// Kills of a sample, which every test run has.
const KILLS_DEFAULT: u64 = 48;
/// Gateways that are killed at the same time, each with a sandbox of its own.
const WORKERS: u64 = 2;
/// Cases in which a planted fault has to show, and how often it is tried: some need luck within milliseconds.
const CASES_PLANTED: usize = 9;
const ROUNDS_MAX: u64 = 12;
/// Cases after which a gateway ends in peace and its records are compared.
const CASES_PER_LIFE: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_at_each_step_under_each_answer_doubles_nothing() {
    let seed = seed();
    println!("seed {seed}; {CASES} cases in all");
    let ran = match text("TOLLGATE_PROVE_CASE") {
        Some(case) => run(vec![case.parse().unwrap()], seed, None).await,
        None => all(setting("TOLLGATE_PROVE_KILLS").unwrap_or(KILLS_DEFAULT), seed, None).await,
    };
    ran.print();
    let note = format!(
        "{} cases, {} of {} points reached under {} kinds of answer, {} kills inside recovery, {} effects",
        ran.cases,
        ran.reached.keys().filter(|point| point.contains(':')).count(),
        POINTS.len(),
        OUTCOMES.len(),
        ran.second_kills,
        ran.effects
    );
    keep("named", seed, ran.kills, ran.violations.values().map(Vec::len).sum(), &note);
    assert!(ran.violations.is_empty(), "see above; seed {seed}");
    assert!(ran.effects > 0 && ran.kills > 0, "the run was empty");
}

/// A seed whose first change is a refund of too much, which Stripe refuses by itself.
const SEED_REFUSED: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_stripe_refuses_for_two_reasons_in_turn_comes_to_a_known_outcome() {
    for case in ["attempt-before:1/invalid/later/none", "attempt-before:1/unauthorized/later/none"] {
        let mut died = false;
        // On a slow machine the first call may be over before it comes to the point.
        for _ in 0..ROUNDS_MAX {
            let ran = run(vec![case.parse().unwrap()], SEED_REFUSED, None).await;
            ran.print();
            assert_eq!(ran.effects, 0, "the change of {case} was to be one that Stripe refuses");
            assert!(ran.violations.is_empty(), "see above");
            died = !ran.reached.is_empty();
            if died {
                break;
            }
        }
        assert!(died, "{case} did not die at its point");
    }
}

/// Faults of the store that show when a process dies, how often, and where it dies then.
const PLANTED: [(&str, Rule, &[&str]); 3] = [
    (
        "ack-before-sync",
        Rule::WithoutAudit,
        &[
            "write-rows:1/executed/later/none",
            "write-rows:1/lost-answer/later/none",
            "write-rows:1/executed/at-start/none",
        ],
    ),
    (
        "audit-apart",
        Rule::WithoutAudit,
        &[
            "effected:1/executed/later/none",
            "attempt-headers:1/executed/later/none",
            "send-after:1/executed/later/none",
        ],
    ),
    (
        "lost-dedupe-mark",
        Rule::EventTwice,
        &["webhook-durable:1/executed/later/none", "webhook-durable:1/executed/at-start/none"],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_faults_of_the_store_show_when_a_process_dies() {
    let seed = seed();
    let mut missed = Vec::new();
    for (fault, rule, cases) in PLANTED {
        let mut caught = 0;
        let mut kills = 0;
        for round in 0..ROUNDS_MAX {
            let cases = cases.iter().cycle().take(CASES_PLANTED).map(|case| case.parse().unwrap());
            let ran = live(cases.collect(), Random::new(seed + round), u64::MAX, Some(fault)).await;
            kills += ran.kills;
            caught += ran.violations.get(&rule).map_or(0, Vec::len);
            if caught > 0 {
                break;
            }
        }
        let what = format!("named kills: {caught} x {} in {kills} kills", rule.says());
        planted(fault, caught > 0, &what);
        if caught == 0 {
            missed.push(fault);
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}; seed {seed}");
}

/// Cases until so many processes were killed, by all workers together.
async fn all(kills: u64, seed: u64, fault: Option<&'static str>) -> Ran {
    let lanes = (0..WORKERS).map(|lane| {
        tokio::spawn(async move {
            let mut ran = Ran::default();
            let mut random = Random::new(seed ^ (lane + 1) << 32);
            let mut next = usize::try_from(lane).unwrap();
            while ran.kills < kills.div_ceil(WORKERS) {
                let cases = (0..CASES_PER_LIFE)
                    .map(|at| Case::number(seed, next + at * usize::try_from(WORKERS).unwrap(), &mut random));
                let left = kills.div_ceil(WORKERS) - ran.kills;
                ran.add(live(cases.collect(), random.fork(), left, fault).await);
                next += CASES_PER_LIFE * usize::try_from(WORKERS).unwrap();
            }
            ran
        })
    });
    let mut ran = Ran::default();
    for lane in lanes.collect::<Vec<_>>() {
        ran.add(lane.await.unwrap());
    }
    ran
}

async fn run(cases: Vec<Case>, seed: u64, fault: Option<&'static str>) -> Ran {
    live(cases, Random::new(seed), u64::MAX, fault).await
}

/// One data folder from its first start to the comparison at its end.
async fn live(cases: Vec<Case>, mut random: Random, kills_max: u64, fault: Option<&'static str>) -> Ran {
    let mut worker = Worker::start(planted_binary(), fault, random.fork()).await;
    for case in cases {
        if worker.kills() >= kills_max {
            break;
        }
        worker.run(case).await;
    }
    Box::pin(worker.end()).await
}

impl Ran {
    fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.kills += other.kills;
        self.second_kills += other.second_kills;
        self.effects += other.effects;
        for (point, times) in other.reached {
            *self.reached.entry(point).or_default() += times;
        }
        for (rule, found) in other.violations {
            self.violations.entry(rule).or_default().extend(found);
        }
    }

    fn print(&self) {
        println!("{} cases, {} kills; deaths at their point:", self.cases, self.kills);
        for (point, times) in &self.reached {
            println!("  {times:>5} x {point}");
        }
        for (rule, found) in &self.violations {
            println!("  {:>5} x {}", found.len(), rule.says());
            found.iter().for_each(|one| println!("          {one}"));
        }
    }
}
