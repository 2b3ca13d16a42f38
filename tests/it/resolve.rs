//! Unknown outcomes are found out: by the caller's resend, by looking at Stripe, by an event, or by an operator. Each
//! time the sandbox's book says how often the change took effect.

use std::time::Duration;

use tollgate::proto::v1::admin_service_client::AdminServiceClient;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::settle_operation_request::Ruling;
use tollgate::proto::v1::{
    CreateCustomerRequest, CreateRefundRequest, CreateRefundResponse, DeleteCustomerRequest,
    GetOperationRequest, InspectOperationRequest, ListOperationsRequest, Operation, OperationCaseReason,
    OperationEntry, OperationState, RefundStatus, ResolveOperationRequest, SettleOperationRequest,
    UpdateCustomerRequest,
};
use tollgate::sandbox::Fault;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rig::{OPERATOR_TOKEN, Rig, operation, until};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
/// More often than the gateway tries by itself.
const ALWAYS: u32 = 1000;

fn fault(rig: &Rig, text: &str) {
    rig.control().add_fault(Fault::parse(text).unwrap());
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn refund(payment: &str, operation_id: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        operation: operation("resolve", operation_id),
        payment_intent: Some(payment.to_owned()),
        amount: Some(500),
        ..Default::default()
    }
}

async fn create(rig: &Rig, request: &CreateRefundRequest) -> Result<CreateRefundResponse, Status> {
    let mut refunds = RefundServiceClient::new(rig.wire());
    refunds.create_refund(request.clone()).await.map(tonic::Response::into_inner)
}

/// Time passes, for the gateway and for Stripe, which forgets its keys.
fn pass(rig: &Rig, time: Duration) {
    rig.clock.advance(time);
    rig.control().advance(Duration::from_secs(1));
}

async fn known(rig: &Rig, operation_id: &str, rpc: &str) -> Operation {
    let question = GetOperationRequest {
        operation: operation("resolve", operation_id),
        rpc: rpc.to_owned(),
        account: String::new(),
    };
    let answer = OperationServiceClient::new(rig.wire()).get_operation(question).await.unwrap();
    answer.into_inner().operation.unwrap()
}

async fn settled(rig: &Rig, operation_id: &str) -> Operation {
    until(async || {
        let known = known(rig, operation_id, "RefundService/CreateRefund").await;
        (known.state() == OperationState::Succeeded).then_some(known)
    })
    .await
}

/// A refund of 500 whose answer the sandbox drops, before the effect or after it, until the gateway gives up.
async fn unknown(rig: &Rig, payment: &str, kind: &str) -> CreateRefundRequest {
    fault(rig, &format!("{kind}:POST:/v1/refunds:times={ALWAYS}"));
    let request = refund(payment, "");
    let status = create(rig, &request).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "OUTCOME_UNKNOWN"),
        "{status:?}"
    );
    rig.control().clear_faults();
    request
}

async fn rig_without_events() -> Rig {
    let rig = Rig::start().await;
    rig.control().set_webhooks(Vec::new());
    rig
}

async fn resolutions(rig: &Rig, way: &str) -> Option<f64> {
    rig.sample("tollgate_ledger_resolutions_total", &format!("\"{way}\"")).await
}

#[tokio::test]
async fn an_unknown_outcome_is_found_out_by_the_callers_resend() {
    let rig = rig_without_events().await;
    let payment = rig.payment(2000).await;
    let request = unknown(&rig, &payment, "drop_after").await;
    let answer = create(&rig, &request).await.unwrap();
    assert!(!answer.call.unwrap().replayed);
    assert_eq!(known(&rig, "", "RefundService/CreateRefund").await.object_id, answer.refund.unwrap().id);
    assert_eq!((rig.refunds_made(), resolutions(&rig, "resend").await), (1, Some(1.0)));
}

