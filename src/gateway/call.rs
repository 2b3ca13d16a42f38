//! One call from its message to its answer, and the account of it: one log line, whatever happened.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::accounts::Accounts;
use super::context::Context;
use super::fault::Fault;
use super::freezes::Freezes;
use crate::audit::{Auditor, Notarized, Phase};
use crate::config::Guards;
use crate::contract::{Method, Received};
use crate::domain::clock::Clock;
use crate::domain::drain::Drain;
use crate::events::Feed;
use crate::identity::Registry;
use crate::ledger::Ledger;
use crate::policy::Policies;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// The pipeline with everything it needs; one for the whole process.
#[derive(Debug)]
pub struct Gateway {
    /// The Stripe accounts behind the gateway, with the way to each.
    pub accounts: Accounts,
    /// Where everything is kept.
    pub store: Store,
    /// The event feed.
    pub feed: Feed,
    /// What remembers every change.
    pub ledger: Ledger,
    /// What records every call.
    pub auditor: Auditor,
    /// What can be said of the audit log's checkpoints.
    pub notarized: Notarized,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What operators froze.
    pub freezes: Freezes,
    /// Counts.
    pub metrics: Metrics,
    /// Places for changes that are under way, whether their callers wait or not; the end waits until all are free.
    pub open_changes: Arc<Semaphore>,
    /// What is doubted about a refund, and what follows from a doubt.
    pub guards: Guards,
    /// Places for callers who wait for what comes of a change.
    pub waits: Arc<Semaphore>,
    /// Ends those waits when the gateway goes away.
    pub drain: Drain,
    /// Who may call.
    pub registry: Registry,
    /// What callers may do.
    pub policies: Policies,
}

/// A call that was answered.
#[derive(Debug)]
pub(super) struct Done<R> {
    pub response: R,
    pub replayed: bool,
    pub attempts: i32,
    pub stripe_request_id: Option<String>,
}

/// What the log line says of a call before its end.
#[derive(Debug)]
pub(super) struct Line {
    rpc: String,
    caller: String,
    order_id: String,
    operation_id: String,
    trace_id: String,
    audit_id: String,
    pub(super) started: Duration,
}

impl Gateway {
    /// Carries out one call of an annotated RPC.
    ///
    /// # Errors
    /// A [`Fault`] with the status, reason and details for the caller.
    pub async fn call<M: Method>(
        self: Arc<Self>,
        context: Context,
        received: Received<M::Request>,
    ) -> Result<M::Response, Fault> {
        if M::SPEC.mutates() {
            return self.change::<M>(context, received, |prepared, account| prepared.outgoing(account)).await;
        }
        let alias = M::local(&received.message).account;
        let mut record = self.record(Phase::Read, &context, M::SPEC, alias);
        let line = self.line(M::SPEC.full_name(), &context, None, record.id.clone());
        let answer = self.read::<M>(&context, &received, &mut record).await;
        self.keep_read::<M>(record, &received, &answer, line.started);
        self.account_for(&line, answer)
    }

    pub(super) fn line(
        &self,
        rpc: String,
        context: &Context,
        operation: Option<&crate::proto::v1::OperationRef>,
        audit_id: String,
    ) -> Line {
        let operation = operation.cloned().unwrap_or_default();
        Line {
            rpc,
            caller: context.caller.name.clone(),
            order_id: operation.order_id,
            operation_id: operation.operation_id,
            trace_id: context.trace_id.clone(),
            audit_id,
            started: self.clock.monotonic(),
        }
    }

    /// Writes the call's one log line and hands the answer on.
    pub(super) fn account_for<R>(&self, line: &Line, answer: Result<Done<R>, Fault>) -> Result<R, Fault> {
        let latency_ms = self.millis_since(line.started);
        let (code, reason) = match &answer {
            Ok(_) => ("OK", ""),
            Err(fault) => (fault.code.as_str(), fault.reason_name()),
        };
        let done = answer.as_ref().ok();
        let request_id = match &answer {
            Ok(done) => done.stripe_request_id.as_deref(),
            Err(fault) => fault.stripe_request_id.as_deref(),
        };
        tracing::info!(
            target: "tollgate::call",
            rpc = line.rpc,
            caller = line.caller,
            code,
            reason,
            order_id = line.order_id,
            operation_id = line.operation_id,
            replayed = done.is_some_and(|done| done.replayed),
            attempts = done.map(|done| done.attempts),
            stripe_request_id = request_id.unwrap_or_default(),
            audit_id = line.audit_id,
            trace_id = line.trace_id,
            latency_ms,
            "call"
        );
        answer.map(|done| done.response).map_err(|mut fault| {
            fault.audit_id.get_or_insert_with(|| line.audit_id.clone());
            fault
        })
    }
}
