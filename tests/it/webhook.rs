//! Deliveries to the webhook endpoint: what is believed, what is refused and how, and what is durable when Stripe is
//! told so. Requests go to the router directly, with a clock that stands still.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tollgate::domain::clock::{Clock, ManualClock};
use tollgate::domain::limits::{SIGNATURE_AGE_S_MAX, WEBHOOK_BODY_BYTES_MAX, WEBHOOKS_AT_ONCE_MAX};
use tollgate::domain::secret::Secret;
use tollgate::events::Feed;
use tollgate::gateway::{Belongs, Causes, Intake, SharedReads};
use tollgate::store::{Store, Terms};
use tollgate::stripe::signature::sign;
use tollgate::telemetry::metrics::Metrics;
use tollgate::webhook::{Endpoint, Endpoints, Options, router};
use tower::ServiceExt as _;

use crate::rig::sample;

const NOW_S: i64 = 1_700_000_000;
const SECRET: &str = "whsec_new";
const EVENT: &str = r#"{"id":"evt_1","object":"event","type":"refund.created","created":1699999999,"livemode":false,
    "api_version":"2026-10-28.endive","data":{"object":{"id":"re_1","object":"refund"}},"request":null}"#;

/// What all cases of the property share.
static SHARED: OnceLock<(Runtime, Gateway)> = OnceLock::new();

struct Gateway {
    store: Store,
    feed: Feed,
    metrics: Metrics,
    endpoints: watch::Sender<Endpoints>,
    router: axum::Router,
    _folder: TempDir,
}

fn endpoint(secrets: &[&str], connected_account: Option<&str>) -> Endpoint {
    Endpoint {
        secrets: secrets.iter().map(|&secret| Secret::from(secret)).collect(),
        belongs: Belongs {
            only: connected_account.map(|account| [account.to_owned()].into()),
            ..Belongs::default()
        },
    }
}

fn gateway() -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW_S * 1000));
    let store = Store::open(folder.path(), Terms::default()).unwrap();
    let feed = Feed::new(store.clone(), Arc::clone(&clock), Duration::from_secs(15));
    let metrics = Metrics::new().unwrap();
    let intake =
        Intake::new(feed.clone(), Causes::new(store.clone()), SharedReads::default(), metrics.clone());
    let (endpoints, received) = watch::channel(Arc::new(BTreeMap::from([
        (String::new(), endpoint(&["whsec_old", SECRET], None)),
        ("shop".to_owned(), endpoint(&["whsec_shop"], Some("acct_9"))),
    ])));
    let options = Options { intake, endpoints: received, clock, metrics: metrics.clone() };
    Gateway { store, feed, metrics, endpoints, router: router(options), _folder: folder }
}

impl Gateway {
    async fn send(
        &self,
        path: &str,
        signature: Option<String>,
        body: impl Into<Body>,
    ) -> (StatusCode, String) {
        let mut request = Request::post(path);
        if let Some(signature) = signature {
            request = request.header("Stripe-Signature", signature);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let status = response.status();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(text.into()).unwrap())
    }

    async fn deliver(&self, body: &str) -> (StatusCode, String) {
        self.send("/webhooks/stripe", Some(signed(SECRET, NOW_S, body)), body.to_owned()).await
    }

    fn stored(&self) -> u64 {
        *self.store.events_head().borrow()
    }

    fn counted(&self, result: &str) -> bool {
        let label = format!(r#"tollgate_result="{result}""#);
        sample(&self.metrics.text().unwrap(), "tollgate_webhook_deliveries_total", &label) > Some(0.0)
    }

    fn assert_refused(&self, answer: &(StatusCode, String), status: StatusCode, counted: &str) {
        assert_eq!(answer.0, status, "{}", answer.1);
        assert!(!answer.1.is_empty() && answer.1.len() < 100, "{}", answer.1);
        assert!(self.counted(counted), "{counted}");
        assert_eq!(self.stored(), 0);
    }
}

fn signed(secret: &str, unix_s: i64, body: &str) -> String {
    sign(&Secret::from(secret), unix_s, body.as_bytes())
}

#[tokio::test]
async fn a_signed_event_is_stored_as_it_came_before_the_empty_ok() {
    let gateway = gateway();
    assert_eq!(gateway.deliver(EVENT).await, (StatusCode::OK, String::new()));
    let stored = gateway.feed.get("", "evt_1").await.unwrap().unwrap();
    assert_eq!((stored.position, stored.event.json.as_str()), (1, EVENT));
    assert_eq!((stored.event.received_ms, stored.event.created_s), (NOW_S * 1000, NOW_S - 1));
    assert!(gateway.counted("accepted"));
}

#[tokio::test]
async fn a_thin_event_is_stored_with_what_it_has() {
    let gateway = gateway();
    let thin = r#"{"id":"evt_2","object":"v2.core.event","type":"v1.refund.created","livemode":false,
        "created":"2023-11-14T22:13:20.250Z","related_object":{"id":"re_1","type":"refund","url":"/v1/refunds/re_1"}}"#;
    assert_eq!(gateway.deliver(thin).await, (StatusCode::OK, String::new()));
    let stored = gateway.feed.get("", "evt_2").await.unwrap().unwrap().event;
    assert_eq!(
        (stored.kind.as_str(), stored.created_s, stored.json.as_str()),
        ("v1.refund.created", NOW_S, thin)
    );
}

