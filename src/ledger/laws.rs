//! The ledger's laws, against a Stripe in memory that loses, delays, stores, completes late and forgets: whatever happens
//! in whatever order, an operation takes effect at most once, and what is known of it is true.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::finding::{self, EventProof, Finding, Moved, Ruling, Turn};
use super::fixtures::{NOW, fingerprint, fresh, success};
use super::lease::{self, Seat};
use super::outcome::{Settled, Success};
use super::proof::{Expected, verdict};
use super::state::{Record, State};
use super::transition::{Call, Decision, Departure, Known, Sending, decide, depart, settled};
use crate::contract::{self, Effect};
use crate::domain::clock::{BootTime, Moment, UnixMillis};
use crate::domain::planted;
use crate::stripe::outgoing::STRIPE_VERSION;
use crate::stripe::{Answer, Attempt, Body, Outgoing, Trouble};

const MINUTE: UnixMillis = 60_000;
/// Stripe may forget a key from this age on.
const FORGOTTEN_MS: UnixMillis = 24 * 60 * MINUTE;

/// What Stripe does with a request whose key it does not know.
#[derive(Clone, Copy, Debug)]
enum Conduct {
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
enum Network {
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
enum Crash {
    No,
    /// After the intent was stored and before anything was sent.
    BeforeSend,
    /// After the last answer and before it was stored.
    BeforeSettle,
}

#[derive(Clone, Debug)]
enum Step {
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
struct Stripe {
    keys: BTreeMap<String, (UnixMillis, Outgoing, u16)>,
    effects: Vec<Outgoing>,
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
struct World {
    real_ms: UnixMillis,
    now: Moment,
    stripe: Stripe,
    seat: Seat,
    effect: Effect,
    stored: Option<Record>,
    /// When each generation was first sent, in real time, and what.
    sent: BTreeMap<u32, (UnixMillis, Outgoing)>,
    /// Requests still under way.
    delayed: Vec<(Outgoing, Conduct)>,
}

impl World {
    fn new(alone: bool, effect: Effect) -> Self {
        Self {
            real_ms: NOW,
            now: Moment { wall_ms: NOW, boot: BootTime { boot_id: 1, ms: 0 } },
            stripe: Stripe::default(),
            seat: Seat { owner: 1, alone },
            effect,
            stored: None,
            sent: BTreeMap::new(),
            delayed: Vec::new(),
        }
    }

    fn record(&self) -> Option<Record> {
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
        if let Some(marked) = self.record().and_then(|record| lease::marked(&record, self.now)) {
            self.store(&marked);
        }
    }

    fn step(&mut self, step: &Step) {
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
            Step::Turn => {
                let turn = Turn {
                    event_id: "evt_2".to_owned(),
                    kind: "refund.updated".to_owned(),
                    created_s: self.real_ms / 1000,
                    object: success().json.unwrap(),
                    api_version: STRIPE_VERSION.to_owned(),
                };
                self.follow(|record, now| finding::turned(record, &turn, now));
            }
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
            self.note_sent(record.generation, &outgoing, matches!(how, Sending::Resend { ambiguous: false }));
            answers.push(self.attempt(&outgoing, *network, *conduct));
        }
        if matches!(crash, Crash::No) {
            let verdict = verdict(&answers, ambiguous, Expected { object: "refund", keyed: true });
            self.store(&settled(record, outgoing, &verdict, self.now));
        }
    }

