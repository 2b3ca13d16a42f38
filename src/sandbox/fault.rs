//! Faults on demand: what goes wrong, with which requests, how often; read from JSON or from a flag. It must not carry
//! them out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Why a fault is not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The text does not have the parts of a fault.
    #[error("a fault is `kind:METHOD:/path/prefix[:name=value,..]`, but this is `{0}`")]
    Form(String),
    /// A setting is unknown, or its value is of the wrong type.
    #[error("fault setting not understood: {0}")]
    Setting(String),
    /// A kind lacks what it needs, or has what it cannot use.
    #[error("fault of kind `{kind}` {problem}")]
    Mismatch {
        /// The kind as written.
        kind: &'static str,
        /// What is missing or too much.
        problem: &'static str,
    },
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The connection closes without an answer and nothing happened.
    DropBefore,
    /// The connection closes without an answer after the effect was carried out.
    DropAfter,
    /// The answer's headers and half of its body arrive, then the connection closes.
    HalfBody,
    /// An answer with the given status instead of the effect.
    Status,
    /// The request is slow to execute; its key is in flight meanwhile.
    Latency,
    /// The effect happens at once, its answer is late.
    LatencyAfter,
    /// A proxy's HTML page with status 502 instead of an answer; nothing happened.
    Html,
    /// The connection is reset before anything happened.
    Reset,
    /// An event is delivered twice.
    WebhookDuplicate,
    /// An event's delivery is held back (2 s, or `ms`, of sandbox time), so that later events overtake it.
    WebhookReorder,
    /// An event is not delivered at all, and not tried again.
    WebhookDrop,
    /// An event is signed with a wrong secret.
    WebhookCorruptSignature,
}

/// Which requests a fault meets; empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The HTTP method in capitals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// How the path begins; with the `webhook_` kinds, how the event's type behind a slash begins.
    #[serde(default)]
    pub path_prefix: String,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests it meets.
    #[serde(rename = "match", default)]
    pub requests: Match,
    /// What goes wrong.
    pub kind: Kind,
    /// With `status`: the HTTP status, 400 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// With `status`: whether the answer is kept under the idempotency key.
    #[serde(default)]
    pub saved: bool,
    /// With `status`: whether the effect is carried out all the same.
    #[serde(default)]
    pub effect: bool,
    /// With `status`: the `Stripe-Should-Retry` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub should_retry: Option<bool>,
    /// With `status`: the `Stripe-Rate-Limited-Reason` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limited_reason: Option<String>,
    /// With `status`: the error's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// With `latency`, `latency_after` and `webhook_reorder`: how long, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// How many requests it meets; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How likely it meets a request that fits, from 0 to 1; always when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

