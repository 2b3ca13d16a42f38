//! Which API keys are let in, and what restricted ones may do. It must not know what an endpoint does.
//! Sources: <https://docs.stripe.com/keys/restricted-api-keys>, <https://docs.stripe.com/keys/organization-api-keys>.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Options;
use super::error::Error;
use super::pipeline::Asked;
use super::routes::{self, Route};

/// Permissions whose names do not follow from the path.
const NAMES: &[(&str, &str)] = &[
    ("account", "accounts_kyc_basic"),
    ("balance", "balance"),
    ("balance_transactions", "balance_transaction_source"),
    ("radar", "early_fraud_warning"),
    ("webhook_endpoints", "webhook"),
];

/// A key that may do some things only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestrictedKey {
    /// The key, `rk_test_...`.
    pub key: String,
    /// What it may do, such as `refund_write`; to write includes to read.
    pub rights: BTreeSet<String>,
}

impl std::fmt::Debug for RestrictedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestrictedKey").field("rights", &self.rights).finish_non_exhaustive()
    }
}

impl RestrictedKey {
    /// A key that has all rights but these.
    #[must_use]
    pub fn without(key: impl Into<String>, missing: &[&str]) -> Self {
        let rights = rights().into_iter().filter(|right| !missing.contains(&right.as_str())).collect();
        Self { key: key.into(), rights }
    }

    /// Reads `KEY=RIGHT,RIGHT`.
    ///
    /// # Errors
    /// When the form is another one or a right does not exist; the rights that do are named.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (key, rights) = text.split_once('=').ok_or("a restricted key is written `KEY=RIGHT,RIGHT`")?;
        let rights = rights.split(',').filter(|right| !right.is_empty()).map(str::to_owned).collect();
        Self { key: key.to_owned(), rights }.checked()
    }

    /// The key, if all that it says makes sense.
    pub(super) fn checked(self) -> Result<Self, String> {
        if !self.key.starts_with("rk_test_") {
            return Err("a restricted key begins with `rk_test_`".to_owned());
        }
        let known = rights();
        match self.rights.iter().find(|right| !known.contains(*right)) {
            Some(right) => {
                let known = known.into_iter().collect::<Vec<_>>().join(", ");
                Err(format!("`{right}` is no right of this sandbox; those are {known}"))
            }
            None => Ok(self),
        }
    }

    fn may(&self, right: &str) -> bool {
        let wider = right.strip_suffix("_read").map(|noun| format!("{noun}_write"));
        self.rights.contains(right) || wider.is_some_and(|wider| self.rights.contains(&wider))
    }
}

/// Who sent a request.
#[derive(Debug)]
pub(super) enum Admitted {
    /// The holder of the secret key, or of the organisation's.
    All,
    /// The holder of a restricted one.
    Some(RestrictedKey),
}

impl Admitted {
    /// Whether the endpoint is open to the key.
    pub(super) fn check(&self, route: &Route, account: &str) -> Result<(), Error> {
        let Self::Some(restricted) = self else { return Ok(()) };
        let right = right(route);
        if restricted.may(&right) {
            return Ok(());
        }
        let message = format!(
            "The key '{}' lacks a permission that this endpoint needs on account '{account}'. With the \
             'rak_{right}' permission the request would go through.",
            masked(&restricted.key)
        );
        Err(Error::new(403, "invalid_request_error", message))
    }
}

