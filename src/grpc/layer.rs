//! The door: what happens to every request before a service sees it and to every answer after. It identifies the
//! caller, takes the deadline over from the transport, opens the server span, and gives the transport's own refusals
//! the details that ours have.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::{Instrument as _, Span};

use super::api::{Peer, unauthenticated};
use super::deadline::Deadline;
use super::status;
use crate::audit::Strangers;
use crate::domain::caller::Caller;
use crate::domain::clock::Clock;
use crate::domain::limits::MESSAGE_BYTES_MAX;
use crate::gateway::{Code, Fault, Reason, Retry};
use crate::identity::{Presented, Registry, Stranger};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names;

/// Path prefix of the services that need a known caller; health and reflection tell nothing that needs one.
const CONTRACT: &str = "/tollgate.";

/// Puts the door in front of a service.
#[derive(Clone, Debug)]
pub struct DoorLayer {
    registry: Registry,
    clock: Arc<dyn Clock>,
    strangers: Strangers,
    metrics: Metrics,
}

impl DoorLayer {
    /// A door that lets the registry's callers in and counts all others.
    #[must_use]
    pub fn new(registry: Registry, clock: Arc<dyn Clock>, strangers: Strangers, metrics: Metrics) -> Self {
        Self { registry, clock, strangers, metrics }
    }

    /// Who calls.
    async fn identify(&self, seen: &Seen) -> Result<Caller, Stranger> {
        let presented = Presented {
            authorization: seen.authorization.as_ref().map(|value| value.to_str().unwrap_or_default()),
            certificate: seen.peer.certificate.as_deref(),
        };
        self.registry.identify(&presented, self.clock.wall()).await
    }

    /// Counts a call that is nobody's and makes its answer.
    fn turn_away(&self, why: Stranger, seen: &Seen, started: Instant) -> Response<Body> {
        let (rpc, cause) = (seen.path.as_str(), why.as_str());
        tracing::debug!(target: "tollgate::call", rpc, code = "UNAUTHENTICATED", cause, "refused");
        self.strangers.count(cause, rpc.trim_start_matches('/'), &seen.peer.address);
        self.metrics.stranger(cause);
        let refusal = status::of(&unauthenticated(why));
        self.metrics.rpc(rpc, refusal.code().into(), started.elapsed());
        refusal.into_http()
    }
}

/// What identifies a call, taken off its request.
struct Seen {
    path: String,
    authorization: Option<HeaderValue>,
    peer: Peer,
}

impl Seen {
    fn of<B>(request: &Request<B>) -> Self {
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        let first = values.next().cloned();
        // Two credentials in one header name leave open which of them is meant.
        let authorization = if values.next().is_some() { Some(HeaderValue::from_static("")) } else { first };
        Self {
            path: request.uri().path().to_owned(),
            authorization,
            peer: request.extensions().get::<Peer>().cloned().unwrap_or_default(),
        }
    }
}

impl<S> Layer<S> for DoorLayer {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        Door { inner, layer: self.clone() }
    }
}

/// A service behind the door.
#[derive(Clone, Debug)]
pub struct Door<S> {
    inner: S,
    layer: DoorLayer,
}

impl<S, B> Service<Request<B>> for Door<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let (layer, seen) = (self.layer.clone(), Seen::of(&request));
        let span = server_span(&seen.path, request.headers());
        let deadline = Deadline::of(request.headers());
        // The transport would drop the handler at the deadline and answer CANCELLED; we end the wait ourselves.
        request.headers_mut().remove("grpc-timeout");
        request.extensions_mut().insert(deadline);
        // The clone was never asked whether it is ready; this one was.
        let unready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, unready);
        let answer = async move {
            if seen.path.starts_with(CONTRACT) {
                match layer.identify(&seen).await {
                    Ok(caller) => drop(request.extensions_mut().insert(caller)),
                    Err(why) => return Ok(layer.turn_away(why, &seen, started)),
                }
            }
            let response = inner.call(request).await?;
            let response = match refusal(response.headers(), &seen.path) {
                Some(fault) => status::of(&fault).into_http(),
                None => response,
            };
            let code = grpc_status(response.headers());
            record_status(code);
            layer.metrics.rpc(&seen.path, code, started.elapsed());
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}

/// The server span by the RPC conventions (opentelemetry.io/docs/specs/semconv/rpc), a child of the caller's.
fn server_span(path: &str, headers: &HeaderMap) -> Span {
    let method = path.trim_start_matches('/');
    let span = tracing::info_span!(
        target: "tollgate::rpc",
        "rpc",
        otel.name = method,
        otel.kind = "server",
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    crate::telemetry::context::adopt(&span, headers);
    span
}

/// Ends the current span by the conventions: a caller's mistake is no error of the server.
fn record_status(code: i32) {
    let (span, name) = (Span::current(), names::rpc_status(code));
    span.record("rpc.response.status_code", name);
    if names::is_server_fault(code) {
        span.record("error.type", name).record("otel.status_code", "ERROR");
    }
}

fn grpc_status(headers: &HeaderMap) -> i32 {
    headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default()
}

/// What the transport refused by itself, before any code of ours saw the message.
fn refusal(headers: &HeaderMap, path: &str) -> Option<Fault> {
    let message = headers.get("grpc-message").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match tonic::Code::from(grpc_status(headers)) {
        tonic::Code::OutOfRange if message.contains("message%20length%20too%20large") => Some(too_large()),
        tonic::Code::Unimplemented if message.is_empty() => Some(unimplemented(path)),
        _ => None,
    }
}

fn unimplemented(path: &str) -> Fault {
    let message = format!("the gateway has no method `{}`", path.trim_start_matches('/'));
    Fault::new(Code::Unimplemented, Reason::Unimplemented, message).retry(Retry::Never)
}

fn too_large() -> Fault {
    let message = format!("the request is larger than {MESSAGE_BYTES_MAX} bytes");
    Fault::new(Code::InvalidArgument, Reason::MessageTooLarge, message)
        .with("bytes_max", MESSAGE_BYTES_MAX.to_string())
        .retry(Retry::Never)
}
