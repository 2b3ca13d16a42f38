//! What operators ask over HTTP: is it alive, is it ready, what has it counted. It shows nothing of calls or settings.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::telemetry::metrics::Metrics;

/// Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats).
const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The format of OpenMetrics, which has exemplars as well; Prometheus asks for it by this name.
const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether new calls are wanted: not before everything has started, and not any more once it is stopping.
/// Beside that, what an operator should look after although calls are served.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    ready: Arc<AtomicBool>,
    concerns: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    /// Says whether new calls are wanted.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Whether new calls are wanted.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Says what is to be looked after about one thing, or that there is nothing any more. Anybody who reaches the port
    /// reads it, but for what it is about.
    pub fn set_concern(&self, about: &str, concern: Option<String>) {
        let mut concerns = self.concerns.lock().unwrap_or_else(PoisonError::into_inner);
        match concern {
            Some(concern) => concerns.insert(about.to_owned(), concern),
            None => concerns.remove(about),
        };
    }

    /// All concerns, a line each.
    fn concerns(&self) -> String {
        let concerns = self.concerns.lock().unwrap_or_else(PoisonError::into_inner);
        concerns.values().map(|concern| format!("{concern}\n")).collect()
    }
}

/// What the routes show.
#[derive(Clone, Debug)]
struct Shown {
    metrics: Metrics,
    readiness: Readiness,
}

/// `/livez` answers as long as the process can; `/readyz` says 503 while no new calls are wanted, and has a further
/// line for each thing that is to be looked after; `/metrics` is for Prometheus.
pub fn router(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
        .with_state(Shown { metrics, readiness })
}

async fn ready(State(state): State<Shown>) -> (StatusCode, String) {
    let (status, word) = match state.readiness.is_ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    };
    (status, word.to_owned() + &state.readiness.concerns())
}

async fn text(State(state): State<Shown>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    let (content_type, text) = match accepted.is_some_and(|accepted| accepted.contains(OPEN_METRICS)) {
        true => (OPEN_METRICS_CONTENT_TYPE, state.metrics.open_metrics()),
        false => (TEXT_CONTENT_TYPE, state.metrics.text()),
    };
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(state: &Shown, path: &str) -> (StatusCode, String) {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = router(state.metrics.clone(), state.readiness.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn it_is_alive_always_and_ready_when_told() {
        let state = Shown { metrics: Metrics::new().unwrap(), readiness: Readiness::default() };
        assert_eq!(ask(&state, "/livez").await.0, StatusCode::OK);
        assert_eq!(ask(&state, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        state.readiness.set_ready(true);
        assert_eq!(ask(&state, "/readyz").await.0, StatusCode::OK);
        state.readiness.set_concern("settings", Some("older settings are in use".to_owned()));
        state.readiness.set_concern("keys", Some("a key is silent".to_owned()));
        let told = (StatusCode::OK, "ready\na key is silent\nolder settings are in use\n".to_owned());
        assert_eq!(ask(&state, "/readyz").await, told);
        state.readiness.set_concern("keys", None);
        state.readiness.set_concern("settings", None);
        assert_eq!(ask(&state, "/readyz").await.1, "ready\n");
        state.readiness.set_ready(false);
        assert_eq!(ask(&state, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn metrics_come_in_the_format_that_is_asked_for() {
        let metrics = Metrics::new().unwrap();
        for (accept, content_type) in [
            ("*/*", TEXT_CONTENT_TYPE),
            // As Prometheus 2.53 asks.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                OPEN_METRICS_CONTENT_TYPE,
            ),
        ] {
            let request = http::Request::get("/metrics").header(header::ACCEPT, accept);
            let request = request.body(axum::body::Body::empty()).unwrap();
            let response = router(metrics.clone(), Readiness::default()).oneshot(request).await.unwrap();
            assert_eq!(response.headers()[header::CONTENT_TYPE], content_type);
        }
    }

    #[tokio::test]
    async fn metrics_are_shown_as_counted() {
        let state = Shown { metrics: Metrics::new().unwrap(), readiness: Readiness::default() };
        state.metrics.unknown_outcome();
        let (status, text) = ask(&state, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            text.contains("tollgate_ledger_unknown_outcomes_total{otel_scope_name=\"tollgate\"} 1"),
            "{text}"
        );
    }
}
