//! How disputes begin: which test card opens which. It must not end any.
//! Source: <https://docs.stripe.com/testing#disputes>.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{evidence, outcome};
use crate::sandbox::object::{self, Object, int, or_null, sub, text};
use crate::sandbox::schedule::Change;
use crate::sandbox::state::State;
use crate::sandbox::warnings;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Days to answer; the last one ends at midnight UTC.
const DAYS_TO_ANSWER: i64 = 8;

/// An inquiry that nobody answers is closed: <https://docs.stripe.com/disputes/how-disputes-work>.
const INQUIRY_LASTS: Duration = Duration::from_secs(120 * 24 * 60 * 60);

/// What a card's dispute is about.
#[derive(Debug, Clone, Copy)]
struct Opening {
    card: &'static str,
    reason: &'static str,
    case_type: &'static str,
    network_code: Option<&'static str>,
    /// The kind of enhanced evidence the network takes.
    enhanced: Option<&'static str>,
    /// Disputes opened, sharing the amount.
    count: i64,
}

const CHARGEBACK: Opening = Opening {
    card: "pm_card_createDispute",
    reason: "fraudulent",
    case_type: "chargeback",
    network_code: Some("10.4"),
    enhanced: None,
    count: 1,
};

const COMPLIANCE: Opening = Opening {
    card: "pm_card_createComplianceDispute",
    reason: "noncompliant",
    case_type: "compliance",
    network_code: None,
    enhanced: Some("visa_compliance"),
    count: 1,
};

/// The card whose disputes Stripe offers to answer by itself.
const SMART_CARD: &str = "pm_card_createAutoRepresentmentEligibleDispute";

const OPENINGS: &[Opening] = &[
    CHARGEBACK,
    Opening {
        card: "pm_card_createDisputeProductNotReceived",
        reason: "product_not_received",
        network_code: Some("13.1"),
        ..CHARGEBACK
    },
    Opening {
        card: "pm_card_createDisputeInquiry",
        case_type: "inquiry",
        network_code: Some("10"),
        ..CHARGEBACK
    },
    Opening { card: "pm_card_createMultipleDisputes", count: 2, ..CHARGEBACK },
    Opening {
        card: "pm_card_createCe3EligibleDispute",
        enhanced: Some("visa_compelling_evidence_3"),
        ..CHARGEBACK
    },
    COMPLIANCE,
    Opening {
        card: "pm_card_createMastercardComplianceDispute",
        enhanced: Some("mastercard_compliance"),
        ..COMPLIANCE
    },
    Opening { card: SMART_CARD, ..CHARGEBACK },
    // Prevented only for accounts enrolled with the networks, which this one is not.
    Opening { card: "pm_card_createRapidDisputeResolutionDispute", ..CHARGEBACK },
    Opening { card: "pm_card_createCe3BlockDispute", ..CHARGEBACK },
    Opening { card: "pm_card_createEthocaAlert", ..CHARGEBACK },
];

/// Opens the disputes that a test card stands for, right after its money was captured.
pub(in crate::sandbox) fn open_for(state: &mut State, charge: &str, card: &str) {
    let Some(opening) = OPENINGS.iter().find(|opening| opening.card == card) else { return };
    let charge = state.change("charge", charge, |charge| {
        charge.insert("disputed".to_owned(), json!(true));
    });
    let total = int(&charge, "amount_captured");
    for n in 0..opening.count {
        let before = total * n / opening.count;
        open(state, opening, &charge, total * (n + 1) / opening.count - before);
    }
    warnings::settle(state, text(&charge, "id"));
}

fn open(state: &mut State, opening: &Opening, charge: &Object, amount: i64) {
    let inquiry = opening.case_type == "inquiry";
    let card = sub(charge, "payment_method_details").and_then(|details| sub(details, "card"));
    let brand = card.map_or("visa", |card| text(card, "brand"));
    let types: Vec<_> = opening.enhanced.iter().collect();
    let dispute = object::from(json!({
        "id": state.new_id("du"), "object": "dispute", "amount": amount, "balance_transactions": [],
        "charge": text(charge, "id"), "created": state.now(), "currency": text(charge, "currency"),
        "enhanced_eligibility_types": types, "evidence": evidence::blank(),
        "evidence_details": {
            "due_by": due_by(state.now()), "enhanced_eligibility": eligibility(opening.enhanced),
            "has_evidence": false, "past_due": false, "submission_count": 0, "submission_method": "not_submitted",
        },
        "intended_submission_method": null, "is_charge_refundable": inquiry, "livemode": false, "metadata": {},
        "payment_intent": or_null(charge, "payment_intent"),
        "payment_method_details": {
            "card": {
                "brand": brand, "case_type": opening.case_type, "network": brand,
                "network_reason_code": opening.network_code,
            },
            "type": "card",
        },
        "reason": opening.reason, "status": if inquiry { "warning_needs_response" } else { "needs_response" },
        "_smart": opening.card == SMART_CARD,
    }));
    let id = text(&dispute, "id").to_owned();
    state.insert(dispute);
    if inquiry {
        let dispute = state.get("dispute", &id).cloned().unwrap_or_default();
        state.emit("charge.dispute.created", &dispute);
        state.schedule(INQUIRY_LASTS, Change::DisputeLapses { dispute: id });
        return;
    }
    let dispute = outcome::withdraw(state, &id);
    state.emit("charge.dispute.created", &dispute);
    state.emit("charge.dispute.funds_withdrawn", &dispute);
    expect_answer(state, &id);
}

/// The last second of the last day to answer.
fn due_by(now: i64) -> i64 {
    (now.div_euclid(DAY_SECONDS) + DAYS_TO_ANSWER + 1) * DAY_SECONDS - 1
}

/// Plans that a chargeback is lost when the last day has passed without an answer.
pub(super) fn expect_answer(state: &mut State, id: &str) {
    let due_by = due_by(state.now());
    state.change("dispute", id, |dispute| {
        super::details(dispute, |details| {
            details.insert("due_by".to_owned(), json!(due_by));
        });
    });
    let left = u64::try_from(due_by + 1 - state.now()).unwrap_or_default();
    state.schedule(Duration::from_secs(left), Change::DisputeLapses { dispute: id.to_owned() });
}

fn eligibility(kind: Option<&str>) -> Value {
    let Some(kind) = kind else { return json!({}) };
    let status = match kind {
        "visa_compelling_evidence_3" => {
            json!({"required_actions": evidence::missing(&Map::new()), "status": "requires_action"})
        }
        _ => json!({"status": "requires_fee_acknowledgement"}),
    };
    json!({kind: status})
}
