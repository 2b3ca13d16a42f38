//! The listeners' accept loop: a cap on connections, explicit limits, and a graceful end. What is served is not its
//! business.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::domain::drain::Drain;
use crate::domain::limits::{
    CONNECTIONS_MAX, HEADER_LIST_BYTES_MAX, LOCAL_ERROR_RESETS_MAX, STREAMS_PER_CONNECTION_MAX,
};
use crate::grpc::Peer;

/// A connection that is silent this long is asked for a sign of life.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long the sign of life may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 flow-control window of a stream and of a connection, in bytes.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Largest HTTP/2 frame, in bytes; large frames are what makes many events cheap to send.
const FRAME_BYTES_MAX: u32 = 64 * 1024;
/// Pause after a failed accept, when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection may take to say its first word, and a request of HTTP/1.1 its headers.
const FIRST_WORD_TIMEOUT: Duration = Duration::from_secs(10);

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, for webhooks and probes.
    Http1,
    /// HTTP/2, for gRPC.
    Http2,
}

/// Serves `router` on `listener` until the drain begins, then lets open calls finish for at most `grace`.
pub(super) async fn serve(
    listener: TcpListener,
    protocol: Protocol,
    router: axum::Router,
    drain: Drain,
    grace: Duration,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = drain.begun() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let router = router
                    .clone()
                    .layer(axum::Extension(Peer { address: peer.ip().to_string(), certificate: None }));
                let drain = drain.clone();
                connections.spawn(async move {
                    connection(stream, protocol, router, drain).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, finish).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections were cut at the end of the grace period"
        );
    }
}

async fn connection(stream: TcpStream, protocol: Protocol, router: axum::Router, drain: Drain) {
    // Without it, small answers wait for the peer's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    // Whoever connects and stays silent holds a place that others need.
    let mut first = [0];
    let spoken = tokio::select! {
        spoken = tokio::time::timeout(FIRST_WORD_TIMEOUT, stream.peek(&mut first)) => spoken,
        () = drain.begun() => return,
    };
    if !matches!(spoken, Ok(Ok(1..))) {
        return;
    }
    let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(router));
    let ended = match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            let builder = builder.timer(TokioTimer::new()).header_read_timeout(FIRST_WORD_TIMEOUT);
            let mut connection = std::pin::pin!(builder.serve_connection(io, service));
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = drain.begun() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        Protocol::Http2 => {
            let mut connection = std::pin::pin!(http2().serve_connection(io, service));
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = drain.begun() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// HTTP/2 with every limit spelled out.
fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_local_error_reset_streams(LOCAL_ERROR_RESETS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}
