//! The PaymentIntent endpoints: parameters in, objects out. It must not charge; `payments` does.
//! Source: <https://docs.stripe.com/api/payment_intents>.

use serde_json::{Value, json};

use super::customers::{self, ADDRESS};
use super::error::Error;
use super::object::{self, Object, flag, int, merge, or_null, set, sub, text};
use super::payments::{self, Confirm, method_for, unexpected};
use super::routes::{Call, LIST, Route, get, list, post};
use super::state::State;
use super::{page, payment_methods, search};

/// Smallest charge by currency in minor units: <https://docs.stripe.com/currencies>. Others take any amount from 1.
const AMOUNT_MIN: &[(&str, i64)] = &[
    ("aed", 200),
    ("ars", 50),
    ("aud", 50),
    ("brl", 50),
    ("cad", 50),
    ("chf", 50),
    ("cop", 50),
    ("czk", 1500),
    ("dkk", 250),
    ("eur", 50),
    ("gbp", 30),
    ("hkd", 400),
    ("huf", 17500),
    ("idr", 50),
    ("ils", 50),
    ("inr", 50),
    ("jpy", 50),
    ("krw", 50),
    ("mxn", 1000),
    ("myr", 200),
    ("nok", 300),
    ("nzd", 50),
    ("php", 50),
    ("pln", 200),
    ("ron", 200),
    ("rub", 50),
    ("sek", 300),
    ("sgd", 50),
    ("thb", 1000),
    ("usd", 50),
    ("zar", 50),
];

/// Largest charge, twelve digits: <https://docs.stripe.com/currencies>.
const AMOUNT_MAX: i64 = 999_999_999_999;

/// What create and update share.
const COMMON: &str = "allowed_payment_method_types:list excluded_payment_method_types:list amount_details:any \
    application_fee_amount:int customer customer_account description:1000 hooks:any metadata:metadata payment_details:any \
    payment_method payment_method_configuration payment_method_data{type!:card card{token number exp_month:int \
    exp_year:int cvc} billing_details:any metadata:metadata} payment_method_options:any receipt_email \
    setup_future_usage:off_session|on_session statement_descriptor:22 statement_descriptor_suffix:22 transfer_data:any \
    transfer_group capture_method:automatic|automatic_async|manual";

/// What create and confirm share.
const CONFIRM: &str = "confirmation_token error_on_requires_action:bool mandate mandate_data:any off_session:bool \
    radar_options:any return_url use_stripe_sdk:bool";

pub(super) const ROUTES: &[Route] = &[
    post(
        "/v1/payment_intents",
        "payment_intent",
        &[
            "amount!:positive currency! confirm:bool confirmation_method:automatic|manual on_behalf_of",
            "automatic_payment_methods{enabled!:bool allow_redirects:always|never}",
            COMMON,
            CONFIRM,
            "shipping{name! phone carrier tracking_number address!{",
            ADDRESS,
            "}}",
        ],
        create,
    ),
    list("/v1/payment_intents", "payment_intent", &[LIST, "customer customer_account"], all),
    list("/v1/payment_intents/search", "payment_intent", &[search::PARAMS], find),
    get("/v1/payment_intents/{id}", "payment_intent", &["client_secret"], show),
    post(
        "/v1/payment_intents/{id}",
        "payment_intent",
        &[
            "amount:positive currency",
            COMMON,
            "shipping{name! phone carrier tracking_number address!{",
            ADDRESS,
            "}}",
        ],
        update,
    ),
    post(
        "/v1/payment_intents/{id}/confirm",
        "payment_intent",
        &["payment_method receipt_email capture_method:automatic|automatic_async|manual", CONFIRM],
        confirm,
    ),
    post(
        "/v1/payment_intents/{id}/capture",
        "payment_intent",
        &[
            "amount_to_capture:positive final_capture:bool metadata:metadata application_fee_amount:int",
            "statement_descriptor:22 statement_descriptor_suffix:22 transfer_data:any",
        ],
        capture,
    ),
    post(
        "/v1/payment_intents/{id}/cancel",
        "payment_intent",
        &["cancellation_reason:abandoned|duplicate|fraudulent|requested_by_customer"],
        cancel,
    ),
];

const PLAIN: &[&str] = &[
    "amount",
    "capture_method",
    "customer",
    "description",
    "receipt_email",
    "setup_future_usage",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_group",
];

