//! The names of operations, what became of them, and previews of what the ledger would do.

use prost_types::Timestamp;

use super::accounts::Account;
use super::budget;
use super::call::{Done, Gateway};
use super::context::Context;
use super::fault::{Code, Fault, Reason, Retry};
use super::outcome;
use crate::audit::{self, Phase};
use crate::contract::{self, Spec, Violations};
use crate::domain::clock::UnixMillis;
use crate::domain::operation::Operation;
use crate::ledger::{self, Asked, Known, Sending, Settled, Standing, Status};
use crate::policy::Facts;
use crate::proto::v1::{
    self, CallInfo, GetOperationRequest, GetOperationResponse, OperationRef, OperationState, Preview,
    PreviewDecision,
};
use crate::stripe::Body;

const GET: &str = "tollgate.v1.OperationService/GetOperation";

/// The full name of a change.
pub(super) fn operation_of(
    context: &Context,
    account: &Account,
    spec: &Spec,
    reference: &OperationRef,
) -> Operation {
    Operation {
        namespace: context.caller.namespace.clone(),
        account: account.id.clone(),
        mode: account.mode,
        rpc: spec.ledger_name.to_owned(),
        order_id: reference.order_id.clone(),
        operation_id: reference.operation_id.clone(),
    }
}

impl Gateway {
    /// Tells what became of a change of this caller.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a faulty question, NOT_FOUND for a change that was never begun, UNAVAILABLE when the store
    /// cannot be read.
    pub async fn operation(
        &self,
        context: &Context,
        request: &GetOperationRequest,
    ) -> Result<GetOperationResponse, Fault> {
        let mut record = self.plain_record(Phase::Read, context, GET, Some(&request.account));
        let line = self.line(context, request.operation.as_ref(), &record);
        let answer = self.look_up(context, request, &mut record).await;
        record.conclude(answer.as_ref().map_or_else(Fault::reason_name, |_| "succeeded"));
        self.keep(&record);
        let done = |response| Done { response, replayed: false, attempts: 0, stripe_request_id: None };
        let operation = self.account_for(&line, answer.map(done))?;
        let call = CallInfo { audit_id: record.id, ..CallInfo::default() };
        Ok(GetOperationResponse { operation: Some(operation), call: Some(call) })
    }

    async fn look_up(
        &self,
        context: &Context,
        request: &GetOperationRequest,
        record: &mut audit::Record,
    ) -> Result<v1::Operation, Fault> {
        let violations = Violations::of(request).into_vec();
        if !violations.is_empty() {
            return Err(Fault::invalid(violations));
        }
        let account = self.accounts.named(&request.account)?;
        self.judge(context, account, Facts::default(), record)?;
        let name = request.rpc.trim_start_matches("tollgate.v1.");
        let spec = name.split_once('/').and_then(|(service, rpc)| contract::find(service, rpc));
        let Some(spec) = spec.filter(|spec| spec.mutates()) else {
            let known = "must name an RPC that changes something, such as `RefundService/CreateRefund`";
            return Err(Fault::invalid_field("rpc", known));
        };
        let reference = request.operation.clone().unwrap_or_default();
        let operation = operation_of(context, account, spec, &reference);
        record.concern(&operation);
        let status = self
            .attended(record, self.ledger.status(&operation))
            .await
            .map_err(|error| outcome::unrecorded(&error))?;
        let status = status.ok_or_else(|| {
            let message = "no such change was ever begun by this caller";
            Fault::new(Code::NotFound, Reason::OperationNotFound, message).retry(Retry::Never)
        })?;
        Ok(status_message(spec, &operation, status))
    }

