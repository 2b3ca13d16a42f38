//! The rules held against single stories, and against a model of everything that may happen in any order.

use proptest::prelude::*;

use super::*;
use crate::domain::clock::BootTime;

const DELIVERING: Delivering =
    Delivering { lease_ms: 100, in_flight_max: 3, in_flight_bytes_max: 6, attempts_max: 3 };

fn at(ms: i64) -> Moment {
    Moment { wall_ms: 1_000_000 + ms, boot: BootTime { boot_id: 1, ms } }
}

fn known(object: &str, bytes: usize) -> Known {
    Known { object: object.into(), kind: object.into(), bytes, received_ms: 7 }
}

fn taker(stream: u64) -> Taker {
    Taker { stream, name: format!("c{stream}").into(), in_flight_max: 1_000 }
}

fn id(progress: &Progress, taken: Taken) -> AckId {
    let Taken { position, attempt, replay, .. } = taken;
    AckId { subscription: 1, log: 1, generation: progress.generation(), replay, attempt, position }
}

impl Progress {
    /// Takes for somebody who is shown everything.
    fn take_any(&mut self, taker: &Taker, now: Moment) -> Option<Taken> {
        self.take(taker, now, |_| true)
    }
}

/// A subscription that has looked at events of these objects, from position 1 on.
fn looked(objects: &[&str]) -> Progress {
    let mut progress = Progress::new(DELIVERING, 0, UnixMillis::MIN);
    for (position, object) in (1..).zip(objects) {
        progress.look(position, known(object, 1), true);
    }
    progress
}

fn restarted(progress: &Progress) -> Progress {
    Progress::load(progress.delivering(), progress.saved(), progress.parked().clone(), at(0).wall_ms)
}

#[test]
fn what_is_not_answered_in_time_goes_out_again_and_is_parked_in_the_end() {
    let mut progress = looked(&["a", "a"]);
    for attempt in 1..=3 {
        let taken = progress.take_any(&taker(1), at(i64::from(attempt) * 100)).unwrap();
        assert_eq!((taken.position, taken.attempt), (1, attempt));
        assert_eq!(progress.take_any(&taker(2), at(i64::from(attempt) * 100)), None, "its object waits");
        assert_eq!(progress.due_in_ms(at(i64::from(attempt) * 100)), Some(100));
        assert!(progress.expire(at(i64::from(attempt) * 100 + 100)));
    }
    let parked = progress.parked().get(&1).unwrap();
    assert_eq!((parked.attempts, parked.reason.as_str()), (3, LEASE_ENDED));
    assert_eq!(progress.take_any(&taker(1), at(400)).unwrap().position, 2, "the object goes on");
    assert_eq!((progress.position(), progress.needless()), (1, 0), "the log keeps what is parked");
}

#[test]
fn an_answer_that_is_late_counts_if_it_acknowledges_and_not_if_it_rejects() {
    let mut progress = looked(&["a"]);
    let first = progress.take_any(&taker(1), at(0)).unwrap();
    progress.expire(at(100));
    let first = id(&progress, first);
    assert_eq!(progress.reject(first, Verdict::Skip, "", at(100)), Err(Stale::DeliveredAgain));
    let second = progress.take_any(&taker(2), at(100)).unwrap();
    assert_eq!(progress.reject(first, Verdict::Skip, "", at(100)), Err(Stale::DeliveredAgain));
    progress.acknowledge(&[first]).unwrap();
    let second = id(&progress, second);
    assert_eq!(progress.reject(second, Verdict::Park, "", at(100)), Err(Stale::Answered));
    assert_eq!((progress.lag(1), progress.in_flight()), (0, 0));
}

#[test]
fn a_seek_delivers_everything_behind_it_and_makes_older_answers_stale() {
    let mut progress = looked(&["a", "b", "c"]);
    let [first, second] = [1, 2].map(|_| progress.take_any(&taker(1), at(0)).unwrap());
    let (first, second) = (id(&progress, first), id(&progress, second));
    assert_eq!(progress.reject(second, Verdict::Park, "bad", at(0)), Ok(true));
    progress.seek(1, UnixMillis::MIN);
    assert_eq!(progress.acknowledge(&[first]), Err((0, Stale::Generation)));
    assert_eq!(progress.reject(first, Verdict::Skip, "", at(0)), Err(Stale::Generation));
    assert!(progress.parked().is_empty(), "it comes again");
    assert_eq!((progress.position(), progress.looked(), progress.lag(3)), (1, 1, 2));
}

