//! What may be refunded, and how much: the refusals Stripe gives, in its order and words where they are known. It must
//! not change anything.

use serde_json::Value;

use super::CLAIMED;
use crate::sandbox::error::Error;
use crate::sandbox::object::{Object, flag, int, text};
use crate::sandbox::state::State;
use crate::sandbox::{amount, disputes};

/// The charge a create call means.
pub(super) fn charge_named(state: &State, params: &Object) -> Result<Object, Error> {
    let given = |key: &str| params.get(key).and_then(Value::as_str);
    match (given("charge"), given("payment_intent")) {
        (Some(_), Some(_)) => {
            let message = "You may only specify one of these parameters: charge, payment_intent.";
            Err(Error::invalid(message).code("parameters_exclusive").param("payment_intent"))
        }
        (None, None) => Err(Error::invalid(
            "One of the following params should be provided for this request: payment_intent or charge.",
        )),
        (Some(id), None) => state.find("charge", id).cloned(),
        (None, Some(id)) => {
            let intent = state.find("payment_intent", id)?;
            let charge = state.get("charge", text(intent, "latest_charge"));
            charge
                .filter(|charge| text(charge, "status") == "succeeded")
                .cloned()
                .ok_or_else(|| no_charge(id))
        }
    }
}

fn no_charge(intent: &str) -> Error {
    Error::state(format!("This PaymentIntent ({intent}) does not have a successful charge to refund."))
}

/// The amount to refund in minor units: what was asked for, or the rest.
pub(super) fn amount(state: &State, charge: &Object, params: &Object) -> Result<i64, Error> {
    let id = text(charge, "id");
    let intent = text(charge, "payment_intent");
    if text(charge, "status") != "succeeded" {
        return Err(no_charge(intent));
    }
    if !flag(charge, "captured") {
        return Err(Error::state(format!(
            "This uncaptured Charge was created by a PaymentIntent ({intent}). You must cancel the PaymentIntent to \
             reverse the authorization instead of refunding the Charge directly."
        )));
    }
    if flag(charge, "disputed") && disputes::bars_refunds(state, id) {
        let message = format!("Charge {id} has been charged back; cannot issue a refund.");
        return Err(Error::state(message).code("charge_disputed"));
    }
    let rest = int(charge, "amount_captured") - int(charge, CLAIMED);
    if rest <= 0 {
        let message = format!("Charge {id} has already been refunded.");
        return Err(Error::state(message).code("charge_already_refunded"));
    }
    let asked = params.get("amount").and_then(Value::as_i64).unwrap_or(rest);
    if asked > rest {
        let shown = |minor| amount::shown(minor, text(charge, "currency"));
        return Err(Error::state(format!(
            "Refund amount ({}) is greater than unrefunded amount on charge ({})",
            shown(asked),
            shown(rest)
        ))
        .param("amount"));
    }
    for (param, needs) in [("refund_application_fee", "application fee"), ("reverse_transfer", "transfer")] {
        if flag(params, param) {
            return Err(Error::state(format!("Charge {id} has no {needs} to return.")).param(param));
        }
    }
    Ok(asked)
}
