//! Stripe's webhook signatures (docs.stripe.com/webhooks#verify-manually). It reads no event.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::domain::limits::{SIGNATURE_AGE_S_MAX, SIGNATURE_HEADER_BYTES_MAX, SIGNATURES_MAX};
use crate::domain::operation::hex;
use crate::domain::secret::Secret;

/// Most digits of a signing time, in characters: enough for 30,000 years.
const TIME_CHARS_MAX: usize = 12;

/// Why a webhook is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature.
    #[error("the `Stripe-Signature` header is missing or empty")]
    Missing,
    /// The header does not have exactly one time and at least one signature.
    #[error("the `Stripe-Signature` header is malformed")]
    Malformed,
    /// No signature was made with one of our secrets.
    #[error("no signature matches")]
    NoMatch,
    /// Signed too long ago: perhaps a recording.
    #[error("the signature is too old")]
    TooOld,
    /// Signed in the future: one of the clocks is wrong, or somebody keeps a signature for later.
    #[error("the signature lies in the future")]
    TooNew,
}

impl SignatureError {
    /// The error's name in counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::NoMatch => "no_match",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
        }
    }
}

/// Whether `body` is, byte for byte, what Stripe signed with one of `secrets` not more than
/// [`SIGNATURE_AGE_S_MAX`] seconds from `now_unix_s`, before or after.
///
/// The time is looked at last, so that the answer to an unsigned request tells nothing. Empty secrets match nothing.
///
/// # Errors
/// When it is not.
pub fn verify(header: &str, body: &[u8], secrets: &[Secret], now_unix_s: i64) -> Result<(), SignatureError> {
    let Header { time, signatures } = Header::parse(header)?;
    // Everything is compared, whichever matches: the time this takes says nothing.
    let mut matches = subtle::Choice::from(0);
    for secret in secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty()) {
        let right = signature(secret, time, body);
        for signature in &signatures {
            matches |= right.as_bytes().ct_eq(signature.as_bytes());
        }
    }
    if !bool::from(matches) {
        return Err(SignatureError::NoMatch);
    }
    let signed: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    match now_unix_s.saturating_sub(signed) {
        age if age > SIGNATURE_AGE_S_MAX => Err(SignatureError::TooOld),
        age if age < -SIGNATURE_AGE_S_MAX => Err(SignatureError::TooNew),
        _ => Ok(()),
    }
}

/// The header that Stripe would send for `body`, signed at `unix_s`: for tests of what receives webhooks.
#[must_use]
pub fn sign(secret: &Secret, unix_s: i64, body: &[u8]) -> String {
    let time = unix_s.to_string();
    format!("t={time},v1={}", signature(secret.expose_secret(), &time, body))
}

/// Lower-case hex of HMAC-SHA256 over `time.body`. The whole secret is the key, its `whsec_` too.
fn signature(secret: &str, time: &str, body: &[u8]) -> String {
    #[expect(clippy::expect_used, reason = "HMAC is defined for keys of any length (RFC 2104, section 2)")]
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    let mac = mac.chain_update(time).chain_update(b".").chain_update(body);
    hex(&mac.finalize().into_bytes())
}

/// What the header says, in its own spelling.
struct Header<'a> {
    time: &'a str,
    signatures: Vec<&'a str>,
}

impl<'a> Header<'a> {
    /// Reads `t=...,v1=...,...`; other schemes are passed over, as Stripe demands.
    fn parse(header: &'a str) -> Result<Self, SignatureError> {
        if header.trim().is_empty() {
            return Err(SignatureError::Missing);
        }
        if header.len() > SIGNATURE_HEADER_BYTES_MAX {
            return Err(SignatureError::Malformed);
        }
        let (mut time, mut signatures) = (None, Vec::new());
        for item in header.split(',') {
            match item.split_once('=').ok_or(SignatureError::Malformed)? {
                ("t", text) if time.is_none() && is_time(text) => time = Some(text),
                ("t", _) => return Err(SignatureError::Malformed),
                ("v1", text) => signatures.push(text),
                _ => {}
            }
        }
        match time {
            Some(time) if (1..=SIGNATURES_MAX).contains(&signatures.len()) => Ok(Self { time, signatures }),
            _ => Err(SignatureError::Malformed),
        }
    }
}

/// Digits and nothing else; parsers of integers take signs and Stripe writes none.
fn is_time(text: &str) -> bool {
    (1..=TIME_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
