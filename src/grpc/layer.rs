//! The door: what happens to every request before a service sees it and to every answer after. It identifies the
//! caller, refuses calls beyond those that the gateway takes, takes the deadline over from the transport, and gives the
//! transport's own refusals the details that ours have. How the call ends is told by `told`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::api::{Peer, unauthenticated};
use super::deadline::Deadline;
use super::load::Load;
use super::status;
use super::told::Told;
use crate::audit::Strangers;
use crate::domain::caller::Caller;
use crate::domain::clock::Clock;
use crate::domain::limits::MESSAGE_BYTES_MAX;
use crate::gateway::{Code, Fault, Reason, Retry};
use crate::identity::{Presented, Registry, Stranger};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::Shed;

/// Path prefix of the services that need a known caller; health and reflection tell nothing that needs one.
const CONTRACT: &str = "tollgate.";
/// When to come back at the earliest after there was no room.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(500);
/// How much later that may be, so that callers do not all come back at once.
const RETRY_AFTER_SPREAD: Duration = Duration::from_secs(1);

/// Whether a path, with or without its leading slash, is of the contract, so that its caller has to be known.
#[must_use]
pub fn is_of_contract(path: &str) -> bool {
    path.trim_start_matches('/').starts_with(CONTRACT)
}

/// Puts the door in front of a service.
#[derive(Clone, Debug)]
pub struct DoorLayer {
    registry: Registry,
    load: Load,
    clock: Arc<dyn Clock>,
    strangers: Strangers,
    metrics: Metrics,
}

impl DoorLayer {
    /// A door that lets the registry's callers in as far as there is room, and counts all others.
    #[must_use]
    pub fn new(
        registry: Registry,
        load: Load,
        clock: Arc<dyn Clock>,
        strangers: Strangers,
        metrics: Metrics,
    ) -> Self {
        Self { registry, load, clock, strangers, metrics }
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
    fn turn_away(&self, why: Stranger, seen: &Seen, mut told: Told) -> Response<Body> {
        let (rpc, cause) = (told.rpc(), why.as_str());
        tracing::debug!(target: "tollgate::call", rpc, code = "UNAUTHENTICATED", cause, "refused");
        self.strangers.count(cause, rpc, &seen.peer.address);
        self.metrics.stranger(cause);
        told.quietly();
        told.answer(status::of(&unauthenticated(why)).into_http())
    }
}

/// Makes the answer to a call for which there is no room: before its message is read, and without a line, so that it costs
/// little.
fn shed(caller: &Caller, why: Shed, mut told: Told) -> Response<Body> {
    let (rpc, caller, cause) = (told.rpc(), caller.name.as_str(), why.as_str());
    tracing::debug!(target: "tollgate::call", rpc, caller, code = "RESOURCE_EXHAUSTED", cause, "refused");
    told.quietly();
    told.answer(status::of(&overloaded()).into_http())
}

/// What identifies a call, taken off its request.
struct Seen {
    authorization: Option<HeaderValue>,
    peer: Peer,
}

impl Seen {
    fn of<B>(request: &Request<B>) -> Self {
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        let first = values.next().cloned();
        // Two credentials in one header name leave open which of them is meant.
        let authorization = if values.next().is_some() { Some(HeaderValue::from_static("")) } else { first };
        Self { authorization, peer: request.extensions().get::<Peer>().cloned().unwrap_or_default() }
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
        let (layer, seen) = (self.layer.clone(), Seen::of(&request));
        let told = Told::begin(&mut request, &layer.metrics);
        let span = told.span();
        let deadline = Deadline::of(request.headers());
        // The transport would drop the handler at the deadline and answer CANCELLED; we end the wait ourselves.
        request.headers_mut().remove("grpc-timeout");
        request.extensions_mut().insert(deadline);
        // The clone was never asked whether it is ready; this one was.
        let unready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, unready);
        let answer = async move {
            let mut place = None;
            if is_of_contract(told.rpc()) {
                let caller = match layer.identify(&seen).await {
                    Ok(caller) => caller,
                    Err(why) => return Ok(layer.turn_away(why, &seen, told)),
                };
                told.by(&caller.name);
                match layer.load.enter(&caller.name) {
                    Ok(taken) => place = Some(taken),
                    Err(why) => return Ok(shed(&caller, why, told)),
                }
                request.extensions_mut().insert(caller);
            }
            let response = inner.call(request).await?;
            // A stream that goes on from here has limits of its own.
            drop(place);
            let response = match refusal(response.headers(), told.rpc()) {
                Some(fault) => status::of(&fault).into_http(),
                None => response,
            };
            Ok(told.answer(response))
        };
        Box::pin(answer.instrument(span))
    }
}

fn grpc_status(headers: &HeaderMap) -> i32 {
    headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default()
}

/// What the transport refused by itself, before any code of ours saw the message.
fn refusal(headers: &HeaderMap, rpc: &str) -> Option<Fault> {
    let message = headers.get("grpc-message").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match tonic::Code::from(grpc_status(headers)) {
        tonic::Code::OutOfRange if message.contains("message%20length%20too%20large") => Some(too_large()),
        tonic::Code::Unimplemented if message.is_empty() => Some(unimplemented(rpc)),
        _ => None,
    }
}

fn unimplemented(rpc: &str) -> Fault {
    let message = format!("the gateway has no method `{rpc}`");
    Fault::new(Code::Unimplemented, Reason::Unimplemented, message).retry(Retry::Never)
}

fn too_large() -> Fault {
    let message = format!("the request is larger than {MESSAGE_BYTES_MAX} bytes");
    Fault::new(Code::InvalidArgument, Reason::MessageTooLarge, message)
        .with("bytes_max", MESSAGE_BYTES_MAX.to_string())
        .retry(Retry::Never)
}

fn overloaded() -> Fault {
    let message = "the gateway has as many calls under way as it takes; nothing was done";
    Fault::new(Code::ResourceExhausted, Reason::Overloaded, message)
        .with("limit", "listen.calls_in_flight_max")
        .retry(Retry::After(RETRY_AFTER_MIN + RETRY_AFTER_SPREAD.mul_f64(random())))
}

/// From 0 to 1; without a source of randomness, 1.
fn random() -> f64 {
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}
