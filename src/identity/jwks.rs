//! An issuer's public keys as it publishes them (RFC 7517), kept fresh. What a key may sign is `jwt`'s business.

mod fetch;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use self::fetch::Fetch;
use super::settings;
use crate::config::identity::{Algorithm, KeySource};
use crate::domain::limits::{
    JWKS_BYTES_MAX, JWKS_COOL_DOWN_MS, JWKS_KEYS_MAX, JWKS_REFRESH_MS, JWKS_STALE_MS_MAX,
};
use crate::domain::operation::hex;

/// Why something is no key set.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Too many bytes or keys.
    #[error("is larger than {JWKS_BYTES_MAX} bytes or {JWKS_KEYS_MAX} keys")]
    TooLarge,
    /// Not JSON of this form.
    #[error("is not a JSON Web Key Set")]
    Unreadable,
    /// No key in it verifies signatures by an algorithm that is known here.
    #[error("holds no public key that verifies signatures")]
    Empty,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicKey {
    /// Its name.
    pub(super) kid: Option<String>,
    /// The one algorithm that it is for, if the issuer says so.
    pub(super) algorithm: Option<Algorithm>,
    /// The key itself.
    pub(super) material: Material,
    /// SHA-256 of the key itself, in hexadecimal digits.
    pub(super) fingerprint: String,
}

/// The numbers of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Material {
    /// Modulus and exponent, big-endian.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
    /// A point on P-384, uncompressed.
    P384(Vec<u8>),
    /// A point on edwards25519.
    Ed25519(Vec<u8>),
}

/// The keys of one issuer at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeySet(pub(super) Vec<PublicKey>);

#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a set; keys that are not for signatures, or of kinds that are not known here, are left out, as RFC 7517
    /// section 5 asks.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Error> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        let Published { keys } = serde_json::from_slice(text).map_err(|_| Error::Unreadable)?;
        if keys.len() > JWKS_KEYS_MAX {
            return Err(Error::TooLarge);
        }
        let keys: Vec<_> = keys.into_iter().filter_map(public_key).collect();
        if keys.is_empty() { Err(Error::Empty) } else { Ok(Self(keys)) }
    }

    /// The key of this fingerprint.
    pub(super) fn has(&self, fingerprint: &str) -> bool {
        self.0.iter().any(|key| key.fingerprint == fingerprint)
    }
}

fn public_key(value: Value) -> Option<PublicKey> {
    let key: Jwk = serde_json::from_value(value).ok()?;
    let verifies = key.key_ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !verifies || key.purpose.is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    // A key for an algorithm that is not known here verifies nothing.
    let algorithm = key.alg.map(|name| Algorithm::parse(&name).ok_or(())).transpose().ok()?;
    let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
    let point = |length: usize| {
        let (x, y) = (bytes(&key.x)?, bytes(&key.y)?);
        (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
    };
    let material = match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", _) => {
            let significant = |number: Vec<u8>| number.into_iter().skip_while(|byte| *byte == 0).collect();
            Material::Rsa { n: significant(bytes(&key.n)?), e: significant(bytes(&key.e)?) }
        }
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes(&key.x).filter(|x| x.len() == 32)?),
        _ => return None,
    };
    Some(PublicKey { kid: key.kid, algorithm, fingerprint: material.fingerprint(), material })
}

impl Material {
    fn fingerprint(&self) -> String {
        let (kind, parts): (_, [&[u8]; 2]) = match self {
            Self::Rsa { n, e } => ("rsa", [n, e]),
            Self::P256(point) => ("p256", [point, &[]]),
            Self::P384(point) => ("p384", [point, &[]]),
            Self::Ed25519(point) => ("ed25519", [point, &[]]),
        };
        let digest = Sha256::new().chain_update(kind).chain_update([0]);
        hex(&parts.iter().fold(digest, |digest, part| digest.chain_update(part).chain_update([0])).finalize())
    }
}

/// The keys of one issuer, from where it publishes them.
#[derive(Debug)]
pub(super) struct Keys {
    source: Source,
    set: RwLock<Arc<KeySet>>,
    /// Held by whoever asks the source, so that one asks at a time.
    asked: Mutex<Asked>,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url(Fetch),
}

