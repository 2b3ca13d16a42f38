//! Budgets through the whole gateway: what does not fit is not sent, what is left out is read and then named, and what
//! comes back is free again.

mod proof;

use std::time::Duration;

use tollgate::config::{Budget, BudgetWindow};
use tollgate::proto::v1::audit_service_client::AuditServiceClient;
use tollgate::proto::v1::budget_service_client::BudgetServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{
    AuditPhase, AuditRecord, BudgetUse, CreateRefundRequest, CreateRefundResponse, ListBudgetsRequest,
    SearchAuditRecordsRequest,
};
use tollgate::sandbox::Fault;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, Wire, operation, sample, until};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn budget(name: &str, window: BudgetWindow, amount: i64) -> Budget {
    Budget {
        name: name.to_owned(),
        callers: vec!["rig".to_owned()],
        groups: Vec::new(),
        rpcs: Vec::new(),
        currency: "usd".to_owned(),
        window,
        amount,
    }
}

async fn budgeted(budgets: Vec<Budget>) -> Rig {
    Rig::start_with(|config| config.budgets = budgets).await
}

fn refund(payment: &str, amount: Option<i64>, operation_id: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        operation: operation("1001", operation_id),
        payment_intent: Some(payment.to_owned()),
        amount,
        ..Default::default()
    }
}

async fn send(rig: &Rig, request: CreateRefundRequest) -> Result<CreateRefundResponse, Status> {
    RefundServiceClient::new(rig.wire()).create_refund(request).await.map(tonic::Response::into_inner)
}

async fn uses(wire: Wire, request: ListBudgetsRequest) -> Result<Vec<BudgetUse>, Status> {
    let answer = BudgetServiceClient::new(wire).list_budgets(request).await;
    answer.map(|answer| answer.into_inner().budgets)
}

/// The changes that the audit log has as denied.
async fn denials(rig: &Rig) -> Vec<AuditRecord> {
    let question =
        SearchAuditRecordsRequest { phase: AuditPhase::Denied.into(), page_size: 100, ..Default::default() };
    let answer = AuditServiceClient::new(rig.wire()).search_audit_records(question).await;
    answer.unwrap().into_inner().records
}

/// Used and held of the rig's one budget.
async fn used(rig: &Rig) -> (i64, i64) {
    let [one] = uses(rig.wire(), ListBudgetsRequest::default()).await.unwrap().try_into().unwrap();
    assert_eq!(one.remaining, (one.limit - one.used - one.held).max(0));
    (one.used, one.held)
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_name_and_the_reference_stays_free() {
    let rig = budgeted(vec![budget("daily", BudgetWindow::RollingDay, 1_000)]).await;
    let payment = rig.payment(5_000).await;
    send(&rig, refund(&payment, Some(700), "a")).await.unwrap();
    let status = send(&rig, refund(&payment, Some(301), "b")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.reason, "BUDGET_EXCEEDED");
    for (name, value) in [
        ("budget", "daily"),
        ("window", "rolling_day"),
        ("currency", "usd"),
        ("limit", "1000"),
        ("left", "300"),
        ("held", "0"),
        ("asked", "301"),
    ] {
        assert_eq!(info.metadata[name], value, "{name}");
    }
    let quota = status.get_details_quota_failure().unwrap();
    assert_eq!(quota.violations[0].subject, "caller:rig/budget:daily");
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((DAY..DAY + Duration::from_secs(60)).contains(&delay), "{delay:?}");
    assert_eq!(rig.refunds_made(), 1);
    let preview = refund(&payment, Some(301), "b");
    let preview = send(&rig, CreateRefundRequest { validate_only: true, ..preview }).await.unwrap_err();
    assert_eq!(preview.get_details_error_info().unwrap().reason, "BUDGET_EXCEEDED");

    let denied = until(async || <[AuditRecord; 2]>::try_from(denials(&rig).await).ok()).await;
    for record in denied {
        let why = (record.decision.as_str(), record.result.as_str(), record.reason.as_str());
        assert_eq!(why, ("budget daily", "failed", "BUDGET_EXCEEDED"));
    }
    let shown = rig.metrics().await;
    for (metric, value) in [("refusals_total", 1.0), ("used", 700.0), ("limit", 1_000.0)] {
        let found = sample(&shown, &format!("tollgate_budget_{metric}"), "tollgate_budget=\"daily\"");
        assert_eq!(found, Some(value), "{metric}");
    }

    rig.clock.advance(delay);
    send(&rig, refund(&payment, Some(301), "b")).await.unwrap();
    assert_eq!(used(&rig).await, (301, 0));
}

#[tokio::test]
async fn an_amount_that_is_left_out_is_read_named_and_kept_for_replays() {
    let rig = budgeted(vec![budget("daily", BudgetWindow::RollingDay, 1_000)]).await;
    let payment = rig.payment(1_200).await;
    let whole = refund(&payment, None, "");
    let status = send(&rig, whole.clone()).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().metadata["asked"], "1200");
    rig.stripe("/v1/refunds", &format!("payment_intent={payment}&amount=300")).await;
    let preview = CreateRefundRequest { validate_only: true, ..whole.clone() };
    let body = send(&rig, preview).await.unwrap().preview.unwrap().body;
    assert!(body.ends_with("&amount=900"), "{body}");
    assert_eq!(send(&rig, whole.clone()).await.unwrap().refund.unwrap().amount, 900);
    let again = send(&rig, whole).await.unwrap();
    assert!(again.call.unwrap().replayed, "nothing is left to refund, and the first answer stands");
    assert_eq!(used(&rig).await, (900, 0));
    let status = send(&rig, refund(&payment, None, "b")).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "AMOUNT_UNKNOWN");
}

