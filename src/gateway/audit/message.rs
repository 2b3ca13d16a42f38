//! What the audit log says, as the contract's messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_types::Timestamp;

use crate::audit::checkpoint::Checkpoint;
use crate::audit::{Param, Phase, Record, Shown, Try};
use crate::domain::clock::UnixMillis;
use crate::domain::operation::hex;
use crate::proto::v1::audit_parameter::Shown as ShownMessage;
use crate::proto::v1::{AuditAttempt, AuditCheckpoint, AuditParameter, AuditPhase, AuditRecord};
use crate::store::StoredAudit;

/// A record with its place.
pub(super) fn record(stored: &StoredAudit, record: &Record) -> AuditRecord {
    let record = record.clone();
    let outcome = record.outcome.unwrap_or_default();
    AuditRecord {
        sequence: stored.sequence,
        time: Some(instant(record.at_ms)),
        phase: phase(record.phase).into(),
        caller: record.caller,
        namespace: record.namespace,
        identity: record.identity.unwrap_or_default(),
        actor: record.actor.unwrap_or_default(),
        peer: record.peer.unwrap_or_default(),
        rpc: record.rpc,
        account: record.account.unwrap_or_default(),
        mode: record.mode.map(|mode| mode.as_str().to_owned()).unwrap_or_default(),
        order_id: record.order_id.unwrap_or_default(),
        operation_id: record.operation_id.unwrap_or_default(),
        stamp: record.operation.unwrap_or_default(),
        generation: record.generation.unwrap_or_default(),
        idempotency_key: record.idempotency_key.unwrap_or_default(),
        parameters: record.params.into_iter().map(parameter).collect(),
        decision: record.decision.unwrap_or_default(),
        result: outcome.result,
        reason: outcome.reason.unwrap_or_default(),
        http_status: outcome.http_status.map(i32::from).unwrap_or_default(),
        attempts: record.tries.into_iter().map(attempt).collect(),
        object_id: record.object_id.unwrap_or_default(),
        amount: record.amount_minor,
        currency: record.currency.unwrap_or_default(),
        latency_ms: record.latency_ms.and_then(|latency| i64::try_from(latency).ok()),
        trace_id: record.trace_id.unwrap_or_default(),
        event_id: record.event_id.unwrap_or_default(),
        note: record.note.unwrap_or_default(),
        count: record.count.and_then(|count| i64::try_from(count).ok()).unwrap_or_default(),
        leaf: hex(&stored.row.leaf),
        json: String::from_utf8_lossy(&stored.row.record).into_owned(),
        id: record.id,
    }
}

/// A checkpoint from its note.
pub(super) fn checkpoint(note: &str) -> Option<AuditCheckpoint> {
    let (text, _) = note.rsplit_once("\n\n")?;
    let Checkpoint { size, root, .. } = Checkpoint::parse(&format!("{text}\n"))?;
    Some(AuditCheckpoint { size, root: STANDARD.encode(root), note: note.to_owned() })
}

/// An instant of milliseconds.
pub(super) fn instant(ms: UnixMillis) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1000)).unwrap_or_default().saturating_mul(1_000_000);
    Timestamp { seconds: ms.div_euclid(1000), nanos }
}

/// A phase as the contract has it.
pub(super) fn phase(phase: Phase) -> AuditPhase {
    match phase {
        Phase::Intent => AuditPhase::Intent,
        Phase::Outcome => AuditPhase::Outcome,
        Phase::Answered => AuditPhase::Answered,
        Phase::Denied => AuditPhase::Denied,
        Phase::Refused => AuditPhase::Refused,
        Phase::Read => AuditPhase::Read,
        Phase::Admin => AuditPhase::Admin,
    }
}

fn parameter(param: Param) -> AuditParameter {
    let shown = match param.shown {
        Shown::Value(value) => Some(ShownMessage::Value(value)),
        Shown::Hash(hash) => Some(ShownMessage::Hash(hash)),
        Shown::Withheld => None,
    };
    AuditParameter { name: param.name, shown }
}

fn attempt(one: Try) -> AuditAttempt {
    AuditAttempt {
        stripe_request_id: one.request_id.unwrap_or_default(),
        http_status: one.http_status.map(i32::from).unwrap_or_default(),
        trouble: one.trouble.unwrap_or_default(),
    }
}
