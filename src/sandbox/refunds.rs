//! Refunds: the endpoints. It must not decide what may be refunded, nor move money.
//! Source: <https://docs.stripe.com/api/refunds>.

mod cash;
mod check;
mod settle;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use super::error::Error;
use super::object::{self, Object, merge, or_null, text};
use super::page;
use super::routes::{Call, LIST, Route, get, list, post};
use super::state::State;

pub(super) use self::settle::{expire, fail, reference, succeed};

/// What every way to create a refund takes.
const FIELDS: &str = "amount:positive reason:duplicate|fraudulent|requested_by_customer refund_application_fee:bool \
    reverse_transfer:bool instructions_email metadata:metadata";

/// Events that tell of a changed refund: <https://docs.stripe.com/api/events/types>.
const UPDATED: &[&str] = &["refund.updated", "charge.refund.updated"];

pub(super) const ROUTES: &[Route] = &[
    post(
        "/v1/refunds",
        "refund",
        &[FIELDS, "charge payment_intent origin:customer_balance customer currency"],
        create,
    ),
    list("/v1/refunds", "refund", &[LIST, "charge payment_intent"], all),
    get("/v1/refunds/{id}", "refund", &[], show),
    post("/v1/refunds/{id}", "refund", &["metadata:metadata"], update),
    post("/v1/refunds/{id}/cancel", "refund", &[], cancel),
    post("/v1/test_helpers/refunds/{id}/expire", "refund", &[], expire_now),
    // The older spellings, which go by the charge.
    post("/v1/charges/{id}/refund", "charge", &[FIELDS], create_of_charge),
    post("/v1/charges/{id}/refunds", "refund", &[FIELDS], create_by_charge),
    list("/v1/charges/{id}/refunds", "refund", &[LIST], all_of_charge),
    get("/v1/charges/{id}/refunds/{id}", "refund", &[], show_of_charge),
];

fn create(call: &mut Call<'_>) -> Result<Value, Error> {
    if call.params.get("origin").is_some_and(Value::is_string) {
        return cash::create(call);
    }
    let charge = check::charge_named(call.state, &call.params)?;
    refund(call.state, &charge, &call.params).map(Value::Object)
}

fn create_by_charge(call: &mut Call<'_>) -> Result<Value, Error> {
    let charge = call.state.find("charge", call.id(0))?.clone();
    refund(call.state, &charge, &call.params).map(Value::Object)
}

fn create_of_charge(call: &mut Call<'_>) -> Result<Value, Error> {
    create_by_charge(call)?;
    call.state.find("charge", call.id(0)).cloned().map(Value::Object)
}

/// Refunds a charge, wholly or in part.
fn refund(state: &mut State, charge: &Object, params: &Object) -> Result<Object, Error> {
    let amount = check::amount(state, charge, params)?;
    let start = settle::start(state, charge, amount);
    let mut refund = object::from(json!({
        "id": state.new_id("re"), "object": "refund", "amount": amount, "balance_transaction": null,
        "charge": text(charge, "id"), "created": state.now(), "currency": text(charge, "currency"),
        "customer": or_null(charge, "customer"), "customer_account": null,
        "destination_details": settle::destination(state, charge, amount, &start), "metadata": {},
        "payment_intent": or_null(charge, "payment_intent"), "payment_method": or_null(charge, "payment_method"),
        "reason": or_null(params, "reason"), "receipt_number": null, "source_transfer_reversal": null,
        "status": start.status, "transfer_reversal": null,
    }));
    merge(&mut refund, params, "metadata");
    if text(params, "reason") == "fraudulent" {
        state.change("charge", text(charge, "id"), |charge| {
            charge.insert("fraud_details".to_owned(), json!({"user_report": "fraudulent"}));
        });
    }
    Ok(settle::begin(state, refund, charge, &start))
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("refund", call.id(0)).cloned().map(Value::Object)
}

fn show_of_charge(call: &mut Call<'_>) -> Result<Value, Error> {
    let refund = call.state.find("refund", call.id(1))?;
    if text(refund, "charge") != call.id(0) {
        return Err(Error::not_found("refund", call.id(1)));
    }
    Ok(Value::Object(refund.clone()))
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    for kind in ["charge", "payment_intent"] {
        if let Some(id) = call.params.get(kind).and_then(Value::as_str) {
            call.state.named(kind, id, kind)?;
        }
    }
    page::list(call, "refund", |refund, params| page::equal(refund, params, &["charge", "payment_intent"]))
}

fn all_of_charge(call: &mut Call<'_>) -> Result<Value, Error> {
    let charge = call.id(0);
    call.state.find("charge", charge)?;
    page::list(call, "refund", |refund, _| text(refund, "charge") == charge)
}

fn update(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("refund", call.id(0))?;
    let params = &call.params;
    let refund =
        call.state.update_as("refund", call.id(0), UPDATED, |refund| merge(refund, params, "metadata"));
    Ok(Value::Object(refund))
}

fn cancel(call: &mut Call<'_>) -> Result<Value, Error> {
    let refund = call.state.find("refund", call.id(0))?;
    if !matches!(text(refund, "status"), "requires_action" | "pending") {
        return Err(Error::state("Canceling this refund is unsupported."));
    }
    Ok(Value::Object(settle::undo(call.state, call.id(0), "canceled", "merchant_request")))
}

fn expire_now(call: &mut Call<'_>) -> Result<Value, Error> {
    let refund = call.state.find("refund", call.id(0))?;
    if text(refund, "status") != "requires_action" {
        let message = "Only refunds with a status of `requires_action` can be expired.";
        return Err(Error::state(message));
    }
    Ok(Value::Object(expire(call.state, call.id(0))))
}

/// The sandbox's own key of a charge for what refunds have taken or are about to take of it, in minor units.
const CLAIMED: &str = "_refunds_claim";
