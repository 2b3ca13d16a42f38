//! Customers, payment methods, payments and the balance, as a client sees them.

use std::time::Duration;

use serde_json::json;

use super::Stage;
use crate::sandbox::Options;
use crate::sandbox::money::OPENING_BALANCE;

const PAY: &str = "amount=2000&currency=usd&confirm=true&payment_method=";

#[tokio::test]
async fn a_payment_makes_a_charge_money_and_events_in_order() {
    let stage = Stage::new().await;
    let paid = stage.post("/v1/payment_intents", &format!("{PAY}pm_card_visa&expand[]=latest_charge")).await;
    assert_eq!(
        (paid.status, paid.text("/status"), &paid.body["amount_received"]),
        (200, "succeeded", &json!(2000))
    );
    assert_eq!(paid.text("/latest_charge/payment_method_details/card/last4"), "4242");
    assert!(!paid.body.to_string().contains("\"_"), "own keys stay inside");
    let id = paid.text("/latest_charge/balance_transaction");
    let txn = stage.get(&format!("/v1/balance_transactions/{id}?expand[]=source")).await;
    assert_eq!(
        (&txn.body["fee"], &txn.body["net"], txn.text("/status")),
        (&json!(88), &json!(1912), "pending")
    );
    assert_eq!(txn.text("/source/object"), "charge");
    assert_eq!(
        stage.events().await,
        ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]
    );
    assert_eq!(stage.get("/v1/balance").await.body["pending"][0]["amount"], json!(1912));
    stage.handle.control().advance(Duration::from_secs(2 * 24 * 60 * 60));
    let balance = stage.get("/v1/balance").await;
    assert_eq!(
        (&balance.body["available"][0]["amount"], &balance.body["pending"][0]["amount"]),
        (&json!(OPENING_BALANCE + 1912), &json!(0))
    );
    assert_eq!(stage.events().await.last().unwrap(), "balance.available");
}

#[tokio::test]
async fn a_bypassing_card_pays_straight_into_the_available_balance() {
    let stage = Stage::new().await;
    stage.post("/v1/payment_intents", &format!("{PAY}pm_card_bypassPending")).await;
    assert_eq!(stage.get("/v1/balance").await.body["available"][0]["amount"], json!(OPENING_BALANCE + 1912));
}

#[tokio::test]
async fn a_decline_is_402_with_the_intent_inside_and_replays() {
    let stage = Stage::new().await;
    let form = format!("{PAY}pm_card_visa_chargeDeclinedInsufficientFunds");
    let declined = stage.send("POST", "/v1/payment_intents", &form, Some("k")).await.unwrap();
    assert_eq!(declined.status, 402);
    assert_eq!(
        (declined.text("/error/type"), declined.text("/error/code"), declined.text("/error/decline_code")),
        ("card_error", "card_declined", "insufficient_funds")
    );
    assert_eq!(declined.text("/error/payment_intent/status"), "requires_payment_method");
    let again = stage.send("POST", "/v1/payment_intents", &form, Some("k")).await.unwrap();
    assert_eq!((again.status, &again.body), (402, &declined.body));
    assert_eq!(
        stage.events().await,
        ["payment_intent.created", "charge.failed", "payment_intent.payment_failed"]
    );
    let intent = declined.text("/error/payment_intent/id").to_owned();
    let retried =
        stage.post(&format!("/v1/payment_intents/{intent}/confirm"), "payment_method=pm_card_visa").await;
    assert_eq!((retried.status, retried.text("/status")), (200, "succeeded"));
}

#[tokio::test]
async fn a_manual_payment_is_captured_in_part_or_canceled() {
    let stage = Stage::new().await;
    let form = format!("{PAY}pm_card_visa&capture_method=manual");
    let held = stage.post("/v1/payment_intents", &form).await;
    assert_eq!((held.text("/status"), &held.body["amount_capturable"]), ("requires_capture", &json!(2000)));
    let path = format!("/v1/payment_intents/{}", held.id());
    let taken = stage.post(&format!("{path}/capture"), "amount_to_capture=1500").await;
    assert_eq!((taken.text("/status"), &taken.body["amount_received"]), ("succeeded", &json!(1500)));
    assert_eq!(stage.get("/v1/balance").await.body["pending"][0]["amount"], json!(1500 - 44 - 30));
    assert_eq!(
        stage.post(&format!("{path}/cancel"), "").await.text("/error/code"),
        "payment_intent_unexpected_state"
    );
    let held = stage.post("/v1/payment_intents", &form).await;
    let canceled = stage
        .post(&format!("/v1/payment_intents/{}/cancel", held.id()), "cancellation_reason=duplicate")
        .await;
    assert_eq!((canceled.text("/status"), canceled.text("/cancellation_reason")), ("canceled", "duplicate"));
}

