//! Sends one call, trying again where that is right. Every attempt carries the same key and the same bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::answer::{Attempt, Sent, Trouble};
use super::key::Key;
use super::keyring::Keyring;
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
    /// The keys of one account and mode: every request carries the first that Stripe takes. Several while one replaces
    /// another.
    pub keys: Vec<Key>,
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
            keys: vec![key],
            extra_roots_pem: None,
            attempt_timeout: Duration::from_millis(STRIPE_ATTEMPT_MS_MAX),
            connect_timeout: Duration::from_millis(STRIPE_CONNECT_MS_MAX),
            metrics: None,
        }
    }
}

/// A client of one Stripe account; clones share their connections and keys.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<Transport>,
    keyring: Arc<Keyring>,
    mode: Mode,
    metrics: Option<Metrics>,
}

impl Client {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// When an address or a certificate cannot be used, or the keys are none or of both modes.
    pub fn new(options: &Options) -> Result<Self, SetupError> {
        let transport = Transport::new(&Settings {
            api_base: &options.api_base,
            files_base: &options.files_base,
            extra_roots_pem: options.extra_roots_pem.as_deref(),
            attempt_timeout: options.attempt_timeout,
            connect_timeout: options.connect_timeout,
        })?;
        let mode = one_mode(&options.keys)?;
        let keyring = Arc::new(Keyring::new(&options.keys));
        Ok(Self { transport: Arc::new(transport), keyring, mode, metrics: options.metrics.clone() })
    }

    /// Whether the key that is tried first may do some things only.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.keyring.current().first().is_some_and(Key::is_restricted)
    }

    /// Whether a key is among those that it sends under.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        self.keyring.current().contains(key)
    }

    /// A client for each key alone, the one that is tried first at the front.
    #[must_use]
    pub fn one_by_one(&self) -> Vec<Self> {
        let alone =
            |key: &Key| Self { keyring: Arc::new(Keyring::new(std::slice::from_ref(key))), ..self.clone() };
        self.keyring.current().iter().map(alone).collect()
    }

    /// Test or live, as the key says.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The same client under other keys; connections are shared, and nothing changes for those who have this one.
    ///
    /// # Errors
    /// When the keys are none, or not of this client's mode.
    pub fn with_keys(&self, keys: &[Key]) -> Result<Self, SetupError> {
        if one_mode(keys)? != self.mode {
            return Err(SetupError::Keys);
        }
        Ok(Self { keyring: Arc::new(Keyring::new(keys)), ..self.clone() })
    }

    /// Has this client and all its clones use the keys of `other` from the next attempt on.
    pub fn take_keys_of(&self, other: &Self) {
        self.keyring.swap(&other.keyring.current());
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
        let attempt = self.exchange(outgoing, &allowed).instrument(span.clone()).await;
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

    /// One attempt under the first key that Stripe takes. A key that it refuses is refused before anything else is
    /// looked at (docs.stripe.com/error-low-level), so the same attempt may go on under the next one.
    async fn exchange(&self, outgoing: &Outgoing, allowed: &Allowed) -> Attempt {
        let keys = self.keyring.current();
        let mut refused = Attempt::NotSent(Trouble::Unsendable);
        for (place, key) in keys.iter().enumerate() {
            let attempt = self.transport.exchange(outgoing, key, Arc::clone(allowed)).await;
            if !refuses_key(&attempt) {
                if place > 0 && matches!(attempt, Attempt::Answered(_)) && self.keyring.prefer(&keys, place) {
                    tracing::warn!(
                        "Stripe refused the first key and took another; the refused one is out of use"
                    );
                }
                return attempt;
            }
            if let Some(metrics) = &self.metrics {
                metrics.stripe_key_refused();
            }
            refused = attempt;
        }
        refused
    }
}

/// Whether Stripe itself says that it does not take the key; a 401 of something on the way says nothing.
fn refuses_key(attempt: &Attempt) -> bool {
    matches!(attempt, Attempt::Answered(answer) if answer.status == 401 && answer.error().is_some())
}

/// The mode that all keys have.
fn one_mode(keys: &[Key]) -> Result<Mode, SetupError> {
    let mut modes = keys.iter().map(Key::mode);
    let first = modes.next().ok_or(SetupError::Keys)?;
    if modes.all(|mode| mode == first) { Ok(first) } else { Err(SetupError::Keys) }
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
