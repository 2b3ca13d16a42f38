//! Disputes as a client sees them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::money::OPENING_BALANCE;
use crate::sandbox::tests::{Got, Stage};

/// A payment with that card, and its newest dispute.
async fn disputed(stage: &Stage, card: &str) -> (Got, Value) {
    let form = format!("amount=6000&currency=usd&confirm=true&payment_method={card}");
    let intent = stage.post("/v1/payment_intents", &form).await;
    let list = stage.get(&format!("/v1/disputes?payment_intent={}", intent.id())).await;
    let dispute = list.body["data"][0].clone();
    (intent, dispute)
}

fn path(dispute: &Value) -> String {
    format!("/v1/disputes/{}", dispute["id"].as_str().unwrap())
}

async fn tail(stage: &Stage, n: usize) -> Vec<String> {
    let events = stage.events().await;
    events[events.len() - n..].to_vec()
}

fn decided(stage: &Stage) {
    stage.handle.control().advance(Duration::from_secs(4));
}

#[tokio::test]
async fn a_chargeback_opens_with_the_payment_and_takes_the_money() {
    let stage = Stage::new().await;
    let (intent, dispute) = disputed(&stage, "pm_card_createDispute").await;
    assert!(dispute["id"].as_str().unwrap().starts_with("du_"));
    for (field, value) in [
        ("amount", json!(6000)),
        ("status", json!("needs_response")),
        ("reason", json!("fraudulent")),
        ("is_charge_refundable", json!(false)),
        ("payment_intent", json!(intent.id())),
        ("enhanced_eligibility_types", json!([])),
        (
            "payment_method_details",
            json!({
                "card": {
                    "brand": "visa", "case_type": "chargeback", "network": "visa", "network_reason_code": "10.4",
                },
                "type": "card",
            }),
        ),
        (
            "evidence_details",
            json!({
                // Eight days after the clock's day, at the last second.
                "due_by": (1_800_000_000_i64 / 86_400 + 9) * 86_400 - 1, "enhanced_eligibility": {},
                "has_evidence": false, "past_due": false, "submission_count": 0,
                "submission_method": "not_submitted",
            }),
        ),
    ] {
        assert_eq!(dispute[field], value, "{field}");
    }
    assert_eq!(dispute["evidence"].as_object().unwrap().len(), 28);
    let [money] = dispute["balance_transactions"].as_array().unwrap().as_slice() else {
        panic!("one movement")
    };
    assert_eq!((&money["type"], &money["reporting_category"]), (&json!("adjustment"), &json!("dispute")));
    assert_eq!(
        (&money["amount"], &money["fee"], &money["net"]),
        (&json!(-6000), &json!(1500), &json!(-7500))
    );
    assert_eq!(money["source"], dispute["id"]);
    let balance = stage.get("/v1/balance").await;
    assert_eq!(balance.body["available"][0]["amount"], json!(OPENING_BALANCE - 7500));
    let charge = dispute["charge"].as_str().unwrap();
    assert_eq!(stage.get(&format!("/v1/charges/{charge}")).await.body["disputed"], json!(true));
    let order = [
        "charge.succeeded",
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "payment_intent.succeeded",
    ];
    assert_eq!(tail(&stage, 4).await, order);
    let refused = stage.post("/v1/refunds", &format!("charge={charge}")).await;
    assert_eq!((refused.status, refused.text("/error/code")), (400, "charge_disputed"));
}

#[tokio::test]
async fn an_inquiry_moves_no_money_and_can_be_refunded() {
    let stage = Stage::new().await;
    let (_, dispute) = disputed(&stage, "pm_card_createDisputeInquiry").await;
    assert_eq!(dispute["status"], "warning_needs_response");
    assert_eq!(dispute["payment_method_details"]["card"]["network_reason_code"], "10");
    assert_eq!(dispute["balance_transactions"], json!([]));
    assert_eq!(tail(&stage, 2).await, ["charge.dispute.created", "payment_intent.succeeded"]);
    let form = format!("charge={}&amount=1", dispute["charge"].as_str().unwrap());
    assert_eq!(stage.post("/v1/refunds", &form).await.status, 200);
    stage.handle.control().advance(Duration::from_secs(120 * 24 * 60 * 60));
    assert_eq!(stage.get(&path(&dispute)).await.text("/status"), "warning_closed");
    assert_eq!(stage.events().await.last().unwrap(), "charge.dispute.closed");
}