#[test]
fn a_replay_comes_again_whatever_was_acknowledged_and_is_told_apart() {
    let mut progress = looked(&["a", "b"]);
    let first = progress.take_any(&taker(1), at(0)).unwrap();
    let first = id(&progress, first);
    progress.acknowledge(&[first]).unwrap();
    assert_eq!(progress.replay([(1, known("a", 1))]), 1);
    progress.acknowledge(&[first]).unwrap();
    let again = progress.take_any(&taker(1), at(0)).unwrap();
    assert_eq!(
        (again.position, again.replay, again.attempt),
        (1, 1, 1),
        "an old answer does not count for it"
    );
    let again = id(&progress, again);
    let mut progress = restarted(&progress);
    progress.acknowledge(&[again]).unwrap();
    assert_eq!(progress.position(), 1);
}

#[test]
fn parked_events_go_out_again_when_they_are_replayed() {
    let mut progress = looked(&["a"]);
    let first = progress.take_any(&taker(1), at(0)).unwrap();
    let first = id(&progress, first);
    assert_eq!(progress.reject(first, Verdict::Park, "bad", at(0)), Ok(true));
    assert_eq!(progress.reject(first, Verdict::Park, "bad", at(0)), Err(Stale::Parked));
    assert!(progress.replay_parked(1, known("a", 1)) && !progress.replay_parked(1, known("a", 1)));
    assert_eq!(progress.take_any(&taker(1), at(0)).map(|taken| taken.attempt), Some(1));
}

#[test]
fn what_is_put_off_waits_and_holds_its_object() {
    let mut progress = looked(&["a", "a", "b"]);
    let first = progress.take_any(&taker(1), at(0)).unwrap();
    let first = id(&progress, first);
    assert_eq!(progress.reject(first, Verdict::RetryAfter(500), "busy", at(0)), Ok(false));
    let mut progress = restarted(&progress);
    for (position, object) in (1..).zip(["a", "a", "b"]) {
        progress.look(position, known(object, 1), true);
    }
    assert_eq!(progress.take_any(&taker(1), at(0)).map(|taken| taken.position), Some(3));
    assert_eq!((progress.take_any(&taker(1), at(0)), progress.due_in_ms(at(0))), (None, Some(100)));
    assert_eq!(progress.take_any(&taker(1), at(500)).map(|taken| taken.position), Some(1));
}

#[test]
fn a_consumer_that_begins_anew_gets_what_it_had() {
    let mut progress = looked(&["a", "b"]);
    progress.take_any(&taker(1), at(0)).unwrap();
    progress.take_any(&taker(2), at(0)).unwrap();
    assert!(progress.release("c1", at(1)) && !progress.release("c1", at(1)));
    let again = progress.take_any(&Taker { stream: 3, ..taker(1) }, at(1)).unwrap();
    assert_eq!((again.position, again.attempt), (1, 2));
    assert_eq!(progress.take_any(&taker(3), at(1)), None, "the other's is its own");
}

#[test]
fn a_parked_event_that_leaves_the_log_is_told_as_lost_once_and_holds_nothing_more() {
    let mut progress = looked(&["a", "b", "c"]);
    let [first, second] = [1, 2].map(|_| progress.take_any(&taker(1), at(0)).unwrap());
    let [first, second] = [first, second].map(|taken| id(&progress, taken));
    progress.acknowledge(&[first]).unwrap();
    assert_eq!(progress.reject(second, Verdict::Park, "bad", at(0)), Ok(true));
    assert_eq!(progress.needless(), 1);
    let lost = Some(Lost { first: 2, last: 2 });
    assert_eq!((progress.lose(2), progress.lose(2), progress.lose(1)), (lost, None, None));
    assert_eq!((progress.lost(), progress.parked().len(), progress.needless()), (lost, 0, 2));
    assert_eq!(progress.lose(3), Some(Lost { first: 3, last: 3 }));
    assert_eq!(progress.lost(), Some(Lost { first: 2, last: 3 }));
}

