//! What callers can show of themselves, right and wrong: configured tokens and JWTs of an issuer that the test is itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use serde_json::{Value, json};
use sha2::Sha256;
use tollgate::domain::clock::{Clock as _, SystemClock};

use crate::crash::random::Random;
use crate::rig::TOKEN;

/// An RSA key that was made for tests and is used nowhere else.
const RSA_PKCS8: &[u8] = include_bytes!("../../../src/identity/jwt/rsa.pk8");

pub(super) const ISSUER: &str = "https://idp.example.org";
pub(super) const AUDIENCE: &str = "tollgate";
pub(super) const SUBJECT: &str = "orders-service";
/// More than the leeway that clocks get.
const LONG_S: i64 = 3_600;

/// The headers that identify a call.
pub(super) type Shown = Vec<(&'static str, String)>;

/// What the attackers have got hold of.
pub(super) struct Purse {
    pub(super) issuer: Issuer,
    pub(super) tokens: Tokens,
    /// A payment intent that can be refunded.
    pub(super) payment: String,
    /// Requests for further pages of lists, by RPC, as another caller could make them.
    pub(super) pages: BTreeMap<String, Vec<Vec<u8>>>,
}

/// API tokens of one caller, of which one is good and the others were.
pub(super) struct Tokens {
    pub(super) good: String,
    pub(super) revoked: String,
    pub(super) expired: String,
    pub(super) replaced: String,
}

/// The issuer with its keys.
pub(super) struct Issuer {
    edwards: Ed25519KeyPair,
    rsa: RsaKeyPair,
    /// A key that the issuer does not publish.
    stranger: Ed25519KeyPair,
}

/// A way to be nobody.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Under which word the gateway sums it up.
    pub(super) cause: &'static str,
    pub(super) shown: fn(&Purse, &mut Random) -> Shown,
}

impl Issuer {
    pub(super) fn new() -> Self {
        let edwards = |seed| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        Self { edwards: edwards(7), rsa: RsaKeyPair::from_pkcs8(RSA_PKCS8).unwrap(), stranger: edwards(8) }
    }

    /// The key set that the issuer publishes (RFC 7517).
    pub(super) fn key_set(&self) -> String {
        let RsaPublicKeyComponents { n, e } = self.rsa_numbers();
        let edwards = b64(self.edwards.public_key());
        let keys = json!([
            {"kty": "OKP", "crv": "Ed25519", "kid": "edwards", "x": edwards},
            {"kty": "RSA", "kid": "rsa", "n": b64(n), "e": b64(e)},
        ]);
        json!({ "keys": keys }).to_string()
    }

    /// A JWT that is right in everything.
    pub(super) fn right(&self, random: &mut Random) -> String {
        if random.below(2) == 0 {
            self.edwards(&claims(random))
        } else {
            self.rsa(&json!({"alg": "RS256", "kid": "rsa"}), &claims(random))
        }
    }

    fn edwards(&self, claims: &Value) -> String {
        self.edwards_with(&json!({"alg": "EdDSA", "kid": "edwards", "typ": "JWT"}), claims)
    }

    fn edwards_with(&self, header: &Value, claims: &Value) -> String {
        token(&header.to_string(), &claims.to_string(), |signed| self.edwards.sign(signed).as_ref().to_vec())
    }

    fn rsa(&self, header: &Value, claims: &Value) -> String {
        token(&header.to_string(), &claims.to_string(), |signed| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed, &mut signature).unwrap();
            signature
        })
    }

    fn by_stranger(&self, header: &Value, claims: &Value) -> String {
        token(&header.to_string(), &claims.to_string(), |signed| self.stranger.sign(signed).as_ref().to_vec())
    }

    /// Signed with a secret that is the public RSA key in one of its forms.
    fn hmac(&self, header: &Value, random: &mut Random) -> String {
        let der = self.rsa.public().as_ref();
        let pem = |name: &str| {
            format!("-----BEGIN {name}-----\n{}\n-----END {name}-----\n", STANDARD.encode(der)).into_bytes()
        };
        let secrets =
            [der.to_vec(), pem("PUBLIC KEY"), pem("RSA PUBLIC KEY"), self.rsa_numbers().n, Vec::new()];
        let secret = random.pick(&secrets);
        token(&header.to_string(), &claims(random).to_string(), |signed| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
            mac.update(signed);
            mac.finalize().into_bytes().to_vec()
        })
    }

    fn rsa_numbers(&self) -> RsaPublicKeyComponents<Vec<u8>> {
        self.rsa.public().into()
    }
}

/// Claims that are right for an hour.
fn claims(random: &mut Random) -> Value {
    let now_s = now_s();
    json!({
        "iss": ISSUER, "sub": SUBJECT, "aud": AUDIENCE, "exp": now_s + LONG_S, "iat": now_s,
        "jti": random.below(u64::MAX).to_string(),
    })
}

