//! Tests through a real socket: what a client sees, headers and broken connections included.

mod laws;
mod payments;

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Fault, Handle, Options, Sandbox};
use crate::domain::clock::ManualClock;

const KEY: &str = "sk_test_sandbox";

/// A sandbox on a free port whose clock moves only when told to.
pub(super) struct Stage {
    pub(super) handle: Handle,
    pub(super) client: reqwest::Client,
}

/// A client; the TLS provider it insists on is never used here.
fn client() -> reqwest::Client {
    // Another test may have installed it first.
    let _already = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap()
}

/// One answer.
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Got {
    pub(super) fn text(&self, path: &str) -> &str {
        self.body.pointer(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn id(&self) -> String {
        self.text("/id").to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(adjust: impl FnOnce(&mut Options)) -> Self {
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let mut options = Options::new(KEY, clock);
        adjust(&mut options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let handle = Sandbox::start(listener, options).await.unwrap();
        Self { handle, client: client() }
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        form: &str,
        key: Option<&str>,
    ) -> Result<Got, reqwest::Error> {
        let media = "application/x-www-form-urlencoded";
        self.raw(method, path, media, form.as_bytes().to_vec(), key).await
    }

    pub(super) async fn raw(
        &self,
        method: &str,
        path: &str,
        media: &str,
        body: Vec<u8>,
        key: Option<&str>,
    ) -> Result<Got, reqwest::Error> {
        let url = format!("http://{}{path}", self.handle.address());
        let mut request = self.client.request(method.parse().unwrap(), url).bearer_auth(KEY);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if !body.is_empty() {
            request = request.header("Content-Type", media).body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await?;
        Ok(Got { status, headers, body: serde_json::from_str(&body).unwrap_or(Value::String(body)) })
    }

    pub(super) async fn post(&self, path: &str, form: &str) -> Got {
        self.send("POST", path, form, None).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Got {
        self.send("GET", path, "", None).await.unwrap()
    }

    /// The types of all events so far, oldest first.
    pub(super) async fn events(&self) -> Vec<String> {
        let list = self.get("/v1/events?limit=100").await;
        let types = list.body["data"].as_array().unwrap().iter().rev();
        types.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    fn fault(&self, text: &str) {
        self.handle.control().add_fault(Fault::parse(text).unwrap());
    }

    fn effects(&self) -> usize {
        self.handle.control().book()["effects"].as_array().unwrap().len()
    }
}

#[tokio::test]
async fn a_replay_has_the_same_bytes_and_says_so() {
    let stage = Stage::new().await;
    let first = stage.send("POST", "/v1/customers", "name=A&metadata[k]=v", Some("k1")).await.unwrap();
    let again = stage.send("POST", "/v1/customers", "metadata[k]=v&name=A", Some("k1")).await.unwrap();
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.body, again.body);
    assert_eq!(first.header("original-request"), first.header("request-id"));
    assert_eq!(again.header("original-request"), first.header("request-id"));
    assert_ne!(again.header("request-id"), first.header("request-id"));
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), ("", "true"));
    assert_eq!(again.header("idempotency-key"), "k1");
    let other = stage.send("POST", "/v1/customers", "name=B", Some("k1")).await.unwrap();
    assert_eq!((other.status, other.text("/error/type")), (400, "idempotency_error"));
    let book = stage.handle.control().book();
    assert_eq!((book["effects"].as_array().unwrap().len(), &book["replayed"]), (1, &json!(1)));
    assert_eq!(book["effects"][0]["idempotency_key"], "k1");
}

#[tokio::test]
async fn what_was_refused_before_it_began_does_not_use_up_the_key() {
    let stage = Stage::new().await;
    let bad = stage.send("POST", "/v1/customers", "nme=A", Some("k1")).await.unwrap();
    assert_eq!((bad.status, bad.text("/error/code")), (400, "parameter_unknown"));
    let good = stage.send("POST", "/v1/customers", "name=A", Some("k1")).await.unwrap();
    assert_eq!(good.status, 200);
}

#[tokio::test]
async fn keys_are_forgotten_after_a_day_of_sandbox_time() {
    let stage = Stage::new().await;
    let first = stage.send("POST", "/v1/customers", "", Some("k1")).await.unwrap();
    stage.handle.control().advance(Duration::from_secs(24 * 60 * 60));
    let later = stage.send("POST", "/v1/customers", "", Some("k1")).await.unwrap();
    assert_ne!(first.id(), later.id());
}

#[tokio::test]
async fn a_key_in_flight_is_a_conflict() {
    let stage = Arc::new(Stage::new().await);
    // Where the second request comes too late, the first is held up for longer in the next round.
    for (round, ms) in [300, 3_000, 30_000].into_iter().enumerate() {
        stage.fault(&format!("latency:POST:/v1/customers:ms={ms},times=1"));
        let key = format!("k{round}");
        let slow = {
            let (stage, key) = (Arc::clone(&stage), key.clone());
            tokio::spawn(async move { stage.send("POST", "/v1/customers", "", Some(&key)).await.unwrap() })
        };
        while stage.handle.control().book()["received"] == json!(2 * round) {
            tokio::task::yield_now().await;
        }
        let second = stage.send("POST", "/v1/customers", "", Some(&key)).await.unwrap();
        assert_eq!((slow.await.unwrap().status, stage.effects()), (200, round + 1));
        if second.header("idempotent-replayed").is_empty() {
            assert_eq!((second.status, second.text("/error/code")), (409, "idempotency_key_in_use"));
            return;
        }
    }
    panic!("no request met one in flight");
}

#[tokio::test]
async fn a_drop_after_the_effect_leaves_the_effect_and_a_drop_before_none() {
    let stage = Stage::new().await;
    stage.fault("drop_before:POST:/v1/customers:times=1");
    assert!(stage.send("POST", "/v1/customers", "", Some("k1")).await.is_err());
    assert_eq!(stage.effects(), 0);
    for fault in ["reset:POST:/v1/customers:times=1", "drop_after:POST:/v1/customers:times=1"] {
        stage.fault(fault);
        assert!(stage.send("POST", "/v1/customers", "", Some("k1")).await.is_err(), "{fault}");
    }
    assert_eq!(stage.effects(), 1);
    stage.fault("half_body:POST:/v1/customers:times=1");
    assert!(stage.send("POST", "/v1/customers", "", Some("k1")).await.is_err());
    let replay = stage.send("POST", "/v1/customers", "", Some("k1")).await.unwrap();
    assert_eq!((replay.status, replay.header("idempotent-replayed")), (200, "true"));
    assert_eq!(stage.effects(), 1);
}

#[tokio::test]
async fn a_saved_status_replays_and_an_unsaved_one_does_not() {
    let stage = Stage::new().await;
    stage.fault("status:POST:/v1/customers:status=500,saved=true,times=1");
    for _ in 0..2 {
        let got = stage.send("POST", "/v1/customers", "", Some("k1")).await.unwrap();
        assert_eq!((got.status, got.text("/error/type")), (500, "api_error"));
    }
    stage.fault(
        "status:POST:/v1/customers:status=429,rate_limited_reason=global-rate,should_retry=false,times=1",
    );
    let limited = stage.send("POST", "/v1/customers", "", Some("k2")).await.unwrap();
    assert_eq!((limited.status, limited.text("/error/code")), (429, "rate_limit"));
    assert_eq!(limited.header("stripe-rate-limited-reason"), "global-rate");
    assert_eq!(limited.header("stripe-should-retry"), "false");
    let done = stage.send("POST", "/v1/customers", "", Some("k2")).await.unwrap();
    assert_eq!((done.status, stage.effects()), (200, 1));
}

#[tokio::test]
async fn a_wrong_key_is_refused_with_message_and_type_alone() {
    let stage = Stage::new().await;
    let url = format!("http://{}/v1/account", stage.handle.address());
    let client = client();
    let wrong = client.get(&url).bearer_auth("sk_test_somebody_else").send().await.unwrap();
    assert_eq!(wrong.status().as_u16(), 401);
    let body: Value = serde_json::from_str(&wrong.text().await.unwrap()).unwrap();
    assert_eq!(body["error"].as_object().unwrap().keys().collect::<Vec<_>>(), ["message", "type"]);
    let basic = client.get(&url).basic_auth(KEY, Some("")).send().await.unwrap();
    assert_eq!(basic.status().as_u16(), 200);
}

#[tokio::test]
async fn the_state_file_carries_everything_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sandbox.json");
    let stage = Stage::with(|options| options.state_file = Some(file.clone())).await;
    let made = stage.send("POST", "/v1/customers", "name=A", Some("k1")).await.unwrap();
    stage.handle.stop().await;
    let stage = Stage::with(|options| options.state_file = Some(file.clone())).await;
    let found = stage.get(&format!("/v1/customers/{}", made.id())).await;
    assert_eq!(found.body, made.body);
    let replay = stage.send("POST", "/v1/customers", "name=A", Some("k1")).await.unwrap();
    assert_eq!((replay.id(), replay.header("idempotent-replayed")), (made.id(), "true"));
}

#[tokio::test]
async fn the_limiter_answers_429_without_an_effect() {
    let stage = Stage::with(|options| options.rate_limit_per_second = Some(2)).await;
    let statuses = [
        stage.post("/v1/customers", "").await.status,
        stage.post("/v1/customers", "").await.status,
        stage.post("/v1/customers", "").await.status,
    ];
    assert_eq!((statuses, stage.effects()), ([200, 200, 429], 2));
}

#[tokio::test]
async fn control_speaks_http_too() {
    let stage = Stage::new().await;
    let url = format!("http://{}/_sandbox", stage.handle.address());
    let client = client();
    let send = |path: &str, body: Value| client.post(format!("{url}{path}")).body(body.to_string()).send();
    assert_eq!(send("/faults", json!({"kind": "drop_often"})).await.unwrap().status().as_u16(), 400);
    assert_eq!(send("/faults", json!({"kind": "html", "times": 1})).await.unwrap().status().as_u16(), 200);
    let html = stage.get("/v1/account").await;
    assert_eq!((html.status, html.header("content-type")), (502, "text/html"));
    assert_eq!(stage.get("/v1/account").await.status, 200);
    let advanced = send("/clock/advance", json!({"seconds": 60})).await.unwrap().text().await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&advanced).unwrap()["now_ms"], json!(1_800_000_060_000_i64));
    let created = stage.post("/v1/customers", "").await;
    assert_eq!(created.body["created"], json!(1_800_000_060));
}
