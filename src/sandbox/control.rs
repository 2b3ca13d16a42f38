//! Control of a running sandbox, in process and under `/_sandbox/`: book, clock, faults, keys, webhook targets. It must not be
//! reachable from other machines without the key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::fault::{self, Fault};
use super::pipeline::{Asked, Reply};
use super::{Burst, RestrictedKey, Shared, WebhookTarget, burst, object, payments, triggers};

/// Where the control endpoints live.
pub(super) const PREFIX: &str = "/_sandbox/";

/// Control in the same process.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Every executed change in order, counters of requests received, replayed and refused, and the events that targets
    /// acknowledged.
    #[must_use]
    pub fn book(&self) -> Value {
        json!(self.shared.state().kept.book)
    }

    /// How many requests arrived so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.state().kept.book.received
    }

    /// How many deliveries of events are due, under way or planned.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        let state = self.shared.state();
        state.kept.outbox.len() + state.kept.schedule.deliveries()
    }

    /// Sandbox time in Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.shared.state().now_ms()
    }

    /// Moves the test clock forward: due changes happen, old keys are forgotten.
    pub fn advance(&self, by: Duration) {
        self.shared.state().advance(by);
    }

    /// Adds a fault behind those already waiting.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// Answers a PaymentIntent that waits for its customer (`requires_action`): authenticated, or not.
    ///
    /// # Errors
    /// What the API would say: no such PaymentIntent, or it does not wait.
    pub fn authenticate(&self, payment_intent: &str, passed: bool) -> Result<Value, String> {
        let intent = payments::authenticate(&mut self.shared.state(), payment_intent, passed);
        intent.map(|intent| object::shown(&intent)).map_err(|error| error.to_string())
    }

    /// Makes a plausible object with the flow that ends in an event of the given type, and answers the object. Events of
    /// things that take time, such as a payout's arrival, follow in sandbox time.
    ///
    /// # Errors
    /// When the type has no flow, with those that have, or when the flow's own calls are refused.
    pub fn trigger(&self, event_type: &str) -> Result<Value, String> {
        triggers::run(&mut self.shared.state(), event_type)
    }

    /// Makes many events at once; their ids in the order in which they happened.
    ///
    /// # Errors
    /// When the burst is none, or too large.
    pub fn burst(&self, burst: Burst) -> Result<Vec<String>, String> {
        burst::make(&mut self.shared.state(), burst)
    }

    /// Gives up every delivery that is due or waits for its time, as Stripe does after three days; one under way goes on.
    /// Returns how many that were.
    #[must_use]
    pub fn give_up(&self) -> usize {
        let mut state = self.shared.state();
        state.kept.outbox.give_up() + state.kept.schedule.give_up()
    }

    /// From now on a delivery is given up after so many tries.
    pub fn set_delivery_tries(&self, tries_max: u32) {
        self.shared.state().delivery_tries_max = tries_max;
    }

    /// Replaces the targets that get events in their thin form (`v2.core.event`).
    pub fn set_thin_webhooks(&self, targets: Vec<WebhookTarget>) {
        self.shared.state().thin_webhooks = targets;
    }

    /// Replaces the webhook targets.
    pub fn set_webhooks(&self, targets: Vec<WebhookTarget>) {
        self.shared.state().webhooks = targets;
    }

    /// Replaces the restricted keys that are let in besides the secret key.
    pub fn set_restricted_keys(&self, keys: Vec<RestrictedKey>) {
        self.shared.state().restricted_keys = keys;
    }
}