#[tokio::test]
async fn an_unknown_outcome_is_found_out_by_looking_when_the_key_is_too_old() {
    let rig = rig_without_events().await;
    let payment = rig.payment(2000).await;
    let request = unknown(&rig, &payment, "drop_after").await;
    pass(&rig, DAY + HOUR);
    let answer = create(&rig, &request).await.unwrap();
    let found = settled(&rig, "").await;
    assert_eq!(found.object_id, answer.refund.as_ref().unwrap().id);
    let again = create(&rig, &request).await.unwrap();
    assert_eq!((again.refund, again.call.unwrap().replayed), (answer.refund, true));
    assert_eq!((rig.refunds_made(), resolutions(&rig, "look").await), (1, Some(1.0)));
}

#[tokio::test]
async fn an_unknown_outcome_is_found_out_in_the_background_even_after_a_restart() {
    let rig = rig_without_events().await;
    let payment = rig.payment(2000).await;
    unknown(&rig, &payment, "drop_after").await;
    let rig = rig.restart().await;
    rig.control().set_webhooks(Vec::new());
    pass(&rig, DAY + HOUR);
    settled(&rig, "").await;
    assert_eq!((rig.refunds_made(), resolutions(&rig, "look").await), (1, Some(1.0)));
}

#[tokio::test]
async fn an_unknown_outcome_is_found_out_by_its_event() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    fault(&rig, &format!("drop_after:POST:/v1/refunds:times={ALWAYS}"));
    let request = refund(&payment, "");
    // The event may come before the gateway has given up.
    let status = create(&rig, &request).await.unwrap_err();
    assert_eq!(reason(&status), "OUTCOME_UNKNOWN", "{status:?}");
    let found = settled(&rig, "").await;
    let replay = create(&rig, &request).await.unwrap();
    assert!(replay.call.unwrap().replayed);
    assert_eq!(replay.refund.unwrap().id, found.object_id);
    assert_eq!((rig.refunds_made(), resolutions(&rig, "event").await), (1, Some(1.0)));
}

#[tokio::test]
async fn a_refund_that_was_never_made_needs_an_operator_who_can_let_it_be_made_again() {
    let rig = rig_without_events().await;
    let payment = rig.payment(2000).await;
    let mut request = unknown(&rig, &payment, "drop_before").await;
    // Support makes up for it, or does something else: nobody can tell.
    let by_hand = rig.stripe("/v1/refunds", &format!("payment_intent={payment}&amount=500")).await;
    let by_hand = by_hand["id"].as_str().unwrap();
    pass(&rig, DAY + HOUR);

    let status = create(&rig, &request).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "OPERATION_NEEDS_OPERATOR")
    );
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    let facts = status.get_details_error_info().unwrap().metadata;
    assert_eq!(
        (facts["case"].as_str(), facts["found"].as_str(), facts["found_ids"].as_str()),
        ("absent", "1", by_hand)
    );
    let id = facts["operation"].clone();

    let mut admin = AdminServiceClient::new(rig.operator());
    let question =
        ListOperationsRequest { state: OperationState::NeedsOperator.into(), ..Default::default() };
    let listed = admin.list_operations(question).await.unwrap().into_inner().operations;
    assert!(listed.len() == 1 && listed[0].id == id, "{listed:?}");
    let entry = inspect(&rig, &id).await;
    let case = entry.case.unwrap();
    assert_eq!((case.reason(), case.found.len()), (OperationCaseReason::Absent, 1));
    let found = &case.found[0];
    assert_eq!((found.id.as_str(), found.amount, found.made_by.as_str()), (by_hand, Some(500), ""));
    assert!(entry.body.contains(&payment) && entry.namespace == "rig", "{}", entry.body);

    let settled = settle(&rig, &id, Ruling::NotExecuted(true)).await.unwrap();
    assert_eq!(settled.operation.unwrap().state(), OperationState::Refused);
    assert_eq!(audited(&rig, &id).await, ["settled by the test"]);
    assert_eq!((rig.refunds_made(), resolutions(&rig, "operator").await), (1, Some(1.0)), "the one by hand");

    let status = create(&rig, &request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "NOT_EXECUTED"));
    request.operation.as_mut().unwrap().retry_refused = true;
    let made = create(&rig, &request).await.unwrap();
    assert_ne!(made.refund.unwrap().id, by_hand);
    assert_eq!(rig.refunds_made(), 2);
}

