//! Sends one call, trying again where that is right. Every attempt carries the same key and the same bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::answer::{Attempt, Sent, Trouble};
use super::health::Health;
use super::key::Key;
use super::keyring::Keyring;
use super::outgoing::Outgoing;
use super::retry;
use super::traffic::{Class, Sender, Settings as Limits, Traffic, Why};
use super::transport::{Allowed, Settings, SetupError, Transport};
use crate::domain::limits::{STRIPE_ATTEMPT_MS_MAX, STRIPE_CONNECT_MS_MAX};
use crate::domain::operation::{DEFAULT_ALIAS, Mode};
use crate::telemetry::metrics::{Metrics, StripeAttempt};

/// What a client is built from.
#[derive(Clone, Debug)]
pub struct Options {
    /// Alias of the account, for metrics and logs.
    pub account: String,
    /// Base address of the API: `https` anywhere, `http` on a loopback address.
    pub api_base: String,
    /// Base address of file uploads, under the same rule.
    pub files_base: String,
    /// Test or live.
    pub mode: Mode,
    /// The keys of one account and this mode: every request carries the first that Stripe takes. Several while one
    /// replaces another.
    pub keys: Vec<Key>,
    /// Certificate authorities to trust besides the system's, in PEM.
    pub extra_roots_pem: Option<Vec<u8>>,
    /// How long one attempt may take, from connecting to the last byte.
    pub attempt_timeout: Duration,
    /// How long connecting may take, TLS included. Shorter than an attempt, or nobody can tell that nothing was sent.
    pub connect_timeout: Duration,
    /// The account's limits, which all its clients share.
    pub traffic: Traffic,
    /// Where attempts are counted, if anywhere.
    pub metrics: Option<Metrics>,
}

