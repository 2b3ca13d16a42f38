//! The webhook endpoints of an account: what is registered at Stripe, and how another one is. It keeps no secret.
//! Source: docs.stripe.com/api/webhook_endpoints.

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::answer::{Attempt, Sent, Trouble};
use super::client::Client;
use super::outgoing::{AccountHeader, Body, Outgoing, STRIPE_VERSION};
use super::traffic::Sender;
use crate::contract::{METHODS, Params, Sensitivity, Verb};

const PATH: &str = "/v1/webhook_endpoints";
/// Most endpoints that one account can have (docs.stripe.com/webhooks).
pub const ENDPOINTS_MAX: usize = 16;
/// Stands for nearly all types in an endpoint's list.
pub const ALL_EVENTS: &str = "*";
/// Event types that a payment desk wants to see, besides those that the ledger and the guards live on.
const WANTED_EVENTS: &[&str] = &[
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "charge.failed",
    "charge.refunded",
    "charge.succeeded",
    "charge.updated",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "payout.created",
    "payout.failed",
    "payout.paid",
    "radar.early_fraud_warning.created",
    "radar.early_fraud_warning.updated",
];

/// A registered endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct WebhookEndpoint {
    /// `we_...`.
    pub id: String,
    /// Where Stripe delivers to.
    pub url: String,
    /// The version that events are rendered in; that of the account when Stripe names none.
    #[serde(default)]
    pub api_version: Option<String>,
    /// Types that are delivered; [`ALL_EVENTS`] stands for nearly all.
    pub enabled_events: Vec<String>,
    /// `enabled` or `disabled`.
    pub status: String,
}

impl WebhookEndpoint {
    /// Whether events of this type are delivered to it.
    #[must_use]
    pub fn delivers(&self, event_type: &str) -> bool {
        self.enabled_events.iter().any(|listed| listed == ALL_EVENTS || listed == event_type)
    }
}

/// Why Stripe did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Stripe said no.
    #[error("Stripe refused with status {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stripe's words, as far as they may be shown.
        message: String,
    },
    /// The key has no right to it.
    #[error("the key has no right to webhook endpoints")]
    NoPermission,
    /// Nothing was sent, for certain.
    #[error("Stripe was not reached: {0}")]
    NotSent(Trouble),
    /// The answer was lost, and with it whether anything changed.
    #[error("no answer from Stripe, and whether anything changed is not known: {0}")]
    Unknown(Trouble),
    /// Something else than the API answered.
    #[error("the answer is not Stripe's")]
    Foreign,
}

/// Whether the events of an account that is named like that come to endpoints for connected accounts, which are those of
/// its platform (docs.stripe.com/connect/webhooks). One that is reached by its context has endpoints of its own.
#[must_use]
pub fn is_connected(header: &AccountHeader) -> bool {
    matches!(header, AccountHeader::StripeAccount(_))
}

/// How the account is named whose endpoints get the events of the account with this header.
fn owner(header: &AccountHeader) -> AccountHeader {
    if is_connected(header) { AccountHeader::None } else { header.clone() }
}

/// Event types without which an unknown outcome stays unknown for longer, or a replay shows an old state.
#[must_use]
pub fn needed_events() -> Vec<&'static str> {
    let of = |spec: &&'static crate::contract::Spec| spec.settled_by.iter().chain(spec.turned_by);
    let mut types: Vec<_> = METHODS.iter().flat_map(of).copied().collect();
    types.sort_unstable();
    types.dedup();
    types
}

/// The types that an endpoint is registered with when none are named.
#[must_use]
pub fn recommended_events() -> Vec<&'static str> {
    let mut types = needed_events();
    types.extend(WANTED_EVENTS);
    types.sort_unstable();
    types.dedup();
    types
}

impl Client {
    /// All endpoints that can get events of the account which `header` names.
    ///
    /// # Errors
    /// When Stripe does not list them.
    pub async fn webhook_endpoints(
        &self,
        header: &AccountHeader,
        deadline: Option<Instant>,
    ) -> Result<Vec<WebhookEndpoint>, EndpointError> {
        let outgoing = Outgoing::read(PATH, "limit=100".to_owned(), owner(header));
        let mut list = answer(&self.send(&outgoing, &Sender::Gateway, deadline).await)?;
        let data = list.get_mut("data").map(Value::take).ok_or(EndpointError::Foreign)?;
        serde_json::from_value(data).map_err(|_| EndpointError::Foreign)
    }

    /// Registers an endpoint for the account which `header` names, whose events have the version that this build was
    /// written for. The secret is shown this once. `connected` asks for the events of connected accounts instead of the
    /// endpoint's own account's.
    ///
    /// # Errors
    /// When Stripe does not make it; see [`EndpointError::Unknown`].
    pub async fn create_webhook_endpoint(
        &self,
        url: &str,
        events: &[String],
        (header, connected): (&AccountHeader, bool),
        deadline: Option<Instant>,
    ) -> Result<(WebhookEndpoint, SecretString), EndpointError> {
        let mut params = Params::default();
        let mut add = |name: &str, value: &str| params.push(name, value, Sensitivity::Public);
        add("url", url);
        add("api_version", STRIPE_VERSION);
        for (index, event) in events.iter().enumerate() {
            add(&format!("enabled_events[{index}]"), event);
        }
        if connected {
            add("connect", "true");
        }
        add("description", "Tollgate");
        let outgoing = Outgoing::post(PATH, params.encode(), owner(header));
        let made = answer(&self.send(&outgoing, &Sender::Gateway, deadline).await)?;
        let secret = made.get("secret").and_then(Value::as_str).map(SecretString::from);
        let endpoint = serde_json::from_value(made).map_err(|_| EndpointError::Foreign)?;
        Ok((endpoint, secret.ok_or(EndpointError::Foreign)?))
    }

