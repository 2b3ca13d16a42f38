//! Takes JSON Web Tokens apart and verifies their signatures (RFC 7519, RFC 8725), with public keys only. Whose token it
//! is and whether its time is over are judged in the registry.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::{Number, Value};

use super::Stranger;
use super::jwks::{KeySet, Material, PublicKey};
use crate::config::identity::Algorithm;

/// The `typ` of a token that is one for access; others, such as those for logging out, are for other ends (RFC 8725
/// section 3.11, RFC 9068 section 2.1).
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// A token that nobody has verified yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    kid: Option<String>,
    /// What it says its algorithm is.
    pub(super) algorithm: Algorithm,
    /// What it says.
    pub(super) claims: Claims,
}

/// What a token says.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) audiences: Vec<String>,
    pub(super) expires_s: i64,
    pub(super) not_before_s: Option<i64>,
}

/// The header; what names keys in other ways (`jku`, `jwk`, `x5u`, `x5c`) is never looked at.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Body {
    iss: String,
    sub: String,
    aud: Audience,
    exp: Number,
    nbf: Option<Number>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl<'a> Token<'a> {
    /// Takes a token apart. A name that stands twice in header or claims makes it malformed, because two readers could
    /// read it in two ways.
    pub(super) fn parse(text: &'a str) -> Result<Self, Stranger> {
        let (signed, signature) = text.rsplit_once('.').ok_or(Stranger::Malformed)?;
        let (header, body) = signed.split_once('.').ok_or(Stranger::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Stranger::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Stranger::Malformed)?;
        let algorithm = Algorithm::parse(&header.alg).ok_or(Stranger::WrongAlgorithm)?;
        let typ = header.typ.as_deref().unwrap_or("jwt").to_ascii_lowercase();
        // Whatever is critical has to be understood (RFC 7515 section 4.1.11), and nothing is.
        if header.crit.is_some() || !TYPES.contains(&typ.trim_start_matches("application/")) {
            return Err(Stranger::Malformed);
        }
        let body: Body = serde_json::from_slice(&decode(body)?).map_err(|_| Stranger::Malformed)?;
        let claims = Claims {
            issuer: body.iss,
            subject: body.sub,
            audiences: match body.aud {
                Audience::One(one) => vec![one],
                Audience::Many(many) => many,
            },
            expires_s: seconds(&body.exp)?,
            not_before_s: body.nbf.as_ref().map(seconds).transpose()?,
        };
        Ok(Self { signed, signature: decode(signature)?, kid: header.kid, algorithm, claims })
    }

    /// The key of the set that signed the token.
    ///
    /// # Errors
    /// `UnknownKey` when the set has no key of the token's `kid`, or none or several that could be meant without one;
    /// `WrongAlgorithm` when that key is not for the token's algorithm; `BadSignature` otherwise.
    pub(super) fn verify(&self, keys: &KeySet) -> Result<String, Stranger> {
        let fits = |key: &&PublicKey| verification(self.algorithm, key).is_some();
        let candidates: Vec<&PublicKey> = match &self.kid {
            Some(kid) => {
                let named = keys.0.iter().filter(|key| key.kid.as_ref() == Some(kid));
                let named: Vec<_> = named.collect();
                if named.is_empty() {
                    return Err(Stranger::UnknownKey);
                }
                let fitting: Vec<_> = named.into_iter().filter(fits).collect();
                if fitting.is_empty() {
                    return Err(Stranger::WrongAlgorithm);
                }
                fitting
            }
            None => {
                let fitting: Vec<_> = keys.0.iter().filter(fits).collect();
                if fitting.len() != 1 {
                    return Err(Stranger::UnknownKey);
                }
                fitting
            }
        };
        let signer = candidates.into_iter().find(|key| self.is_signed_by(key));
        signer.map(|key| key.fingerprint.clone()).ok_or(Stranger::BadSignature)
    }

    fn is_signed_by(&self, key: &PublicKey) -> bool {
        let (message, signature) = (self.signed.as_bytes(), self.signature.as_slice());
        let verified = match verification(self.algorithm, key) {
            Some(Verification::Rsa(parameters, n, e)) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            Some(Verification::Curve(algorithm, point)) => {
                UnparsedPublicKey::new(algorithm, point).verify(message, signature)
            }
            None => return false,
        };
        verified.is_ok()
    }
}

/// How a signature is verified, with the key's numbers.
enum Verification<'a> {
    Rsa(&'static RsaParameters, &'a [u8], &'a [u8]),
    Curve(&'static dyn VerificationAlgorithm, &'a [u8]),
}

/// The way to verify by this algorithm with this key; `None` unless the key is of the algorithm's kind and not kept for
/// another one.
fn verification(algorithm: Algorithm, key: &PublicKey) -> Option<Verification<'_>> {
    if key.algorithm.is_some_and(|own| own != algorithm) {
        return None;
    }
    Some(match (algorithm, &key.material) {
        (Algorithm::RS256, Material::Rsa { n, e }) => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA256, n, e),
        (Algorithm::RS384, Material::Rsa { n, e }) => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA384, n, e),
        (Algorithm::RS512, Material::Rsa { n, e }) => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA512, n, e),
        (Algorithm::PS256, Material::Rsa { n, e }) => Verification::Rsa(&RSA_PSS_2048_8192_SHA256, n, e),
        (Algorithm::PS384, Material::Rsa { n, e }) => Verification::Rsa(&RSA_PSS_2048_8192_SHA384, n, e),
        (Algorithm::PS512, Material::Rsa { n, e }) => Verification::Rsa(&RSA_PSS_2048_8192_SHA512, n, e),
        (Algorithm::ES256, Material::P256(point)) => Verification::Curve(&ECDSA_P256_SHA256_FIXED, point),
        (Algorithm::ES384, Material::P384(point)) => Verification::Curve(&ECDSA_P384_SHA384_FIXED, point),
        (Algorithm::EdDSA, Material::Ed25519(point)) => Verification::Curve(&ED25519, point),
        _ => return None,
    })
}

/// Whole seconds of a `NumericDate`, which may have a fraction.
fn seconds(number: &Number) -> Result<i64, Stranger> {
    let text = number.to_string();
    text.split('.').next().and_then(|whole| whole.parse().ok()).ok_or(Stranger::Malformed)
}

#[cfg(test)]
pub(super) mod tests;
