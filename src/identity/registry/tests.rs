//! Who is let in by what, and who is not.

use secrecy::ExposeSecret as _;

use super::*;
use crate::config::identity::{KeySource, Subject};
use crate::domain::clock::ManualClock;
use crate::identity::jwt::tests::{EDWARDS, Key, claims};

const NOW_MS: UnixMillis = 1_800_000_000_000;
const NOW_S: i64 = NOW_MS / 1_000;
const ORDERS: &str = "token-of-orders-1";
const SUPPORT: &str = "token-of-support-1";

fn caller(name: &str) -> CallerConfig {
    CallerConfig {
        name: name.into(),
        namespace: format!("{name}-space"),
        groups: vec!["all".into()],
        weight: 1,
        tokens: vec![format!("token-of-{name}-1").into()],
        certificates: vec![spiffe(name), PeerName::Dns(format!("{name}.example.org"))],
        subjects: vec![Subject { issuer: "idp".into(), subject: format!("{name}-service") }],
    }
}

fn spiffe(name: &str) -> PeerName {
    PeerName::Spiffe(format!("spiffe://example.org/{name}"))
}

/// Two callers, and an issuer whose keys stand in a file.
fn settings(folder: &tempfile::TempDir) -> Settings {
    let path = folder.path().join("keys.json");
    std::fs::write(&path, EDWARDS.set()).unwrap();
    let issuer = IssuerConfig {
        name: "idp".into(),
        issuer: "https://idp.example.org".into(),
        audiences: vec!["tollgate".into(), "tollgate-old".into()],
        keys: KeySource::File(path),
        algorithms: Algorithm::ALL.to_vec(),
    };
    let keys = Arc::new(Keys::open(&issuer.keys).unwrap());
    Settings { callers: vec![caller("orders"), caller("support")], issuers: vec![(issuer, keys)] }
}

struct Setup {
    folder: tempfile::TempDir,
    registry: Registry,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(settings(&folder), Arc::new(ManualClock::at(NOW_MS)));
    Setup { folder, registry }
}

fn names(sans: &[PeerName]) -> PeerNames {
    PeerNames { sans: sans.to_vec(), not_after_s: NOW_S + 10 }
}

impl Setup {
    async fn bearer(&self, token: &str) -> Result<Caller, Stranger> {
        let value = format!("Bearer {token}");
        let presented = Presented { authorization: Some(&value), certificate: None };
        self.registry.identify(&presented, NOW_MS).await
    }

    async fn certificate(&self, names: &PeerNames, token: Option<&str>) -> Result<Caller, Stranger> {
        let value = token.map(|token| format!("Bearer {token}"));
        let presented = Presented { authorization: value.as_deref(), certificate: Some(names) };
        self.registry.identify(&presented, NOW_MS).await
    }

    async fn jwt(&self, change: impl FnOnce(&mut serde_json::Value)) -> Result<Caller, Stranger> {
        let mut all = claims(NOW_S);
        change(&mut all);
        self.bearer(&EDWARDS.sign(&all)).await
    }
}

#[tokio::test]
async fn only_a_known_bearer_token_identifies() {
    let setup = setup();
    let orders = setup.bearer(ORDERS).await.unwrap();
    assert_eq!((orders.name.as_str(), orders.namespace.as_str()), ("orders", "orders-space"));
    assert_eq!(orders.credential.describe().as_deref(), Some("token orders#1"));
    assert_eq!(orders.groups, ["all"]);
    for (value, why) in [
        ("Bearer token-of-orders-", Stranger::UnknownToken),
        ("Bearer ", Stranger::UnknownToken),
        ("Basic token-of-orders-1", Stranger::Malformed),
        ("token-of-orders-1", Stranger::Malformed),
        ("", Stranger::Malformed),
    ] {
        let presented = Presented { authorization: Some(value), certificate: None };
        assert_eq!(setup.registry.identify(&presented, NOW_MS).await, Err(why), "{value}");
    }
    assert_eq!(setup.registry.identify(&Presented::default(), NOW_MS).await, Err(Stranger::Missing));
    let lower = Presented { authorization: Some("bearer token-of-orders-1"), certificate: None };
    assert_eq!(setup.registry.identify(&lower, NOW_MS).await, Ok(orders));
}

