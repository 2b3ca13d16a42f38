//! Reads of the audit log: who may see which record, search, export and keys. Every call here is put on record as well.

mod message;
mod search;
mod story;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use super::call::{Done, Gateway};
use super::context::Context;
use super::fault::{Code, Fault, Reason, Retry};
use super::judge::Sight;
use crate::audit::entry::Entry;
use crate::audit::{Month, Phase, Record};
use crate::contract::{Params, Sensitivity, Violations};
use crate::domain::limits::{
    AUDIT_EXPORT_RECORDS, AUDIT_READ_BYTES_MAX, CHECKPOINTS_LISTED_MAX, PAGE_ITEMS_DEFAULT,
};
use crate::proto::v1::{
    CallInfo, EraseAuditKeyRequest, EraseAuditKeyResponse, ExportAuditRecordsRequest,
    ExportAuditRecordsResponse, ExportedAuditRecord, GetAuditRecordRequest, GetAuditRecordResponse,
    ListCheckpointsRequest, ListCheckpointsResponse,
};
use crate::store::{self, StoredAudit};

const GET: &str = "tollgate.v1.AuditService/GetAuditRecord";
const LIST_CHECKPOINTS: &str = "tollgate.v1.AuditService/ListCheckpoints";
const EXPORT: &str = "tollgate.v1.AuditService/ExportAuditRecords";
const ERASE_KEY: &str = "tollgate.v1.AuditService/EraseAuditKey";
/// Advice on when to come back after a failure of the store.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// An export under way: what has been sent, and what will be.
#[derive(Debug)]
pub struct Export {
    context: Context,
    sent: u64,
    end: u64,
}

impl Gateway {
    /// Reads one record.
    ///
    /// # Errors
    /// NOT_FOUND when there is none that the caller may see, UNAVAILABLE when the store cannot be read.
    pub async fn audit_record(
        &self,
        context: &Context,
        request: &GetAuditRecordRequest,
    ) -> Result<GetAuditRecordResponse, Fault> {
        let read = async {
            checked(Violations::of(request))?;
            let found = self.store.audit_with(&request.id, 0, 1, AUDIT_READ_BYTES_MAX).await;
            let found = found.map_err(|error| unread(&error))?;
            let found = found.into_iter().filter(|stored| stored.row.id == request.id);
            let sight = self.sight(&context.caller);
            let seen = found.filter_map(|stored| visible(&sight, &stored).map(|record| (stored, record)));
            seen.map(|(stored, record)| message::record(&stored, &record))
                .next()
                .ok_or_else(|| not_found(&request.id))
        };
        let (record, call) = self.read_own(context, (GET, None), named(&[("id", &request.id)]), read).await?;
        Ok(GetAuditRecordResponse { record: Some(record), call: Some(call) })
    }

    /// Lists the newest checkpoints.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a faulty question.
    pub async fn checkpoints(
        &self,
        context: &Context,
        request: &ListCheckpointsRequest,
    ) -> Result<ListCheckpointsResponse, Fault> {
        let read = async {
            checked(Violations::of(request))?;
            let wanted = if request.page_size == 0 { PAGE_ITEMS_DEFAULT } else { request.page_size };
            let wanted = usize::try_from(wanted).unwrap_or_default().min(CHECKPOINTS_LISTED_MAX);
            let standing = self.notarized.standing.borrow().clone();
            Ok(ListCheckpointsResponse {
                checkpoints: standing
                    .notes
                    .iter()
                    .rev()
                    .take(wanted)
                    .filter_map(|note| message::checkpoint(note))
                    .collect(),
                origin: self.notarized.origin.to_string(),
                verifier_key: self.notarized.verifier_key.to_string(),
                refusal: standing.refusal.map(|refusal| refusal.to_string()).unwrap_or_default(),
                key_months: self.key_months(),
                call: None,
            })
        };
        let (listed, call) =
            self.read_own(context, (LIST_CHECKPOINTS, None), Params::default(), read).await?;
        Ok(ListCheckpointsResponse { call: Some(call), ..listed })
    }

    /// Begins an export.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a faulty question.
    pub async fn export(
        &self,
        context: &Context,
        request: &ExportAuditRecordsRequest,
    ) -> Result<Export, Fault> {
        let params = named(&[
            ("after_sequence", &request.after_sequence.to_string()),
            ("up_to_sequence", &request.up_to_sequence.to_string()),
        ]);
        let head = *self.store.audit_head().borrow();
        let begin = async {
            let wanted = Some(request.up_to_sequence).filter(|end| *end > 0);
            let end = wanted.map_or(head, |end| end.min(head));
            Ok(Export { context: context.clone(), sent: request.after_sequence, end })
        };
        Ok(self.read_own(context, (EXPORT, None), params, begin).await?.0)
    }

    /// The next records of an export; `None` at its end. They are read when they are asked for, so that a slow reader
    /// holds nothing up.
    ///
    /// # Errors
    /// UNAVAILABLE when the store cannot be read; UNAUTHENTICATED or PERMISSION_DENIED when the caller may not read on.
    pub async fn next_of_export(
        &self,
        export: &mut Export,
    ) -> Result<Option<ExportAuditRecordsResponse>, Fault> {
        self.judge_again(&mut export.context, self.accounts.default_account(), EXPORT)?;
        let sight = self.sight(&export.context.caller);
        let left = usize::try_from(export.end.saturating_sub(export.sent)).unwrap_or(usize::MAX);
        let wanted = left.min(AUDIT_EXPORT_RECORDS);
        if wanted == 0 {
            return Ok(None);
        }
        let rows = self.store.audit_after(export.sent, wanted).await.map_err(|error| unread(&error))?;
        let Some(last) = rows.last() else { return Ok(None) };
        export.sent = last.sequence;
        let records = rows.into_iter().map(|stored| {
            // The proof needs the leaf; the bytes are for those who may see them.
            let shown = visible(&sight, &stored).is_some() || sight.is_full();
            let entry = Entry::from(stored);
            ExportedAuditRecord {
                sequence: entry.sequence,
                id: entry.id,
                leaf: entry.leaf.to_vec(),
                record: if shown { entry.record } else { Vec::new() },
            }
        });
        Ok(Some(ExportAuditRecordsResponse { records: records.collect(), end_sequence: export.end }))
    }