fn claims_with(random: &mut Random, name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims(random);
    claims[name] = value.into();
    claims
}

fn now_s() -> i64 {
    SystemClock::new().wall() / 1_000
}

fn token(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", b64(signature))
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The header of a bearer credential.
pub(super) fn bearer(credential: &str) -> Shown {
    vec![("authorization", format!("Bearer {credential}"))]
}

fn garbage(random: &mut Random) -> String {
    format!("{:016x}{:016x}{:016x}", random.below(u64::MAX), random.below(u64::MAX), random.below(u64::MAX))
}

/// A text with one of its characters turned into another.
fn changed(text: &str, random: &mut Random) -> String {
    let at = usize::try_from(random.below(text.len() as u64)).unwrap();
    let turn = |c: char| if c == 'x' { 'y' } else { 'x' };
    text.chars().enumerate().map(|(number, c)| if number == at { turn(c) } else { c }).collect()
}

/// Ways to be nobody with tokens and headers.
const PLAIN: [Kind; 11] = [
    Kind { name: "no credential", cause: "missing", shown: |_, _| Vec::new() },
    Kind {
        name: "an empty credential",
        cause: "malformed",
        shown: |_, _| vec![("authorization", String::new())],
    },
    Kind {
        name: "another scheme",
        cause: "malformed",
        shown: |_, random| {
            let scheme = *random.pick(&["Basic", "Digest", "Token", "Negotiate"]);
            vec![("authorization", format!("{scheme} {}", STANDARD.encode(format!("rig:{TOKEN}"))))]
        },
    },
    Kind {
        name: "a token without a scheme",
        cause: "malformed",
        shown: |_, _| vec![("authorization", TOKEN.to_owned())],
    },
    Kind {
        name: "a token that nobody has",
        cause: "unknown_token",
        shown: |_, random| bearer(&garbage(random)),
    },
    Kind {
        name: "a token with a character changed",
        cause: "unknown_token",
        shown: |_, random| bearer(&changed(TOKEN, random)),
    },
    Kind {
        name: "a part of a token",
        cause: "unknown_token",
        shown: |_, random| {
            let chars = usize::try_from(1 + random.below(TOKEN.len() as u64 - 1)).unwrap();
            bearer(&TOKEN[..chars])
        },
    },
    Kind {
        name: "a token with more behind it",
        cause: "unknown_token",
        shown: |_, random| bearer(&format!("{TOKEN}{}", random.below(10))),
    },
    Kind {
        name: "two credentials",
        cause: "malformed",
        shown: |_, _| [bearer(TOKEN), bearer(TOKEN)].concat(),
    },
    Kind {
        name: "a token under another name",
        cause: "missing",
        shown: |_, random| {
            let name =
                *random.pick(&["x-api-key", "proxy-authorization", "cookie", "x-forwarded-authorization"]);
            vec![(name, format!("Bearer {TOKEN}"))]
        },
    },
    Kind {
        name: "the word of a person alone",
        cause: "missing",
        shown: |_, random| {
            vec![("tollgate-actor", (*random.pick(&["operator", "root", "ada@example.com"])).to_owned())]
        },
    },
];

/// Ways to be nobody with JWTs (RFC 8725 names most).
const JWT: [Kind; 17] = [
    Kind {
        name: "algorithm none",
        cause: "wrong_algorithm",
        shown: |_, random| {
            let alg = *random.pick(&["none", "None", "NONE", "nOnE"]);
            let header = json!({"alg": alg, "kid": "rsa"}).to_string();
            let signature = if random.below(2) == 0 { Vec::new() } else { b"x".to_vec() };
            bearer(&token(&header, &claims(random).to_string(), |_| signature))
        },
    },
    Kind {
        name: "the RSA key as a secret",
        cause: "wrong_algorithm",
        shown: |purse, random| {
            let alg = *random.pick(&["HS256", "HS384", "HS512"]);
            bearer(&purse.issuer.hmac(&json!({"alg": alg, "kid": "rsa"}), random))
        },
    },
    Kind {
        name: "the RSA key as a secret under another name",
        cause: "bad_signature",
        shown: |purse, random| bearer(&purse.issuer.hmac(&json!({"alg": "RS256", "kid": "rsa"}), random)),
    },
    Kind {
        name: "the key of another algorithm",
        cause: "wrong_algorithm",
        shown: |purse, random| {
            bearer(&purse.issuer.edwards_with(&json!({"alg": "EdDSA", "kid": "rsa"}), &claims(random)))
        },
    },
    Kind {
        name: "another audience",
        cause: "wrong_audience",
        shown: |purse, random| {
            let other =
                random.pick(&[json!("billing"), json!(["a", "b"]), json!("Tollgate"), json!("")]).clone();
            bearer(&purse.issuer.edwards(&claims_with(random, "aud", other)))
        },
    },
    Kind {
        name: "another issuer",
        cause: "wrong_issuer",
        shown: |purse, random| {
            let others = ["https://idp.example.org/", "https://idp.example.com", "idp", ""];
            let other = *random.pick(&others);
            bearer(&purse.issuer.edwards(&claims_with(random, "iss", other)))
        },
    },
    Kind {
        name: "expired",
        cause: "expired",
        shown: |purse, random| {
            let ago_s = LONG_S + i64::try_from(random.below(1_000_000)).unwrap();
            bearer(&purse.issuer.edwards(&claims_with(random, "exp", now_s() - ago_s)))
        },
    },
    Kind {
        name: "not yet valid",
        cause: "not_yet_valid",
        shown: |purse, random| bearer(&purse.issuer.edwards(&claims_with(random, "nbf", now_s() + LONG_S))),
    },
    Kind {
        name: "a claim is missing",
        cause: "malformed",
        shown: |purse, random| {
            let mut claims = claims(random);
            let missing = *random.pick(&["iss", "sub", "aud", "exp"]);
            claims.as_object_mut().unwrap().remove(missing);
            bearer(&purse.issuer.edwards(&claims))
        },
    },
    Kind {
        name: "a claim stands twice",
        cause: "malformed",
        shown: |purse, random| {
            let claims = claims(random).to_string().replacen('{', r#"{"sub":"nobody","#, 1);
            let header = json!({"alg": "EdDSA", "kid": "edwards"}).to_string();
            bearer(&token(&header, &claims, |signed| purse.issuer.edwards.sign(signed).as_ref().to_vec()))
        },
    },
    Kind {
        name: "a critical extension",
        cause: "malformed",
        shown: |purse, random| {
            let header = json!({"alg": "EdDSA", "kid": "edwards", "crit": ["b64"], "b64": true});
            bearer(&purse.issuer.edwards_with(&header, &claims(random)))
        },
    },
    Kind {
        name: "an unknown key",
        cause: "unknown_key",
        shown: |purse, random| {
            let header = json!({"alg": "EdDSA", "kid": format!("key-{}", random.below(1_000))});
            bearer(&purse.issuer.edwards_with(&header, &claims(random)))
        },
    },
    Kind {
        name: "a stranger's key under a known name",
        cause: "bad_signature",
        shown: |purse, random| {
            bearer(&purse.issuer.by_stranger(&json!({"alg": "EdDSA", "kid": "edwards"}), &claims(random)))
        },
    },
    Kind {
        name: "a key that the token brings along",
        cause: "bad_signature",
        shown: |purse, random| {
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(purse.issuer.stranger.public_key())});
            bearer(&purse.issuer.by_stranger(&json!({"alg": "EdDSA", "jwk": jwk}), &claims(random)))
        },
    },
    Kind {
        name: "claims that were changed",
        cause: "bad_signature",
        shown: |purse, random| {
            let right = purse.issuer.edwards(&claims(random));
            let other = claims_with(random, "sub", SUBJECT);
            let parts: Vec<&str> = right.split('.').collect();
            bearer(&[parts[0], &b64(other.to_string()), parts[2]].join("."))
        },
    },
    Kind {
        name: "a signature that was changed",
        cause: "bad_signature",
        shown: |purse, random| {
            let right = purse.issuer.edwards(&claims(random));
            let (signed, signature) = right.rsplit_once('.').unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
            bytes[at] ^= 1 << random.below(8);
            bearer(&format!("{signed}.{}", b64(bytes)))
        },
    },
    Kind {
        name: "nobody's subject",
        cause: "unknown_subject",
        shown: |purse, random| {
            let others = ["orders-servic", "Orders-Service", "admin", "", "orders-service\u{0}", "*"];
            let other = *random.pick(&others);
            bearer(&purse.issuer.edwards(&claims_with(random, "sub", other)))
        },
    },
];

/// Ways to be nobody with an API token that was somebody's.
const ENDED: [Kind; 4] = [
    Kind { name: "a revoked token", cause: "revoked", shown: |purse, _| bearer(&purse.tokens.revoked) },
    Kind { name: "an expired token", cause: "expired", shown: |purse, _| bearer(&purse.tokens.expired) },
    Kind {
        name: "a token that was replaced",
        cause: "expired",
        shown: |purse, _| bearer(&purse.tokens.replaced),
    },
    Kind {
        name: "an API token with a character changed",
        cause: "unknown_token",
        shown: |purse, random| bearer(&changed(&purse.tokens.good, random)),
    },
];

/// Every way to be nobody that needs no more than a header.
pub(super) fn kinds() -> impl Iterator<Item = Kind> {
    PLAIN.into_iter().chain(JWT).chain(ENDED)
}
