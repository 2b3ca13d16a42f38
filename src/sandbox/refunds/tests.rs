//! Refunds as a client sees them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::money::OPENING_BALANCE;
use crate::sandbox::tests::{Got, Stage};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A captured payment; answers PaymentIntent and charge.
async fn paid(stage: &Stage, card: &str) -> (String, String) {
    let form = format!("amount=5000&currency=usd&confirm=true&payment_method={card}");
    let intent = stage.post("/v1/payment_intents", &form).await;
    (intent.id(), intent.text("/latest_charge").to_owned())
}

async fn refund(stage: &Stage, form: &str) -> Got {
    stage.post("/v1/refunds", form).await
}

/// The events since the last look, oldest first.
async fn since(stage: &Stage, seen: &mut usize) -> Vec<String> {
    let all = stage.events().await;
    let fresh = all[*seen..].to_vec();
    *seen = all.len();
    fresh
}

async fn available(stage: &Stage) -> i64 {
    stage.get("/v1/balance").await.body["available"][0]["amount"].as_i64().unwrap() - OPENING_BALANCE
}

#[tokio::test]
async fn a_partial_refund_looks_as_stripe_shows_it_and_is_booked() {
    let stage = Stage::new().await;
    let (intent, charge) = paid(&stage, "pm_card_visa").await;
    let mut seen = stage.events().await.len();
    let form = format!("payment_intent={intent}&amount=1500&reason=duplicate&metadata[a]=b");
    let made = refund(&stage, &form).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let body = &made.body;
    for (field, value) in [
        ("amount", json!(1500)),
        ("charge", json!(charge)),
        ("payment_intent", json!(intent)),
        ("currency", json!("usd")),
        ("status", json!("succeeded")),
        ("reason", json!("duplicate")),
        ("metadata", json!({"a": "b"})),
        ("receipt_number", Value::Null),
        ("customer_account", Value::Null),
        (
            "destination_details",
            json!({
                "card": {
                    "reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund",
                },
                "type": "card",
            }),
        ),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
    for absent in
        ["livemode", "description", "failure_reason", "instructions_email", "next_action", "pending_reason"]
    {
        assert!(body.get(absent).is_none(), "{absent}");
    }
    assert_eq!(since(&stage, &mut seen).await, ["refund.created", "charge.refunded"]);
    assert_eq!(available(&stage).await, -1500);
    let path = format!("/v1/balance_transactions/{}", made.text("/balance_transaction"));
    let transaction = stage.get(&path).await;
    assert_eq!((transaction.text("/type"), transaction.text("/source")), ("refund", made.id().as_str()));
    assert_eq!((&transaction.body["net"], &transaction.body["fee"]), (&json!(-1500), &json!(0)));
    let shown = stage.get(&format!("/v1/charges/{charge}?expand[]=refunds")).await;
    assert_eq!((&shown.body["amount_refunded"], &shown.body["refunded"]), (&json!(1500), &json!(false)));
    assert_eq!(shown.body["refunds"]["data"][0]["id"], body["id"]);
}

#[tokio::test]
async fn the_rest_can_be_refunded_once_and_no_more() {
    let stage = Stage::new().await;
    let (_, charge) = paid(&stage, "pm_card_visa").await;
    refund(&stage, &format!("charge={charge}&amount=2000")).await;
    let over = refund(&stage, &format!("charge={charge}&amount=4000")).await;
    assert_eq!((over.status, over.text("/error/param"), over.text("/error/code")), (400, "amount", ""));
    let said = "Refund amount ($40.00) is greater than unrefunded amount on charge ($30.00)";
    assert_eq!(over.text("/error/message"), said);
    let rest = refund(&stage, &format!("charge={charge}")).await;
    assert_eq!(rest.body["amount"], json!(3000));
    assert_eq!(stage.get(&format!("/v1/charges/{charge}")).await.body["refunded"], json!(true));
    let again = refund(&stage, &format!("charge={charge}&amount=1")).await;
    assert_eq!((again.status, again.text("/error/code")), (400, "charge_already_refunded"));
    assert_eq!(again.text("/error/message"), format!("Charge {charge} has already been refunded."));
}

#[tokio::test]
async fn each_refusal_has_its_shape() {
    let stage = Stage::new().await;
    let (intent, charge) = paid(&stage, "pm_card_visa").await;
    let bare = stage.post("/v1/payment_intents", "amount=900&currency=usd").await.id();
    let form = "amount=900&currency=usd&confirm=true&capture_method=manual&payment_method=pm_card_visa";
    let held = stage.post("/v1/payment_intents", form).await.text("/latest_charge").to_owned();
    for (form, status, code, param, words) in [
        (String::new(), 400, "", "", "payment_intent or charge"),
        (
            format!("charge={charge}&amount=0"),
            400,
            "parameter_invalid_integer",
            "amount",
            "greater than or equal to 1",
        ),
        (format!("charge={charge}&reason=boredom"), 400, "", "reason", "requested_by_customer"),
        (
            format!("charge={charge}&payment_intent={intent}"),
            400,
            "parameters_exclusive",
            "payment_intent",
            "one of",
        ),
        ("charge=ch_none".to_owned(), 404, "resource_missing", "id", "No such charge: 'ch_none'"),
        (format!("payment_intent={bare}"), 400, "", "", "does not have a successful charge"),
        (format!("charge={held}"), 400, "", "", "You must cancel the PaymentIntent"),
        (format!("charge={charge}&reverse_transfer=true"), 400, "", "reverse_transfer", "no transfer"),
        (format!("charge={charge}&colour=red"), 400, "parameter_unknown", "colour", "unknown parameter"),
    ] {
        let refused = refund(&stage, &form).await;
        assert_eq!(
            (refused.status, refused.text("/error/code"), refused.text("/error/param")),
            (status, code, param),
            "{form}"
        );
        assert!(refused.text("/error/message").contains(words), "{form}: {}", refused.body);
    }
    let unknown = stage.get("/v1/refunds/re_none").await;
    assert_eq!((unknown.status, unknown.text("/error/param")), (404, "refund"));
    let filtered = stage.get("/v1/refunds?charge=ch_none").await;
    assert_eq!((filtered.status, filtered.text("/error/param")), (400, "charge"));
}

#[tokio::test]
async fn a_pending_refund_succeeds_later_and_counts_only_then() {
    let stage = Stage::new().await;
    let (_, charge) = paid(&stage, "pm_card_pendingRefund").await;
    let mut seen = stage.events().await.len();
    let made = refund(&stage, &format!("charge={charge}&amount=3000")).await;
    assert_eq!((made.text("/status"), made.text("/pending_reason")), ("pending", "processing"));
    assert_eq!(since(&stage, &mut seen).await, ["refund.created"]);
    assert_eq!(stage.get(&format!("/v1/charges/{charge}")).await.body["amount_refunded"], json!(0));
    let over = refund(&stage, &format!("charge={charge}&amount=2001")).await;
    assert_eq!(over.status, 400, "what is pending is spoken for");
    stage.handle.control().advance(Duration::from_secs(10));
    let done = stage.get(&format!("/v1/refunds/{}", made.id())).await;
    assert_eq!((done.text("/status"), done.body.get("pending_reason")), ("succeeded", None));
    assert_eq!(
        since(&stage, &mut seen).await,
        ["refund.updated", "charge.refund.updated", "charge.refunded"]
    );
    assert_eq!(stage.get(&format!("/v1/charges/{charge}")).await.body["amount_refunded"], json!(3000));
    assert_eq!(available(&stage).await, -3000);
}

#[tokio::test]
async fn a_pending_refund_can_be_canceled_and_gives_the_money_back() {
    let stage = Stage::new().await;
    let (_, charge) = paid(&stage, "pm_card_pendingRefund").await;
    let made = refund(&stage, &format!("charge={charge}")).await;
    let canceled = stage.post(&format!("/v1/refunds/{}/cancel", made.id()), "").await;
    assert_eq!(
        (canceled.text("/status"), canceled.text("/failure_reason")),
        ("canceled", "merchant_request")
    );
    assert!(canceled.text("/failure_balance_transaction").starts_with("txn_"));
    assert_eq!(available(&stage).await, 0);
    stage.handle.control().advance(Duration::from_secs(60));
    assert_eq!(stage.get(&format!("/v1/refunds/{}", made.id())).await.text("/status"), "canceled");
    let full = refund(&stage, &format!("charge={charge}")).await;
    assert_eq!(full.status, 200, "the amount is free again");
}

#[tokio::test]
async fn a_failing_refund_gives_the_money_back_later() {
    let stage = Stage::new().await;
    let (_, charge) = paid(&stage, "pm_card_refundFail").await;
    let made = refund(&stage, &format!("charge={charge}")).await;
    assert_eq!(made.text("/status"), "succeeded");
    let mut seen = stage.events().await.len();
    stage.handle.control().advance(Duration::from_secs(10));
    let failed = stage.get(&format!("/v1/refunds/{}?expand[]=failure_balance_transaction", made.id())).await;
    assert_eq!(
        (failed.text("/status"), failed.text("/failure_reason")),
        ("failed", "expired_or_canceled_card")
    );
    assert_eq!(failed.body["failure_balance_transaction"]["amount"], json!(5000));
    assert_eq!(failed.text("/failure_balance_transaction/type"), "refund_failure");
    assert_eq!(since(&stage, &mut seen).await, ["refund.updated", "charge.refund.updated", "refund.failed"]);
    let charge = stage.get(&format!("/v1/charges/{charge}")).await;
    assert_eq!((&charge.body["amount_refunded"], &charge.body["refunded"]), (&json!(0), &json!(false)));
    assert_eq!(available(&stage).await, 0);
}

#[tokio::test]
async fn a_refund_waits_for_money_that_is_not_available() {
    let stage = Stage::new().await;
    stage.post("/v1/payouts", &format!("amount={OPENING_BALANCE}&currency=usd")).await;
    let (_, charge) = paid(&stage, "pm_card_visa").await;
    let made = refund(&stage, &format!("charge={charge}&amount=100")).await;
    assert_eq!((made.text("/status"), made.text("/pending_reason")), ("pending", "insufficient_funds"));
    assert_eq!(made.body["balance_transaction"], Value::Null);
    stage.handle.control().advance(DAY);
    assert_eq!(stage.get(&format!("/v1/refunds/{}", made.id())).await.text("/status"), "pending");
    stage.handle.control().advance(2 * DAY);
    let done = stage.get(&format!("/v1/refunds/{}", made.id())).await;
    assert_eq!(done.text("/status"), "succeeded");
    assert!(done.text("/balance_transaction").starts_with("txn_"));
}

#[tokio::test]
async fn the_reference_number_arrives_for_a_refund_and_never_for_a_reversal() {
    let stage = Stage::new().await;
    let (_, charge) = paid(&stage, "pm_card_visa").await;
    let part = refund(&stage, &format!("charge={charge}&amount=1")).await.id();
    let (_, charge) = paid(&stage, "pm_card_visa").await;
    let whole = refund(&stage, &format!("charge={charge}")).await;
    assert_eq!(whole.body["destination_details"]["card"], json!({"type": "reversal"}));
    let mut seen = stage.events().await.len();
    stage.handle.control().advance(Duration::from_secs(60));
    assert_eq!(since(&stage, &mut seen).await, ["refund.updated", "charge.refund.updated"]);
    let part = stage.get(&format!("/v1/refunds/{part}")).await;
    assert_eq!(part.text("/destination_details/card/reference_status"), "available");
    assert_eq!(part.text("/destination_details/card/reference").len(), 23);
}

#[tokio::test]
async fn metadata_changes_and_lists_filter() {
    let stage = Stage::new().await;
    let (intent, charge) = paid(&stage, "pm_card_visa").await;
    let (_, other) = paid(&stage, "pm_card_visa").await;
    let first = refund(&stage, &format!("charge={charge}&amount=10&metadata[a]=1")).await.id();
    let second = stage.post(&format!("/v1/charges/{charge}/refunds"), "amount=20").await.id();
    let third = stage.post(&format!("/v1/charges/{other}/refund"), "reason=fraudulent").await;
    assert_eq!((third.text("/object"), third.text("/fraud_details/user_report")), ("charge", "fraudulent"));
    let updated = stage.post(&format!("/v1/refunds/{first}"), "metadata[a]=&metadata[b]=2").await;
    assert_eq!(updated.body["metadata"], json!({"b": "2"}));
    let event = stage.get("/v1/events?type=refund.updated").await;
    assert_eq!(
        event.body["data"][0]["data"]["previous_attributes"],
        json!({"metadata": {"a": "1", "b": null}})
    );
    let refused = stage.post(&format!("/v1/refunds/{first}"), "amount=5").await;
    assert_eq!(refused.text("/error/code"), "parameter_unknown");
    for path in [
        format!("/v1/refunds?charge={charge}"),
        format!("/v1/refunds?payment_intent={intent}"),
        format!("/v1/charges/{charge}/refunds"),
    ] {
        let list = stage.get(&path).await;
        let ids: Vec<_> = list.body["data"].as_array().unwrap().iter().map(|refund| &refund["id"]).collect();
        assert_eq!(ids, [&json!(second), &json!(first)], "{path}");
    }
    let page = stage.get(&format!("/v1/refunds?limit=1&starting_after={second}&expand[]=data.charge")).await;
    assert_eq!((page.text("/data/0/id"), page.text("/data/0/charge/id")), (first.as_str(), charge.as_str()));
    assert_eq!(stage.get(&format!("/v1/charges/{other}/refunds/{first}")).await.status, 404);
    let cancel = stage.post(&format!("/v1/refunds/{first}/cancel"), "").await;
    assert_eq!((cancel.status, cancel.text("/error/code")), (400, ""));
}

#[tokio::test]
async fn a_full_refund_settles_the_fraud_warning() {
    let stage = Stage::new().await;
    let (_, charge) = paid(&stage, "pm_card_createIssuerFraudRecord").await;
    refund(&stage, &format!("charge={charge}")).await;
    let warnings = stage.get(&format!("/v1/radar/early_fraud_warnings?charge={charge}")).await;
    assert_eq!(warnings.body["data"][0]["actionable"], json!(false));
    assert_eq!(stage.events().await.last().unwrap(), "radar.early_fraud_warning.updated");
}

#[tokio::test]
async fn a_cash_balance_refund_waits_for_the_customer() {
    let stage = Stage::new().await;
    let customer = stage.post("/v1/customers", "email=a%40example.com").await.id();
    let form = format!("origin=customer_balance&customer={customer}&currency=eur&amount=700");
    let short = refund(&stage, &form).await;
    assert_eq!((short.status, short.text("/error/code")), (400, "balance_insufficient"));
    let fund = format!("/v1/test_helpers/customers/{customer}/fund_cash_balance");
    assert_eq!(stage.post(&fund, "amount=1000&currency=eur").await.body["ending_balance"], json!(1000));
    let made = refund(&stage, &form).await;
    assert_eq!(
        (made.text("/status"), made.text("/instructions_email")),
        ("requires_action", "a@example.com")
    );
    assert_eq!(made.text("/next_action/display_details/email_sent/email_sent_to"), "a@example.com");
    let cash = format!("/v1/customers/{customer}/cash_balance");
    assert_eq!(stage.get(&cash).await.body["available"], json!({"eur": 300}));
    let expired = stage.post(&format!("/v1/test_helpers/refunds/{}/expire", made.id()), "").await;
    assert_eq!((expired.text("/status"), expired.body.get("next_action")), ("failed", None));
    assert_eq!(stage.get(&cash).await.body["available"], json!({"eur": 1000}));
    let again = stage.post(&format!("/v1/test_helpers/refunds/{}/expire", made.id()), "").await;
    assert_eq!(again.status, 400);
    let incomplete = refund(&stage, "origin=customer_balance&currency=eur&amount=700").await;
    assert_eq!((incomplete.status, incomplete.text("/error/param")), (400, "customer"));
}
