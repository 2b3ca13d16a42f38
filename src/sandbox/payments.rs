//! What confirming, capturing and cancelling a PaymentIntent does: charge, money, events, by the test card. It must not
//! read requests.
//! Source: <https://docs.stripe.com/payments/paymentintents/lifecycle>.

use std::time::Duration;

use serde_json::{Value, json};

use super::cards::{self, Card, Decline, Outcome};
use super::error::Error;
use super::money::{self, PENDING, Posting};
use super::object::{self, Object, flag, int, text};
use super::state::State;
use super::{charges, disputes, payment_methods, warnings};

/// The customary price of a card payment: 2.9 % and 30 minor units.
const FEE_PER_MILLE: i64 = 29;
const FEE_FIXED: i64 = 30;

/// How the caller wants a confirmation to go.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Confirm {
    /// The customer is not there to authenticate.
    pub(super) off_session: bool,
    /// Needing the customer is an error.
    pub(super) error_on_requires_action: bool,
}

/// Confirms a PaymentIntent that has a payment method. A decline is recorded and returned as an error.
pub(super) fn confirm(state: &mut State, id: &str, how: Confirm) -> Result<Object, Error> {
    let intent = state.find("payment_intent", id)?.clone();
    let method = state.named("payment_method", text(&intent, "payment_method"), "payment_method")?.clone();
    let (card, _) = cards::template(text(&method, "_card"))
        .ok_or_else(|| Error::state("The payment method cannot be charged."))?;
    match card.outcome {
        Outcome::Succeeds => Ok(succeed(state, &intent, &method, card)),
        Outcome::Declines(decline) => Err(refuse(state, &intent, &method, card, &decline)),
        Outcome::Authenticates { once } if once && how.off_session && flag(&method, "_set_up") => {
            Ok(succeed(state, &intent, &method, card))
        }
        Outcome::Authenticates { .. } if how.off_session || how.error_on_requires_action => {
            let decline = Decline {
                code: "authentication_required",
                decline_code: "authentication_required",
                message: "The customer must authenticate this payment.",
                advice: "",
                attaches: true,
                blocked: false,
            };
            Err(refuse(state, &intent, &method, card, &decline))
        }
        Outcome::Authenticates { .. } => {
            let url = format!("https://hooks.stripe.com/3d_secure_2/hosted?payment_intent={id}");
            let intent = state.change("payment_intent", id, |intent| {
                intent.insert("status".to_owned(), json!("requires_action"));
                let action =
                    json!({"redirect_to_url": {"return_url": null, "url": url}, "type": "redirect_to_url"});
                intent.insert("next_action".to_owned(), action);
            });
            state.emit("payment_intent.requires_action", &intent);
            Ok(intent)
        }
    }
}

/// The customer's answer to `requires_action`: authenticated, or not.
pub(super) fn authenticate(state: &mut State, id: &str, passed: bool) -> Result<Object, Error> {
    let intent = state.find("payment_intent", id)?.clone();
    if text(&intent, "status") != "requires_action" {
        return Err(unexpected(&intent, "authenticated"));
    }
    let method = state.named("payment_method", text(&intent, "payment_method"), "payment_method")?.clone();
    if passed {
        let (card, _) = cards::template(text(&method, "_card"))
            .ok_or_else(|| Error::state("The payment method cannot be charged."))?;
        state.change("payment_method", text(&method, "id"), |method| {
            method.insert("_set_up".to_owned(), json!(true));
        });
        return Ok(succeed(state, &intent, &method, card));
    }
    let message = "The customer did not pass authentication.";
    let error = Error::card("payment_intent_authentication_failure", None, message);
    Ok(fail(state, id, None, &method, &error))
}