    /// Drops the key behind the hashes of personal values of one month.
    ///
    /// # Errors
    /// PERMISSION_DENIED where no rule permits it, INVALID_ARGUMENT for what is no month, FAILED_PRECONDITION for
    /// the current one, NOT_FOUND when there is no key of it, UNAVAILABLE when the store cannot be written.
    pub async fn erase_audit_key(
        self: Arc<Self>,
        context: &Context,
        request: &EraseAuditKeyRequest,
    ) -> Result<EraseAuditKeyResponse, Fault> {
        let mut record = self.plain_record(Phase::Admin, context, ERASE_KEY, None);
        let line = self.line(context, None, &record);
        record.params = self.auditor.params(named(&[("month", &request.month)]).pairs());
        record.note = Some(request.reason.clone());
        let answer = self.erase_key(context, request, &mut record).await;
        let done = |response| Done { response, replayed: false, attempts: 0, stripe_request_id: None };
        let key_months = self.account_for(&line, answer.map(done))?;
        let call = CallInfo { audit_id: record.id, ..CallInfo::default() };
        Ok(EraseAuditKeyResponse { key_months, call: Some(call) })
    }

    /// The intent is durable before the key goes, so that nobody can drop one unseen.
    async fn erase_key(
        &self,
        context: &Context,
        request: &EraseAuditKeyRequest,
        record: &mut Record,
    ) -> Result<Vec<String>, Fault> {
        let judged = match self.judge_own(context, None, record) {
            Ok(()) => self.may_erase(request),
            Err(fault) => Err(fault),
        };
        match &judged {
            Ok(_) => record.conclude("begun"),
            Err(fault) => {
                if record.phase != Phase::Denied {
                    record.phase = Phase::Refused;
                }
                record.conclude("failed");
                record.outcome.get_or_insert_default().reason = Some(fault.reason_name().to_owned());
            }
        }
        self.auditor.write(record).await.map_err(|error| unwritten(&error))?;
        let month = judged?;
        let erased = self.auditor.erase_key(month).await.map_err(|error| unwritten(&error))?;
        let mut end = self.plain_record(Phase::Admin, context, ERASE_KEY, None);
        end.params.clone_from(&record.params);
        end.conclude(if erased { "succeeded" } else { "failed" });
        self.auditor.write(&end).await.map_err(|error| unwritten(&error))?;
        if erased { Ok(self.key_months()) } else { Err(no_key(month)) }
    }

    fn may_erase(&self, request: &EraseAuditKeyRequest) -> Result<Month, Fault> {
        checked(Violations::of(request))?;
        let month = Month::parse(&request.month)
            .ok_or_else(|| Fault::invalid_field("month", "is not a month like `2026-11`"))?;
        if month >= Month::of(self.clock.wall()) {
            let message = format!("the key of `{month}` is in use; it can be dropped once the month is over");
            return Err(
                Fault::new(Code::FailedPrecondition, Reason::AuditKeyInUse, message).retry(Retry::Never)
            );
        }
        if !self.auditor.key_months().contains(&month) {
            return Err(no_key(month));
        }
        Ok(month)
    }

    fn key_months(&self) -> Vec<String> {
        self.auditor.key_months().iter().map(ToString::to_string).collect()
    }
}

/// The record, if it can be read and may be seen.
fn visible(sight: &Sight, stored: &StoredAudit) -> Option<Record> {
    let record: Record = serde_json::from_slice(&stored.row.record).ok()?;
    let own = !record.namespace.is_empty() && record.namespace == sight.namespace;
    (own || sight.every_of(record.account.as_deref(), record.mode)).then_some(record)
}

fn checked(violations: Violations) -> Result<(), Fault> {
    let violations = violations.into_vec();
    if violations.is_empty() { Ok(()) } else { Err(Fault::invalid(violations)) }
}

fn named(pairs: &[(&str, &str)]) -> Params {
    let mut params = Params::default();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty() && *value != "0") {
        params.push(*name, *value, Sensitivity::Public);
    }
    params
}

fn not_found(id: &str) -> Fault {
    let message = format!("nothing that this caller may see goes by `{id}`");
    Fault::new(Code::NotFound, Reason::AuditRecordNotFound, message).retry(Retry::Never)
}

fn no_key(month: Month) -> Fault {
    let message = format!("there is no key of `{month}`");
    Fault::new(Code::NotFound, Reason::AuditRecordNotFound, message).retry(Retry::Never)
}

fn unread(error: &store::Error) -> Fault {
    tracing::error!(%error, "the audit log cannot be read");
    let message = "the audit log cannot be read at the moment";
    Fault::new(Code::Unavailable, Reason::StoreUnavailable, message).retry(Retry::After(RETRY_SOON))
}

/// The audit log does not take what has to be in it first.
pub(super) fn unwritten(error: &crate::audit::Error) -> Fault {
    tracing::error!(%error, "the audit log cannot be written");
    let message = "the audit log cannot be written at the moment, so nothing was done";
    Fault::new(Code::Unavailable, Reason::StoreUnavailable, message).retry(Retry::After(RETRY_SOON))
}
