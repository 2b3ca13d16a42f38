//! Reads at Stripe what came of changes whose outcome is unknown. Sends nothing but reads; when to look is the
//! resolver's and the caller's business, what follows is the ledger's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::call::Gateway;
use super::lookup::{Question, Step};
use crate::audit::{self, Phase};
use crate::contract::{Effect, Spec};
use crate::domain::caller::Caller;
use crate::domain::limits::LOOKUP_MS_MAX;
use crate::domain::operation::Operation;
use crate::domain::planted;
use crate::ledger::{self, Finding, Hold, Settled, Verdict};
use crate::stripe::{Client, Outgoing, Sender, Sent};
use crate::telemetry::names::Way;

/// Who works on the gateway's own behalf, in audit records; no configured caller can have the name.
const OWN_NAME: &str = "(gateway)";
/// The method that the records of such work name.
const OWN_RPC: &str = "tollgate.v1.AdminService/ResolveOperation";

/// What a look came to.
#[derive(Debug)]
pub(super) struct Looked {
    /// What is known of the operation now.
    pub verdict: Verdict,
    /// What was found, in a sentence for an operator.
    pub finding: String,
    /// Whether it was a look: one that sent nothing was none.
    pub asked: bool,
    /// Requests that it took.
    pub reads: u32,
}

impl Gateway {
    /// Looks at Stripe what came of the operation, and puts on record what that proves.
    ///
    /// # Errors
    /// When the outcome cannot be put on record; the operation stays as it was.
    pub(super) async fn look(
        &self,
        hold: Hold,
        audit: audit::Record,
        deadline: Option<Instant>,
    ) -> Result<Looked, ledger::Error> {
        planted::point("resolve-before-read");
        let (finding, reads) = self.read_effect(&hold, deadline).await;
        planted::point("resolve-after-read");
        if let Finding::Effected(_) | Finding::Absent { .. } = finding {
            // Who hears what is known from now on and then reads must see it.
            self.shared_reads.anew();
        }
        let (said, asked) = (sentence(&finding), !matches!(finding, Finding::Unasked { .. }));
        let verdict = self.ledger.found(hold, finding, audit).await?;
        if let Verdict::Settled(settled) = &verdict {
            self.metrics.resolved(Way::Look);
            let outcome = word(settled);
            tracing::info!(outcome, reads, "an unknown outcome was found out by looking");
        }
        Ok(Looked { verdict, finding: said, asked, reads })
    }

    /// Reads until it is found out, or the deadline passes, or `LOOKUP_MS_MAX`.
    pub(super) async fn read_effect(&self, hold: &Hold, deadline: Option<Instant>) -> (Finding, u32) {
        let latest = Instant::now() + Duration::from_millis(LOOKUP_MS_MAX);
        let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
        let undecided = |why: &str| (Finding::Undecided { why: why.to_owned(), found: Vec::new() }, 0);
        let record = hold.record();
        let (Some(spec), Some(outgoing)) = (hold.spec(), record.outgoing()) else {
            return undecided("this version does not know the method any more");
        };
        let stamp = record.operation.hash().to_string();
        // A clock that was wrong once tells nothing of when it was sent.
        let first_sent_ms = if record.age_lost { 0 } else { record.first_sent_ms };
        let Some(mut question) = Question::of(spec, outgoing, stamp, first_sent_ms) else {
            return undecided("the method names no way to look");
        };
        let Some(account) = self.accounts.of_operation(&record.operation) else {
            let why = format!("no key of `{}` is configured any more", record.operation.account);
            return (Finding::Unread { why }, 0);
        };
        let mut reads = 0;
        let mut next = question.first();
        loop {
            let (sent, requests) = read_by(&account.stripe, &next, deadline).await;
            reads += requests;
            match question.take(sent.as_ref().and_then(|sent| sent.last())) {
                Step::Read(request) => next = *request,
                Step::Done(Finding::Unread { why }) if reads == 0 => {
                    return (Finding::Unasked { why }, reads);
                }
                Step::Done(finding) => return (finding, reads),
            }
        }
    }

    /// A record of what the gateway does of its own accord about an operation.
    pub(super) fn own_record(&self, operation: &Operation) -> audit::Record {
        let caller = Caller::own(OWN_NAME, &operation.namespace);
        let mut record = self.auditor.record(Phase::Outcome, &caller, OWN_RPC);
        record.concern(operation);
        record
    }
}

/// Reads until the deadline, when a request under way is cut off: how it ended, and how many requests it took.
async fn read_by(stripe: &Client, request: &Outgoing, deadline: Instant) -> (Option<Sent>, u32) {
    let permits = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&permits);
    let allowed = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        true
    };
    let sending = stripe.send_while(request, &Sender::Gateway, Some(deadline), allowed);
    match timeout_at(deadline, sending).await {
        Ok(sent) => {
            let requests = u32::try_from(sent.requests()).unwrap_or_default();
            (Some(sent), requests)
        }
        // The second permit is asked for when the first request is about to be written: until then, nothing was sent.
        Err(_) => (None, u32::from(permits.load(Ordering::Relaxed) > 1)),
    }
}

/// Whether looking can help at all: what may safely exist twice is made again instead.
pub(super) fn worth_looking(spec: &Spec) -> bool {
    spec.lookup.is_some() && spec.effect != Effect::Repeatable
}

/// What was found, for an operator.
fn sentence(finding: &Finding) -> String {
    match finding {
        Finding::Effected(success) => match &success.object_id {
            Some(id) => format!("it took effect: `{id}`"),
            None => "it took effect".to_owned(),
        },
        Finding::Absent { found } if found.is_empty() => "no effect was found".to_owned(),
        Finding::Absent { found } => {
            format!("no effect was found; objects made since that are not its effect: {}", found.len())
        }
        Finding::Undecided { why, .. } => format!("looking did not decide it: {why}"),
        Finding::Unread { why } => format!("Stripe could not be read: {why}"),
        Finding::Unasked { why } => format!("Stripe was not asked: {why}"),
    }
}

/// One word for a settled outcome.
pub(super) fn word(settled: &Settled) -> &'static str {
    match settled {
        Settled::Succeeded(_) => "succeeded",
        Settled::Refused(_) => "refused",
        Settled::NotExecuted(_) => "not_executed",
    }
}
