//! The breaker's laws, over histories of attempts that begin and end in any order.

use proptest::prelude::*;

use super::*;
use crate::stripe::Answer;

const SHORT: Duration = Duration::from_millis(BREAKER_PAUSE_MS_MIN);
const LONG: Duration = Duration::from_millis(BREAKER_PAUSE_MS_MAX);

fn answered(status: u16) -> Attempt {
    Attempt::Answered(Answer { status, ..Answer::default() })
}

fn failed() -> Attempt {
    Attempt::Broken(Trouble::Reset)
}

/// A breaker that has just opened.
fn opened(now: Duration) -> Breaker {
    let mut breaker = Breaker::default();
    for _ in 0..BREAKER_FAILURES_MAX {
        let pass = breaker.pass(now).unwrap();
        breaker.heard(now, pass, Some(&failed()));
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker
}

#[test]
fn a_run_of_failures_opens_it_and_an_answer_ends_the_run() {
    let now = Duration::ZERO;
    let mut breaker = Breaker::default();
    for _ in 0..3 {
        for _ in 1..BREAKER_FAILURES_MAX {
            breaker.heard(now, Pass::Usual, Some(&answered(503)));
        }
        breaker.heard(now, Pass::Usual, Some(&answered(429)));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
    assert_eq!(opened(now).pass(now), Err(SHORT));
}

#[test]
fn what_counts_as_an_answer() {
    let replayed = Attempt::Answered(Answer { status: 500, replayed: true, ..Answer::default() });
    for alive in [answered(200), answered(402), answered(429), replayed, Attempt::Broken(Trouble::TooLarge)] {
        assert_eq!(is_alive(&alive), Some(true), "{alive:?}");
    }
    let troubles = [Trouble::Dns, Trouble::Connect, Trouble::Tls];
    let failures = [answered(500), answered(503), failed(), Attempt::Broken(Trouble::Timeout)];
    for failure in failures.into_iter().chain(troubles.map(Attempt::NotSent)) {
        assert_eq!(is_alive(&failure), Some(false), "{failure:?}");
    }
    for own in [Trouble::BreakerOpen { retry_ms: 1 }, Trouble::Deadline, Trouble::Unsendable] {
        assert_eq!(is_alive(&Attempt::NotSent(own)), None, "{own:?}");
    }
}

#[test]
fn one_probe_at_the_end_of_a_pause_closes_it_or_doubles_the_pause() {
    let mut now = Duration::ZERO;
    let mut breaker = opened(now);
    let mut pause = SHORT;
    for _ in 0..8 {
        now += pause;
        assert_eq!(breaker.pass(now), Ok(Pass::Probe));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.pass(now), Err(pause), "one at a time");
        breaker.heard(now, Pass::Probe, Some(&failed()));
        pause = (pause * 2).min(LONG);
        assert_eq!((breaker.state(), breaker.closed_off(now)), (BreakerState::Open, Some(pause)));
    }
    now += pause;
    assert_eq!(breaker.pass(now), Ok(Pass::Probe));
    breaker.heard(now, Pass::Probe, Some(&answered(404)));
    assert_eq!((breaker.state(), breaker.pass(now)), (BreakerState::Closed, Ok(Pass::Usual)));
}

#[test]
fn a_probe_that_is_given_up_leaves_room_for_the_next() {
    let mut breaker = opened(Duration::ZERO);
    assert_eq!(breaker.pass(SHORT), Ok(Pass::Probe));
    breaker.heard(SHORT, Pass::Probe, None);
    assert_eq!(breaker.pass(SHORT), Ok(Pass::Probe));
    // That one hangs; it holds up nobody for longer than a pause.
    assert_eq!(breaker.pass(SHORT * 2), Ok(Pass::Probe));
}

/// What happens next: time passes, an attempt is wished for, or one of those under way ends.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Begin,
    End(usize, Option<Attempt>),
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        3 => Just(Some(failed())),
        1 => Just(Some(answered(200))),
        1 => Just(None),
    ];
    prop_oneof![
        (0_u64..BREAKER_PAUSE_MS_MAX).prop_map(Step::Wait),
        Just(Step::Begin),
        (any::<usize>(), end).prop_map(|(place, end)| Step::End(place, end)),
    ]
}

proptest! {
    #[test]
    fn it_opens_after_a_run_alone_probes_one_at_a_time_and_always_comes_back(
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let (mut breaker, mut now, mut under_way) = (Breaker::default(), Duration::ZERO, Vec::new());
        let (mut run, mut last_probe) = (0, None::<Duration>);
        for step in steps {
            let was = breaker.state();
            match step {
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Begin => match breaker.pass(now) {
                    Ok(pass) => {
                        prop_assert_eq!(pass == Pass::Usual, was == BreakerState::Closed);
                        if pass == Pass::Probe {
                            // Between two probes lies a pause, unless the first was given up.
                            prop_assert!(last_probe.is_none_or(|last| now >= last + SHORT), "{:?} {:?}", last_probe, now);
                            last_probe = Some(now);
                        }
                        under_way.push(pass);
                    }
                    Err(left) => {
                        prop_assert!(was != BreakerState::Closed && !left.is_zero() && left <= LONG);
                        prop_assert!(breaker.clone().pass(now + left).is_ok(), "it is as long as it says");
                    }
                },
                Step::End(place, end) if !under_way.is_empty() => {
                    let pass = under_way.swap_remove(place % under_way.len());
                    breaker.heard(now, pass, end.as_ref());
                    match end.as_ref().and_then(is_alive) {
                        Some(true) => run = 0,
                        Some(false) => run += 1,
                        None if pass == Pass::Probe => last_probe = None,
                        None => {}
                    }
                    let is_open = breaker.state() != BreakerState::Closed;
                    if was == BreakerState::Closed && is_open {
                        prop_assert!(run >= BREAKER_FAILURES_MAX, "no answer in a run of so many");
                        last_probe = None;
                    }
                    if was != BreakerState::Closed && !is_open {
                        prop_assert!(pass == Pass::Probe && run == 0, "an answered probe closes it, and nothing else");
                    }
                }
                Step::End(..) => {}
            }
        }
        // From now on the host answers.
        now += LONG;
        let pass = breaker.pass(now).unwrap();
        breaker.heard(now, pass, Some(&answered(200)));
        prop_assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