impl Options {
    /// Stripe itself, with the usual limits.
    #[must_use]
    pub fn new(mode: Mode, key: Key) -> Self {
        Self {
            mode,
            account: DEFAULT_ALIAS.to_owned(),
            api_base: "https://api.stripe.com".to_owned(),
            files_base: "https://files.stripe.com".to_owned(),
            traffic: Traffic::new(Limits::of(mode)),
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
    health: Arc<Health>,
    mode: Mode,
    traffic: Traffic,
    metrics: Option<Metrics>,
}

impl Client {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// When an address or a certificate cannot be used, or the keys are none or of another mode.
    pub fn new(options: &Options) -> Result<Self, SetupError> {
        let transport = Transport::new(&Settings {
            api_base: &options.api_base,
            files_base: &options.files_base,
            extra_roots_pem: options.extra_roots_pem.as_deref(),
            attempt_timeout: options.attempt_timeout,
            connect_timeout: options.connect_timeout,
        })?;
        let mode = options.mode;
        are_of(mode, &options.keys)?;
        let keyring = Arc::new(Keyring::new(&options.keys));
        let health = Arc::new(Health::new(options.account.clone(), options.metrics.clone()));
        let (traffic, metrics) = (options.traffic.clone(), options.metrics.clone());
        if let Some(metrics) = &metrics {
            metrics.stripe_queue(&Class::ALL.map(Class::as_str), &Why::ALL.map(Why::as_str));
        }
        Ok(Self { transport: Arc::new(transport), keyring, health, mode, traffic, metrics })
    }

    /// Whether the key that is tried first may do some things only.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.keyring.current().first().is_some_and(Key::is_restricted)
    }

    /// Whether a key that it sends under is an organisation's.
    pub(super) fn is_organisation(&self) -> bool {
        self.keyring.current().iter().any(Key::is_organisation)
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

    /// Test or live.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How much may go to the account, and who waits.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Why a request would not be sent if it were given now, where too many wait already.
    #[must_use]
    pub fn crowded(
        &self,
        outgoing: &Outgoing,
        sender: &Sender,
        deadline: Option<Instant>,
    ) -> Option<Trouble> {
        self.traffic.refusal(outgoing, sender, deadline)
    }

    /// Turns a request away, and counts that.
    #[must_use]
    pub fn turn_away(&self, outgoing: &Outgoing, sender: &Sender, trouble: Trouble) -> Attempt {
        if let (Some(metrics), Trouble::Crowded { why, .. }) = (&self.metrics, trouble) {
            metrics.stripe_turned_away(Class::of(outgoing, sender).as_str(), why.as_str());
        }
        Attempt::NotSent(trouble)
    }

    /// The same client under other keys; connections are shared, and nothing changes for those who have this one.
    ///
    /// # Errors
    /// When the keys are none, or not of this client's mode.
    pub fn with_keys(&self, keys: &[Key]) -> Result<Self, SetupError> {
        are_of(self.mode, keys)?;
        Ok(Self { keyring: Arc::new(Keyring::new(keys)), ..self.clone() })
    }

    /// Has this client and all its clones use the keys of `other` from the next attempt on.
    pub fn take_keys_of(&self, other: &Self) {
        self.keyring.swap(&other.keyring.current());
    }

    /// Has this client and all its clones use a key no more. Where none is left, nothing is sent.
    pub fn give_up(&self, key: &Key) {
        self.keyring.remove(key);
    }

    /// Sends, and sends again as [`retry::delay`] says, each attempt once the account's limits let it go. No attempt begins
    /// after `deadline`; one that has begun keeps its own time, since to cut it off would only make its effect unknown.
    ///
    /// Dropping the future abandons an attempt whose effect then nobody knows: a change must run in a task of its own
    /// that outlives its caller and records what this returns.
    pub async fn send(&self, outgoing: &Outgoing, sender: &Sender, deadline: Option<Instant>) -> Sent {
        self.send_while(outgoing, sender, deadline, |_| true).await
    }

    /// The same, asking `allowed` before each attempt and again when its connection stands, right before the request is
    /// written: a process may have slept for a day since it decided to send, or while it connected, and then Stripe has
    /// forgotten the key. It is told whether an earlier attempt of this call may have reached Stripe.
    pub async fn send_while(
        &self,
        outgoing: &Outgoing,
        sender: &Sender,
        deadline: Option<Instant>,
        allowed: impl Fn(bool) -> bool + Send + Sync + 'static,
    ) -> Sent {
        let (allowed, queued_us) = (Arc::new(allowed), AtomicU64::new(0));
        let attempt = |made, reached| {
            let allowed = Arc::clone(&allowed);
            let allowed: Allowed = Arc::new(move || allowed(reached));
            self.in_turn(outgoing, (sender, deadline), (made, &queued_us), allowed)
        };
        let attempts = try_until(deadline, &*allowed, || self.health.may_resend(), attempt).await;
        Sent { attempts, queued: Duration::from_micros(queued_us.into_inner()) }
    }

    /// Sends a read of the gateway's own once, whatever comes of it.
    pub(super) async fn send_once(&self, outgoing: &Outgoing) -> Attempt {
        let queued_us = AtomicU64::new(0);
        self.in_turn(outgoing, (&Sender::Gateway, None), (0, &queued_us), Arc::new(|| true)).await
    }

    /// One attempt, once the account's limits let it go; none at a host that did not answer of late. Adds how long it waited
    /// for its turn, in microseconds.
    async fn in_turn(
        &self,
        outgoing: &Outgoing,
        (sender, deadline): (&Sender, Option<Instant>),
        (made, queued_us): (u32, &AtomicU64),
        allowed: Allowed,
    ) -> Attempt {
        if let Some(trouble) = self.health.closed_off(outgoing.host) {
            return Attempt::NotSent(trouble);
        }
        let class = Class::of(outgoing, sender);
        let span = tracing::info_span!("queue", tollgate.class = class.as_str());
        let since = Instant::now();
        let turn = self.traffic.turn(outgoing, sender, deadline).instrument(span).await;
        let waited_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        queued_us.fetch_add(waited_us, Ordering::Relaxed);
        let mut turn = match turn {
            Ok(turn) => turn,
            Err(trouble) => return self.turn_away(outgoing, sender, trouble),
        };
        if let Some(metrics) = &self.metrics {
            metrics.stripe_turn(class.as_str(), turn.waited());
        }
        let trial = match self.health.attempt(outgoing.host, made) {
            Ok(trial) => trial,
            Err(trouble) => return Attempt::NotSent(trouble),
        };
        turn.begins();
        let attempt = self.attempt(outgoing, made, allowed).await;
        trial.ended(&attempt);
        turn.heard(&attempt);
        attempt
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

/// Whether there are keys, and none says that it is of another mode.
fn are_of(mode: Mode, keys: &[Key]) -> Result<(), SetupError> {
    let fit = keys.iter().filter_map(Key::mode).all(|own| own == mode);
    if fit && !keys.is_empty() { Ok(()) } else { Err(SetupError::Keys) }
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

/// Runs attempts until the rule says stop, the next one would begin past the deadline or the budget has none left.
/// `attempt` is told how many were made before it, and like `allowed` whether one of them may have reached Stripe.
async fn try_until<F: Future<Output = Attempt>>(
    deadline: Option<Instant>,
    allowed: impl Fn(bool) -> bool,
    may_resend: impl Fn() -> bool,
    attempt: impl Fn(u32, bool) -> F,
) -> Vec<Attempt> {
    let in_time = |pause| deadline.is_none_or(|deadline| Instant::now() + pause < deadline);
    let mut attempts = Vec::new();
    for made in 1.. {
        let reached = attempts.iter().any(|attempt| !matches!(attempt, Attempt::NotSent(_)));
        if !in_time(Duration::ZERO) || !allowed(reached) {
            attempts.push(Attempt::NotSent(Trouble::Deadline));
            break;
        }
        let last = attempt(made - 1, reached).await;
        let pause = retry::delay(&last, made, jitter());
        attempts.push(last);
        match pause {
            Some(pause) if in_time(pause) && may_resend() => tokio::time::sleep(pause).await,
            Some(_) | None => break,
        }
    }
    attempts
}

/// A random number; without a source of them, the longest pause.
fn jitter() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
