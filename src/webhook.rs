//! Stripe's webhooks in: believes nothing that is not signed, and answers 2xx only when the event is durable. What the
//! events mean is not looked at here.

mod body;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use crate::domain::clock::Clock;
use crate::domain::limits::WEBHOOKS_AT_ONCE_MAX;
use crate::domain::planted;
use crate::domain::secret::Secret;
use crate::events::{Arrival, Envelope, Feed};
use crate::proto::v1::EventSource;
use crate::stripe::signature::{SignatureError, verify};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names;
use refusal::Refusal;

/// The header that carries the signature.
const SIGNATURE: &str = "stripe-signature";

/// Webhook endpoints by the alias of their Stripe account; the default's alias is empty.
pub type Endpoints = Arc<BTreeMap<String, Endpoint>>;

/// What is known of one webhook endpoint at Stripe.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// Its secrets, `whsec_...`; several while one replaces another, or for several endpoints on one URL.
    pub secrets: Vec<Secret>,
    /// Whether it is of live mode; events of the other mode are dropped.
    pub livemode: bool,
    /// Accept only events of this connected account, `acct_...`; without it, of any.
    pub connected_account: Option<String>,
    /// Other accounts that have an endpoint of their own, where alone their events are taken: an event has one place in
    /// the log, and a secret speaks for one account.
    pub elsewhere: BTreeSet<String>,
}

/// What receiving needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where events go.
    pub feed: Feed,
    /// The endpoints, as they stand at each delivery; a change needs no restart.
    pub endpoints: watch::Receiver<Endpoints>,
    /// Against which signing times are judged.
    pub clock: Arc<dyn Clock>,
    /// Where deliveries are counted.
    pub metrics: Metrics,
}

#[derive(Debug)]
struct Receiver {
    options: Options,
    slots: Semaphore,
}

/// What became of a delivery that was believed.
enum Taken {
    Stored,
    Duplicate,
    /// Of the other mode, or of an account that is not asked for. Refusing it would have Stripe repeat it for days.
    Dropped(names::Webhook),
}

/// The routes: `POST /webhooks/stripe` for the default account, `POST /webhooks/stripe/{alias}` for the others.
pub fn router(options: Options) -> Router {
    let receiver = Arc::new(Receiver { options, slots: Semaphore::new(WEBHOOKS_AT_ONCE_MAX) });
    Router::new()
        .route("/webhooks/stripe", post(default_account))
        .route("/webhooks/stripe/{account}", post(named_account))
        .with_state(receiver)
}

async fn default_account(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    receiver.answer("", request).await
}

async fn named_account(
    State(receiver): State<Arc<Receiver>>,
    Path(account): Path<String>,
    request: Request,
) -> Response {
    receiver.answer(&account, request).await
}

impl Receiver {
    async fn answer(&self, account: &str, request: Request) -> Response {
        let result = self.receive(account, request).await;
        let metrics = &self.options.metrics;
        match result {
            Ok(Taken::Stored) => {
                metrics.webhook(names::Webhook::Accepted);
                metrics.events_appended(1);
            }
            Ok(Taken::Duplicate) => metrics.webhook(names::Webhook::Duplicate),
            Ok(Taken::Dropped(why)) => metrics.webhook(why),
            Err(refusal) => {
                metrics.webhook(refusal.counted());
                // Anybody can cause this line, so it is not worth more than `debug`; the counter is what alerts.
                tracing::debug!(reason = %refusal, "webhook refused");
                return refusal.into_response();
            }
        }
        StatusCode::OK.into_response()
    }

    async fn receive(&self, account: &str, request: Request) -> Result<Taken, Refusal> {
        let _slot = self.slots.try_acquire().map_err(|_| Refusal::Busy)?;
        let (head, body) = request.into_parts();
        let body = body::read(body).await?;
        // An alias that does not exist is answered like a wrong signature: nobody can find out which ones do.
        let endpoint = self.options.endpoints.borrow().get(account).cloned().unwrap_or_default();
        let now_s = self.options.clock.wall().div_euclid(1000);
        verify(signature(&head.headers)?, &body, &endpoint.secrets, now_s)?;
        self.take(account, &endpoint, &body).await
    }

    /// Takes in a body that Stripe has signed.
    async fn take(&self, account: &str, endpoint: &Endpoint, body: &Bytes) -> Result<Taken, Refusal> {
        let json = std::str::from_utf8(body).map_err(|_| Refusal::NotText)?;
        let envelope = Envelope::parse(json)?;
        let (id, kind) = (envelope.id.clone(), envelope.kind.clone());
        if envelope.livemode != endpoint.livemode {
            tracing::info!(
                event = id,
                kind,
                livemode = envelope.livemode,
                "webhook of the other mode dropped"
            );
            return Ok(Taken::Dropped(names::Webhook::WrongMode));
        }
        let of = &envelope.connected_account;
        let other = endpoint.connected_account.as_ref().is_some_and(|only| only != of);
        if other || endpoint.elsewhere.contains(of) {
            tracing::info!(event = id, kind, "webhook of another connected account dropped");
            return Ok(Taken::Dropped(names::Webhook::WrongAccount));
        }
        let arrival = Arrival {
            envelope,
            account: account.to_owned(),
            source: EventSource::Webhook,
            json: json.to_owned(),
        };
        planted::point("webhook-verified");
        let appended = self.options.feed.append(arrival).await;
        planted::point("webhook-durable");
        match appended {
            Ok(appended) if appended.duplicate => Ok(Taken::Duplicate),
            Ok(appended) => {
                tracing::info!(event = id, kind, position = appended.position, "event received");
                Ok(Taken::Stored)
            }
            Err(error) => {
                tracing::error!(event = id, kind, %error, "event not stored");
                Err(Refusal::NotStored)
            }
        }
    }
}

/// The signature header; two of them are as good as a broken one.
fn signature(headers: &HeaderMap) -> Result<&str, SignatureError> {
    let mut values = headers.get_all(SIGNATURE).into_iter();
    let first = values.next().ok_or(SignatureError::Missing)?;
    if values.next().is_some() {
        return Err(SignatureError::Malformed);
    }
    first.to_str().map_err(|_| SignatureError::Malformed)
}
