//! The ledger's laws, against a Stripe in memory that loses, delays, stores and forgets: whatever happens in whatever
//! order, an operation takes effect at most once.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::fixtures::{NOW, SEAT, at, fingerprint, fresh};
use super::outcome::Settled;
use super::proof::{Expected, verdict};
use super::state::{Record, State};
use super::transition::{Call, Decision, Departure, Sending, decide, depart, settled};
use crate::domain::clock::UnixMillis;
use crate::domain::limits::RESEND_MS_MAX;
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
    Call { amount: u8, retry_refused: bool, attempts: Vec<(Network, Conduct)>, crash: Crash },
    Pass { minutes: u16 },
}

/// Stripe's memory and the effects it had.
#[derive(Default)]
struct Stripe {
    keys: BTreeMap<String, (UnixMillis, Outgoing, u16)>,
    effects: Vec<Outgoing>,
}

impl Stripe {
    fn receive(&mut self, request: &Outgoing, conduct: Conduct, now: UnixMillis) -> Answer {
        self.keys.retain(|_, (stored, _, _)| now - *stored < FORGOTTEN_MS);
        let key = request.idempotency_key.clone().unwrap();
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
            Conduct::RateLimit => (429, false, false),
        };
        if effect {
            self.effects.push(request.clone());
        }
        if stored {
            self.keys.insert(key, (now, request.clone(), status));
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

/// The gateway's side: one stored record, and the notes by which its conduct is judged.
#[derive(Default)]
struct Gateway {
    stored: Option<Vec<u8>>,
    /// What was sent under each generation.
    sent: BTreeMap<u32, Outgoing>,
    /// Requests still under way.
    delayed: Vec<(Outgoing, Conduct)>,
}

impl Gateway {
    fn record(&self) -> Option<Record> {
        self.stored.as_deref().map(|bytes| Record::decode(bytes).unwrap())
    }

    fn store(&mut self, record: &Record) {
        self.stored = Some(record.encode().unwrap());
    }

    fn call(&mut self, stripe: &mut Stripe, now: UnixMillis, step: &Step) {
        let Step::Call { amount, retry_refused, attempts, crash } = step else { return };
        let fingerprint = fingerprint(&amount.to_string());
        let before = self.record();
        let call = Call { fingerprint: &fingerprint, retry_refused: *retry_refused, repeatable: false };
        let how = match decide(before.as_ref(), call, at(now - NOW), SEAT) {
            Decision::Send(how) => how,
            Decision::Look(_) | Decision::Answer(_) => return,
        };
        check_may_send(before.as_ref(), how, now);
        let fresh = fresh(&amount.to_string(), &format!("amount={amount}"));
        let departure = depart(how, before, fresh, at(now - NOW), SEAT);
        let Departure { record, outgoing, ambiguous, .. } = departure;
        self.store(&record);
        if matches!(crash, Crash::BeforeSend) {
            return;
        }
        let first = self.sent.entry(record.generation).or_insert_with(|| outgoing.clone());
        assert_eq!(*first, outgoing, "one generation, one key and one body");
        let answers: Vec<_> =
            attempts.iter().map(|attempt| self.attempt(stripe, &outgoing, *attempt, now)).collect();
        if matches!(crash, Crash::No) {
            let verdict = verdict(&answers, ambiguous, Expected { object: "refund", keyed: true });
            self.store(&settled(record, outgoing, &verdict, at(now - NOW)));
        }
    }

    fn attempt(
        &mut self,
        stripe: &mut Stripe,
        request: &Outgoing,
        (network, conduct): (Network, Conduct),
        now: UnixMillis,
    ) -> Attempt {
        match network {
            Network::Deliver => Attempt::Answered(stripe.receive(request, conduct, now)),
            Network::NotConnected => Attempt::NotSent(Trouble::Connect),
            Network::LoseRequest => Attempt::Broken(Trouble::Timeout),
            Network::LoseAnswer => {
                stripe.receive(request, conduct, now);
                Attempt::Broken(Trouble::Reset)
            }
            Network::Delay => {
                self.delayed.push((request.clone(), conduct));
                Attempt::Broken(Trouble::Timeout)
            }
            Network::Proxy { arrives } => {
                if arrives {
                    stripe.receive(request, conduct, now);
                }
                let body = Bytes::from_static(br#"{"error":"bad gateway"}"#);
                Attempt::Answered(Answer { status: 400, body, ..Answer::default() })
            }
        }
    }
}

/// A new key only where nothing happened, an old one only as long as Stripe knows it.
fn check_may_send(before: Option<&Record>, how: Sending, now: UnixMillis) {
    match (before.map(|record| &record.state), how) {
        (None, Sending::New)
        | (Some(State::Open(_) | State::Settled(Settled::Refused(_))), Sending::NextGeneration)
        | (Some(State::Open(_)), Sending::Resend { ambiguous: false }) => {}
        (
            Some(State::InFlight { .. } | State::Unknown { conflict: false, .. }),
            Sending::Resend { ambiguous: true },
        ) => {
            let age = now - before.map_or(now, |record| record.first_sent_ms);
            assert!(age < RESEND_MS_MAX, "sent {age} ms after the first time");
        }
        (state, how) => panic!("{how:?} in {state:?}"),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let network = prop_oneof![
        4 => Just(Network::Deliver),
        1 => Just(Network::NotConnected),
        1 => Just(Network::LoseRequest),
        2 => Just(Network::LoseAnswer),
        2 => Just(Network::Delay),
        1 => any::<bool>().prop_map(|arrives| Network::Proxy { arrives }),
    ];
    let conduct = prop_oneof![
        3 => Just(Conduct::Execute),
        2 => Just(Conduct::Decline),
        2 => Just(Conduct::Invalid),
        1 => any::<bool>().prop_map(|effect| Conduct::Fail { effect }),
        1 => Just(Conduct::RateLimit),
    ];
    let crash =
        prop_oneof![6 => Just(Crash::No), 1 => Just(Crash::BeforeSend), 1 => Just(Crash::BeforeSettle)];
    let call = (1..=2u8, any::<bool>(), proptest::collection::vec((network, conduct), 0..4), crash).prop_map(
        |(amount, retry_refused, attempts, crash)| Step::Call { amount, retry_refused, attempts, crash },
    );
    // Steps around the limits of 23 and 24 hours are as likely as short ones.
    let pass = prop_oneof![0..60u16, 1370..1390u16, 1435..1445u16].prop_map(|minutes| Step::Pass { minutes });
    prop_oneof![4 => call, 1 => pass]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_operation_takes_effect_at_most_once(steps in proptest::collection::vec(step(), 1..14)) {
        let (mut stripe, mut gateway, mut now) = (Stripe::default(), Gateway::default(), NOW);
        for step in &steps {
            let before = gateway.record();
            match step {
                Step::Pass { minutes } => now += UnixMillis::from(*minutes) * MINUTE,
                Step::Call { .. } => gateway.call(&mut stripe, now, step),
            }
            for (request, conduct) in std::mem::take(&mut gateway.delayed) {
                stripe.receive(&request, conduct, now);
            }
            let after = gateway.record();
            prop_assert!(stripe.effects.len() <= 1, "{:?}", stripe.effects);
            if let Some(Record { state: State::Settled(Settled::Succeeded(_)), .. }) = &before {
                prop_assert_eq!(&after, &before, "a success is final");
            }
            match after.as_ref().map(|record| &record.state) {
                Some(State::Settled(Settled::Succeeded(_))) => prop_assert_eq!(stripe.effects.len(), 1),
                Some(State::Settled(_) | State::Open(_) | State::Lapsed) | None => {
                    prop_assert!(stripe.effects.is_empty(), "called nothing, and it happened");
                }
                Some(State::InFlight { .. } | State::Unknown { .. } | State::NeedsOperator { .. }) => {}
            }
            if let (Some(before), Some(after)) = (before, after) {
                prop_assert!(after.last_ms >= before.last_ms && after.generation >= before.generation);
            }
        }
        let bodies: Vec<_> = gateway.sent.values().map(|sent| &sent.idempotency_key).collect();
        let distinct: std::collections::BTreeSet<_> = bodies.iter().collect();
        prop_assert_eq!(distinct.len(), bodies.len(), "every generation has a key of its own");
        prop_assert!(gateway.sent.values().all(|sent| matches!(sent.body, Body::Form(_))));
    }
}
