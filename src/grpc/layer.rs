//! The door: what happens to every request before a service sees it and to every answer after. It identifies the
//! caller, takes the deadline over from the transport, opens the server span, and gives the transport's own refusals
//! the details that ours have.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::{Instrument as _, Span};

use super::access::Callers;
use super::api::{Peer, unauthenticated};
use super::deadline::Deadline;
use super::status;
use crate::audit::Strangers;
use crate::domain::limits::MESSAGE_BYTES_MAX;
use crate::gateway::{Code, Fault, Reason, Retry};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names;

/// Path prefix of the services that need a known caller; health and reflection tell nothing that needs one.
const CONTRACT: &str = "/tollgate.";

/// Puts the door in front of a service.
#[derive(Clone, Debug)]
pub struct DoorLayer {
    callers: Arc<Callers>,
    strangers: Strangers,
    metrics: Metrics,
}

impl DoorLayer {
    /// A door that lets these callers in and counts all others.
    #[must_use]
    pub fn new(callers: Arc<Callers>, strangers: Strangers, metrics: Metrics) -> Self {
        Self { callers, strangers, metrics }
    }
}

impl<S> Layer<S> for DoorLayer {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        let strangers = self.strangers.clone();
        Door { inner, callers: Arc::clone(&self.callers), strangers, metrics: self.metrics.clone() }
    }
}

/// A service behind the door.
#[derive(Clone, Debug)]
pub struct Door<S> {
    inner: S,
    callers: Arc<Callers>,
    strangers: Strangers,
    metrics: Metrics,
}

impl<S, B> Service<Request<B>> for Door<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Send,
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
        let (metrics, path) = (self.metrics.clone(), request.uri().path().to_owned());
        let span = server_span(&path, request.headers());
        let deadline = Deadline::of(request.headers());
        // The transport would drop the handler at the deadline and answer CANCELLED; we end the wait ourselves.
        request.headers_mut().remove("grpc-timeout");
        request.extensions_mut().insert(deadline);
        if path.starts_with(CONTRACT) {
            let Some(caller) = self.callers.identify(request.headers()) else {
                span.in_scope(|| tracing::debug!(target: "tollgate::call", rpc = path, code = "UNAUTHENTICATED", "refused"));
                let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
                self.strangers.count(path.trim_start_matches('/'), &peer.0);
                let refusal = status::of(&unauthenticated());
                metrics.rpc(&path, refusal.code().into(), started.elapsed());
                return Box::pin(async { Ok(refusal.into_http()) });
            };
            request.extensions_mut().insert(caller);
        }
        let answer = self.inner.call(request);
        let answer = async move {
            let response = answer.await?;
            let response = match refusal(response.headers(), &path) {
                Some(fault) => status::of(&fault).into_http(),
                None => response,
            };
            let code = grpc_status(response.headers());
            record_status(code);
            metrics.rpc(&path, code, started.elapsed());
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
