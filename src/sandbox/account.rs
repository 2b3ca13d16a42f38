//! `GET /v1/account`: who the key belongs to. It must not change anything.

use serde_json::{Value, json};

use super::error::Error;
use super::routes::{Call, Route, get};

pub(super) const ROUTES: &[Route] = &[get("/v1/account", "account", &[], show)];

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    Ok(json!({
        "id": call.state.account_id, "object": "account", "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"}, "charges_enabled": true,
        "controller": {"type": "account"}, "country": "US", "default_currency": "usd", "details_submitted": true,
        "email": "sandbox@example.com", "metadata": {}, "payouts_enabled": true,
        "settings": {
            "dashboard": {"display_name": "Sandbox", "timezone": "Etc/UTC"},
            "payments": {"statement_descriptor": "SANDBOX"},
            "payouts": {
                "debit_negative_balances": true, "schedule": {"delay_days": 2, "interval": "daily"},
                "statement_descriptor": null,
            },
        },
        "type": "standard",
    }))
}
