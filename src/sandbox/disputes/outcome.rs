//! How disputes go on and end: submission, the bank's decision, money. It must not read requests.
//! Source: <https://docs.stripe.com/disputes/how-disputes-work>, <https://docs.stripe.com/testing#disputes>.

use std::time::Duration;

use serde_json::{Value, json};

use super::{answerable, details, opening, touch_charge};
use crate::sandbox::money::{self, Posting};
use crate::sandbox::object::{self, Object, int, sub, text};
use crate::sandbox::schedule::Change;
use crate::sandbox::state::State;

/// What a lost or won chargeback costs, in minor units.
const FEE: i64 = 1_500;

/// How long the bank thinks about the evidence that test mode understands.
const DECIDES_AFTER: Duration = Duration::from_secs(4);

pub(super) fn inquiry(dispute: &Object) -> bool {
    text(dispute, "status").starts_with("warning_")
}

/// Marks the dispute as answered.
pub(super) fn submit(dispute: &mut Object) {
    let status = if inquiry(dispute) { "warning_under_review" } else { "under_review" };
    dispute.insert("status".to_owned(), json!(status));
    details(dispute, |details| {
        let count = int(details, "submission_count") + 1;
        details.insert("submission_count".to_owned(), json!(count));
        details.insert("submission_method".to_owned(), json!("manual"));
    });
}

/// Plans the bank's decision.
pub(super) fn submitted(state: &mut State, dispute: &Object) {
    touch_charge(state, dispute);
    state.schedule(DECIDES_AFTER, Change::DisputeDecided { dispute: text(dispute, "id").to_owned() });
}

/// The bank decides by the one text that test mode understands; anything else stays under review.
pub(in crate::sandbox) fn decide(state: &mut State, id: &str) {
    let Some(dispute) = state.get("dispute", id) else { return };
    if !text(dispute, "status").ends_with("under_review") {
        return;
    }
    let said = sub(dispute, "evidence").map(|evidence| text(evidence, "uncategorized_text").trim());
    match (said, inquiry(dispute)) {
        (Some("winning_evidence"), false) => {
            reinstate(state, id);
            end(state, id, "won");
        }
        (Some("losing_evidence"), false) => {
            end(state, id, "lost");
        }
        (Some("winning_evidence" | "losing_evidence"), true) => {
            end(state, id, "warning_closed");
        }
        (Some("escalate_inquiry_evidence"), true) => escalate(state, id),
        _ => {}
    }
}

/// Time ran out: a chargeback without an answer is lost, an inquiry is closed.
pub(in crate::sandbox) fn lapse(state: &mut State, id: &str) {
    let Some(dispute) = state.get("dispute", id) else { return };
    let waits = answerable(dispute);
    match inquiry(dispute) {
        // An answered inquiry that was not escalated in time is closed as well.
        true if !super::closed(dispute) => {
            end(state, id, "warning_closed");
        }
        false if waits && due_by(dispute) < state.now() => {
            state.change("dispute", id, |dispute| {
                details(dispute, |details| {
                    details.insert("past_due".to_owned(), json!(true));
                });
            });
            end(state, id, "lost");
        }
        _ => {}
    }
}

fn due_by(dispute: &Object) -> i64 {
    sub(dispute, "evidence_details").map_or(0, |details| int(details, "due_by"))
}

/// Closes the dispute with the given status.
pub(super) fn end(state: &mut State, id: &str, status: &str) -> Object {
    let dispute = state.change("dispute", id, |dispute| {
        dispute.insert("status".to_owned(), json!(status));
        dispute.insert("is_charge_refundable".to_owned(), json!(status != "lost"));
    });
    state.emit("charge.dispute.closed", &dispute);
    dispute
}

/// An inquiry becomes a chargeback.
fn escalate(state: &mut State, id: &str) {
    state.update("dispute", id, "charge.dispute.updated", |dispute| {
        dispute.insert("status".to_owned(), json!("needs_response"));
        dispute.insert("is_charge_refundable".to_owned(), json!(false));
        let path = dispute.get_mut("payment_method_details").and_then(|details| details.get_mut("card"));
        if let Some(card) = path.and_then(Value::as_object_mut) {
            card.insert("case_type".to_owned(), json!("chargeback"));
        }
    });
    opening::expect_answer(state, id);
    let dispute = withdraw(state, id);
    state.emit("charge.dispute.funds_withdrawn", &dispute);
}

/// Takes the disputed amount and the fee out of the balance.
pub(super) fn withdraw(state: &mut State, id: &str) -> Object {
    book(state, id, -1, "dispute", "Chargeback withdrawal", Some((FEE, "Dispute fee")))
}

/// Gives the disputed amount back; the fee is kept.
fn reinstate(state: &mut State, id: &str) {
    let dispute = book(state, id, 1, "dispute_reversal", "Chargeback reversal", None);
    state.emit("charge.dispute.funds_reinstated", &dispute);
}

fn book(
    state: &mut State,
    id: &str,
    sign: i64,
    category: &str,
    what: &str,
    fee: Option<(i64, &str)>,
) -> Object {
    let dispute = state.get("dispute", id).cloned().unwrap_or_default();
    let description = format!("{what} for {}", text(&dispute, "charge"));
    let posting = Posting {
        kind: "adjustment",
        category,
        amount: sign * int(&dispute, "amount"),
        currency: text(&dispute, "currency"),
        fee,
        source: id,
        description: Some(&description),
        pending: Duration::ZERO,
    };
    let transaction = money::post(state, &posting);
    let transaction = state.get("balance_transaction", &transaction).map(object::shown);
    state.change("dispute", id, |dispute| {
        let all = dispute.get_mut("balance_transactions").and_then(Value::as_array_mut);
        if let (Some(all), Some(transaction)) = (all, transaction) {
            all.push(transaction);
        }
    })
}
