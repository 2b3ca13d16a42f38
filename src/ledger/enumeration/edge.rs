//! The stories around the 23rd and the 24th hour: an outcome that stays unknown until then, a process that is stopped in
//! the middle of a call, a machine whose clock is set back. Stripe forgets its keys meanwhile.

use super::life::{Place, World};
use super::stripe::{FIRST, Outcome};
use super::{CAUGHT_ENOUGH, Case, Ran, SAMPLE, STEPS_MAX, Timing, keep, keep_planted, shown};
use crate::config::Environment;
use crate::contract::Effect;
use crate::domain::clock::UnixMillis;
use crate::domain::planted;

const MINUTE: UnixMillis = 60_000;
const HOUR: UnixMillis = 60 * MINUTE;
const DAY: UnixMillis = 24 * HOUR;

/// When the equal call comes: well within the limit, right before and behind it, behind Stripe's own, and long after.
const AGES: [UnixMillis; 6] =
    [MINUTE, 23 * HOUR - MINUTE, 23 * HOUR + MINUTE, 24 * HOUR - MINUTE, 24 * HOUR + MINUTE, 30 * DAY];

/// Where the process is stopped, during which call and for how long.
const STOPS: [Option<(usize, Place, UnixMillis)>; 10] = [
    None,
    Some((0, Place::BeforeSend, DAY)),
    Some((0, Place::BetweenAttempts, DAY)),
    Some((0, Place::BeforeSettle, DAY)),
    Some((1, Place::BeforeSend, 2 * MINUTE)),
    Some((1, Place::BeforeSend, 2 * HOUR)),
    Some((1, Place::BeforeSend, DAY)),
    Some((1, Place::BetweenAttempts, 2 * HOUR)),
    Some((1, Place::BetweenAttempts, DAY)),
    Some((1, Place::BeforeSettle, DAY)),
];

/// What happens to the machine before the equal call.
#[derive(Clone, Copy, Debug)]
enum Machine {
    RunsOn,
    Restarts,
    Reboots,
    /// Its wall clock is set back by an hour less than the age, or a day.
    ClockSetBack(UnixMillis),
    /// The same while the second call is in the middle of its way.
    ClockSetBackMeanwhile,
}

const MACHINES: [Machine; 6] = [
    Machine::RunsOn,
    Machine::Restarts,
    Machine::Reboots,
    Machine::ClockSetBack(2 * HOUR),
    Machine::ClockSetBack(DAY),
    Machine::ClockSetBackMeanwhile,
];

fn enumerate(each: usize, violations_max: usize) -> Ran {
    let (mut ran, mut number) = (Ran::default(), 0);
    for effect in [Effect::Money, Effect::Write] {
        for (first, next) in FIRST.into_iter().flat_map(|first| {
            [Outcome::Executed, Outcome::Limited, Outcome::LostRequest].map(|next| (first, next))
        }) {
            for (age, stop) in AGES.into_iter().flat_map(|age| STOPS.map(|stop| (age, stop))) {
                for machine in MACHINES {
                    number += 1;
                    if number % each != 0 {
                        continue;
                    }
                    ran.cases += 1;
                    if let Err(broken) = run((effect, first, next), age, stop, machine) {
                        let age = age / MINUTE;
                        ran.violations.push(format!(
                            "[{effect:?}, {first:?} then {next:?}, again after {age} min, {stop:?}, {machine:?}]: {broken}"
                        ));
                        if ran.violations.len() == violations_max {
                            return ran;
                        }
                    }
                }
            }
        }
    }
    ran
}

fn run(
    (effect, first, next): (Effect, Outcome, Outcome),
    age: UnixMillis,
    stop: Option<(usize, Place, UnixMillis)>,
    machine: Machine,
) -> Result<(), String> {
    let timing = Timing::Late;
    let case = Case { effect, first, next, timing, death: STEPS_MAX, second_death: None };
    let mut world = World::new(&case);
    let stop_in = |world: &mut World, number: usize| {
        if let Some((_, place, ms)) = stop.filter(|(call, ..)| *call == number) {
            world.stop_at(place, ms);
        }
    };
    stop_in(&mut world, 0);
    world.live(|world| world.call("5", false), STEPS_MAX);
    world.pass(age);
    match machine {
        Machine::RunsOn | Machine::ClockSetBackMeanwhile => {}
        Machine::Restarts => world.restart(),
        Machine::Reboots => world.reboot(),
        Machine::ClockSetBack(by) => world.set_clock_back(by),
    }
    stop_in(&mut world, 1);
    if matches!(machine, Machine::ClockSetBackMeanwhile) {
        world.set_clock_back_when_stopped();
    }
    world.live(|world| world.call("5", false), STEPS_MAX);
    world.peace();
    world.verdict()
}

#[test]
fn nothing_is_sent_under_a_key_that_stripe_may_have_forgotten() {
    let all = Environment::current().get("TOLLGATE_PROVE_RESULTS").is_some();
    let ran = enumerate(if all { 1 } else { SAMPLE }, usize::MAX);
    let note = format!(
        "{} answers x {} ages up to 30 days x {} stops of the process x {} states of the machine's clocks",
        FIRST.len(),
        AGES.len(),
        STOPS.len(),
        MACHINES.len()
    );
    keep("edge", &ran, &note);
    assert!(ran.violations.is_empty(), "{}", shown(&ran));
}

#[test]
fn the_edge_notices_planted_faults() {
    let missed: Vec<_> = ["lease-ignored", "wall-clock-only"]
        .into_iter()
        .filter_map(|fault| {
            let held = planted::plant(fault);
            let ran = enumerate(1, CAUGHT_ENOUGH);
            drop(held);
            keep_planted(fault, "edge", &ran)
        })
        .collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
