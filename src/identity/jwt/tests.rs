//! Which signatures are taken, by which keys; with them, keys that sign for other tests.

use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use serde_json::json;

use super::*;

/// The RSA key of this test, made for it with `openssl genpkey` and used nowhere else.
const RSA_PKCS8: &[u8] = include_bytes!("rsa.pk8");

/// A private key; each kind has one that is the same in every test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::identity) enum Key {
    Edwards,
    P256,
    P384,
    Rsa,
}

pub(in crate::identity) const EDWARDS: Key = Key::Edwards;
const ALL: [Key; 4] = [Key::Edwards, Key::P256, Key::P384, Key::Rsa];

/// Claims that are right for a minute.
pub(in crate::identity) fn claims(now_s: i64) -> Value {
    json!({
        "iss": "https://idp.example.org", "sub": "orders-service", "aud": "tollgate",
        "exp": now_s + 60, "iat": now_s, "nbf": now_s
    })
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One pair for the whole process, because it is made at random.
fn ecdsa(key: Key) -> EcdsaKeyPair {
    static PAIRS: std::sync::OnceLock<[Vec<u8>; 2]> = std::sync::OnceLock::new();
    let make = |algorithm: &'static EcdsaSigningAlgorithm| {
        EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap().as_ref().to_vec()
    };
    let pairs = PAIRS
        .get_or_init(|| [make(&ECDSA_P256_SHA256_FIXED_SIGNING), make(&ECDSA_P384_SHA384_FIXED_SIGNING)]);
    let (algorithm, pkcs8) = match key {
        Key::P256 => (&ECDSA_P256_SHA256_FIXED_SIGNING, &pairs[0]),
        _ => (&ECDSA_P384_SHA384_FIXED_SIGNING, &pairs[1]),
    };
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new()).unwrap()
}

fn edwards() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(RSA_PKCS8).unwrap()
}

impl Key {
    fn kid(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::Edwards => Algorithm::EdDSA,
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
            Self::Rsa => Algorithm::RS256,
        }
    }

    /// The public key as a JWK.
    pub(in crate::identity) fn jwk(self) -> Value {
        let point = |pair: &EcdsaKeyPair, crv: &str| {
            let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
            json!({"kty": "EC", "crv": crv, "kid": self.kid(), "use": "sig", "x": b64(x), "y": b64(y)})
        };
        match self {
            Self::Edwards => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid(), "x": b64(edwards().public_key())})
            }
            Self::P256 => point(&ecdsa(self), "P-256"),
            Self::P384 => point(&ecdsa(self), "P-384"),
            Self::Rsa => {
                let public: RsaPublicKeyComponents<Vec<u8>> = rsa().public().into();
                json!({"kty": "RSA", "kid": self.kid(), "n": b64(public.n), "e": b64(public.e)})
            }
        }
    }

    /// A key set of this key alone.
    pub(in crate::identity) fn set(self) -> String {
        json!({"keys": [self.jwk()]}).to_string()
    }

    /// A token with these claims.
    pub(in crate::identity) fn sign(self, claims: &Value) -> String {
        self.sign_under(&json!({"alg": self.algorithm().as_str(), "kid": self.kid(), "typ": "JWT"}), claims)
    }

    /// A token with this header, signed by this key whatever the header says.
    fn sign_under(self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let message = signed.as_bytes();
        let signature = match self {
            Self::Edwards => edwards().sign(message).as_ref().to_vec(),
            Self::P256 | Self::P384 => {
                ecdsa(self).sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
            }
            Self::Rsa => {
                let pss = header["alg"] == "PS512";
                let padding: &'static dyn RsaEncoding = if pss { &RSA_PSS_SHA512 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; rsa().public().modulus_len()];
                rsa().sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
        };
        format!("{signed}.{}", b64(signature))
    }
}

fn all_keys() -> KeySet {
    KeySet::parse(json!({"keys": ALL.map(Key::jwk)}).to_string().as_bytes()).unwrap()
}

fn verify(token: &str, keys: &KeySet) -> Result<String, Stranger> {
    Token::parse(token)?.verify(keys)
}

#[test]
fn every_kind_of_key_verifies_its_own_tokens() {
    let keys = all_keys();
    for key in ALL {
        let fingerprint = verify(&key.sign(&claims(0)), &keys);
        let own = keys.0.iter().find(|one| one.kid == Some(key.kid())).unwrap();
        assert_eq!(fingerprint.as_ref(), Ok(&own.fingerprint), "{key:?}");
    }
    let pss = Key::Rsa.sign_under(&json!({"alg": "PS512", "kid": "rsa"}), &claims(0));
    assert!(verify(&pss, &keys).is_ok());
}

#[test]
fn no_key_verifies_another_ones_tokens() {
    let keys = all_keys();
    for (signer, named) in ALL.into_iter().flat_map(|signer| ALL.map(|named| (signer, named))) {
        let header = json!({"alg": named.algorithm().as_str(), "kid": named.kid()});
        let verified = verify(&signer.sign_under(&header, &claims(0)), &keys);
        let expected = if signer == named { Ok(()) } else { Err(Stranger::BadSignature) };
        assert_eq!(verified.map(drop), expected, "{signer:?} as {named:?}");
    }
}

