//! One HTTP exchange with Stripe: the only place that knows the HTTP library. It tries once and decides nothing.

mod base;
mod gate;
mod trouble;

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Method, Request, Response, Url, redirect};

use self::base::Base;
pub(super) use self::gate::Allowed;
use self::gate::{Gate, Gated};
use super::answer::{Answer, Attempt, Trouble};
use super::key::Key;
use super::outgoing::{AccountHeader, Body, Outgoing};
use crate::contract::{Host, Verb};
use crate::domain::limits::{
    STRIPE_ANSWER_BYTES_MAX, STRIPE_IDLE_CONNECTIONS_MAX, STRIPE_IDLE_MS_MAX, STRIPE_MESSAGE_CHARS_MAX,
};
use crate::domain::planted;

const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");
const STRIPE_ACCOUNT: HeaderName = HeaderName::from_static("stripe-account");
const STRIPE_CONTEXT: HeaderName = HeaderName::from_static("stripe-context");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Not a URL, or one with more than scheme, host and port.
    #[error("`{0}` is not a base address such as `https://api.stripe.com`")]
    Address(String),
    /// The key would cross a network in the clear.
    #[error("`{0}` is not encrypted: plain `http` is for loopback addresses only")]
    Unencrypted(String),
    /// The extra certificates cannot be read.
    #[error("the extra certificate authorities are not PEM certificates")]
    Roots,
    /// There is no key, or there are keys of both modes.
    #[error("an account needs at least one key, and all of its keys must be of its mode")]
    Keys,
    /// The machine has no usable certificate authorities, or the library refuses its settings.
    #[error("no HTTP client can be set up; are the system's certificate authorities installed?")]
    Library,
}

/// What a transport is built from.
pub(super) struct Settings<'a> {
    pub(super) api_base: &'a str,
    pub(super) files_base: &'a str,
    pub(super) extra_roots_pem: Option<&'a [u8]>,
    pub(super) attempt_timeout: Duration,
    pub(super) connect_timeout: Duration,
}

/// A pool of connections to Stripe's hosts.
pub(super) struct Transport {
    http: reqwest::Client,
    api: Base,
    files: Base,
    attempt_timeout: Duration,
}

