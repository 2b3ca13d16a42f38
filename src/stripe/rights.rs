//! Which rights a restricted key has, found out by requests that change nothing. What follows from a missing one is
//! others' to say.
//!
//! Stripe tells the rights of a key by refusing with 403 (docs.stripe.com/keys/restricted-api-keys). A right to read is
//! tried by a list of one, a right to write by a change of an object that cannot exist: 404 means that the key may.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::answer::{Answer, Attempt};
use super::client::Client;
use super::outgoing::{AccountHeader, Outgoing};
use super::traffic::Sender;
use crate::contract::{LookupBy, Paging, Spec, Verb};

/// The id of nothing at Stripe.
const NOTHING: &str = "tollgate_does_not_exist";
/// What begins the names of permissions in Stripe's refusals.
const PERMISSION_PREFIX: &str = "rak_";

/// What a key may be allowed to do with a kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// To look at it.
    Read,
    /// To change it.
    Write,
}

/// A right, named by the beginning of the paths that it opens, such as `refunds`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The path after the version.
    pub resource: String,
    /// What for.
    pub access: Access,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "write",
        };
        write!(f, "{}:{access}", self.resource)
    }
}

/// A right that is needed, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The right.
    pub right: Right,
    /// The RPCs that fail without it, `Service.Rpc`.
    pub methods: Vec<String>,
    /// Path and query of the request that tries it; `None` where every request would make something.
    probe: Option<(String, &'static str)>,
}

impl Needed {
    /// Whether some request without an effect tells whether a key has the right.
    #[must_use]
    pub fn can_be_tried(&self) -> bool {
        self.probe.is_some()
    }
}

/// Whether a key has a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has.
    Held,
    /// It has not; Stripe's name of the permission where it told one.
    Missing {
        /// Such as `rak_charge_write`.
        permission: Option<String>,
    },
    /// Nobody knows, and why.
    Untold(String),
}

/// The rights that the RPCs need, each once; a look-up reads what its RPC changed.
#[must_use]
pub fn needed<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> Vec<Needed> {
    let mut all: BTreeMap<Right, Needed> = BTreeMap::new();
    for spec in specs {
        let access = if spec.verb == Verb::Get { Access::Read } else { Access::Write };
        let looked_up = spec.lookup.map(|lookup| match lookup.by {
            LookupBy::List(path) => (path, Access::Read, Some((path.to_owned(), "limit=1"))),
            LookupBy::Retrieve(path) => (path, Access::Read, Some((path.replace_ids(), ""))),
        });
        let own = (spec.path, access, probe(spec));
        for (path, access, probe) in std::iter::once(own).chain(looked_up) {
            let right = Right { resource: resource(path).to_owned(), access };
            let entry = all.entry(right.clone());
            let needed = entry.or_insert_with(|| Needed { right, methods: Vec::new(), probe: None });
            let method = format!("{}.{}", spec.service, spec.rpc);
            if !needed.methods.contains(&method) {
                needed.methods.push(method);
            }
            // A path without an id is the surest to exist, and the shortest the least special.
            let better = |probe: &(String, &str)| (probe.0.contains(NOTHING), probe.0.len());
            needed.probe = needed.probe.take().into_iter().chain(probe).min_by_key(better);
        }
    }
    all.into_values().collect()
}

/// The request that tries an RPC without an effect, if there is one.
fn probe(spec: &Spec) -> Option<(String, &'static str)> {
    let path = spec.path.replace_ids();
    let names_one = path.contains(NOTHING);
    match (spec.verb, spec.paging) {
        (Verb::Get, Paging::List) => Some((path, "limit=1")),
        (Verb::Get, Paging::None) => Some((path, "")),
        (Verb::Post, _) if names_one => Some((path, "")),
        (Verb::Get | Verb::Post | Verb::Delete, _) => None,
    }
}

trait Template {
    /// The path with ids of nothing in it.
    fn replace_ids(&self) -> String;
}

impl Template for str {
    fn replace_ids(&self) -> String {
        let segments = self.split('/').map(|part| if part.starts_with('{') { NOTHING } else { part });
        segments.collect::<Vec<_>>().join("/")
    }
}

fn resource(path: &str) -> &str {
    path.trim_start_matches("/v1/").split('/').next().unwrap_or_default()
}

