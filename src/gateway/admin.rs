//! What operators may do: see what is unresolved in every namespace, have it looked up, and settle it by their word.
//! Everything is audited, refusals too.

mod entry;
mod freeze;
mod settle;
mod tokens;

use std::sync::Arc;

use prost::Message as _;

use super::accounts::Account;
use super::audit::unwritten;
use super::call::{Done, Gateway};
use super::context::Context;
use super::fault::{Code, Fault, Reason, Retry};
use super::outcome;
use crate::audit::{self, Phase};
use crate::contract::page::{BadToken, Binding};
use crate::contract::{Params, Sensitivity, Violation, Violations};
use crate::domain::limits::{OPERATIONS_SEARCHED_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX};
use crate::domain::operation::OperationHash;
use crate::ledger::Entry;
use crate::policy::Facts;
use crate::proto::v1::{
    CallInfo, InspectOperationRequest, InspectOperationResponse, ListOperationsRequest,
    ListOperationsResponse, OperationEntry, OperationState, ResolveOperationRequest,
    ResolveOperationResponse, SettleOperationRequest, SettleOperationResponse,
};
use crate::store::AuditRow;

const LIST: &str = "tollgate.v1.AdminService/ListOperations";
const INSPECT: &str = "tollgate.v1.AdminService/InspectOperation";
const RESOLVE: &str = "tollgate.v1.AdminService/ResolveOperation";
const SETTLE: &str = "tollgate.v1.AdminService/SettleOperation";

/// One call that changes or operates the gateway itself, on its way through the audit log.
pub(super) struct Errand {
    pub(super) record: audit::Record,
    /// Whether the record went into the transaction of what was done.
    pub(super) kept: bool,
}

impl Gateway {
    /// Lists what is not settled.
    ///
    /// # Errors
    /// PERMISSION_DENIED where no rule permits it, INVALID_ARGUMENT for a faulty question, UNAVAILABLE when the
    /// store cannot be read.
    pub async fn list_operations(
        &self,
        context: &Context,
        request: &ListOperationsRequest,
    ) -> Result<ListOperationsResponse, Fault> {
        let mut params = Params::default();
        params.push("state", request.state().as_str_name(), Sensitivity::Public);
        params.push("namespace", request.namespace.as_str(), Sensitivity::Public);
        let list = async |_: &mut Errand| self.unresolved_page(context, request).await;
        let (page, call) = self.errand(context, LIST, params, list).await?;
        Ok(ListOperationsResponse { call: Some(call), ..page })
    }

    /// Shows one operation.
    ///
    /// # Errors
    /// As for [`Gateway::list_operations`], and NOT_FOUND.
    pub async fn inspect_operation(
        &self,
        context: &Context,
        request: &InspectOperationRequest,
    ) -> Result<InspectOperationResponse, Fault> {
        let inspect = async |errand: &mut Errand| {
            let entry = self.entry_of(context, &request.id, Violations::of(request), errand).await?;
            self.entry_message(entry, true).await
        };
        let (entry, call) = self.errand(context, INSPECT, id(&request.id), inspect).await?;
        Ok(InspectOperationResponse { operation: Some(entry), call: Some(call) })
    }

    /// Looks at Stripe now.
    ///
    /// # Errors
    /// As for [`Gateway::inspect_operation`], and FAILED_PRECONDITION when there is nothing to be found out.
    pub async fn resolve_operation(
        &self,
        context: &Context,
        request: &ResolveOperationRequest,
    ) -> Result<ResolveOperationResponse, Fault> {
        let resolve = async |errand: &mut Errand| {
            let entry = self.entry_of(context, &request.id, Violations::of(request), errand).await?;
            let hold = self.ledger.hold(entry.hash).await.map_err(|error| self.unrecorded(&error))?;
            let hold = hold.ok_or_else(|| not_unresolved(&request.id))?;
            let audit = self.own_record(&entry.record.operation);
            let looked = self.look(hold, audit, context.deadline).await;
            let finding = looked.map_err(|error| self.unrecorded(&error))?.finding;
            Ok((self.fresh(entry.hash).await?, finding))
        };
        let ((entry, finding), call) = self.errand(context, RESOLVE, id(&request.id), resolve).await?;
        Ok(ResolveOperationResponse { operation: Some(entry), finding, call: Some(call) })
    }

