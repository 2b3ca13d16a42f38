//! PaymentMethods of type card: made from templates or numbers, attached, changed, detached. It must not charge them.
//! Source: <https://docs.stripe.com/api/payment_methods>.

use serde_json::{Value, json};

use super::cards::{self, Card, Outcome};
use super::customers::{self, ADDRESS};
use super::error::Error;
use super::object::{self, Object, flag, merge, set, sub, text};
use super::page;
use super::routes::{Call, LIST, Route, get, list, post};
use super::state::State;

pub(super) const ROUTES: &[Route] = &[
    post(
        "/v1/payment_methods",
        "payment_method",
        &[
            "type!:card card{number exp_month:int exp_year:int cvc token} allow_redisplay:always|limited|unspecified",
            "metadata:metadata billing_details{address{",
            ADDRESS,
            "} email name phone tax_id}",
        ],
        create,
    ),
    list("/v1/payment_methods", "payment_method", &[LIST, FILTERS, "customer customer_account"], all),
    get("/v1/payment_methods/{id}", "payment_method", &[], show),
    post(
        "/v1/payment_methods/{id}",
        "payment_method",
        &[
            "allow_redisplay:always|limited|unspecified metadata:metadata",
            "card{exp_month:int exp_year:int networks{preferred}} us_bank_account{account_holder_type account_type}",
            "billing_details{address{",
            ADDRESS,
            "} email name phone tax_id}",
        ],
        update,
    ),
    post("/v1/payment_methods/{id}/attach", "payment_method", &["customer customer_account"], attach),
    post("/v1/payment_methods/{id}/detach", "payment_method", &[], detach),
    list("/v1/customers/{id}/payment_methods", "payment_method", &[LIST, FILTERS], of_customer),
    get("/v1/customers/{id}/payment_methods/{pm}", "payment_method", &[], show_of_customer),
];

const FILTERS: &str = "type allow_redisplay:always|limited|unspecified";

/// A PaymentMethod for a parameter: an existing one, or a fresh one when a template is named.
pub(super) fn resolve(state: &mut State, id: &str, param: &str) -> Result<Object, Error> {
    if let Some(found) = state.get("payment_method", id) {
        return Ok(found.clone());
    }
    match cards::template(id) {
        Some((card, country)) => Ok(make(state, card, &country)),
        None => Err(Error::missing("payment_method", id, param)),
    }
}

/// A fresh, unattached PaymentMethod for a test card; like Stripe's, it makes no event.
fn make(state: &mut State, card: &Card, country: &str) -> Object {
    let brand = card.brand();
    let (id, fingerprint) = (state.new_id("pm"), state.random(16));
    let check = |failing: &str| if card.name == failing { "fail" } else { "pass" };
    let method = object::from(json!({
        "id": id, "object": "payment_method", "allow_redisplay": "unspecified",
        "billing_details": {
            "address": {
                "city": null, "country": null, "line1": null, "line2": null, "postal_code": null, "state": null,
            },
            "email": null, "name": null, "phone": null, "tax_id": null,
        },
        "card": {
            "brand": brand,
            "checks": {
                "address_line1_check": if card.name == "pm_card_avsFail" { json!("fail") } else { Value::Null },
                "address_postal_code_check": if card.name == "pm_card_avsFail" { json!("fail") } else { Value::Null },
                "cvc_check": check("pm_card_cvcCheckFail"),
            },
            "country": country, "display_brand": brand, "exp_month": 12, "exp_year": 2034,
            "fingerprint": fingerprint, "funding": card.funding(), "generated_from": null, "last4": card.last4(),
            "networks": {"available": [brand], "preferred": null}, "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": true}, "wallet": null,
        },
        "created": state.now(), "customer": null, "customer_account": null, "livemode": false, "metadata": {},
        "type": "card", "_card": card.name, "_spent": false,
    }));
    state.insert(method.clone());
    method
}

/// Refuses to attach what has an owner, was used up, or declines at once.
pub(super) fn attachable(method: &Object) -> Result<(), Error> {
    if !text(method, "customer").is_empty() {
        let message = "The payment method is attached to another customer already.";
        return Err(Error::state(message).code("payment_method_unexpected_state"));
    }
    usable(method)?;
    cards::template(text(method, "_card")).map_or(Ok(()), |(card, _)| accepted(card))
}

fn accepted(card: &Card) -> Result<(), Error> {
    match card.outcome {
        Outcome::Declines(decline) if !decline.attaches => {
            Err(Error::card(decline.code, Some(decline.decline_code), decline.message))
        }
        _ => Ok(()),
    }
}

/// Attaches a PaymentMethod to a customer, or says why it cannot be. Attaching it again to its customer changes nothing.
pub(super) fn attach_to(state: &mut State, method: &Object, customer: &str) -> Result<Object, Error> {
    if text(method, "customer") == customer {
        return Ok(method.clone());
    }
    attachable(method)?;
    let attached = state.change("payment_method", text(method, "id"), |method| {
        method.insert("customer".to_owned(), json!(customer));
    });
    state.emit("payment_method.attached", &attached);
    Ok(attached)
}

/// Refuses a PaymentMethod that was detached, or used once without a customer.
pub(super) fn usable(method: &Object) -> Result<(), Error> {
    if flag(method, "_spent") {
        let message = "The payment method was detached from its customer, or used without one, and cannot be used again.";
        return Err(Error::state(message).code("payment_method_unexpected_state").param("payment_method"));
    }
    Ok(())
}

