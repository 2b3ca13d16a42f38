//! Doubts about refunds, from the event log: as a word in the answer, or as a refusal before anything is sent.

use std::time::Duration;

use tollgate::config::{GuardMode, Guards};
use tollgate::proto::v1::audit_service_client::AuditServiceClient;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{
    AdviceTopic, AuditPhase, CreateRefundRequest, CreateRefundResponse, ListEventsRequest, RefundStatus,
    SearchAuditRecordsRequest,
};
use tollgate::sandbox::Fault;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, operation, until};

const ADVISE: Guards = Guards { over_refund: GuardMode::Advise, open_dispute: GuardMode::Advise };
const REFUSE: Guards = Guards { over_refund: GuardMode::Refuse, open_dispute: GuardMode::Refuse };
const OFF: Guards = Guards { over_refund: GuardMode::Off, open_dispute: GuardMode::Off };

async fn guarded(guards: Guards) -> Rig {
    Rig::start_with(|config| config.guards = guards).await
}

/// Waits until the gateway has so many events of this type.
async fn known(rig: &Rig, kind: &str, count: usize) {
    let mut events = EventServiceClient::new(rig.wire());
    until(async || {
        let question = ListEventsRequest { types: vec![kind.to_owned()], ..Default::default() };
        let found = events.list_events(question).await.unwrap().into_inner().events;
        (found.len() >= count).then_some(())
    })
    .await;
}

fn refund(payment: &str, amount: i64, operation_id: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        operation: operation("1001", operation_id),
        payment_intent: Some(payment.to_owned()),
        amount: Some(amount),
        ..Default::default()
    }
}

async fn send(rig: &Rig, request: CreateRefundRequest) -> Result<CreateRefundResponse, Status> {
    RefundServiceClient::new(rig.wire()).create_refund(request).await.map(tonic::Response::into_inner)
}

fn topics(answer: CreateRefundResponse) -> Vec<AdviceTopic> {
    answer.call.unwrap().advice.iter().map(|advice| advice.topic()).collect()
}

/// The reason, and the metadata under this name.
fn refusal(status: &Status, name: &str) -> (String, Option<String>) {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    (info.reason, info.metadata.get(name).cloned())
}

/// A payment of which the log says that all of it went back, while Stripe knows that the refund failed.
async fn wrongly_known(rig: &Rig) -> String {
    let payment = rig.payment_with("pm_card_refundFail", 1000).await;
    send(rig, refund(&payment, 1000, "first")).await.unwrap();
    known(rig, "charge.succeeded", 1).await;
    known(rig, "refund.created", 1).await;
    rig.control().set_webhooks(Vec::new());
    rig.control().advance(Duration::from_secs(10));
    payment
}

#[tokio::test]
async fn an_over_refund_is_advice_and_stripe_decides() {
    let rig = guarded(ADVISE).await;
    let payment = wrongly_known(&rig).await;
    let answer = send(&rig, refund(&payment, 600, "second")).await.unwrap();
    let [advice] = answer.call.as_ref().unwrap().advice.as_slice() else { panic!("{answer:?}") };
    assert_eq!(advice.topic(), AdviceTopic::OverRefund);
    assert!(advice.message.contains("of 1000 usd paid, 1000 went back"), "{advice:?}");
    assert!(advice.objects[0].starts_with("re_"));
    assert_eq!(answer.refund.unwrap().status(), RefundStatus::Succeeded);

    let replay = send(&rig, refund(&payment, 600, "second")).await.unwrap();
    assert!(replay.call.as_ref().unwrap().replayed);
    assert_eq!(topics(replay), [], "a replay is not doubted");

    let status = send(&rig, refund(&payment, 600, "third")).await.unwrap_err();
    assert_eq!(refusal(&status, "advice"), ("STRIPE_STATE".to_owned(), Some("over_refund".to_owned())));
}