    /// What a change would send and what the ledger would decide, without either.
    pub(super) async fn preview(&self, asked: Asked<'_>, mut audit: audit::Record) -> Result<Preview, Fault> {
        let spec = asked.spec;
        let would_send = asked.outgoing.clone();
        audit.concern(&asked.operation);
        audit.params = self.params(&asked.outgoing.template, &asked.outgoing.path, asked.params);
        let key = asked.operation.key(1);
        let (outgoing, decision) = match self.ledger.preview(asked).await {
            Ok(ledger::Preview::Send { how, outgoing }) => (*outgoing, sending(how)),
            Ok(ledger::Preview::Answer(known)) => (would_send, answering(&known)),
            Ok(ledger::Preview::Look(_)) => (would_send, PreviewDecision::Unresolved),
            Ok(ledger::Preview::OverBudget(exceeded)) => {
                audit.decision = Some(exceeded.rule());
                let fault = budget::exceeded(&exceeded, self.clock.wall());
                self.keep_failed(Phase::Denied, audit, &fault);
                return Err(fault);
            }
            Err(error) => {
                let fault = outcome::unrecorded(&error);
                self.keep_failed(Phase::Answered, audit, &fault);
                return Err(fault);
            }
        };
        audit.phase = Phase::Answered;
        audit.conclude("preview");
        self.keep(&audit);
        let body = match outgoing.body {
            Body::Form(body) => body,
            Body::Empty | Body::Multipart { .. } => String::new(),
        };
        let keyed = spec.verb == contract::Verb::Post;
        Ok(Preview {
            http_method: outgoing.verb.as_str().to_owned(),
            path: outgoing.path,
            body,
            idempotency_key: outgoing.idempotency_key.or_else(|| keyed.then_some(key)).unwrap_or_default(),
            stripe_version: outgoing.version,
            decision: decision.into(),
        })
    }
}

fn sending(how: Sending) -> PreviewDecision {
    match how {
        Sending::New | Sending::NextGeneration | Sending::Resend { ambiguous: false } => {
            PreviewDecision::Send
        }
        Sending::Resend { ambiguous: true } => PreviewDecision::Resend,
    }
}

fn answering(known: &Known) -> PreviewDecision {
    match known {
        Known::Replay(Settled::Succeeded(_)) => PreviewDecision::ReplaySuccess,
        Known::Replay(Settled::Refused(_) | Settled::NotExecuted(_)) => PreviewDecision::ReplayRefusal,
        Known::Mismatch(_) => PreviewDecision::Mismatch,
        Known::InFlight | Known::NeedsOperator(_) | Known::Forgotten => PreviewDecision::Unresolved,
    }
}

/// What the ledger knows of an operation, for its caller.
pub(super) fn status_message(spec: &Spec, operation: &Operation, status: Status) -> v1::Operation {
    let keyed = spec.verb == contract::Verb::Post;
    let mut message = v1::Operation {
        order_id: operation.order_id.clone(),
        operation_id: operation.operation_id.clone(),
        rpc: format!("{}/{}", spec.service, spec.rpc),
        account: operation.account.clone(),
        generation: status.generation,
        idempotency_key: if keyed { operation.key(status.generation) } else { String::new() },
        stamp: if spec.stamped { operation.hash().to_string() } else { String::new() },
        created: instant(status.first_sent_ms),
        updated: instant(status.last_ms),
        ..v1::Operation::default()
    };
    let state = match status.standing {
        Standing::Open => OperationState::Open,
        Standing::InFlight => OperationState::InFlight,
        Standing::Unknown => OperationState::Unknown,
        Standing::NeedsOperator(_) => OperationState::NeedsOperator,
        Standing::Settled(Settled::Succeeded(success)) => {
            message.object_id = success.object_id.unwrap_or_default();
            message.stripe_request_id = success.request_id.unwrap_or_default();
            OperationState::Succeeded
        }
        Standing::Settled(Settled::Refused(refusal)) => {
            message.refusal = outcome::refused(&refusal).message;
            message.stripe_request_id = refusal.request_id.unwrap_or_default();
            OperationState::Refused
        }
        Standing::Settled(Settled::NotExecuted(witness)) => {
            message.refusal = outcome::not_executed(witness).message;
            OperationState::Refused
        }
    };
    message.set_state(state);
    message
}

pub(super) fn instant(ms: UnixMillis) -> Option<Timestamp> {
    let nanos = i32::try_from(ms.rem_euclid(1000)).unwrap_or_default().saturating_mul(1_000_000);
    Some(Timestamp { seconds: ms.div_euclid(1000), nanos })
}