/// Detaches every PaymentMethod of a deleted customer.
pub(super) fn abandon(state: &mut State, customer: &str) {
    let owned: Vec<_> = state
        .all("payment_method")
        .filter(|method| text(method, "customer") == customer)
        .map(|method| text(method, "id").to_owned())
        .collect();
    for id in owned {
        state.change("payment_method", &id, release);
    }
}

fn release(method: &mut Object) {
    method.insert("customer".to_owned(), Value::Null);
    method.insert("_spent".to_owned(), json!(true));
}

fn create(call: &mut Call<'_>) -> Result<Value, Error> {
    let details = sub(&call.params, "card").cloned().ok_or_else(|| Error::required("card"))?;
    let (card, country) = match (text(&details, "token"), text(&details, "number")) {
        ("", "") => return Err(Error::required("card[number]")),
        ("", number) => {
            let found = cards::by_number(number).map(|card| (card, "US".to_owned()));
            found.ok_or_else(|| {
                let message = "Your card number is incorrect.";
                Error::card("incorrect_number", None, message).param("card[number]")
            })?
        }
        (token, _) => cards::template(token).ok_or_else(|| Error::missing("token", token, "card[token]"))?,
    };
    let made = make(call.state, card, &country);
    let params = &call.params;
    let method = call.state.change("payment_method", text(&made, "id"), |method| {
        apply(method, params);
        if let Some(card) = method.get_mut("card").and_then(Value::as_object_mut) {
            set(card, &details, &["exp_month", "exp_year"]);
        }
    });
    Ok(Value::Object(method))
}

fn apply(method: &mut Object, params: &Object) {
    set(method, params, &["allow_redisplay"]);
    merge(method, params, "metadata");
    merge(method, params, "billing_details");
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("payment_method", call.id(0)).cloned().map(Value::Object)
}

fn update(call: &mut Call<'_>) -> Result<Value, Error> {
    let method = call.state.find("payment_method", call.id(0))?;
    if text(method, "customer").is_empty() {
        let message = "A payment method must be attached to a customer before it can be updated.";
        return Err(Error::state(message).code("payment_method_unexpected_state"));
    }
    if call.params.contains_key("us_bank_account") {
        let message = "us_bank_account can only be given for a payment method of that type.";
        return Err(Error::invalid(message).param("us_bank_account"));
    }
    let params = &call.params;
    let method = call.state.update("payment_method", call.id(0), "payment_method.updated", |method| {
        apply(method, params);
        if let Some(given) = sub(params, "card")
            && let Some(card) = method.get_mut("card").and_then(Value::as_object_mut)
        {
            set(card, given, &["exp_month", "exp_year"]);
            merge(card, given, "networks");
        }
    });
    Ok(Value::Object(method))
}

fn attach(call: &mut Call<'_>) -> Result<Value, Error> {
    let customer = match (text(&call.params, "customer"), text(&call.params, "customer_account")) {
        ("", "") => return Err(Error::required("customer")),
        ("", account) => return Err(Error::missing("customer_account", account, "customer_account")),
        (customer, _) => customer.to_owned(),
    };
    customers::named(call.state, &customer, "customer")?;
    let id = call.id(0);
    let method = match (call.state.get("payment_method", id), cards::template(id)) {
        (Some(method), _) => method.clone(),
        (None, Some((card, country))) => {
            accepted(card)?;
            make(call.state, card, &country)
        }
        (None, None) => return Err(Error::not_found("payment_method", id)),
    };
    attach_to(call.state, &method, &customer).map(Value::Object)
}

fn detach(call: &mut Call<'_>) -> Result<Value, Error> {
    let id = call.id(0);
    let owner = text(call.state.find("payment_method", id)?, "customer").to_owned();
    if owner.is_empty() {
        return Err(Error::state(
            "The payment method is not attached to a customer, so it cannot be detached.",
        ));
    }
    let method = call.state.update("payment_method", id, "payment_method.detached", release);
    call.state.update("customer", &owner, "customer.updated", |customer| {
        if let Some(settings) = customer.get_mut("invoice_settings").and_then(Value::as_object_mut)
            && text(settings, "default_payment_method") == id
        {
            settings.insert("default_payment_method".to_owned(), Value::Null);
        }
    });
    Ok(Value::Object(method))
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    let customer = text(&call.params, "customer").to_owned();
    if !customer.is_empty() {
        customers::named(call.state, &customer, "customer")?;
    }
    owned(call, (!customer.is_empty()).then_some(&customer))
}

fn of_customer(call: &mut Call<'_>) -> Result<Value, Error> {
    let customer = call.id(0);
    customers::living(call.state, customer)?;
    owned(call, Some(customer))
}

fn owned(call: &Call<'_>, customer: Option<&str>) -> Result<Value, Error> {
    page::list(call, "payment_method", |method, params| {
        let owner = text(method, "customer");
        customer.map_or(!owner.is_empty(), |customer| owner == customer)
            && page::equal(method, params, &["type", "allow_redisplay"])
    })
}

fn show_of_customer(call: &mut Call<'_>) -> Result<Value, Error> {
    customers::living(call.state, call.id(0))?;
    let method = call.state.get("payment_method", call.id(1));
    let owned = method.filter(|method| text(method, "customer") == call.id(0));
    owned.cloned().map(Value::Object).ok_or_else(|| Error::not_found("payment_method", call.id(1)))
}
