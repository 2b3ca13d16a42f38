//! What the ledger says of a change, as faults. Its word wins over the table of Stripe's answers.

use std::time::Duration;

use super::fault::{Code, Fault, Reason, Retry};
use super::refusal;
use crate::ledger::{self, Refusal, Stuck, Unresolved};
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
pub(super) fn unknown(last: Option<&Attempt>, conflict: bool) -> Fault {
    if conflict {
        return needs_operator(Stuck::KeyConflict);
    }
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

/// The outcome of an earlier call is unknown, and this call does not find it out.
pub(super) fn unresolved(why: Unresolved) -> Fault {
    match why {
        Unresolved::InFlight => Fault::new(
            Code::Aborted,
            Reason::OperationInFlight,
            "the same change is in flight; ask again for its outcome",
        )
        .retry(Retry::After(ASK_AGAIN_AFTER)),
        Unresolved::NeedsOperator(case) => needs_operator(case.why),
    }
}

/// Nothing happened, as somebody found out who looked at Stripe.
pub(super) fn not_executed() -> Fault {
    let message = "Stripe did not carry this out, and will not; say `retry_refused` to send it again";
    Fault::new(Code::FailedPrecondition, Reason::OperationNeedsOperator, message).retry(Retry::Never)
}

/// Only a person can tell.
pub(super) fn needs_operator(why: Stuck) -> Fault {
    let message = match why {
        Stuck::Expired => {
            "the outcome is unknown and too old to be learnt by resending; a person has to look it up at Stripe"
        }
        Stuck::KeyConflict => {
            "Stripe knows this operation's key with other parameters; a person has to look it up at Stripe"
        }
        Stuck::ClockSetBack => {
            "the outcome is unknown, and so is its age; a person has to look it up at Stripe"
        }
        Stuck::Superseded => {
            "the outcome is unknown, and a later change of the same object was sent; a person has to look it up at Stripe"
        }
        Stuck::Absent | Stuck::Undecided | Stuck::Overdue => {
            "the outcome is unknown and was not found out by looking; a person has to look it up at Stripe"
        }
    };
    Fault::new(Code::FailedPrecondition, Reason::OperationNeedsOperator, message).retry(Retry::Never)
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
