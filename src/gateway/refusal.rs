//! The one table from Stripe's answers to faults, for answers that are definitive. What an answer proves about an
//! operation is the ledger's question; where the two differ, the ledger's word wins.

use std::time::Duration;

use super::fault::{Code, Fault, Reason, Retry};
use crate::contract::Violation;
use crate::contract::field_path::of_param;
use crate::stripe::traffic::Why;
use crate::stripe::{Answer, Attempt, StripeError, Trouble};

/// Advice on when to come back after a rate limit or a conflict, unless Stripe gave one.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// Advice on when to come back after a failure of Stripe's.
const RETRY_LATER: Duration = Duration::from_secs(5);

/// Error codes that speak of the state of something rather than of the request.
const STATE_CODES: [&str; 22] = [
    "charge_already_refunded",
    "charge_already_captured",
    "charge_disputed",
    "charge_not_refundable",
    "charge_expired_for_capture",
    "refund_disputed_payment",
    "status_transition_invalid",
    "intent_invalid_state",
    "payment_intent_unexpected_state",
    "payment_method_unexpected_state",
    "setup_intent_unexpected_state",
    "balance_insufficient",
    "insufficient_funds",
    "customer_max_payment_methods",
    "resource_already_exists",
    "action_blocked",
    "approval_required",
    "request_blocked",
    "dispute_evidence_page_limit_exceeded",
    "smart_disputes_not_available",
    "testmode_charges_only",
    "livemode_mismatch",
];

/// What the last attempt of a call means to the caller, when it was not a success.
#[must_use]
pub(super) fn of_attempt(attempt: &Attempt) -> Fault {
    match attempt {
        Attempt::Answered(answer) => of_answer(answer),
        Attempt::NotSent(Trouble::Deadline) => deadline(),
        Attempt::NotSent(Trouble::Crowded { why, retry_ms }) => crowded(*why, *retry_ms),
        Attempt::NotSent(trouble) => {
            let message = format!("Stripe could not be reached: {trouble}; nothing was sent");
            let after = match trouble {
                Trouble::BreakerOpen { retry_ms } => Duration::from_millis(u64::from(*retry_ms)),
                _ => RETRY_SOON,
            };
            Fault::new(Code::Unavailable, Reason::StripeUnreachable, message)
                .with("trouble", trouble.as_str())
                .retry(Retry::After(after))
        }
        Attempt::Broken(trouble) => {
            let message = format!("Stripe did not answer: {trouble}");
            Fault::new(Code::Unavailable, Reason::StripeUnavailable, message)
                .with("trouble", trouble.as_str())
                .retry(Retry::After(RETRY_SOON))
        }
    }
}

/// The account lets too little through for all who want to send.
fn crowded(why: Why, retry_ms: u32) -> Fault {
    let message = "too many requests wait for Stripe's rate limit, and this one was not sent";
    let after = Duration::from_millis(retry_ms.into()).max(RETRY_SOON);
    Fault::new(Code::ResourceExhausted, Reason::StripeCrowded, message)
        .with("why", why.as_str())
        .retry(Retry::After(after))
}

/// The caller's deadline passed.
#[must_use]
pub(super) fn deadline() -> Fault {
    Fault::new(
        Code::DeadlineExceeded,
        Reason::DeadlineExceeded,
        "the deadline passed; a change that was sent is recorded, so send the same reference again",
    )
}