/// When the source was asked, by the clock that nobody can set.
#[derive(Debug, Default)]
struct Asked {
    last: Option<Duration>,
    last_answered: Option<Duration>,
    failing: bool,
}

impl Keys {
    /// The keys of a file, which must be sound now, or those at a URL, which are fetched later.
    pub(super) fn open(source: &KeySource) -> Result<Self, settings::Error> {
        let (source, set) = match source {
            KeySource::Url(url) => {
                let fetch = Fetch::new(url).map_err(|_| settings::Error::Client(url.clone()))?;
                (Source::Url(fetch), KeySet::default())
            }
            KeySource::File(path) => {
                let path = path.clone();
                let text = match std::fs::read(&path) {
                    Ok(text) => text,
                    Err(source) => return Err(settings::Error::Unreadable { path, source }),
                };
                match KeySet::parse(&text) {
                    Ok(set) => (Source::File(path), set),
                    Err(source) => return Err(settings::Error::Keys { path, source }),
                }
            }
        };
        Ok(Self { source, set: RwLock::new(Arc::new(set)), asked: Mutex::default() })
    }

    /// The keys as they are known.
    pub(super) fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the keys of `other` come from the same place and only change with time.
    pub(super) fn same_url(&self, other: &Self) -> bool {
        matches!((&self.source, &other.source), (Source::Url(own), Source::Url(other)) if own.url() == other.url())
    }

    /// Asks the source because a token names a key that is not known; whether the keys changed. It is asked by one at a
    /// time, and not again for a while, so that nobody can make the gateway hammer an issuer.
    pub(super) async fn look_for_unknown(&self, now: Duration) -> bool {
        let mut asked = self.asked.lock().await;
        let cool_down = Duration::from_millis(JWKS_COOL_DOWN_MS);
        if asked.last.is_some_and(|last| now < last.saturating_add(cool_down)) {
            return false;
        }
        self.ask(&mut asked, now).await
    }

    /// Asks the source if it is time to; whether the keys changed.
    pub(super) async fn look_after(&self, now: Duration) -> bool {
        let mut asked = self.asked.lock().await;
        let pause = match (&self.source, asked.failing) {
            (Source::File(_), _) => Duration::ZERO,
            (Source::Url(_), true) => Duration::from_millis(JWKS_COOL_DOWN_MS),
            (Source::Url(_), false) => Duration::from_millis(JWKS_REFRESH_MS),
        };
        if asked.last.is_some_and(|last| now < last.saturating_add(pause)) {
            return false;
        }
        self.ask(&mut asked, now).await
    }

    async fn ask(&self, asked: &mut Asked, now: Duration) -> bool {
        asked.last = Some(now);
        let (place, text) = match &self.source {
            Source::File(path) => {
                (path.display().to_string(), tokio::fs::read(path).await.map_err(|error| error.to_string()))
            }
            Source::Url(fetch) => {
                (fetch.url().to_owned(), fetch.get().await.map_err(|error| error.to_string()))
            }
        };
        match text.and_then(|text| KeySet::parse(&text).map_err(|error| format!("it {error}"))) {
            Ok(set) => {
                if asked.failing {
                    tracing::info!(place, "an issuer's keys can be read again");
                }
                *asked = Asked { last: Some(now), last_answered: Some(now), failing: false };
                self.put(set)
            }
            Err(error) => {
                if !asked.failing {
                    tracing::error!(
                        place,
                        error,
                        "an issuer's keys cannot be read; the earlier ones are kept"
                    );
                }
                asked.failing = true;
                let stale = Duration::from_millis(JWKS_STALE_MS_MAX);
                let is_stale = asked.last_answered.is_some_and(|last| now >= last.saturating_add(stale));
                matches!(self.source, Source::Url(_)) && is_stale && self.put(KeySet::default())
            }
        }
    }

    /// Takes over a set; whether it is another one.
    fn put(&self, set: KeySet) -> bool {
        let mut current = self.set.write().unwrap_or_else(PoisonError::into_inner);
        let changed = **current != set;
        if changed {
            tracing::info!(keys = set.0.len(), "an issuer's keys changed");
            *current = Arc::new(set);
        }
        changed
    }
}

#[cfg(test)]
mod tests;
