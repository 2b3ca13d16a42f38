//! One call from its message to its answer, and the account of it that its one log line gives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::accounts::Accounts;
use super::causes::Causes;
use super::context::Context;
use super::fault::Fault;
use super::freezes::Freezes;
use super::intake::Intake;
use super::shared::SharedReads;
use super::sweep::Sweeps;
use crate::audit::{Auditor, Notarized, Phase, Record};
use crate::config::{Events, Guards};
use crate::contract::{Method, Params, Received};
use crate::domain::clock::Clock;
use crate::domain::drain::Drain;
use crate::events::Feed;
use crate::events::subscriptions::Subscriptions;
use crate::identity::Registry;
use crate::ledger::Ledger;
use crate::policy::Policies;
use crate::proto::v1::OperationRef;
use crate::store::Store;
use crate::telemetry::call::Notes;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::Stage;

/// The pipeline with everything it needs; one for the whole process.
#[derive(Debug)]
pub struct Gateway {
    /// The Stripe accounts behind the gateway, with the way to each.
    pub accounts: Accounts,
    /// Where everything is kept.
    pub store: Store,
    /// The event feed.
    pub feed: Feed,
    /// The named subscriptions to it.
    pub subscriptions: Subscriptions,
    /// Where events come from and how long they stay.
    pub events: Events,
    /// The one way into it.
    pub intake: Intake,
    /// How it compares with Stripe's own list of events.
    pub sweeps: Sweeps,
    /// What events go back to.
    pub causes: Causes,
    /// Reads under way that others share.
    pub shared_reads: SharedReads,
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

/// A call that has begun.
#[derive(Debug)]
pub(super) struct Line {
    audit_id: String,
    notes: Notes,
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
        let path = M::path(&received.message);
        record.params = self.params(M::SPEC.path, &path, Params::of(&received.message).pairs());
        let line = self.line(&context, None, &record);
        let answer = self.read::<M>(&context, &received, &mut record).await;
        self.keep_read(record, &answer, line.started);
        self.account_for(&line, answer)
    }

    /// Notes what is known of a call from the beginning: its record, and what its reference names.
    pub(super) fn line(&self, context: &Context, operation: Option<&OperationRef>, record: &Record) -> Line {
        context.notes.note(|facts| {
            facts.audit_id.clone_from(&record.id);
            if let Some(operation) = operation {
                facts.order_id.clone_from(&operation.order_id);
                facts.operation_id.clone_from(&operation.operation_id);
            }
        });
        let (audit_id, notes) = (record.id.clone(), context.notes.clone());
        Line { audit_id, notes, started: self.clock.monotonic() }
    }

    /// Waits for one stage of a call, in a span of its own. Its time goes into the call's log line and the metrics.
    pub(super) async fn stage<T>(&self, context: &Context, stage: Stage, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let done = work.instrument(stage.span()).await;
        let elapsed = started.elapsed();
        context.notes.note(|facts| facts.spend(stage, elapsed));
        self.metrics.stage(stage, elapsed);
        done
    }

    /// Notes what came of a call, and hands the answer on.
    pub(super) fn account_for<R>(&self, line: &Line, answer: Result<Done<R>, Fault>) -> Result<R, Fault> {
        let request_id = match &answer {
            Ok(done) => done.stripe_request_id.as_ref(),
            Err(fault) => fault.stripe_request_id.as_ref(),
        };
        line.notes.note(|facts| {
            if let Ok(done) = &answer {
                (facts.replayed, facts.attempts) = (done.replayed, done.attempts);
            }
            facts.stripe_request_id = request_id.cloned().unwrap_or_default();
        });
        answer.map(|done| done.response).map_err(|mut fault| {
            fault.audit_id.get_or_insert_with(|| line.audit_id.clone());
            fault
        })
    }
}