/// Lets a request in by its key: a bearer token, or the user name of basic authentication.
pub(super) fn admit(
    asked: &Asked,
    options: &Options,
    restricted: &[RestrictedKey],
) -> Result<Admitted, Error> {
    let header = asked.header("authorization").unwrap_or_default();
    let given = match header.split_once(' ') {
        Some(("Bearer", key)) => key.trim().to_owned(),
        Some(("Basic", encoded)) => {
            let decoded = STANDARD.decode(encoded.trim()).unwrap_or_default();
            let decoded = String::from_utf8(decoded).unwrap_or_default();
            decoded.split(':').next().unwrap_or_default().to_owned()
        }
        _ => String::new(),
    };
    if given == options.secret_key {
        return Ok(Admitted::All);
    }
    if options.is_organisations(&given) {
        let missing =
            ["Stripe-Context", "Stripe-Version"].into_iter().find(|name| asked.header(name).is_none());
        return match missing {
            None => Ok(Admitted::All),
            Some(name) => Err(Error::invalid(format!(
                "An organization's key needs the header `{name}` on each request."
            ))),
        };
    }
    if let Some(restricted) = restricted.iter().find(|restricted| restricted.key == given) {
        return Ok(Admitted::Some(restricted.clone()));
    }
    let message = if given.is_empty() {
        "No API key was given. Send it as `Authorization: Bearer <key>`.".to_owned()
    } else {
        format!("Invalid API Key provided: {}", masked(&given))
    };
    Err(Error::new(401, "invalid_request_error", message))
}

fn masked(key: &str) -> String {
    let shown: Vec<char> = key.chars().collect();
    let tail: String = shown.iter().skip(shown.len().saturating_sub(4).max(8)).collect();
    format!("{}****{tail}", shown.iter().take(8).collect::<String>())
}

/// The right that an endpoint needs, as Stripe calls it, without the `rak_` before it.
fn right(route: &Route) -> String {
    let mut segments = route.pattern.trim_start_matches("/v2/core").split('/').skip(1);
    let resource = segments.find(|segment| *segment != "v1").unwrap_or_default();
    let noun = NAMES.iter().find(|(path, _)| *path == resource).map(|(_, noun)| *noun);
    let noun = noun.unwrap_or_else(|| resource.strip_suffix('s').unwrap_or(resource));
    format!("{noun}_{}", if route.method == "GET" { "read" } else { "write" })
}

/// Every right that some endpoint needs.
fn rights() -> BTreeSet<String> {
    routes::all().map(right).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Stage;
    use super::*;

    async fn status(stage: &Stage, key: &str, method: &str, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", stage.handle.address());
        let request = stage.client.request(method.parse().unwrap(), url).bearer_auth(key);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn a_restricted_key_may_do_what_it_was_given_and_reads_what_it_writes() {
        let stage = Stage::new().await;
        let key = RestrictedKey::parse("rk_test_some=refund_write,charge_read").unwrap();
        stage.handle.control().set_restricted_keys(vec![key]);
        let ask = |method, path| status(&stage, "rk_test_some", method, path);
        assert_eq!(ask("GET", "/v1/charges").await.0, 200);
        assert_eq!(ask("GET", "/v1/refunds").await.0, 200);
        assert_eq!(ask("POST", "/v1/refunds/re_none").await.0, 404);
        let (code, body) = ask("POST", "/v1/charges/ch_none").await;
        assert_eq!(code, 403);
        assert!(body.contains("'rak_charge_write'") && !body.contains("rk_test_some"), "{body}");
        assert!(!body.contains("\"code\""), "{body}");
        assert_eq!(ask("GET", "/v1/account").await.0, 403);
        assert_eq!(status(&stage, "rk_test_other", "GET", "/v1/charges").await.0, 401);
    }

    #[test]
    fn a_right_that_does_not_exist_is_named_with_those_that_do() {
        let fault = RestrictedKey::parse("rk_test_a=refunds").unwrap_err();
        assert!(fault.contains("`refunds`") && fault.contains("refund_write"), "{fault}");
        assert!(RestrictedKey::parse("sk_test_a=refund_read").is_err());
        assert!(RestrictedKey::parse("rk_test_a").is_err());
        let all = RestrictedKey::without("rk_test_a", &["refund_write"]).rights;
        assert!(
            all.contains("refund_read") && all.contains("webhook_write") && !all.contains("refund_write")
        );
    }
}
