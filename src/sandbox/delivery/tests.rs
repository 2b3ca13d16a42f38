//! Deliveries as a receiver sees them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::signature;
use crate::sandbox::tests::Stage;
use crate::sandbox::{Fault, WebhookTarget};

/// A receiver that notes what arrives and answers as told.
#[derive(Clone)]
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    status: Arc<Mutex<StatusCode>>,
    arrived: Arc<Notify>,
}

impl Receiver {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("http://{}/hook?x=1", listener.local_addr().unwrap()),
            got: Arc::default(),
            status: Arc::new(Mutex::new(StatusCode::OK)),
            arrived: Arc::default(),
        };
        let inner = receiver.clone();
        let take = move |headers: HeaderMap, body: Bytes| async move {
            inner.got.lock().unwrap().push((headers, body));
            inner.arrived.notify_waiters();
            *inner.status.lock().unwrap()
        };
        tokio::spawn(axum::serve(listener, Router::new().route("/hook", post(take))).into_future());
        receiver
    }

    fn target(&self, secrets: &[&str]) -> WebhookTarget {
        let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        WebhookTarget { url: self.url.clone(), secrets }
    }

    fn answer(&self, status: StatusCode) {
        *self.status.lock().unwrap() = status;
    }

    /// Returns as soon as `n` requests have arrived.
    async fn wait(&self, n: usize) -> Vec<(HeaderMap, Bytes)> {
        let enough = async {
            loop {
                let arrived = self.arrived.notified();
                tokio::pin!(arrived);
                arrived.as_mut().enable();
                let got = self.got.lock().unwrap().clone();
                if got.len() >= n {
                    return got;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), enough).await.expect("deliveries did not arrive")
    }

    /// The ids of the events that arrived, in order.
    async fn ids(&self, n: usize) -> Vec<String> {
        self.wait(n).await.iter().map(|(_, body)| parsed(body)["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn parsed(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap()
}

/// Verification by the documented steps, written for this test alone.
fn accepted(headers: &HeaderMap, body: &Bytes, secret: &str) -> bool {
    let header = headers["stripe-signature"].to_str().unwrap();
    let parts: Vec<_> = header.split(',').map(|part| part.split_once('=').unwrap()).collect();
    let time = parts.iter().find(|(name, _)| *name == "t").unwrap().1;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time}.").as_bytes());
    mac.update(body);
    let wanted: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    parts.iter().any(|(name, value)| *name == "v1" && *value == wanted)
}

async fn staged(secrets: &[&str]) -> (Stage, Receiver) {
    let receiver = Receiver::new().await;
    let stage = Stage::with(|options| options.webhooks = vec![receiver.target(secrets)]).await;
    (stage, receiver)
}

async fn pending(stage: &Stage, n: u64) {
    let settled = async {
        while stage.get("/v1/events?limit=1").await.body["data"][0]["pending_webhooks"] != json!(n) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.expect("delivery was not noted");
}

#[test]
fn the_signature_is_the_one_the_official_libraries_accept() {
    let body = br#"{"id":"evt_test_webhook","object":"event"}"#;
    let header = signature(&["whsec_test_secret".to_owned()], 1_700_000_000, body);
    let wanted = "t=1700000000,v1=d95c6b7477fbd7e9f90b1b0ef5f9c7ac25abca5382460e0d988c2b2a5b71b990,v0=";
    assert!(header.starts_with(wanted), "{header}");
}

#[tokio::test]
async fn an_event_arrives_signed_with_every_secret() {
    let (stage, receiver) = staged(&["whsec_old", "whsec_new"]).await;
    let made = stage.post("/v1/customers", "name=A").await;
    let (headers, body) = receiver.wait(1).await.remove(0);
    assert!(accepted(&headers, &body, "whsec_old") && accepted(&headers, &body, "whsec_new"));
    assert!(!accepted(&headers, &body, "whsec_other"));
    assert!(headers["stripe-signature"].to_str().unwrap().starts_with("t=1800000000,"));
    assert_eq!(headers["user-agent"], "Stripe/1.0 (+https://stripe.com/docs/webhooks)");
    let event = parsed(&body);
    assert_eq!((&event["type"], &event["data"]["object"]), (&json!("customer.created"), &made.body));
    pending(&stage, 0).await;
    assert_eq!(stage.get("/v1/events?delivery_success=true").await.body["data"][0]["id"], event["id"]);
}

#[tokio::test]
async fn a_refused_delivery_is_tried_again_in_sandbox_time_and_signed_afresh() {
    let (stage, receiver) = staged(&["whsec_a"]).await;
    receiver.answer(StatusCode::FOUND);
    stage.post("/v1/customers", "").await;
    receiver.wait(1).await;
    assert_eq!(
        stage.get("/v1/events?delivery_success=false").await.body["data"].as_array().unwrap().len(),
        1
    );
    receiver.answer(StatusCode::OK);
    let got = loop {
        // The refusal is noted after it is answered; only then is there a retry to advance to.
        stage.handle.control().advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
        if receiver.got.lock().unwrap().len() > 1 {
            break receiver.wait(2).await;
        }
    };
    assert!(got.iter().all(|(headers, body)| accepted(headers, body, "whsec_a")));
    assert_eq!(parsed(&got[0].1)["id"], parsed(&got[1].1)["id"]);
    pending(&stage, 0).await;
    assert_eq!(stage.handle.control().book()["acknowledged"], json!([parsed(&got[0].1)["id"]]));
}

#[tokio::test]
async fn tries_end_and_the_event_stays_undelivered() {
    let (stage, receiver) = staged(&["whsec_a"]).await;
    receiver.answer(StatusCode::INTERNAL_SERVER_ERROR);
    stage.post("/v1/customers", "").await;
    for n in 1..=8 {
        receiver.wait(n).await;
        while stage.handle.accounts.own().state().kept.outbox.len() > 0 {
            tokio::task::yield_now().await;
        }
        stage.handle.control().advance(Duration::from_secs(4096));
    }
    assert_eq!(stage.handle.control().undelivered(), 0);
    assert_eq!(stage.handle.control().book()["acknowledged"], json!([]));
    pending(&stage, 1).await;
    assert_eq!(receiver.got.lock().unwrap().len(), 8);
}

#[tokio::test]
async fn faults_duplicate_drop_reorder_and_corrupt_deliveries() {
    let (stage, receiver) = staged(&["whsec_a"]).await;
    let fault = |text: &str| stage.handle.control().add_fault(Fault::parse(text).unwrap());
    fault("webhook_duplicate:*:/customer.created:times=1");
    stage.post("/v1/customers", "").await;
    let twice = receiver.ids(2).await;
    assert_eq!(twice[0], twice[1]);

    fault("webhook_drop:*:*:times=1");
    fault("webhook_reorder:*:*:times=1");
    for name in ["dropped", "late", "early"] {
        stage.post("/v1/customers", &format!("name={name}")).await;
    }
    receiver.wait(3).await;
    stage.handle.control().advance(Duration::from_secs(2));
    let got = receiver.wait(4).await;
    let names: Vec<_> =
        got[2..].iter().map(|(_, body)| parsed(body)["data"]["object"]["name"].clone()).collect();
    assert_eq!(names, ["early", "late"]);

    fault("webhook_corrupt_signature:*:*:times=1");
    stage.post("/v1/customers", "").await;
    let (headers, body) = receiver.wait(5).await.remove(4);
    assert!(!accepted(&headers, &body, "whsec_a"));
}

#[tokio::test]
async fn an_endpoint_gets_the_events_it_asked_for_with_its_own_secret() {
    let receiver = Receiver::new().await;
    let stage = Stage::new().await;
    let form = format!("url={}&enabled_events[]=customer.updated&metadata[a]=b", receiver.url);
    let made = stage.post("/v1/webhook_endpoints", &form).await;
    let path = format!("/v1/webhook_endpoints/{}", made.id());
    assert!(made.text("/secret").starts_with("whsec_"));
    assert_eq!(stage.get(&path).await.body.get("secret"), None);
    let customer = stage.post("/v1/customers", "").await.id();
    stage.post(&format!("/v1/customers/{customer}"), "name=B").await;
    let (headers, body) = receiver.wait(1).await.remove(0);
    assert_eq!(parsed(&body)["type"], "customer.updated");
    assert!(accepted(&headers, &body, made.text("/secret")));

    assert_eq!(stage.post(&path, "disabled=true").await.text("/status"), "disabled");
    stage.post(&format!("/v1/customers/{customer}"), "name=C").await;
    assert_eq!(stage.get("/v1/events?limit=1").await.body["data"][0]["pending_webhooks"], 0);
    assert_eq!(stage.get("/v1/webhook_endpoints").await.body["data"].as_array().unwrap().len(), 1);
    let deleted = stage.send("DELETE", &path, "", None).await.unwrap();
    assert_eq!(deleted.body["deleted"], true);
    assert_eq!(stage.get(&path).await.status, 404);
    let bad = stage.post("/v1/webhook_endpoints", "url=nowhere&enabled_events[]=*").await;
    assert_eq!((bad.status, bad.text("/error/code")), (400, "url_invalid"));
}

#[tokio::test]
async fn a_delivery_cut_short_by_a_restart_is_made_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sandbox.json");
    let receiver = Receiver::new().await;
    receiver.answer(StatusCode::SERVICE_UNAVAILABLE);
    let options = |options: &mut crate::sandbox::Options| {
        options.webhooks = vec![receiver.target(&["whsec_a"])];
        options.state_file = Some(file.clone());
    };
    let stage = Stage::with(options).await;
    stage.post("/v1/customers", "").await;
    receiver.wait(1).await;
    stage.handle.stop().await;
    receiver.answer(StatusCode::OK);
    let stage = Stage::with(options).await;
    stage.handle.control().advance(Duration::from_secs(4096));
    let ids = receiver.ids(2).await;
    assert_eq!(ids[0], ids[1]);
    pending(&stage, 0).await;
}
