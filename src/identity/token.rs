//! API tokens: how one is made and taken apart, and what is kept of it. The token itself is shown once and never kept.

use std::fmt;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Stranger;
use crate::domain::clock::UnixMillis;
use crate::domain::operation::hex;

/// Under which kind the tokens' records are kept in the store.
pub const KIND: &str = "token";
/// What every token begins with, so that people and scanners know one when they see it.
const TOKEN_PREFIX: &str = "tgt_";
/// What every token's name begins with.
const ID_PREFIX: &str = "tok_";
/// Random bytes of a token's name.
const ID_BYTES: usize = 8;
/// Random bytes of a token's secret part.
const SECRET_BYTES: usize = 32;
/// Bytes of the checksum at the end, by which a scanner tells a token from text that looks like one.
const CHECKSUM_BYTES: usize = 4;
/// Characters of a whole token: prefix, name, `_`, secret and checksum, two digits a byte.
const TOKEN_CHARS: usize = TOKEN_PREFIX.len() + 2 * (ID_BYTES + SECRET_BYTES + CHECKSUM_BYTES) + 1;

/// What the gateway keeps of a token: enough to know it again, and not enough to make it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its name, `tok_...`.
    pub id: String,
    /// The caller that it proves.
    pub caller: String,
    /// SHA-256 of the token, in hexadecimal digits. The secret part has 256 random bits, so a slow hash adds nothing.
    pub hash: String,
    /// When it was made.
    pub created_ms: UnixMillis,
    /// From when on it proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<UnixMillis>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ms: Option<UnixMillis>,
    /// Name of the token that it was made to replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// What its maker wrote about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The hash is of no use to a reader.
impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRecord")
            .field("id", &self.id)
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

impl TokenRecord {
    /// Whether the token proves its caller's name at `now_ms`.
    ///
    /// # Errors
    /// `Revoked` or `Expired`.
    pub fn usable(&self, now_ms: UnixMillis) -> Result<(), Stranger> {
        if self.revoked_ms.is_some() {
            return Err(Stranger::Revoked);
        }
        if self.expires_ms.is_some_and(|end| end <= now_ms) { Err(Stranger::Expired) } else { Ok(()) }
    }

    /// Whether `token` is the one that the record is about.
    pub(super) fn is_of(&self, token: &str) -> bool {
        hash(token).as_bytes().ct_eq(self.hash.as_bytes()).into()
    }
}

/// Makes a token of `caller`, and what is kept of it.
///
/// # Errors
/// When the system gives no random bytes.
pub fn make(caller: &str, now_ms: UnixMillis) -> Result<(SecretString, TokenRecord), getrandom::Error> {
    let mut random = [0; ID_BYTES + SECRET_BYTES];
    getrandom::fill(&mut random)?;
    let (id, secret) = random.split_at(ID_BYTES);
    let id = hex(id);
    let body = format!("{TOKEN_PREFIX}{id}_{}", hex(secret));
    let token = format!("{body}{}", checksum(&body));
    let record = TokenRecord {
        id: format!("{ID_PREFIX}{id}"),
        caller: caller.to_owned(),
        hash: hash(&token),
        created_ms: now_ms,
        expires_ms: None,
        revoked_ms: None,
        replaces: None,
        note: String::new(),
    };
    Ok((token.into(), record))
}

/// The name of a token, if it is one of ours by its form.
pub(super) fn id_of(token: &str) -> Option<String> {
    if token.len() != TOKEN_CHARS || !token.is_ascii() {
        return None;
    }
    let (body, sum) = token.split_at(TOKEN_CHARS - 2 * CHECKSUM_BYTES);
    let (id, _) = body.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    (checksum(body) == sum).then(|| format!("{ID_PREFIX}{id}"))
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn checksum(body: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(body.as_bytes()).into();
    digest.first_chunk::<CHECKSUM_BYTES>().map(|bytes| hex(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let (token, record) = make("shop", 5).unwrap();
        let (other, _) = make("shop", 5).unwrap();
        assert!(record.is_of(token.expose_secret()) && !record.is_of(other.expose_secret()));
        assert_eq!(id_of(token.expose_secret()).as_deref(), Some(record.id.as_str()));
        let kept = serde_json::to_string(&record).unwrap() + &format!("{record:?}");
        let secret = &token.expose_secret()[TOKEN_PREFIX.len() + 2 * ID_BYTES + 1..];
        assert!(!kept.contains(secret), "{kept}");
        assert!(!format!("{record:?}").contains(&record.hash));
    }

    #[test]
    fn a_token_ends_by_time_and_by_word() {
        let (_, sound) = make("shop", 5).unwrap();
        assert_eq!(sound.usable(i64::MAX), Ok(()));
        let ends = TokenRecord { expires_ms: Some(10), ..sound };
        assert_eq!((ends.usable(9), ends.usable(10)), (Ok(()), Err(Stranger::Expired)));
        let revoked = TokenRecord { revoked_ms: Some(6), ..ends };
        assert_eq!(revoked.usable(1), Err(Stranger::Revoked));
    }

    proptest! {
        #[test]
        fn a_changed_character_is_no_token(at in 0..TOKEN_CHARS, to in "[ -~]") {
            let (token, _) = make("shop", 5).unwrap();
            let mut changed = token.expose_secret().to_owned();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != token.expose_secret());
            prop_assert_eq!(id_of(&changed), None);
        }

        #[test]
        fn any_text_is_looked_at_safely(text in ".{0,120}") {
            prop_assert_eq!(id_of(&text), None);
        }
    }
}
