//! Customers. It must not know how customers are charged.
//! Source: <https://docs.stripe.com/api/customers>.

use serde_json::{Value, json};

use super::error::Error;
use super::object::{self, Object, flag, merge, or_null, set, text};
use super::page;
use super::routes::{Call, LIST, Route, delete, get, list, post};

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
    "default_source",
];

fn create(call: &mut Call<'_>) -> Result<Value, Error> {
    let id = call.state.new_id("cus");
    let prefix = call.state.random(8).to_uppercase();
    let mut customer = object::from(json!({
        "id": id, "object": "customer", "address": null, "balance": 0, "created": call.state.now(),
        "currency": null, "customer_account": null, "default_source": null, "delinquent": false,
        "description": null, "discount": null, "email": null, "invoice_prefix": prefix,
        "invoice_settings": {
            "custom_fields": null, "default_payment_method": null, "footer": null, "rendering_options": null,
        },
        "livemode": false, "metadata": {}, "name": null, "next_invoice_sequence": 1, "phone": null,
        "preferred_locales": [], "shipping": null, "tax_exempt": "none", "test_clock": null,
    }));
    apply(&mut customer, &call.params);
    customer.insert("test_clock".to_owned(), or_null(&call.params, "test_clock"));
    call.state.insert(customer.clone());
    call.state.emit("customer.created", &customer);
    Ok(Value::Object(customer))
}

fn apply(customer: &mut Object, params: &Object) {
    set(customer, params, PLAIN);
    merge(customer, params, "metadata");
    merge(customer, params, "invoice_settings");
}

/// The customer, if it exists and is not deleted.
fn living<'a>(call: &'a Call<'_>) -> Result<&'a Object, Error> {
    let customer = call.state.find("customer", call.id(0))?;
    if flag(customer, "deleted") { Err(Error::not_found("customer", call.id(0))) } else { Ok(customer) }
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("customer", call.id(0)).cloned().map(Value::Object)
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    page::list(call, "customer", |customer, params| {
        !flag(customer, "deleted") && page::equal(customer, params, &["email", "test_clock"])
    })
}

fn update(call: &mut Call<'_>) -> Result<Value, Error> {
    living(call)?;
    let params = &call.params;
    let customer = call.state.update("customer", call.id(0), "customer.updated", |c| apply(c, params));
    Ok(Value::Object(customer))
}

fn remove(call: &mut Call<'_>) -> Result<Value, Error> {
    let customer = living(call)?.clone();
    let deleted = json!({"id": text(&customer, "id"), "object": "customer", "deleted": true});
    call.state.emit("customer.deleted", &customer);
    call.state.insert(object::from(deleted.clone()));
    Ok(deleted)
}
