//! The end of a call, told once however it comes about: its duration, its failure, its span and its one log line. It
//! changes nothing of the answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tracing::Span;

use super::layer::is_of_contract;
use crate::telemetry::call::{End, Notes};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{RPC_TARGET, context, names};

/// A call that has not ended. Dropped before its end, its caller has left or it has panicked.
#[derive(Debug)]
pub(super) struct Told {
    /// `package.Service/Method`, as the caller wrote it.
    rpc: String,
    started: Instant,
    span: Span,
    notes: Notes,
    metrics: Metrics,
    /// Whether anything is left to be told.
    open: bool,
    /// Whether it is worth a line: a known caller called a method of the contract.
    line: bool,
}

impl Told {
    /// A call that begins now, in a server span by the RPC conventions (opentelemetry.io/docs/specs/semconv/rpc) which is
    /// a child of the caller's.
    pub(super) fn begin<B>(request: &mut Request<B>, metrics: &Metrics) -> Self {
        let path = request.uri().path();
        let (rpc, line) = (path.trim_start_matches('/').to_owned(), is_of_contract(path));
        let method = metrics.method(&rpc);
        let span = tracing::info_span!(
            target: RPC_TARGET,
            "rpc",
            otel.name = method,
            otel.kind = "server",
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.response.status_code = tracing::field::Empty,
            error.type = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        context::adopt(&span, request.headers());
        let notes = Notes::default();
        notes.note(|facts| facts.trace_id = context::trace_id(&span).unwrap_or_default());
        request.extensions_mut().insert(notes.clone());
        Self { rpc, started: Instant::now(), span, notes, metrics: metrics.clone(), open: true, line }
    }

    /// The call's method.
    pub(super) fn rpc(&self) -> &str {
        &self.rpc
    }

    /// The call's span.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Who calls.
    pub(super) fn by(&self, caller: &str) {
        self.notes.note(|facts| caller.clone_into(&mut facts.caller));
    }

    /// Ends without a line, as is right for what anybody can cause as often as they like.
    pub(super) fn quietly(&mut self) {
        self.line = false;
    }

    /// Hands the answer on, and ends with its last byte.
    pub(super) fn answer(mut self, response: Response<Body>) -> Response<Body> {
        if response.headers().contains_key(Status::GRPC_STATUS) {
            self.end_with(response.headers());
            return response;
        }
        response.map(|body| Body::new(Telling { body, told: self }))
    }

    /// Ends with the status in these headers or trailers.
    fn end_with(&mut self, trailers: &HeaderMap) {
        match Status::from_header_map(trailers) {
            Some(status) if status.code() != Code::Ok => {
                let info = status.get_details_error_info();
                self.end(status.code(), info.as_ref().map_or("", |info| &info.reason));
            }
            _ => self.end(Code::Ok, ""),
        }
    }

    fn end(&mut self, code: Code, reason: &str) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let (code, total) = (i32::from(code), self.started.elapsed());
        let status = names::rpc_status(code);
        self.span.record("rpc.response.status_code", status);
        // By the conventions, a caller's mistake is no error of the server.
        if names::is_server_fault(code) {
            self.span.record("error.type", status).record("otel.status_code", "ERROR");
        }
        let _here = self.span.enter();
        self.metrics.rpc(&self.rpc, code, total);
        if code != 0 && is_of_contract(&self.rpc) {
            self.metrics.call_failed(code, reason);
        }
        if self.line {
            self.notes.line(End { rpc: &self.rpc, code: status, reason, total });
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // What panics drops its call too, and no caller has left then.
        let code = if std::thread::panicking() { Code::Internal } else { Code::Cancelled };
        self.end(code, "");
    }
}

/// The body of an answer whose status comes after it.
struct Telling {
    body: Body,
    told: Told,
}

impl http_body::Body for Telling {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.told.end_with(trailers);
                }
            }
            Poll::Ready(Some(Err(_))) => self.told.end(Code::Internal, ""),
            Poll::Ready(None) => self.told.end(Code::Unknown, ""),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_call_that_panics_failed_and_one_that_is_dropped_was_left() {
        let metrics = Metrics::new().unwrap();
        let told = || Told::begin(&mut Request::new(()), &metrics);
        let statuses = || {
            let shown = metrics.text().unwrap();
            ["INTERNAL", "CANCELLED"]
                .map(|code| shown.contains(&format!("rpc_response_status_code=\"{code}\"")))
        };
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _told = told();
            panic!("as a handler may");
        }));
        assert!(panicked.is_err());
        assert_eq!(statuses(), [true, false]);
        drop(told());
        assert_eq!(statuses(), [true, true]);
    }
}
