//! Puts a customer, payments and a dispute into a fresh sandbox, through the API that everybody uses.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::failure::Failure;
use crate::cli::http;

/// How often, and how many times, a dispute that is on its way is looked for.
const DISPUTE_POLL: Duration = Duration::from_millis(25);
const DISPUTE_POLLS_MAX: u32 = 100;

/// Ids of what is in the sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Seeds {
    /// A customer, `cus_...`.
    pub(super) customer: String,
    /// Its payment method, `pm_...`.
    pub(super) payment_method: String,
    /// A payment of 20.00 USD to refund, `pi_...`.
    pub(super) payment_intent: String,
    /// Further payments.
    pub(super) payment_intents: Vec<String>,
    /// A payment that is disputed.
    pub(super) disputed_payment_intent: String,
    /// Its dispute, `dp_...`.
    pub(super) dispute: String,
}

struct Stripe<'a> {
    base: &'a str,
    key: &'a str,
}

/// Fills the sandbox at `base`.
pub(super) async fn fill(base: &str, key: &str) -> Result<Seeds, Failure> {
    let stripe = Stripe { base, key };
    let form = "name=Ada+Lovelace&email=ada%40example.com&description=Made+by+tollgate+dev";
    let customer = stripe.make("/v1/customers", form).await?;
    let attach = "/v1/payment_methods/pm_card_visa/attach";
    let payment_method = stripe.make(attach, &format!("customer={customer}")).await?;
    let default = format!("invoice_settings[default_payment_method]={payment_method}");
    stripe.make(&format!("/v1/customers/{customer}"), &default).await?;
    let of_customer = format!("payment_method={payment_method}&customer={customer}");

    // Its money is available at once, so that refunds have something to come from.
    let first = stripe.pay("amount=50000&currency=usd", "payment_method=pm_card_bypassPending").await?;
    let payment_intent = stripe.pay("amount=2000&currency=usd", &of_customer).await?;
    let second = stripe.pay("amount=4500&currency=usd", &of_customer).await?;
    let third = stripe.pay("amount=1250&currency=usd", &of_customer).await?;
    let disputed = stripe.pay("amount=3000&currency=usd", "payment_method=pm_card_createDispute").await?;
    let dispute = stripe.dispute(&disputed).await?;
    Ok(Seeds {
        customer,
        payment_method,
        payment_intent,
        payment_intents: vec![first, second, third],
        disputed_payment_intent: disputed,
        dispute,
    })
}

impl Stripe<'_> {
    async fn make(&self, path: &str, form: &str) -> Result<String, Failure> {
        let (status, object) = http::ask(self.base, "POST", path, Some(self.key), form).await?;
        match object.get("id").and_then(Value::as_str) {
            Some(id) if status.is_success() => Ok(id.to_owned()),
            _ => Err(Failure::Start(format!("the sandbox refused `POST {path}`: {object}"))),
        }
    }

    async fn pay(&self, amount: &str, with: &str) -> Result<String, Failure> {
        let form = format!(
            "{amount}&{with}&confirm=true&automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never"
        );
        self.make("/v1/payment_intents", &form).await
    }

    /// A dispute comes up a moment after its payment.
    async fn dispute(&self, payment_intent: &str) -> Result<String, Failure> {
        let path = format!("/v1/disputes?payment_intent={payment_intent}");
        for _ in 0..DISPUTE_POLLS_MAX {
            let (_, list) = http::ask(self.base, "GET", &path, Some(self.key), "").await?;
            if let Some(id) = list.pointer("/data/0/id").and_then(Value::as_str) {
                return Ok(id.to_owned());
            }
            tokio::time::sleep(DISPUTE_POLL).await;
        }
        Err(Failure::Start(format!("the sandbox made no dispute of `{payment_intent}`")))
    }
}
