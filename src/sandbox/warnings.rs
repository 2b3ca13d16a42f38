//! Radar early fraud warnings: opened by their test card, read by their endpoints. It must not refund anything.
//! Source: <https://docs.stripe.com/api/radar/early_fraud_warnings>.

use serde_json::{Value, json};

use super::error::Error;
use super::object::{self, or_null, text};
use super::page;
use super::routes::{Call, LIST, Route, get, list};
use super::state::State;

const KIND: &str = "radar.early_fraud_warning";

pub(super) const ROUTES: &[Route] = &[
    list("/v1/radar/early_fraud_warnings", KIND, &[LIST, "charge payment_intent"], all),
    get("/v1/radar/early_fraud_warnings/{id}", KIND, &[], show),
];

/// The issuer reports a charge as fraudulent.
pub(super) fn open(state: &mut State, charge: &str) {
    let intent = state.get("charge", charge).map(|charge| or_null(charge, "payment_intent"));
    let id = state.new_id("issfr");
    let warning = object::from(json!({
        "id": id, "object": KIND, "actionable": true, "charge": charge, "created": state.now(),
        "fraud_type": "unauthorized_use_of_card", "livemode": false, "payment_intent": intent,
    }));
    state.insert(warning.clone());
    state.emit("radar.early_fraud_warning.created", &warning);
}

/// A dispute or a full refund leaves nothing to act on.
pub(super) fn settle(state: &mut State, charge: &str) {
    let open: Vec<_> =
        state.all(KIND).filter(|w| text(w, "charge") == charge).map(|w| text(w, "id").to_owned()).collect();
    for id in open {
        state.update(KIND, &id, "radar.early_fraud_warning.updated", |warning| {
            warning.insert("actionable".to_owned(), json!(false));
        });
    }
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find(KIND, call.id(0)).cloned().map(Value::Object)
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    page::list(call, KIND, |warning, params| page::equal(warning, params, &["charge", "payment_intent"]))
}