    /// Settles an operation by the operator's word.
    ///
    /// # Errors
    /// As for [`Gateway::inspect_operation`], FAILED_PRECONDITION when the operation or the object that is named does
    /// not allow it.
    pub async fn settle_operation(
        &self,
        context: &Context,
        request: &SettleOperationRequest,
    ) -> Result<SettleOperationResponse, Fault> {
        let settle = async |errand: &mut Errand| {
            let entry = self.entry_of(context, &request.id, Violations::of(request), errand).await?;
            let hash = entry.hash;
            self.settle_entry(context, entry, request, errand).await?;
            self.fresh(hash).await
        };
        let (entry, call) = self.errand(context, SETTLE, settle::params(request), settle).await?;
        Ok(SettleOperationResponse { operation: Some(entry), call: Some(call) })
    }

    /// Carries out a call of an operator, with its audit record and its log line, where a rule permits it.
    async fn errand<R>(
        &self,
        context: &Context,
        rpc: &str,
        params: Params,
        work: impl AsyncFnOnce(&mut Errand) -> Result<R, Fault>,
    ) -> Result<(R, CallInfo), Fault> {
        self.errand_at(context, (rpc, None), params, work).await
    }

    /// The same for the account that `alias` means, if the call is about one.
    pub(super) async fn errand_at<R>(
        &self,
        context: &Context,
        (rpc, alias): (&str, Option<&str>),
        params: Params,
        work: impl AsyncFnOnce(&mut Errand) -> Result<R, Fault>,
    ) -> Result<(R, CallInfo), Fault> {
        let mut record = self.plain_record(Phase::Admin, context, rpc, alias);
        record.params = self.auditor.params(params.pairs());
        let line = self.line(context, None, &record);
        let audit_id = record.id.clone();
        let mut errand = Errand { record, kept: false };
        let answer = match self.judge_own(context, alias, &mut errand.record) {
            Ok(()) => {
                let record = errand.record.clone();
                // On the heap: some errands are large, and their callers would be as large again.
                self.attended(&record, Box::pin(work(&mut errand))).await
            }
            Err(fault) => Err(fault),
        };
        let Errand { mut record, kept } = errand;
        if !kept {
            record.latency_ms = Some(self.millis_since(line.started));
            record.conclude(answer.as_ref().map_or_else(Fault::reason_name, |_| "succeeded"));
            self.keep(&record);
        }
        let done = |response| Done { response, replayed: false, attempts: 0, stripe_request_id: None };
        let response = self.account_for(&line, answer.map(done))?;
        Ok((response, CallInfo { audit_id, ..CallInfo::default() }))
    }

    /// Makes durable that an errand begins whose work is no transaction; what comes of it is a record of its own.
    pub(super) async fn begin_errand(&self, errand: &mut Errand) -> Result<(), Fault> {
        let mut begun = errand.record.clone();
        begun.conclude("begun");
        self.auditor.write(&begun).await.map_err(|error| unwritten(&error))?;
        errand.record = self.auditor.further(&begun);
        Ok(())
    }

    /// The operation that a request names, where a rule permits the call at its account too.
    async fn entry_of(
        &self,
        context: &Context,
        id: &str,
        violations: Violations,
        errand: &mut Errand,
    ) -> Result<Entry, Fault> {
        let mut violations = violations.into_vec();
        let hash = OperationHash::parse(id);
        if hash.is_none() && violations.is_empty() {
            let description = "is not the id of an operation: 64 hexadecimal digits".to_owned();
            violations.push(Violation { field: "id".to_owned(), description });
        }
        let hash = hash.filter(|_| violations.is_empty()).ok_or_else(|| Fault::invalid(violations))?;
        let entry = self.ledger.entry(hash).await.map_err(|error| outcome::unrecorded(&error))?;
        let entry = entry.ok_or_else(|| not_found(id))?;
        errand.record.concern(&entry.record.operation);
        self.judge(context, self.home_of(&entry), Facts::default(), &mut errand.record)?;
        Ok(entry)
    }

