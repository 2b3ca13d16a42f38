//! The idempotency table: which keys are in flight, which are answered and with what. It must not execute anything.
//! Source: <https://docs.stripe.com/api/idempotent_requests>.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::Error;

/// Keys may be removed once they are this old: <https://docs.stripe.com/api/idempotent_requests>.
const KEY_AGE_MAX_MS: i64 = 24 * 60 * 60 * 1_000;

/// Longest key accepted, in characters.
const KEY_CHARS_MAX: usize = 255;

/// An answer as first given, kept byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) request_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    endpoint: String,
    fingerprint: String,
    created_ms: i64,
    answer: Option<Answer>,
}

impl Entry {
    fn expired(&self, now_ms: i64) -> bool {
        self.answer.is_some() && now_ms - self.created_ms >= KEY_AGE_MAX_MS
    }
}

/// What a request finds under its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: the request is now in flight and must be settled or forgotten.
    Fresh,
    /// The answer to the first request.
    Done(Answer),
}

/// The table, one entry for each account and key.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Keys {
    entries: BTreeMap<String, Entry>,
}

impl Keys {
    /// Claims the key for a request, or says why it cannot be: in flight (409), or first used with other parameters or on
    /// another path (400).
    pub(super) fn begin(
        &mut self,
        key: &str,
        endpoint: &str,
        fingerprint: &str,
        now_ms: i64,
    ) -> Result<Found, Error> {
        if self.entries.get(key).is_some_and(|entry| entry.expired(now_ms)) {
            self.forget(key);
        }
        let Some(entry) = self.entries.get(key) else {
            let (endpoint, fingerprint) = (endpoint.to_owned(), fingerprint.to_owned());
            let entry = Entry { endpoint, fingerprint, created_ms: now_ms, answer: None };
            self.entries.insert(key.to_owned(), entry);
            return Ok(Found::Fresh);
        };
        let shown = key.split_once(' ').map_or(key, |(_, key)| key);
        if entry.endpoint != endpoint {
            return Err(Error::new(
                400,
                "idempotency_error",
                format!(
                    "Key '{shown}' was first used on '{}' and cannot be used on '{endpoint}'. Use a new key for a \
                     new request.",
                    entry.endpoint
                ),
            ));
        }
        if entry.fingerprint != fingerprint {
            let message = format!(
                "Key '{shown}' was first used with other parameters. Use a new key for a new request, or send the \
                 same parameters again."
            );
            return Err(Error::new(400, "idempotency_error", message));
        }
        entry.answer.clone().map(Found::Done).ok_or_else(|| {
            let message =
                format!("Another request with the key '{shown}' is being executed. Try again later.");
            Error::new(409, "invalid_request_error", message).code("idempotency_key_in_use")
        })
    }

    /// Keeps the answer for replays.
    pub(super) fn settle(&mut self, key: &str, answer: Answer) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.answer = Some(answer);
        }
    }

    /// Frees a key whose request was refused before it began.
    pub(super) fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Removes answered keys older than 24 hours.
    pub(super) fn prune(&mut self, now_ms: i64) {
        self.entries.retain(|_, entry| !entry.expired(now_ms));
    }

    /// Frees the keys that were in flight when the process ended.
    pub(super) fn forget_in_flight(&mut self) {
        self.entries.retain(|_, entry| entry.answer.is_some());
    }
}

/// Refuses an empty or over-long key.
pub(super) fn check_key(key: &str) -> Result<(), Error> {
    let length = key.chars().count();
    if length == 0 || length > KEY_CHARS_MAX {
        let message =
            format!("Idempotency keys have 1 to {KEY_CHARS_MAX} characters; this one has {length}.");
        return Err(Error::new(400, "idempotency_error", message));
    }
    Ok(())
}

/// A digest of the parameters that does not depend on their order.
pub(super) fn fingerprint(pairs: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = pairs.iter().collect();
    sorted.sort();
    let mut hash = Sha256::new();
    for (name, value) in sorted {
        for part in [name, value] {
            hash.update(part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Answer, Found, KEY_AGE_MAX_MS, Keys, fingerprint};

    fn answer() -> Answer {
        Answer { status: 200, body: "{}".to_owned(), request_id: "req_1".to_owned() }
    }

    #[test]
    fn a_key_is_absent_then_in_flight_then_answered() {
        let mut keys = Keys::default();
        assert_eq!(keys.begin("a k", "POST /x", "f", 0).unwrap(), Found::Fresh);
        let busy = keys.begin("a k", "POST /x", "f", 0).unwrap_err();
        assert_eq!(
            (busy.status, super::super::object::text(&busy.body, "code")),
            (409, "idempotency_key_in_use")
        );
        keys.settle("a k", answer());
        assert_eq!(keys.begin("a k", "POST /x", "f", 1).unwrap(), Found::Done(answer()));
    }

    #[test]
    fn other_parameters_or_another_path_are_refused() {
        let mut keys = Keys::default();
        keys.begin("a k", "POST /x", "f", 0).unwrap();
        keys.settle("a k", answer());
        for (path, print) in [("POST /x", "g"), ("POST /y", "f")] {
            let error = keys.begin("a k", path, print, 0).unwrap_err();
            assert_eq!(super::super::object::text(&error.body, "type"), "idempotency_error");
        }
    }

    #[test]
    fn a_forgotten_key_runs_again_and_an_old_one_is_pruned() {
        let mut keys = Keys::default();
        keys.begin("a k", "POST /x", "f", 0).unwrap();
        keys.forget("a k");
        assert_eq!(keys.begin("a k", "POST /x", "g", 0).unwrap(), Found::Fresh);
        keys.settle("a k", answer());
        assert!(matches!(keys.begin("a k", "POST /x", "g", KEY_AGE_MAX_MS - 1).unwrap(), Found::Done(_)));
        assert_eq!(keys.begin("a k", "POST /x", "h", KEY_AGE_MAX_MS).unwrap(), Found::Fresh);
    }

    #[test]
    fn parameters_in_another_order_are_the_same_parameters() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (a, b) = (pair("a", "1"), pair("b", "2"));
        assert_eq!(fingerprint(&[a.clone(), b.clone()]), fingerprint(&[b, a]));
        assert_ne!(fingerprint(&[pair("a", "12")]), fingerprint(&[pair("a1", "2")]));
    }
}
