//! Changes: remembered before they are sent, judged after, and carried through to the end even when the caller is gone.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::timeout_at;
use tracing::Instrument as _;

use super::accounts::Account;
use super::call::{Done, Gateway};
use super::context::{Context, Presence};
use super::fault::Fault;
use super::freezes::{Change, lets_out};
use super::judge::facts;
use super::lookup::{Named, Question};
use super::money::Money;
use super::operation::operation_of;
use super::prepare::{Prepared, prepare};
use super::read::undecodable;
use super::resolve::worth_looking;
use super::wait::Accepted;
use super::{budget, guard, outcome, refusal};
use crate::audit::{self, Phase};
use crate::contract::{Method, Received, Reply, Sensitivity, Spec, Undecodable};
use crate::domain::limits::METADATA_STAMP;
use crate::domain::operation::OperationHash;
use crate::domain::planted;
use crate::ledger::{Asked, Begun, Hold, Preview, Sending, Settled, Success, Ticket, Unresolved, Verdict};
use crate::policy::Facts;
use crate::proto::v1::{Advice, CallInfo};
use crate::stripe::{Answer, Attempt, Outgoing, Trouble};
use crate::telemetry::names::{Replay, Stage, Way};

/// What the record of a change that a guard refused names as the rule.
const GUARD: &str = "guard";

/// A change that is known to have taken effect.
struct Effected {
    success: Success,
    replayed: bool,
    attempts: i32,
}

/// The answer to a change, and what it says of the object where it took effect.
type Carried<R> = (Done<R>, Option<Accepted>);

