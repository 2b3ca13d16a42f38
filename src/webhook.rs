//! Stripe's webhooks in: believes nothing that is not signed, and answers 2xx only when the event is durable. What the
//! events mean is not looked at here.

mod body;
mod refusal;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument as _;

use crate::domain::clock::Clock;
use crate::domain::limits::WEBHOOKS_AT_ONCE_MAX;
use crate::domain::planted;
use crate::domain::secret::Secret;
use crate::events::{Arrival, Cause, Envelope};
use crate::gateway::{Belongs, Intake, Taken};
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
    /// Which events it takes.
    pub belongs: Belongs,
}

/// What receiving needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where events go.
    pub intake: Intake,
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
        let span = tracing::info_span!("webhook", otel.kind = "server", otel.name = "POST /webhooks/stripe");
        let result = self.receive(account, request).instrument(span).await;
        let metrics = &self.options.metrics;
        match result {
            Ok(taken) => metrics.webhook(counted(taken)),
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
        let (id, kind, created_s) = (envelope.id.clone(), envelope.kind.clone(), envelope.created_s);
        let arrival = Arrival {
            envelope,
            account: account.to_owned(),
            source: EventSource::Webhook,
            json: json.to_owned(),
            cause: Cause::default(),
        };
        planted::point("webhook-verified");
        let taken = self.options.intake.take(&endpoint.belongs, arrival).await;
        planted::point("webhook-durable");
        if let Ok(Taken::Stored { .. }) = taken {
            let age_ms = self.options.clock.wall() - created_s.saturating_mul(1000);
            // The clocks of two machines differ: an event that is yet to be made is a new one.
            self.options
                .metrics
                .webhook_age(Duration::from_millis(u64::try_from(age_ms).unwrap_or_default()));
        }
        taken.map_err(|error| {
            tracing::error!(event = id, kind, %error, "event not stored");
            Refusal::NotStored
        })
    }
}

/// What a delivery that was believed counts as. One of the other mode, or of an account that is not asked for, is answered
/// all the same: refusing it would have Stripe repeat it for days.
fn counted(taken: Taken) -> names::Webhook {
    match taken {
        Taken::Stored { .. } => names::Webhook::Accepted,
        Taken::Duplicate { .. } => names::Webhook::Duplicate,
        Taken::WrongMode => names::Webhook::WrongMode,
        Taken::WrongAccount => names::Webhook::WrongAccount,
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