    async fn fresh(&self, hash: OperationHash) -> Result<OperationEntry, Fault> {
        let entry = self.ledger.entry(hash).await.map_err(|error| outcome::unrecorded(&error))?;
        self.entry_message(entry.ok_or_else(|| not_found(&hash.to_string()))?, true).await
    }

    /// The account of an operation; the default one stands for those that are not configured any more.
    fn home_of(&self, entry: &Entry) -> &Arc<Account> {
        let account = self.accounts.of_operation(&entry.record.operation);
        account.unwrap_or_else(|| self.accounts.default_account())
    }

    async fn unresolved_page(
        &self,
        context: &Context,
        request: &ListOperationsRequest,
    ) -> Result<ListOperationsResponse, Fault> {
        let mut violations = Violations::of(request).into_vec();
        let filters = ListOperationsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
        let binding = Binding::new(LIST, &filters.encode_to_vec());
        let mut after = None;
        if !request.page_token.is_empty() {
            after = binding.open(&request.page_token).ok().and_then(|hash| OperationHash::parse(&hash));
            if after.is_none() {
                violations
                    .push(Violation { field: "page_token".to_owned(), description: BadToken.to_string() });
            }
        }
        if !violations.is_empty() {
            return Err(Fault::invalid(violations));
        }
        let size =
            if request.page_size == 0 { PAGE_ITEMS_DEFAULT } else { request.page_size.min(PAGE_ITEMS_MAX) };
        let size = usize::try_from(size).unwrap_or_default();
        let mut page = ListOperationsResponse::default();
        let mut searched = 0;
        while page.operations.len() < size && searched < OPERATIONS_SEARCHED_MAX {
            let wanted = size - page.operations.len();
            let entries = self.ledger.unresolved(after, wanted).await;
            let entries = entries.map_err(|error| outcome::unrecorded(&error))?;
            searched += entries.len();
            after = entries.last().map(|last| last.hash);
            for entry in entries {
                if !self.permits(&context.caller, LIST, self.home_of(&entry)) {
                    continue;
                }
                let of_namespace = [record_namespace(&entry), ""].contains(&request.namespace.as_str());
                let message = self.entry_message(entry, false).await?;
                let state = message.operation.as_ref().map(|operation| operation.state());
                let of_state =
                    request.state() == OperationState::Unspecified || state == Some(request.state());
                if of_namespace && of_state {
                    page.operations.push(message);
                }
            }
            if after.is_none() {
                break;
            }
        }
        page.next_page_token = after.map(|hash| binding.seal(&hash.to_string())).unwrap_or_default();
        Ok(page)
    }
}

impl Errand {
    /// The record of the call for the transaction of what is done.
    pub(super) fn row(&self) -> Result<AuditRow, Fault> {
        let mut record = self.record.clone();
        record.conclude("succeeded");
        record.row().map_err(|error| {
            Fault::new(Code::Internal, Reason::Internal, format!("it cannot be put on record: {error}"))
        })
    }
}

fn record_namespace(entry: &Entry) -> &str {
    &entry.record.operation.namespace
}

fn id(id: &str) -> Params {
    let mut params = Params::default();
    params.push("id", id, Sensitivity::Public);
    params
}

fn not_found(id: &str) -> Fault {
    let mut fault = Fault::new(Code::NotFound, Reason::OperationNotFound, "the ledger has no such operation");
    fault.resource = Some(("operation".to_owned(), id.to_owned()));
    fault.retry(Retry::Never)
}

fn not_unresolved(id: &str) -> Fault {
    let message = "nothing of this operation is to be found out: it is settled, or a call is carrying it out";
    let mut fault = Fault::new(Code::FailedPrecondition, Reason::OperationNotUnresolved, message);
    fault.precondition = Some(("OPERATION_UNRESOLVED".to_owned(), id.to_owned()));
    fault.retry(Retry::Never)
}
