//! Turns records and events into the steps of a story, in the order in which they happened.

use super::message::instant;
use crate::audit::{Phase, Record, Shown, Try};
use crate::domain::clock::UnixMillis;
use crate::events::Envelope;
use crate::proto::v1::{TraceStep, TraceStepKind};
use crate::store::StoredEvent;

/// Parameters that a step names.
const PARAMS_MAX: usize = 8;

/// Steps with their time and, within it, their place.
#[derive(Debug, Default)]
pub(super) struct Story(Vec<(UnixMillis, u64, TraceStep)>);

impl Story {
    /// The steps of a record.
    pub(super) fn record(&mut self, sequence: u64, record: &Record) {
        match record.phase {
            Phase::Intent => {
                self.call(sequence, record);
                let key = record.idempotency_key.as_deref().unwrap_or("none");
                let try_number = record.generation.unwrap_or(1);
                let text = format!("{}; generation {try_number}, idempotency key {key}", permitted(record));
                self.step(record.at_ms, sequence, record, TraceStepKind::Decision, text);
            }
            Phase::Outcome => {
                let latency =
                    record.latency_ms.and_then(|latency| i64::try_from(latency).ok()).unwrap_or_default();
                for (number, one) in (1..).zip(tries(record)) {
                    let text = format!("request {number} to Stripe: {}", attempt(&one));
                    // When sending began; the record is of its end.
                    self.step(
                        record.at_ms.saturating_sub(latency),
                        sequence,
                        record,
                        TraceStepKind::Attempt,
                        text,
                    );
                    if let Some((_, _, step)) = self.0.last_mut() {
                        step.stripe_request_id = one.request_id.unwrap_or_default();
                    }
                }
                self.step(record.at_ms, sequence, record, TraceStepKind::Answer, answer(record));
            }
            Phase::Answered | Phase::Refused => {
                self.call(sequence, record);
                let text = format!("{}, nothing was sent", answer(record));
                self.step(record.at_ms, sequence, record, TraceStepKind::Answer, text);
            }
            Phase::Denied => {
                self.call(sequence, record);
                let rule = record.decision.as_deref().unwrap_or("no rule permits it");
                self.step(record.at_ms, sequence, record, TraceStepKind::Decision, format!("denied: {rule}"));
            }
            Phase::Read => {
                let text = format!("{}: {}", asked(record), answer(record));
                self.step(record.at_ms, sequence, record, TraceStepKind::Read, text);
            }
            Phase::Admin => {
                let note = record.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
                let text = format!("{}: {}{note}", asked(record), answer(record));
                self.step(record.at_ms, sequence, record, TraceStepKind::Admin, text);
            }
        }
    }

    /// The step of an event.
    pub(super) fn event(&mut self, stored: &StoredEvent) {
        let event = &stored.event;
        let object_id = Envelope::parse(&event.json).map(|envelope| envelope.object_id).unwrap_or_default();
        let about = if object_id.is_empty() { String::new() } else { format!(" of {object_id}") };
        let step = TraceStep {
            time: Some(instant(event.received_ms)),
            kind: TraceStepKind::Event.into(),
            text: format!("event {}{about}", event.kind),
            event_id: event.id.clone(),
            object_id,
            ..TraceStep::default()
        };
        // Of one instant, what the gateway did stands before what it heard.
        self.0.push((event.received_ms, u64::MAX, step));
    }

    /// The steps in their order.
    pub(super) fn steps(mut self) -> Vec<TraceStep> {
        self.0.sort_by_key(|(at_ms, place, _)| (*at_ms, *place));
        self.0.into_iter().map(|(_, _, step)| step).collect()
    }

    fn call(&mut self, sequence: u64, record: &Record) {
        self.step(record.at_ms, sequence, record, TraceStepKind::Call, asked(record));
    }

    fn step(&mut self, at_ms: UnixMillis, sequence: u64, record: &Record, kind: TraceStepKind, text: String) {
        let step = TraceStep {
            time: Some(instant(at_ms)),
            kind: kind.into(),
            text,
            audit_id: record.id.clone(),
            object_id: record.object_id.clone().unwrap_or_default(),
            ..TraceStep::default()
        };
        self.0.push((at_ms, sequence, step));
    }
}

fn asked(record: &Record) -> String {
    let who = if record.caller.is_empty() { "the gateway" } else { &record.caller };
    let actor = record.actor.as_ref().map(|actor| format!(" for {actor}")).unwrap_or_default();
    let rpc = record.rpc.trim_start_matches("tollgate.v1.");
    let order = match (&record.order_id, record.operation_id.as_deref().unwrap_or_default()) {
        (Some(order), "") => format!(", order {order}"),
        (Some(order), operation) => format!(", order {order}, operation {operation}"),
        (None, _) => String::new(),
    };
    let params: Vec<String> = record
        .params
        .iter()
        .take(PARAMS_MAX)
        .map(|param| match &param.shown {
            Shown::Value(value) => format!("{}={value}", param.name),
            Shown::Hash(_) | Shown::Withheld => format!("{}=(hidden)", param.name),
        })
        .collect();
    let more = if record.params.len() > PARAMS_MAX { ", ..." } else { "" };
    let params = if params.is_empty() { String::new() } else { format!(": {}{more}", params.join(", ")) };
    format!("{who}{actor} called {rpc}{order}{params}")
}

fn permitted(record: &Record) -> String {
    record
        .decision
        .as_ref()
        .map_or_else(|| "permitted".to_owned(), |rule| format!("permitted by rule {rule}"))
}

/// The requests that were sent; records of earlier versions name only those that were answered.
fn tries(record: &Record) -> Vec<Try> {
    if !record.tries.is_empty() {
        return record.tries.clone();
    }
    let answered = record.stripe_request_ids.iter();
    answered.map(|id| Try { request_id: Some(id.clone()), ..Try::default() }).collect()
}

fn attempt(one: &Try) -> String {
    match (&one.trouble, one.http_status, &one.request_id) {
        (Some(trouble), _, _) => format!("no answer, {trouble}"),
        (None, Some(status), Some(id)) => format!("{status}, {id}"),
        (None, Some(status), None) => status.to_string(),
        (None, None, Some(id)) => id.clone(),
        (None, None, None) => "unknown".to_owned(),
    }
}

fn answer(record: &Record) -> String {
    let outcome = record.outcome.clone().unwrap_or_default();
    let reason = outcome.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let object = record.object_id.as_ref().map(|id| format!(", {id}")).unwrap_or_default();
    let amount = match (record.amount_minor, &record.currency) {
        (Some(amount), Some(currency)) => format!(", {amount} {currency} in its smallest unit"),
        _ => String::new(),
    };
    format!("{}{reason}{object}{amount}", outcome.result)
}
