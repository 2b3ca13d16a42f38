//! The 24th hour with the real gateway and the sandbox's own clock: an outcome stays unknown until the equal call comes,
//! and Stripe forgets its keys meanwhile. The sandbox's book says what was sent.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{CreateRefundRequest, GetOperationRequest, OperationState};
use tollgate::sandbox::Fault;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, operation, until};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// Too short for a second attempt, so that the outcome stays unknown.
const FIRST_WAIT: Duration = Duration::from_millis(400);

/// What happens to the first request, and whether it took effect.
const ANSWERS: [(&str, bool); 5] = [
    ("drop_after", true),
    ("half_body", true),
    ("drop_before", false),
    ("kept_500", true),
    ("lost_500", false),
];

fn fault(kind: &str) -> Fault {
    let mut fault = match kind {
        "kept_500" => json!({"kind": "status", "status": 500, "saved": true, "effect": true}),
        "lost_500" => json!({"kind": "status", "status": 500, "saved": true}),
        kind => json!({"kind": kind}),
    };
    fault["match"] = json!({"method": "POST", "path_prefix": "/v1/refunds"});
    fault["times"] = Value::from(1);
    Fault::from_json(fault).unwrap()
}

async fn refund(rig: &Rig, payment: &str, order: &str, wait: Duration) -> Result<String, Status> {
    let mut request = Request::new(CreateRefundRequest {
        operation: operation(order, ""),
        payment_intent: Some(payment.to_owned()),
        amount: Some(100),
        ..Default::default()
    });
    request.set_timeout(wait);
    let answer = RefundServiceClient::new(rig.wire()).create_refund(request).await?;
    Ok(answer.into_inner().refund.unwrap_or_default().id)
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

async fn state(rig: &Rig) -> OperationState {
    let request = GetOperationRequest {
        operation: operation("order", ""),
        rpc: "RefundService/CreateRefund".to_owned(),
        account: String::new(),
    };
    let answer = OperationServiceClient::new(rig.wire()).get_operation(request).await;
    answer.map_or(OperationState::Unspecified, |answer| {
        answer.into_inner().operation.unwrap_or_default().state()
    })
}

/// What POSTs leave in the sandbox's book: effects, answers from memory, refusals.
fn posts(rig: &Rig) -> (usize, u64) {
    let book = rig.control().book();
    (rig.refunds_made(), book["replayed"].as_u64().unwrap())
}

/// Every answer once, then the same call after `age`; `resent` says whether it may go out again.
async fn after(age: Duration, resent: bool) {
    for (kind, effect) in ANSWERS {
        let rig = Rig::start().await;
        // Without webhooks, which would tell the outcome.
        rig.control().set_webhooks(Vec::new());
        let payment = rig.payment(1_000).await;
        rig.control().add_fault(fault(kind));
        let status = refund(&rig, &payment, "order", FIRST_WAIT).await.unwrap_err();
        assert_ne!(status.code(), Code::FailedPrecondition, "{kind}: {status}");
        // A slow machine may end the wait before the attempt ends, or begins.
        until(async || match state(&rig).await {
            OperationState::Unknown => Some(()),
            OperationState::InFlight => None,
            _ => {
                drop(refund(&rig, &payment, "order", FIRST_WAIT).await);
                None
            }
        })
        .await;
        assert_eq!(posts(&rig).0, usize::from(effect), "{kind}");
        rig.control().clear_faults();
        rig.clock.advance(age);

        let before = posts(&rig);
        let answer = refund(&rig, &payment, "order", Duration::from_secs(20)).await;
        let sent = posts(&rig) != before;
        assert_eq!(sent, resent, "{kind} after {age:?}: {before:?}, {:?}, {answer:?}", posts(&rig));
        assert_eq!(rig.refunds_made(), usize::from(effect || (resent && kind == "drop_before")), "{kind}");
        match answer {
            Ok(id) => assert!(
                rig.control().book()["effects"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|one| one["object"] == id.as_str())
            ),
            Err(status) => {
                let reason = reason_of(&status);
                assert!(
                    ["OUTCOME_UNKNOWN", "OPERATION_NEEDS_OPERATOR"].contains(&reason.as_str()),
                    "{kind}: {status}"
                );
                assert!(!effect || kind == "kept_500" || !resent, "{kind} after {age:?}: {status}");
            }
        }
        rig.gateway.stop().await;
    }
}

#[tokio::test]
async fn an_hour_before_stripe_may_forget_the_same_key_is_sent_again() {
    after(22 * HOUR + 59 * MINUTE, true).await;
}

#[tokio::test]
async fn from_the_23rd_hour_on_nothing_is_sent() {
    after(23 * HOUR + MINUTE, false).await;
}

#[tokio::test]
async fn nothing_is_sent_under_a_key_that_stripe_has_forgotten() {
    after(24 * HOUR + MINUTE, false).await;
    after(30 * 24 * HOUR, false).await;
}