#[tokio::test]
async fn a_manual_payment_is_disputed_when_it_is_captured() {
    let stage = Stage::new().await;
    let form =
        "amount=4400&currency=usd&confirm=true&capture_method=manual&payment_method=pm_card_createDispute";
    let intent = stage.post("/v1/payment_intents", form).await.id();
    assert_eq!(stage.get("/v1/disputes").await.body["data"], json!([]));
    stage.post(&format!("/v1/payment_intents/{intent}/capture"), "amount_to_capture=4000").await;
    assert_eq!(stage.get("/v1/disputes").await.body["data"][0]["amount"], json!(4000));
}

#[tokio::test]
async fn winning_evidence_returns_the_amount_and_keeps_the_fee() {
    let stage = Stage::new().await;
    let (_, dispute) = disputed(&stage, "pm_card_createDispute").await;
    let sent = stage.post(&path(&dispute), "evidence[uncategorized_text]=winning_evidence").await;
    assert_eq!(sent.text("/status"), "under_review");
    assert_eq!(sent.body["evidence_details"]["submission_count"], json!(1));
    assert_eq!(sent.text("/evidence_details/submission_method"), "manual");
    assert_eq!(tail(&stage, 2).await, ["charge.dispute.updated", "charge.updated"]);
    decided(&stage);
    let won = stage.get(&path(&dispute)).await;
    assert_eq!((won.text("/status"), &won.body["is_charge_refundable"]), ("won", &json!(true)));
    assert_eq!(won.text("/balance_transactions/1/reporting_category"), "dispute_reversal");
    assert_eq!(won.body["balance_transactions"][1]["net"], json!(6000));
    assert_eq!(tail(&stage, 2).await, ["charge.dispute.funds_reinstated", "charge.dispute.closed"]);
    let balance = stage.get("/v1/balance").await;
    assert_eq!(balance.body["available"][0]["amount"], json!(OPENING_BALANCE - 1500));
    let form = format!("charge={}&amount=100", dispute["charge"].as_str().unwrap());
    assert_eq!(stage.post("/v1/refunds", &form).await.status, 200, "a won dispute frees the charge");
    let closed = stage.post(&path(&dispute), "metadata[a]=b").await;
    assert_eq!((closed.status, closed.text("/error/message")), (400, "This dispute is already closed"));
    assert_eq!((closed.text("/error/code"), closed.text("/error/param")), ("", ""));
}

#[tokio::test]
async fn losing_evidence_closing_and_silence_lose() {
    let stage = Stage::new().await;
    let (_, first) = disputed(&stage, "pm_card_createDispute").await;
    stage.post(&path(&first), "evidence[uncategorized_text]=losing_evidence").await;
    decided(&stage);
    assert_eq!(stage.get(&path(&first)).await.text("/status"), "lost");
    assert_eq!(tail(&stage, 1).await, ["charge.dispute.closed"]);

    let (_, second) = disputed(&stage, "pm_card_createDisputeProductNotReceived").await;
    assert_eq!(second["payment_method_details"]["card"]["network_reason_code"], "13.1");
    let closed = stage.post(&format!("{}/close", path(&second)), "").await;
    assert_eq!((closed.status, closed.text("/status")), (200, "lost"));
    assert_eq!(tail(&stage, 2).await, ["charge.dispute.closed", "charge.updated"]);
    assert_eq!(stage.post(&format!("{}/close", path(&second)), "").await.status, 400);

    let (_, third) = disputed(&stage, "pm_card_createDispute").await;
    stage.handle.control().advance(Duration::from_secs(9 * 24 * 60 * 60));
    let lapsed = stage.get(&path(&third)).await;
    assert_eq!(
        (lapsed.text("/status"), &lapsed.body["evidence_details"]["past_due"]),
        ("lost", &json!(true))
    );
    let form = format!("charge={}", third["charge"].as_str().unwrap());
    assert_eq!(stage.post("/v1/refunds", &form).await.text("/error/code"), "charge_disputed");
}

