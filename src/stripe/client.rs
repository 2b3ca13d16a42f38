//! Sends one call, trying again where that is right. Every attempt carries the same key and the same bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::answer::{Attempt, Sent, Trouble};
use super::key::Key;
use super::outgoing::Outgoing;
use super::retry;
use super::transport::{Allowed, Settings, SetupError, Transport};
use crate::domain::limits::{STRIPE_ATTEMPT_MS_MAX, STRIPE_CONNECT_MS_MAX};
use crate::domain::operation::Mode;
use crate::telemetry::metrics::{Metrics, StripeAttempt};

/// What a client is built from.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base address of the API: `https` anywhere, `http` on a loopback address.
    pub api_base: String,
    /// Base address of file uploads, under the same rule.
    pub files_base: String,
    /// The key that every request carries.
    pub key: Key,
    /// Certificate authorities to trust besides the system's, in PEM.
    pub extra_roots_pem: Option<Vec<u8>>,
    /// How long one attempt may take, from connecting to the last byte.
    pub attempt_timeout: Duration,
    /// How long connecting may take, TLS included. Shorter than an attempt, or nobody can tell that nothing was sent.
    pub connect_timeout: Duration,
    /// Where attempts are counted, if anywhere.
    pub metrics: Option<Metrics>,
}

impl Options {
    /// Stripe itself, with the usual limits.
    #[must_use]
    pub fn new(key: Key) -> Self {
        Self {
            api_base: "https://api.stripe.com".to_owned(),
            files_base: "https://files.stripe.com".to_owned(),
            key,
            extra_roots_pem: None,
            attempt_timeout: Duration::from_millis(STRIPE_ATTEMPT_MS_MAX),
            connect_timeout: Duration::from_millis(STRIPE_CONNECT_MS_MAX),
            metrics: None,
        }
    }
}

/// A client of one Stripe account's key; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<Transport>,
    mode: Mode,
    metrics: Option<Metrics>,
}

impl Client {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// When an address or a certificate cannot be used.
    pub fn new(options: &Options) -> Result<Self, SetupError> {
        let transport = Transport::new(&Settings {
            api_base: &options.api_base,
            files_base: &options.files_base,
            key: &options.key,
            extra_roots_pem: options.extra_roots_pem.as_deref(),
            attempt_timeout: options.attempt_timeout,
            connect_timeout: options.connect_timeout,
        })?;
        let metrics = options.metrics.clone();
        Ok(Self { transport: Arc::new(transport), mode: options.key.mode(), metrics })
    }

    /// Test or live, as the key says.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Sends, and sends again as [`retry::delay`] says. No attempt begins after `deadline`; one that has begun keeps its
    /// own time, since to cut it off would only make its effect unknown.
    ///
    /// Dropping the future abandons an attempt whose effect then nobody knows: a change must run in a task of its own
    /// that outlives its caller and records what this returns.
    pub async fn send(&self, outgoing: &Outgoing, deadline: Option<Instant>) -> Sent {
        self.send_while(outgoing, deadline, || true).await
    }

    /// The same, asking `allowed` before each attempt and again when its connection stands, right before the request is
    /// written: a process may have slept for a day since it decided to send, or while it connected, and then Stripe has
    /// forgotten the key.
    pub async fn send_while(
        &self,
        outgoing: &Outgoing,
        deadline: Option<Instant>,
        allowed: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Sent {
        let allowed: Allowed = Arc::new(allowed);
        try_until(deadline, &*allowed, |made| self.attempt(outgoing, made, Arc::clone(&allowed))).await
    }

    /// One attempt in a span of its own (opentelemetry.io/docs/specs/semconv/http/http-spans). The template stands for
    /// the path, and no query or id is told.
    async fn attempt(&self, outgoing: &Outgoing, made: u32, allowed: Allowed) -> Attempt {
        let (verb, (address, port)) = (outgoing.verb.as_str(), self.transport.server(outgoing.host));
        let span = tracing::info_span!(
            "stripe",
            otel.name = format!("{verb} {}", outgoing.template),
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = verb,
            http.request.resend_count = (made > 0).then_some(made),
            http.response.status_code = Empty,
            url.template = outgoing.template,
            server.address = address,
            server.port = port,
            error.type = Empty,
        );
        let started = Instant::now();
        let attempt = self.transport.exchange(outgoing, allowed).instrument(span.clone()).await;
        record(&span, &attempt);
        if let Some(metrics) = &self.metrics {
            let end = match &attempt {
                Attempt::Answered(answer) => Ok(answer.status),
                Attempt::NotSent(trouble) | Attempt::Broken(trouble) => Err(trouble.as_str()),
            };
            let (template, elapsed) = (outgoing.template.as_str(), started.elapsed());
            metrics.stripe_attempt(StripeAttempt { verb, template, end, resend: made > 0, elapsed });
        }
        attempt
    }
}

fn record(span: &Span, attempt: &Attempt) {
    match attempt {
        Attempt::Answered(answer) => {
            span.record("http.response.status_code", answer.status);
            if answer.status >= 400 {
                span.record("error.type", answer.status.to_string()).record("otel.status_code", "ERROR");
            }
        }
        Attempt::NotSent(trouble) | Attempt::Broken(trouble) => {
            span.record("error.type", trouble.as_str()).record("otel.status_code", "ERROR");
        }
    }
}

/// Runs attempts until the rule says stop or the next one would begin past the deadline. `attempt` is told how many were
/// made before it.
async fn try_until<F: Future<Output = Attempt>>(
    deadline: Option<Instant>,
    allowed: impl Fn() -> bool,
    attempt: impl Fn(u32) -> F,
) -> Sent {
    let in_time = |pause| deadline.is_none_or(|deadline| Instant::now() + pause < deadline);
    let mut attempts = Vec::new();
    for made in 1.. {
        if !in_time(Duration::ZERO) || !allowed() {
            attempts.push(Attempt::NotSent(Trouble::Deadline));
            break;
        }
        let last = attempt(made - 1).await;
        let pause = retry::delay(&last, made, jitter());
        attempts.push(last);
        match pause {
            Some(pause) if in_time(pause) => tokio::time::sleep(pause).await,
            Some(_) | None => break,
        }
    }
    Sent { attempts }
}

/// A random number; without a source of them, the longest pause.
fn jitter() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
