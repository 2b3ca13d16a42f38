//! Every story of one change: how Stripe answers its first request and its next, when an equal call comes, at which step
//! the process dies, and at which step of the recovery it dies again. The real transition functions run against a store
//! and a Stripe in memory; then callers, ledger and Stripe are compared. Nothing here is drawn by chance.
//!
//! `TOLLGATE_PROVE_CASE` runs one case alone; `TOLLGATE_PROVE_RESULTS` names a folder for figures and has all cases run
//! instead of one in so many.

mod edge;
mod life;
mod stripe;

use std::fmt;
use std::fmt::Write as _;

use self::life::World;
use self::stripe::{FIRST, NEXT, Outcome};
use crate::config::Environment;
use crate::contract::Effect;
use crate::domain::planted;

/// Of how many cases a test run takes one. A prime, so that no dimension is left out.
const SAMPLE: usize = 17;
/// More steps than any life has.
const STEPS_MAX: u32 = 60;
/// Violations after which a planted fault counts as noticed.
const CAUGHT_ENOUGH: usize = 20;
/// Violations that are shown.
const SHOWN_MAX: usize = 5;

/// When the equal call comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timing {
    /// Right behind the first, in the same life of the process.
    Together,
    /// First thing after the restart.
    Recovery,
    /// After the background has done what it can.
    Late,
}

const TIMINGS: [Timing; 3] = [Timing::Together, Timing::Recovery, Timing::Late];

/// One story.
#[derive(Clone, Copy, Debug)]
struct Case {
    effect: Effect,
    first: Outcome,
    next: Outcome,
    timing: Timing,
    /// Steps that the first life lasts.
    death: u32,
    /// Steps that the recovery lasts; `None` when it is left alone.
    second_death: Option<u32>,
}

/// What the stories of a run came to.
#[derive(Default)]
struct Ran {
    cases: usize,
    violations: Vec<String>,
}

#[test]
fn every_story_ends_with_one_effect_at_most_and_with_the_truth() {
    let environment = Environment::current();
    if let Some(case) = environment.get("TOLLGATE_PROVE_CASE").and_then(|text| text.parse::<usize>().ok()) {
        let ran = enumerate(|number| number == case, usize::MAX);
        assert_eq!((ran.cases, ran.violations), (1, Vec::<String>::new()));
        return;
    }
    let all = environment.get("TOLLGATE_PROVE_RESULTS").is_some();
    let ran = enumerate(|number| all || number % SAMPLE == 0, usize::MAX);
    let note = format!(
        "{} first answers x {} next ones x {} timings x 2 effects x every step x every step of the recovery",
        FIRST.len(),
        NEXT.len(),
        TIMINGS.len()
    );
    keep("enumeration", &ran, &note);
    assert!(ran.violations.is_empty(), "{}", shown(&ran));
    assert!(ran.cases > 1_000, "{} cases are not the whole", ran.cases);
}

/// Faults that the enumeration has to notice.
const PLANTED: [&str; 7] = [
    "key-per-retry",
    "refused-on-429",
    "pruned-key-resent",
    "new-after-unknown",
    "mismatch-sent",
    "generation-reused",
    "absent-as-refused",
];

#[test]
fn the_enumeration_notices_planted_faults() {
    let mut missed = Vec::new();
    for fault in PLANTED {
        let held = planted::plant(fault);
        let ran = enumerate(|number| number % SAMPLE == 0, CAUGHT_ENOUGH);
        drop(held);
        missed.extend(keep_planted(fault, "enumeration", &ran));
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

/// Keeps whether a planted fault was noticed, and answers it if not.
fn keep_planted(fault: &'static str, test: &str, ran: &Ran) -> Option<&'static str> {
    let caught = ran.violations.len();
    let what = format!("{test}: {caught} of {} stories broken", ran.cases);
    println!("planted {fault}: {what}; {}", ran.violations.first().map_or("", String::as_str));
    if let Some(folder) = Environment::current().get("TOLLGATE_PROVE_RESULTS") {
        let line = format!("{fault}\t{}\t{what}\n", u8::from(caught > 0));
        std::fs::write(std::path::Path::new(folder).join(format!("planted-{fault}")), line).unwrap();
    }
    (caught == 0).then_some(fault)
}

/// Keeps the figures of a proof.
fn keep(proof: &str, ran: &Ran, note: &str) {
    println!("{proof}: {} cases, {} violations", ran.cases, ran.violations.len());
    if let Some(folder) = Environment::current().get("TOLLGATE_PROVE_RESULTS") {
        let line = format!("0\t{}\t{}\t{note}\n", ran.cases, ran.violations.len());
        std::fs::write(std::path::Path::new(folder).join(proof), line).unwrap();
    }
}

fn shown(ran: &Ran) -> String {
    ran.violations.iter().take(SHOWN_MAX).fold(String::new(), |mut text, one| {
        _ = writeln!(text, "{one}");
        text
    })
}

/// Runs the cases that `wanted` picks by their number. Without deaths first: how long a life is says where it can end.
fn enumerate(wanted: impl Fn(usize) -> bool, violations_max: usize) -> Ran {
    let (mut ran, mut number) = (Ran::default(), 0);
    let mut run = |case: Case| {
        number += 1;
        if wanted(number - 1) {
            ran.cases += 1;
            if let Err(broken) = case.run() {
                ran.violations.push(format!("TOLLGATE_PROVE_CASE={} {case}: {broken}", number - 1));
            }
        }
        ran.violations.len() < violations_max
    };
    for effect in [Effect::Money, Effect::Write] {
        for first in FIRST {
            for (next, timing) in NEXT.into_iter().flat_map(|next| TIMINGS.map(|timing| (next, timing))) {
                let case = Case { effect, first, next, timing, death: STEPS_MAX, second_death: None };
                for death in 0..=case.steps_of_first_life() {
                    let case = Case { death, ..case };
                    let seconds = (0..case.steps_of_recovery()).map(Some).chain([None]);
                    if !seconds.map(|second_death| Case { second_death, ..case }).all(&mut run) {
                        return ran;
                    }
                }
            }
        }
    }
    ran
}

impl Case {
    fn steps_of_first_life(&self) -> u32 {
        let mut world = World::new(self);
        world.live(|world| world.first_life(self.timing), STEPS_MAX)
    }

    fn steps_of_recovery(&self) -> u32 {
        let mut world = World::new(self);
        world.live(|world| world.first_life(self.timing), self.death);
        world.restart();
        world.live(|world| world.recovery(self.timing), STEPS_MAX)
    }

    /// The whole story, and which promise it broke.
    fn run(&self) -> Result<(), String> {
        let mut world = World::new(self);
        world.live(|world| world.first_life(self.timing), self.death);
        if let Some(steps) = self.second_death {
            world.restart();
            world.live(|world| world.recovery(self.timing), steps);
        }
        world.restart();
        world.live(|world| world.recovery(self.timing), STEPS_MAX);
        world.peace();
        world.verdict()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { effect, first, next, timing, death, second_death } = self;
        write!(out, "[{effect:?}, {first:?} then {next:?}, equal {timing:?}, dead after step {death}")?;
        match second_death {
            Some(second) => write!(out, ", again after step {second}]"),
            None => write!(out, "]"),
        }
    }
}
