//! What operators ask over HTTP: is it alive, is it ready, what has it counted. It shows nothing of calls or settings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::telemetry::metrics::Metrics;

/// Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats).
const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether new calls are wanted: not before everything has started, and not any more once it is stopping.
/// Beside that, what an operator should look after although calls are served.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    ready: Arc<AtomicBool>,
    concern: Arc<Mutex<Option<String>>>,
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

    /// Says what is to be looked after, or that there is nothing any more. Anybody who reaches the port reads it.
    pub fn set_concern(&self, concern: Option<String>) {
        *self.concern.lock().unwrap_or_else(PoisonError::into_inner) = concern;
    }

    fn concern(&self) -> Option<String> {
        self.concern.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the routes show.
#[derive(Clone, Debug)]
struct Shown {
    metrics: Metrics,
    readiness: Readiness,
}

/// `/livez` answers as long as the process can; `/readyz` says 503 while no new calls are wanted, and has a
/// second line while something is to be looked after; `/metrics` is for
/// Prometheus.
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
    let concern = state.readiness.concern().map(|concern| concern + "\n").unwrap_or_default();
    (status, format!("{word}{concern}"))
}

async fn text(State(state): State<Shown>) -> Response {
    match state.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
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
        state.readiness.set_concern(Some("older settings are in use".to_owned()));
        let told = (StatusCode::OK, "ready\nolder settings are in use\n".to_owned());
        assert_eq!(ask(&state, "/readyz").await, told);
        state.readiness.set_ready(false);
        assert_eq!(ask(&state, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
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
