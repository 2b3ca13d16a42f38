//! What the ledger adds to audit records: which operation, which try, and what came of it.

use serde_json::Value;

use super::outcome::{Refusal, Settled, Success};
use super::proof::Verdict;
use super::state::Record;
use crate::audit::{self, Outcome, Phase, Try};
use crate::domain::operation::{Operation, OperationHash};
use crate::stripe::{Answer, Attempt, Outgoing};

/// The reason that callers are given too.
const BUDGET_EXCEEDED: &str = "BUDGET_EXCEEDED";

/// A change that is about to be sent.
pub(super) fn intent(audit: &mut audit::Record, record: &Record, outgoing: &Outgoing) {
    audit.phase = Phase::Intent;
    sent(audit, record, outgoing);
}

/// The operation that a stored audit record is the intent of, if it is one of a change of `path`.
pub(super) fn intent_of(record: &[u8], path: &str) -> Option<OperationHash> {
    let record: audit::Record = serde_json::from_slice(record).ok()?;
    let intent = record.phase == Phase::Intent && record.path.as_deref() == Some(path);
    record.operation.filter(|_| intent).as_deref().and_then(OperationHash::parse)
}

/// A call that sent nothing, and why.
pub(super) fn answered(audit: &mut audit::Record, operation: &Operation, result: &str) {
    audit.phase = Phase::Answered;
    audit.concern(operation);
    audit.conclude(result);
}

/// The same, where a budget forbade the call.
pub(super) fn denied(audit: &mut audit::Record, rule: String) {
    audit.phase = Phase::Denied;
    audit.decision = Some(rule);
    if let Some(outcome) = &mut audit.outcome {
        outcome.reason = Some(BUDGET_EXCEEDED.to_owned());
    }
}

/// A change that was sent, and what came of it.
pub(super) fn outcome(
    audit: &mut audit::Record,
    record: &Record,
    outgoing: &Outgoing,
    verdict: &Verdict,
    attempts: &[Attempt],
) {
    audit.phase = Phase::Outcome;
    sent(audit, record, outgoing);
    let answers = attempts.iter().filter_map(answer_of);
    audit.stripe_request_ids = answers.clone().filter_map(|answer| answer.request_id.clone()).collect();
    audit.attempts = Some(u32::try_from(attempts.len()).unwrap_or(u32::MAX));
    audit.tries = attempts.iter().map(one_try).collect();
    let last = answers.last();
    let reason = match (verdict, last) {
        (Verdict::Settled(Settled::Succeeded(success)), _) => return succeeded(audit, success, last),
        (Verdict::Settled(Settled::Refused(refusal)), _) => reason_of(refusal),
        (Verdict::Settled(Settled::NotExecuted(_)), _) => None,
        (Verdict::NeedsOperator(case), _) => Some(case.why.as_str().to_owned()),
        (Verdict::Unknown { conflict: true, .. }, _) => Some("key_conflict".to_owned()),
        (Verdict::Open { last } | Verdict::Unknown { last, .. }, _) => last.as_ref().and_then(trouble_of),
    };
    let http_status = last.map(|answer| answer.status);
    audit.outcome = Some(Outcome { result: word(verdict).to_owned(), http_status, reason });
}

/// An operation that was found out about without sending: by a look, an event or a person, as `way` says.
pub(super) fn resolved(audit: &mut audit::Record, record: &Record, verdict: &Verdict, way: &str) {
    audit.concern(&record.operation);
    audit.generation = Some(record.generation);
    audit.conclude(word(verdict));
    if let Verdict::Settled(Settled::Succeeded(success)) = verdict {
        succeeded(audit, success, None);
    }
    if let Some(outcome) = &mut audit.outcome {
        outcome.reason = Some(way.to_owned());
    }
}

fn sent(audit: &mut audit::Record, record: &Record, outgoing: &Outgoing) {
    audit.concern(&record.operation);
    audit.generation = Some(record.generation);
    audit.idempotency_key = outgoing.idempotency_key.clone();
    audit.path = Some(outgoing.path.clone());
}

fn succeeded(audit: &mut audit::Record, success: &Success, last: Option<&Answer>) {
    let object: Value =
        success.json.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    audit.object_id.clone_from(&success.object_id);
    audit.amount_minor = object.get("amount").and_then(Value::as_i64);
    audit.currency = object.get("currency").and_then(Value::as_str).map(str::to_owned);
    let http_status = last.map(|answer| answer.status);
    audit.outcome = Some(Outcome { result: "succeeded".to_owned(), http_status, reason: None });
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Settled(Settled::Succeeded(_)) => "succeeded",
        Verdict::Settled(Settled::Refused(_)) => "refused",
        Verdict::Settled(Settled::NotExecuted(_)) => "not_executed",
        Verdict::NeedsOperator(_) => "needs_operator",
        Verdict::Open { .. } => "open",
        Verdict::Unknown { .. } => "unknown",
    }
}

fn reason_of(refusal: &Refusal) -> Option<String> {
    let error = refusal.error();
    Some(error.code.unwrap_or(error.kind)).filter(|reason| !reason.is_empty())
}

fn trouble_of(attempt: &Attempt) -> Option<String> {
    match attempt {
        Attempt::NotSent(trouble) | Attempt::Broken(trouble) => Some(trouble.as_str().to_owned()),
        Attempt::Answered(answer) => answer.error().map(|error| error.code.unwrap_or(error.kind)),
    }
}

fn one_try(attempt: &Attempt) -> Try {
    match attempt {
        Attempt::NotSent(trouble) | Attempt::Broken(trouble) => {
            Try { trouble: Some(trouble.as_str().to_owned()), ..Try::default() }
        }
        Attempt::Answered(answer) => {
            Try { request_id: answer.request_id.clone(), http_status: Some(answer.status), trouble: None }
        }
    }
}

fn answer_of(attempt: &Attempt) -> Option<&Answer> {
    match attempt {
        Attempt::Answered(answer) => Some(answer),
        Attempt::NotSent(_) | Attempt::Broken(_) => None,
    }
}
