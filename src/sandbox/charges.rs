//! Charges: how one looks, and the endpoints that read and annotate them. It must not decide whether one succeeds.
//! Source: <https://docs.stripe.com/api/charges>.

use serde_json::{Value, json};

use super::cards::{Card, Decline};
use super::customers::{self, ADDRESS};
use super::error::Error;
use super::object::{self, Object, int, merge, or_null, set, sub, text};
use super::routes::{Call, LIST, Route, get, list, post};
use super::state::State;
use super::{page, search};

pub(super) const ROUTES: &[Route] = &[
    list("/v1/charges", "charge", &[LIST, "customer payment_intent transfer_group"], all),
    list("/v1/charges/search", "charge", &[search::PARAMS], find),
    get("/v1/charges/{id}", "charge", &[], show),
    post(
        "/v1/charges/{id}",
        "charge",
        &[
            "customer description:40000 fraud_details{user_report:fraudulent|safe} metadata:metadata",
            "receipt_email transfer_group shipping{name! phone carrier tracking_number address!{",
            ADDRESS,
            "}}",
        ],
        update,
    ),
];

/// A new charge of a PaymentIntent; `decline` makes it a failed one. The caller stores it.
pub(super) fn build(
    state: &mut State,
    intent: &Object,
    method: &Object,
    card: &Card,
    decline: Option<&Decline>,
) -> Object {
    let id = state.new_id("ch");
    let amount = int(intent, "amount");
    let paid = decline.is_none();
    let captured = paid && text(intent, "capture_method") != "manual";
    let receipt = state.random(24);
    let mut charge = object::from(json!({
        "id": id, "object": "charge", "amount": amount, "amount_captured": if captured { amount } else { 0 },
        "amount_refunded": 0, "application": null, "application_fee": null, "application_fee_amount": null,
        "balance_transaction": null, "billing_details": or_null(method, "billing_details"),
        "calculated_statement_descriptor": "SANDBOX", "captured": captured, "created": state.now(),
        "currency": or_null(intent, "currency"), "customer": or_null(intent, "customer"),
        "description": or_null(intent, "description"), "disputed": false, "failure_balance_transaction": null,
        "failure_code": decline.map(|decline| decline.code),
        "failure_message": decline.map(|decline| decline.message), "fraud_details": {}, "livemode": false,
        "metadata": or_null(intent, "metadata"), "on_behalf_of": null,
    }));
    charge.extend(object::from(json!({
        "outcome": outcome(card, decline), "paid": paid,
        "payment_intent": or_null(intent, "id"), "payment_method": or_null(method, "id"),
        "payment_method_details": {"card": card_details(method, amount, card), "type": "card"},
        "radar_options": {}, "receipt_email": or_null(intent, "receipt_email"), "receipt_number": null,
        "receipt_url": format!("https://pay.stripe.com/receipts/payment/{receipt}"), "refunded": false, "review": null,
        "shipping": or_null(intent, "shipping"), "source": null, "source_transfer": null,
        "statement_descriptor": or_null(intent, "statement_descriptor"),
        "statement_descriptor_suffix": or_null(intent, "statement_descriptor_suffix"),
        "status": if paid { "succeeded" } else { "failed" }, "transfer_data": null,
        "transfer_group": or_null(intent, "transfer_group"),
        "_card": card.name,
    })));
    charge
}

fn outcome(card: &Card, decline: Option<&Decline>) -> Value {
    let (level, score) = card.risk();
    let (status, reason, seller, kind) = match decline {
        None => ("approved_by_network", Value::Null, "Payment complete.", "authorized"),
        Some(decline) if decline.blocked => (
            "not_sent_to_network",
            json!("highest_risk_level"),
            "Stripe blocked this payment as too risky.",
            "blocked",
        ),
        Some(decline) => (
            "declined_by_network",
            json!(decline.decline_code),
            "The bank returned the decline code shown in the reason.",
            "issuer_declined",
        ),
    };
    let advice = decline.map(|decline| decline.advice).filter(|advice| !advice.is_empty());
    json!({
        "advice_code": advice, "network_advice_code": null, "network_decline_code": null, "network_status": status,
        "reason": reason, "risk_level": level, "risk_score": score, "seller_message": seller, "type": kind,
    })
}

fn card_details(method: &Object, amount: i64, card: &Card) -> Value {
    let mut details = object::from(json!({
        "amount_authorized": amount, "authorization_code": "123456",
        "extended_authorization": {"status": "disabled"}, "incremental_authorization": {"status": "unavailable"},
        "installments": null, "mandate": null, "multicapture": {"status": "unavailable"}, "network": card.brand(),
        "network_token": {"used": false}, "network_transaction_id": "104102000000000",
        "overcapture": {"maximum_amount_capturable": amount, "status": "unavailable"}, "three_d_secure": null,
        "wallet": null,
    }));
    if let Some(own) = sub(method, "card") {
        let names =
            ["brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4"];
        set(&mut details, own, &names);
        set(&mut details, own, &["regulated_status"]);
    }
    Value::Object(details)
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("charge", call.id(0)).cloned().map(Value::Object)
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    for (param, kind) in [("customer", "customer"), ("payment_intent", "payment_intent")] {
        let id = text(&call.params, param);
        if !id.is_empty() {
            call.state.named(kind, id, param)?;
        }
    }
    page::list(call, "charge", |charge, params| {
        page::equal(charge, params, &["customer", "payment_intent", "transfer_group"])
    })
}

fn find(call: &mut Call<'_>) -> Result<Value, Error> {
    search::run(call, "charge")
}

fn update(call: &mut Call<'_>) -> Result<Value, Error> {
    let charge = call.state.find("charge", call.id(0))?;
    let customer = text(&call.params, "customer");
    if !customer.is_empty() {
        if !text(charge, "customer").is_empty() {
            return Err(Error::state("The charge has a customer already.").param("customer"));
        }
        customers::named(call.state, customer, "customer")?;
    }
    let params = &call.params;
    let charge = call.state.update("charge", call.id(0), "charge.updated", |charge| {
        set(charge, params, &["customer", "description", "receipt_email", "shipping", "transfer_group"]);
        merge(charge, params, "metadata");
        merge(charge, params, "fraud_details");
    });
    Ok(Value::Object(charge))
}
