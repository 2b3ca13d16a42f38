//! An issuer of JWTs for tests: it signs whatever it is given, sound or not. Nothing here judges.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::config::Config;
use tollgate::config::identity::{Algorithm, IssuerConfig, KeySource, Subject};

/// What the issuer calls itself.
pub(crate) const ISSUER: &str = "https://idp.example.org";
/// What it calls the gateway.
pub(crate) const AUDIENCE: &str = "tollgate";

/// An issuer with one Ed25519 key, whose key set stands in a file.
pub(crate) struct Issuer {
    folder: TempDir,
    pair: Ed25519KeyPair,
    kid: String,
}

impl Issuer {
    /// An issuer whose key follows from `seed`.
    pub(crate) fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let issuer = Self { folder: TempDir::new().unwrap(), pair, kid: format!("key-{seed}") };
        issuer.publish(&issuer.key_set());
        issuer
    }

    /// The same issuer with another key, which it does not publish yet.
    pub(crate) fn rotate(&mut self, seed: u8) {
        self.pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        self.kid = format!("key-{seed}");
    }

    /// The key set of its key.
    pub(crate) fn key_set(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x}]})
    }

    /// Puts a key set where the gateway reads it.
    pub(crate) fn publish(&self, set: &Value) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, set.to_string()).unwrap();
        std::fs::rename(next, self.folder.path().join("keys.json")).unwrap();
    }

    /// Has the gateway trust the issuer, and its `subject` as the caller of this name.
    pub(crate) fn trust(&self, config: &mut Config, caller: &str, subject: &str) {
        config.issuers.push(IssuerConfig {
            name: "idp".into(),
            issuer: ISSUER.into(),
            audiences: vec![AUDIENCE.into()],
            keys: KeySource::File(self.folder.path().join("keys.json")),
            algorithms: Algorithm::ALL.to_vec(),
        });
        let caller = config.callers.iter_mut().find(|one| one.name == caller).unwrap();
        caller.subjects.push(Subject { issuer: "idp".into(), subject: subject.into() });
    }

    /// Claims that are right for ten minutes.
    pub(crate) fn claims(subject: &str, now_s: i64) -> Value {
        json!({"iss": ISSUER, "sub": subject, "aud": AUDIENCE, "exp": now_s + 600, "iat": now_s})
    }

    /// A sound token of these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_under(&json!({"alg": "EdDSA", "kid": self.kid}), claims)
    }

    /// A token with any header, signed by the issuer's key.
    pub(crate) fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Header and claims of a token, without a signature.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}
