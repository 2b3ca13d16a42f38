//! Exactly what goes out, in a form that can be stored and sent again byte for byte. It adds no secret.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::contract::{Host, Verb};
pub use crate::domain::account::AccountHeader;
use crate::domain::operation::hex;

/// The release of Stripe's API that the contract was written for; sent with every request.
pub const STRIPE_VERSION: &str = "2026-10-28.endive";

/// One request, complete but for the key that authorises it.
///
/// Stripe compares the parameters of a repeated idempotency key, so a resend must use the stored value as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outgoing {
    /// HTTP method.
    pub verb: Verb,
    /// Which of Stripe's hosts.
    pub host: Host,
    /// The path's template, such as `/v1/refunds/{refund}`: what traces and metrics name instead of the path.
    pub template: String,
    /// Path with its values filled in and percent-encoded; starts with `/`.
    pub path: String,
    /// Encoded query without the `?`; empty for none.
    pub query: String,
    /// What follows the headers.
    pub body: Body,
    /// The idempotency key. A POST without one is refused before it is sent; GET and DELETE go without, since Stripe
    /// takes none there (docs.stripe.com/api/idempotent_requests).
    pub idempotency_key: Option<String>,
    /// Value of `Stripe-Version`.
    pub version: String,
    /// On whose behalf.
    pub account: AccountHeader,
}

impl Outgoing {
    /// A read of the gateway's own, which no caller asked for.
    #[must_use]
    pub(super) fn read(path: &str, query: String, account: AccountHeader) -> Self {
        Self {
            verb: Verb::Get,
            host: Host::Api,
            template: path.to_owned(),
            path: path.to_owned(),
            query,
            body: Body::Empty,
            idempotency_key: None,
            version: STRIPE_VERSION.to_owned(),
            account,
        }
    }

    /// A POST of the gateway's own under a fresh idempotency key; without randomness there is none, and nothing is sent.
    #[must_use]
    pub(super) fn post(path: &str, form: String, account: AccountHeader) -> Self {
        let mut random = [0; 16];
        let key = getrandom::fill(&mut random).ok().map(|()| format!("tollgate-own-{}", hex(&random)));
        Self {
            verb: Verb::Post,
            body: Body::Form(form),
            idempotency_key: key,
            ..Self::read(path, String::new(), account)
        }
    }
}

/// A request's body. Its `Debug` shows the size alone, since bodies hold personal data.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// None, as for GET and DELETE.
    #[default]
    Empty,
    /// `application/x-www-form-urlencoded`.
    Form(String),
    /// `multipart/form-data`, for uploads.
    Multipart {
        /// What separates the parts.
        boundary: String,
        /// The whole body. Never stored: a body that was read back is empty and is refused before it is sent.
        #[serde(skip)]
        bytes: Bytes,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => out.write_str("Empty"),
            Self::Form(text) => write!(out, "Form({} bytes)", text.len()),
            Self::Multipart { bytes, .. } => write!(out, "Multipart({} bytes)", bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back_the_same_but_for_the_bytes_of_an_upload() {
        let refund = Outgoing {
            verb: Verb::Post,
            host: Host::Api,
            template: "/v1/refunds".to_owned(),
            path: "/v1/refunds".to_owned(),
            query: String::new(),
            body: Body::Form("charge=ch_1&amount=5".to_owned()),
            idempotency_key: Some("tg1-00".to_owned()),
            version: STRIPE_VERSION.to_owned(),
            account: AccountHeader::StripeAccount("acct_1".to_owned()),
        };
        let stored = serde_json::to_string(&refund).unwrap();
        assert!(stored.contains(r#""verb":"post","host":"api""#), "{stored}");
        assert_eq!(serde_json::from_str::<Outgoing>(&stored).unwrap(), refund);

        let bytes = Bytes::from_static(b"--x\r\nsecret evidence");
        let upload = Outgoing { body: Body::Multipart { boundary: "x".to_owned(), bytes }, ..refund };
        let stored = serde_json::to_string(&upload).unwrap();
        assert!(!stored.contains("evidence"), "{stored}");
        let body = serde_json::from_str::<Outgoing>(&stored).unwrap().body;
        assert_eq!(body, Body::Multipart { boundary: "x".to_owned(), bytes: Bytes::new() });
    }
}