impl Fault {
    /// Reads the flag's form, such as `drop_after:POST:/v1/refunds:times=1`; method and path may be `*`.
    ///
    /// # Errors
    /// Says which part is not understood.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let form = || Error::Form(text.to_owned());
        let mut parts = text.splitn(4, ':');
        let (Some(kind), Some(method), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(form());
        };
        if path != "*" && !path.starts_with('/') {
            return Err(form());
        }
        let mut fields = Map::new();
        for setting in parts.next().unwrap_or_default().split(',').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').ok_or_else(form)?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            fields.insert(name.to_owned(), value);
        }
        fields.insert("kind".to_owned(), Value::String(kind.to_owned()));
        let mut requests = Map::new();
        if method != "*" {
            requests.insert("method".to_owned(), Value::String(method.to_owned()));
        }
        if path != "*" {
            requests.insert("path_prefix".to_owned(), Value::String(path.to_owned()));
        }
        fields.insert("match".to_owned(), Value::Object(requests));
        Self::from_json(Value::Object(fields))
    }

    /// Reads the control endpoint's form.
    ///
    /// # Errors
    /// Says which setting is not understood, missing or too much.
    pub fn from_json(json: Value) -> Result<Self, Error> {
        let fault: Self = serde_json::from_value(json).map_err(|error| Error::Setting(error.to_string()))?;
        fault.check()?;
        Ok(fault)
    }

    /// Whether the fault meets such a request.
    #[must_use]
    pub fn fits(&self, method: &str, path: &str) -> bool {
        !self.kind.of_webhooks()
            && self.requests.method.as_deref().is_none_or(|wanted| wanted == method)
            && path.starts_with(&self.requests.path_prefix)
    }

    /// Whether the fault meets the delivery of an event of that type.
    #[must_use]
    pub fn fits_event(&self, kind: &str) -> bool {
        self.kind.of_webhooks() && format!("/{kind}").starts_with(&self.requests.path_prefix)
    }

    fn check(&self) -> Result<(), Error> {
        let kind = self.kind.name();
        let problem = match self.kind {
            Kind::Status if !self.status.is_some_and(|status| (400..600).contains(&status)) => {
                "needs `status` from 400 to 599"
            }
            Kind::Latency | Kind::LatencyAfter if self.ms.is_none() => "needs `ms`",
            Kind::Status | Kind::Latency | Kind::LatencyAfter => "",
            Kind::WebhookReorder if self.status.is_none() && !self.saved && !self.effect => "",
            _ if self.status.is_some() || self.saved || self.effect || self.ms.is_some() => {
                "takes no `status`, `saved`, `effect` or `ms`"
            }
            _ => "",
        };
        let problem = match self.probability {
            Some(probability) if !(0.0..=1.0).contains(&probability) => "needs a `probability` from 0 to 1",
            _ => problem,
        };
        if problem.is_empty() { Ok(()) } else { Err(Error::Mismatch { kind, problem }) }
    }
}

impl Kind {
    fn of_webhooks(self) -> bool {
        matches!(
            self,
            Self::WebhookDuplicate | Self::WebhookReorder | Self::WebhookDrop | Self::WebhookCorruptSignature
        )
    }

    fn name(self) -> &'static str {
        match self {
            Self::DropBefore => "drop_before",
            Self::DropAfter => "drop_after",
            Self::HalfBody => "half_body",
            Self::Status => "status",
            Self::Latency => "latency",
            Self::LatencyAfter => "latency_after",
            Self::Html => "html",
            Self::Reset => "reset",
            Self::WebhookDuplicate => "webhook_duplicate",
            Self::WebhookReorder => "webhook_reorder",
            Self::WebhookDrop => "webhook_drop",
            Self::WebhookCorruptSignature => "webhook_corrupt_signature",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Fault, Kind};

    #[test]
    fn the_flag_form_says_what_the_json_form_says() {
        let flag = Fault::parse("status:POST:/v1/refunds:status=429,rate_limited_reason=global-rate,times=2")
            .unwrap();
        let json = Fault::from_json(serde_json::json!({
            "match": {"method": "POST", "path_prefix": "/v1/refunds"},
            "kind": "status", "status": 429, "rate_limited_reason": "global-rate", "times": 2,
        }));
        assert_eq!(flag, json.unwrap());
        assert!(flag.fits("POST", "/v1/refunds/re_1/cancel"));
        assert!(!flag.fits("GET", "/v1/refunds"));
        let all = Fault::parse("drop_after:*:*").unwrap();
        assert_eq!((all.kind, all.fits("GET", "/v1/balance")), (Kind::DropAfter, true));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(Fault::parse("drop_after").unwrap_err(), Error::Form("drop_after".to_owned()));
        for (text, said) in [
            ("drop_often:POST:/v1", "drop_often"),
            ("drop_after:POST:/v1:tims=1", "tims"),
            ("status:POST:/v1", "needs `status`"),
            ("latency:POST:/v1", "needs `ms`"),
            ("reset:POST:/v1:ms=1", "takes no"),
            ("reset:POST:/v1:probability=2", "from 0 to 1"),
            ("reset:POST:v1", "kind:METHOD"),
        ] {
            let message = Fault::parse(text).unwrap_err().to_string();
            assert!(message.contains(said), "{text}: {message}");
        }
    }
}
