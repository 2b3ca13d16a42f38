//! One operation's gateway, life by life: every step may be its last. What is stored survives, what is told is remembered
//! by the callers, and at the end three records have to agree.

use std::collections::BTreeMap;

use super::stripe::Stripe;
use super::{Case, STEPS_MAX, Timing};
use crate::contract::{self, Effect, Spec};
use crate::domain::clock::{BootTime, Moment, UnixMillis};
use crate::domain::limits::RESEND_MS_MAX;
use crate::ledger::finding::{EventProof, Finding, Moved, looked, proved, why_look};
use crate::ledger::fixtures::{SEAT, at, fingerprint, fresh};
use crate::ledger::lease::{Seat, marked};
use crate::ledger::outcome::{Settled, Success};
use crate::ledger::proof::{Expected, Verdict, verdict};
use crate::ledger::state::{Record, State};
use crate::ledger::transition::{Call, Decision, Departure, Known, decide, depart, settled};
use crate::stripe::outgoing::STRIPE_VERSION;
use crate::stripe::{Attempt, Body};

const SECOND: UnixMillis = 1_000;
const MINUTE: UnixMillis = 60 * SECOND;
const HOUR: UnixMillis = 60 * MINUTE;
/// Longest description of what went wrong.
const BROKEN_CHARS_MAX: usize = 400;
/// Attempts of one call.
const ATTEMPTS_MAX: usize = 2;

/// The process is gone.
pub(super) struct Dead;

pub(super) type Step<T = ()> = Result<T, Dead>;

/// Where a process can be stopped for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Its intent is durable, and no byte was sent.
    BeforeSend,
    /// Between two attempts.
    BetweenAttempts,
    /// It has an answer that is not durable.
    BeforeSettle,
}

/// What a caller was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Done(Option<String>),
    Refused,
    Unknown,
    Open,
    Mismatch,
    NeedsOperator,
}

/// Everything there is.
pub(super) struct World {
    effect: Effect,
    stripe: Stripe,
    /// The store: what has become durable.
    durable: Option<Vec<u8>>,
    ms: UnixMillis,
    /// By how much the machine's clock is wrong, and how often the machine was started.
    wall_off_ms: UnixMillis,
    boots: u64,
    owner: u64,
    /// Where the process is stopped, and for how long, once.
    pause: Option<(Place, UnixMillis)>,
    /// Whether the machine's clock is set back by as much while the process is stopped.
    back_when_stopped: bool,
    /// Steps that are left to this life, and those it has made.
    left: u32,
    made: u32,
    told: Vec<Told>,
    broken: Vec<String>,
}

