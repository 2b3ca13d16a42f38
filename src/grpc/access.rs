//! Finds out who is calling: a bearer token from the configuration. What the caller may do is not its business.

use std::collections::HashMap;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::domain::caller::Caller;

/// Name and namespace of whoever calls a gateway without callers.
const LOOPBACK: &str = "loopback";

/// The configured callers, by the hash of their token: a look-up by hash tells nothing by its time.
#[derive(Debug, Default)]
pub struct Callers(HashMap<[u8; 32], Caller>);

impl Callers {
    /// Takes the callers with their tokens.
    pub fn new(callers: impl IntoIterator<Item = (Caller, SecretString)>) -> Self {
        let hashed = |(caller, token): (Caller, SecretString)| (hash(token.expose_secret()), caller);
        Self(callers.into_iter().map(hashed).collect())
    }

    /// The caller whose token the request carries. Where no caller is configured, which the configuration allows on a
    /// loopback address alone, everybody who reaches it is the caller `loopback`.
    #[must_use]
    pub fn identify(&self, headers: &HeaderMap) -> Option<Caller> {
        if self.0.is_empty() {
            let name = LOOPBACK.to_owned();
            return Some(Caller { namespace: name.clone(), name, admin: true });
        }
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.0.get(&hash(token.trim())).cloned()
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, http::HeaderValue::from_static(value))])
    }

    #[test]
    fn only_a_known_bearer_token_identifies() {
        let shop = Caller { name: "shop".into(), namespace: "shop".into(), admin: false };
        let callers = Callers::new([(shop.clone(), SecretString::from("token-of-the-shop"))]);
        assert_eq!(callers.identify(&headers("Bearer token-of-the-shop")), Some(shop.clone()));
        assert_eq!(callers.identify(&headers("bearer token-of-the-shop")), Some(shop));
        for wrong in ["Bearer token-of-the-sho", "Bearer ", "Basic token-of-the-shop", "token-of-the-shop"] {
            assert_eq!(callers.identify(&headers(wrong)), None, "{wrong}");
        }
        assert_eq!(callers.identify(&HeaderMap::new()), None);
    }

    #[test]
    fn without_callers_there_is_one() {
        let caller = Callers::default().identify(&HeaderMap::new()).unwrap();
        assert_eq!((caller.name.as_str(), caller.namespace.as_str()), ("loopback", "loopback"));
        assert!(caller.admin, "whoever reaches it may do everything already");
    }
}