/// What an answer other than a success means to the caller.
#[must_use]
pub(super) fn of_answer(answer: &Answer) -> Fault {
    let error = answer.error().unwrap_or_default();
    let text = error.public_message(answer.status);
    let mut fault = match answer.status {
        400 => bad_request(&error, text),
        402 => Fault::new(Code::FailedPrecondition, Reason::CardDeclined, text).retry(Retry::Never),
        404 => not_found(&error, text),
        401 => {
            Fault::new(Code::Internal, Reason::GatewayCredentialRejected, "Stripe refuses the gateway's key")
                .retry(Retry::Never)
        }
        403 => Fault::new(
            Code::Internal,
            Reason::GatewayKeyLacksPermission,
            "the gateway's key lacks a right that this call needs",
        )
        .retry(Retry::Never),
        409 => Fault::new(Code::Aborted, Reason::StripeConflict, text).retry(soon(answer)),
        424 => {
            Fault::new(Code::Unavailable, Reason::StripeUnavailable, text).retry(Retry::After(RETRY_LATER))
        }
        429 => limited(answer, &error, text),
        500..=599 => {
            let text = format!("Stripe failed with HTTP status {}", answer.status);
            Fault::new(Code::Unavailable, Reason::StripeUnavailable, text).retry(Retry::After(RETRY_SOON))
        }
        status => {
            let text = format!("Stripe answered with HTTP status {status}, which the gateway does not know");
            Fault::new(Code::Internal, Reason::StripeAnswerUndecodable, text).retry(Retry::Never)
        }
    };
    attach(&mut fault, answer, &error);
    fault
}

fn bad_request(error: &StripeError, text: String) -> Fault {
    let code = error.code.as_deref().unwrap_or_default();
    // Stripe gives no code for an amount above what remains, nor for what is closed or cannot be cancelled.
    let about_state = STATE_CODES.contains(&code)
        || (code.is_empty() && error.param.as_deref() == Some("amount"))
        || (code.is_empty() && error.param.is_none());
    if error.kind == "idempotency_error" {
        Fault::new(
            Code::AlreadyExists,
            Reason::OperationReused,
            "Stripe knows this key with other parameters",
        )
        .retry(Retry::Never)
    } else if code == "resource_missing" {
        not_found(error, text)
    } else if about_state {
        let mut fault = Fault::new(Code::FailedPrecondition, Reason::StripeState, text).retry(Retry::Never);
        let subject =
            error.charge.clone().or_else(|| error.param.as_deref().map(of_param)).unwrap_or_default();
        fault.precondition =
            Some((if code.is_empty() { "STATE".to_owned() } else { code.to_uppercase() }, subject));
        fault
    } else {
        let mut fault = Fault::new(Code::InvalidArgument, Reason::StripeInvalidParameter, text.clone())
            .retry(Retry::Never);
        if let Some(param) = &error.param {
            fault.violations = vec![Violation { field: of_param(param), description: text }];
        }
        fault
    }
}

fn not_found(error: &StripeError, text: String) -> Fault {
    let mut fault = Fault::new(Code::NotFound, Reason::ResourceNotFound, text).retry(Retry::Never);
    let name = fault.message.split('\'').nth(1).unwrap_or_default().to_owned();
    fault.resource = Some((error.param.clone().unwrap_or_default(), name));
    fault
}

fn limited(answer: &Answer, error: &StripeError, text: String) -> Fault {
    if error.code.as_deref() == Some("lock_timeout") {
        return Fault::new(Code::Aborted, Reason::StripeConflict, text).retry(soon(answer));
    }
    let limiter = answer.rate_limited_reason.clone().unwrap_or_else(|| "unnamed".to_owned());
    let mut fault =
        Fault::new(Code::ResourceExhausted, Reason::StripeRateLimited, "Stripe's rate limit was reached")
            .with("limiter", limiter.clone())
            .retry(soon(answer));
    fault.quota = Some(format!("stripe:{limiter}"));
    fault
}

fn soon(answer: &Answer) -> Retry {
    Retry::After(answer.retry_after.unwrap_or(RETRY_SOON).max(RETRY_SOON))
}

