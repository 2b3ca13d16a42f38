//! The kill switch: what is frozen is not sent, from the moment that the operator is answered, and everything else goes on.

use std::time::Duration;

use tollgate::proto::v1::admin_service_client::AdminServiceClient;
use tollgate::proto::v1::audit_service_client::AuditServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{
    AuditPhase, CreateRefundRequest, CreateRefundResponse, Freeze, FreezeWritesRequest, ListFreezesRequest,
    ListRefundsRequest, SearchAuditRecordsRequest, UnfreezeWritesRequest,
};
use tollgate::sandbox::Fault;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, Wire, operation, until};

fn refund(payment: &str, operation_id: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        operation: operation("freeze", operation_id),
        payment_intent: Some(payment.to_owned()),
        amount: Some(100),
        ..Default::default()
    }
}

async fn send(wire: Wire, request: &CreateRefundRequest) -> Result<CreateRefundResponse, Status> {
    RefundServiceClient::new(wire).create_refund(request.clone()).await.map(tonic::Response::into_inner)
}

fn what(caller: &str, method: &str, account: &str) -> FreezeWritesRequest {
    let [caller, method, account] = [caller, method, account].map(str::to_owned);
    FreezeWritesRequest { caller, method, account, reason: "wrong amounts".to_owned() }
}

async fn freeze(rig: &Rig, request: FreezeWritesRequest) -> Freeze {
    let answer = AdminServiceClient::new(rig.operator()).freeze_writes(request).await.unwrap();
    answer.into_inner().freeze.unwrap()
}

async fn unfreeze(rig: &Rig, id: &str) -> Result<Freeze, Status> {
    let request = UnfreezeWritesRequest { id: id.to_owned(), reason: "mended".to_owned() };
    let answer = AdminServiceClient::new(rig.operator()).unfreeze_writes(request).await?;
    Ok(answer.into_inner().freeze.unwrap())
}

async fn frozen(rig: &Rig) -> Vec<Freeze> {
    let answer = AdminServiceClient::new(rig.operator()).list_freezes(ListFreezesRequest {}).await.unwrap();
    answer.into_inner().freezes
}

fn is_frozen(status: &Status, freeze: &Freeze) {
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str()), (Code::FailedPrecondition, "FROZEN"), "{status:?}");
    assert_eq!(info.metadata["freeze"], freeze.id);
    assert_eq!(info.metadata["frozen_because"], "wrong amounts");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
}

#[tokio::test]
async fn a_frozen_caller_changes_nothing_and_everything_else_goes_on() {
    let rig = Rig::start().await;
    let payment = rig.payment(1000).await;
    send(rig.wire(), &refund(&payment, "before")).await.unwrap();
    let freeze = freeze(&rig, what("rig", "", "")).await;
    assert_eq!((freeze.caller.as_str(), freeze.frozen_by.as_str()), ("rig", "operator"));

    let status = send(rig.wire(), &refund(&payment, "after")).await.unwrap_err();
    is_frozen(&status, &freeze);
    let preview = CreateRefundRequest { validate_only: true, ..refund(&payment, "after") };
    is_frozen(&send(rig.wire(), &preview).await.unwrap_err(), &freeze);
    let replay = send(rig.wire(), &refund(&payment, "before")).await.unwrap();
    assert!(replay.call.unwrap().replayed, "what is known is answered");
    let mut reader = RefundServiceClient::new(rig.wire());
    assert_eq!(
        reader.list_refunds(ListRefundsRequest::default()).await.unwrap().into_inner().refunds.len(),
        1
    );
    send(rig.operator(), &refund(&payment, "another-caller")).await.unwrap();
    assert_eq!(rig.refunds_made(), 2);

    unfreeze(&rig, &freeze.id).await.unwrap();
    assert!(!send(rig.wire(), &refund(&payment, "after")).await.unwrap().call.unwrap().replayed);
    assert_eq!(unfreeze(&rig, &freeze.id).await.unwrap_err().code(), Code::NotFound);

    let mut audit = AuditServiceClient::new(rig.operator());
    let denied = until(async || {
        let phase = AuditPhase::Denied.into();
        let question = SearchAuditRecordsRequest { phase, ..SearchAuditRecordsRequest::default() };
        let found = audit.search_audit_records(question).await.unwrap().into_inner().records;
        (found.len() == 2).then_some(found)
    })
    .await;
    assert!(denied.iter().all(|record| record.decision == format!("freeze {}", freeze.id)), "{denied:?}");
}

#[tokio::test]
async fn a_freeze_holds_over_a_restart_until_it_is_lifted() {
    let rig = Rig::start().await;
    let payment = rig.payment(1000).await;
    let method = freeze(&rig, what("", "tollgate.v1.RefundService/CreateRefund", "")).await;
    rig.clock.advance(Duration::from_secs(1));
    let account = freeze(&rig, what("", "", "default")).await;
    assert_eq!((method.method.as_str(), account.account.as_str()), ("RefundService/CreateRefund", "default"));
    assert_eq!(account.account_id, rig.gateway.account);
    let rig = rig.restart().await;
    assert_eq!(frozen(&rig).await, [method.clone(), account.clone()]);
    unfreeze(&rig, &method.id).await.unwrap();
    is_frozen(&send(rig.wire(), &refund(&payment, "")).await.unwrap_err(), &account);
    unfreeze(&rig, &account.id).await.unwrap();
    let rig = rig.restart().await;
    assert!(frozen(&rig).await.is_empty());
    send(rig.wire(), &refund(&payment, "")).await.unwrap();
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn a_change_under_way_makes_no_further_attempt() {
    let rig = Rig::start().await;
    let payment = rig.payment(1000).await;
    rig.control().add_fault(Fault::parse("status:POST:/v1/refunds:status=429,times=1000").unwrap());
    let before = rig.control().received();
    let (wire, request) = (rig.wire(), refund(&payment, ""));
    let sending = tokio::spawn(async move { send(wire, &request).await });
    until(async || (rig.control().received() > before).then_some(())).await;
    let freeze = freeze(&rig, what("rig", "RefundService", "default")).await;
    let sent = rig.control().received();
    is_frozen(&sending.await.unwrap().unwrap_err(), &freeze);
    assert_eq!(rig.control().received(), sent, "an attempt began after the operator was answered");
    rig.control().clear_faults();
    unfreeze(&rig, &freeze.id).await.unwrap();
    let answer = send(rig.wire(), &refund(&payment, "")).await.unwrap();
    assert!(!answer.call.unwrap().replayed, "the reference stayed free");
}

#[tokio::test]
async fn only_operators_freeze_and_only_what_exists() {
    let rig = Rig::start().await;
    let everything = what("", "", "");
    let mut stranger = AdminServiceClient::new(rig.wire());
    assert_eq!(stranger.freeze_writes(everything.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let mut operator = AdminServiceClient::new(rig.operator());
    for (request, code) in [
        (what("", "RefundService/GetRefund", ""), Code::InvalidArgument),
        (what("", "BalanceService", ""), Code::InvalidArgument),
        (what("", "refunds", ""), Code::InvalidArgument),
        (what("", "", "nowhere"), Code::NotFound),
        (FreezeWritesRequest { reason: String::new(), ..everything.clone() }, Code::InvalidArgument),
    ] {
        assert_eq!(operator.freeze_writes(request.clone()).await.unwrap_err().code(), code, "{request:?}");
    }
    assert!(frozen(&rig).await.is_empty());
    let freeze = freeze(&rig, everything).await;
    let payment = rig.payment(1000).await;
    is_frozen(&send(rig.operator(), &refund(&payment, "")).await.unwrap_err(), &freeze);
}