    /// Removes an endpoint.
    ///
    /// # Errors
    /// When Stripe does not remove it.
    pub async fn delete_webhook_endpoint(
        &self,
        id: &str,
        header: &AccountHeader,
        deadline: Option<Instant>,
    ) -> Result<(), EndpointError> {
        let path = format!("{PATH}/{id}");
        let outgoing = Outgoing {
            verb: Verb::Delete,
            template: format!("{PATH}/{{id}}"),
            body: Body::Empty,
            ..Outgoing::read(&path, String::new(), owner(header))
        };
        answer(&self.send(&outgoing, &Sender::Gateway, deadline).await).map(drop)
    }
}

fn answer(sent: &Sent) -> Result<Value, EndpointError> {
    let answer = match sent.last() {
        Some(Attempt::Answered(answer)) => answer,
        Some(Attempt::NotSent(trouble)) if sent.requests() == 0 => {
            return Err(EndpointError::NotSent(*trouble));
        }
        Some(Attempt::NotSent(trouble) | Attempt::Broken(trouble)) => {
            return Err(EndpointError::Unknown(*trouble));
        }
        None => return Err(EndpointError::NotSent(Trouble::Deadline)),
    };
    match answer.status {
        200 => answer.json().ok_or(EndpointError::Foreign),
        403 => Err(EndpointError::NoPermission),
        status => {
            let message = answer.error().map(|error| error.public_message(status));
            Err(message.map_or(EndpointError::Foreign, |message| EndpointError::Refused { status, message }))
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::super::script::{Script, reply};
    use super::*;

    const ENDPOINT: &str = r#"{"id":"we_1","object":"webhook_endpoint","api_version":null,"enabled_events":["*"],
        "status":"enabled","url":"https://a.example/webhooks/stripe","livemode":false,"secret":"whsec_shown"}"#;

    #[test]
    fn what_the_ledger_lives_on_is_among_the_recommended() {
        let recommended = recommended_events();
        for needed in ["refund.created", "refund.failed", "charge.refund.updated", "charge.dispute.closed"] {
            assert!(recommended.contains(&needed), "{needed}");
        }
        assert!(needed_events().iter().all(|needed| recommended.contains(needed)));
        assert!(!recommended.contains(&ALL_EVENTS));
    }

    #[tokio::test]
    async fn a_new_endpoint_gets_the_pinned_version_and_its_secret_is_told_once() {
        let script = Script::start(vec![reply(200, "", ENDPOINT)]).await;
        let events = ["refund.created".to_owned(), "refund.failed".to_owned()];
        let made = script
            .client()
            .create_webhook_endpoint(
                "https://a.example/webhooks/stripe",
                &events,
                (&AccountHeader::None, false),
                None,
            )
            .await;
        let (endpoint, secret) = made.unwrap();
        assert_eq!((endpoint.id.as_str(), secret.expose_secret()), ("we_1", "whsec_shown"));
        assert!(endpoint.delivers("refund.created"));
        let requests = script.requests().await;
        let body = requests[0].split_once("\r\n\r\n").unwrap().1;
        assert!(body.contains(&format!("api_version={STRIPE_VERSION}")), "{body}");
        assert!(body.contains("enabled_events[1]=refund.failed") && !body.contains("connect"), "{body}");
    }

    #[tokio::test]
    async fn what_stripe_says_is_told_apart() {
        let refusal = r#"{"error":{"message":"Invalid URL","type":"invalid_request_error"}}"#;
        let replies = [reply(400, "", refusal), reply(403, "", "{}"), reply(200, "", "<html>")];
        let script = Script::start(replies.into()).await;
        let client = script.client();
        let own = &AccountHeader::None;
        let refused = EndpointError::Refused { status: 400, message: "Invalid URL".to_owned() };
        assert_eq!(client.webhook_endpoints(own, None).await, Err(refused));
        assert_eq!(client.webhook_endpoints(own, None).await, Err(EndpointError::NoPermission));
        assert_eq!(client.webhook_endpoints(own, None).await, Err(EndpointError::Foreign));
    }

    #[tokio::test]
    async fn a_connected_account_is_heard_at_its_platform_and_one_with_a_context_at_itself() {
        let connected = AccountHeader::StripeAccount("acct_1".to_owned());
        let context = AccountHeader::StripeContext("org_1/acct_1".to_owned());
        for (header, sent) in [(connected, None), (context, Some("stripe-context: org_1/acct_1"))] {
            let list = reply(200, "", r#"{"data":[]}"#);
            let replies = vec![list, reply(200, "", ENDPOINT), reply(200, "", "{}")];
            let script = Script::start(replies).await;
            let client = script.client();
            client.webhook_endpoints(&header, None).await.unwrap();
            let (url, own) = ("https://a.example/webhooks/stripe/a", (&header, false));
            client.create_webhook_endpoint(url, &["*".to_owned()], own, None).await.unwrap();
            client.delete_webhook_endpoint("we_1", &header, None).await.unwrap();
            for request in script.requests().await {
                let (head, _) = request.split_once("\r\n\r\n").unwrap();
                let named = head
                    .lines()
                    .find(|line| line.starts_with("stripe-account") || line.starts_with("stripe-c"));
                assert_eq!(named, sent, "{head}");
            }
        }
    }
}
