//! Reads: straight to Stripe, audited without waiting for the disk, nothing remembered.

use serde_json::Value;
use tokio::time::timeout_at;

use super::call::{Done, Gateway};
use super::context::Context;
use super::fault::{Code, Fault, Reason, Retry};
use super::judge::facts;
use super::prepare::prepare;
use super::redact::without_client_secrets;
use super::refusal;
use crate::audit::Record;
use crate::contract::{Method, Received, Reply, Spec, Undecodable, page};
use crate::proto::v1::CallInfo;
use crate::stripe::{Answer, Attempt};
use crate::telemetry::names::Stage;

impl Gateway {
    /// Carries out one read.
    pub(super) async fn read<M: Method>(
        &self,
        context: &Context,
        received: &Received<M::Request>,
        record: &mut Record,
    ) -> Result<Done<M::Response>, Fault> {
        let prepared = prepare::<M>(received, &self.accounts)?;
        let account = &prepared.account;
        self.judge(context, account, facts(&prepared), record)?;
        let outgoing = prepared.outgoing(account);
        let sender = context.sender();
        let own = Box::pin(account.stripe.send(&outgoing, &sender, context.deadline));
        let sending = self.shared_reads.read(&account.alias, &outgoing, own);
        let waiting = async {
            match context.deadline {
                Some(deadline) => timeout_at(deadline, sending).await.map_err(|_| refusal::deadline()),
                None => Ok(sending.await),
            }
        };
        let waited = self.attended(record, self.stage(context, Stage::Send, waiting)).await;
        let (sent, is_shared) = waited?;
        if is_shared {
            self.metrics.read_shared();
        }
        let attempts = sent.requests();
        context.notes.note(|facts| (facts.attempts, facts.queued) = (attempts, sent.queued));
        let answer = success(sent.last())?;
        let json = decode(prepared.spec, answer)?;
        let body = String::from_utf8_lossy(&answer.body);
        let verbatim = prepared.local.full.then(|| without_client_secrets(&body));
        let reply = Reply {
            json: Some(&json),
            verbatim: verbatim.as_deref(),
            call: CallInfo {
                replayed: false,
                stripe_request_id: answer.request_id.clone().unwrap_or_default(),
                audit_id: record.id.clone(),
                attempts,
                ..CallInfo::default()
            },
            preview: None,
            next_page_token: page::next(prepared.spec, &prepared.params, &json),
        };
        let response = M::respond(reply).map_err(|error| undecodable(&error, answer))?;
        Ok(Done { response, replayed: false, attempts, stripe_request_id: answer.request_id.clone() })
    }
}

/// The answer, if it is a success.
pub(super) fn success(last: Option<&Attempt>) -> Result<&Answer, Fault> {
    match last {
        Some(Attempt::Answered(answer)) if (200..300).contains(&answer.status) => Ok(answer),
        Some(attempt) => Err(refusal::of_attempt(attempt)),
        None => Err(refusal::deadline()),
    }
}

/// Stripe's JSON, if it is what the RPC answers with.
pub(super) fn decode(spec: &Spec, answer: &Answer) -> Result<Value, Fault> {
    let json = answer.json().filter(Value::is_object);
    let wrong = |path: &str, found, expected| {
        undecodable(&Undecodable { path: path.to_owned(), expected, found }, answer)
    };
    let json = json.ok_or_else(|| wrong("", "no JSON object", "one"))?;
    let object = json.get("object").and_then(Value::as_str).unwrap_or_default();
    if !spec.object.is_empty() && object != spec.object {
        return Err(wrong("object", "another kind of object", spec.object));
    }
    Ok(json)
}

/// Stripe answered with a success that the contract cannot read.
pub(super) fn undecodable(error: &Undecodable, answer: &Answer) -> Fault {
    let mut fault = Fault::new(Code::Internal, Reason::StripeAnswerUndecodable, error.to_string())
        .with("path", error.path.clone())
        .retry(Retry::Never);
    fault.by_stripe = true;
    fault.stripe_request_id.clone_from(&answer.request_id);
    fault
}
