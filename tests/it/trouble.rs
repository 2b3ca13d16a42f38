//! Trouble on every side: Stripe gone, slow or talking nonsense, callers gone, the store stuck. A clear status each
//! time, and no outcome that nobody recorded.

use std::time::Duration;

use prost::Message;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{
    CreateCustomerRequest, CreateRefundRequest, CreateRefundResponse, GetOperationRequest, GetRefundRequest,
    OperationState,
};
use tollgate::sandbox::Fault;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, operation, until};

fn refund(payment: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        operation: operation("trouble", ""),
        payment_intent: Some(payment.to_owned()),
        amount: Some(100),
        ..Default::default()
    }
}

fn fault(rig: &Rig, text: &str) {
    rig.control().add_fault(Fault::parse(text).unwrap());
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

async fn state(rig: &Rig) -> OperationState {
    let question = GetOperationRequest {
        operation: operation("trouble", ""),
        rpc: "RefundService/CreateRefund".into(),
        account: String::new(),
    };
    let answer = OperationServiceClient::new(rig.wire()).get_operation(question).await;
    answer.map_or(OperationState::Unspecified, |answer| answer.into_inner().operation.unwrap().state())
}

#[tokio::test]
async fn a_stripe_that_is_gone_leaves_the_operation_open() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let rig = rig.without_stripe().await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    let mut request = Request::new(refund(&payment));
    request.set_timeout(Duration::from_secs(1));
    let status = refunds.create_refund(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STRIPE_UNREACHABLE"));
    assert_eq!(state(&rig).await, OperationState::Open);
}

#[tokio::test]
async fn an_answer_that_is_not_stripes_proves_nothing_about_a_change() {
    for kind in ["html", "half_body", "reset", "drop_after", "status:status=500"] {
        let rig = Rig::start().await;
        // Its event would tell what came of it.
        rig.control().set_webhooks(Vec::new());
        let payment = rig.payment(2000).await;
        let (kind, more) = kind.split_once(':').unwrap_or((kind, "probability=1"));
        fault(&rig, &format!("{kind}:POST:/v1/refunds:{more}"));
        let mut refunds = RefundServiceClient::new(rig.wire());
        let mut request = Request::new(refund(&payment));
        request.set_timeout(Duration::from_secs(1));
        let status = refunds.create_refund(request).await.unwrap_err();
        assert!([Code::Unavailable, Code::DeadlineExceeded].contains(&status.code()), "{kind}: {status:?}");
        until(async || (state(&rig).await == OperationState::Unknown).then_some(())).await;
        rig.control().clear_faults();
        refunds.create_refund(refund(&payment)).await.unwrap();
        assert_eq!(rig.refunds_made(), 1, "{kind}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_stripes_fails_a_read_clearly() {
    let rig = Rig::start().await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    for kind in ["html", "half_body", "status:status=503"] {
        let (kind, more) = kind.split_once(':').unwrap_or((kind, "probability=1"));
        fault(&rig, &format!("{kind}:GET:/v1/refunds:{more}"));
        let mut request = Request::new(GetRefundRequest { id: "re_1".into(), ..Default::default() });
        request.set_timeout(Duration::from_secs(20));
        let status = refunds.get_refund(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{kind}: {status:?}");
        rig.control().clear_faults();
    }
}

/// Method: plain HTTP/2, since a gRPC client would end the call by its own clock.
#[tokio::test]
async fn a_deadline_ends_the_wait_and_not_the_change() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    fault(&rig, "latency_after:POST:/v1/refunds:ms=1200,times=1");
    let message = refund(&payment).encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let answer = client
        .post(format!("http://{}/tollgate.v1.RefundService/CreateRefund", rig.gateway.grpc))
        .bearer_auth(crate::rig::TOKEN)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "300m")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4", "DEADLINE_EXCEEDED: {answer:?}");
    until(async || (state(&rig).await == OperationState::Succeeded).then_some(())).await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    let again = refunds.create_refund(refund(&payment)).await.unwrap().into_inner();
    assert!(again.call.unwrap().replayed);
    assert_eq!(rig.refunds_made(), 1);
}

/// Method: the first attempt takes effect and its answer is lost; before the second, a day passes.
#[tokio::test]
async fn a_gateway_that_slept_for_a_day_does_not_send_again() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    fault(&rig, "drop_after:POST:/v1/refunds:times=1");
    let mut refunds = RefundServiceClient::new(rig.wire());
    let request = refund(&payment);
    let call = tokio::spawn(async move { refunds.create_refund(request).await });
    until(async || (rig.refunds_made() == 1).then_some(())).await;
    rig.clock.advance(Duration::from_secs(24 * 3600));
    rig.control().advance(Duration::from_secs(25 * 3600));
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(reason(&status), "OUTCOME_UNKNOWN", "{status:?}");
    let mut refunds = RefundServiceClient::new(rig.wire());
    refunds.create_refund(refund(&payment)).await.unwrap();
    assert_eq!(rig.refunds_made(), 1, "it was found and not made again");
}

#[tokio::test]
async fn a_caller_that_leaves_leaves_no_unrecorded_outcome() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    fault(&rig, "latency_after:POST:/v1/refunds:ms=500,times=1");
    let mut refunds = RefundServiceClient::new(rig.wire());
    let request = refund(&payment);
    let call = tokio::spawn(async move { refunds.create_refund(request).await });
    until(async || (rig.refunds_made() == 1).then_some(())).await;
    call.abort();
    until(async || (state(&rig).await == OperationState::Succeeded).then_some(())).await;
}

