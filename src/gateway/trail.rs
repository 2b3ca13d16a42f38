//! The audit records of the pipeline's own: what it fills in for every call, and those that nobody waits for.

use std::time::Duration;

use super::call::{Done, Gateway};
use super::context::Context;
use super::fault::Fault;
use crate::audit::{Outcome, Param, Phase, Record};
use crate::contract::{Pair, Sensitivity, Spec};
use crate::domain::fingerprint::path_values;
use crate::domain::operation::Operation;
use crate::ledger;
use crate::telemetry::names::StoreFailure;

/// What came of a call whose caller left before its answer.
const ABANDONED: &str = "abandoned";

impl Gateway {
    /// A record of a call of an annotated RPC for the account that `alias` means.
    pub(super) fn record(&self, phase: Phase, context: &Context, spec: &Spec, alias: &str) -> Record {
        self.plain_record(phase, context, &spec.full_name(), Some(alias))
    }

    /// A record of a call of any RPC; `alias` means its account, if it is about one.
    pub(super) fn plain_record(
        &self,
        phase: Phase,
        context: &Context,
        rpc: &str,
        alias: Option<&str>,
    ) -> Record {
        let mut record = self.auditor.record(phase, &context.caller, rpc);
        record.actor = Some(context.actor.clone()).filter(|actor| !actor.is_empty());
        record.peer = Some(context.peer.clone()).filter(|peer| !peer.is_empty());
        record.trace_id = Some(context.trace_id.clone()).filter(|trace| !trace.is_empty());
        let account = alias.and_then(|alias| self.accounts.resolve(alias));
        if let Some(account) = account {
            context.notes.note(|facts| facts.account.clone_from(&account.alias));
        }
        record.account = account.map(|account| account.id.clone());
        record.mode = account.map(|account| account.mode);
        record
    }

    /// Waits for what is done for a call. If its caller leaves meanwhile, so that nobody comes to say what became of it,
    /// that is on record.
    pub(super) async fn attended<T>(&self, record: &Record, work: impl Future<Output = T>) -> T {
        let started = self.clock.monotonic();
        let mut attended = Attended { gateway: self, record: Some(record.clone()), started };
        let came = work.await;
        attended.record = None;
        came
    }

    /// Keeps a record that nobody waits for.
    pub(super) fn keep(&self, record: &Record) {
        if let Err(error) = self.auditor.append(record) {
            tracing::error!(%error, audit_id = record.id, "an audit record was lost");
        }
    }

    /// Keeps the record of a change that was refused before anything else happened.
    pub(super) fn keep_refused(&self, record: Record, fault: &Fault) {
        self.keep_failed(Phase::Refused, record, fault);
    }

    /// Keeps the record of a call that ended with a fault at that moment.
    pub(super) fn keep_failed(&self, phase: Phase, mut record: Record, fault: &Fault) {
        record.phase = phase;
        record.outcome = Some(outcome(fault));
        self.keep(&record);
    }

    /// Keeps the record of a change that a rule of the gateway's forbade.
    pub(super) fn keep_denied(
        &self,
        mut record: Record,
        operation: &Operation,
        (template, path): (&str, &str),
        params: &[Pair],
        fault: &Fault,
    ) {
        record.concern(operation);
        record.params = self.params(template, path, params);
        self.keep_failed(Phase::Denied, record, fault);
    }

    /// Keeps the record of a read.
    pub(super) fn keep_read<R>(
        &self,
        mut record: Record,
        answer: &Result<Done<R>, Fault>,
        started: Duration,
    ) {
        record.latency_ms = Some(self.millis_since(started));
        match answer {
            Ok(done) => {
                record.conclude("succeeded");
                record.stripe_request_ids = done.stripe_request_id.iter().cloned().collect();
                record.attempts = u32::try_from(done.attempts).ok();
            }
            Err(fault) => {
                record.outcome = Some(outcome(fault));
                record.stripe_request_ids = fault.stripe_request_id.iter().cloned().collect();
            }
        }
        self.keep(&record);
    }

    /// The ledger failed: says so to the caller, and counts and logs it for the operator.
    pub(super) fn unrecorded(&self, error: &ledger::Error) -> Fault {
        tracing::error!(%error, cause = ?std::error::Error::source(error), "the ledger failed");
        if error.outcome_unknown() {
            self.metrics.unknown_outcome();
        }
        let cause = match error {
            ledger::Error::Unsettled(inner) => inner,
            other => other,
        };
        match cause {
            ledger::Error::NotRecorded(cause) | ledger::Error::Unread(cause) => {
                self.metrics.store_error(super::outcome::failure(cause));
            }
            ledger::Error::Uncertain => self.metrics.store_error(StoreFailure::Uncertain),
            _ => {}
        }
        super::outcome::unrecorded(error)
    }

    /// What was asked for, as a record shows it: the fields that stand in the path, which say what the call was about,
    /// then the parameters.
    pub(super) fn params(&self, template: &str, path: &str, pairs: &[Pair]) -> Vec<Param> {
        let in_path = path_values(template, path).into_iter().map(|(name, value)| Pair {
            name: name.to_owned(),
            value: value.to_owned(),
            sensitivity: Sensitivity::Public,
        });
        self.auditor.params(&in_path.chain(pairs.iter().cloned()).collect::<Vec<_>>())
    }

    /// Milliseconds since `started` on the monotonic clock.
    pub(super) fn millis_since(&self, started: Duration) -> u64 {
        let elapsed = self.clock.monotonic().saturating_sub(started);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A call whose caller waits; dropped with its record in it, the caller has left.
struct Attended<'a> {
    gateway: &'a Gateway,
    record: Option<Record>,
    started: Duration,
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        // The record itself may be in a transaction that is on its way.
        let mut record = self.gateway.auditor.further(&record);
        record.latency_ms = Some(self.gateway.millis_since(self.started));
        record.conclude(ABANDONED);
        self.gateway.keep(&record);
    }
}

fn outcome(fault: &Fault) -> Outcome {
    let http_status = fault.metadata.get("http_status").and_then(|status| status.parse().ok());
    Outcome { result: "failed".to_owned(), http_status, reason: Some(fault.reason_name().to_owned()) }
}
