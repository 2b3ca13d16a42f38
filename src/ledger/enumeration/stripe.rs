//! Stripe in memory: keys, stored answers, effects, and how it answers as it is told. It knows nothing of the ledger.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::domain::clock::UnixMillis;
use crate::stripe::{Answer, Attempt, Body, Outgoing, Trouble};

/// Stripe may forget a key from this age on (docs.stripe.com/api/idempotent_requests).
const FORGOTTEN_MS: UnixMillis = 24 * 3_600_000;

/// How a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Executed,
    /// 402, kept under the key.
    Declined,
    /// 400, turned down before it began.
    Invalid,
    Unauthorized,
    /// 409: the key is in use.
    Conflict,
    Limited,
    /// 500, not kept.
    Failed,
    /// 500, kept under the key, nothing happened.
    FailedKept,
    /// 500, kept under the key, and it happened.
    FailedKeptWithEffect,
    /// 500, kept under the key, and Stripe completes it hours later.
    FailedKeptCompletedLater,
    /// A proxy answers, the request did not arrive.
    Proxy,
    /// A proxy answers, the request arrived.
    ProxyArrived,
    NotConnected,
    LostRequest,
    LostAnswer,
    /// No answer, and the request arrives a minute later.
    Delayed,
}

/// What the first request meets.
pub(super) const FIRST: [Outcome; 16] = [
    Outcome::Executed,
    Outcome::Declined,
    Outcome::Invalid,
    Outcome::Unauthorized,
    Outcome::Conflict,
    Outcome::Limited,
    Outcome::Failed,
    Outcome::FailedKept,
    Outcome::FailedKeptWithEffect,
    Outcome::FailedKeptCompletedLater,
    Outcome::Proxy,
    Outcome::ProxyArrived,
    Outcome::NotConnected,
    Outcome::LostRequest,
    Outcome::LostAnswer,
    Outcome::Delayed,
];
/// What the second meets; from the third on Stripe does what it is asked.
pub(super) const NEXT: [Outcome; 4] =
    [Outcome::Executed, Outcome::Limited, Outcome::Declined, Outcome::LostAnswer];

/// One thing that happened.
#[derive(Clone, Debug)]
pub(super) struct Effected {
    pub(super) key: String,
    pub(super) object_id: String,
}

/// Stripe.
#[derive(Debug, Default)]
pub(super) struct Stripe {
    script: VecDeque<Outcome>,
    keys: BTreeMap<String, (UnixMillis, Body, u16, String)>,
    pub(super) effects: Vec<Effected>,
    /// Requests that arrive later, and effects that Stripe completes later.
    late: Vec<(UnixMillis, Late)>,
    completed_after_ms: UnixMillis,
    /// Every request that was sent to it, with its time.
    pub(super) asked: Vec<(UnixMillis, Outgoing)>,
    /// When a request first went out under a key that may have had an effect.
    pub(super) taken: BTreeMap<String, UnixMillis>,
}

#[derive(Clone, Debug)]
enum Late {
    Arrives(Outgoing),
    Completes(String),
}

impl Stripe {
    /// One that completes in `completed_after_ms` what it failed to do at first, where the script says so.
    pub(super) fn scripted(outcomes: [Outcome; 2], completed_after_ms: UnixMillis) -> Self {
        Self { script: outcomes.into(), completed_after_ms, ..Self::default() }
    }

    /// From now on it does what it is asked.
    pub(super) fn behave(&mut self) {
        self.script.clear();
    }

    /// What the sender of a request learns.
    pub(super) fn exchange(&mut self, request: &Outgoing, now: UnixMillis) -> Attempt {
        self.pass(now);
        self.asked.push((now, request.clone()));
        let outcome = self.script.pop_front().unwrap_or(Outcome::Executed);
        let harmless = [Outcome::NotConnected, Outcome::Unauthorized, Outcome::Limited, Outcome::Conflict];
        if !harmless.contains(&outcome) {
            self.taken.entry(request.idempotency_key.clone().unwrap()).or_insert(now);
        }
        let foreign = || {
            let body = Bytes::from_static(b"<html>Bad Gateway</html>");
            Attempt::Answered(Answer { status: 502, body, ..Answer::default() })
        };
        match outcome {
            Outcome::NotConnected => Attempt::NotSent(Trouble::Connect),
            Outcome::LostRequest => Attempt::Broken(Trouble::Timeout),
            Outcome::Proxy => foreign(),
            Outcome::Delayed => {
                self.late.push((now + 60_000, Late::Arrives(request.clone())));
                Attempt::Broken(Trouble::Timeout)
            }
            Outcome::ProxyArrived => {
                self.receive(request, Outcome::Executed, now);
                foreign()
            }
            Outcome::LostAnswer => {
                self.receive(request, Outcome::Executed, now);
                Attempt::Broken(Trouble::Reset)
            }
            _ => Attempt::Answered(self.receive(request, outcome, now)),
        }
    }

    /// Time passes: what is late comes, and old keys are forgotten.
    pub(super) fn pass(&mut self, now: UnixMillis) {
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= now);
        self.late = later;
        for (at, late) in due {
            match late {
                Late::Arrives(request) => drop(self.receive(&request, Outcome::Executed, at)),
                Late::Completes(key) => self.effect(key),
            }
        }
        self.keys.retain(|_, (stored, ..)| now - *stored < FORGOTTEN_MS);
    }

    fn receive(&mut self, request: &Outgoing, outcome: Outcome, now: UnixMillis) -> Answer {
        self.keys.retain(|_, (stored, ..)| now - *stored < FORGOTTEN_MS);
        let key = request.idempotency_key.clone().unwrap();
        // Decided before the key is looked at (docs.stripe.com/error-low-level).
        match outcome {
            Outcome::Unauthorized => return error(401, "invalid_request_error"),
            Outcome::Limited => return error(429, "invalid_request_error"),
            Outcome::Conflict => return error(409, "idempotency_error"),
            _ => {}
        }
        if let Some((_, body, status, answer)) = self.keys.get(&key) {
            return if *body == request.body {
                Answer {
                    status: *status,
                    replayed: true,
                    body: Bytes::from(answer.clone()),
                    ..Answer::default()
                }
            } else {
                error(400, "idempotency_error")
            };
        }
        match outcome {
            Outcome::Invalid => return error(400, "invalid_request_error"),
            Outcome::Failed => return error(500, "api_error"),
            _ => {}
        }
        let answer = match outcome {
            Outcome::Declined => error(402, "card_error"),
            Outcome::FailedKept => error(500, "api_error"),
            Outcome::FailedKeptWithEffect => {
                self.effect(key.clone());
                error(500, "api_error")
            }
            Outcome::FailedKeptCompletedLater => {
                self.late.push((now + self.completed_after_ms, Late::Completes(key.clone())));
                error(500, "api_error")
            }
            _ => {
                self.effect(key.clone());
                let id = self.effects.last().map_or("", |effected| &effected.object_id);
                let body = Bytes::from(format!(r#"{{"id":"{id}","object":"refund"}}"#));
                Answer { status: 200, body, ..Answer::default() }
            }
        };
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        self.keys.insert(key, (now, request.body.clone(), answer.status, text));
        answer
    }

    fn effect(&mut self, key: String) {
        let object_id = format!("re_{}", self.effects.len() + 1);
        self.effects.push(Effected { key, object_id });
    }
}

fn error(status: u16, kind: &str) -> Answer {
    let body = Bytes::from(format!(r#"{{"error":{{"type":"{kind}"}}}}"#));
    Answer { status, body, ..Answer::default() }
}