#[tokio::test]
async fn a_second_delivery_is_answered_ok_and_not_stored_again() {
    let gateway = gateway();
    gateway.deliver(EVENT).await;
    assert_eq!(gateway.deliver(EVENT).await, (StatusCode::OK, String::new()));
    assert_eq!(gateway.stored(), 1);
    assert!(gateway.counted("duplicate"));
}

#[tokio::test]
async fn every_active_secret_is_accepted_and_a_removed_one_no_longer() {
    let gateway = gateway();
    let old = || Some(signed("whsec_old", NOW_S, EVENT));
    assert_eq!(gateway.send("/webhooks/stripe", old(), EVENT).await.0, StatusCode::OK);
    gateway.endpoints.send_replace(Arc::new(BTreeMap::from([(String::new(), endpoint(&[SECRET], None))])));
    assert_eq!(gateway.send("/webhooks/stripe", old(), EVENT).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_not_signed_by_stripe_is_refused() {
    let gateway = gateway();
    let right = signed(SECRET, NOW_S, EVENT);
    for signature in [
        None,
        Some(String::new()),
        Some("t=1".to_owned()),
        Some(right.replace("v1=", "v0=")),
        Some(signed("whsec_other", NOW_S, EVENT)),
        Some(signed(SECRET, NOW_S, "{}")),
        Some(signed("", NOW_S, EVENT)),
    ] {
        let answer = gateway.send("/webhooks/stripe", signature, EVENT).await;
        gateway.assert_refused(&answer, StatusCode::BAD_REQUEST, "bad_signature");
    }
}

#[tokio::test]
async fn two_signature_headers_are_refused_although_one_is_right() {
    let gateway = gateway();
    let request = Request::post("/webhooks/stripe")
        .header("Stripe-Signature", signed(SECRET, NOW_S, EVENT))
        .header("Stripe-Signature", "t=1,v1=00")
        .body(Body::from(EVENT))
        .unwrap();
    let response = gateway.router.clone().oneshot(request).await.unwrap();
    assert_eq!((response.status(), gateway.stored()), (StatusCode::BAD_REQUEST, 0));
}

#[tokio::test]
async fn a_signing_time_too_far_off_is_refused_on_either_side() {
    let gateway = gateway();
    for (offset_s, counted) in [(-SIGNATURE_AGE_S_MAX - 1, "stale"), (SIGNATURE_AGE_S_MAX + 1, "future")] {
        let signature = signed(SECRET, NOW_S + offset_s, EVENT);
        let answer = gateway.send("/webhooks/stripe", Some(signature), EVENT).await;
        gateway.assert_refused(&answer, StatusCode::BAD_REQUEST, counted);
    }
    let at_the_edge = signed(SECRET, NOW_S - SIGNATURE_AGE_S_MAX, EVENT);
    assert_eq!(gateway.send("/webhooks/stripe", Some(at_the_edge), EVENT).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_signed_body_that_is_no_event_is_refused() {
    let gateway = gateway();
    for body in ["", "not json", "[]", r#"{"object":"refund"}"#, r#"{"object":"event","id":"evt_1"}"#] {
        gateway.assert_refused(&gateway.deliver(body).await, StatusCode::BAD_REQUEST, "not_json");
    }
    let body = Bytes::from_static(b"{\"id\":\"evt_\xff\"}");
    let signature = sign(&Secret::from(SECRET), NOW_S, &body);
    let answer = gateway.send("/webhooks/stripe", Some(signature), body).await;
    gateway.assert_refused(&answer, StatusCode::BAD_REQUEST, "not_json");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_it_says_so_or_not() {
    let gateway = gateway();
    let large = EVENT.replacen('{', &format!("{{{}", " ".repeat(WEBHOOK_BODY_BYTES_MAX)), 1);
    let signature = || Some(signed(SECRET, NOW_S, &large));
    let answer = gateway.send("/webhooks/stripe", signature(), large.clone()).await;
    gateway.assert_refused(&answer, StatusCode::PAYLOAD_TOO_LARGE, "too_large");

    let pieces: Vec<Result<Bytes, std::io::Error>> =
        large.as_bytes().chunks(64 << 10).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let unannounced = Body::from_stream(tokio_stream::iter(pieces));
    let answer = gateway.send("/webhooks/stripe", signature(), unannounced).await;
    gateway.assert_refused(&answer, StatusCode::PAYLOAD_TOO_LARGE, "too_large");
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken() {
    let gateway = gateway();
    let padding = " ".repeat(WEBHOOK_BODY_BYTES_MAX - EVENT.len());
    let body = EVENT.replacen('{', &format!("{{{padding}"), 1);
    assert_eq!(gateway.deliver(&body).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let gateway = gateway();
    let pieces = [Ok(Bytes::from_static(b"{\"id\"")), Err(std::io::Error::other("reset"))];
    let signature = Some(signed(SECRET, NOW_S, EVENT));
    let body = Body::from_stream(tokio_stream::iter(pieces));
    let answer = gateway.send("/webhooks/stripe", signature, body).await;
    gateway.assert_refused(&answer, StatusCode::BAD_REQUEST, "incomplete");
}

#[tokio::test]
async fn an_event_of_the_other_mode_is_dropped_with_an_ok() {
    let gateway = gateway();
    let live = EVENT.replace(r#""livemode":false"#, r#""livemode":true"#);
    assert_eq!(gateway.deliver(&live).await, (StatusCode::OK, String::new()));
    assert_eq!(gateway.stored(), 0);
    assert!(gateway.counted("wrong_mode"));
}

#[tokio::test]
async fn an_account_has_its_own_path_and_secrets() {
    let gateway = gateway();
    let event = EVENT.replacen('{', r#"{"account":"acct_9","#, 1);
    let signature = |secret| Some(signed(secret, NOW_S, &event));
    let (to_shop, to_nobody) = ("/webhooks/stripe/shop", "/webhooks/stripe/nobody");
    for (path, secret) in [(to_shop, SECRET), (to_nobody, SECRET), (to_nobody, "whsec_shop")] {
        let answer = gateway.send(path, signature(secret), event.clone()).await;
        gateway.assert_refused(&answer, StatusCode::BAD_REQUEST, "bad_signature");
    }
    assert_eq!(gateway.send(to_shop, signature("whsec_shop"), event.clone()).await.0, StatusCode::OK);
    let stored = gateway.feed.get("shop", "evt_1").await.unwrap().unwrap();
    assert_eq!(stored.event.account, "shop");
}

#[tokio::test]
async fn an_event_of_another_connected_account_is_dropped_with_an_ok() {
    let gateway = gateway();
    for account in ["", r#""account":"acct_8","#] {
        let event = EVENT.replacen('{', &format!("{{{account}"), 1);
        let signature = Some(signed("whsec_shop", NOW_S, &event));
        let answer = gateway.send("/webhooks/stripe/shop", signature, event).await;
        assert_eq!(answer, (StatusCode::OK, String::new()));
    }
    assert_eq!(gateway.stored(), 0);
    assert!(gateway.counted("wrong_account"));
}

#[tokio::test]
async fn a_store_that_is_down_has_stripe_deliver_again() {
    let gateway = gateway();
    gateway.store.close().await;
    let answer = gateway.deliver(EVENT).await;
    gateway.assert_refused(&answer, StatusCode::SERVICE_UNAVAILABLE, "store_error");
}

#[tokio::test]
async fn deliveries_beyond_those_at_once_are_put_off_and_room_comes_back() {
    let gateway = gateway();
    let (reading, mut begun) = mpsc::unbounded_channel();
    let slow: Vec<_> = (0..WEBHOOKS_AT_ONCE_MAX)
        .map(|_| {
            let reading = reading.clone();
            let body = Body::from_stream(tokio_stream::iter([0]).then(move |_| {
                reading.send(()).unwrap();
                std::future::pending::<Result<Bytes, std::io::Error>>()
            }));
            let request = Request::post("/webhooks/stripe").body(body).unwrap();
            tokio::spawn(gateway.router.clone().oneshot(request))
        })
        .collect();
    for _ in 0..WEBHOOKS_AT_ONCE_MAX {
        begun.recv().await.unwrap();
    }
    gateway.assert_refused(&gateway.deliver(EVENT).await, StatusCode::SERVICE_UNAVAILABLE, "busy");
    for delivery in slow {
        delivery.abort();
        assert!(delivery.await.unwrap_err().is_cancelled());
    }
    assert_eq!(gateway.deliver(EVENT).await.0, StatusCode::OK);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_change_to_what_stripe_signed_is_believed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
        offset_s in -200_i64..200,
    ) {
        let right = (EVENT.as_bytes().to_vec(), signed(SECRET, NOW_S + offset_s, EVENT).into_bytes());
        let (mut body, mut header) = right.clone();
        for (at, byte, in_body) in changes {
            let bytes = if in_body { &mut body } else { &mut header };
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assume!((&body, &header) != (&right.0, &right.1));
        let gateway = SHARED.get_or_init(|| (Runtime::new().unwrap(), gateway()));
        let Ok(header) = HeaderValue::from_bytes(&header) else { return Ok(()) };
        let request = Request::post("/webhooks/stripe").header("Stripe-Signature", header);
        let response = gateway.0.block_on(
            gateway.1.router.clone().oneshot(request.body(Body::from(body)).unwrap())).unwrap();
        prop_assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        prop_assert_eq!(gateway.1.stored(), 0);
    }
}

#[tokio::test]
async fn other_methods_and_paths_do_not_exist() {
    let gateway = gateway();
    for (method, path, status) in [
        ("GET", "/webhooks/stripe", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/webhooks", StatusCode::NOT_FOUND),
        ("POST", "/webhooks/stripe/a/b", StatusCode::NOT_FOUND),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        assert_eq!(
            gateway.router.clone().oneshot(request).await.unwrap().status(),
            status,
            "{method} {path}"
        );
    }
}