#[tokio::test]
async fn without_callers_there_is_one() {
    let registry = Registry::new(Settings::default(), Arc::new(ManualClock::at(NOW_MS)));
    let caller = registry.identify(&Presented::default(), NOW_MS).await.unwrap();
    assert_eq!(caller, Caller::loopback());
    assert_eq!(registry.again(&caller, NOW_MS), Ok(caller.clone()));
    let setup = setup();
    assert_eq!(
        setup.registry.again(&caller, NOW_MS),
        Err(Stranger::Missing),
        "once there are callers, nobody is"
    );
}

#[tokio::test]
async fn an_api_token_works_until_it_ends_or_is_revoked() {
    let setup = setup();
    let (token, record) = token::make("support", NOW_MS).unwrap();
    let shown = token.expose_secret().to_owned();
    assert_eq!(setup.bearer(&shown).await, Err(Stranger::UnknownToken));
    setup.registry.set_tokens(vec![TokenRecord { expires_ms: Some(NOW_MS + 1), ..record.clone() }]);
    let support = setup.bearer(&shown).await.unwrap();
    assert_eq!(
        (support.name.as_str(), support.credential.describe()),
        ("support", Some(format!("token {}", record.id)))
    );
    assert_eq!(setup.registry.last_used(&record.id), Some(NOW_MS));
    assert_eq!(setup.registry.again(&support, NOW_MS), Ok(support.clone()));
    assert_eq!(setup.registry.again(&support, NOW_MS + 1), Err(Stranger::Expired));

    setup.registry.set_tokens(vec![TokenRecord { revoked_ms: Some(NOW_MS), ..record.clone() }]);
    assert_eq!(setup.bearer(&shown).await, Err(Stranger::Revoked));
    assert_eq!(setup.registry.again(&support, NOW_MS), Err(Stranger::Revoked));

    let (other, _) = token::make("support", NOW_MS).unwrap();
    assert_eq!(setup.bearer(other.expose_secret()).await, Err(Stranger::UnknownToken));
    setup.registry.set_tokens(vec![TokenRecord { caller: "gone".into(), ..record }]);
    assert_eq!(setup.bearer(&shown).await, Err(Stranger::UnknownCaller));
}

#[tokio::test]
async fn a_certificate_is_known_by_its_names() {
    let setup = setup();
    let orders = setup.certificate(&names(&[spiffe("orders")]), None).await.unwrap();
    assert_eq!(orders.credential.describe().as_deref(), Some("certificate spiffe://example.org/orders"));
    assert_eq!(orders.expires_ms(), Some(NOW_MS + 10_000));
    let both = names(&[spiffe("orders"), PeerName::Dns("orders.example.org".into())]);
    assert_eq!(setup.certificate(&both, None).await.unwrap().name, "orders");
    let unknown = names(&[spiffe("nobody"), PeerName::Dns("example.org".into())]);
    assert_eq!(setup.certificate(&unknown, None).await, Err(Stranger::UnknownCertificate));
    let two = names(&[spiffe("orders"), PeerName::Dns("support.example.org".into())]);
    assert_eq!(setup.certificate(&two, None).await, Err(Stranger::Ambiguous));
    let old = PeerNames { not_after_s: NOW_S, ..names(&[spiffe("orders")]) };
    assert_eq!(setup.certificate(&old, None).await, Err(Stranger::Expired));
}

