//! How refunds go on: money and the charge's bookkeeping at the start, and what happens later by itself. It must not
//! know the endpoints. Source: <https://docs.stripe.com/refunds>, <https://docs.stripe.com/testing#refunds>.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CLAIMED, UPDATED, cash};
use crate::sandbox::money::{self, Posting};
use crate::sandbox::object::{self, Object, int, or_null, text};
use crate::sandbox::schedule::Change;
use crate::sandbox::state::State;
use crate::sandbox::warnings;

/// How long the two asynchronous test cards take.
const SETTLES_AFTER: Duration = Duration::from_secs(10);

/// How often a refund that waits for money looks for it.
const FUNDS_LOOKED_FOR_EVERY: Duration = Duration::from_secs(60 * 60);

/// When the bank's reference number arrives; up to a week in life.
const REFERENCE_AFTER: Duration = Duration::from_secs(60);

/// Digits of an acquirer reference number.
const REFERENCE_DIGITS: usize = 23;

/// A charge returned whole within this many seconds is reversed and never reaches the statement.
const REVERSAL_SECONDS_MAX: i64 = 2 * 60 * 60;

/// How a refund begins.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) status: &'static str,
    pending_reason: Option<&'static str>,
}

/// How a refund of that charge begins: by its test card and by the money at hand.
pub(super) fn start(state: &State, charge: &Object, amount: i64) -> Start {
    let short = state.kept.money.purse(text(charge, "currency")).available < amount;
    match text(charge, "_card") {
        _ if short => Start { status: "pending", pending_reason: Some("insufficient_funds") },
        "pm_card_pendingRefund" => Start { status: "pending", pending_reason: Some("processing") },
        _ => Start { status: "succeeded", pending_reason: None },
    }
}

/// Where the money goes: back to the card, by a reversal or a refund with a reference number to come.
pub(super) fn destination(state: &State, charge: &Object, amount: i64, start: &Start) -> Value {
    let fresh = state.now() - int(charge, "created") <= REVERSAL_SECONDS_MAX;
    let card = if start.status == "pending" {
        json!({"type": "pending"})
    } else if fresh && amount == int(charge, "amount") {
        json!({"type": "reversal"})
    } else {
        referenced()
    };
    json!({"card": card, "type": "card"})
}

fn referenced() -> Value {
    json!({"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"})
}

/// Stores a new refund, moves the money it can move at once and plans the rest.
pub(super) fn begin(state: &mut State, mut refund: Object, charge: &Object, start: &Start) -> Object {
    let id = text(&refund, "id").to_owned();
    if let Some(reason) = start.pending_reason {
        refund.insert("pending_reason".to_owned(), json!(reason));
    }
    if start.pending_reason != Some("insufficient_funds") {
        withdraw(state, &mut refund);
    }
    state.insert(refund.clone());
    claim(state, text(charge, "id"), int(&refund, "amount"));
    state.emit("refund.created", &refund);
    match start.pending_reason {
        None => {
            returned(state, &refund);
            plan_reference(state, &refund);
            if text(charge, "_card") == "pm_card_refundFail" {
                state.schedule(SETTLES_AFTER, Change::RefundFails { refund: id });
            }
        }
        Some("insufficient_funds") => {
            state.schedule(FUNDS_LOOKED_FOR_EVERY, Change::RefundSucceeds { refund: id });
        }
        Some(_) => state.schedule(SETTLES_AFTER, Change::RefundSucceeds { refund: id }),
    }
    refund
}

/// Keeps others from refunding the same part of a charge; a negative amount frees it again.
fn claim(state: &mut State, charge: &str, amount: i64) {
    state.change("charge", charge, |charge| {
        let claimed = int(charge, CLAIMED) + amount;
        charge.insert(CLAIMED.to_owned(), json!(claimed));
    });
}

fn withdraw(state: &mut State, refund: &mut Object) {
    let description = format!("REFUND FOR CHARGE ({})", text(refund, "charge"));
    let transaction = money::post(
        state,
        &Posting {
            kind: "refund",
            category: "refund",
            amount: -int(refund, "amount"),
            currency: text(refund, "currency"),
            fee: None,
            source: text(refund, "id"),
            description: Some(&description),
            pending: Duration::ZERO,
        },
    );
    refund.insert("balance_transaction".to_owned(), json!(transaction));
}

/// The charge's side of a refund that succeeded.
fn returned(state: &mut State, refund: &Object) {
    let id = text(refund, "charge").to_owned();
    let charge = credit(state, &id, int(refund, "amount"));
    state.emit("charge.refunded", &charge);
    if object::flag(&charge, "refunded") {
        warnings::settle(state, &id);
    }
}

