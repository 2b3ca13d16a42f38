//! The world of the laws: time as it is and as a machine shows it, Stripe, and a gateway that follows the rules.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::finding::{self, EventProof, Finding, Moved, Ruling};
use super::super::fixtures::{NOW, fingerprint, fresh, success, turn};
use super::super::lease::{self, Seat};
use super::super::outcome::Settled;
use super::super::proof::{Expected, verdict};
use super::super::state::{Record, State};
use super::super::transition::{Call, Decision, Departure, Known, Sending, decide, depart, settled};
use crate::contract::{self, Effect};
use crate::domain::clock::{BootTime, Moment, UnixMillis};
use crate::stripe::outgoing::STRIPE_VERSION;
use crate::stripe::{Answer, Attempt, Outgoing, Trouble};

const MINUTE: UnixMillis = 60_000;
/// Stripe may forget a key from this age on.
const FORGOTTEN_MS: UnixMillis = 24 * 60 * MINUTE;

/// What Stripe does with a request whose key it does not know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Conduct {
    Execute,
    /// Fails, and remembers the failure.
    Decline,
    /// Turns it down before it begins, and remembers nothing.
    Invalid,
    /// Answers 500 for good, whether it took effect or not.
    Fail {
        effect: bool,
    },
    /// The same, and carries it out when nobody expects it any more.
    FailAndComplete,
    RateLimit,
}