#[tokio::test]
async fn two_credentials_are_one_callers_or_nobodys() {
    let setup = setup();
    let orders = names(&[spiffe("orders")]);
    let caller = setup.certificate(&orders, Some(ORDERS)).await.unwrap();
    assert_eq!(
        (caller.credential.kind(), caller.certificate.as_ref().unwrap().kind()),
        ("token", "certificate")
    );
    assert_eq!(setup.certificate(&orders, Some(SUPPORT)).await, Err(Stranger::Ambiguous));
    assert_eq!(setup.certificate(&orders, Some("wrong")).await, Err(Stranger::UnknownToken));
    assert_eq!(
        setup.certificate(&names(&[spiffe("nobody")]), Some(ORDERS)).await,
        Err(Stranger::UnknownCertificate)
    );
    let nameless = PeerNames::default();
    assert_eq!(setup.certificate(&nameless, Some(ORDERS)).await, Err(Stranger::UnknownCertificate));

    let mut moved = settings(&setup.folder);
    let taken = moved.callers[0].certificates.remove(0);
    moved.callers[1].certificates.push(taken);
    setup.registry.replace(moved);
    assert_eq!(setup.registry.again(&caller, NOW_MS), Err(Stranger::Ambiguous));
}

#[tokio::test]
async fn a_jwt_proves_its_subject_within_its_time() {
    let setup = setup();
    let orders = setup.jwt(|_| {}).await.unwrap();
    assert_eq!(orders.name, "orders");
    let described = orders.credential.describe();
    assert_eq!(described.as_deref(), Some("jwt https://idp.example.org orders-service"));
    assert_eq!(setup.registry.again(&orders, NOW_MS + 59_000), Ok(orders.clone()));
    let leeway = JWT_LEEWAY_S * 1_000;
    assert_eq!(setup.registry.again(&orders, NOW_MS + 60_000 + leeway), Err(Stranger::Expired));

    for (claim, value, why) in [
        ("exp", serde_json::json!(NOW_S - JWT_LEEWAY_S), Stranger::Expired),
        ("exp", serde_json::json!("soon"), Stranger::Malformed),
        ("exp", serde_json::Value::Null, Stranger::Malformed),
        ("nbf", serde_json::json!(NOW_S + JWT_LEEWAY_S + 1), Stranger::NotYetValid),
        ("iss", serde_json::json!("https://other.example.org"), Stranger::WrongIssuer),
        ("iss", serde_json::Value::Null, Stranger::Malformed),
        ("aud", serde_json::json!("shop"), Stranger::WrongAudience),
        ("aud", serde_json::json!([]), Stranger::WrongAudience),
        ("aud", serde_json::Value::Null, Stranger::Malformed),
        ("sub", serde_json::json!("nobody"), Stranger::UnknownSubject),
        ("sub", serde_json::Value::Null, Stranger::Malformed),
    ] {
        assert_eq!(setup.jwt(|all| all[claim] = value.clone()).await, Err(why), "{claim} = {value}");
    }
    for claim in ["exp", "iss", "aud", "sub"] {
        let without = setup.jwt(|all| drop(all.as_object_mut().unwrap().remove(claim))).await;
        assert_eq!(without, Err(Stranger::Malformed), "without {claim}");
    }
    let many = setup.jwt(|all| all["aud"] = serde_json::json!(["shop", "tollgate-old"])).await;
    assert!(many.is_ok(), "{many:?}");
}

#[tokio::test]
async fn a_jwt_falls_with_its_issuer_audience_key_and_subject() {
    let setup = setup();
    let orders = setup.jwt(|_| {}).await.unwrap();
    let changed = |change: &dyn Fn(&mut Settings)| {
        let mut settings = settings(&setup.folder);
        change(&mut settings);
        setup.registry.replace(settings);
        setup.registry.again(&orders, NOW_MS)
    };
    assert_eq!(changed(&|_| {}), Ok(orders.clone()));
    assert_eq!(changed(&|all| all.issuers.clear()), Err(Stranger::WrongIssuer));
    assert_eq!(
        changed(&|all| all.issuers[0].0.audiences = vec!["other".into()]),
        Err(Stranger::WrongAudience)
    );
    assert_eq!(changed(&|all| all.callers[0].subjects.clear()), Err(Stranger::UnknownSubject));
    let subject = |all: &mut Settings| all.callers[0].namespace = "other".into();
    assert_eq!(changed(&subject), Err(Stranger::Ambiguous), "it may not meet another's orders");
    std::fs::write(setup.folder.path().join("other.json"), Key::P256.set()).unwrap();
    let other = KeySource::File(setup.folder.path().join("other.json"));
    let keys = |all: &mut Settings| all.issuers[0].1 = Arc::new(Keys::open(&other).unwrap());
    assert_eq!(changed(&keys), Err(Stranger::UnknownKey));
}