fn credit(state: &mut State, charge: &str, amount: i64) -> Object {
    state.change("charge", charge, |charge| {
        let refunded = int(charge, "amount_refunded") + amount;
        charge.insert("amount_refunded".to_owned(), json!(refunded));
        charge.insert("refunded".to_owned(), json!(refunded >= int(charge, "amount_captured")));
    })
}

fn card(refund: &Object) -> Option<&Object> {
    object::sub(refund, "destination_details").and_then(|details| object::sub(details, "card"))
}

fn plan_reference(state: &mut State, refund: &Object) {
    if card(refund).is_some_and(|card| text(card, "reference_status") == "pending") {
        let refund = text(refund, "id").to_owned();
        state.schedule(REFERENCE_AFTER, Change::RefundReferenced { refund });
    }
}

/// A pending refund goes through, if the money is there by now.
pub(in crate::sandbox) fn succeed(state: &mut State, id: &str) {
    let Some(before) = state.get("refund", id).filter(|refund| text(refund, "status") == "pending").cloned()
    else {
        return;
    };
    let mut refund = before.clone();
    if text(&before, "pending_reason") == "insufficient_funds" {
        if state.kept.money.purse(text(&before, "currency")).available < int(&before, "amount") {
            state.schedule(FUNDS_LOOKED_FOR_EVERY, Change::RefundSucceeds { refund: id.to_owned() });
            return;
        }
        withdraw(state, &mut refund);
    }
    let transaction = or_null(&refund, "balance_transaction");
    let refund = state.update_as("refund", id, UPDATED, |refund| {
        refund.insert("status".to_owned(), json!("succeeded"));
        refund.insert("balance_transaction".to_owned(), transaction);
        refund.insert("destination_details".to_owned(), json!({"card": referenced(), "type": "card"}));
        refund.shift_remove("pending_reason");
    });
    returned(state, &refund);
    plan_reference(state, &refund);
}

/// The bank returns a refund that had succeeded.
pub(in crate::sandbox) fn fail(state: &mut State, id: &str) {
    if state.get("refund", id).is_none_or(|refund| text(refund, "status") != "succeeded") {
        return;
    }
    let refund = undo(state, id, "failed", "expired_or_canceled_card");
    credit(state, text(&refund, "charge"), -int(&refund, "amount"));
    state.emit("refund.failed", &refund);
}

/// The customer did not say where the money should go.
pub(in crate::sandbox) fn expire(state: &mut State, id: &str) -> Object {
    if state.get("refund", id).is_none_or(|refund| text(refund, "status") != "requires_action") {
        return Object::new();
    }
    let refund = undo(state, id, "failed", "unknown");
    state.emit("refund.failed", &refund);
    refund
}

/// Ends a refund without effect: whatever money had left comes back.
pub(super) fn undo(state: &mut State, id: &str, status: &str, reason: &str) -> Object {
    let before = state.get("refund", id).cloned().unwrap_or_default();
    cash::put_back(state, &before);
    claim(state, text(&before, "charge"), -int(&before, "amount"));
    let back = before.get("balance_transaction").is_some_and(Value::is_string).then(|| {
        let posting = Posting {
            kind: "refund_failure",
            category: "refund_failure",
            amount: int(&before, "amount"),
            currency: text(&before, "currency"),
            fee: None,
            source: id,
            description: Some("REFUND FAILURE"),
            pending: Duration::ZERO,
        };
        money::post(state, &posting)
    });
    state.update_as("refund", id, UPDATED, |refund| {
        refund.insert("status".to_owned(), json!(status));
        refund.insert("failure_reason".to_owned(), json!(reason));
        if let Some(back) = back {
            refund.insert("failure_balance_transaction".to_owned(), json!(back));
        }
        refund.shift_remove("pending_reason");
        refund.shift_remove("next_action");
    })
}

/// The bank's reference number arrives.
pub(in crate::sandbox) fn reference(state: &mut State, id: &str) {
    if state.get("refund", id).is_none_or(|refund| text(refund, "status") != "succeeded") {
        return;
    }
    let digits: String =
        state.random(REFERENCE_DIGITS).bytes().map(|byte| char::from(b'0' + byte % 10)).collect();
    state.update_as("refund", id, UPDATED, |refund| {
        let card = json!({
            "reference": digits, "reference_status": "available", "reference_type": "acquirer_reference_number",
            "type": "refund",
        });
        refund.insert("destination_details".to_owned(), json!({"card": card, "type": "card"}));
    });
}