impl World {
    pub(super) fn new(case: &Case) -> Self {
        // A refund may come of a failed request long after; anything else is there within hours.
        let completed_after_ms = if case.effect == Effect::Money { 30 * HOUR } else { 2 * HOUR };
        Self {
            effect: case.effect,
            stripe: Stripe::scripted([case.first, case.next], completed_after_ms),
            durable: None,
            ms: 0,
            wall_off_ms: 0,
            boots: 1,
            owner: SEAT.owner,
            pause: None,
            back_when_stopped: false,
            left: 0,
            made: 0,
            told: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// Lives for so many steps and answers how many it made.
    pub(super) fn live(&mut self, story: impl FnOnce(&mut Self) -> Step, steps: u32) -> u32 {
        (self.left, self.made) = (steps, 0);
        drop(story(self));
        self.made
    }

    /// The process is stopped once, where and for so long.
    pub(super) fn stop_at(&mut self, place: Place, ms: UnixMillis) {
        self.pause = Some((place, ms));
    }

    /// Somebody sets the machine's clock; it stays wrong.
    pub(super) fn set_clock_back(&mut self, ms: UnixMillis) {
        self.wall_off_ms -= ms;
    }

    /// The same for as long as the process is stopped the next time, so that its clock shows no gap.
    pub(super) fn set_clock_back_when_stopped(&mut self) {
        self.back_when_stopped = true;
    }

    /// The machine starts anew, and its clock that nobody can set from nothing.
    pub(super) fn reboot(&mut self) {
        self.boots += 1;
        self.restart();
    }

    /// The process starts again, half a minute later and as another.
    pub(super) fn restart(&mut self) {
        self.owner += 1;
        self.pass(30 * SECOND);
    }

    pub(super) fn first_life(&mut self, timing: Timing) -> Step {
        self.call("5", false)?;
        if timing == Timing::Together { self.call("5", false) } else { Ok(()) }
    }

    /// What a process does that finds something unresolved: callers come again, events are read, the background looks.
    pub(super) fn recovery(&mut self, timing: Timing) -> Step {
        if timing != Timing::Late {
            self.call("5", false)?;
        }
        self.look()?;
        if timing != Timing::Recovery {
            self.events()?;
        }
        self.pass(2 * MINUTE);
        if timing == Timing::Late { self.call("5", false) } else { Ok(()) }
    }

    /// Nothing fails any more, and a week passes.
    pub(super) fn peace(&mut self) {
        self.stripe.behave();
        (self.pause, self.back_when_stopped) = (None, false);
        let story = |world: &mut Self| {
            world.call("5", false)?;
            world.alter()?;
            world.pass(RESEND_MS_MAX - HOUR - world.ms);
            world.call("5", false)?;
            world.pass(HOUR + MINUTE);
            world.call("5", false)?;
            world.pass(HOUR);
            world.look()?;
            world.call("5", false)?;
            world.alter()?;
            world.pass(12 * HOUR);
            world.events()?;
            world.call("5", false)?;
            world.pass(7 * 24 * HOUR);
            world.events()?;
            world.call("5", false)?;
            if world.told.contains(&Told::Refused) && !world.stripe.effects.is_empty() {
                world.broken.push("told that nothing happened, and it did".to_owned());
            }
            // Whoever was told that nothing happened may do it again, and then it happens once.
            if matches!(world.state(), Some(State::Settled(Settled::Refused(_) | Settled::NotExecuted(_)))) {
                world.call("5", true)?;
            }
            Ok(())
        };
        self.live(story, 10 * STEPS_MAX);
    }

    /// Another change under the same reference, where the reference stands for something.
    fn alter(&mut self) -> Step {
        match self.state() {
            None | Some(State::Open(_) | State::Lapsed) => Ok(()),
            Some(State::Settled(Settled::Refused(_) | Settled::NotExecuted(_))) => Ok(()),
            Some(_) => self.call("6", false),
        }
    }

    /// One call of a caller.
    pub(super) fn call(&mut self, amount: &str, retry_refused: bool) -> Step {
        let record = self.load();
        let fingerprint = fingerprint(amount);
        let call = Call { fingerprint: &fingerprint, retry_refused, repeatable: false };
        let told = match decide(record.as_ref(), call, self.now(), self.seat()) {
            Decision::Send(how) => {
                let departure =
                    depart(how, record, fresh(amount, &format!("amount={amount}")), self.now(), self.seat());
                self.send(departure)?
            }
            Decision::Answer(known) => match known {
                Known::Replay(settled) => told_of(&settled),
                Known::Mismatch(_) => Told::Mismatch,
                Known::InFlight => Told::Unknown,
                Known::NeedsOperator(_) | Known::Forgotten => Told::NeedsOperator,
            },
            Decision::Look(why) => {
                let record = record.ok_or(Dead)?;
                self.settle_by_look(record, Some(why))?
            }
        };
        self.step()?;
        if amount == "5" {
            self.told.push(told);
        } else if told != Told::Mismatch {
            self.broken.push(format!("another change under the reference was answered with {told:?}"));
        }
        Ok(())
    }

    fn send(&mut self, departure: Departure) -> Step<Told> {
        let Departure { record, outgoing, ambiguous, lease } = departure;
        self.step()?;
        self.store(&record);
        self.step()?;
        self.stopped_at(Place::BeforeSend);
        let mut attempts = Vec::new();
        while attempts.len() < ATTEMPTS_MAX {
            if !lease.holds(self.now()) {
                break;
            }
            self.step()?;
            // What has left the process arrives, whether it lives on or not.
            let attempt = self.stripe.exchange(&outgoing, self.true_ms());
            let definitive = matches!(&attempt, Attempt::Answered(answer) if [200, 400, 401, 402].contains(&answer.status));
            self.step()?;
            attempts.push(attempt);
            if definitive {
                break;
            }
            self.pass(SECOND);
            self.stopped_at(Place::BetweenAttempts);
        }
        self.stopped_at(Place::BeforeSettle);
        let verdict = verdict(&attempts, ambiguous, Expected { object: "refund", keyed: true });
        self.step()?;
        let (record, verdict) = settled(record, outgoing, verdict, self.now());
        self.store(&record);
        self.step()?;
        Ok(told_by(&verdict))
    }

    /// The background looks at what is unresolved.
    pub(super) fn look(&mut self) -> Step {
        let Some(record) = self.load().filter(Record::unresolved) else { return Ok(()) };
        let why = why_look(&record, self.now());
        self.settle_by_look(record, why).map(drop)
    }

    fn settle_by_look(&mut self, record: Record, why: Option<crate::ledger::outcome::Stuck>) -> Step<Told> {
        self.step()?;
        let finding = match self.stripe.effects.first() {
            Some(effected) => Finding::Effected(success(&effected.object_id)),
            None => Finding::Absent { found: Vec::new() },
        };
        self.step()?;
        let (after, verdict) = looked(record.clone(), finding, why, self.effect, self.now());
        if after.state != record.state {
            self.store(&after);
            self.step()?;
        }
        Ok(told_by(&verdict))
    }

    /// The log of events is read from where it was read last; here that is its beginning.
    pub(super) fn events(&mut self) -> Step {
        for effected in self.stripe.effects.clone() {
            let Some(record) = self.load() else { continue };
            let proof = EventProof {
                event_id: format!("evt_{}", effected.object_id),
                kind: spec().settled_by.first().copied().unwrap_or_default().to_owned(),
                idempotency_key: effected.key,
                object: object(&effected.object_id),
                api_version: STRIPE_VERSION.to_owned(),
            };
            self.step()?;
            if let Moved::To { record, .. } = proved(&record, spec(), &proof, self.now()) {
                self.store(&record);
                self.step()?;
            }
        }
        Ok(())
    }

    /// Which promise was broken; nothing when all were kept.
    pub(super) fn verdict(mut self) -> Result<(), String> {
        let effects = &self.stripe.effects;
        let mut broken = std::mem::take(&mut self.broken);
        if effects.len() > 1 {
            broken.push(format!("{} effects", effects.len()));
        }
        let done: Vec<_> = self.told.iter().filter(|told| matches!(told, Told::Done(_))).collect();
        for told in &done {
            let truth = effects.first().map(|effected| effected.object_id.clone());
            if effects.len() != 1 || **told != Told::Done(truth) {
                broken.push(format!("told {told:?}, and Stripe has {effects:?}"));
            }
        }
        if let Some(at) = self.told.iter().position(|told| matches!(told, Told::Done(_)))
            && self.told.iter().skip(at).any(|told| !matches!(told, Told::Done(_)))
        {
            broken.push(format!("a success was not final: {:?}", self.told));
        }
        match self.state() {
            Some(State::Settled(Settled::Succeeded(success))) => {
                if effects.first().map(|effected| &effected.object_id) != success.object_id.as_ref() {
                    broken.push(format!("the ledger has {:?}, Stripe {effects:?}", success.object_id));
                }
            }
            // Where nobody can tell how old a key is, a person decides about everything.
            Some(State::NeedsOperator { .. })
                if effects.is_empty() && (self.effect == Effect::Money || self.clock_moved()) => {}
            other => {
                // After a retry, nobody is left with nothing.
                broken.push(format!("it ends as {other:?} with {} effects", effects.len()));
            }
        }
        broken.extend(self.requests());
        broken.sort();
        broken.dedup();
        let text = broken.join("; ");
        if text.is_empty() { Ok(()) } else { Err(text.chars().take(BROKEN_CHARS_MAX).collect()) }
    }

    /// One key stands for one body, and none is sent once Stripe may have forgotten what it did under it. An operation of
    /// which nothing took hold is sent under its key at any age.
    fn requests(&self) -> Vec<String> {
        let mut known: BTreeMap<&str, &Body> = BTreeMap::new();
        let mut broken = Vec::new();
        for (at, request) in &self.stripe.asked {
            let key = request.idempotency_key.as_deref().unwrap_or_default();
            if *known.entry(key).or_insert(&request.body) != &request.body {
                broken.push(format!("the key {key} was used for two bodies"));
            }
            let age = at - self.stripe.taken.get(key).unwrap_or(at);
            if age >= RESEND_MS_MAX {
                broken.push(format!("a key was sent again after {} min", age / MINUTE));
            }
        }
        broken
    }

    fn clock_moved(&self) -> bool {
        self.wall_off_ms != 0
    }

    /// The end of a step: this may be where the process dies.
    fn step(&mut self) -> Step {
        self.left = self.left.checked_sub(1).ok_or(Dead)?;
        self.made += 1;
        Ok(())
    }

    pub(super) fn pass(&mut self, ms: UnixMillis) {
        self.ms += ms.max(0);
        self.stripe.pass(self.true_ms());
    }

    /// What the machine's clocks show.
    fn now(&self) -> Moment {
        let Moment { wall_ms, boot } = at(self.ms);
        Moment { wall_ms: wall_ms + self.wall_off_ms, boot: BootTime { boot_id: self.boots, ..boot } }
    }

    /// Stripe's time.
    fn true_ms(&self) -> UnixMillis {
        at(self.ms).wall_ms
    }

    fn stopped_at(&mut self, place: Place) {
        if let Some((_, ms)) = self.pause.take_if(|(wanted, _)| *wanted == place) {
            self.pass(ms);
            if std::mem::take(&mut self.back_when_stopped) {
                self.set_clock_back(ms);
            }
        }
    }

    fn seat(&self) -> Seat {
        Seat { owner: self.owner, ..SEAT }
    }

    fn state(&self) -> Option<State> {
        Some(Record::decode(self.durable.as_ref()?).unwrap().state)
    }

    fn load(&mut self) -> Option<Record> {
        let record = Record::decode(self.durable.as_ref()?).unwrap();
        let Some(marked) = marked(&record, self.now()) else { return Some(record) };
        self.store(&marked);
        Some(marked)
    }

    fn store(&mut self, record: &Record) {
        self.durable = Some(record.encode().unwrap());
    }
}

fn spec() -> &'static Spec {
    contract::find("RefundService", "CreateRefund").unwrap()
}

fn object(id: &str) -> String {
    format!(r#"{{"id":"{id}","object":"refund"}}"#)
}

fn success(id: &str) -> Success {
    let (json, object_id) = (Some(object(id)), Some(id.to_owned()));
    Success { json, request_id: None, object_id, turned_by: None, turned_s: None }
}

fn told_of(settled: &Settled) -> Told {
    match settled {
        Settled::Succeeded(success) => Told::Done(success.object_id.clone()),
        Settled::Refused(_) | Settled::NotExecuted(_) => Told::Refused,
    }
}

fn told_by(verdict: &Verdict) -> Told {
    match verdict {
        Verdict::Settled(settled) => told_of(settled),
        Verdict::Open { .. } => Told::Open,
        Verdict::Unknown { .. } => Told::Unknown,
        Verdict::NeedsOperator(_) => Told::NeedsOperator,
    }
}