    /// One generation has one key and one body, and goes out only as long as Stripe surely knows the key.
    fn note_sent(&mut self, generation: u32, outgoing: &Outgoing, again: bool) {
        if again {
            self.sent.remove(&generation);
        }
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

fn step(effect: Effect) -> impl Strategy<Value = Step> {
    let network = prop_oneof![
        4 => Just(Network::Deliver),
        1 => Just(Network::NotConnected),
        1 => Just(Network::LoseRequest),
        2 => Just(Network::LoseAnswer),
        2 => Just(Network::Delay),
        1 => any::<bool>().prop_map(|arrives| Network::Proxy { arrives }),
    ];
    // That a change of no money may come late is accepted.
    let late = u32::from(effect == Effect::Money);
    let conduct = prop_oneof![
        6 => Just(Conduct::Execute),
        4 => Just(Conduct::Decline),
        4 => Just(Conduct::Invalid),
        2 => any::<bool>().prop_map(|effect| Conduct::Fail { effect }),
        2 => Just(Conduct::RateLimit),
        2 * late => Just(Conduct::FailAndComplete),
    ];
    let crash =
        prop_oneof![6 => Just(Crash::No), 1 => Just(Crash::BeforeSend), 1 => Just(Crash::BeforeSettle)];
    let paused = prop_oneof![6 => Just(0), 1 => 3..7u16, 1 => 60..1500u16];
    let attempts = proptest::collection::vec((network, conduct), 0..4);
    let call = (1..=2u8, any::<bool>(), paused, attempts, crash).prop_map(
        |(amount, retry_refused, paused, attempts, crash)| Step::Call {
            amount,
            retry_refused,
            paused,
            attempts,
            crash,
        },
    );
    // Steps around the limits of 23 and 24 hours are as likely as short ones.
    let minutes = || prop_oneof![0..60u16, 1370..1390u16, 1435..1445u16, Just(43_200)];
    prop_oneof![
        12 => call,
        4 => minutes().prop_map(|minutes| Step::Pass { minutes }),
        1 => minutes().prop_map(|minutes| Step::SetBack { minutes }),
        1 => Just(Step::Reboot),
        2 => Just(Step::Look),
        1 => Just(Step::Complete),
        1 => Just(Step::Events),
        1 => Just(Step::Rule),
        1 => Just(Step::Turn),
        1 => Just(Step::Prune),
    ]
}

fn story(effect: Effect) -> impl Strategy<Value = (bool, Vec<Step>)> {
    (any::<bool>(), proptest::collection::vec(step(effect), 1..16))
}

/// What has to be so after every step.
fn check(before: Option<&Record>, world: &World) -> Result<(), TestCaseError> {
    let after = world.record();
    let effects = world.stripe.effects.len();
    prop_assert!(effects <= 1, "{:?}", world.stripe.effects);
    match after.as_ref().map(|record| &record.state) {
        Some(State::Settled(Settled::Succeeded(_))) => prop_assert_eq!(effects, 1),
        Some(State::Settled(_) | State::Open(_) | State::Lapsed) | None => {
            prop_assert_eq!(effects, 0, "called nothing, and it happened");
        }
        Some(State::InFlight { .. } | State::Unknown { .. } | State::NeedsOperator { .. }) => {}
    }
    let Some(before) = before else { return Ok(()) };
    prop_assert!(after.is_some(), "an operation was forgotten");
    let Some(after) = after else { return Ok(()) };
    prop_assert!(after.last_ms >= before.last_ms && after.generation >= before.generation);
    prop_assert!(
        after.age_lost || !before.age_lost || after.generation > before.generation || !after.unresolved()
    );
    if let State::Settled(Settled::Succeeded(Success { object_id, .. })) = &before.state {
        let State::Settled(Settled::Succeeded(success)) = &after.state else {
            return Err(TestCaseError::fail("a success is final"));
        };
        prop_assert_eq!(&success.object_id, object_id);
        prop_assert_eq!(&after.fingerprint, &before.fingerprint);
    }
    Ok(())
}

fn law(effect: Effect, alone: bool, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new(alone, effect);
    for step in steps {
        let before = world.record();
        world.step(step);
        check(before.as_ref(), &world)?;
    }
    let keys: BTreeSet<_> = world.sent.values().map(|(_, sent)| &sent.idempotency_key).collect();
    prop_assert_eq!(keys.len(), world.sent.len(), "every generation has a key of its own");
    prop_assert!(world.sent.values().all(|(_, sent)| matches!(sent.body, Body::Form(_))));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn money_moves_at_most_once((alone, steps) in story(Effect::Money)) {
        law(Effect::Money, alone, &steps)?;
    }

    #[test]
    fn a_change_takes_effect_at_most_once((alone, steps) in story(Effect::Write)) {
        law(Effect::Write, alone, &steps)?;
    }
}

/// Whether the laws notice the fault `name`: a check of the laws, not of the ledger.
fn caught(name: &str) {
    let config =
        Config { cases: 20_000, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let _held = planted::plant(name);
    let broken = runner.run(&story(Effect::Money), |(alone, steps)| law(Effect::Money, alone, &steps));
    assert!(broken.is_err(), "no law noticed `{name}`");
}

#[test]
fn a_new_key_for_every_retry_is_caught() {
    caught("key-per-retry");
}

#[test]
fn a_refusal_for_too_many_requests_that_counts_for_earlier_attempts_is_caught() {
    caught("refused-on-429");
}

#[test]
fn an_unknown_outcome_taken_for_a_failure_is_caught() {
    caught("unknown-as-failed");
}

#[test]
fn a_resend_under_a_key_that_stripe_forgot_is_caught() {
    caught("pruned-key-resent");
}

#[test]
fn trust_in_the_wall_clock_alone_is_caught() {
    caught("wall-clock-only");
}

#[test]
fn a_lease_that_is_not_checked_before_sending_is_caught() {
    caught("lease-ignored");
}

#[test]
fn a_new_key_for_an_unknown_outcome_is_caught() {
    caught("new-after-unknown");
}

#[test]
fn other_parameters_that_are_sent_for_a_settled_operation_are_caught() {
    caught("mismatch-sent");
}

#[test]
fn a_generation_whose_key_was_used_before_is_caught() {
    caught("generation-reused");
}

#[test]
fn money_that_was_not_found_and_counts_as_never_sent_is_caught() {
    caught("absent-as-refused");
}