#[tokio::test]
async fn an_over_refund_is_refused_where_the_operator_says_so_and_the_reference_stays_free() {
    let rig = guarded(REFUSE).await;
    let payment = wrongly_known(&rig).await;
    let received = rig.control().book()["received"].clone();
    let status = send(&rig, refund(&payment, 600, "second")).await.unwrap_err();
    assert_eq!(refusal(&status, "guard"), ("GUARD_REFUSED".to_owned(), Some("over_refund".to_owned())));
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    let mut preview = refund(&payment, 600, "second");
    preview.validate_only = true;
    assert_eq!(refusal(&send(&rig, preview).await.unwrap_err(), "guard").0, "GUARD_REFUSED");
    assert_eq!(rig.control().book()["received"], received, "nothing was sent");
    let mut audit = AuditServiceClient::new(rig.wire());
    let denied = until(async || {
        let question = SearchAuditRecordsRequest {
            phase: AuditPhase::Denied.into(),
            ..SearchAuditRecordsRequest::default()
        };
        let found = audit.search_audit_records(question).await.unwrap().into_inner().records;
        (found.len() >= 2).then_some(found)
    })
    .await;
    assert!(
        denied.iter().all(|record| record.order_id == "1001" && record.operation_id == "second"),
        "{denied:?}"
    );

    // What stands is asked for by another amount, so the reference is not taken.
    rig.deliver_webhooks();
    let other = rig.payment(500).await;
    known(&rig, "charge.succeeded", 2).await;
    send(&rig, refund(&other, 500, "second")).await.unwrap();
}

#[tokio::test]
async fn an_open_dispute_is_advice_or_a_refusal_until_it_is_won() {
    for (guards, reason, name) in [
        (ADVISE, "STRIPE_STATE", "advice"),
        (REFUSE, "GUARD_REFUSED", "guard"),
        (OFF, "STRIPE_STATE", "code"),
    ] {
        let rig = guarded(guards).await;
        let payment = rig.payment_with("pm_card_createDispute", 1000).await;
        known(&rig, "charge.dispute.created", 1).await;
        let status = send(&rig, refund(&payment, 100, "a")).await.unwrap_err();
        let (found, value) = refusal(&status, name);
        assert_eq!(found, reason);
        assert_eq!(value.as_deref(), Some(if name == "code" { "charge_disputed" } else { "open_dispute" }));
    }
    let rig = guarded(REFUSE).await;
    let payment = rig.payment_with("pm_card_createDispute", 1000).await;
    known(&rig, "charge.dispute.created", 1).await;
    send(&rig, refund(&payment, 100, "a")).await.unwrap_err();
    let disputes = rig.stripe_get(&format!("/v1/disputes?payment_intent={payment}")).await;
    let dispute = disputes["data"][0]["id"].as_str().unwrap();
    rig.stripe(
        &format!("/v1/disputes/{dispute}"),
        "evidence[uncategorized_text]=winning_evidence&submit=true",
    )
    .await;
    rig.control().advance(Duration::from_secs(10));
    known(&rig, "charge.dispute.closed", 1).await;
    assert_eq!(topics(send(&rig, refund(&payment, 100, "a")).await.unwrap()), []);
}

#[tokio::test]
async fn a_resend_is_never_refused_for_what_it_did_itself() {
    let rig = guarded(REFUSE).await;
    let payment = rig.payment(1000).await;
    known(&rig, "charge.succeeded", 1).await;
    rig.control().add_fault(Fault::parse("drop_after:POST:/v1/refunds:times=9").unwrap());
    let status = send(&rig, refund(&payment, 1000, "all")).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "OUTCOME_UNKNOWN");
    rig.control().clear_faults();
    known(&rig, "refund.created", 1).await;
    let answer = send(&rig, refund(&payment, 1000, "all")).await.unwrap();
    assert_eq!(answer.refund.as_ref().unwrap().amount, 1000);
    assert_eq!(topics(answer), []);
    let status = send(&rig, refund(&payment, 1, "more")).await.unwrap_err();
    assert_eq!(refusal(&status, "guard").1.as_deref(), Some("over_refund"));
    assert_eq!(rig.refunds_made(), 1);
}
