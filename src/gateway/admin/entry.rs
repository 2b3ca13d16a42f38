//! An entry of the ledger as operators see it.

use prost_types::Timestamp;
use serde_json::Value;

use super::super::call::Gateway;
use super::super::fault::Fault;
use super::super::operation::status_message;
use super::super::outcome;
use crate::contract;
use crate::ledger::state::State;
use crate::ledger::{Case, Entry, Found, Stuck};
use crate::proto::v1::{FoundObject, OperationCase, OperationCaseReason, OperationEntry};
use crate::stripe::Body;

impl Gateway {
    /// The entry as a message; with everything that was sent if it is to be `full`.
    pub(super) async fn entry_message(&self, entry: Entry, full: bool) -> Result<OperationEntry, Fault> {
        let Entry { hash, record, live } = entry;
        let status = self.ledger.status(&record.operation).await;
        let status = status.map_err(|error| outcome::unrecorded(&error))?;
        let spec = contract::by_ledger_name(&record.operation.rpc);
        let mut message = OperationEntry {
            id: hash.to_string(),
            namespace: record.operation.namespace.clone(),
            operation: spec.zip(status).map(|(spec, status)| status_message(spec, &record.operation, status)),
            live,
            ..OperationEntry::default()
        };
        if let State::NeedsOperator { case, .. } = &record.state {
            message.case = Some(case_message(case, full));
        }
        if let Some(outgoing) = record.outgoing() {
            message.http_method = outgoing.verb.as_str().to_owned();
            message.path.clone_from(&outgoing.path);
            if let (Body::Form(body), true) = (&outgoing.body, full) {
                message.body.clone_from(body);
            }
        }
        Ok(message)
    }
}

fn case_message(case: &Case, full: bool) -> OperationCase {
    let found = if full { case.found.as_slice() } else { &[] };
    OperationCase {
        reason: reason(case.why).into(),
        note: outcome::why(case),
        found: found.iter().map(found_message).collect(),
    }
}

fn reason(why: Stuck) -> OperationCaseReason {
    match why {
        Stuck::Expired => OperationCaseReason::Expired,
        Stuck::KeyConflict => OperationCaseReason::KeyConflict,
        Stuck::Keyless => OperationCaseReason::Keyless,
        Stuck::ClockSetBack => OperationCaseReason::ClockSetBack,
        Stuck::Superseded => OperationCaseReason::Superseded,
        Stuck::Absent => OperationCaseReason::Absent,
        Stuck::Undecided => OperationCaseReason::Undecided,
        Stuck::Overdue => OperationCaseReason::Overdue,
    }
}

fn found_message(found: &Found) -> FoundObject {
    let summary: Value = serde_json::from_str(&found.summary).unwrap_or_default();
    let text = |name: &str| summary.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |name: &str| summary.get(name).and_then(Value::as_i64);
    FoundObject {
        id: found.object_id.clone(),
        object: text("object"),
        amount: number("amount"),
        currency: text("currency"),
        status: text("status"),
        created: number("created").map(|seconds| Timestamp { seconds, nanos: 0 }),
        made_by: text("stamp"),
    }
}
