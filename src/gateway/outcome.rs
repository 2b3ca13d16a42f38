//! What the ledger says of a change, as faults. Its word wins over the table of Stripe's answers.

use std::time::Duration;

use super::fault::{Code, Fault, Reason, Retry};
use super::refusal;
use crate::domain::limits::{CHANGES_AT_ONCE_MAX, FOUND_IDS_SHOWN_MAX};
use crate::domain::operation::OperationHash;
use crate::ledger::{self, Case, Refusal, Stuck, Witness};
use crate::store;
use crate::stripe::{Answer, Attempt, Body, Outgoing};
use crate::telemetry::names::StoreFailure;

/// Advice on when to resend a change whose outcome is unknown.
const RESEND_AFTER: Duration = Duration::from_secs(2);
/// Advice on when to ask again for a change that is in flight, or when the store is busy.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Stripe refused, now or at an earlier call; the operation stays refused until the caller asks anew.
pub(super) fn refused(refusal: &Refusal) -> Fault {
    let answer = Answer {
        status: refusal.status,
        request_id: refusal.request_id.clone(),
        body: refusal.body.clone().into(),
        ..Answer::default()
    };
    refusal::of_answer(&answer)
}

/// Nothing happened, and the same may be sent again.
pub(super) fn open(last: Option<&Attempt>) -> Fault {
    last.map_or_else(refusal::deadline, refusal::of_attempt)
}

/// Stripe may have carried the change out.
pub(super) fn unknown(last: Option<&Attempt>) -> Fault {
    let fault = outcome_unknown("Stripe may or may not have carried this out");
    match last {
        Some(Attempt::Answered(answer)) => Fault { stripe_request_id: answer.request_id.clone(), ..fault }
            .with("http_status", answer.status.to_string()),
        Some(Attempt::NotSent(trouble) | Attempt::Broken(trouble)) => fault.with("trouble", trouble.as_str()),
        None => fault,
    }
}

fn outcome_unknown(what: &str) -> Fault {
    let message = format!("{what}; the same operation is safe to resend, and resending it resolves it");
    Fault::new(Code::Unavailable, Reason::OutcomeUnknown, message).retry(Retry::After(RESEND_AFTER))
}

/// The reference stands for another change.
pub(super) fn mismatch(fields: &[String]) -> Fault {
    let names: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
    let message = format!(
        "this order and operation id already stand for a change with another {}; \
         give another change an operation id of its own",
        names.join(", ")
    );
    Fault::new(Code::AlreadyExists, Reason::OperationReused, message)
        .with("fields", fields.join(","))
        .retry(Retry::Never)
}

/// An equal call is on its way still.
pub(super) fn in_flight() -> Fault {
    let message = "the same change is in flight; ask again for its outcome";
    Fault::new(Code::Aborted, Reason::OperationInFlight, message).retry(Retry::After(ASK_AGAIN_AFTER))
}

/// Nothing happened, as somebody found out who looked at Stripe.
pub(super) fn not_executed(witness: Witness) -> Fault {
    let (who, name) = match witness {
        Witness::Look => ("a look at Stripe found out", "look"),
        Witness::Operator => ("an operator found out", "operator"),
    };
    let message = format!("Stripe did not carry this out, as {who}; set `retry_refused` to send it again");
    Fault::new(Code::FailedPrecondition, Reason::NotExecuted, message)
        .with("witness", name)
        .retry(Retry::Never)
}

/// Only a person can tell.
pub(super) fn needs_operator(case: &Case, operation: &OperationHash) -> Fault {
    let message = format!("the outcome is unknown and an operator has to settle it: {}", why(case));
    let ids: Vec<&str> =
        case.found.iter().take(FOUND_IDS_SHOWN_MAX).map(|found| found.object_id.as_str()).collect();
    Fault::new(Code::FailedPrecondition, Reason::OperationNeedsOperator, message)
        .with("operation", operation.to_string())
        .with("case", case.why.as_str())
        .with("found", case.found.len().to_string())
        .with("found_ids", ids.join(","))
        .retry(Retry::Never)
}

/// It may have been done in a time of which the ledger knows nothing.
pub(super) fn forgotten() -> Fault {
    let message = "the gateway's data was restored from an older copy, so this may have been done already; \
                   nothing was sent, and an operator has to acknowledge the restore first";
    Fault::new(Code::FailedPrecondition, Reason::DataRolledBack, message).retry(Retry::Never)
}