#[test]
fn what_a_stream_may_not_be_shown_is_left_for_others() {
    let mut progress = looked(&["secret", "open", "secret"]);
    let weak = |kind: &str| kind == "open";
    let taken = progress.take(&taker(1), at(0), weak).unwrap();
    assert_eq!((taken.position, progress.has_ready(at(0), weak)), (2, false));
    assert_eq!(progress.take(&taker(1), at(0), weak), None);
    let acknowledged = id(&progress, taken);
    progress.acknowledge(&[acknowledged]).unwrap();
    assert_eq!((progress.position(), progress.lag(3)), (0, 2), "nothing is dealt with unseen");
    let other = progress.take_any(&taker(2), at(0)).unwrap();
    assert_eq!((other.position, other.attempt), (1, 1));
}

#[test]
fn what_did_not_reach_its_consumer_is_not_taken_from_another() {
    let mut progress = looked(&["a"]);
    let old = progress.take_any(&taker(1), at(0)).unwrap();
    assert!(progress.is_out(old, 1));
    progress.seek(0, UnixMillis::MIN);
    progress.look(1, known("a", 1), true);
    let new = progress.take_any(&taker(2), at(1)).unwrap();
    assert!(!progress.is_out(old, 1) && progress.is_out(new, 2));
    progress.untake(old, 1);
    assert_eq!(progress.take_any(&taker(3), at(2)), None, "it is out");
    progress.untake(new, 2);
    let again = progress.take_any(&taker(3), at(2)).unwrap();
    assert_eq!(again.attempt, 1, "nobody was given it");
    progress.expire(at(200));
    assert!(!progress.is_out(again, 3), "its lease has ended");
}

#[test]
fn what_the_log_dropped_is_told_as_lost() {
    let mut progress = looked(&["a", "b", "c"]);
    let first = progress.take_any(&taker(1), at(0)).unwrap();
    let first = id(&progress, first);
    progress.acknowledge(&[first]).unwrap();
    let lost = Some(Lost { first: 2, last: 6 });
    assert_eq!(progress.look(7, known("d", 1), true), lost, "whoever looks can say so");
    assert_eq!(progress.lost(), lost);
    assert_eq!(progress.take_any(&taker(1), at(0)).map(|taken| taken.position), Some(7));
    let mut quiet = looked(&[]);
    quiet.seek(5, UnixMillis::MIN);
    quiet.lose(5);
    assert_eq!(quiet.lost(), None, "what was dealt with is not lost");
}

#[test]
fn what_used_up_its_attempts_is_parked_at_a_start() {
    let mut progress = looked(&["a"]);
    for ms in [0, 100, 200] {
        progress.expire(at(ms));
        progress.take_any(&taker(1), at(ms)).unwrap();
    }
    let progress = restarted(&progress);
    assert_eq!((progress.parked().len(), progress.position()), (1, 1));
}

#[test]
fn only_what_is_open_is_looked_at_again_after_a_restart() {
    let mut progress = looked(&["a", "b", "c", "d"]);
    let taken = [1, 2, 3, 4].map(|_| progress.take_any(&taker(1), at(0)));
    assert_eq!(taken.iter().flatten().count(), 3);
    let second = id(&progress, taken[1].unwrap());
    let first = id(&progress, taken[0].unwrap());
    progress.acknowledge(&[first, second]).unwrap();
    let mut progress = restarted(&progress);
    assert_eq!((progress.look_behind(), progress.position()), (2, 2));
    progress.look(3, known("c", 1), true);
    assert_eq!(progress.look_behind(), 3);
    progress.look(4, known("d", 1), true);
    assert_eq!(progress.look_behind(), 4);
    let third = progress.take_any(&taker(1), at(0)).unwrap();
    let third = id(&progress, third);
    progress.acknowledge(&[third]).unwrap();
    let mut progress = restarted(&progress);
    progress.look(4, known("d", 1), true);
    assert_eq!((progress.look_behind(), progress.lag(9)), (4, 6));
}

#[test]
fn nobody_takes_anything_while_it_is_paused() {
    let mut progress = looked(&["a"]);
    progress.pause(true);
    assert_eq!(restarted(&progress).take_any(&taker(1), at(0)), None);
    assert_eq!(progress.take_any(&taker(1), at(0)), None);
    progress.pause(false);
    assert!(progress.take_any(&taker(1), at(0)).is_some());
}

