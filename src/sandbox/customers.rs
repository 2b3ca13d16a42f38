//! Customers. It must not know how customers are charged.
//! Source: <https://docs.stripe.com/api/customers>.

use serde_json::{Value, json};

use super::error::Error;
use super::object::{self, Object, flag, merge, or_null, set, sub, text};
use super::routes::{Call, LIST, Route, delete, get, list, post};
use super::state::State;
use super::{customer_items, page, payment_methods, search};

/// An address, inside braces.
pub(super) const ADDRESS: &str = "city:5000 country:5000 line1:5000 line2:5000 postal_code:5000 state:5000";

/// What create and update share.
const FIELDS: &str = "name:256 email:512 phone:20 description:5000 business_name:150 individual_name:150 metadata:metadata \
    preferred_locales:list balance:int cash_balance{settings{reconciliation_mode:automatic|manual|merchant_default}} \
    invoice_prefix:12 next_invoice_sequence:positive tax_exempt:none|exempt|reverse source validate:bool \
    invoice_settings{custom_fields[name:40 value:140] default_payment_method footer:5000 \
    rendering_options{amount_tax_display template}}";

pub(super) const ROUTES: &[Route] = &[
    post(
        "/v1/customers",
        "customer",
        &[
            FIELDS,
            "address{",
            ADDRESS,
            "} shipping{name! phone address!{",
            ADDRESS,
            "}} payment_method tax_id_data[type! value!] test_clock",
            "tax{ip_address validate_location:deferred|immediately}",
        ],
        create,
    ),
    list("/v1/customers", "customer", &[LIST, "email:512 test_clock"], all),
    list("/v1/customers/search", "customer", &[search::PARAMS], find),
    get("/v1/customers/{id}", "customer", &[], show),
    post(
        "/v1/customers/{id}",
        "customer",
        &[
            FIELDS,
            "address{",
            ADDRESS,
            "} shipping{name! phone address!{",
            ADDRESS,
            "}} default_source tax{ip_address validate_location:auto|deferred|immediately}",
        ],
        update,
    ),
    delete("/v1/customers/{id}", "customer", remove),
];

const PLAIN: &[&str] = &[
    "address",
    "balance",
    "business_name",
    "description",
    "email",
    "individual_name",
    "invoice_prefix",
    "name",
    "next_invoice_sequence",
    "phone",
    "preferred_locales",
    "shipping",
    "tax_exempt",
];

/// The customer named in a path, if it exists and is not deleted.
pub(super) fn living<'a>(state: &'a State, id: &str) -> Result<&'a Object, Error> {
    let customer = state.find("customer", id)?;
    if flag(customer, "deleted") { Err(Error::not_found("customer", id)) } else { Ok(customer) }
}

/// The customer named in a parameter, if it exists and is not deleted.
pub(super) fn named<'a>(state: &'a State, id: &str, param: &str) -> Result<&'a Object, Error> {
    living(state, id).map_err(|_| Error::missing("customer", id, param))
}

fn create(call: &mut Call<'_>) -> Result<Value, Error> {
    check(&call.params)?;
    let wanted = text(&call.params, "payment_method").to_owned();
    let default = default_method(&call.params).to_owned();
    if !default.is_empty() && default != wanted {
        return Err(not_attached(&default));
    }
    let id = call.state.new_id("cus");
    // Whether the payment method can be attached must be known before the customer exists.
    let method = (!wanted.is_empty())
        .then(|| payment_methods::resolve(call.state, &wanted, "payment_method"))
        .transpose()?
        .map(|method| payment_methods::attachable(&method).map(|()| method))
        .transpose()?;
    let customer = build(call, &id);
    call.state.insert(customer.clone());
    for tax_id in call.params.get("tax_id_data").and_then(Value::as_array).into_iter().flatten() {
        if let Some(tax_id) = tax_id.as_object() {
            customer_items::add_tax_id(call.state, &id, tax_id);
        }
    }
    call.state.emit("customer.created", &customer);
    if let Some(method) = method {
        let attached = payment_methods::attach_to(call.state, &method, &id)?;
        if !default.is_empty() {
            call.state.change("customer", &id, |customer| set_default(customer, text(&attached, "id")));
        }
    }
    call.state.find("customer", &id).cloned().map(Value::Object)
}

