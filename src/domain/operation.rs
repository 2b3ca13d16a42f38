//! What makes a change the same change: the operation, its stable hash and the idempotency keys made from it.

use std::fmt;

use sha2::{Digest, Sha256};

/// Prefix and version of the idempotency keys.
pub const KEY_PREFIX: &str = "tg1-";
/// Alias of the Stripe account that calls go to when they name none.
pub const DEFAULT_ALIAS: &str = "default";
/// Keeps the hashes of orders apart from all others.
const ORDER_DOMAIN: &str = "tollgate order v1";
/// Keeps the hashes of operations apart from those of keys.
const HASH_DOMAIN: &str = "tollgate operation v1";

/// Which side of a Stripe account a key belongs to; the two never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Test mode; no real money.
    Test,
    /// Live mode.
    Live,
}

impl Mode {
    /// `test` or `live`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Live => "live",
        }
    }
}

/// The full name of one change; every part counts byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Operation {
    /// The caller's namespace, from the configuration and never from the call.
    pub namespace: String,
    /// The resolved Stripe account, `acct_...`.
    pub account: String,
    /// Test or live.
    pub mode: Mode,
    /// The RPC's permanent ledger name.
    pub rpc: String,
    /// The caller's order id.
    pub order_id: String,
    /// The caller's operation id; empty is a value of its own.
    pub operation_id: String,
}

/// The identity of an operation in the ledger, for good.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationHash(pub [u8; 32]);

impl Operation {
    /// The operation's identity.
    #[must_use]
    pub fn hash(&self) -> OperationHash {
        OperationHash(self.digest(HASH_DOMAIN).finalize().into())
    }

    /// The idempotency key of one generation: no personal data, far under Stripe's 255 characters, and different for
    /// every RPC, since Stripe refuses one key on two endpoints (docs.stripe.com/api/idempotent_requests).
    #[must_use]
    pub fn key(&self, generation: u32) -> String {
        let digest = self.digest(KEY_PREFIX).chain_update(generation.to_be_bytes()).finalize();
        format!("{KEY_PREFIX}{}", hex(&digest))
    }

    /// The order that it belongs to, whichever account it is of.
    #[must_use]
    pub fn order(&self) -> [u8; 32] {
        order(&self.namespace, self.mode, &self.order_id)
    }

    fn digest(&self, domain: &str) -> Sha256 {
        digest(&[
            domain,
            &self.namespace,
            &self.account,
            self.mode.as_str(),
            &self.rpc,
            &self.order_id,
            &self.operation_id,
        ])
    }
}

/// The identity of an order of a namespace in a mode.
#[must_use]
pub fn order(namespace: &str, mode: Mode, order_id: &str) -> [u8; 32] {
    digest(&[ORDER_DOMAIN, namespace, mode.as_str(), order_id]).finalize().into()
}

/// Every part goes in behind its length, so that no two lists spell the same bytes.
fn digest(parts: &[&str]) -> Sha256 {
    parts.iter().fold(Sha256::new(), |digest, part| {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        digest.chain_update(length.to_be_bytes()).chain_update(part.as_bytes())
    })
}

impl OperationHash {
    /// Reads the hash as it is written in stamps and audit records: 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for OperationHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for OperationHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn operation(parts: [&str; 5]) -> Operation {
        let [namespace, account, rpc, order_id, operation_id] = parts.map(str::to_owned);
        Operation { namespace, account, mode: Mode::Test, rpc, order_id, operation_id }
    }

    #[test]
    fn a_key_is_stable_across_builds() {
        let operation = operation(["shop", "acct_1", "refunds.create", "1001", ""]);
        assert_eq!(operation.key(1), "tg1-d22debf0625cb0a2393ba99c24aa56094900201ba49bd898af1e0406f1289993");
        assert_ne!(operation.key(1), operation.key(2));
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = operation(["shop", "acct_1", "refunds.create", "1001", ""]).hash();
        assert_eq!(OperationHash::parse(&hash.to_string()), Some(hash));
        for text in ["", "00", &format!("{hash}0"), &"+f".repeat(32), &"é".repeat(32)] {
            assert_eq!(OperationHash::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn different_operations_have_different_keys(a in any::<[String; 5]>(), b in any::<[String; 5]>()) {
            let (left, right) = (operation(a.each_ref().map(String::as_str)), operation(b.each_ref().map(String::as_str)));
            prop_assert_eq!(left == right, left.key(1) == right.key(1));
            prop_assert_eq!(left == right, left.hash() == right.hash());
        }

        #[test]
        fn moving_a_character_between_parts_changes_the_key(text in "[a-z]{2,20}", at in 1usize..20) {
            let at = at.min(text.len() - 1);
            let (order, rest) = text.split_at(at);
            let whole = operation(["n", "a", "r", &text, ""]);
            prop_assert_ne!(whole.key(1), operation(["n", "a", "r", order, rest]).key(1));
        }
    }
}
