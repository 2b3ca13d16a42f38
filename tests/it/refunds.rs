//! Refunds through the whole gateway: one operation has one effect, whatever happens on the way.

use tollgate::contract::StripeEnum as _;
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{
    CreateRefundRequest, GetOperationRequest, GetRefundRequest, ListRefundsRequest, OperationState,
    PreviewDecision, RefundStatus, View,
};
use tollgate::sandbox::Fault;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::rig::{Rig, operation};

fn refund(payment: &str, amount: i64, operation_id: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        operation: operation("1001", operation_id),
        payment_intent: Some(payment.to_owned()),
        amount: Some(amount),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_same_reference_refunds_once_however_often_it_is_sent() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());

    let first = refunds.create_refund(refund(&payment, 1000, "a")).await.unwrap().into_inner();
    let call = first.call.clone().unwrap();
    assert!(!call.replayed && call.attempts == 1 && call.stripe_request_id.starts_with("req_"), "{call:?}");
    assert!(call.audit_id.starts_with("aud_"));
    assert_eq!(first.refund.as_ref().unwrap().status(), RefundStatus::Succeeded);

    let again = refunds.create_refund(refund(&payment, 1000, "a")).await.unwrap().into_inner();
    assert_eq!(again.refund, first.refund);
    assert!(again.call.as_ref().unwrap().replayed && again.call.unwrap().attempts == 0);

    let second = refunds.create_refund(refund(&payment, 1000, "b")).await.unwrap().into_inner();
    assert_ne!(second.refund.unwrap().id, first.refund.unwrap().id);
    assert_eq!(rig.refunds_made(), 2);
}

#[tokio::test]
async fn other_parameters_under_the_same_reference_are_refused_by_name() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    refunds.create_refund(refund(&payment, 1000, "")).await.unwrap();
    let status = refunds.create_refund(refund(&payment, 999, "")).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["fields"].as_str()), ("OPERATION_REUSED", "amount"));
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn duplicates_at_once_share_one_effect() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    rig.control().add_fault(Fault::parse("latency:POST:/v1/refunds:ms=200,times=1").unwrap());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut refunds = RefundServiceClient::new(rig.wire());
        let request = refund(&payment, 700, "");
        calls.spawn(async move { refunds.create_refund(request).await.unwrap().into_inner() });
    }
    let answers = calls.join_all().await;
    let first = answers[0].refund.clone();
    assert!(answers.iter().all(|answer| answer.refund == first));
    assert_eq!(answers.iter().filter(|answer| !answer.call.as_ref().unwrap().replayed).count(), 1);
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn an_answer_lost_after_the_effect_is_found_again_under_the_same_key() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    rig.control().add_fault(Fault::parse("drop_after:POST:/v1/refunds:times=1").unwrap());
    let mut refunds = RefundServiceClient::new(rig.wire());
    let answer = refunds.create_refund(refund(&payment, 500, "")).await.unwrap().into_inner();
    assert_eq!(answer.call.unwrap().attempts, 2);
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_is_a_state_and_the_resend_resolves_it() {
    let rig = Rig::start().await;
    // Its event would tell what came of it.
    rig.control().set_webhooks(Vec::new());
    let payment = rig.payment(2000).await;
    rig.control().add_fault(Fault::parse("drop_after:POST:/v1/refunds:times=5").unwrap());
    let mut refunds = RefundServiceClient::new(rig.wire());
    let mut request = tonic::Request::new(refund(&payment, 500, ""));
    request.set_timeout(std::time::Duration::from_secs(30));
    let status = refunds.create_refund(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "OUTCOME_UNKNOWN");

    let mut operations = OperationServiceClient::new(rig.wire());
    let question = GetOperationRequest {
        operation: operation("1001", ""),
        rpc: "RefundService/CreateRefund".into(),
        account: String::new(),
    };
    let known = operations.get_operation(question.clone()).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(known.state(), OperationState::Unknown);

    let status = refunds.create_refund(refund(&payment, 501, "")).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");

    rig.control().clear_faults();
    let answer = refunds.create_refund(refund(&payment, 500, "")).await.unwrap().into_inner();
    let known = operations.get_operation(question).await.unwrap().into_inner().operation.unwrap();
    assert_eq!((known.state(), known.object_id), (OperationState::Succeeded, answer.refund.unwrap().id));
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn a_refusal_is_remembered_until_the_caller_asks_anew() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    refunds.create_refund(refund(&payment, 2000, "all")).await.unwrap();
    let late = refund(&payment, 1, "late");
    let first = refunds.create_refund(late.clone()).await.unwrap_err();
    assert_eq!(first.code(), Code::FailedPrecondition, "{first:?}");
    assert_eq!(first.get_details_error_info().unwrap().domain, "stripe.com");
    let received = rig.control().book()["received"].clone();
    let again = refunds.create_refund(late.clone()).await.unwrap_err();
    assert_eq!((again.code(), again.message()), (first.code(), first.message()));
    assert_eq!(rig.control().book()["received"], received, "the refusal came from memory");

    let mut retry = late;
    retry.operation.as_mut().unwrap().retry_refused = true;
    refunds.create_refund(retry).await.unwrap_err();
    assert_ne!(rig.control().book()["received"], received, "asked anew");
}

