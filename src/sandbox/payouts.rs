//! Payouts from the available balance to the bank. It must not make one by itself; there is no schedule.
//! Source: <https://docs.stripe.com/api/payouts>.

use std::time::Duration;

use serde_json::{Value, json};

use super::error::Error;
use super::money::{self, Posting};
use super::object::{self, Object, int, merge, or_null, text};
use super::page;
use super::routes::{Call, LIST, Route, get, list, post};
use super::schedule::Change;
use super::state::State;

/// How long a payout is on its way; real ones take days, as `arrival_date` says.
const TRANSIT: Duration = Duration::from_secs(2);

/// Seconds until `arrival_date`.
const ARRIVAL_SECONDS: i64 = 2 * 24 * 60 * 60;

/// The bank account a payout goes to, and the one that is closed.
const DESTINATION: &str = "ba_1SandboxAccount00000000";
pub(super) const DESTINATION_CLOSED: &str = "ba_1SandboxAccountClosed00";

pub(super) const ROUTES: &[Route] = &[
    post(
        "/v1/payouts",
        "payout",
        &[
            "amount!:positive currency! description destination metadata:metadata method:standard|instant",
            "source_type:bank_account|card|fpx statement_descriptor:22 payout_method",
        ],
        create,
    ),
    list(
        "/v1/payouts",
        "payout",
        &[LIST, "status:canceled|failed|in_transit|paid|pending arrival_date:range destination"],
        all,
    ),
    get("/v1/payouts/{id}", "payout", &[], show),
    post("/v1/payouts/{id}", "payout", &["metadata:metadata"], update),
    post("/v1/payouts/{id}/cancel", "payout", &[], cancel),
];

fn create(call: &mut Call<'_>) -> Result<Value, Error> {
    let params = &call.params;
    let (amount, currency) = (int(params, "amount"), text(params, "currency").to_ascii_lowercase());
    let available = call.state.kept.money.purse(&currency).available;
    if amount > available {
        let message =
            format!("The payout of {amount} is more than the {available} {currency} that is available.");
        return Err(Error::state(message).code("balance_insufficient").param("amount"));
    }
    let destination = params.get("destination").cloned().unwrap_or(json!(DESTINATION));
    let (id, trace) = (call.state.new_id("po"), call.state.random(15));
    let method = params.get("method").cloned().unwrap_or(json!("standard"));
    let transaction = post_money(call.state, ("payout", "payout"), -amount, &currency, &id);
    let mut payout = object::from(json!({
        "id": id, "object": "payout", "amount": amount, "application_fee": null, "application_fee_amount": null,
        "arrival_date": call.state.now() + ARRIVAL_SECONDS, "automatic": false, "balance_transaction": transaction,
        "created": call.state.now(), "currency": currency, "description": or_null(&call.params, "description"),
        "destination": destination, "failure_balance_transaction": null, "failure_code": null,
        "failure_message": null, "livemode": false, "metadata": {}, "method": method, "original_payout": null,
        "payout_method": or_null(&call.params, "payout_method"), "reconciliation_status": "not_applicable",
        "reversed_by": null, "source_type": "card",
        "statement_descriptor": or_null(&call.params, "statement_descriptor"), "status": "pending",
        "trace_id": {"status": "pending", "value": null}, "type": "bank_account", "_trace": trace,
    }));
    merge(&mut payout, &call.params, "metadata");
    call.state.insert(payout.clone());
    call.state.emit("payout.created", &payout);
    call.state.schedule(TRANSIT, Change::PayoutArrives { payout: id });
    Ok(Value::Object(payout))
}

fn post_money(
    state: &mut State,
    (kind, category): (&str, &str),
    amount: i64,
    currency: &str,
    payout: &str,
) -> String {
    let pending = Duration::ZERO;
    let posting =
        Posting { kind, category, amount, currency, fee: None, source: payout, description: None, pending };
    money::post(state, &posting)
}

/// The bank takes the payout, or sends it back if the account is closed.
pub(super) fn arrive(state: &mut State, id: &str) {
    let Some(payout) = state.get("payout", id).filter(|payout| text(payout, "status") == "pending").cloned()
    else {
        return;
    };
    if text(&payout, "destination") != DESTINATION_CLOSED {
        let trace = text(&payout, "_trace").to_owned();
        let payout = state.update("payout", id, "payout.updated", |payout| {
            payout.insert("status".to_owned(), json!("paid"));
            payout.insert("trace_id".to_owned(), json!({"status": "supported", "value": trace}));
        });
        state.emit("payout.paid", &payout);
        return;
    }
    let back = give_back(state, &payout, "payout_failure");
    let payout = state.change("payout", id, |payout| {
        payout.insert("status".to_owned(), json!("failed"));
        payout.insert("failure_code".to_owned(), json!("account_closed"));
        payout.insert("failure_message".to_owned(), json!("The bank account has been closed."));
        payout.insert("failure_balance_transaction".to_owned(), json!(back));
    });
    state.emit("payout.failed", &payout);
}

fn give_back(state: &mut State, payout: &Object, kind: &str) -> String {
    let (amount, currency) = (int(payout, "amount"), text(payout, "currency"));
    post_money(state, (kind, "payout_reversal"), amount, currency, text(payout, "id"))
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("payout", call.id(0)).cloned().map(Value::Object)
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    page::list(call, "payout", |payout, params| {
        page::equal(payout, params, &["status", "destination"])
            && page::within(payout, params, "arrival_date")
    })
}

fn update(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("payout", call.id(0))?;
    let params = &call.params;
    let payout =
        call.state.update("payout", call.id(0), "payout.updated", |payout| merge(payout, params, "metadata"));
    Ok(Value::Object(payout))
}

fn cancel(call: &mut Call<'_>) -> Result<Value, Error> {
    let payout = call.state.find("payout", call.id(0))?.clone();
    let status = text(&payout, "status");
    if status != "pending" {
        let message = format!("Only pending payouts can be canceled; this one is {status}.");
        return Err(Error::state(message));
    }
    let back = give_back(call.state, &payout, "payout_cancel");
    let payout = call.state.change("payout", call.id(0), |payout| {
        payout.insert("status".to_owned(), json!("canceled"));
        payout.insert("failure_balance_transaction".to_owned(), json!(back));
    });
    call.state.emit("payout.canceled", &payout);
    Ok(Value::Object(payout))
}