fn create(call: &mut Call<'_>) -> Result<Value, Error> {
    let currency = currency(&call.params)?;
    check_amount(int(&call.params, "amount"), &currency)?;
    let customer = text(&call.params, "customer").to_owned();
    if !customer.is_empty() {
        customers::named(call.state, &customer, "customer")?;
    }
    let confirmed = flag(&call.params, "confirm");
    let wanted = wanted_method(&call.params)?;
    if confirmed && wanted.is_none() {
        let message = "A PaymentIntent is confirmed with a payment method; give one as `payment_method`.";
        return Err(Error::state(message).code("payment_intent_unexpected_state"));
    }
    let method = wanted.map(|id| method_for(call.state, &id, &customer)).transpose()?;
    let intent = build(call.state, &call.params, &currency, method.as_ref());
    let id = text(&intent, "id").to_owned();
    call.state.insert(intent.clone());
    call.state.emit("payment_intent.created", &intent);
    if !confirmed {
        return Ok(Value::Object(intent));
    }
    run(call.state, &id, &call.params).map(Value::Object)
}

fn build(state: &mut State, params: &Object, currency: &str, method: Option<&Object>) -> Object {
    let id = state.new_id("pi");
    let secret = state.random(25);
    let automatic = match sub(params, "automatic_payment_methods") {
        Some(given) if !flag(given, "enabled") => Value::Null,
        Some(given) => {
            let redirects = given.get("allow_redirects").cloned().unwrap_or(json!("always"));
            json!({"allow_redirects": redirects, "enabled": true})
        }
        None => json!({"allow_redirects": "always", "enabled": true}),
    };
    let status = if method.is_some() { "requires_confirmation" } else { "requires_payment_method" };
    let mut intent = object::from(json!({
        "id": id, "object": "payment_intent", "amount": 0, "amount_capturable": 0, "amount_details": {"tip": {}},
        "amount_received": 0, "application": null, "application_fee_amount": null,
        "automatic_payment_methods": automatic, "canceled_at": null, "cancellation_reason": null,
        "capture_method": "automatic_async", "client_secret": format!("{id}_secret_{secret}"),
        "confirmation_method": "automatic", "created": state.now(), "currency": currency, "customer": null,
        "customer_account": null, "description": null,
        "excluded_payment_method_types": or_null(params, "excluded_payment_method_types"),
        "last_payment_error": null, "latest_charge": null, "livemode": false, "metadata": {}, "next_action": null,
        "on_behalf_of": null, "payment_method": method.map(|method| text(method, "id")),
        "payment_method_configuration_details": null,
        "payment_method_options": {"card": {
            "installments": null, "mandate_options": null, "network": null, "request_three_d_secure": "automatic",
        }},
        "payment_method_types": ["card"], "processing": null, "receipt_email": null, "review": null,
        "setup_future_usage": null, "shipping": null, "source": null, "statement_descriptor": null,
        "statement_descriptor_suffix": null, "status": status, "transfer_data": null, "transfer_group": null,
    }));
    apply(&mut intent, params);
    set(&mut intent, params, &["allowed_payment_method_types", "confirmation_method"]);
    intent
}

fn apply(intent: &mut Object, params: &Object) {
    set(intent, params, PLAIN);
    merge(intent, params, "metadata");
}

/// Attaches the payment method if it is to be used again, then confirms.
fn run(state: &mut State, id: &str, params: &Object) -> Result<Object, Error> {
    let how = Confirm {
        off_session: flag(params, "off_session"),
        error_on_requires_action: flag(params, "error_on_requires_action"),
    };
    let confirmed = payments::confirm(state, id, how)?;
    let customer = text(&confirmed, "customer");
    if !text(&confirmed, "setup_future_usage").is_empty() && !customer.is_empty() {
        let method = state.get("payment_method", text(&confirmed, "payment_method")).cloned();
        if let Some(mut method) = method {
            method.insert("_spent".to_owned(), json!(false));
            state.insert(method.clone());
            payment_methods::attach_to(state, &method, customer)?;
        }
    }
    Ok(confirmed)
}

fn currency(params: &Object) -> Result<String, Error> {
    let currency = text(params, "currency").to_ascii_lowercase();
    if currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Ok(currency);
    }
    let message = format!("Invalid currency: {currency}. It must be a three-letter ISO code.");
    Err(Error::invalid(message).param("currency"))
}

fn check_amount(amount: i64, currency: &str) -> Result<(), Error> {
    let min = AMOUNT_MIN.iter().find(|(code, _)| *code == currency).map_or(1, |(_, min)| *min);
    if amount < min {
        let message = format!("Amount must be at least {min} in the smallest unit of {currency}.");
        return Err(Error::state(message).code("amount_too_small").param("amount"));
    }
    if amount > AMOUNT_MAX {
        let message = format!("Amount must be no more than {AMOUNT_MAX} in the smallest unit of {currency}.");
        return Err(Error::state(message).code("amount_too_large").param("amount"));
    }
    Ok(())
}