#[tokio::test]
async fn an_authentication_waits_for_the_customer() {
    let stage = Stage::new().await;
    let waiting = stage.post("/v1/payment_intents", &format!("{PAY}pm_card_authenticationRequired")).await;
    assert_eq!(
        (waiting.text("/status"), waiting.text("/next_action/type")),
        ("requires_action", "redirect_to_url")
    );
    stage.handle.control().authenticate(&waiting.id(), true).unwrap();
    let path = format!("/v1/payment_intents/{}", waiting.id());
    assert_eq!(stage.get(&path).await.text("/status"), "succeeded");
    assert!(stage.handle.control().authenticate(&waiting.id(), true).is_err());
    let alone = format!("{PAY}pm_card_authenticationRequired&off_session=true");
    assert_eq!(
        stage.post("/v1/payment_intents", &alone).await.text("/error/code"),
        "authentication_required"
    );
}

#[tokio::test]
async fn what_cannot_be_paid_is_refused() {
    let stage = Stage::new().await;
    for (form, status, code) in [
        ("amount=49&currency=usd", 400, "amount_too_small"),
        ("amount=9999999999999&currency=usd", 400, "amount_too_large"),
        ("amount=100&currency=usd&payment_method=pm_x", 400, "resource_missing"),
        ("amount=100&currency=usd&customer=cus_x", 400, "resource_missing"),
        ("amount=100&currency=usd&payment_method_types[]=card", 400, "parameter_unknown"),
        ("amount=100&currency=usd&confirm=true", 400, "payment_intent_unexpected_state"),
        ("currency=usd", 400, "parameter_missing"),
    ] {
        let got = stage.post("/v1/payment_intents", form).await;
        assert_eq!((got.status, got.text("/error/code")), (status, code), "{form}");
    }
    assert!(stage.events().await.is_empty());
    let unknown = stage.get("/v1/payment_intents/pi_x").await;
    assert_eq!((unknown.status, unknown.text("/error/message")), (404, "No such payment_intent: 'pi_x'"));
    assert_eq!(stage.get("/v1/nothing").await.status, 404);
}

#[tokio::test]
async fn a_payment_method_is_attached_used_and_detached_for_good() {
    let stage = Stage::new().await;
    let customer = stage.post("/v1/customers", "name=A").await.id();
    let attach = format!("customer={customer}");
    let declined = stage.post("/v1/payment_methods/pm_card_visa_chargeDeclined/attach", &attach).await;
    assert_eq!((declined.status, declined.text("/error/code")), (402, "card_declined"));
    let method = stage.post("/v1/payment_methods/pm_card_visa/attach", &attach).await.id();
    let path = format!("/v1/customers/{customer}");
    let form = format!("invoice_settings[default_payment_method]={method}");
    assert_eq!(stage.post(&path, &form).await.text("/invoice_settings/default_payment_method"), method);
    let other = stage.post("/v1/customers", "").await.id();
    assert_eq!(
        stage.post(&format!("/v1/customers/{other}"), &form).await.text("/error/code"),
        "resource_missing"
    );
    let listed = stage.get(&format!("{path}/payment_methods")).await;
    assert_eq!(listed.body["data"][0]["id"], json!(method));
    let pay = format!("{PAY}{method}");
    assert_eq!(stage.post("/v1/payment_intents", &pay).await.text("/error/param"), "payment_method");
    assert_eq!(
        stage.post("/v1/payment_intents", &format!("{pay}&{attach}")).await.text("/status"),
        "succeeded"
    );
    let detached = stage.post(&format!("/v1/payment_methods/{method}/detach"), "").await;
    assert_eq!(detached.body["customer"], json!(null));
    assert_eq!(stage.get(&path).await.body["invoice_settings"]["default_payment_method"], json!(null));
    let again = stage.post(&format!("/v1/payment_methods/{method}/attach"), &attach).await;
    assert_eq!(again.text("/error/code"), "payment_method_unexpected_state");
    let event = stage.get("/v1/events?type=payment_method.detached").await;
    assert_eq!(event.body["data"][0]["data"]["previous_attributes"], json!({"customer": customer}));
}

#[tokio::test]
async fn a_card_that_fails_when_charged_can_be_attached() {
    let stage = Stage::new().await;
    let form = "payment_method=pm_card_chargeCustomerFail";
    let customer = stage.post("/v1/customers", form).await.id();
    let listed = stage.get(&format!("/v1/payment_methods?customer={customer}")).await;
    let method = listed.text("/data/0/id").to_owned();
    let paid = stage.post("/v1/payment_intents", &format!("{PAY}{method}&customer={customer}")).await;
    assert_eq!((paid.status, paid.text("/error/code")), (402, "card_declined"));
}