/// What the network does with a request and its answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Network {
    Deliver,
    NotConnected,
    LoseRequest,
    LoseAnswer,
    /// The request arrives after everything else of its call.
    Delay,
    /// Something in between answers in Stripe's place, and the request may have arrived or not.
    Proxy {
        arrives: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Crash {
    No,
    /// After the intent was stored and before anything was sent.
    BeforeSend,
    /// After the last answer and before it was stored.
    BeforeSettle,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The process may be stopped for some minutes between the intent and the first attempt.
    Call {
        amount: u8,
        retry_refused: bool,
        paused: u16,
        attempts: Vec<(Network, Conduct)>,
        crash: Crash,
    },
    Pass {
        minutes: u16,
    },
    /// The wall clock is set back while the ledger watches.
    SetBack {
        minutes: u16,
    },
    /// The machine starts anew.
    Reboot,
    Look,
    /// Stripe carries out what it answered 500 to.
    Complete,
    /// The events of all effects arrive.
    Events,
    /// A person looks and says what is so.
    Rule,
    Turn,
    Prune,
}

/// Stripe's memory and the effects it had.
#[derive(Default)]
pub(super) struct Stripe {
    keys: BTreeMap<String, (UnixMillis, Outgoing, u16)>,
    pub(super) effects: Vec<Outgoing>,
    unfinished: Vec<Outgoing>,
}

impl Stripe {
    fn receive(&mut self, request: &Outgoing, conduct: Conduct, real_ms: UnixMillis) -> Answer {
        self.keys.retain(|_, (stored, _, _)| real_ms - *stored < FORGOTTEN_MS);
        let key = request.idempotency_key.clone().unwrap();
        if matches!(conduct, Conduct::RateLimit) {
            // Decided before Stripe looks at the key.
            return answer(429);
        }
        if let Some((_, known, status)) = self.keys.get(&key) {
            return if known == request {
                Answer { replayed: true, ..answer(*status) }
            } else {
                Answer { body: error("idempotency_error"), ..answer(400) }
            };
        }
        let (status, effect, stored) = match conduct {
            Conduct::Execute => (200, true, true),
            Conduct::Decline => (402, false, true),
            Conduct::Invalid => (400, false, false),
            Conduct::Fail { effect } => (500, effect, true),
            Conduct::FailAndComplete => (500, false, true),
            Conduct::RateLimit => (429, false, false),
        };
        if effect {
            self.effects.push(request.clone());
        }
        if matches!(conduct, Conduct::FailAndComplete) {
            self.unfinished.push(request.clone());
        }
        if stored {
            self.keys.insert(key, (real_ms, request.clone(), status));
        }
        answer(status)
    }
}

fn answer(status: u16) -> Answer {
    let body = match status {
        200 => Bytes::from_static(br#"{"id":"re_1","object":"refund"}"#),
        _ => error("invalid_request_error"),
    };
    Answer { status, body, ..Answer::default() }
}

fn error(kind: &str) -> Bytes {
    Bytes::from(format!(r#"{{"error":{{"type":"{kind}"}}}}"#))
}

/// The world: time as it is and as the machine shows it, Stripe, and the gateway's one stored entry with the notes by
/// which its conduct is judged.
pub(super) struct World {
    real_ms: UnixMillis,
    now: Moment,
    /// The clocks as they were last seen.
    seen: Moment,
    pub(super) stripe: Stripe,
    seat: Seat,
    effect: Effect,
    stored: Option<Record>,
    /// When each generation was first sent, in real time, and what.
    pub(super) sent: BTreeMap<u32, (UnixMillis, Outgoing)>,
    /// Requests still under way.
    delayed: Vec<(Outgoing, Conduct)>,
    /// When the latest state was made that an event told of the effect.
    pub(super) told_s: Option<i64>,
}

impl World {
    pub(super) fn new(alone: bool, effect: Effect) -> Self {
        let now = Moment { wall_ms: NOW, boot: BootTime { boot_id: 1, ms: 0 } };
        Self {
            real_ms: NOW,
            now,
            seen: now,
            stripe: Stripe::default(),
            seat: Seat { owner: 1, alone },
            effect,
            stored: None,
            sent: BTreeMap::new(),
            delayed: Vec::new(),
            told_s: None,
        }
    }

    pub(super) fn record(&self) -> Option<Record> {
        self.stored.clone()
    }

    fn store(&mut self, record: &Record) {
        self.stored = Some(Record::decode(&record.encode().unwrap()).unwrap());
    }

    fn pass(&mut self, minutes: u16) {
        let ms = UnixMillis::from(minutes) * MINUTE;
        self.real_ms += ms;
        self.now.wall_ms += ms;
        self.now.boot.ms += ms;
    }

    /// The process reads its clocks, which it does at every call and about every minute.
    fn watch(&mut self) {
        let back = lease::went_back(self.seen, self.now);
        if let Some(marked) = self.record().and_then(|record| lease::doubted(&record, self.now, back)) {
            self.store(&marked);
        }
        self.seen = lease::watched(self.seen, self.now);
    }

    pub(super) fn step(&mut self, step: &Step) {
        self.watch();
        match step {
            Step::Call { amount, retry_refused, paused, attempts, crash } => {
                self.call(*amount, *retry_refused, *paused, attempts, *crash);
            }
            Step::Pass { minutes } => self.pass(*minutes),
            Step::SetBack { minutes } => {
                self.now.wall_ms -= UnixMillis::from(*minutes) * MINUTE;
                self.watch();
            }
            Step::Reboot => {
                self.now.boot = BootTime { boot_id: self.now.boot.boot_id + 1, ms: 0 };
                self.seat.owner += 1;
            }
            Step::Look => self.look(),
            Step::Complete => {
                let unfinished = std::mem::take(&mut self.stripe.unfinished);
                self.stripe.effects.extend(unfinished);
            }
            Step::Events => self.events(),
            Step::Rule => self.rule(),
            Step::Turn => self.turn(),
            Step::Prune => {
                if let Some(pruned) = self.record().and_then(|record| finding::pruned(&record, self.now)) {
                    self.store(&pruned);
                }
            }
        }
        for (request, conduct) in std::mem::take(&mut self.delayed) {
            self.stripe.receive(&request, conduct, self.real_ms);
        }
    }

    fn call(
        &mut self,
        amount: u8,
        retry_refused: bool,
        paused: u16,
        attempts: &[(Network, Conduct)],
        crash: Crash,
    ) {
        let fingerprint = fingerprint(&amount.to_string());
        let before = self.record();
        let call = Call { fingerprint: &fingerprint, retry_refused, repeatable: false };
        let how = match decide(before.as_ref(), call, self.now, self.seat) {
            Decision::Send(how) => how,
            Decision::Look(_) => return self.look(),
            Decision::Answer(Known::Replay(Settled::Succeeded(_))) => {
                return assert!(before.unwrap().fingerprint == fingerprint);
            }
            Decision::Answer(_) => return,
        };
        let fresh = fresh(&amount.to_string(), &format!("amount={amount}"));
        let departure = depart(how, before.clone(), fresh, self.now, self.seat);
        let Departure { record, outgoing, ambiguous, lease } = departure;
        self.check_may_send(before.as_ref(), how);
        self.store(&record);
        if how == (Sending::Resend { ambiguous: false }) {
            // Stripe took no notice of what was sent before.
            self.sent.remove(&record.generation);
        }
        if !matches!(crash, Crash::No) {
            self.seat.owner += 1;
        }
        if matches!(crash, Crash::BeforeSend) {
            return;
        }
        self.pass(paused);
        let mut answers = Vec::new();
        for (network, conduct) in attempts {
            if !lease.holds(self.now) {
                answers.push(Attempt::NotSent(Trouble::Deadline));
                break;
            }
            self.note_sent(record.generation, &outgoing);
            answers.push(self.attempt(&outgoing, *network, *conduct));
        }
        if matches!(crash, Crash::No) {
            let verdict = verdict(&answers, ambiguous, Expected { object: "refund", keyed: true });
            let (record, _) = settled(record, outgoing, verdict, self.now);
            self.store(&record);
        }
    }

    /// One generation has one key and one body, and goes out only as long as Stripe surely knows the key.
    fn note_sent(&mut self, generation: u32, outgoing: &Outgoing) {
        let real_ms = self.real_ms;
        let (first_ms, first) = self.sent.entry(generation).or_insert_with(|| (real_ms, outgoing.clone()));
        assert_eq!(first, outgoing, "one generation, one key and one body");
        assert!(real_ms - *first_ms < FORGOTTEN_MS, "sent {} ms after the first time", real_ms - *first_ms);
    }

    fn attempt(&mut self, request: &Outgoing, network: Network, conduct: Conduct) -> Attempt {
        match network {
            Network::Deliver => Attempt::Answered(self.stripe.receive(request, conduct, self.real_ms)),
            Network::NotConnected => Attempt::NotSent(Trouble::Connect),
            Network::LoseRequest => Attempt::Broken(Trouble::Timeout),
            Network::LoseAnswer => {
                self.stripe.receive(request, conduct, self.real_ms);
                Attempt::Broken(Trouble::Reset)
            }
            Network::Delay => {
                self.delayed.push((request.clone(), conduct));
                Attempt::Broken(Trouble::Timeout)
            }
            Network::Proxy { arrives } => {
                if arrives {
                    self.stripe.receive(request, conduct, self.real_ms);
                }
                let body = Bytes::from_static(br#"{"error":"bad gateway"}"#);
                Attempt::Answered(Answer { status: 400, body, ..Answer::default() })
            }
        }
    }

    /// A new key only where nothing happened.
    fn check_may_send(&self, before: Option<&Record>, how: Sending) {
        match (before.map(|record| &record.state), how) {
            (None, Sending::New)
            | (
                Some(
                    State::Open(_)
                    | State::Lapsed
                    | State::Settled(Settled::Refused(_) | Settled::NotExecuted(_)),
                ),
                Sending::NextGeneration,
            )
            | (Some(State::Open(_)), Sending::Resend { ambiguous: false })
            | (
                Some(State::InFlight { .. } | State::Unknown { conflict: false, .. }),
                Sending::Resend { ambiguous: true },
            ) => {}
            (state, how) => panic!("{how:?} in {state:?}"),
        }
    }

    /// A look that sees what is so.
    fn look(&mut self) {
        let Some(record) = self.record().filter(Record::unresolved) else { return };
        if !lease::may_take(&record, self.seat, self.now) {
            return;
        }
        let finding = match self.stripe.effects.first() {
            Some(_) => Finding::Effected(success()),
            None => Finding::Absent { found: Vec::new() },
        };
        let why = finding::why_look(&record, self.now);
        let (record, _) = finding::looked(record, finding, why, self.effect, self.now);
        self.store(&record);
    }

    fn events(&mut self) {
        let spec = contract::by_ledger_name("refunds.create").unwrap();
        for effect in self.stripe.effects.clone() {
            let proof = EventProof {
                event_id: "evt_1".to_owned(),
                kind: "refund.created".to_owned(),
                idempotency_key: effect.idempotency_key.unwrap(),
                object: success().json.unwrap(),
                api_version: STRIPE_VERSION.to_owned(),
            };
            self.follow(|record, now| finding::proved(record, spec, &proof, now));
        }
    }

    /// An event tells what became of the effect, once there is one.
    fn turn(&mut self) {
        if self.stripe.effects.is_empty() {
            return;
        }
        let told_s = self.real_ms / 1000;
        self.told_s = Some(told_s);
        let turn = turn(&format!("evt_{told_s}"), told_s, "succeeded");
        self.follow(|record, now| finding::turned(record, &turn, now));
    }

    fn follow(&mut self, rule: impl Fn(&Record, Moment) -> Moved) {
        let Some(record) = self.record() else { return };
        if let Moved::To { record, .. } = rule(&record, self.now) {
            self.store(&record);
        }
    }

    fn rule(&mut self) {
        let Some(record) = self.record() else { return };
        // A person who knows that Stripe is still at it waits.
        if !self.stripe.unfinished.is_empty() {
            return;
        }
        let ruling = match self.stripe.effects.first() {
            Some(_) => Ruling::Executed(success()),
            None => Ruling::NotExecuted,
        };
        if let Some(record) = finding::ruled(record, ruling, self.now) {
            self.store(&record);
        }
    }
}
