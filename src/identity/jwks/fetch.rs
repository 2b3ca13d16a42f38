//! Fetches an issuer's keys over HTTP, once and within limits; when to, and what to make of them, is decided elsewhere.

use std::time::Duration;

use reqwest::{Client, StatusCode, redirect};

use crate::domain::limits::{JWKS_BYTES_MAX, JWKS_FETCH_MS_MAX};

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No connection, no TLS that can be trusted, or no answer in time.
    #[error("there was no answer")]
    NoAnswer,
    /// Any other status than 200; redirections are not followed, because the configuration names the place to trust.
    #[error("the answer has status {0}")]
    Status(StatusCode),
    /// More than a key set needs.
    #[error("the answer is larger than {JWKS_BYTES_MAX} bytes")]
    TooLarge,
}

/// A client for one URL.
#[derive(Debug)]
pub(super) struct Fetch {
    url: String,
    http: Client,
}

impl Fetch {
    /// A client, with the system's certificate authorities where the URL is encrypted.
    pub(super) fn new(url: &str) -> Result<Self, reqwest::Error> {
        // An earlier provider, set by whoever embeds the gateway, stays.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut http = Client::builder()
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .timeout(Duration::from_millis(JWKS_FETCH_MS_MAX))
            .pool_max_idle_per_host(0)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        if url.starts_with("http://") {
            http = http.tls_certs_only([]);
        }
        Ok(Self { url: url.to_owned(), http: http.build()? })
    }

    /// Where the keys are.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The answer's body.
    pub(super) async fn get(&self) -> Result<Vec<u8>, Error> {
        let sent = self.http.get(&self.url).header("accept", "application/json").send().await;
        let mut answer = sent.map_err(|_| Error::NoAnswer)?;
        if answer.status() != StatusCode::OK {
            return Err(Error::Status(answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| Error::NoAnswer)? {
            body.extend_from_slice(&chunk);
            if body.len() > JWKS_BYTES_MAX {
                return Err(Error::TooLarge);
            }
        }
        Ok(body)
    }
}
