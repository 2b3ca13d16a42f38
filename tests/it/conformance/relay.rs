//! Stands between the gateway and stripe-mock, and notes every parameter that goes by. What the mock's older document
//! refuses it finds by trying, and takes out of the request; everything else passes as it came.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, Uri, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const BODY_BYTES_MAX: usize = 1 << 20;

/// Form parameters, decoded.
type Params = Vec<(String, String)>;

/// One request as the gateway sent it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Names of the parameters, in order.
    pub(crate) parameters: Vec<String>,
    /// Those that stripe-mock does not know.
    pub(crate) unknown: BTreeSet<String>,
    /// Status of the answer that went back.
    pub(crate) status: u16,
}

/// A running relay.
#[derive(Clone)]
pub(crate) struct Relay {
    mock: SocketAddr,
    client: reqwest::Client,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Relay {
    /// Starts a relay to the mock; returns its address too.
    pub(crate) async fn start(mock: SocketAddr) -> (Self, SocketAddr) {
        // Fails where another test was first, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let relay = Self { mock, client, seen: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(pass).with_state(relay.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (relay, address)
    }

    /// What went by since the last time.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    async fn ask(&self, asked: &Asked, params: &Params) -> (u16, Bytes) {
        let form = encode(params);
        let (query, body) = match asked.method {
            Method::POST => (String::new(), form),
            _ => (form, String::new()),
        };
        self.ask_raw(asked, &query, body.into()).await
    }

    async fn ask_raw(&self, asked: &Asked, query: &str, body: Bytes) -> (u16, Bytes) {
        let url = format!("http://{}{}?{query}", self.mock, asked.uri.path());
        let mut request = self.client.request(asked.method.clone(), url).body(body);
        for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
            if let Some(value) = asked.headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap())
    }

    /// The parameters that the mock takes, and the rest.
    async fn sift(&self, asked: &Asked, params: &Params) -> (Params, BTreeSet<String>) {
        // What the mock demands comes first, so that its absence does not hide other complaints.
        let mut taken: Params = Vec::new();
        for param in params {
            let complaint = self.complaint(asked, &taken).await;
            if !complaint.contains("required") {
                break;
            }
            let with: Params = taken.iter().chain([param]).cloned().collect();
            if self.complaint(asked, &with).await != complaint {
                taken = with;
            }
        }
        // Then one top-level parameter after the other, with all that stands below it.
        let mut unknown = BTreeSet::new();
        let mut tops: Vec<&str> = params.iter().map(|(name, _)| top(name)).collect();
        tops.dedup();
        for of in tops {
            let group: Params = params
                .iter()
                .filter(|param| top(&param.0) == of && !taken.contains(param))
                .cloned()
                .collect();
            if self.accepts(asked, &taken, &group).await {
                taken.extend(group);
                continue;
            }
            let mut without = None;
            for at in 0..group.len() {
                let mut rest = group.clone();
                let one = rest.remove(at);
                if !rest.is_empty() && self.accepts(asked, &taken, &rest).await {
                    without = Some((rest, one));
                    break;
                }
            }
            match without {
                Some((rest, one)) => {
                    taken.extend(rest);
                    unknown.insert(one.0);
                }
                None => unknown.extend(group.into_iter().map(|(name, _)| name)),
            }
        }
        (taken, unknown)
    }

    async fn accepts(&self, asked: &Asked, taken: &Params, more: &Params) -> bool {
        let all = taken.iter().chain(more).cloned().collect();
        self.ask(asked, &all).await.0 < 400
    }

    async fn complaint(&self, asked: &Asked, params: &Params) -> String {
        let (status, body) = self.ask(asked, params).await;
        let message =
            serde_json::from_slice::<Value>(&body).unwrap_or_default()["error"]["message"].to_string();
        if status < 400 { String::new() } else { message }
    }
}

/// A request's head.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

async fn pass(State(relay): State<Relay>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.unwrap();
    let asked = Asked { method: head.method, uri: head.uri, headers: head.headers };
    let kind =
        asked.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (seen, (status, body)) = if kind.starts_with("multipart/") {
        let answer = relay.ask_raw(&asked, "", body.clone()).await;
        (Seen { parameters: parts(&body), unknown: BTreeSet::new(), status: answer.0 }, answer)
    } else {
        let params = match asked.method {
            Method::POST => decode(std::str::from_utf8(&body).unwrap()),
            _ => decode(asked.uri.query().unwrap_or_default()),
        };
        let mut unknown = BTreeSet::new();
        let mut answer = relay.ask(&asked, &params).await;
        if answer.0 == 400 {
            let (taken, refused) = relay.sift(&asked, &params).await;
            answer = relay.ask(&asked, &taken).await;
            unknown = refused;
        }
        let parameters = params.into_iter().map(|(name, _)| name).collect();
        (Seen { parameters, unknown, status: answer.0 }, answer)
    };
    relay.seen.lock().unwrap().push(seen);
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header("request-id", "req_conformance")
        .body(Body::from(with_another_page(&asked, &body)))
        .unwrap()
}

/// The mock's lists have one page; this says that there is another, so that the gateway asks for it when told to.
fn with_another_page(asked: &Asked, body: &Bytes) -> Vec<u8> {
    let Ok(mut answer) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
    if asked.method == Method::GET && answer.get("data").is_some_and(Value::is_array) {
        answer["has_more"] = json!(true);
        if answer["object"] == "search_result" {
            answer["next_page"] = json!("page-two");
        }
    }
    serde_json::to_vec(&answer).unwrap()
}

fn top(name: &str) -> &str {
    name.split('[').next().unwrap_or(name)
}

fn decode(form: &str) -> Params {
    let unescape = |text: &str| {
        let text = text.replace('+', " ");
        let mut bytes = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('%') {
            bytes.extend(before.as_bytes());
            let (code, after) = after.split_at(2);
            bytes.push(u8::from_str_radix(code, 16).unwrap());
            rest = after;
        }
        bytes.extend(rest.as_bytes());
        String::from_utf8(bytes).unwrap()
    };
    let pairs = form.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (unescape(k), unescape(v)))
        .collect()
}

fn encode(params: &Params) -> String {
    let escape = |text: &str| {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect::<String>()
    };
    let pairs: Vec<String> = params.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
    pairs.join("&")
}

/// Names of the parts of a multipart body.
fn parts(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    text.split("form-data; name=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next().map(str::to_owned))
        .collect()
}