/// The payment method named, or the template of the token inside `payment_method_data`.
fn wanted_method(params: &Object) -> Result<Option<String>, Error> {
    let id = text(params, "payment_method");
    if !id.is_empty() {
        return Ok(Some(id.to_owned()));
    }
    let Some(data) = sub(params, "payment_method_data") else { return Ok(None) };
    let card = sub(data, "card").ok_or_else(|| Error::required("payment_method_data[card]"))?;
    let token = text(card, "token");
    if !token.is_empty() {
        return Ok(Some(token.to_owned()));
    }
    match super::cards::by_number(text(card, "number")) {
        Some(card) => Ok(Some(card.name.to_owned())),
        None => Err(Error::card("incorrect_number", None, "Your card number is incorrect.")),
    }
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("payment_intent", call.id(0)).cloned().map(Value::Object)
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    let customer = text(&call.params, "customer");
    if !customer.is_empty() {
        call.state.named("customer", customer, "customer")?;
    }
    page::list(call, "payment_intent", |intent, params| {
        page::equal(intent, params, &["customer", "customer_account"])
    })
}

fn find(call: &mut Call<'_>) -> Result<Value, Error> {
    search::run(call, "payment_intent")
}

fn update(call: &mut Call<'_>) -> Result<Value, Error> {
    let intent = call.state.find("payment_intent", call.id(0))?.clone();
    let open = matches!(
        text(&intent, "status"),
        "requires_payment_method" | "requires_confirmation" | "requires_action"
    );
    let money = ["amount", "currency", "capture_method", "customer", "payment_method", "payment_method_data"];
    if !open && money.iter().any(|name| call.params.contains_key(*name)) {
        return Err(unexpected(&intent, "updated"));
    }
    let currency = match call.params.contains_key("currency") {
        true => currency(&call.params)?,
        false => text(&intent, "currency").to_owned(),
    };
    let amount = call.params.get("amount").and_then(Value::as_i64).unwrap_or_else(|| int(&intent, "amount"));
    check_amount(amount, &currency)?;
    let customer =
        call.params.get("customer").and_then(Value::as_str).unwrap_or_else(|| text(&intent, "customer"));
    let customer = customer.to_owned();
    if !customer.is_empty() {
        customers::named(call.state, &customer, "customer")?;
    }
    let method = wanted_method(&call.params)?.map(|id| method_for(call.state, &id, &customer)).transpose()?;
    let params = &call.params;
    let intent = call.state.change("payment_intent", call.id(0), |intent| {
        apply(intent, params);
        intent.insert("currency".to_owned(), json!(currency));
        if let Some(method) = &method {
            choose(intent, method);
        }
    });
    Ok(Value::Object(intent))
}

fn choose(intent: &mut Object, method: &Object) {
    intent.insert("payment_method".to_owned(), or_null(method, "id"));
    intent.insert("status".to_owned(), json!("requires_confirmation"));
}

fn confirm(call: &mut Call<'_>) -> Result<Value, Error> {
    let id = call.id(0);
    let intent = call.state.find("payment_intent", id)?.clone();
    if !matches!(
        text(&intent, "status"),
        "requires_payment_method" | "requires_confirmation" | "requires_action"
    ) {
        return Err(unexpected(&intent, "confirmed"));
    }
    let chosen = text(&call.params, "payment_method");
    if chosen.is_empty() && text(&intent, "payment_method").is_empty() {
        let message = "A PaymentIntent is confirmed with a payment method; give one as `payment_method`.";
        return Err(Error::state(message).code("payment_intent_unexpected_state"));
    }
    let method = match chosen {
        "" => None,
        chosen => Some(method_for(call.state, chosen, text(&intent, "customer"))?),
    };
    let params = &call.params;
    call.state.change("payment_intent", id, |intent| {
        set(intent, params, &["receipt_email", "capture_method"]);
        if let Some(method) = &method {
            choose(intent, method);
        }
    });
    run(call.state, id, &call.params).map(Value::Object)
}

fn capture(call: &mut Call<'_>) -> Result<Value, Error> {
    let amount = call.params.get("amount_to_capture").and_then(Value::as_i64);
    payments::capture(call.state, call.id(0), amount)?;
    let params = &call.params;
    let intent = call.state.change("payment_intent", call.id(0), |intent| {
        merge(intent, params, "metadata");
        set(intent, params, &["statement_descriptor", "statement_descriptor_suffix"]);
    });
    Ok(Value::Object(intent))
}

fn cancel(call: &mut Call<'_>) -> Result<Value, Error> {
    payments::cancel(call.state, call.id(0), &or_null(&call.params, "cancellation_reason")).map(Value::Object)
}