#[tokio::test]
async fn memory_outlives_a_restart() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let first = RefundServiceClient::new(rig.wire()).create_refund(refund(&payment, 300, "")).await.unwrap();
    let rig = rig.restart().await;
    let again = RefundServiceClient::new(rig.wire()).create_refund(refund(&payment, 300, "")).await.unwrap();
    assert_eq!(again.get_ref().refund, first.get_ref().refund);
    assert!(again.into_inner().call.unwrap().replayed);
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn a_preview_sends_nothing_and_tells_what_would_be_sent() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    let mut request = refund(&payment, 300, "");
    request.validate_only = true;
    let preview = refunds.create_refund(request).await.unwrap().into_inner().preview.unwrap();
    assert_eq!(preview.decision(), PreviewDecision::Send);
    assert_eq!((preview.http_method.as_str(), preview.path.as_str()), ("POST", "/v1/refunds"));
    assert!(
        preview
            .body
            .starts_with(&format!("payment_intent={payment}&amount=300&metadata[tollgate_operation]="))
    );
    assert!(preview.idempotency_key.starts_with("tg1-") && preview.idempotency_key.len() == 68);
    assert_eq!(rig.refunds_made(), 0);
}

#[tokio::test]
async fn reads_page_and_return_the_untouched_json_on_demand() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    let mut made = Vec::new();
    for at in ["a", "b", "c"] {
        let answer = refunds.create_refund(refund(&payment, 100, at)).await.unwrap().into_inner();
        made.insert(0, answer.refund.unwrap().id);
    }
    let mut found = Vec::new();
    let mut request =
        ListRefundsRequest { payment_intent: Some(payment), page_size: 2, ..Default::default() };
    loop {
        let page = refunds.list_refunds(request.clone()).await.unwrap().into_inner();
        found.extend(page.refunds.into_iter().map(|refund| refund.id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, made);

    let read = GetRefundRequest { id: made[0].clone(), view: View::Full.into(), ..Default::default() };
    let answer = refunds.get_refund(read).await.unwrap().into_inner();
    let json: serde_json::Value = serde_json::from_str(&answer.stripe_json).unwrap();
    assert_eq!(json["id"], made[0].as_str());
    assert_eq!(json["status"], RefundStatus::text(answer.refund.unwrap().status).unwrap());
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_sent() {
    let rig = Rig::start().await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    let received = rig.control().book()["received"].clone();
    let request = CreateRefundRequest {
        charge: Some("ch_1".into()),
        payment_intent: Some("pi_1".into()),
        amount: Some(-1),
        reason: 77,
        ..Default::default()
    };
    let status = refunds.create_refund(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let fields: Vec<String> = status
        .get_details_bad_request()
        .unwrap()
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    assert_eq!(fields, ["operation", "amount", "reason", "charge", "payment_intent"]);

    let page = ListRefundsRequest { page_token: "junk".into(), page_size: -1, ..Default::default() };
    let status = refunds.list_refunds(page).await.unwrap_err();
    assert_eq!(status.get_details_bad_request().unwrap().field_violations.len(), 2);
    let status = refunds
        .get_refund(GetRefundRequest { id: "re_none".into(), ..Default::default() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.get_details_resource_info().unwrap().resource_name, "re_none");
    assert_eq!(rig.control().book()["received"].as_u64().unwrap(), received.as_u64().unwrap() + 1);
}

#[tokio::test]
async fn nobody_gets_in_without_a_known_token() {
    let rig = Rig::start().await;
    let status = RefundServiceClient::new(rig.channel())
        .create_refund(CreateRefundRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.get_details_error_info().unwrap().reason, "UNAUTHENTICATED");
}
