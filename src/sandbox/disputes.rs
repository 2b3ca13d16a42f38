//! Disputes: the endpoints. It must not decide outcomes, nor move money.
//! Source: <https://docs.stripe.com/api/disputes>.

mod evidence;
mod opening;
mod outcome;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use super::error::Error;
use super::object::{Object, flag, merge, set, text};
use super::page;
use super::routes::{Call, LIST, Route, get, list, post};
use super::state::State;

pub(super) use self::opening::open_for;
pub(super) use self::outcome::{decide, lapse};

pub(super) const ROUTES: &[Route] = &[
    list("/v1/disputes", "dispute", &[LIST, "charge payment_intent"], all),
    get("/v1/disputes/{id}", "dispute", &[], show),
    post(
        "/v1/disputes/{id}",
        "dispute",
        &[
            "submit:bool metadata:metadata",
            "intended_submission_method:manual|prefer_manual|prefer_smart_disputes|smart_disputes",
            evidence::SHAPE,
        ],
        update,
    ),
    post("/v1/disputes/{id}/close", "dispute", &[], close),
];

/// Whether a dispute of the charge forbids refunds: a chargeback that is open or lost.
pub(super) fn bars_refunds(state: &State, charge: &str) -> bool {
    state
        .all("dispute")
        .any(|dispute| text(dispute, "charge") == charge && !flag(dispute, "is_charge_refundable"))
}

/// Nothing can change any more.
fn closed(dispute: &Object) -> bool {
    matches!(text(dispute, "status"), "won" | "lost" | "warning_closed" | "prevented")
}

/// The bank waits for the account's answer.
fn answerable(dispute: &Object) -> bool {
    matches!(text(dispute, "status"), "needs_response" | "warning_needs_response")
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("dispute", call.id(0)).cloned().map(Value::Object)
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    for kind in ["charge", "payment_intent"] {
        if let Some(id) = call.params.get(kind).and_then(Value::as_str) {
            call.state.named(kind, id, kind)?;
        }
    }
    page::list(call, "dispute", |dispute, params| page::equal(dispute, params, &["charge", "payment_intent"]))
}

/// The dispute, unless it is closed.
fn open(state: &State, id: &str) -> Result<Object, Error> {
    let dispute = state.find("dispute", id)?;
    if closed(dispute) {
        return Err(Error::state("This dispute is already closed"));
    }
    Ok(dispute.clone())
}

fn update(call: &mut Call<'_>) -> Result<Value, Error> {
    let dispute = open(call.state, call.id(0))?;
    let params = &call.params;
    let given = params.get("evidence").is_some_and(|evidence| !evidence.is_null());
    // Evidence goes to the bank unless the caller says that it is a draft.
    let submit = params.get("submit").and_then(Value::as_bool).unwrap_or(given);
    if (given || submit) && !answerable(&dispute) {
        let message = "Evidence has already been submitted for this dispute; the bank is reviewing it.";
        return Err(Error::state(message));
    }
    let merged = evidence::merged(call.state, &dispute, params)?;
    check_method(&dispute, params)?;
    let submit = submit && evidence::any(&merged);
    let change = |dispute: &mut Object| {
        if given {
            dispute.insert("evidence".to_owned(), Value::Object(merged));
            evidence::assess(dispute);
        }
        set(dispute, params, &["intended_submission_method"]);
        merge(dispute, params, "metadata");
        if submit {
            outcome::submit(dispute);
        }
    };
    let dispute = call.state.update("dispute", call.id(0), "charge.dispute.updated", change);
    if submit {
        outcome::submitted(call.state, &dispute);
    }
    Ok(Value::Object(dispute))
}

/// Smart Disputes answer only where Stripe offers them.
fn check_method(dispute: &Object, params: &Object) -> Result<(), Error> {
    if text(params, "intended_submission_method") == "smart_disputes" && !flag(dispute, "_smart") {
        let message = "Smart Disputes is not available for this dispute.";
        let error = Error::state(message).code("smart_disputes_not_available");
        return Err(error.param("intended_submission_method"));
    }
    Ok(())
}

fn close(call: &mut Call<'_>) -> Result<Value, Error> {
    let dispute = open(call.state, call.id(0))?;
    if !answerable(&dispute) {
        let message = "Evidence has already been submitted for this dispute, so it cannot be closed.";
        return Err(Error::state(message));
    }
    let status = if outcome::inquiry(&dispute) { "warning_closed" } else { "lost" };
    let dispute = outcome::end(call.state, call.id(0), status);
    touch_charge(call.state, &dispute);
    Ok(Value::Object(dispute))
}

/// Stripe tells of the charge as well, although none of its own fields changed.
fn touch_charge(state: &mut State, dispute: &Object) {
    let charge = state.get("charge", text(dispute, "charge")).cloned().unwrap_or_default();
    state.append("charge.updated", &charge, Some(Object::new()));
}

/// The dispute's own details of its evidence.
fn details(dispute: &mut Object, change: impl FnOnce(&mut Object)) {
    let details = dispute.entry("evidence_details").or_insert_with(|| json!({}));
    if let Some(details) = details.as_object_mut() {
        change(details);
    }
}