fn build(call: &mut Call<'_>, id: &str) -> Object {
    let prefix = call.state.random(8).to_uppercase();
    let mut customer = object::from(json!({
        "id": id, "object": "customer", "address": null, "balance": 0, "created": call.state.now(),
        "currency": null, "customer_account": null, "default_source": null, "delinquent": false,
        "description": null, "discount": null, "email": null, "invoice_prefix": prefix,
        "invoice_settings": {
            "custom_fields": null, "default_payment_method": null, "footer": null, "rendering_options": null,
        },
        "livemode": false, "metadata": {}, "name": null, "next_invoice_sequence": 1, "phone": null,
        "preferred_locales": [], "shipping": null, "tax_exempt": "none",
        "test_clock": or_null(&call.params, "test_clock"),
    }));
    apply(&mut customer, &call.params);
    customer
}

fn apply(customer: &mut Object, params: &Object) {
    set(customer, params, PLAIN);
    merge(customer, params, "metadata");
    merge(customer, params, "invoice_settings");
    if let Some(settings) = sub(params, "cash_balance").and_then(|cash| sub(cash, "settings")) {
        customer.insert("_reconciliation_mode".to_owned(), or_null(settings, "reconciliation_mode"));
    }
}

fn set_default(customer: &mut Object, method: &str) {
    if let Some(settings) = customer.get_mut("invoice_settings").and_then(Value::as_object_mut) {
        settings.insert("default_payment_method".to_owned(), json!(method));
    }
}

/// Refuses what the sandbox does not simulate, and prefixes of the wrong form.
fn check(params: &Object) -> Result<(), Error> {
    for name in ["source", "default_source"] {
        if !text(params, name).is_empty() {
            let message = "Sources are not simulated; use payment methods instead.";
            return Err(Error::invalid(message).param(name));
        }
    }
    let prefix = text(params, "invoice_prefix");
    if !prefix.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
        let message = "Invoice prefixes have uppercase letters and digits only.";
        return Err(Error::invalid(message).param("invoice_prefix"));
    }
    Ok(())
}

fn default_method(params: &Object) -> &str {
    sub(params, "invoice_settings").map_or("", |settings| text(settings, "default_payment_method"))
}

fn not_attached(method: &str) -> Error {
    let message =
        format!("The customer does not have a payment method with the ID {method}; attach it first.");
    Error::state(message).code("resource_missing").param("invoice_settings[default_payment_method]")
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("customer", call.id(0)).cloned().map(Value::Object)
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    page::list(call, "customer", |customer, params| {
        !flag(customer, "deleted") && page::equal(customer, params, &["email", "test_clock"])
    })
}

fn find(call: &mut Call<'_>) -> Result<Value, Error> {
    search::run(call, "customer")
}

fn update(call: &mut Call<'_>) -> Result<Value, Error> {
    check(&call.params)?;
    let id = call.id(0);
    living(call.state, id)?;
    let default = default_method(&call.params);
    let owned =
        call.state.get("payment_method", default).is_some_and(|method| text(method, "customer") == id);
    if !default.is_empty() && !owned {
        return Err(not_attached(default));
    }
    let params = &call.params;
    let customer = call.state.update("customer", id, "customer.updated", |customer| apply(customer, params));
    Ok(Value::Object(customer))
}

fn remove(call: &mut Call<'_>) -> Result<Value, Error> {
    let customer = living(call.state, call.id(0))?.clone();
    let deleted = json!({"id": text(&customer, "id"), "object": "customer", "deleted": true});
    payment_methods::abandon(call.state, call.id(0));
    call.state.emit("customer.deleted", &customer);
    call.state.insert(object::from(deleted.clone()));
    Ok(deleted)
}