/// Why only a person can tell, in a sentence.
pub(super) fn why(case: &Case) -> String {
    let why = match case.why {
        Stuck::Expired => "it is too old to be resent",
        Stuck::KeyConflict => "Stripe knows its idempotency key with other parameters",
        Stuck::Keyless => "sent again, it could remove what came after it",
        Stuck::ClockSetBack => "the clock was set back, so its age is not known",
        Stuck::Superseded => "a later change of the same object was sent",
        Stuck::Absent => "no effect was found, which for money proves nothing",
        Stuck::Undecided => "looking at Stripe did not decide it",
        Stuck::Overdue => "nothing could be learnt for too long",
    };
    if case.note.is_empty() { why.to_owned() } else { format!("{why}: {}", case.note) }
}

/// The change took effect, but its object cannot be shown.
pub(super) fn took_effect(object_id: &str, why: &str) -> Fault {
    let message = format!("the change took effect, but {why}; do not make it again");
    Fault::new(Code::Unavailable, Reason::StripeUnavailable, message)
        .with("took_effect", "true")
        .with("object_id", object_id)
        .retry(Retry::After(ASK_AGAIN_AFTER))
}

/// Too many changes are under way; this one was neither sent nor put on record.
pub(super) fn crowded() -> Fault {
    let message = format!("{CHANGES_AT_ONCE_MAX} changes are under way, the most at once; nothing was sent");
    Fault::new(Code::ResourceExhausted, Reason::Overloaded, message)
        .with("limit", "CHANGES_AT_ONCE_MAX")
        .retry(Retry::After(ASK_AGAIN_AFTER))
}

/// The ledger failed; unless what was sent could not be recorded, nothing was sent.
pub(super) fn unrecorded(error: &ledger::Error) -> Fault {
    match error {
        ledger::Error::Unsettled(_) => {
            outcome_unknown("the change was sent and what came of it could not be put on record")
        }
        ledger::Error::Crowded => Fault::new(Code::ResourceExhausted, Reason::Overloaded, error.to_string())
            .with("limit", "FLIGHT_FOLLOWERS_MAX")
            .retry(Retry::After(ASK_AGAIN_AFTER)),
        ledger::Error::NotRecorded(cause) | ledger::Error::Unread(cause) => {
            store_down(cause, &error.to_string())
        }
        ledger::Error::Uncertain => store_down(&store::Error::Uncertain, &error.to_string()),
        ledger::Error::Unreadable(_) | ledger::Error::Audit(_) => {
            Fault::new(Code::Internal, Reason::Internal, error.to_string()).retry(Retry::Never)
        }
    }
}

/// The store does not take or give anything.
pub(super) fn store_down(error: &store::Error, message: &str) -> Fault {
    Fault::new(Code::Unavailable, Reason::StoreUnavailable, format!("{message}: {error}"))
        .with("store", failure(error).as_str())
        .retry(Retry::After(ASK_AGAIN_AFTER))
}

/// What kind of failure of the store it is.
pub(super) fn failure(error: &store::Error) -> StoreFailure {
    match error {
        store::Error::Busy => StoreFailure::Busy,
        store::Error::Full => StoreFailure::Full,
        store::Error::ReadOnly => StoreFailure::ReadOnly,
        store::Error::Io(_) => StoreFailure::Io,
        store::Error::Corrupt(_) => StoreFailure::Corrupt,
        store::Error::Uncertain => StoreFailure::Uncertain,
        store::Error::TooNew { .. }
        | store::Error::Locked
        | store::Error::TooLarge { .. }
        | store::Error::Vanished { .. }
        | store::Error::Closed => StoreFailure::Other,
    }
}

/// The task that carried the change broke off.
pub(super) fn broken() -> Fault {
    let message = "the gateway failed while carrying this out; the same operation is safe to resend";
    Fault::new(Code::Internal, Reason::Internal, message).retry(Retry::After(RESEND_AFTER))
}

/// Puts the bytes of an upload, which the ledger does not store, back into what it says to send.
pub(super) fn restore_upload(outgoing: &mut Outgoing, fresh: Body) {
    if let (Body::Multipart { boundary, bytes }, Body::Multipart { boundary: ours, bytes: given }) =
        (&mut outgoing.body, fresh)
        && bytes.is_empty()
        && *boundary == ours
    {
        *bytes = given;
    }
}
