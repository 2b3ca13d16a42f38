//! What counts as a key, and how often an issuer is asked.

use std::net::SocketAddr;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use serde_json::json;

use super::*;
use crate::identity::jwt::tests::Key;

const COOL_DOWN: Duration = Duration::from_millis(JWKS_COOL_DOWN_MS);

/// An issuer that counts how often it is asked.
#[derive(Clone)]
struct Idp {
    body: Arc<StdMutex<String>>,
    asked: Arc<AtomicUsize>,
    address: SocketAddr,
}

impl Idp {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let idp = Self { body: Arc::new(StdMutex::new(Key::P256.set())), asked: Arc::default(), address };
        let answering = idp.clone();
        let answer = move || {
            answering.asked.fetch_add(1, Ordering::SeqCst);
            std::future::ready(answering.body.lock().unwrap().clone())
        };
        tokio::spawn(async { axum::serve(listener, Router::new().route("/keys", get(answer))).await });
        idp
    }

    fn keys(&self) -> Keys {
        Keys::open(&KeySource::Url(format!("http://{}/keys", self.address))).unwrap()
    }

    fn says(&self, body: impl Into<String>) {
        *self.body.lock().unwrap() = body.into();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[test]
fn keys_that_verify_nothing_are_left_out() {
    let mut encrypts = Key::Rsa.jwk();
    encrypts["use"] = json!("enc");
    let mut signs = Key::Rsa.jwk();
    signs["key_ops"] = json!(["sign"]);
    let mut hmac = Key::Rsa.jwk();
    hmac["alg"] = json!("HS256");
    let set = json!({"keys": [
        {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}, {"kty": "RSA"}, 5,
        encrypts, signs, hmac, Key::P256.jwk()
    ]});
    let set = KeySet::parse(set.to_string().as_bytes()).unwrap();
    assert_eq!(set.0.len(), 1, "{set:?}");
    assert!(set.has(&set.0[0].fingerprint) && !set.has(""));
}

#[test]
fn what_is_no_key_set_is_refused() {
    let many: Vec<_> = (0..=JWKS_KEYS_MAX).map(|_| Key::P256.jwk()).collect();
    for (text, error) in [
        ("{}".to_owned(), Error::Unreadable),
        ("<html>".to_owned(), Error::Unreadable),
        (r#"{"keys":[]}"#.to_owned(), Error::Empty),
        (json!({"keys": many}).to_string(), Error::TooLarge),
        (" ".repeat(JWKS_BYTES_MAX + 1), Error::TooLarge),
    ] {
        assert_eq!(KeySet::parse(text.as_bytes()), Err(error));
    }
}

#[tokio::test]
async fn an_unknown_key_makes_one_fetch_and_not_another_for_a_while() {
    let idp = Idp::start().await;
    let keys = Arc::new(idp.keys());
    let now = Duration::from_secs(1_000);
    let all = (0..20).map(|_| {
        let keys = Arc::clone(&keys);
        tokio::spawn(async move { keys.look_for_unknown(now).await })
    });
    let mut changed = 0;
    for one in all.collect::<Vec<_>>() {
        changed += usize::from(one.await.unwrap());
    }
    assert_eq!((changed, idp.asked(), keys.current().0.len()), (1, 1, 1));
    idp.says(Key::P384.set());
    assert!(!keys.look_for_unknown(now + COOL_DOWN - Duration::from_millis(1)).await);
    assert_eq!(idp.asked(), 1);
    assert!(keys.look_for_unknown(now + COOL_DOWN).await, "a new key is found after it");
    assert_eq!(idp.asked(), 2);
}

#[tokio::test]
async fn what_an_issuer_says_by_mistake_changes_nothing_for_a_day() {
    let idp = Idp::start().await;
    let keys = idp.keys();
    let mut now = Duration::from_secs(1_000);
    assert!(keys.look_after(now).await);
    for wrong in ["", "{}", r#"{"keys":[]}"#] {
        idp.says(wrong);
        now += Duration::from_millis(JWKS_REFRESH_MS);
        assert!(!keys.look_after(now).await);
        assert_eq!(keys.current().0.len(), 1, "{wrong}");
    }
    let asked = idp.asked();
    assert!(!keys.look_after(now + COOL_DOWN - Duration::from_millis(1)).await);
    assert_eq!(idp.asked(), asked, "a failing issuer is not hammered");
    assert!(keys.look_after(now + Duration::from_millis(JWKS_STALE_MS_MAX)).await);
    assert!(keys.current().0.is_empty(), "what could not be confirmed for a day is trusted no more");
}

#[tokio::test]
async fn a_redirection_is_not_followed_and_a_flood_is_cut() {
    let idp = Idp::start().await;
    idp.says(" ".repeat(JWKS_BYTES_MAX + 1));
    let keys = idp.keys();
    assert!(!keys.look_after(Duration::from_secs(1)).await);
    let missing = Keys::open(&KeySource::Url(format!("http://{}/missing", idp.address))).unwrap();
    assert!(!missing.look_after(Duration::from_secs(1)).await);
    assert!(keys.current().0.is_empty() && missing.current().0.is_empty());
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes_and_kept_when_it_breaks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let source = KeySource::File(path.clone());
    assert!(matches!(Keys::open(&source), Err(settings::Error::Unreadable { .. })));
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(Keys::open(&source), Err(settings::Error::Keys { .. })));
    std::fs::write(&path, Key::P256.set()).unwrap();
    let keys = Keys::open(&source).unwrap();
    let now = Duration::from_secs(1);
    assert!(!keys.look_after(now).await);
    std::fs::write(&path, Key::Rsa.set()).unwrap();
    assert!(keys.look_after(now).await);
    let rsa = keys.current();
    std::fs::write(&path, "{").unwrap();
    assert!(!keys.look_after(now).await);
    assert_eq!(keys.current(), rsa);
}
