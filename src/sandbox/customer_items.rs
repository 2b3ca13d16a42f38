//! What belongs to one customer: tax ids, the credit balance, the cash balance, the discount. It must not change other
//! customers.
//! Sources: <https://docs.stripe.com/api/customer_tax_ids>, <https://docs.stripe.com/api/customer_balance_transactions>.

use serde_json::{Value, json};

use super::cash_balance;
use super::customers::living;
use super::error::Error;
use super::object::{self, Object, int, merge, or_null, set, sub, text};
use super::page;
use super::routes::{Call, LIST, Route, delete, get, list, post};
use super::state::State;

const CREDIT: &str = "customer_balance_transaction";

pub(super) const ROUTES: &[Route] = &[
    post("/v1/customers/{id}/tax_ids", "tax_id", &["type! value!"], create_tax_id),
    list("/v1/customers/{id}/tax_ids", "tax_id", &[LIST], tax_ids),
    get("/v1/customers/{id}/tax_ids/{tax_id}", "tax_id", &[], show_tax_id),
    delete("/v1/customers/{id}/tax_ids/{tax_id}", "tax_id", remove_tax_id),
    post(
        "/v1/customers/{id}/balance_transactions",
        CREDIT,
        &["amount!:int currency! description:350 metadata:metadata"],
        create_credit,
    ),
    list("/v1/customers/{id}/balance_transactions", CREDIT, &[LIST, "invoice"], credits),
    get("/v1/customers/{id}/balance_transactions/{txn}", CREDIT, &[], show_credit),
    post(
        "/v1/customers/{id}/balance_transactions/{txn}",
        CREDIT,
        &["description:350 metadata:metadata"],
        update_credit,
    ),
    get("/v1/customers/{id}/cash_balance", "cash_balance", &[], show_cash),
    post(
        "/v1/customers/{id}/cash_balance",
        "cash_balance",
        &["settings{reconciliation_mode:automatic|manual|merchant_default}"],
        update_cash,
    ),
    delete("/v1/customers/{id}/discount", "discount", remove_discount),
];

/// Adds a tax id; its verification is over at once.
pub(super) fn add_tax_id(state: &mut State, customer: &str, params: &Object) -> Object {
    let id = state.new_id("txi");
    let kind = text(params, "type");
    let country = kind.split('_').next().unwrap_or_default().to_uppercase();
    let country = if country == "EU" {
        text(params, "value").get(..2).unwrap_or_default().to_uppercase()
    } else {
        country
    };
    let tax_id = object::from(json!({
        "id": id, "object": "tax_id", "country": country, "created": state.now(), "customer": customer,
        "customer_account": null, "livemode": false,
        "owner": {"account": null, "application": null, "customer": customer, "customer_account": null, "type": "customer"},
        "type": kind, "value": text(params, "value"),
        "verification": {"status": "verified", "verified_address": null, "verified_name": null},
    }));
    state.insert(tax_id.clone());
    state.emit("customer.tax_id.created", &tax_id);
    tax_id
}

/// The customer's cash balance.
pub(super) fn cash_balance(customer: &Object) -> Value {
    let mode = text(customer, "_reconciliation_mode");
    let default = mode.is_empty() || mode == "merchant_default";
    json!({
        "object": "cash_balance", "available": cash_balance::shown(customer), "customer": text(customer, "id"), "customer_account": null,
        "livemode": false,
        "settings": {"reconciliation_mode": if default { "automatic" } else { mode }, "using_merchant_default": default},
    })
}

/// An object of this customer.
fn own<'a>(call: &'a Call<'_>, kind: &str) -> Result<&'a Object, Error> {
    living(call.state, call.id(0))?;
    let item = call.state.get(kind, call.id(1)).filter(|item| text(item, "customer") == call.id(0));
    item.ok_or_else(|| Error::not_found(kind, call.id(1)))
}

