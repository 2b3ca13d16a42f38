//! Webhook endpoints: targets registered through the API. It must not deliver anything.
//! Source: <https://docs.stripe.com/api/webhook_endpoints>.

use std::sync::{Arc, Mutex, PoisonError};

use http::Uri;
use serde_json::{Value, json};

use super::error::Error;
use super::object::{self, Object, merge, or_null, set, text};
use super::page;
use super::routes::{Call, LIST, Route, delete, get, list, post};
use super::state::State;

/// Most endpoints of one account: <https://docs.stripe.com/webhooks>.
const ENDPOINTS_MAX: usize = 16;

/// Characters of a signing secret behind its prefix.
const SECRET_CHARS: usize = 32;

/// The sandbox's own key for the signing secret, which only the answer to create shows.
pub(super) const SECRET: &str = "_secret";

/// The sandbox's own key for whether the endpoint gets the events of connected accounts in place of its account's own:
/// <https://docs.stripe.com/connect/webhooks>.
const CONNECT: &str = "_connect";

/// The endpoints of a platform that get the events of connected accounts; both sides share the list.
pub(super) type Platform = Arc<Mutex<Vec<Object>>>;

pub(super) const ROUTES: &[Route] = &[
    post(
        "/v1/webhook_endpoints",
        "webhook_endpoint",
        &["url!:5000 enabled_events!:list api_version connect:bool description:5000 metadata:metadata"],
        create,
    ),
    list("/v1/webhook_endpoints", "webhook_endpoint", &[LIST], all),
    get("/v1/webhook_endpoints/{id}", "webhook_endpoint", &[], show),
    post(
        "/v1/webhook_endpoints/{id}",
        "webhook_endpoint",
        &["url:5000 enabled_events:list disabled:bool description:5000 metadata:metadata"],
        update,
    ),
    delete("/v1/webhook_endpoints/{id}", "webhook_endpoint", remove),
];

/// The event types an endpoint asks for; `*` stands for all.
pub(super) fn enabled(endpoint: &Object) -> impl Iterator<Item = &str> {
    let types = endpoint.get("enabled_events").and_then(Value::as_array);
    types.into_iter().flatten().filter_map(Value::as_str)
}

/// Whether the endpoint gets the events of connected accounts.
fn is_for_connected(endpoint: &Object) -> bool {
    endpoint.get(CONNECT).and_then(Value::as_bool).unwrap_or_default()
}

/// Shows connected accounts which endpoints of their platform are for them.
pub(super) fn publish(state: &State) {
    if !state.connected {
        let endpoints = state.all("webhook_endpoint").filter(|endpoint| is_for_connected(endpoint));
        *state.platform.lock().unwrap_or_else(PoisonError::into_inner) = endpoints.cloned().collect();
    }
}

/// The endpoints that get the account's events.
pub(super) fn of_account(state: &State) -> Vec<Object> {
    let own = state.all("webhook_endpoint").filter(|endpoint| !is_for_connected(endpoint));
    let mut endpoints: Vec<Object> = own.cloned().collect();
    if state.connected {
        endpoints.extend(state.platform.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    }
    endpoints
}

fn check(params: &Object) -> Result<(), Error> {
    if let Some(url) = params.get("url") {
        let uri: Option<Uri> = url.as_str().and_then(|url| url.parse().ok());
        let usable = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        if !uri.as_ref().is_some_and(usable) {
            let message = "Invalid URL: an explicit scheme (such as https) and a host must be provided.";
            return Err(Error::invalid(message).code("url_invalid").param("url"));
        }
    }
    if params.contains_key("enabled_events") && enabled(params).next().is_none() {
        let message = "At least one event type must be enabled, or `*` for all.";
        return Err(Error::invalid(message).param("enabled_events"));
    }
    Ok(())
}

fn create(call: &mut Call<'_>) -> Result<Value, Error> {
    check(&call.params)?;
    if call.state.all("webhook_endpoint").count() >= ENDPOINTS_MAX {
        let message = format!("You have reached the maximum of {ENDPOINTS_MAX} webhook endpoints.");
        return Err(Error::state(message));
    }
    let id = call.state.new_id("we");
    let secret = format!("whsec_{}", call.state.random(SECRET_CHARS));
    let params = &call.params;
    let mut endpoint = object::from(json!({
        "id": id, "object": "webhook_endpoint", "api_version": or_null(params, "api_version"),
        "application": null, "created": call.state.now(), "description": or_null(params, "description"),
        "enabled_events": params.get("enabled_events"), "livemode": false, "metadata": {}, "status": "enabled",
        "url": params.get("url"), SECRET: secret, CONNECT: params.get("connect"),
    }));
    merge(&mut endpoint, params, "metadata");
    call.state.insert(endpoint.clone());
    publish(call.state);
    endpoint.insert("secret".to_owned(), Value::String(secret));
    Ok(Value::Object(endpoint))
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    page::list(call, "webhook_endpoint", |_, _| true)
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("webhook_endpoint", call.id(0)).cloned().map(Value::Object)
}

fn update(call: &mut Call<'_>) -> Result<Value, Error> {
    check(&call.params)?;
    call.state.find("webhook_endpoint", call.id(0))?;
    let params = &call.params;
    let endpoint = call.state.change("webhook_endpoint", call.id(0), |endpoint| {
        set(endpoint, params, &["url", "enabled_events", "description"]);
        merge(endpoint, params, "metadata");
        if let Some(disabled) = params.get("disabled").and_then(Value::as_bool) {
            let status = if disabled { "disabled" } else { "enabled" };
            endpoint.insert("status".to_owned(), Value::String(status.to_owned()));
        }
    });
    publish(call.state);
    Ok(Value::Object(endpoint))
}

fn remove(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("webhook_endpoint", call.id(0))?;
    let endpoint = call.state.remove("webhook_endpoint", call.id(0)).unwrap_or_default();
    publish(call.state);
    Ok(json!({"id": text(&endpoint, "id"), "object": "webhook_endpoint", "deleted": true}))
}
