//! Settling by an operator's word: what the operator names is read at Stripe before it is believed.

use super::super::call::Gateway;
use super::super::context::Context;
use super::super::fault::{Code, Fault, Reason, Retry};
use super::super::lookup::{Named, Question};
use super::super::refusal;
use super::{Errand, not_unresolved};
use crate::contract::{self, Params, Sensitivity};
use crate::domain::operation::Operation;
use crate::ledger::{Entry, Finding, Ruled, Ruling, Success};
use crate::proto::v1::SettleOperationRequest;
use crate::proto::v1::settle_operation_request::Ruling as Word;
use crate::telemetry::names::Way;

/// What the operator said, for the audit record.
pub(super) fn params(request: &SettleOperationRequest) -> Params {
    let mut params = super::id(&request.id);
    match &request.ruling {
        Some(Word::Executed(object)) => params.push("executed", object.as_str(), Sensitivity::Public),
        Some(Word::NotExecuted(said)) => params.push("not_executed", said.to_string(), Sensitivity::Public),
        None => {}
    }
    params.push("reason", request.reason.as_str(), Sensitivity::Public);
    params
}

impl Gateway {
    pub(super) async fn settle_entry(
        &self,
        context: &Context,
        entry: Entry,
        request: &SettleOperationRequest,
        errand: &mut Errand,
    ) -> Result<(), Fault> {
        let ruling = match &request.ruling {
            Some(Word::Executed(object)) => {
                Ruling::Executed(self.read_named(context, &entry, object, request).await?)
            }
            Some(Word::NotExecuted(true)) => {
                self.rule_out_effect(context, &entry).await?;
                Ruling::NotExecuted
            }
            Some(Word::NotExecuted(false)) | None => {
                let problem =
                    "must be the object that it made or changed, or else `not_executed` must be true";
                return Err(Fault::invalid_field("executed", problem));
            }
        };
        // As after a change: who hears of it and then reads must see it.
        self.shared_reads.anew();
        let ruled = self.ledger.rule(entry.hash, ruling, errand.record.clone()).await;
        match ruled.map_err(|error| self.unrecorded(&error))? {
            Ruled::Done(settled) => {
                errand.kept = true;
                self.metrics.resolved(Way::Operator);
                let outcome = super::super::resolve::word(&settled);
                tracing::warn!(operation = %entry.hash, by = context.caller.name, outcome, "an operator settled an operation");
                Ok(())
            }
            Ruled::TooEarly => Err(too_early(&request.id)),
            Ruled::NotUnresolved => Err(not_unresolved(&request.id)),
        }
    }

    /// Looks once more before nobody looks again: after the ruling, the caller may have it carried out anew.
    async fn rule_out_effect(&self, context: &Context, entry: &Entry) -> Result<(), Fault> {
        let hold = self.ledger.hold(entry.hash).await.map_err(|error| self.unrecorded(&error))?;
        // What is in flight or settled by now is for the ledger to refuse.
        let Some(hold) = hold else { return Ok(()) };
        match self.read_effect(&hold, context.deadline).await.0 {
            Finding::Effected(success) => {
                let id = success.object_id.unwrap_or_default();
                let message = format!("it took effect: Stripe shows `{id}`; settle it as executed by that");
                let mut fault = Fault::new(Code::FailedPrecondition, Reason::NotTheEffect, message);
                fault.precondition = Some(("NOT_EXECUTED".to_owned(), id));
                Err(fault.retry(Retry::Never))
            }
            Finding::Unread { why } | Finding::Unasked { why } => {
                let message = format!("Stripe could not be read, so an effect cannot be ruled out: {why}");
                Err(Fault::new(Code::Unavailable, Reason::StripeUnreachable, message))
            }
            Finding::Absent { .. } | Finding::Undecided { .. } => Ok(()),
        }
    }

    /// The object that the operator names as the effect.
    async fn read_named(
        &self,
        context: &Context,
        entry: &Entry,
        id: &str,
        request: &SettleOperationRequest,
    ) -> Result<Success, Fault> {
        let record = &entry.record;
        let spec = contract::by_ledger_name(&record.operation.rpc);
        let question = spec.zip(record.outgoing()).and_then(|(spec, outgoing)| {
            Question::of(spec, outgoing, entry.hash.to_string(), record.first_sent_ms)
        });
        let question = question.ok_or_else(|| not_unresolved(&request.id))?;
        let account =
            self.accounts.of_operation(&record.operation).ok_or_else(|| account_gone(&record.operation))?;
        let sent = account.stripe.send(&question.named(id), &context.sender(), context.deadline).await;
        let Some(answer) = sent.answer() else {
            return Err(sent.last().map_or_else(refusal::deadline, refusal::of_attempt));
        };
        match question.is_effect(id, answer) {
            Named::Effect(success) => Ok(success),
            Named::Missing | Named::Unread => Err(refusal::of_answer(answer)),
            Named::Other(why) => {
                let message = format!("`{id}` is not what this operation made or changed: {why}");
                let mut fault = Fault::new(Code::FailedPrecondition, Reason::NotTheEffect, message);
                fault.precondition = Some(("NOT_THE_EFFECT".to_owned(), id.to_owned()));
                Err(fault.retry(Retry::Never))
            }
        }
    }
}

/// Nothing can be read of an account whose key was taken away.
fn account_gone(operation: &Operation) -> Fault {
    let message = format!(
        "no key of `{}` is configured any more; configure the account again to settle this",
        operation.account
    );
    let mut fault = Fault::new(Code::FailedPrecondition, Reason::AccountUnknown, message);
    fault.precondition = Some(("ACCOUNT_CONFIGURED".to_owned(), operation.account.clone()));
    fault.retry(Retry::Never)
}

fn too_early(id: &str) -> Fault {
    let message = "a call may be carrying it out at this moment; try again in a few minutes";
    let mut fault = Fault::new(Code::FailedPrecondition, Reason::OperationInFlight, message);
    fault.precondition = Some(("OPERATION_AT_REST".to_owned(), id.to_owned()));
    fault
}