fn create_tax_id(call: &mut Call<'_>) -> Result<Value, Error> {
    living(call.state, call.id(0))?;
    let kind = text(&call.params, "type");
    if !kind.contains('_') || kind.len() < "xx_x".len() {
        let message = format!("Invalid type: {kind} is not a kind of tax id, such as eu_vat.");
        return Err(Error::invalid(message).param("type"));
    }
    Ok(Value::Object(add_tax_id(call.state, call.id(0), &call.params)))
}

fn tax_ids(call: &mut Call<'_>) -> Result<Value, Error> {
    let customer = call.id(0);
    living(call.state, customer)?;
    page::list(call, "tax_id", |item, _| text(item, "customer") == customer)
}

fn show_tax_id(call: &mut Call<'_>) -> Result<Value, Error> {
    own(call, "tax_id").cloned().map(Value::Object)
}

fn remove_tax_id(call: &mut Call<'_>) -> Result<Value, Error> {
    let tax_id = own(call, "tax_id")?.clone();
    call.state.remove("tax_id", text(&tax_id, "id"));
    call.state.emit("customer.tax_id.deleted", &tax_id);
    Ok(json!({"id": text(&tax_id, "id"), "object": "tax_id", "deleted": true}))
}

fn create_credit(call: &mut Call<'_>) -> Result<Value, Error> {
    let (customer, params) = (living(call.state, call.id(0))?, &call.params);
    let currency = text(params, "currency").to_ascii_lowercase();
    let held = text(customer, "currency");
    if !held.is_empty() && held != currency {
        let message = format!("The customer's balance is kept in {held}, not in {currency}.");
        return Err(Error::state(message).param("currency"));
    }
    let ending = int(customer, "balance").saturating_add(int(params, "amount"));
    let metadata = params.get("metadata").cloned().unwrap_or_else(|| json!({}));
    let id = call.state.new_id("cbtxn");
    let credit = object::from(json!({
        "id": id, "object": CREDIT, "amount": int(&call.params, "amount"), "checkout_session": null,
        "created": call.state.now(), "credit_note": null, "currency": currency, "customer": call.id(0),
        "customer_account": null, "description": or_null(&call.params, "description"), "ending_balance": ending,
        "invoice": null, "livemode": false, "metadata": metadata, "type": "adjustment",
    }));
    call.state.insert(credit.clone());
    call.state.update("customer", call.id(0), "customer.updated", |customer| {
        customer.insert("balance".to_owned(), json!(ending));
        customer.insert("currency".to_owned(), json!(currency));
    });
    Ok(Value::Object(credit))
}

fn credits(call: &mut Call<'_>) -> Result<Value, Error> {
    let customer = call.id(0);
    living(call.state, customer)?;
    page::list(call, CREDIT, |item, params| {
        text(item, "customer") == customer && page::equal(item, params, &["invoice"])
    })
}

fn show_credit(call: &mut Call<'_>) -> Result<Value, Error> {
    own(call, CREDIT).cloned().map(Value::Object)
}

fn update_credit(call: &mut Call<'_>) -> Result<Value, Error> {
    own(call, CREDIT)?;
    let params = &call.params;
    let credit = call.state.change(CREDIT, call.id(1), |credit| {
        set(credit, params, &["description"]);
        merge(credit, params, "metadata");
    });
    Ok(Value::Object(credit))
}

fn show_cash(call: &mut Call<'_>) -> Result<Value, Error> {
    living(call.state, call.id(0)).map(cash_balance)
}

fn update_cash(call: &mut Call<'_>) -> Result<Value, Error> {
    living(call.state, call.id(0))?;
    let mode = sub(&call.params, "settings").map(|settings| or_null(settings, "reconciliation_mode"));
    let customer = call.state.change("customer", call.id(0), |customer| {
        if let Some(mode) = mode {
            customer.insert("_reconciliation_mode".to_owned(), mode);
        }
    });
    Ok(cash_balance(&customer))
}

fn remove_discount(call: &mut Call<'_>) -> Result<Value, Error> {
    let customer = living(call.state, call.id(0))?;
    let message = format!("No active discount for customer: {}", text(customer, "id"));
    Err(Error { status: 404, ..Error::state(message).code("resource_missing") })
}
