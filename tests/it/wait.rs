//! Waits for what comes of a refund: the answer follows the event log, and no wait turns an accepted refund into an error.

use std::time::Duration;

use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{
    CreateRefundRequest, CreateRefundResponse, RefundStatus, UpdateRefundRequest, Wait as Reached,
};
use tonic::{Code, Request};

use crate::rig::{Rig, operation, until};

/// A refund of a payment whose refunds stay pending for ten seconds of the sandbox's time.
async fn pending(rig: &Rig) -> CreateRefundRequest {
    refund(&rig.payment_with("pm_card_pendingRefund", 1000).await)
}

fn refund(payment: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        operation: operation("1001", ""),
        payment_intent: Some(payment.to_owned()),
        amount: Some(400),
        ..Default::default()
    }
}

fn waiting(request: &CreateRefundRequest, wait: Reached) -> CreateRefundRequest {
    CreateRefundRequest { wait: wait.into(), ..request.clone() }
}

async fn send(rig: &Rig, request: CreateRefundRequest) -> CreateRefundResponse {
    RefundServiceClient::new(rig.wire()).create_refund(request).await.unwrap().into_inner()
}

/// Sends with a deadline; where the machine is too slow for anything to be answered by then, with a later one.
async fn send_within_a_deadline(rig: &Rig, request: CreateRefundRequest) -> CreateRefundResponse {
    for seconds in [1, 5, 25] {
        let mut call = Request::new(request.clone());
        call.set_timeout(Duration::from_secs(seconds));
        match RefundServiceClient::new(rig.wire()).create_refund(call).await {
            Err(status) if status.code() == Code::DeadlineExceeded => {}
            answer => return answer.unwrap().into_inner(),
        }
    }
    panic!("no answer within any deadline")
}

fn state(answer: &CreateRefundResponse) -> (RefundStatus, Reached) {
    (answer.refund.as_ref().unwrap().status(), answer.call.as_ref().unwrap().reached())
}

#[tokio::test]
async fn the_answer_comes_with_the_event_that_settles_the_refund() {
    let rig = Rig::start().await;
    let request = pending(&rig).await;
    let call = {
        let (mut refunds, request) =
            (RefundServiceClient::new(rig.wire()), waiting(&request, Reached::Terminal));
        tokio::spawn(async move { refunds.create_refund(request).await.unwrap().into_inner() })
    };
    until(async || (rig.refunds_made() == 1).then_some(())).await;
    assert!(!call.is_finished());
    rig.control().advance(Duration::from_secs(10));
    let answer = call.await.unwrap();
    assert_eq!(state(&answer), (RefundStatus::Succeeded, Reached::Terminal));
    let call = answer.call.unwrap();
    assert_eq!((call.replayed, call.attempts), (false, 1));

    let unasked = send(&rig, request).await;
    assert_eq!(unasked.call.unwrap().reached(), Reached::Unspecified);
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn at_the_deadline_the_answer_is_the_accepted_refund_and_a_later_wait_goes_on() {
    let rig = Rig::start().await;
    let request = pending(&rig).await;
    let accepted = send(&rig, waiting(&request, Reached::Accepted)).await;
    assert_eq!(state(&accepted), (RefundStatus::Pending, Reached::Accepted));

    let late = send_within_a_deadline(&rig, waiting(&request, Reached::Settled)).await;
    assert_eq!(state(&late), (RefundStatus::Pending, Reached::Accepted));
    assert_eq!(late.refund, accepted.refund);

    rig.control().advance(Duration::from_secs(10));
    let settled = send(&rig, waiting(&request, Reached::Settled)).await;
    assert_eq!(state(&settled), (RefundStatus::Succeeded, Reached::Terminal));
    assert!(settled.call.unwrap().replayed);
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn events_that_come_late_are_waited_for_and_nothing_is_guessed_meanwhile() {
    let rig = Rig::start().await;
    let request = pending(&rig).await;
    rig.control().set_webhooks(Vec::new());
    let id = send(&rig, request.clone()).await.refund.unwrap().id;
    rig.control().advance(Duration::from_secs(10));
    let silent = send_within_a_deadline(&rig, waiting(&request, Reached::Terminal)).await;
    assert_eq!(state(&silent), (RefundStatus::Pending, Reached::Accepted));

    rig.deliver_webhooks();
    let call = {
        let (mut refunds, request) =
            (RefundServiceClient::new(rig.wire()), waiting(&request, Reached::Terminal));
        tokio::spawn(async move { refunds.create_refund(request).await.unwrap().into_inner() })
    };
    let update = UpdateRefundRequest {
        operation: operation("1001", "note"),
        id,
        metadata: [("note".to_owned(), "late".to_owned())].into(),
        ..Default::default()
    };
    RefundServiceClient::new(rig.wire()).update_refund(update).await.unwrap();
    let answer = call.await.unwrap();
    assert_eq!(state(&answer), (RefundStatus::Succeeded, Reached::Terminal));
    assert_eq!(answer.refund.unwrap().metadata["note"], "late");
}

#[tokio::test]
async fn a_refund_that_fails_later_is_shown_as_failed_to_whoever_waits_again() {
    let rig = Rig::start().await;
    let request = refund(&rig.payment_with("pm_card_refundFail", 1000).await);
    let first = send(&rig, waiting(&request, Reached::Terminal)).await;
    assert_eq!(state(&first), (RefundStatus::Succeeded, Reached::Terminal));

    rig.control().advance(Duration::from_secs(10));
    let failed = until(async || {
        let again = send(&rig, waiting(&request, Reached::Terminal)).await;
        (state(&again).0 == RefundStatus::Failed).then_some(again)
    })
    .await;
    assert_eq!(state(&failed), (RefundStatus::Failed, Reached::Terminal));
    let (refund, first) = (failed.refund.unwrap(), first.refund.unwrap());
    assert_eq!((&refund.id, refund.amount), (&first.id, first.amount));
    assert!(refund.failure_balance_transaction.is_some());
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn a_wait_ends_with_the_gateway_and_not_with_an_error() {
    let rig = Rig::start().await;
    let request = waiting(&pending(&rig).await, Reached::Terminal);
    let mut refunds = RefundServiceClient::new(rig.wire());
    let call = tokio::spawn(async move { refunds.create_refund(request).await.unwrap().into_inner() });
    until(async || (rig.refunds_made() == 1).then_some(())).await;
    let Rig { gateway, .. } = rig;
    gateway.stop().await;
    assert_eq!(state(&call.await.unwrap()), (RefundStatus::Pending, Reached::Accepted));
}