#[tokio::test]
async fn changes_beyond_those_at_once_are_refused_and_room_comes_back() {
    let rig = Rig::start().await;
    fault(&rig, "latency:POST:/v1/customers:ms=300000");
    let mut number = 0;
    let mut change = |rig: &Rig| {
        number += 1;
        let mut request = Request::new(CreateCustomerRequest {
            operation: operation("trouble", &number.to_string()),
            ..Default::default()
        });
        // The caller leaves long before Stripe answers; the change stays.
        request.set_timeout(Duration::from_millis(300));
        let mut customers = CustomerServiceClient::new(rig.wire());
        tokio::spawn(async move { customers.create_customer(request).await.unwrap_err() })
    };
    let status = until(async || {
        let calls: Vec<_> = (0..100).map(|_| change(&rig)).collect();
        let mut refused = None;
        for call in calls {
            let status = call.await.unwrap();
            refused = refused.or((status.code() == Code::ResourceExhausted).then_some(status));
        }
        refused
    })
    .await;
    assert_eq!(reason(&status), "OVERLOADED");
    assert_eq!(status.get_details_error_info().unwrap().metadata["limit"], "CHANGES_AT_ONCE_MAX");
    let rig = rig.without_stripe().await;
    until(async || {
        let status = change(&rig).await.unwrap();
        (status.code() != Code::ResourceExhausted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_locked_database_refuses_changes_and_serves_reads() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let other = rusqlite::Connection::open(rig.data.path().join("data/tollgate.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut refunds = RefundServiceClient::new(rig.wire());
    let status = refunds.create_refund(refund(&payment)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"));
    assert_eq!(status.get_details_error_info().unwrap().metadata["store"], "busy");
    let read = refunds.get_refund(GetRefundRequest { id: "re_none".into(), ..Default::default() }).await;
    assert_eq!(read.unwrap_err().code(), Code::NotFound, "Stripe answered");
    assert_eq!(rig.refunds_made(), 0);
    other.execute_batch("ROLLBACK").unwrap();
    refunds.create_refund(refund(&payment)).await.unwrap();
    assert_eq!(rig.refunds_made(), 1);
}

/// What a client of a later contract would send.
#[derive(Clone, PartialEq, Message)]
struct LaterRequest {
    #[prost(message, optional, tag = "1")]
    operation: Option<tollgate::proto::v1::OperationRef>,
    #[prost(string, optional, tag = "5")]
    payment_intent: Option<String>,
    #[prost(bool, optional, tag = "4242")]
    reverse_something: Option<bool>,
}

#[tokio::test]
async fn a_change_that_says_something_unknown_is_refused() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let request = LaterRequest {
        operation: operation("trouble", ""),
        payment_intent: Some(payment),
        reverse_something: Some(true),
    };
    let mut wire = tonic::client::Grpc::new(rig.wire());
    wire.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<LaterRequest, CreateRefundResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/tollgate.v1.RefundService/CreateRefund");
    let status = wire.unary(Request::new(request), path, codec).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "UNKNOWN_FIELD"));
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "#4242");
    assert_eq!(rig.refunds_made(), 0);
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_named() {
    let rig = Rig::start().await;
    for path in ["/tollgate.v1.RefundService/Nope", "/tollgate.v1.NopeService/Nope", "/other.Nope/Nope"] {
        let mut wire = tonic::client::Grpc::new(rig.wire());
        wire.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<LaterRequest, CreateRefundResponse>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let status =
            wire.unary(Request::new(LaterRequest::default()), path.clone(), codec).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unimplemented, "UNIMPLEMENTED"),
            "{path}"
        );
        assert!(status.message().contains(path.as_str().trim_start_matches('/')), "{status:?}");
    }
}

#[tokio::test]
async fn an_oversized_message_is_refused_with_the_limit() {
    let rig = Rig::start().await;
    let request = CreateCustomerRequest {
        operation: operation("trouble", ""),
        description: Some("x".repeat(1100 * 1024)),
        ..Default::default()
    };
    let status = CustomerServiceClient::new(rig.wire()).create_customer(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "MESSAGE_TOO_LARGE"));
    assert_eq!(status.get_details_error_info().unwrap().metadata["bytes_max"], "1048576");
}
