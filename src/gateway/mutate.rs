//! Changes: remembered before they are sent, judged after, and carried through to the end even when the caller is gone.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::timeout_at;
use tracing::Instrument as _;

use super::call::{Done, Gateway};
use super::context::{Account, Context};
use super::fault::Fault;
use super::prepare::{Prepared, prepare};
use super::read::undecodable;
use super::{outcome, refusal};
use crate::audit::{self, Phase};
use crate::contract::{Method, Received, Reply, Sensitivity, Undecodable};
use crate::domain::limits::METADATA_STAMP;
use crate::domain::planted;
use crate::ledger::{Asked, Begun, Finding, Settled, Success, Verdict};
use crate::proto::v1::CallInfo;
use crate::stripe::{Answer, Outgoing};
use crate::telemetry::names::Replay;

/// A change that is known to have taken effect.
struct Effected {
    success: Success,
    replayed: bool,
    attempts: i32,
}

impl Gateway {
    /// Carries out one change. `build` turns the checked request into what goes to Stripe.
    pub(super) async fn change<M: Method>(
        self: Arc<Self>,
        context: Context,
        received: Received<M::Request>,
        build: impl FnOnce(&mut Prepared<'_>, &Account) -> Outgoing + Send + 'static,
    ) -> Result<M::Response, Fault> {
        let deadline = context.deadline;
        let audit = self.record(Phase::Intent, &context, M::SPEC);
        let line =
            self.line(M::SPEC.full_name(), &context, M::local(&received.message).operation, audit.id.clone());
        let gateway = Arc::clone(&self);
        let open = Arc::clone(&self.open_changes).read_owned().await;
        // A task of its own: when the caller leaves or its deadline passes, the wait ends and not the change.
        let change = async move {
            let answer = gateway.to_the_end::<M>(&context, &received, build, audit).await;
            drop(open);
            answer
        };
        let task = tokio::spawn(change.in_current_span());
        let answer = match deadline {
            Some(deadline) => {
                timeout_at(deadline, task).await.unwrap_or_else(|_| Ok(Err(refusal::deadline())))
            }
            None => task.await,
        };
        planted::point("reply-before");
        // A task fails only by a panic, and then what was sent is on record as in flight.
        self.account_for(&line, answer.unwrap_or_else(|_| Err(outcome::broken())))
    }

    async fn to_the_end<M: Method>(
        &self,
        context: &Context,
        received: &Received<M::Request>,
        build: impl FnOnce(&mut Prepared<'_>, &Account) -> Outgoing,
        audit: audit::Record,
    ) -> Result<Done<M::Response>, Fault> {
        let mut prepared = match prepare::<M>(received, &self.account) {
            Ok(prepared) => prepared,
            Err(fault) => {
                self.keep_refused(audit, &fault);
                return Err(fault);
            }
        };
        let reference = prepared.local.operation.cloned().unwrap_or_default();
        let operation = self.operation_of(context, prepared.spec, &reference);
        if prepared.spec.stamped {
            let stamp = operation.hash().to_string();
            prepared.sent.push(format!("metadata[{METADATA_STAMP}]"), stamp, Sensitivity::Public);
        }
        let outgoing = build(&mut prepared, &self.account);
        let asked = Asked {
            operation,
            spec: prepared.spec,
            outgoing,
            params: prepared.params.pairs(),
            retry_refused: reference.retry_refused,
        };
        let audit_id = audit.id.clone();
        if prepared.local.validate_only {
            let preview = self.preview(asked, audit).await?;
            let call = CallInfo { audit_id, ..CallInfo::default() };
            let reply = Reply { preview: Some(preview), call, ..Reply::default() };
            let response = M::respond(reply).map_err(|error| undecodable(&error, &Answer::default()))?;
            return Ok(Done { response, replayed: false, attempts: 0, stripe_request_id: None });
        }
        let effected = self.effect(context, asked, audit).await?;
        respond::<M>(effected, audit_id)
    }

    /// Decides, sends and settles; what comes back took effect.
    async fn effect(
        &self,
        context: &Context,
        asked: Asked<'_>,
        mut audit: audit::Record,
    ) -> Result<Effected, Fault> {
        audit.params = self.params(&asked.outgoing.template, &asked.outgoing.path, asked.params);
        let body = asked.outgoing.body.clone();
        let started = self.clock.monotonic();
        let spec = asked.spec;
        let begun = self.ledger.begin(asked, audit, context.deadline).await;
        let mut ticket = match begun.map_err(|error| self.unrecorded(&error))? {
            Begun::New(ticket) => ticket,
            Begun::Replay(settled) => return self.replay(settled),
            Begun::Joined(verdict) => return self.judged(verdict, 0, true),
            Begun::Mismatch(fields) => return Err(outcome::mismatch(&fields)),
            Begun::Look(hold) => {
                let closing = self.record(Phase::Outcome, context, spec);
                let (why, found) = ("no look-up at Stripe was made".to_owned(), Vec::new());
                let verdict = self.ledger.found(*hold, Finding::Undecided { why, found }, closing).await;
                return self.judged(verdict.map_err(|error| self.unrecorded(&error))?, 0, false);
            }
            Begun::Unresolved(why) => return Err(outcome::unresolved(why)),
        };
        outcome::restore_upload(&mut ticket.outgoing, body);
        let lease = ticket.lease();
        let allowed = || lease.holds(self.clock.now());
        planted::point("send-before");
        let sent = self.stripe.send_while(&ticket.outgoing, context.deadline, allowed).await;
        planted::point("send-after");
        let attempts = sent.requests();
        let mut closing = self.record(Phase::Outcome, context, spec);
        closing.latency_ms = Some(self.millis_since(started));
        let settled = self.ledger.settle(*ticket, &sent.attempts, closing).await;
        self.judged(settled.map_err(|error| self.unrecorded(&error))?, attempts, false)
    }

    fn replay(&self, settled: Settled) -> Result<Effected, Fault> {
        match settled {
            Settled::Succeeded(success) => {
                self.metrics.replay(Replay::Success);
                Ok(Effected { success, replayed: true, attempts: 0 })
            }
            Settled::Refused(refusal) => {
                self.metrics.replay(Replay::Refusal);
                Err(outcome::refused(&refusal))
            }
            Settled::NotExecuted(_) => Err(outcome::not_executed()),
        }
    }

    fn judged(&self, verdict: Verdict, attempts: i32, joined: bool) -> Result<Effected, Fault> {
        match verdict {
            Verdict::Settled(settled) if joined => self.replay(settled),
            Verdict::Settled(Settled::Succeeded(success)) => {
                Ok(Effected { success, replayed: false, attempts })
            }
            Verdict::Settled(Settled::Refused(refusal)) => Err(outcome::refused(&refusal)),
            Verdict::Settled(Settled::NotExecuted(_)) => Err(outcome::not_executed()),
            Verdict::NeedsOperator(case) => Err(outcome::needs_operator(case.why)),
            Verdict::Open { last } => Err(outcome::open(last.as_ref())),
            Verdict::Unknown { last, conflict } => {
                self.metrics.unknown_outcome();
                Err(outcome::unknown(last.as_ref(), conflict))
            }
        }
    }
}

fn respond<M: Method>(effected: Effected, audit_id: String) -> Result<Done<M::Response>, Fault> {
    let Effected { success, replayed, attempts } = effected;
    let answer = || Answer { request_id: success.request_id.clone(), ..Answer::default() };
    let object_id = success.object_id.clone().unwrap_or_default();
    // The change took effect; a caller who took this for a failure would make it twice.
    let unread = |error: &Undecodable| {
        let mut fault =
            undecodable(error, &answer()).with("took_effect", "true").with("object_id", &object_id);
        fault.message = format!("the change took effect, but {}; do not make it again", fault.message);
        fault
    };
    let json: Value = serde_json::from_str(success.json.as_deref().unwrap_or_default()).map_err(|_| {
        let found = if success.json.is_some() { "not JSON" } else { "no longer kept" };
        unread(&Undecodable { path: String::new(), expected: "an object", found })
    })?;
    let stripe_request_id = success.request_id.clone();
    let call = CallInfo {
        replayed,
        stripe_request_id: stripe_request_id.clone().unwrap_or_default(),
        audit_id,
        attempts,
    };
    let reply = Reply { json: Some(&json), call, ..Reply::default() };
    let response = M::respond(reply).map_err(|error| unread(&error))?;
    Ok(Done { response, replayed, attempts, stripe_request_id })
}
