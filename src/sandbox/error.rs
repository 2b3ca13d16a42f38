//! Stripe's error envelope and the refusals endpoints share. It must not decide when to refuse.
//! Source: <https://docs.stripe.com/api/errors>.

use serde_json::{Value, json};

use super::object::Object;

/// A refusal as the API answers it. `saved` tells whether the answer is kept under the idempotency key: Stripe keeps what
/// an endpoint answered once it began, and forgets what was refused before.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{status} {}", super::object::text(.body, "message"))]
pub(super) struct Error {
    pub(super) status: u16,
    pub(super) saved: bool,
    pub(super) should_retry: Option<bool>,
    pub(super) rate_limited_reason: Option<String>,
    pub(super) body: Object,
}

impl Error {
    /// A refusal of the given type; add `code`, `param` and the rest with the methods below.
    pub(super) fn new(status: u16, kind: &str, message: impl Into<String>) -> Self {
        let mut body = Object::new();
        body.insert("message".to_owned(), Value::String(message.into()));
        body.insert("type".to_owned(), Value::String(kind.to_owned()));
        Self { status, saved: false, should_retry: None, rate_limited_reason: None, body }
    }

    /// 400 found before the endpoint began: parameters that cannot be right whatever the state is. Not saved.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    /// 400 because of the state of an object, found while the endpoint ran. Saved.
    pub(super) fn state(message: impl Into<String>) -> Self {
        Self { saved: true, ..Self::invalid(message) }
    }

    /// 404: the object named in the path does not exist.
    pub(super) fn not_found(kind: &str, id: &str) -> Self {
        let param = match kind {
            "refund" | "dispute" | "payment_method" | "tax_id" | "balance_transaction" => kind,
            "payment_intent" => "intent",
            _ => "id",
        };
        Self { status: 404, ..Self::missing(kind, id, param) }
    }

    /// 400: an object named in a parameter does not exist.
    pub(super) fn missing(kind: &str, id: &str, param: &str) -> Self {
        let noun = match kind {
            "payment_method" => "PaymentMethod",
            "radar.early_fraud_warning" => "early fraud warning",
            other => other,
        };
        Self::state(format!("No such {noun}: '{id}'")).code("resource_missing").param(param)
    }

    /// 400: a required parameter is absent.
    pub(super) fn required(param: &str) -> Self {
        Self::invalid(format!("Missing required param: {param}.")).code("parameter_missing").param(param)
    }

    /// 400: not an integer, or not one in range; `message` says which.
    pub(super) fn integer(param: &str, message: impl Into<String>) -> Self {
        Self::invalid(message).code("parameter_invalid_integer").param(param)
    }

    /// 402: the issuer, or a test card in its place, said no. Saved.
    pub(super) fn card(code: &str, decline_code: Option<&str>, message: &str) -> Self {
        let error = Self { saved: true, ..Self::new(402, "card_error", message).code(code) };
        match decline_code {
            Some(decline) => error.with("decline_code", json!(decline)),
            None => error,
        }
    }

    /// Adds `code` with the `doc_url` that goes with it.
    pub(super) fn code(self, code: &str) -> Self {
        let doc = format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-"));
        self.with("code", json!(code)).with("doc_url", json!(doc))
    }

    /// Names the parameter at fault.
    pub(super) fn param(self, param: &str) -> Self {
        self.with("param", json!(param))
    }

    /// Adds any other field of the envelope.
    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.body.insert(key.to_owned(), value);
        self
    }

    /// The answer's body. A 401 carries message and type alone; everything else links to its request log.
    pub(super) fn envelope(&self, request_id: &str, now: i64) -> Value {
        let mut body = self.body.clone();
        if self.status != 401 {
            let log = format!("https://dashboard.stripe.com/test/logs/{request_id}?t={now}");
            body.insert("request_log_url".to_owned(), Value::String(log));
        }
        body.sort_keys();
        json!({"error": super::object::shown(&body)})
    }
}