#[tokio::test]
async fn a_customer_is_updated_searched_and_deleted() {
    let stage = Stage::new().await;
    let made = stage.post("/v1/customers", "email=a@example.com&metadata[tier]=gold&description=x").await;
    let path = format!("/v1/customers/{}", made.id());
    let changed = stage.post(&path, "description=&metadata[tier]=&metadata[n]=1").await;
    assert_eq!((&changed.body["description"], &changed.body["metadata"]), (&json!(null), &json!({"n": "1"})));
    let query = "/v1/customers/search?expand[]=total_count&query=email%3A%27a%40example.com%27%20AND%20metadata%5B%27n%27%5D%3A%271%27";
    let found = stage.get(query).await;
    assert_eq!((&found.body["total_count"], found.text("/data/0/id")), (&json!(1), made.text("/id")));
    let deleted = stage.send("DELETE", &path, "", None).await.unwrap();
    assert_eq!(deleted.body["deleted"], json!(true));
    assert_eq!(stage.get(&path).await.body, deleted.body);
    assert_eq!(stage.post(&path, "name=x").await.status, 404);
    assert_eq!(stage.get("/v1/customers").await.body["data"], json!([]));
    assert_eq!(stage.events().await, ["customer.created", "customer.updated", "customer.deleted"]);
}

#[tokio::test]
async fn a_customer_owns_tax_ids_and_balances() {
    let stage = Stage::new().await;
    let customer =
        stage.post("/v1/customers", "tax_id_data[0][type]=eu_vat&tax_id_data[0][value]=DE123").await.id();
    let path = format!("/v1/customers/{customer}");
    let shown = stage.get(&format!("{path}?expand[]=tax_ids&expand[]=cash_balance")).await;
    assert_eq!(shown.text("/tax_ids/data/0/country"), "DE");
    assert_eq!(shown.text("/cash_balance/settings/reconciliation_mode"), "automatic");
    let credit = stage.post(&format!("{path}/balance_transactions"), "amount=-500&currency=usd").await;
    assert_eq!(credit.body["ending_balance"], json!(-500));
    assert_eq!(stage.get(&path).await.body["balance"], json!(-500));
    let cash = stage.post(&format!("{path}/cash_balance"), "settings[reconciliation_mode]=manual").await;
    assert_eq!(cash.text("/settings/reconciliation_mode"), "manual");
    let none = stage.send("DELETE", &format!("{path}/discount"), "", None).await.unwrap();
    assert_eq!(none.status, 404);
    let tax_id = shown.text("/tax_ids/data/0/id").to_owned();
    let gone = stage.send("DELETE", &format!("{path}/tax_ids/{tax_id}"), "", None).await.unwrap();
    assert_eq!(gone.body["deleted"], json!(true));
    assert_eq!(stage.get(&format!("{path}/tax_ids/{tax_id}")).await.status, 404);
}

#[tokio::test]
async fn lists_filter_page_and_expand() {
    let stage = Stage::new().await;
    for _ in 0..3 {
        stage.post("/v1/payment_intents", &format!("{PAY}pm_card_visa")).await;
        stage.handle.control().advance(Duration::from_secs(10));
    }
    let first = stage.get("/v1/charges?limit=2&expand[]=data.payment_intent").await;
    assert_eq!(
        (&first.body["has_more"], first.text("/data/0/payment_intent/object")),
        (&json!(true), "payment_intent")
    );
    let last = first.text("/data/1/id").to_owned();
    let rest = stage.get(&format!("/v1/charges?starting_after={last}")).await;
    assert_eq!((rest.body["data"].as_array().unwrap().len(), &rest.body["has_more"]), (1, &json!(false)));
    let since = stage.get("/v1/charges?created[gte]=1800000010&created[lt]=1800000020").await;
    assert_eq!(since.body["data"].as_array().unwrap().len(), 1);
    let bad = stage.post("/v1/payment_intents", &format!("{PAY}pm_card_visa&expand[]=amount")).await;
    assert_eq!((bad.status, bad.text("/error/param")), (400, "expand"));
    assert_eq!(stage.get("/v1/charges").await.body["data"].as_array().unwrap().len(), 3);
    assert_eq!(stage.get("/v1/charges?customer=cus_x").await.text("/error/code"), "resource_missing");
}

#[tokio::test]
async fn events_are_filtered_by_type_and_forgotten_after_30_days() {
    let stage = Stage::with(|options: &mut Options| options.seed = 3).await;
    let control = stage.handle.control();
    control.trigger("radar.early_fraud_warning.created").unwrap();
    control.trigger("payout.paid").unwrap();
    control.trigger("payout.failed").unwrap();
    let kinds = async |query: &str| {
        let list = stage.get(&format!("/v1/events?limit=100&{query}")).await;
        let types = list.body["data"].as_array().unwrap().iter();
        types.map(|event| event["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds("type=radar.*").await, ["radar.early_fraud_warning.created"]);
    control.advance(Duration::from_secs(2));
    assert_eq!(kinds("types[]=payout.paid&types[]=payout.failed").await, ["payout.failed", "payout.paid"]);
    let event = stage.get("/v1/events?type=payout.paid").await.text("/data/0/id").to_owned();
    assert_eq!(stage.get(&format!("/v1/events/{event}")).await.status, 200);
    assert_eq!(stage.get("/v1/events?type=a&types[]=b").await.text("/error/code"), "parameters_exclusive");
    control.advance(Duration::from_secs(31 * 24 * 60 * 60));
    assert_eq!(kinds("type=payout.*").await, Vec::<String>::new());
    assert_eq!(stage.get(&format!("/v1/events/{event}")).await.status, 404);
}