fn succeed(state: &mut State, intent: &Object, method: &Object, card: &Card) -> Object {
    let id = text(intent, "id");
    let charge = charges::build(state, intent, method, card, None);
    let charge_id = text(&charge, "id").to_owned();
    state.insert(charge);
    if text(method, "customer").is_empty() {
        state.change("payment_method", text(method, "id"), |method| {
            method.insert("_spent".to_owned(), json!(true));
        });
    }
    let manual = text(intent, "capture_method") == "manual";
    let amount = int(intent, "amount");
    if !manual {
        settle(state, &charge_id, amount);
    }
    let charge = state.get("charge", &charge_id).cloned().unwrap_or_default();
    state.emit("charge.succeeded", &charge);
    let finish = |intent: &mut Object| {
        let (status, received, capturable) =
            if manual { ("requires_capture", 0, amount) } else { ("succeeded", amount, 0) };
        intent.insert("status".to_owned(), json!(status));
        intent.insert("amount_received".to_owned(), json!(received));
        intent.insert("amount_capturable".to_owned(), json!(capturable));
        intent.insert("latest_charge".to_owned(), json!(charge_id));
        intent.insert("next_action".to_owned(), Value::Null);
        intent.insert("last_payment_error".to_owned(), Value::Null);
    };
    let intent = state.change("payment_intent", id, finish);
    if manual {
        state.emit("payment_intent.amount_capturable_updated", &intent);
    } else {
        after_effects(state, &charge_id, card.name);
        state.emit("payment_intent.succeeded", &intent);
    }
    intent
}

/// Books the money of a captured charge.
fn settle(state: &mut State, charge: &str, amount: i64) {
    let Some(found) = state.get("charge", charge) else { return };
    let (currency, card) = (text(found, "currency").to_owned(), text(found, "_card").to_owned());
    let description = text(found, "description").to_owned();
    let fee = (amount.saturating_mul(FEE_PER_MILLE).saturating_add(500)) / 1_000 + FEE_FIXED;
    let pending = if card.starts_with("pm_card_bypassPending") { Duration::ZERO } else { PENDING };
    let posting = Posting {
        kind: "charge",
        category: "charge",
        amount,
        currency: &currency,
        fee: Some((fee, "Stripe processing fees")),
        source: charge,
        description: (!description.is_empty()).then_some(&description),
        pending,
    };
    let transaction = money::post(state, &posting);
    state.change("charge", charge, |charge| {
        charge.insert("balance_transaction".to_owned(), json!(transaction));
        charge.insert("captured".to_owned(), json!(true));
        charge.insert("amount_captured".to_owned(), json!(amount));
    });
}

/// What the issuer does after a successful charge, by the card.
fn after_effects(state: &mut State, charge: &str, card: &str) {
    disputes::open_for(state, charge, card);
    if card == "pm_card_createIssuerFraudRecord" {
        warnings::open(state, charge);
    }
}

/// Records a declined attempt and answers the error that tells of it.
fn refuse(state: &mut State, intent: &Object, method: &Object, card: &Card, decline: &Decline) -> Error {
    let charge = charges::build(state, intent, method, card, Some(decline));
    let charge_id = text(&charge, "id").to_owned();
    state.insert(charge.clone());
    state.emit("charge.failed", &charge);
    let mut error = Error::card(decline.code, Some(decline.decline_code), decline.message)
        .with("charge", json!(charge_id));
    if !decline.advice.is_empty() {
        error = error.with("advice_code", json!(decline.advice));
    }
    let intent = fail(state, text(intent, "id"), Some(&charge_id), method, &error);
    error.with("payment_intent", Value::Object(intent)).with("payment_method", Value::Object(method.clone()))
}