#[tokio::test]
async fn an_operator_can_name_the_effect_and_nothing_else() {
    let rig = rig_without_events().await;
    let (payment, other) = (rig.payment(2000).await, rig.payment(2000).await);
    let request = unknown(&rig, &payment, "drop_before").await;
    let elsewhere = rig.stripe("/v1/refunds", &format!("payment_intent={other}&amount=500")).await;
    let by_hand = rig.stripe("/v1/refunds", &format!("payment_intent={payment}&amount=500")).await;
    let own = create(&rig, &refund(&payment, "another")).await.unwrap().refund.unwrap().id;
    let id = id_of(&rig).await;

    let early = settle(&rig, &id, Ruling::NotExecuted(true)).await.unwrap_err();
    assert_eq!((early.code(), reason(&early).as_str()), (Code::FailedPrecondition, "OPERATION_IN_FLIGHT"));
    pass(&rig, DAY + HOUR);
    for wrong in [elsewhere["id"].as_str().unwrap(), &own] {
        let status = settle(&rig, &id, Ruling::Executed(wrong.to_owned())).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "NOT_THE_EFFECT"));
    }
    let status = settle(&rig, &id, Ruling::Executed("re_none".to_owned())).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");

    let by_hand = by_hand["id"].as_str().unwrap();
    settle(&rig, &id, Ruling::Executed(by_hand.to_owned())).await.unwrap();
    let replay = create(&rig, &request).await.unwrap();
    assert_eq!((replay.refund.unwrap().id.as_str(), replay.call.unwrap().replayed), (by_hand, true));
    assert_eq!(rig.refunds_made(), 3, "all by hand but one");
    let status = settle(&rig, &id, Ruling::NotExecuted(true)).await.unwrap_err();
    assert_eq!(reason(&status), "OPERATION_NOT_UNRESOLVED");
}