#[test]
fn only_so_many_events_are_open_or_parked() {
    let mut progress = Progress::new(Delivering { attempts_max: 1, ..DELIVERING }, 0, UnixMillis::MIN);
    for position in 1..=u64::try_from(SUBSCRIPTION_OPEN_EVENTS_MAX).unwrap() {
        assert!(progress.room() > 0);
        progress.look(position, known("", 1), true);
    }
    assert_eq!(progress.room(), 0);
    for _ in 0..SUBSCRIPTION_PARKED_MAX {
        let taken = progress.take_any(&taker(1), at(0)).unwrap();
        let id = id(&progress, taken);
        assert_eq!(progress.reject(id, Verdict::Park, "bad", at(0)), Ok(true));
    }
    let taken = progress.take_any(&taker(1), at(0)).unwrap();
    let id = id(&progress, taken);
    assert_eq!(progress.reject(id, Verdict::Park, "bad", at(0)), Ok(false), "there is no room");
    assert_eq!(progress.lag(2_000), 1_000, "and it is not forgotten");
    let parked = restarted(&progress).parked().len();
    assert_eq!(parked, SUBSCRIPTION_PARKED_MAX);
}

/// What may happen to a subscription.
#[derive(Clone, Debug)]
enum Step {
    Look(u64),
    Take(u64),
    /// One of those given out so far, by its place; also late ones.
    Acknowledge(prop::sample::Index),
    Reject(prop::sample::Index, Verdict),
    Wait(i64),
    Release(u64),
    Keep,
    /// Whatever was not kept is gone.
    Restart,
    ReplayParked,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1_u64..5).prop_map(Step::Look),
        6 => (1_u64..4).prop_map(Step::Take),
        5 => any::<prop::sample::Index>().prop_map(Step::Acknowledge),
        2 => (any::<prop::sample::Index>(), verdict()).prop_map(|(of, verdict)| Step::Reject(of, verdict)),
        2 => (0_i64..150).prop_map(Step::Wait),
        1 => (1_u64..4).prop_map(Step::Release),
        3 => Just(Step::Keep),
        1 => Just(Step::Restart),
        1 => Just(Step::ReplayParked),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![(0_i64..200).prop_map(Verdict::RetryAfter), Just(Verdict::Park), Just(Verdict::Skip)]
}