#[test]
fn shared_secrets_and_none_are_no_algorithms() {
    let keys = all_keys();
    for alg in ["none", "None", "NONE", "HS256", "HS384", "HS512", "RSA1_5", "dir", "rs256", ""] {
        // The signature is a MAC under the public key's own bytes, as an attacker would make it.
        let signed =
            format!("{}.{}", b64(json!({"alg": alg, "kid": "rsa"}).to_string()), b64(claims(0).to_string()));
        let public = Key::Rsa.jwk()["n"].as_str().unwrap().to_owned();
        let mac = ring::hmac::sign(
            &ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes()),
            signed.as_bytes(),
        );
        for signature in [b64(mac.as_ref()), String::new()] {
            let verified = verify(&format!("{signed}.{signature}"), &keys);
            assert_eq!(verified, Err(Stranger::WrongAlgorithm), "{alg}");
        }
    }
}

#[test]
fn an_algorithm_fits_its_key_or_is_wrong() {
    let keys = all_keys();
    for (alg, kid) in
        [("ES256", "rsa"), ("RS256", "p256"), ("ES384", "p256"), ("EdDSA", "p256"), ("PS256", "edwards")]
    {
        let token = Key::Rsa.sign_under(&json!({"alg": alg, "kid": kid}), &claims(0));
        assert_eq!(verify(&token, &keys), Err(Stranger::WrongAlgorithm), "{alg} with {kid}");
    }
    let mut kept = Key::Rsa.jwk();
    kept["alg"] = json!("PS512");
    let kept = KeySet::parse(json!({"keys": [kept]}).to_string().as_bytes()).unwrap();
    assert_eq!(
        verify(&Key::Rsa.sign(&claims(0)), &kept),
        Err(Stranger::WrongAlgorithm),
        "a key kept for another"
    );
}

#[test]
fn a_key_is_named_or_the_only_one_that_fits() {
    let keys = all_keys();
    let unnamed = Key::P256.sign_under(&json!({"alg": "ES256"}), &claims(0));
    assert!(verify(&unnamed, &keys).is_ok());
    let two = [Key::P256.jwk(), {
        let mut other = Key::P256.jwk();
        other["kid"] = json!("other");
        other
    }];
    let two = KeySet::parse(json!({"keys": two}).to_string().as_bytes()).unwrap();
    assert_eq!(verify(&unnamed, &two), Err(Stranger::UnknownKey));
    let unknown = Key::P256.sign_under(&json!({"alg": "ES256", "kid": "unknown"}), &claims(0));
    assert_eq!(verify(&unknown, &keys), Err(Stranger::UnknownKey));
}

#[test]
fn a_header_that_brings_its_own_key_or_asks_for_more_is_not_believed() {
    let keys = all_keys();
    let own =
        json!({"alg": "EdDSA", "kid": "p256", "jwk": Key::Edwards.jwk(), "jku": "https://evil.example.org"});
    assert_eq!(verify(&Key::Edwards.sign_under(&own, &claims(0)), &keys), Err(Stranger::WrongAlgorithm));
    for header in [
        json!({"alg": "EdDSA", "kid": "edwards", "crit": ["exp"]}),
        json!({"alg": "EdDSA", "kid": "edwards", "typ": "logout+jwt"}),
        json!({"kid": "edwards"}),
    ] {
        let token = Key::Edwards.sign_under(&header, &claims(0));
        assert_eq!(Token::parse(&token).map(drop), Err(Stranger::Malformed), "{header}");
    }
}

#[test]
fn a_name_that_stands_twice_is_malformed() {
    let sign = |header: &str, body: &str| {
        let signed = format!("{}.{}", b64(header), b64(body));
        format!("{signed}.{}", b64(edwards().sign(signed.as_bytes())))
    };
    let (header, body) = (r#"{"alg":"EdDSA","kid":"edwards"}"#, claims(0).to_string());
    assert!(verify(&sign(header, &body), &all_keys()).is_ok());
    let twice = body.replacen('{', r#"{"sub":"support-service","#, 1);
    assert_eq!(verify(&sign(header, &twice), &all_keys()), Err(Stranger::Malformed));
    let twice = header.replacen('{', r#"{"alg":"none","#, 1);
    assert_eq!(verify(&sign(&twice, &body), &all_keys()), Err(Stranger::Malformed));
}

proptest! {
    #[test]
    fn a_changed_character_verifies_nothing(at in 0usize..400, to in "[A-Za-z0-9_.-]") {
        let token = Key::Edwards.sign(&claims(0));
        let at = at % token.len();
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != token);
        prop_assert!(verify(&changed, &all_keys()).is_err());
    }

    #[test]
    fn any_text_is_looked_at_safely(text in "\\PC{0,60}\\.\\PC{0,60}\\.\\PC{0,60}") {
        prop_assert!(Token::parse(&text).is_err());
    }
}
