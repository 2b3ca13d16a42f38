//! One request from headers to answer: faults, key, idempotency, parameters, endpoint, book. It must not know any
//! resource.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::book::Effect;
use super::error::Error;
use super::fault::{Fault, Kind};
use super::idempotency::{self, Answer, Found};
use super::multipart::Parts;
use super::object::{self, Object, int, text};
use super::routes::{self, Call, Route};
use super::server::Disconnect;
use super::state::{Cause, State};
use super::{Shared, expand, files, form, keys, multipart, shape};

/// What a proxy in trouble answers.
const HTML_BODY: &str = "<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>\n";

/// A whole request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    /// The header's value, if present and readable.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    /// Only half of the body is to arrive.
    pub(super) half: bool,
}

impl Reply {
    /// A JSON answer, laid out as Stripe lays it out.
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", format!("{body:#}"))
    }

    fn text(status: u16, kind: &str, body: String) -> Self {
        Self::new(status, kind, Bytes::from(body))
    }

    fn new(status: u16, kind: &str, body: Bytes) -> Self {
        Self { status, headers: vec![("content-type", kind.to_owned())], body, half: false }
    }
}

/// Answers a request to the API, faults included.
pub(super) async fn answer(shared: Arc<Shared>, asked: Asked) -> Result<Reply, Disconnect> {
    let (request_id, fault) = {
        let mut state = shared.state();
        state.settle_due();
        state.kept.book.received += 1;
        (state.new_id("req"), state.take_fault(&asked.method, &asked.path))
    };
    let kind = fault.as_ref().map(|fault| fault.kind);
    match kind {
        Some(Kind::DropBefore) => return Err(Disconnect { reset: false }),
        Some(Kind::Reset) => return Err(Disconnect { reset: true }),
        Some(Kind::Html) => return Ok(Reply::text(502, "text/html", HTML_BODY.to_owned())),
        _ => {}
    }
    let mut reply = match run(&shared, &asked, &request_id, fault.as_ref()).await {
        Ok(reply) => reply,
        Err(error) => {
            let mut state = shared.state();
            state.kept.book.refused += 1;
            refusal(&error, &request_id, state.now())
        }
    };
    let version = asked.header("stripe-version").unwrap_or(&shared.options.api_version);
    let since_epoch = Duration::from_secs(u64::try_from(shared.state().real_seconds()).unwrap_or_default());
    reply.headers.extend([
        ("date", httpdate::fmt_http_date(UNIX_EPOCH + since_epoch)),
        ("request-id", request_id),
        ("stripe-version", version.to_owned()),
        ("cache-control", "no-cache, no-store".to_owned()),
    ]);
    for name in ["idempotency-key", "stripe-account"] {
        if let Some(value) = asked.header(name) {
            reply.headers.push((name, value.to_owned()));
        }
    }
    match kind {
        Some(Kind::DropAfter) => Err(Disconnect { reset: false }),
        Some(Kind::LatencyAfter) => {
            pause(fault.as_ref()).await;
            Ok(reply)
        }
        Some(Kind::HalfBody) => Ok(Reply { half: true, ..reply }),
        _ => Ok(reply),
    }
}

/// Answers a request whose key may not act on the account that it names.
pub(super) fn turned_away(shared: &Shared, error: &Error) -> Reply {
    let mut state = shared.state();
    state.kept.book.refused += 1;
    let (request_id, now) = (state.new_id("req"), state.now());
    let mut reply = refusal(error, &request_id, now);
    reply.headers.push(("request-id", request_id));
    reply
}