#[tokio::test]
async fn an_issuer_uses_no_algorithm_that_it_may_not() {
    let setup = setup();
    let mut strict = settings(&setup.folder);
    strict.issuers[0].0.algorithms = vec![Algorithm::ES256];
    setup.registry.replace(strict);
    assert_eq!(setup.jwt(|_| {}).await, Err(Stranger::WrongAlgorithm));
}

#[tokio::test]
async fn what_stays_configured_stays_the_same_credential() {
    let setup = setup();
    let (orders, support) = (setup.bearer(ORDERS).await.unwrap(), setup.bearer(SUPPORT).await.unwrap());
    let mut changes = setup.registry.changes();
    changes.mark_unchanged();
    let mut next = settings(&setup.folder);
    next.callers[0].tokens.push("another-token-of-orders".into());
    next.callers[1].tokens = vec!["a-new-token-of-support".into()];
    setup.registry.replace(next);
    assert!(changes.has_changed().unwrap());
    assert_eq!(setup.registry.again(&orders, NOW_MS), Ok(orders.clone()));
    assert_eq!(setup.registry.again(&support, NOW_MS), Err(Stranger::UnknownToken));
    assert_eq!(setup.bearer("another-token-of-orders").await.unwrap().name, "orders");
    assert_eq!(setup.bearer(SUPPORT).await, Err(Stranger::UnknownToken));
}

#[tokio::test]
async fn what_is_let_go_of_is_gone_and_nothing_comes_instead() {
    let Setup { folder, registry } = setup();
    let mut settings = settings(&folder);
    let orders = &mut settings.callers[0];
    orders.tokens = vec!["token-of-orders-2".into()];
    orders.certificates.retain(|name| matches!(name, PeerName::Dns(_)));
    orders.subjects.clear();
    settings.callers[1] = caller("billing");
    let issuers: Vec<_> = settings.issuers.iter().map(|(issuer, _)| issuer.clone()).collect();
    let roll = Roll::new(settings.callers, issuers.clone()).unwrap();
    assert!(registry.let_go(&roll));
    assert!(!registry.let_go(&roll), "nothing is left to let go of");
    let by = async |san: PeerName| {
        let names = names(&[san]);
        let presented = Presented { certificate: Some(&names), ..Presented::default() };
        registry.identify(&presented, NOW_MS).await.map(|caller| caller.name)
    };
    assert_eq!(by(PeerName::Dns("orders.example.org".into())).await, Ok("orders".to_owned()));
    assert_eq!(by(spiffe("orders")).await, Err(Stranger::UnknownCertificate));
    assert_eq!(by(spiffe("billing")).await, Err(Stranger::UnknownCertificate));
    for token in [ORDERS, SUPPORT, "token-of-orders-2", "token-of-billing-1"] {
        let header = format!("Bearer {token}");
        let presented = Presented { authorization: Some(&header), ..Presented::default() };
        assert_eq!(registry.identify(&presented, NOW_MS).await, Err(Stranger::UnknownToken), "{token}");
    }
    assert!(!registry.knows("support") && !registry.knows("billing"));
    assert!(registry.state().issuers.values().all(|issuer| issuer.subjects.is_empty()));

    registry.let_go(&Roll::new(vec![caller("billing")], issuers).unwrap());
    let nobody = registry.identify(&Presented::default(), NOW_MS).await;
    assert_eq!(nobody, Err(Stranger::Missing), "where nobody is left, not everybody may call");
}