impl Client {
    /// Tries each right, one after the other, with requests that change nothing.
    pub async fn rights(
        &self,
        needed: &[Needed],
        account: &AccountHeader,
        deadline: Option<Instant>,
    ) -> Vec<(Right, Standing)> {
        let mut found = Vec::with_capacity(needed.len());
        for needed in needed {
            let standing = match &needed.probe {
                None => Standing::Untold("only a request that makes something would tell".to_owned()),
                Some((path, query)) => {
                    let outgoing = match needed.right.access {
                        Access::Read => Outgoing::read(path, (*query).to_owned(), account.clone()),
                        Access::Write => Outgoing::post(path, String::new(), account.clone()),
                    };
                    let outgoing = Outgoing { template: path.replace(NOTHING, "{id}"), ..outgoing };
                    match self.send(&outgoing, &Sender::Gateway, deadline).await.last() {
                        Some(Attempt::Answered(answer)) => standing(answer),
                        Some(Attempt::NotSent(trouble) | Attempt::Broken(trouble)) => {
                            Standing::Untold(trouble.to_string())
                        }
                        None => Standing::Untold("nothing was sent".to_owned()),
                    }
                }
            };
            found.push((needed.right.clone(), standing));
        }
        found
    }
}

/// What an answer says about the right: whatever Stripe had to say about the request itself, it let the key in first.
fn standing(answer: &Answer) -> Standing {
    match answer.status {
        200..=299 | 400 | 402 | 404 | 409 => Standing::Held,
        403 => Standing::Missing { permission: permission(&answer.body) },
        401 => Standing::Untold("Stripe refused the key".to_owned()),
        status => Standing::Untold(format!("Stripe answered with status {status}")),
    }
}

/// The permission that a refusal names; nothing else of its text is looked at, since it quotes the key.
fn permission(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let name = text.split_once(PERMISSION_PREFIX)?.1;
    let name: String = name.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').take(100).collect();
    (!name.is_empty()).then(|| format!("{PERMISSION_PREFIX}{name}"))
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, reply};
    use super::*;
    use crate::contract::{self, METHODS};

    fn named(name: &str) -> Needed {
        let all = needed(METHODS.iter().copied());
        all.into_iter().find(|needed| needed.right.to_string() == name).unwrap()
    }

    #[test]
    fn every_method_needs_a_right_and_no_probe_could_make_anything() {
        let all = needed(METHODS.iter().copied());
        for spec in METHODS {
            let method = format!("{}.{}", spec.service, spec.rpc);
            assert!(all.iter().any(|needed| needed.methods.contains(&method)), "{method}");
        }
        for needed in &all {
            match (&needed.probe, needed.right.access) {
                (Some((path, _)), Access::Write) => assert!(path.contains(NOTHING), "{path}"),
                (Some((path, _)), Access::Read) => assert!(!path.contains("/search"), "{path}"),
                (None, access) => assert_eq!(
                    (needed.right.resource.as_str(), access),
                    ("files", Access::Write),
                    "only an upload has no harmless twin"
                ),
            }
        }
    }

    #[test]
    fn rights_are_tried_where_it_is_cheapest() {
        assert_eq!(named("refunds:read").probe, Some(("/v1/refunds".to_owned(), "limit=1")));
        assert_eq!(named("balance:read").probe, Some(("/v1/balance".to_owned(), "")));
        assert_eq!(named("refunds:write").probe, Some((format!("/v1/refunds/{NOTHING}"), "")));
        assert_eq!(named("payment_methods:read").probe, Some((format!("/v1/payment_methods/{NOTHING}"), "")));
        assert_eq!(
            named("payment_intents:write").probe,
            Some((format!("/v1/payment_intents/{NOTHING}/cancel"), ""))
        );
    }

    #[test]
    fn only_what_may_be_called_is_needed() {
        let create = contract::find("RefundService", "CreateRefund").unwrap();
        let names: Vec<_> = needed([create]).iter().map(|needed| needed.right.to_string()).collect();
        assert_eq!(names, ["refunds:read", "refunds:write"], "a look-up reads what it made");
    }

    #[tokio::test]
    async fn a_refusal_names_the_permission_and_shows_nothing_of_the_key() {
        let refusal = r#"{"error":{"message":"The key 'rk_test_****wxyz' lacks 'rak_charge_write'","type":"invalid_request_error"}}"#;
        let script =
            Script::start(vec![reply(403, "", refusal), reply(404, "", "{}"), reply(401, "", "{}")]).await;
        let rights = [named("refunds:read"), named("refunds:write"), named("customers:write")];
        let found = script.client().rights(&rights, &AccountHeader::None, None).await;
        let standings: Vec<_> = found.into_iter().map(|(_, standing)| standing).collect();
        assert_eq!(
            standings,
            [
                Standing::Missing { permission: Some("rak_charge_write".to_owned()) },
                Standing::Held,
                Standing::Untold("Stripe refused the key".to_owned()),
            ]
        );
        let requests = script.requests().await;
        assert!(requests[0].starts_with("GET /v1/refunds?limit=1 "), "{}", requests[0]);
        assert!(requests[1].starts_with(&format!("POST /v1/refunds/{NOTHING} ")), "{}", requests[1]);
        assert!(requests[1].contains("idempotency-key: tollgate-own-"), "{}", requests[1]);
    }
}