#[tokio::test]
async fn an_operator_can_have_it_looked_up_at_once() {
    let rig = rig_without_events().await;
    let payment = rig.payment(2000).await;
    unknown(&rig, &payment, "drop_after").await;
    let id = id_of(&rig).await;
    let mut admin = AdminServiceClient::new(rig.operator());
    let looked = admin.resolve_operation(ResolveOperationRequest { id }).await.unwrap().into_inner();
    let entry = looked.operation.unwrap().operation.unwrap();
    assert_eq!(entry.state(), OperationState::Succeeded);
    assert_eq!(looked.finding, format!("it took effect: `{}`", entry.object_id));
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn what_is_for_operators_is_for_nobody_else() {
    let rig = Rig::start().await;
    let mut admin = AdminServiceClient::new(rig.wire());
    let id = "0".repeat(64);
    let denied = [
        admin.list_operations(ListOperationsRequest::default()).await.unwrap_err(),
        admin.inspect_operation(InspectOperationRequest { id: id.clone() }).await.unwrap_err(),
        admin.resolve_operation(ResolveOperationRequest { id: id.clone() }).await.unwrap_err(),
        admin
            .settle_operation(SettleOperationRequest { id: id.clone(), ..Default::default() })
            .await
            .unwrap_err(),
    ];
    for status in denied {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "POLICY_DENIED"));
    }
    let mut admin = AdminServiceClient::new(rig.operator());
    let status = admin.inspect_operation(InspectOperationRequest { id }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "OPERATION_NOT_FOUND"));
    let status = admin.inspect_operation(InspectOperationRequest { id: "zz".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = settle(&rig, &"0".repeat(64), Ruling::NotExecuted(false)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_change_without_money_that_was_never_made_may_be_made_again() {
    let rig = rig_without_events().await;
    let mut customers = CustomerServiceClient::new(rig.wire());
    let mut create = CreateCustomerRequest { operation: operation("resolve", ""), ..Default::default() };
    fault(&rig, &format!("drop_before:POST:/v1/customers:times={ALWAYS}"));
    let status = customers.create_customer(create.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "OUTCOME_UNKNOWN");
    rig.control().clear_faults();
    pass(&rig, DAY + HOUR);
    let status = customers.create_customer(create.clone()).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "NOT_EXECUTED"),
        "{status:?}"
    );
    create.operation.as_mut().unwrap().retry_refused = true;
    let customer = customers.create_customer(create).await.unwrap().into_inner().customer.unwrap();

    // An update that does not show may have been made, and been overwritten since.
    let update = UpdateCustomerRequest {
        operation: operation("resolve", ""),
        id: customer.id,
        name: Some("Ada".to_owned()),
        ..Default::default()
    };
    fault(&rig, &format!("drop_before:POST:/v1/customers:times={ALWAYS}"));
    let status = customers.update_customer(update.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "OUTCOME_UNKNOWN");
    rig.control().clear_faults();
    pass(&rig, DAY + HOUR);
    let status = customers.update_customer(update).await.unwrap_err();
    assert_eq!(reason(&status), "OPERATION_NEEDS_OPERATOR", "{status:?}");
}

#[tokio::test]
async fn a_customer_whose_answer_was_lost_is_found_by_its_stamp() {
    let rig = rig_without_events().await;
    let mut customers = CustomerServiceClient::new(rig.wire());
    let request = CreateCustomerRequest {
        operation: operation("resolve", ""),
        email: Some("ada@example.com".to_owned()),
        ..Default::default()
    };
    fault(&rig, &format!("drop_after:POST:/v1/customers:times={ALWAYS}"));
    assert_eq!(reason(&customers.create_customer(request.clone()).await.unwrap_err()), "OUTCOME_UNKNOWN");
    rig.control().clear_faults();
    // The same customer once more, of another operation.
    let other = CreateCustomerRequest { operation: operation("resolve", "other"), ..request.clone() };
    let other = customers.create_customer(other).await.unwrap().into_inner().customer.unwrap();
    pass(&rig, DAY + HOUR);
    let found = customers.create_customer(request).await.unwrap().into_inner().customer.unwrap();
    assert_ne!(found.id, other.id);
    assert_eq!(found.email.as_deref(), Some("ada@example.com"));
}

#[tokio::test]
async fn a_delete_whose_answer_was_lost_is_done_when_the_customer_is_gone() {
    let rig = rig_without_events().await;
    let mut customers = CustomerServiceClient::new(rig.wire());
    let customer = CreateCustomerRequest { operation: operation("resolve", ""), ..Default::default() };
    let id = customers.create_customer(customer).await.unwrap().into_inner().customer.unwrap().id;
    fault(&rig, "drop_after:DELETE:/v1/customers:times=1");
    let delete =
        DeleteCustomerRequest { operation: operation("resolve", ""), id: id.clone(), ..Default::default() };
    let deleted = customers.delete_customer(delete).await.unwrap().into_inner().customer.unwrap();
    assert!(deleted.deleted && deleted.id == id);
}

#[tokio::test]
async fn a_refund_that_fails_later_is_shown_as_failed_by_replays() {
    let rig = Rig::start().await;
    let payment = rig.payment_with("pm_card_refundFail", 2000).await;
    let request = refund(&payment, "");
    let first = create(&rig, &request).await.unwrap().refund.unwrap();
    assert_ne!(first.status(), RefundStatus::Failed);
    pass(&rig, DAY);
    rig.control().advance(DAY);
    let turned = until(async || {
        let replay = create(&rig, &request).await.unwrap();
        assert!(replay.call.unwrap().replayed);
        replay.refund.filter(|refund| refund.status() == RefundStatus::Failed)
    })
    .await;
    assert_eq!(turned.id, first.id);
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_longer_kept_is_read_anew() {
    let rig = rig_without_events().await;
    let payment = rig.payment(2000).await;
    let request = refund(&payment, "");
    let first = create(&rig, &request).await.unwrap();
    pass(&rig, 31 * DAY);
    until(async || {
        // An answer that is in use is dropped in the next round only, which is a minute later.
        pass(&rig, MINUTE);
        let before = rig.control().received();
        let replay = create(&rig, &request).await.unwrap();
        assert!(replay.call.unwrap().replayed);
        assert_eq!(replay.refund.unwrap().id, first.refund.as_ref().unwrap().id);
        (rig.control().received() > before).then_some(())
    })
    .await;
    fault(&rig, &format!("status:GET:/v1/refunds:status=429,times={ALWAYS}"));
    let status = create(&rig, &request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STRIPE_UNAVAILABLE"));
    assert!(status.message().contains("Stripe cannot be read now"), "it is not gone: {status:?}");
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn an_operator_settles_from_the_command_line() {
    let rig = rig_without_events().await;
    let payment = rig.payment(2000).await;
    let request = unknown(&rig, &payment, "drop_before").await;
    pass(&rig, DAY + HOUR);
    create(&rig, &request).await.unwrap_err();
    let listed = operate(&rig, &["list", "--state", "needs-operator"]).await;
    let entry: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(entry["case"]["reason"], "OPERATION_CASE_REASON_ABSENT");
    let id = entry["id"].as_str().unwrap();
    let shown = operate(&rig, &["show", id, "-o", "table"]).await;
    for line in
        ["state             needs_operator", "why               absent", "sent              amount=500"]
    {
        assert!(shown.contains(line), "{shown}");
    }
    let looked = operate(&rig, &["resolve", id]).await;
    assert!(looked.contains("\"finding\":\"no effect was found\""), "{looked}");
    let settled = operate(&rig, &["settle", id, "--not-executed", "--reason", "settled by the test"]).await;
    assert!(settled.contains("OPERATION_STATE_REFUSED"), "{settled}");
    assert_eq!(operate(&rig, &["list"]).await, "");
    assert_eq!(audited(&rig, id).await, ["settled by the test"]);
    assert_eq!(rig.refunds_made(), 0);
}

/// Runs `tollgate operations` as the operator.
async fn operate(rig: &Rig, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_clear().env("TOLLGATE_TOKEN", OPERATOR_TOKEN).arg("operations").args(arguments);
    command.args(["--address", &rig.gateway.grpc.to_string()]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn inspect(rig: &Rig, id: &str) -> OperationEntry {
    let mut admin = AdminServiceClient::new(rig.operator());
    let answer = admin.inspect_operation(InspectOperationRequest { id: id.to_owned() }).await.unwrap();
    answer.into_inner().operation.unwrap()
}

async fn settle(rig: &Rig, id: &str, ruling: Ruling) -> Result<OperationEntry, Status> {
    let request = SettleOperationRequest {
        id: id.to_owned(),
        ruling: Some(ruling),
        reason: "settled by the test".into(),
    };
    let mut admin = AdminServiceClient::new(rig.operator());
    admin.settle_operation(request).await.map(|answer| answer.into_inner().operation.unwrap())
}

/// The one operation that is not settled.
async fn id_of(rig: &Rig) -> String {
    let mut admin = AdminServiceClient::new(rig.operator());
    let listed =
        admin.list_operations(ListOperationsRequest::default()).await.unwrap().into_inner().operations;
    assert_eq!(listed.len(), 1, "{listed:?}");
    listed[0].id.clone()
}

/// The reasons that operators gave for settling the operation, from the audit log.
async fn audited(rig: &Rig, id: &str) -> Vec<String> {
    let database = rig.data.path().join("data/tollgate.db");
    let database = rusqlite::Connection::open(database).unwrap();
    let mut statement = database.prepare("SELECT record FROM audit ORDER BY seq").unwrap();
    let records = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let records =
        records.map(|record| serde_json::from_slice::<serde_json::Value>(&record.unwrap()).unwrap());
    records
        .filter(|record| {
            record["operation"] == id && record["rpc"] == "tollgate.v1.AdminService/SettleOperation"
        })
        .map(|record| {
            assert_eq!(
                (&record["caller"], &record["phase"]),
                (&"operator".into(), &"admin".into()),
                "{record}"
            );
            let params = record["params"].as_array().unwrap();
            let reason = params.iter().find(|param| param["name"] == "reason").unwrap();
            reason["value"].as_str().unwrap().to_owned()
        })
        .collect()
}