impl fmt::Debug for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Transport")
            .field("api", &self.api)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) fn new(settings: &Settings<'_>) -> Result<Self, SetupError> {
        let (api, files) = (Base::parse(settings.api_base)?, Base::parse(settings.files_base)?);
        // An earlier provider, set by whoever embeds the gateway, stays.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(settings.connect_timeout)
            .pool_idle_timeout(Duration::from_millis(STRIPE_IDLE_MS_MAX))
            .pool_max_idle_per_host(STRIPE_IDLE_CONNECTIONS_MAX)
            .tcp_nodelay(true)
            .http1_only()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        if !api.is_encrypted() && !files.is_encrypted() {
            // Without TLS, a machine without certificate authorities will do.
            http = http.tls_certs_only([]);
        } else if let Some(pem) = settings.extra_roots_pem {
            let roots = Certificate::from_pem_bundle(pem).map_err(|_| SetupError::Roots)?;
            if roots.is_empty() {
                return Err(SetupError::Roots);
            }
            http = http.tls_certs_merge(roots);
        }
        let http = http.build().map_err(|_| SetupError::Library)?;
        Ok(Self { http, api, files, attempt_timeout: settings.attempt_timeout })
    }

    /// Host and port, as traces name them.
    pub(super) fn server(&self, host: Host) -> (&str, u16) {
        self.base(host).server()
    }

    /// Sends once under `key` and reads the whole answer, within the time of one attempt. `allowed` is asked when the connection
    /// stands and the request is about to be written.
    pub(super) async fn exchange(&self, outgoing: &Outgoing, key: &Key, allowed: Allowed) -> Attempt {
        let gate = Gate::new(allowed);
        let Some(request) = self.request(outgoing, key, &gate) else {
            return Attempt::NotSent(Trouble::Unsendable);
        };
        let exchange = async {
            planted::point("attempt-before");
            match self.http.execute(request).await {
                Ok(response) => {
                    planted::point("attempt-headers");
                    read(response).await
                }
                Err(error) => trouble::while_sending(&error),
            }
        };
        // Connecting has a shorter limit of its own, so that this one means that something was sent.
        match tokio::time::timeout(self.attempt_timeout, exchange).await {
            Ok(Attempt::Broken(_)) | Err(_) if gate.has_refused() => Attempt::NotSent(Trouble::Deadline),
            Ok(attempt) => attempt,
            Err(_) => Attempt::Broken(Trouble::Timeout),
        }
    }

    fn base(&self, host: Host) -> &Base {
        match host {
            Host::Api => &self.api,
            Host::Files => &self.files,
        }
    }

    /// `None` when HTTP has no way to say it.
    fn request(&self, outgoing: &Outgoing, key: &Key, gate: &Gate) -> Option<Request> {
        let url: Url = self.base(outgoing.host).join(&outgoing.path, &outgoing.query)?;
        let (method, idempotency_key) = match outgoing.verb {
            Verb::Get => (Method::GET, None),
            // Without a key, a second attempt could be a second effect.
            Verb::Post => (Method::POST, Some(outgoing.idempotency_key.as_deref()?)),
            Verb::Delete => (Method::DELETE, None),
        };
        let mut request = Request::new(method, url);
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, key.authorization()?);
        headers.insert(STRIPE_VERSION, outgoing.version.parse().ok()?);
        match &outgoing.account {
            AccountHeader::None => None,
            AccountHeader::StripeAccount(id) => headers.insert(STRIPE_ACCOUNT, id.parse().ok()?),
            AccountHeader::StripeContext(path) => headers.insert(STRIPE_CONTEXT, path.parse().ok()?),
        };
        if let Some(idempotency_key) = idempotency_key {
            headers.insert(IDEMPOTENCY_KEY, idempotency_key.parse().ok()?);
        }
        let (content_type, bytes) = match &outgoing.body {
            Body::Empty => (None, Bytes::new()),
            Body::Form(text) => {
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                (Some(form), Bytes::from(text.clone()))
            }
            Body::Multipart { bytes, .. } if bytes.is_empty() => return None,
            Body::Multipart { boundary, bytes } => {
                (Some(format!("multipart/form-data; boundary={boundary}").parse().ok()?), bytes.clone())
            }
        };
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        *request.body_mut() = Some(reqwest::Body::wrap(Gated::new(bytes, gate.clone())));
        Some(request)
    }
}

/// Reads the answer to its end; half an answer is none.
async fn read(mut response: Response) -> Attempt {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > STRIPE_ANSWER_BYTES_MAX => {
                return Attempt::Broken(Trouble::TooLarge);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Attempt::Broken(trouble::while_reading(&error)),
        }
    }
    let headers = response.headers();
    if let Some(notice) = text(headers, "stripe-notice") {
        let notice: String = notice.chars().take(STRIPE_MESSAGE_CHARS_MAX).collect();
        tracing::warn!(notice, "notice from Stripe");
    }
    Attempt::Answered(Answer {
        status: response.status().as_u16(),
        request_id: text(headers, "request-id").map(str::to_owned),
        replayed: flag(headers, "idempotent-replayed") == Some(true),
        should_retry: flag(headers, "stripe-should-retry"),
        rate_limited_reason: text(headers, "stripe-rate-limited-reason").map(str::to_owned),
        retry_after: text(headers, RETRY_AFTER.as_str())
            .and_then(|text| text.parse().ok())
            .map(Duration::from_secs),
        date_s: text(headers, DATE.as_str()).and_then(unix_s),
        body: body.freeze(),
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Seconds since the Unix epoch of a date as HTTP writes it (RFC 9110, section 5.6.7).
fn unix_s(date: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

fn flag(headers: &HeaderMap, name: &str) -> Option<bool> {
    text(headers, name)?.to_ascii_lowercase().parse().ok()
}
