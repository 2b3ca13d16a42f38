//! The money a customer has sent ahead, by currency, and the test helper that sends some. It must not touch the
//! account's own balance. Source: <https://docs.stripe.com/payments/customer-balance>.

use serde_json::{Value, json};

use super::error::Error;
use super::object::{self, Object, int, sub, text};
use super::routes::{Call, Route, post};
use super::state::State;

/// The sandbox's own key of a customer for the amounts by currency.
const CASH: &str = "_cash";

pub(super) const ROUTES: &[Route] = &[post(
    "/v1/test_helpers/customers/{id}/fund_cash_balance",
    "customer_cash_balance_transaction",
    &["amount!:positive currency! reference"],
    fund,
)];

/// What the customer has in that currency, in minor units.
pub(super) fn available(customer: &Object, currency: &str) -> i64 {
    sub(customer, CASH).map_or(0, |cash| int(cash, currency))
}

/// The `available` field of the customer's cash balance.
pub(super) fn shown(customer: &Object) -> Value {
    object::or_null(customer, CASH)
}

/// Adds to what the customer has; negative amounts take away.
pub(super) fn add(state: &mut State, customer: &str, currency: &str, amount: i64) {
    state.change("customer", customer, |customer| {
        let sum = available(customer, currency) + amount;
        object::merge(customer, &object::from(json!({CASH: {currency: sum}})), CASH);
    });
}

fn fund(call: &mut Call<'_>) -> Result<Value, Error> {
    let customer = call.state.find("customer", call.id(0))?;
    if object::flag(customer, "deleted") {
        return Err(Error::not_found("customer", call.id(0)));
    }
    let (amount, currency) = (int(&call.params, "amount"), text(&call.params, "currency").to_lowercase());
    add(call.state, call.id(0), &currency, amount);
    let id = call.state.new_id("ccsbtxn");
    let customer = call.state.find("customer", call.id(0))?;
    let transaction = object::from(json!({
        "id": id, "object": "customer_cash_balance_transaction", "created": call.state.now(), "currency": currency,
        "customer": call.id(0), "customer_account": null, "ending_balance": available(customer, &currency),
        "funded": {"bank_transfer": {"reference": object::or_null(&call.params, "reference"), "type": "us_bank_transfer"}},
        "livemode": false, "net_amount": amount, "type": "funded",
    }));
    call.state.insert(transaction.clone());
    call.state.emit("customer_cash_balance_transaction.created", &transaction);
    Ok(Value::Object(transaction))
}