fn attach(fault: &mut Fault, answer: &Answer, error: &StripeError) {
    fault.by_stripe = true;
    fault.stripe_request_id.clone_from(&answer.request_id);
    fault.help = error.doc_url.clone().filter(|url| url.starts_with("https://stripe.com/"));
    fault.metadata.insert("http_status".to_owned(), answer.status.to_string());
    let facts = [
        ("type", Some(&error.kind)),
        ("code", error.code.as_ref()),
        ("decline_code", error.decline_code.as_ref()),
        ("advice_code", error.advice_code.as_ref()),
        ("network_decline_code", error.network_decline_code.as_ref()),
        ("charge", error.charge.as_ref()),
    ];
    for (name, value) in facts {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            fault.metadata.insert(name.to_owned(), value.clone());
        }
    }
    if answer.replayed {
        fault.metadata.insert("replayed".to_owned(), "true".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault(status: u16, error: serde_json::Value) -> Fault {
        let body = json!({ "error": error }).to_string().into();
        of_answer(&Answer { status, body, request_id: Some("req_1".into()), ..Answer::default() })
    }

    /// Status, type, code and parameter of Stripe's error, then what is made of it.
    const TABLE: [(u16, &str, &str, &str, Code, Reason); 17] = {
        use {Code as C, Reason as R};
        const REQUEST: &str = "invalid_request_error";
        [
            (
                400,
                REQUEST,
                "parameter_invalid_integer",
                "amount",
                C::InvalidArgument,
                R::StripeInvalidParameter,
            ),
            (400, REQUEST, "", "amount", C::FailedPrecondition, R::StripeState),
            (400, REQUEST, "charge_already_refunded", "", C::FailedPrecondition, R::StripeState),
            (400, REQUEST, "", "", C::FailedPrecondition, R::StripeState),
            (400, "idempotency_error", "", "", C::AlreadyExists, R::OperationReused),
            (400, REQUEST, "resource_missing", "charge", C::NotFound, R::ResourceNotFound),
            (401, REQUEST, "", "", C::Internal, R::GatewayCredentialRejected),
            (402, "card_error", "card_declined", "", C::FailedPrecondition, R::CardDeclined),
            (403, REQUEST, "", "", C::Internal, R::GatewayKeyLacksPermission),
            (404, REQUEST, "resource_missing", "id", C::NotFound, R::ResourceNotFound),
            (409, REQUEST, "idempotency_key_in_use", "", C::Aborted, R::StripeConflict),
            (424, REQUEST, "", "", C::Unavailable, R::StripeUnavailable),
            (429, REQUEST, "rate_limit", "", C::ResourceExhausted, R::StripeRateLimited),
            (429, REQUEST, "lock_timeout", "", C::Aborted, R::StripeConflict),
            (500, "api_error", "", "", C::Unavailable, R::StripeUnavailable),
            (503, "api_error", "", "", C::Unavailable, R::StripeUnavailable),
            (302, "", "", "", C::Internal, R::StripeAnswerUndecodable),
        ]
    };

    #[test]
    fn the_table_of_stripes_answers() {
        for (status, kind, code, param, expected, reason) in TABLE {
            let mut error = json!({ "type": kind, "message": "no: sk_test_***abc" });
            for (name, value) in [("code", code), ("param", param)] {
                if !value.is_empty() {
                    error[name] = value.into();
                }
            }
            let found = fault(status, error);
            assert_eq!((found.code, found.reason), (expected, reason), "{status} {kind} {code} {param}");
            assert!(found.by_stripe && found.stripe_request_id.as_deref() == Some("req_1"));
            assert!(!format!("{found:?}").contains("***"), "{found:?}");
        }
    }

    #[test]
    fn a_parameter_is_named_by_its_path_and_a_missing_object_by_its_id() {
        let found = fault(
            400,
            json!({"type": "invalid_request_error", "code": "parameter_unknown", "param": "evidence[x]", "message": "m"}),
        );
        assert_eq!(found.violations[0].field, "evidence.x");
        let found = fault(
            404,
            json!({"code": "resource_missing", "param": "refund", "message": "No such refund: 're_x'"}),
        );
        assert_eq!(found.resource, Some(("refund".into(), "re_x".into())));
    }
}