#[tokio::test]
async fn a_refund_that_fails_later_is_free_again() {
    let rig = budgeted(vec![budget("monthly", BudgetWindow::CalendarMonth, 1_000)]).await;
    let payment = rig.payment_with("pm_card_refundFail", 1_000).await;
    send(&rig, refund(&payment, Some(1_000), "")).await.unwrap();
    assert_eq!(used(&rig).await, (1_000, 0));
    rig.control().advance(DAY);
    until(async || (used(&rig).await == (0, 0)).then_some(())).await;
}

#[tokio::test]
async fn an_unknown_outcome_is_held_until_it_is_known() {
    let rig = budgeted(vec![budget("daily", BudgetWindow::RollingDay, 1_000)]).await;
    let payment = rig.payment(2_000).await;
    rig.control().add_fault(Fault::parse("drop_before:POST:/v1/refunds:times=1000").unwrap());
    let status = send(&rig, refund(&payment, Some(800), "a")).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "OUTCOME_UNKNOWN");
    assert_eq!(used(&rig).await, (0, 800));
    let status = send(&rig, refund(&payment, Some(300), "b")).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["held"].as_str()), ("BUDGET_EXCEEDED", "800"));
    assert!(status.get_details_retry_info().is_none_or(|info| info.retry_delay.is_none()));
    rig.control().clear_faults();
    send(&rig, refund(&payment, Some(800), "a")).await.unwrap();
    assert_eq!(used(&rig).await, (800, 0));
}

#[tokio::test]
async fn an_order_has_a_budget_of_its_own_which_is_shown_with_the_order_alone() {
    let rig = budgeted(vec![budget("per-order", BudgetWindow::Order, 500)]).await;
    let payment = rig.payment(5_000).await;
    send(&rig, refund(&payment, Some(500), "a")).await.unwrap();
    let status = send(&rig, refund(&payment, Some(1), "b")).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().metadata["window"], "order");
    let other = CreateRefundRequest { operation: operation("1002", ""), ..refund(&payment, Some(500), "") };
    send(&rig, other).await.unwrap();
    assert!(uses(rig.wire(), ListBudgetsRequest::default()).await.unwrap().is_empty());
    let asked = ListBudgetsRequest { order_id: "1001".to_owned(), ..Default::default() };
    let [one] = uses(rig.wire(), asked).await.unwrap().try_into().unwrap();
    assert_eq!((one.budget.as_str(), one.used, one.remaining), ("per-order", 500, 0));
}

#[tokio::test]
async fn callers_see_their_own_budgets_and_operators_all() {
    let everybody = Budget { callers: Vec::new(), ..budget("daily", BudgetWindow::RollingDay, 1_000) };
    let rig = budgeted(vec![everybody]).await;
    let payment = rig.payment(5_000).await;
    send(&rig, refund(&payment, Some(400), "")).await.unwrap();
    let all = || ListBudgetsRequest { caller: "-".to_owned(), ..Default::default() };
    let seen = uses(rig.operator(), all()).await.unwrap();
    assert_eq!(seen.iter().map(|one| (one.caller.as_str(), one.used)).collect::<Vec<_>>(), [("rig", 400)]);
    assert_eq!(uses(rig.wire(), all()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(used(&rig).await, (400, 0));
}

#[tokio::test]
async fn a_rule_about_amounts_is_judged_by_the_amount_that_is_left_out() {
    let rule = r#"
@id("small-refunds")
permit (principal == Caller::"rig", action == Action::"RefundService.CreateRefund", resource)
when { context has amount && context.amount <= 500 && context has currency && context.currency == "usd" };
@id("operator")
permit (principal == Caller::"operator", action, resource);
"#;
    let rig = Rig::start_with(|config| std::fs::write(&config.policy_files[0], rule).unwrap()).await;
    let lost = rig.payment(500).await;
    rig.control().add_fault(Fault::parse("drop_after:POST:/v1/refunds:times=1000").unwrap());
    let status = send(&rig, refund(&lost, None, "lost")).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "OUTCOME_UNKNOWN");
    rig.control().clear_faults();
    // Its event may have settled the first of them.
    for _ in 0..2 {
        let again = send(&rig, refund(&lost, None, "lost")).await.unwrap();
        assert_eq!(again.refund.unwrap().amount, 500);
    }
    assert!(send(&rig, refund(&lost, None, "lost")).await.unwrap().call.unwrap().replayed);
    let elsewhere = CreateRefundRequest { currency: Some("eur".to_owned()), ..refund(&lost, Some(5), "eur") };
    let status = send(&rig, elsewhere).await.unwrap_err();
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "currency");
    let (small, large) = (rig.payment(500).await, rig.payment(501).await);
    let status = send(&rig, refund(&large, None, "a")).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "POLICY_DENIED");
    let status = send(&rig, refund(&large, Some(501), "b")).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "POLICY_DENIED");
    send(&rig, refund(&large, Some(500), "c")).await.unwrap();
    assert_eq!(send(&rig, refund(&small, None, "d")).await.unwrap().refund.unwrap().amount, 500);
    assert_eq!(rig.refunds_made(), 3);
}
