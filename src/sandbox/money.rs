//! The account's money: balance transactions, and what is available and pending by currency. It must not know why money
//! moves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::Error;
use super::object::{self, Object, int, text};
use super::page;
use super::routes::{Call, LIST, Route, get, list};
use super::schedule::Change;
use super::state::State;

/// How long a card payment stays pending, as for an account with a two-day payout schedule.
pub(super) const PENDING: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// What is available in each currency before anything happened, in minor units: refunds are paid from the available
/// balance only, and new payments take days to reach it.
pub(super) const OPENING_BALANCE: i64 = 1_000_000_000;

/// Amounts of one currency in minor units; either may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Purse {
    pub(super) available: i64,
    pub(super) pending: i64,
}

impl Default for Purse {
    fn default() -> Self {
        Self { available: OPENING_BALANCE, pending: 0 }
    }
}

/// One purse for each currency; the account's own is there from the start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Money {
    purses: BTreeMap<String, Purse>,
}

impl Default for Money {
    fn default() -> Self {
        Self { purses: BTreeMap::from([("usd".to_owned(), Purse::default())]) }
    }
}

impl Money {
    pub(super) fn purse(&self, currency: &str) -> Purse {
        self.purses.get(currency).copied().unwrap_or_default()
    }
}

/// A movement of money to be booked; see <https://docs.stripe.com/reports/balance-transaction-types>.
#[derive(Debug)]
pub(super) struct Posting<'a> {
    /// The balance transaction's `type`.
    pub(super) kind: &'a str,
    /// The balance transaction's `reporting_category`.
    pub(super) category: &'a str,
    /// Gross amount in minor units, negative when it leaves the balance.
    pub(super) amount: i64,
    pub(super) currency: &'a str,
    /// Stripe's fee in minor units and what it is for.
    pub(super) fee: Option<(i64, &'a str)>,
    /// Id of the object that caused it.
    pub(super) source: &'a str,
    pub(super) description: Option<&'a str>,
    /// How long it stays pending; zero puts it straight into the available balance.
    pub(super) pending: Duration,
}

/// Books a movement and answers the new balance transaction's id.
pub(super) fn post(state: &mut State, posting: &Posting<'_>) -> String {
    let id = state.new_id("txn");
    let (fee, details) = match posting.fee {
        Some((fee, description)) => (
            fee,
            json!([{
                "amount": fee, "application": null, "currency": posting.currency, "description": description,
                "type": "stripe_fee",
            }]),
        ),
        None => (0, json!([])),
    };
    let net = posting.amount - fee;
    let waits = !posting.pending.is_zero();
    let available_on = state.now() + i64::try_from(posting.pending.as_secs()).unwrap_or_default();
    state.insert(object::from(json!({
        "id": id, "object": "balance_transaction", "amount": posting.amount, "available_on": available_on,
        "balance_type": "payments", "created": state.now(), "currency": posting.currency,
        "description": posting.description, "exchange_rate": null, "fee": fee, "fee_details": details, "net": net,
        "reporting_category": posting.category, "source": posting.source,
        "status": if waits { "pending" } else { "available" }, "type": posting.kind,
    })));
    let purse = state.kept.money.purses.entry(posting.currency.to_owned()).or_default();
    if waits {
        purse.pending += net;
        state.schedule(posting.pending, Change::FundsAvailable { balance_transaction: id.clone() });
    } else {
        purse.available += net;
    }
    id
}

/// Moves a pending balance transaction to the available balance.
pub(super) fn release(state: &mut State, id: &str) {
    if state.get("balance_transaction", id).is_none_or(|txn| text(txn, "status") != "pending") {
        return;
    }
    let txn = state.change("balance_transaction", id, |txn| {
        txn.insert("status".to_owned(), json!("available"));
    });
    let net = int(&txn, "net");
    let purse = state.kept.money.purses.entry(text(&txn, "currency").to_owned()).or_default();
    purse.pending -= net;
    purse.available += net;
    if net > 0 {
        let balance = balance(state);
        state.emit("balance.available", &balance);
    }
}

/// The Balance object.
pub(super) fn balance(state: &State) -> Object {
    let entries = |amount: fn(&Purse) -> i64| {
        let entry = |(currency, purse): (&String, &Purse)| {
            let amount = amount(purse);
            json!({"amount": amount, "currency": currency, "source_types": {"card": amount}})
        };
        Value::Array(state.kept.money.purses.iter().map(entry).collect())
    };
    object::from(json!({
        "object": "balance", "available": entries(|purse| purse.available), "livemode": false,
        "pending": entries(|purse| purse.pending),
    }))
}

pub(super) const ROUTES: &[Route] = &[
    get("/v1/balance", "balance", &[], show_balance),
    list("/v1/balance_transactions", "balance_transaction", &[LIST, "currency payout source type"], history),
    get("/v1/balance_transactions/{id}", "balance_transaction", &[], show),
    list("/v1/balance/history", "balance_transaction", &[LIST, "currency payout source type"], history),
    get("/v1/balance/history/{id}", "balance_transaction", &[], show),
];

fn show_balance(call: &mut Call<'_>) -> Result<Value, Error> {
    Ok(Value::Object(balance(call.state)))
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("balance_transaction", call.id(0)).cloned().map(Value::Object)
}

fn history(call: &mut Call<'_>) -> Result<Value, Error> {
    page::list(call, "balance_transaction", |txn, params| {
        page::equal(txn, params, &["currency", "payout", "source", "type"])
    })
}