/// A log, a subscription to it, and what an observer knows of it.
struct World {
    /// Object, size and whether it matches, of the events from position 1 on.
    log: Vec<(&'static str, usize, bool)>,
    progress: Progress,
    kept: (Saved, BTreeMap<u64, Parked>),
    now_ms: i64,
    /// Every delivery so far.
    given: Vec<AckId>,
    out: BTreeSet<u64>,
    done: BTreeSet<u64>,
    done_and_kept: BTreeSet<u64>,
}

impl World {
    fn new(log: Vec<(&'static str, usize, bool)>) -> Self {
        let progress = Progress::new(DELIVERING, 0, UnixMillis::MIN);
        let kept = (progress.saved(), BTreeMap::new());
        let (out, done) = (BTreeSet::new(), BTreeSet::new());
        Self {
            log,
            progress,
            kept,
            now_ms: 0,
            given: Vec::new(),
            out,
            done: done.clone(),
            done_and_kept: done,
        }
    }

    fn event(&self, position: u64) -> (&'static str, usize, bool) {
        self.log[usize::try_from(position).unwrap() - 1]
    }

    fn look(&mut self) {
        let position = self.progress.look_behind() + 1;
        if let Some(&(object, bytes, matches)) = self.log.get(usize::try_from(position).unwrap() - 1) {
            self.progress.look(position, known(object, bytes), matches);
        }
    }

    /// Takes the next event and holds it against every rule.
    fn take(&mut self, stream: u64) -> bool {
        let Some(taken) = self.progress.take_any(&taker(stream), at(self.now_ms)) else { return false };
        let position = taken.position;
        let (object, _, matches) = self.event(position);
        assert!(matches && !self.done.contains(&position), "{position} was not to come");
        assert!(self.out.insert(position), "{position} is out twice");
        let same = |other: &u64| !object.is_empty() && self.event(*other).0 == object;
        let out: Vec<_> = self.out.iter().filter(|other| same(other)).collect();
        assert!(object.is_empty() || out.len() == 1, "{out:?} of one object are out");
        let passed = (1..position).filter(|other| {
            let dealt = self.done.contains(other) || self.progress.parked().contains_key(other);
            same(other) && self.event(*other).2 && !dealt
        });
        assert_eq!(passed.collect::<Vec<_>>(), [0; 0], "{position} overtook others of its object");
        assert!(self.out.len() <= DELIVERING.in_flight_max);
        let bytes: usize = self.out.iter().map(|position| self.event(*position).1).sum();
        assert!(bytes <= DELIVERING.in_flight_bytes_max || self.out.len() == 1);
        self.given.push(id(&self.progress, taken));
        true
    }

    fn answered(&mut self, position: u64) {
        self.out.remove(&position);
        self.done.insert(position);
    }

    /// What is out by the subscription's own account.
    fn refresh_out(&mut self) {
        let held = self.progress.leases.iter().map(|(_, position)| *position);
        self.out = held.collect();
    }

    fn step(&mut self, step: &Step) {
        let now = at(self.now_ms);
        match step {
            Step::Look(count) => (0..*count).for_each(|_| self.look()),
            Step::Take(stream) => drop(self.take(*stream)),
            Step::Acknowledge(of) if !self.given.is_empty() => {
                let id = *of.get(&self.given);
                self.progress.acknowledge(&[id]).unwrap();
                self.answered(id.position);
            }
            Step::Reject(of, verdict) if !self.given.is_empty() => {
                let id = *of.get(&self.given);
                let rejected = self.progress.reject(id, *verdict, "", now);
                if rejected.is_ok() && *verdict == Verdict::Skip {
                    self.answered(id.position);
                }
            }
            Step::Wait(ms) => {
                self.now_ms += ms;
                self.progress.expire(at(self.now_ms));
            }
            Step::Release(stream) => drop(self.progress.release(&format!("c{stream}"), now)),
            Step::Keep => {
                self.kept = (self.progress.saved(), self.progress.parked().clone());
                self.done_and_kept.clone_from(&self.done);
            }
            Step::Restart => {
                let (saved, parked) = self.kept.clone();
                self.progress = Progress::load(DELIVERING, saved, parked, now.wall_ms);
                self.done.clone_from(&self.done_and_kept);
            }
            Step::ReplayParked => {
                if let Some(position) = self.progress.parked().keys().next().copied() {
                    let (object, bytes, _) = self.event(position);
                    self.progress.replay_parked(position, known(object, bytes));
                }
            }
            Step::Acknowledge(_) | Step::Reject(..) => {}
        }
        self.refresh_out();
    }

    /// Deals with everything that there still is.
    fn finish(&mut self) {
        for _ in 0..10 * self.log.len() {
            self.look();
            self.now_ms += DELIVERING.lease_ms + 200;
            self.progress.expire(at(self.now_ms));
            self.refresh_out();
            while self.take(9) {
                let id = *self.given.last().unwrap();
                self.progress.acknowledge(&[id]).unwrap();
                self.answered(id.position);
            }
        }
    }
}

fn log() -> impl Strategy<Value = Vec<(&'static str, usize, bool)>> {
    let object = prop::sample::select(vec!["", "a", "b", "c"]);
    prop::collection::vec((object, 1_usize..8, prop::bool::weighted(0.8)), 1..25)
}

proptest! {
    #[test]
    fn nothing_is_skipped_nothing_acknowledged_returns_and_objects_keep_their_order(
        log in log(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(log);
        steps.iter().for_each(|step| world.step(step));
        world.finish();
        let head = u64::try_from(world.log.len()).unwrap();
        for position in (1..=head).filter(|position| world.event(*position).2) {
            let parked = world.progress.parked().contains_key(&position);
            prop_assert!(world.done.contains(&position) != parked, "{} is lost", position);
            prop_assert!(world.given.iter().any(|id| id.position == position));
        }
        prop_assert_eq!((world.progress.lag(head), world.progress.in_flight()), (0, 0));
        prop_assert_eq!((world.progress.position(), world.progress.lost()), (head, None));
        prop_assert!(world.progress.saved().open.is_empty() && world.progress.saved().ahead.is_empty());
        prop_assert_eq!(world.progress.bytes_out, 0);
    }
}
