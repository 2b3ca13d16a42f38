//! Stripe's errors as they stand in a body. What a gRPC caller may read of one is decided here; which status it becomes
//! is not.

use serde_json::Value;

use crate::domain::limits::STRIPE_MESSAGE_CHARS_MAX;

/// What callers read when the gateway's own credential was refused: Stripe's text quotes parts of the key.
const CREDENTIAL_REFUSED: &str = "Stripe refused the gateway's credentials";
/// Beginnings of keys and secrets, of which Stripe's messages may quote masked parts.
const SECRET_PREFIXES: [&str; 6] = ["sk_test_", "sk_live_", "rk_test_", "rk_live_", "sk_org_", "whsec_"];

/// The `error` of a Stripe answer (docs.stripe.com/api/errors). Absent members are `None`; those that nobody here
/// needs, above all the link into Stripe's request log, are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StripeError {
    /// Stripe's `type`, such as `card_error`. HTTP statuses tell more: 401, 403, 404, 409 and 429 all say
    /// `invalid_request_error`.
    pub kind: String,
    /// Short code for programs, such as `charge_already_refunded`.
    pub code: Option<String>,
    /// The issuer's reason of a decline.
    pub decline_code: Option<String>,
    /// What Stripe advises after a decline, such as `do_not_try_again`.
    pub advice_code: Option<String>,
    /// What the card network advises.
    pub network_advice_code: Option<String>,
    /// The card network's reason.
    pub network_decline_code: Option<String>,
    /// The parameter at fault, in Stripe's spelling.
    pub param: Option<String>,
    /// Stripe's text; not for callers as it is, see [`StripeError::public_message`].
    message: Option<String>,
    /// Page about the code.
    pub doc_url: Option<String>,
    /// Id of the charge concerned.
    pub charge: Option<String>,
    /// Id of the payment intent concerned.
    pub payment_intent_id: Option<String>,
    /// Id of the payment method concerned.
    pub payment_method_id: Option<String>,
    /// Id of the setup intent concerned.
    pub setup_intent_id: Option<String>,
}

impl StripeError {
    /// Reads the error of a body, in the API's shape or in that of OAuth (`error` is a text there); `None` when the body
    /// carries none.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        match body.get("error")? {
            Value::Object(members) => Some(Self::of(members)),
            Value::String(code) => Some(Self {
                kind: "oauth_error".to_owned(),
                code: Some(code.clone()),
                message: body.get("error_description").and_then(Value::as_str).map(str::to_owned),
                ..Self::default()
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
        }
    }

    fn of(members: &serde_json::Map<String, Value>) -> Self {
        let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
        let quotes_a_key = |text: &String| SECRET_PREFIXES.iter().any(|prefix| text.contains(prefix));
        // Objects come whole; a bare id is taken too.
        let id = |name: &str| {
            let member = members.get(name)?;
            member.get("id").unwrap_or(member).as_str().map(str::to_owned)
        };
        Self {
            kind: text("type").unwrap_or_default(),
            code: text("code"),
            decline_code: text("decline_code"),
            advice_code: text("advice_code"),
            network_advice_code: text("network_advice_code"),
            network_decline_code: text("network_decline_code"),
            param: text("param"),
            message: text("message")
                .map(|text| if quotes_a_key(&text) { CREDENTIAL_REFUSED.to_owned() } else { text }),
            doc_url: text("doc_url"),
            charge: id("charge"),
            payment_intent_id: id("payment_intent"),
            payment_method_id: id("payment_method"),
            setup_intent_id: id("setup_intent"),
        }
    }

    /// Stripe's text as a caller may read it under this HTTP status: neutral where the gateway's credential is the
    /// matter (401, 403), and cut to a length that fits a trailer.
    #[must_use]
    pub fn public_message(&self, status: u16) -> String {
        if matches!(status, 401 | 403) {
            return CREDENTIAL_REFUSED.to_owned();
        }
        self.message
            .as_deref()
            .unwrap_or("Stripe gave no message")
            .chars()
            .take(STRIPE_MESSAGE_CHARS_MAX)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(body: &str) -> StripeError {
        StripeError::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn reads_a_decline_with_the_ids_of_its_objects() {
        let error = parse(
            r#"{"error":{"type":"card_error","code":"card_declined","decline_code":"lost_card",
                "advice_code":"do_not_try_again","network_decline_code":"05","message":"Your card was declined.",
                "charge":"ch_1","payment_intent":{"id":"pi_1","amount":5},"request_log_url":"https://dashboard/1"}}"#,
        );
        assert_eq!((error.kind.as_str(), error.code.as_deref()), ("card_error", Some("card_declined")));
        assert_eq!(error.decline_code.as_deref(), Some("lost_card"));
        assert_eq!(error.advice_code.as_deref(), Some("do_not_try_again"));
        assert_eq!(error.network_decline_code.as_deref(), Some("05"));
        assert_eq!(
            (error.charge.as_deref(), error.payment_intent_id.as_deref()),
            (Some("ch_1"), Some("pi_1"))
        );
        assert_eq!(error.public_message(402), "Your card was declined.");
        assert!(!format!("{error:?}").contains("dashboard"));
    }

    #[test]
    fn reads_the_shape_of_oauth() {
        let error = parse(r#"{"error":"invalid_client","error_description":"No such application"}"#);
        assert_eq!((error.kind.as_str(), error.code.as_deref()), ("oauth_error", Some("invalid_client")));
        assert_eq!(error.public_message(400), "No such application");
    }

    #[test]
    fn a_body_without_an_error_has_none() {
        for body in ["", "<html>", "[]", "null", r#"{"id":"re_1"}"#, r#"{"error":null}"#, r#"{"error":[1]}"#]
        {
            assert_eq!(StripeError::parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn no_part_of_a_key_is_ever_shown() {
        let error = parse(
            r#"{"error":{"type":"invalid_request_error","message":"Invalid API Key: sk_test_****wxyz"}}"#,
        );
        for status in [400, 401, 403, 500] {
            assert_eq!(error.public_message(status), CREDENTIAL_REFUSED);
        }
        assert!(!format!("{error:?}").contains("wxyz"));
        let error = parse(
            r#"{"error":{"type":"invalid_request_error","message":"key ****wxyz lacks a permission"}}"#,
        );
        assert_eq!(error.public_message(403), CREDENTIAL_REFUSED);
    }

    proptest! {
        #[test]
        fn any_message_is_cut_to_the_limit(message in any::<String>(), times in 1usize..400) {
            let body = serde_json::json!({"error": {"message": message.repeat(times)}}).to_string();
            let shown = parse(&body).public_message(400);
            prop_assert!(shown.chars().count() <= STRIPE_MESSAGE_CHARS_MAX);
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(StripeError::parse(&body));
        }
    }
}