/// Answers a control request.
pub(super) fn answer(shared: &Arc<Shared>, asked: &Asked, peer: IpAddr) -> Reply {
    let bearer = format!("Bearer {}", shared.options.secret_key);
    if !peer.is_loopback() && asked.header("authorization") != Some(&bearer) {
        return refused(403, "control is open to this machine, or with the secret key");
    }
    let control = Control::new(Arc::clone(shared));
    let name = asked.path.strip_prefix(PREFIX).unwrap_or_default();
    let done = match (asked.method.as_str(), name) {
        ("GET", "book") => Ok(control.book()),
        ("GET", "clock") => Ok(json!({"now_ms": control.now_ms()})),
        ("POST", "clock/advance") => body(asked).and_then(|body| advance(&control, &body)),
        ("GET", "faults") => Ok(json!(shared.state().faults)),
        ("POST", "faults") => body(asked).and_then(|body| faults(&control, body)),
        ("DELETE", "faults") => {
            control.clear_faults();
            Ok(json!([]))
        }
        ("POST", "authenticate") => body(asked).and_then(|body| authenticate(&control, &body)),
        ("POST", "deliveries") => body(asked).and_then(|body| deliveries(&control, &body)),
        ("DELETE", "deliveries") => Ok(json!({"given_up": control.give_up()})),
        ("POST", "events") => body(asked).and_then(|body| made(&control, body)),
        ("POST", "keys") => body(asked).and_then(|body| keys(&control, body)),
        ("POST", "webhooks") => body(asked).and_then(|body| webhooks(&control, body, Control::set_webhooks)),
        ("POST", "webhooks/thin") => {
            body(asked).and_then(|body| webhooks(&control, body, Control::set_thin_webhooks))
        }
        ("POST", name) if name.starts_with("triggers/") => {
            control.trigger(name.trim_start_matches("triggers/"))
        }
        _ => return refused(404, "no such control endpoint"),
    };
    match done {
        Ok(value) => Reply::json(200, &value),
        Err(message) => refused(400, &message),
    }
}

fn refused(status: u16, message: &str) -> Reply {
    Reply::json(status, &json!({"error": {"message": message}}))
}

fn body(asked: &Asked) -> Result<Value, String> {
    serde_json::from_slice(&asked.body).map_err(|error| format!("body is not JSON: {error}"))
}

fn advance(control: &Control, body: &Value) -> Result<Value, String> {
    let seconds = body.get("seconds").and_then(Value::as_u64).ok_or("`seconds` must be a whole number")?;
    control.advance(Duration::from_secs(seconds));
    Ok(json!({"now_ms": control.now_ms()}))
}

fn faults(control: &Control, body: Value) -> Result<Value, String> {
    let faults = match body {
        Value::Array(faults) => faults,
        one => vec![one],
    };
    let faults: Result<Vec<_>, fault::Error> = faults.into_iter().map(Fault::from_json).collect();
    for fault in faults.map_err(|error| error.to_string())? {
        control.add_fault(fault);
    }
    Ok(json!(control.shared.state().faults))
}

fn authenticate(control: &Control, body: &Value) -> Result<Value, String> {
    let intent =
        body.get("payment_intent").and_then(Value::as_str).ok_or("`payment_intent` must be an id")?;
    let passed = body.get("passed").and_then(Value::as_bool).unwrap_or(true);
    control.authenticate(intent, passed)
}

fn keys(control: &Control, body: Value) -> Result<Value, String> {
    let keys: Vec<RestrictedKey> = serde_json::from_value(body).map_err(|error| error.to_string())?;
    let keys = keys.into_iter().map(RestrictedKey::checked).collect::<Result<Vec<_>, _>>()?;
    let count = keys.len();
    control.set_restricted_keys(keys);
    Ok(json!(count))
}

fn deliveries(control: &Control, body: &Value) -> Result<Value, String> {
    let tries = body.get("tries_max").and_then(Value::as_u64).and_then(|tries| u32::try_from(tries).ok());
    let tries = tries.filter(|tries| *tries > 0).ok_or("`tries_max` must be a whole number above 0")?;
    control.set_delivery_tries(tries);
    Ok(json!({"tries_max": tries}))
}

fn made(control: &Control, body: Value) -> Result<Value, String> {
    let burst: Burst = serde_json::from_value(body).map_err(|error| error.to_string())?;
    control.burst(burst).map(|ids| json!({"events": ids}))
}

fn webhooks(control: &Control, body: Value, set: fn(&Control, Vec<WebhookTarget>)) -> Result<Value, String> {
    let targets = match body {
        Value::Array(_) => body,
        one => Value::Array(vec![one]),
    };
    let targets: Vec<WebhookTarget> = serde_json::from_value(targets).map_err(|error| error.to_string())?;
    let urls: Vec<_> = targets.iter().map(|target| target.url.clone()).collect();
    set(control, targets);
    Ok(json!(urls))
}