#[tokio::test]
async fn an_escalated_inquiry_becomes_a_chargeback() {
    let stage = Stage::new().await;
    let (_, dispute) = disputed(&stage, "pm_card_createDisputeInquiry").await;
    let sent = stage.post(&path(&dispute), "evidence[uncategorized_text]=escalate_inquiry_evidence").await;
    assert_eq!(sent.text("/status"), "warning_under_review");
    decided(&stage);
    let escalated = stage.get(&path(&dispute)).await;
    assert_eq!(escalated.text("/status"), "needs_response");
    assert_eq!(escalated.text("/payment_method_details/card/case_type"), "chargeback");
    assert_eq!(escalated.body["balance_transactions"][0]["net"], json!(-7500));
    assert_eq!(tail(&stage, 2).await, ["charge.dispute.updated", "charge.dispute.funds_withdrawn"]);

    let (_, other) = disputed(&stage, "pm_card_createDisputeInquiry").await;
    stage.post(&path(&other), "evidence[uncategorized_text]=losing_evidence").await;
    decided(&stage);
    assert_eq!(stage.get(&path(&other)).await.text("/status"), "warning_closed");
}

#[tokio::test]
async fn drafts_merge_field_by_field_and_go_out_once() {
    let stage = Stage::new().await;
    let (_, dispute) = disputed(&stage, "pm_card_createDispute").await;
    let path = path(&dispute);
    stage.post(&path, "submit=false&evidence[product_description]=a+hat&evidence[customer_name]=A").await;
    let draft = stage.post(&path, "submit=false&evidence[customer_name]=B").await;
    assert_eq!(draft.text("/status"), "needs_response");
    assert_eq!(draft.body["evidence_details"]["has_evidence"], json!(true));
    assert_eq!(draft.body["evidence_details"]["submission_count"], json!(0));
    assert_eq!(
        (draft.text("/evidence/product_description"), draft.text("/evidence/customer_name")),
        ("a hat", "B")
    );
    let noted = stage.post(&path, "metadata[a]=b").await;
    assert_eq!((noted.text("/status"), noted.text("/metadata/a")), ("needs_response", "b"));
    let event = stage.get("/v1/events?type=charge.dispute.updated&limit=1").await;
    assert_eq!(event.body["data"][0]["data"]["previous_attributes"], json!({"metadata": {"a": null}}));
    let cleared = stage.post(&path, "submit=false&evidence[customer_name]=").await;
    assert_eq!(cleared.body["evidence"]["customer_name"], Value::Null);
    let sent = stage.post(&path, "submit=true").await;
    assert_eq!((sent.text("/status"), sent.text("/evidence/product_description")), ("under_review", "a hat"));
    decided(&stage);
    assert_eq!(stage.get(&path).await.text("/status"), "under_review", "only the known texts decide");
    for (path, form) in [(path.clone(), "evidence[customer_name]=C"), (format!("{path}/close"), "")] {
        assert_eq!(stage.post(&path, form).await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn one_bad_field_refuses_the_whole_update() {
    let stage = Stage::new().await;
    let (_, dispute) = disputed(&stage, "pm_card_createDispute").await;
    let long = format!("evidence[customer_name]={}", "x".repeat(5_001));
    let compliance = "evidence[enhanced_evidence][visa_compliance][fee_acknowledged]=true";
    for (bad, param) in [
        ("evidence[receipt]=file_none", "evidence[receipt]"),
        (long.as_str(), "evidence[customer_name]"),
        ("evidence[colour]=red", "evidence[colour]"),
        (compliance, "evidence[enhanced_evidence][visa_compliance]"),
        ("intended_submission_method=smart_disputes", "intended_submission_method"),
        ("intended_submission_method=telepathy", "intended_submission_method"),
    ] {
        let form = format!("evidence[product_description]=a+hat&{bad}");
        let refused = stage.post(&path(&dispute), &form).await;
        assert_eq!((refused.status, refused.text("/error/param")), (400, param), "{bad}");
    }
    let long = "y".repeat(20_000);
    let texts = [
        "access_activity_log",
        "cancellation_policy_disclosure",
        "cancellation_rebuttal",
        "duplicate_charge_explanation",
        "product_description",
        "refund_policy_disclosure",
        "refund_refusal_explanation",
        "uncategorized_text",
    ];
    let all: Vec<_> = texts.iter().map(|name| format!("evidence[{name}]={long}")).collect();
    let refused = stage.post(&path(&dispute), &all.join("&")).await;
    assert_eq!((refused.status, refused.text("/error/param")), (400, "evidence"));
    let same = stage.get(&path(&dispute)).await;
    assert_eq!(same.body, dispute);
    let unknown = stage.get("/v1/disputes/du_none").await;
    assert_eq!((unknown.status, unknown.text("/error/param")), (404, "dispute"));
}

#[tokio::test]
async fn eligible_disputes_take_enhanced_evidence() {
    let stage = Stage::new().await;
    let (_, visa) = disputed(&stage, "pm_card_createComplianceDispute").await;
    assert_eq!(
        (&visa["reason"], &visa["enhanced_eligibility_types"]),
        (&json!("noncompliant"), &json!(["visa_compliance"]))
    );
    let form = "submit=false&evidence[enhanced_evidence][visa_compliance][fee_acknowledged]=true";
    let acknowledged = stage.post(&path(&visa), form).await;
    let status = "/evidence_details/enhanced_eligibility/visa_compliance/status";
    assert_eq!(acknowledged.text(status), "fee_acknowledged");

    let (_, dispute) = disputed(&stage, "pm_card_createCe3EligibleDispute").await;
    let missing = &dispute["evidence_details"]["enhanced_eligibility"]["visa_compelling_evidence_3"];
    assert_eq!(missing["status"], "requires_action");
    assert_eq!(missing["required_actions"].as_array().unwrap().len(), 4);
    let pay = "amount=100&currency=usd&confirm=true&payment_method=pm_card_visa";
    let mut form = "submit=false".to_owned();
    let at = "evidence[enhanced_evidence][visa_compelling_evidence_3]";
    for (field, value) in [
        ("customer_purchase_ip", "1.2.3.4"),
        ("product_description", "hat"),
        ("merchandise_or_services", "merchandise"),
    ] {
        form.push_str(&format!("&{at}[disputed_transaction][{field}]={value}"));
    }
    for n in 0..2 {
        let charge = stage.post("/v1/payment_intents", pay).await.text("/latest_charge").to_owned();
        let prior = format!("{at}[prior_undisputed_transactions][{n}]");
        form.push_str(&format!("&{prior}[charge]={charge}&{prior}[product_description]=hat"));
        if n == 0 {
            let refused = stage.post(&path(&dispute), &form).await;
            assert_eq!(
                (refused.status, refused.text("/error/param")),
                (400, format!("{at}[prior_undisputed_transactions]").as_str())
            );
        }
    }
    let qualified = stage.post(&path(&dispute), &form).await;
    let details = &qualified.body["evidence_details"]["enhanced_eligibility"]["visa_compelling_evidence_3"];
    assert_eq!(details, &json!({"required_actions": [], "status": "qualified"}), "{}", qualified.body);

    let (_, smart) = disputed(&stage, "pm_card_createAutoRepresentmentEligibleDispute").await;
    let chosen = stage.post(&path(&smart), "intended_submission_method=smart_disputes").await;
    assert_eq!(chosen.text("/intended_submission_method"), "smart_disputes");
}

#[tokio::test]
async fn several_disputes_share_the_amount_of_one_charge() {
    let stage = Stage::new().await;
    let (intent, _) = disputed(&stage, "pm_card_createMultipleDisputes").await;
    let charge = intent.text("/latest_charge");
    let list = stage.get(&format!("/v1/disputes?charge={charge}&expand[]=data.charge")).await;
    let amounts: Vec<_> =
        list.body["data"].as_array().unwrap().iter().map(|one| one["amount"].clone()).collect();
    assert_eq!(amounts, [json!(3000), json!(3000)]);
    assert_eq!(list.text("/data/0/charge/id"), charge);
    let filtered = stage.get("/v1/disputes?charge=ch_none").await;
    assert_eq!((filtered.status, filtered.text("/error/param")), (400, "charge"));
}