impl Gateway {
    /// Carries out one change. `build` turns the checked request into what goes to Stripe.
    pub(super) async fn change<M: Method>(
        self: Arc<Self>,
        mut context: Context,
        received: Received<M::Request>,
        build: impl FnOnce(&mut Prepared<'_>, &Account) -> Outgoing + Send + 'static,
    ) -> Result<M::Response, Fault> {
        let (deadline, local) = (context.deadline, M::local(&received.message));
        let wait = local.wait;
        let audit = self.record(Phase::Intent, &context, M::SPEC, local.account);
        let line = self.line(&context, local.operation, &audit);
        let gateway = Arc::clone(&self);
        let Ok(open) = Arc::clone(&self.open_changes).try_acquire_owned() else {
            let fault = outcome::crowded();
            self.keep_refused(audit, &fault);
            return self.account_for(&line, Err::<Done<_>, _>(fault));
        };
        // A task of its own: when the caller leaves or its deadline passes, the wait ends and not the change. What was not
        // sent by then alone is not sent any more.
        let here = Arc::new(());
        context.presence = Presence::while_held(&here);
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
        drop(here);
        planted::point("reply-before");
        // A task fails only by a panic, and then what was sent is on record as in flight.
        let answer = match answer.unwrap_or_else(|_| Err(outcome::broken())) {
            Ok(carried) => Ok(self.answer_when::<M>(wait, carried, deadline).await),
            Err(fault) => Err(fault),
        };
        self.account_for(&line, answer)
    }

    async fn to_the_end<M: Method>(
        &self,
        context: &Context,
        received: &Received<M::Request>,
        build: impl FnOnce(&mut Prepared<'_>, &Account) -> Outgoing,
        mut audit: audit::Record,
    ) -> Result<Carried<M::Response>, Fault> {
        let mut prepared = match prepare::<M>(received, &self.accounts) {
            Ok(prepared) => prepared,
            Err(fault) => {
                self.keep_refused(audit, &fault);
                return Err(fault);
            }
        };
        let reference = prepared.local.operation.cloned().unwrap_or_default();
        let account = Arc::clone(&prepared.account);
        let operation = operation_of(context, &account, prepared.spec, &reference);
        if prepared.spec.stamped {
            let stamp = operation.hash().to_string();
            prepared.sent.push(format!("metadata[{METADATA_STAMP}]"), stamp, Sensitivity::Public);
        }
        let outgoing = build(&mut prepared, &account);
        let mut asked = Asked {
            operation,
            spec: prepared.spec,
            outgoing,
            params: prepared.params.pairs(),
            retry_refused: reference.retry_refused,
            claim: None,
        };
        if let Err(fault) = self.permit(context, &prepared, &mut asked, &mut audit).await {
            let path = (prepared.spec.path, prepared.path.as_str());
            match audit.phase {
                Phase::Denied => self.keep_denied(audit, &asked.operation, path, asked.params, &fault),
                // Nothing tells the amount that a rule or a budget asks for.
                _ => self.keep_refused(audit, &fault),
            }
            return Err(fault);
        }
        let change = Change::new(context, &account, asked.spec);
        let advice = match self.objections(&account, &change, &asked).await {
            Ok(advice) => advice,
            Err((rule, fault)) => {
                audit.decision = Some(rule);
                let path = (asked.outgoing.template.as_str(), asked.outgoing.path.as_str());
                self.keep_denied(audit, &asked.operation, path, asked.params, &fault);
                return Err(fault);
            }
        };
        let call = CallInfo { audit_id: audit.id.clone(), advice, ..CallInfo::default() };
        if prepared.local.validate_only {
            let preview = self.preview(asked, audit).await?;
            let reply = Reply { preview: Some(preview), call, ..Reply::default() };
            let response = M::respond(reply).map_err(|error| undecodable(&error, &Answer::default()))?;
            return Ok((Done { response, replayed: false, attempts: 0, stripe_request_id: None }, None));
        }
        match Box::pin(self.effect(context, (account, change), asked, audit)).await {
            Ok(effected) => respond::<M>(effected, call),
            Err(fault) => Err(guard::advised(fault, &call.advice)),
        }
    }

    /// What the gateway has to say against a change that the policies permit: doubts for its caller, or a rule and a
    /// fault. A freeze stands against what the ledger would send; what is answered from memory, or by looking at Stripe,
    /// is answered all the same.
    async fn objections(
        &self,
        account: &Account,
        change: &Change,
        asked: &Asked<'_>,
    ) -> Result<Vec<Advice>, (String, Fault)> {
        let guarded = |fault| (GUARD.to_owned(), fault);
        if let Some(freeze) = self.freezes.over(change) {
            let preview = self.ledger.preview(asked.clone()).await;
            let preview = preview.map_err(|error| guarded(self.unrecorded(&error)))?;
            if matches!(preview, Preview::Send { .. } | Preview::OverBudget(_)) {
                return Err((freeze.decision(), freeze.fault()));
            }
        }
        self.guard(account, asked).await.map_err(guarded)
    }

    /// Asks the policies and the budgets. What they need to know of the money is read first where a rule speaks of it, and
    /// else not before the call is permitted. Nothing is read for a call that no rule may permit whatever it moves.
    async fn permit(
        &self,
        context: &Context,
        prepared: &Prepared<'_>,
        asked: &mut Asked<'_>,
        audit: &mut audit::Record,
    ) -> Result<(), Fault> {
        let account = &prepared.account;
        let (policies, action) = (self.policies.current(), asked.spec.name());
        let ruled = policies.needs_money(&context.caller, &action)
            && policies.may_permit_call(&context.caller, &action, &account.alias);
        let money = if ruled { self.value(context, account, asked, true).await? } else { Money::default() };
        self.judge(context, account, Facts { money: money.known(), ..facts(prepared) }, audit)?;
        if !ruled {
            self.value(context, account, asked, false).await?;
        }
        Ok(())
    }

    /// Decides, sends and settles; what comes back took effect.
    async fn effect(
        &self,
        context: &Context,
        (account, change): (Arc<Account>, Change),
        asked: Asked<'_>,
        mut audit: audit::Record,
    ) -> Result<Effected, Fault> {
        if let Some(fault) = self.without_turn(context, &account, &asked).await? {
            audit.concern(&asked.operation);
            self.keep_refused(audit, &fault);
            return Err(fault);
        }
        audit.params = self.params(&asked.outgoing.template, &asked.outgoing.path, asked.params);
        let (spec, hash) = (asked.spec, asked.operation.hash());
        let subject = Subject { account, change, spec, hash, outgoing: asked.outgoing.clone() };
        let begun = self.ledger.begin(asked, audit, context.deadline);
        let begun = self.stage(context, Stage::Begin, begun).await;
        let (verdict, attempts, replayed) = match begun.map_err(|error| self.unrecorded(&error))? {
            Begun::New(ticket) => self.carry_out(context, *ticket, &subject).await?,
            Begun::Replay(settled) => (Verdict::Settled(settled), 0, true),
            Begun::Joined(verdict) => (verdict, 0, true),
            Begun::Look(hold) => self.look_now(context, *hold, &subject).await?,
            Begun::Mismatch(fields) => return Err(outcome::mismatch(&fields)),
            Begun::OverBudget(exceeded) => {
                self.metrics.budget_refused(&exceeded.budget.name);
                return Err(budget::exceeded(&exceeded, self.clock.wall()));
            }
            Begun::Unresolved(Unresolved::InFlight) => return Err(outcome::in_flight()),
            Begun::Unresolved(Unresolved::Forgotten) => return Err(outcome::forgotten()),
            Begun::Unresolved(Unresolved::NeedsOperator(case)) => (Verdict::NeedsOperator(case), 0, false),
        };
        self.judged(context, &subject, verdict, (attempts, replayed)).await
    }

    /// Why a change would find no turn at Stripe, where too much waits already: then it is not put on record either, and its
    /// reference stays free. One that may have been made before goes on, since its caller has to hear that.
    async fn without_turn(
        &self,
        context: &Context,
        account: &Account,
        asked: &Asked<'_>,
    ) -> Result<Option<Fault>, Fault> {
        let (outgoing, sender) = (&asked.outgoing, context.sender());
        let crowded = account.stripe.crowded(outgoing, &sender, context.deadline);
        let Some(trouble) = crowded else { return Ok(None) };
        let preview = self.ledger.preview(asked.clone()).await.map_err(|error| self.unrecorded(&error))?;
        Ok(match preview {
            Preview::Send { how: Sending::Resend { ambiguous: true }, .. } => None,
            Preview::Send { .. } => {
                Some(refusal::of_attempt(&account.stripe.turn_away(outgoing, &sender, trouble)))
            }
            Preview::Answer(_) | Preview::Look(_) | Preview::OverBudget(_) => None,
        })
    }

    /// Sends, and puts on record what came of it.
    async fn carry_out(
        &self,
        context: &Context,
        mut ticket: Ticket,
        subject: &Subject,
    ) -> Result<(Verdict, i32, bool), Fault> {
        let started = self.clock.monotonic();
        outcome::restore_upload(&mut ticket.outgoing, subject.outgoing.body.clone());
        let (lease, clock) = (ticket.lease(), Arc::clone(&self.clock));
        let (freezes, change) = (self.freezes.clone(), subject.change.clone());
        let (presence, is_resend) = (context.presence.clone(), ticket.ambiguous);
        let allowed = move |reached: bool| {
            let is_wanted = reached || is_resend || !presence.is_over();
            is_wanted && lease.holds(clock.now()) && lets_out(&freezes, &change)
        };
        let key = ticket.outgoing.idempotency_key.as_deref();
        self.causes.sending(ticket.operation(), (subject.spec, key), context);
        planted::point("send-before");
        let (stripe, sender) = (&subject.account.stripe, context.sender());
        let sending = stripe.send_while(&ticket.outgoing, &sender, context.deadline, allowed);
        let sent = self.stage(context, Stage::Send, sending).await;
        context.notes.note(|facts| (facts.attempts, facts.queued) = (sent.requests(), sent.queued));
        // Who hears of the change and then reads must see it.
        self.shared_reads.anew();
        planted::point("send-after");
        let resent = ticket.ambiguous;
        let mut closing = self.record(Phase::Outcome, context, subject.spec, &subject.account.alias);
        closing.latency_ms = Some(self.millis_since(started));
        let settled = self.ledger.settle(ticket, &sent.attempts, closing);
        let settled = self.stage(context, Stage::Settle, settled).await;
        let verdict = settled.map_err(|error| self.unrecorded(&error))?;
        if let (true, Verdict::Settled(_)) = (resent, &verdict) {
            self.metrics.resolved(Way::Resend);
        }
        if let Verdict::Unknown { conflict: true, .. } = verdict {
            tracing::error!(operation = %subject.hash, "Stripe knows the idempotency key with other parameters");
        }
        if subject.reading_tells_more(&verdict) {
            let hold = self.ledger.hold(subject.hash).await.map_err(|error| self.unrecorded(&error))?;
            if let Some(hold) = hold {
                return self.look_now(context, hold, subject).await;
            }
        }
        Ok((verdict, sent.requests(), false))
    }

    /// Looks at Stripe while the caller waits.
    async fn look_now(
        &self,
        context: &Context,
        hold: Hold,
        subject: &Subject,
    ) -> Result<(Verdict, i32, bool), Fault> {
        let closing = self.record(Phase::Outcome, context, subject.spec, &subject.account.alias);
        let looked = self.look(hold, closing, context.deadline).await;
        let looked = looked.map_err(|error| self.unrecorded(&error))?;
        Ok((looked.verdict, i32::try_from(looked.reads).unwrap_or(i32::MAX), false))
    }

    async fn judged(
        &self,
        context: &Context,
        subject: &Subject,
        verdict: Verdict,
        (attempts, replayed): (i32, bool),
    ) -> Result<Effected, Fault> {
        match verdict {
            Verdict::Settled(Settled::Succeeded(success)) => {
                if replayed {
                    self.metrics.replay(Replay::Success);
                }
                let success = self.whole(context, subject, success).await?;
                Ok(Effected { success, replayed, attempts })
            }
            Verdict::Settled(Settled::Refused(refusal)) => {
                if replayed {
                    self.metrics.replay(Replay::Refusal);
                }
                Err(outcome::refused(&refusal))
            }
            Verdict::Settled(Settled::NotExecuted(witness)) => Err(outcome::not_executed(witness)),
            Verdict::NeedsOperator(case) => Err(outcome::needs_operator(&case, &subject.hash)),
            Verdict::Open { last } => match self.freezes.over(&subject.change) {
                Some(freeze) if not_let_out(last.as_ref()) => Err(freeze.fault()),
                _ => Err(outcome::open(last.as_ref())),
            },
            Verdict::Unknown { last, .. } => {
                self.metrics.unknown_outcome();
                Err(outcome::unknown(last.as_ref()))
            }
        }
    }

    /// The success with its object, which is read anew where the ledger does not keep it.
    async fn whole(&self, context: &Context, subject: &Subject, success: Success) -> Result<Success, Fault> {
        if success.json.is_some() {
            return Ok(success);
        }
        let Subject { account, spec, hash, outgoing, .. } = subject;
        let id = success.object_id.clone().unwrap_or_default();
        let gone = || {
            outcome::took_effect(&id, "its answer is no longer kept, and Stripe does not show it any more")
        };
        let question = Question::of(spec, outgoing, hash.to_string(), 0).ok_or_else(gone)?;
        let sent = account.stripe.send(&question.named(&id), &context.sender(), context.deadline).await;
        match sent.answer().map(|answer| question.is_effect(&id, answer)) {
            Some(Named::Effect(anew)) => Ok(Success { json: anew.json, ..success }),
            Some(Named::Missing | Named::Other(_)) => Err(gone()),
            Some(Named::Unread) | None => {
                Err(outcome::took_effect(&id, "its answer is no longer kept, and Stripe cannot be read now"))
            }
        }
    }
}

/// What a call is about, as far as it is needed after the ledger has taken the rest.
struct Subject {
    account: Arc<Account>,
    change: Change,
    spec: &'static Spec,
    hash: OperationHash,
    /// What would go out if it were sent for the first time.
    outgoing: Outgoing,
}

impl Subject {
    /// Whether the object tells at once what no resend will: Stripe refused something that an earlier attempt may have
    /// brought about, and what is deleted, closed or cancelled cannot be so again; or it knows the key otherwise.
    fn reading_tells_more(&self, verdict: &Verdict) -> bool {
        let has_target = self.spec.lookup.as_ref().is_some_and(|lookup| !lookup.reached.is_empty());
        match verdict {
            Verdict::Unknown { conflict: true, .. } => worth_looking(self.spec),
            Verdict::Unknown { last: Some(Attempt::Answered(answer)), .. } => {
                has_target && [400, 404].contains(&answer.status)
            }
            _ => false,
        }
    }
}

/// Whether an attempt was held back when it was about to go out.
fn not_let_out(last: Option<&Attempt>) -> bool {
    matches!(last, None | Some(Attempt::NotSent(Trouble::Deadline)))
}

fn respond<M: Method>(effected: Effected, call: CallInfo) -> Result<Carried<M::Response>, Fault> {
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
        let found = "not JSON";
        unread(&Undecodable { path: String::new(), expected: "an object", found })
    })?;
    let stripe_request_id = success.request_id.clone();
    let stripe_request_id_shown = stripe_request_id.clone().unwrap_or_default();
    // A doubt that was raised while another call made the change is not about this one.
    let advice = if replayed { Vec::new() } else { call.advice };
    let call = CallInfo { replayed, stripe_request_id: stripe_request_id_shown, attempts, advice, ..call };
    let reply = Reply { json: Some(&json), call: call.clone(), ..Reply::default() };
    let response = M::respond(reply).map_err(|error| unread(&error))?;
    let accepted = Accepted { object: json, call };
    Ok((Done { response, replayed, attempts, stripe_request_id }, Some(accepted)))
}