/// Sends the PaymentIntent back to `requires_payment_method` with the error it met.
fn fail(state: &mut State, id: &str, charge: Option<&str>, method: &Object, error: &Error) -> Object {
    let mut last = error.body.clone();
    last.insert("payment_method".to_owned(), Value::Object(method.clone()));
    let intent = state.change("payment_intent", id, |intent| {
        intent.insert("status".to_owned(), json!("requires_payment_method"));
        intent.insert("payment_method".to_owned(), Value::Null);
        intent.insert("next_action".to_owned(), Value::Null);
        intent.insert("last_payment_error".to_owned(), Value::Object(last));
        if let Some(charge) = charge {
            intent.insert("latest_charge".to_owned(), json!(charge));
        }
    });
    state.emit("payment_intent.payment_failed", &intent);
    intent
}

/// Captures what was authorised, or part of it; the rest is released.
pub(super) fn capture(state: &mut State, id: &str, amount: Option<i64>) -> Result<Object, Error> {
    let intent = state.find("payment_intent", id)?.clone();
    if text(&intent, "status") != "requires_capture" {
        return Err(unexpected(&intent, "captured"));
    }
    let capturable = int(&intent, "amount_capturable");
    let amount = amount.unwrap_or(capturable);
    if amount > capturable {
        let message =
            format!("The amount to capture, {amount}, is more than the {capturable} that can be captured.");
        return Err(Error::state(message).code("amount_too_large").param("amount_to_capture"));
    }
    let charge_id = text(&intent, "latest_charge").to_owned();
    settle(state, &charge_id, amount);
    let charge = state.get("charge", &charge_id).cloned().unwrap_or_default();
    state.emit("charge.captured", &charge);
    after_effects(state, &charge_id, text(&charge, "_card"));
    let intent = state.change("payment_intent", id, |intent| {
        intent.insert("status".to_owned(), json!("succeeded"));
        intent.insert("amount_received".to_owned(), json!(amount));
        intent.insert("amount_capturable".to_owned(), json!(0));
    });
    state.emit("payment_intent.succeeded", &intent);
    Ok(intent)
}

/// Cancels a PaymentIntent that has not taken money; an authorisation is released.
pub(super) fn cancel(state: &mut State, id: &str, reason: &Value) -> Result<Object, Error> {
    let intent = state.find("payment_intent", id)?.clone();
    let status = text(&intent, "status");
    if matches!(status, "succeeded" | "canceled") {
        return Err(unexpected(&intent, "canceled"));
    }
    if status == "requires_capture" {
        let charge = state.change("charge", text(&intent, "latest_charge"), |charge| {
            charge.insert("amount_refunded".to_owned(), charge.get("amount").cloned().unwrap_or_default());
            charge.insert("refunded".to_owned(), json!(true));
        });
        state.emit("charge.refunded", &charge);
    }
    let now = state.now();
    let intent = state.change("payment_intent", id, |intent| {
        intent.insert("status".to_owned(), json!("canceled"));
        intent.insert("canceled_at".to_owned(), json!(now));
        intent.insert("cancellation_reason".to_owned(), reason.clone());
        intent.insert("amount_capturable".to_owned(), json!(0));
        intent.insert("next_action".to_owned(), Value::Null);
    });
    state.emit("payment_intent.canceled", &intent);
    Ok(intent)
}

/// The refusal of a step that the PaymentIntent's status does not allow.
pub(super) fn unexpected(intent: &Object, step: &str) -> Error {
    let status = text(intent, "status");
    let message = format!("This PaymentIntent could not be {step} because it has a status of {status}.");
    Error::state(message)
        .code("payment_intent_unexpected_state")
        .with("payment_intent", object::shown(intent))
}

/// A PaymentMethod for a PaymentIntent and its customer: usable, and not somebody else's.
pub(super) fn method_for(state: &mut State, id: &str, customer: &str) -> Result<Object, Error> {
    let method = payment_methods::resolve(state, id, "payment_method")?;
    payment_methods::usable(&method)?;
    let owner = text(&method, "customer");
    if !owner.is_empty() && owner != customer {
        let message =
            format!("The payment method belongs to the customer {owner}; name that customer as `customer`.");
        return Err(Error::state(message).param("payment_method"));
    }
    Ok(method)
}
