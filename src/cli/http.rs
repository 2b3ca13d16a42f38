//! A minimal HTTP client for the sandbox's plain HTTP; the gateway's way to Stripe is another.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::failure::Failure;

/// A request to the sandbox at `base` (`http://host:port`); answers the JSON, or the text that is none, whatever the
/// status.
pub(super) async fn ask(
    base: &str,
    method: &str,
    path: &str,
    key: Option<&str>,
    form: &str,
) -> Result<(StatusCode, Value), Failure> {
    let authority = base.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let gone =
        |error: &dyn std::fmt::Display| Failure::Unreachable(format!("no sandbox at `{base}`: {error}"));
    let stream = TcpStream::connect(&authority).await.map_err(|error| gone(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| gone(&error))?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, &authority);
    if !form.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    if let Some(key) = key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    let request = request
        .body(Full::new(Bytes::from(form.to_owned())))
        .map_err(|error| Failure::Data(format!("cannot ask the sandbox that: {error}")))?;
    let response = sender.send_request(request).await.map_err(|error| gone(&error))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| gone(&error))?.to_bytes();
    driver.abort();
    Ok((status, serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into())))
}