async fn pause(fault: Option<&Fault>) {
    let ms = fault.and_then(|fault| fault.ms).unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Everything between the faults: an error here was refused before the endpoint began.
async fn run(
    shared: &Shared,
    asked: &Asked,
    request_id: &str,
    fault: Option<&Fault>,
) -> Result<Reply, Error> {
    let restricted = shared.state().restricted_keys.clone();
    let admitted = keys::admit(asked, &shared.options, &restricted)?;
    let now = shared.options.clock.monotonic();
    if !shared.rate.lock().unwrap_or_else(std::sync::PoisonError::into_inner).admit(now) {
        let error = Error::new(429, "invalid_request_error", "Too many requests. Try again later.");
        let error = error.code("rate_limit");
        return Err(Error { rate_limited_reason: Some("global-rate".to_owned()), ..error });
    }
    let (route, captures) = routes::find(&asked.method, &asked.path)?;
    admitted.check(route, &shared.options.account_id)?;
    let parts = parameters(asked)?;
    let key = asked.header("idempotency-key").filter(|_| asked.method == "POST");
    let slot = key.map(|key| format!("{} {key}", asked.header("stripe-account").unwrap_or_default()));
    if let (Some(key), Some(slot)) = (key, &slot) {
        idempotency::check_key(key)?;
        let endpoint = format!("{} {}", asked.method, asked.path);
        let mut state = shared.state();
        let now = state.now_ms();
        if let Found::Done(saved) =
            state.kept.keys.begin(slot, &endpoint, &idempotency::fingerprint(&parts.fields), now)?
        {
            state.kept.book.replayed += 1;
            return Ok(replay(saved));
        }
    }
    if fault.is_some_and(|fault| fault.kind == Kind::Latency) {
        pause(fault).await;
    }
    let mut state = shared.state();
    state.cause = Cause { request_id: Some(request_id.to_owned()), idempotency_key: key.map(str::to_owned) };
    let result = match fault.filter(|fault| fault.kind == Kind::Status) {
        Some(fault) if fault.effect => {
            execute(&mut state, asked, route, captures, parts, request_id).and(Err(injected(fault)))
        }
        Some(fault) => Err(injected(fault)),
        None => execute(&mut state, asked, route, captures, parts, request_id),
    };
    state.cause = Cause::default();
    let now = state.now();
    let (mut reply, saved) = match &result {
        Ok(value) => {
            let mut reply = match files::download(value) {
                Some((media, bytes)) => Reply::new(200, &media, Bytes::from(bytes)),
                None => Reply::json(200, value),
            };
            reply.headers.push(("stripe-should-retry", "false".to_owned()));
            (reply, true)
        }
        Err(error) => {
            state.kept.book.refused += 1;
            (refusal(error, request_id, now), error.saved)
        }
    };
    if let Some(slot) = slot {
        if saved {
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            let answer = Answer { status: reply.status, body, request_id: request_id.to_owned() };
            state.kept.keys.settle(&slot, answer);
            reply.headers.push(("original-request", request_id.to_owned()));
        } else {
            state.kept.keys.forget(&slot);
        }
    }
    Ok(reply)
}

/// The parameters of query and body together, and the file. A digest stands for the file's bytes among the parameters, so
/// that a key stands for them too.
fn parameters(asked: &Asked) -> Result<Parts, Error> {
    let mut all = Parts { fields: form::pairs(&asked.query)?, file: None };
    if let Some(boundary) = asked.header("content-type").and_then(multipart::boundary) {
        let parts = multipart::parse(boundary, &asked.body)?;
        all.fields.extend(parts.fields);
        if let Some(file) = &parts.file {
            let digest = Sha256::digest(&file.bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            all.fields.push(("file".to_owned(), digest));
        }
        all.file = parts.file;
        return Ok(all);
    }
    let body = std::str::from_utf8(&asked.body)
        .map_err(|_| Error::invalid("The request body must be form-encoded UTF-8."))?;
    all.fields.extend(form::pairs(body)?);
    Ok(all)
}

fn execute(
    state: &mut State,
    asked: &Asked,
    route: &Route,
    captures: Vec<&str>,
    parts: Parts,
    request_id: &str,
) -> Result<Value, Error> {
    let params = shape::check(&route.shape(), &form::tree(&parts.fields)?)?;
    expand::check(route.object, route.many, &params)?;
    let mut call = Call { state, params, path: &asked.path, captures, upload: parts.file };
    let mut answer = (route.handler)(&mut call)?;
    let Call { state, params, .. } = call;
    if asked.method != "GET" {
        let book = effect(state, asked, &params, &answer, request_id);
        state.kept.book.record(book);
    }
    expand::apply(state, &mut answer, &params);
    Ok(match answer {
        Value::Object(object) => object::shown(&object),
        other => other,
    })
}

fn effect(state: &State, asked: &Asked, params: &Object, answer: &Value, request_id: &str) -> Effect {
    let stamp = object::sub(params, "metadata").map(|metadata| text(metadata, "tollgate_operation"));
    Effect {
        n: 0,
        at: state.now_ms(),
        method: asked.method.clone(),
        path: asked.path.clone(),
        idempotency_key: asked.header("idempotency-key").map(str::to_owned),
        operation: stamp.filter(|stamp| !stamp.is_empty()).map(str::to_owned),
        object: answer.get("id").and_then(Value::as_str).map(str::to_owned),
        amount: answer.as_object().filter(|object| object.contains_key("amount")).map(|o| int(o, "amount")),
        request_id: request_id.to_owned(),
    }
}

fn injected(fault: &Fault) -> Error {
    let status = fault.status.unwrap_or(500);
    let kind = if status >= 500 { "api_error" } else { "invalid_request_error" };
    let error = Error::new(status, kind, "A fault was asked for.");
    let error = match fault.code.as_deref() {
        Some(code) => error.code(code),
        None if status == 409 => error.code("idempotency_key_in_use"),
        None if status == 429 => error.code("rate_limit"),
        None => error,
    };
    Error {
        saved: fault.saved,
        should_retry: fault.should_retry,
        rate_limited_reason: fault.rate_limited_reason.clone(),
        ..error
    }
}

fn refusal(error: &Error, request_id: &str, now: i64) -> Reply {
    let mut reply = Reply::json(error.status, &error.envelope(request_id, now));
    if let Some(retry) = error.should_retry {
        reply.headers.push(("stripe-should-retry", retry.to_string()));
    }
    if let Some(reason) = &error.rate_limited_reason {
        reply.headers.push(("stripe-rate-limited-reason", reason.clone()));
    }
    reply
}

fn replay(saved: Answer) -> Reply {
    let mut reply = Reply::text(saved.status, "application/json", saved.body);
    reply.headers.push(("original-request", saved.request_id));
    reply.headers.push(("idempotent-replayed", "true".to_owned()));
    reply
}
