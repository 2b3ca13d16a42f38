//! One connection from its first byte to its last: TLS, the protocol with every limit spelled out, and its leave-taking.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::calls::Calls;
use super::meter::Metered;
use super::places::Place;
use super::{Protocol, Serving, Times};
use crate::domain::caller::PeerNames;
use crate::domain::limits::{
    HEADER_LIST_BYTES_MAX, LOCAL_ERROR_RESETS_MAX, PENDING_RESETS_MAX, SEND_BUFFER_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX,
};
use crate::grpc::Peer;
use crate::identity::certificate;
use crate::telemetry::names::Cut;

/// A connection that is silent this long is asked for a sign of life.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long the sign of life may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 flow-control window of a stream and of a connection, in bytes.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Largest HTTP/2 frame, in bytes; large frames are what makes many events cheap to send.
const FRAME_BYTES_MAX: u32 = 64 * 1024;
/// Largest headers of a request of HTTP/1.1, in bytes.
const HTTP1_HEADERS_BYTES_MAX: usize = 32 * 1024;

/// Serves a connection until it ends, and says if it had to be cut.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
    serving: &Serving,
) -> Result<(), Cut> {
    // Without it, small answers wait for the peer's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let opened_by = Instant::now() + serving.times.opening;
    let place = Arc::new(place);
    let Some(tls) = &serving.tls else {
        return protocol(stream, address, Vec::new(), opened_by, place, serving).await;
    };
    let material = tls.current();
    let config = match serving.protocol() {
        Protocol::Http1 => material.http(),
        Protocol::Http2 => material.grpc(),
    };
    let handshake = timeout_at(opened_by, TlsAcceptor::from(config).accept(stream));
    let stream = tokio::select! {
        accepted = handshake => match accepted {
            Err(_) => return Err(Cut::Slow),
            Ok(Err(error)) => {
                tracing::debug!(%error, %address, "a TLS handshake failed");
                return Err(Cut::Handshake);
            }
            Ok(Ok(stream)) => stream,
        },
        () = serving.drain.begun() => return Ok(()),
        () = place.taken() => return Err(Cut::Crowded),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    protocol(stream, address, chain, opened_by, place, serving).await
}

async fn protocol<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    address: SocketAddr,
    chain: Vec<CertificateDer<'static>>,
    opened_by: Instant,
    place: Arc<Place>,
    serving: &Serving,
) -> Result<(), Cut> {
    let peer = Peer { address: address.ip().to_string(), certificate: names(&chain, address) };
    let arrival = (serving.protocol() == Protocol::Http2).then_some(serving.times.request);
    let calls = Calls { router: serving.router.clone(), peer, place: Arc::clone(&place), arrival };
    match serving.protocol() {
        Protocol::Http1 => {
            let connection = http1(serving.times).serve_connection(TokioIo::new(stream), calls);
            run(connection, &chain, None, &place, serving).await
        }
        Protocol::Http2 => {
            let stream = tokio::select! {
                opened = timeout_at(opened_by, Metered::open(stream)) => match opened {
                    Err(_) => return Err(Cut::Slow),
                    Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return Err(Cut::Protocol),
                    Ok(Err(_)) => return Ok(()),
                    Ok(Ok(stream)) => stream,
                },
                () = serving.drain.begun() => return Ok(()),
                () = place.taken() => return Err(Cut::Crowded),
            };
            let flooded = stream.flooded();
            let age = Instant::now() + jittered(serving.times.age);
            let connection = http2().serve_connection(TokioIo::new(stream), calls);
            let ended = run(connection, &chain, Some(age), &place, serving).await;
            if flooded.load(Ordering::Relaxed) { Err(Cut::Flood) } else { ended }
        }
    }
}

/// The names that the peer may go by, if it presented a certificate.
fn names(chain: &[CertificateDer<'static>], address: SocketAddr) -> Option<Arc<PeerNames>> {
    let names = certificate::names(chain.first()?);
    Some(Arc::new(names.unwrap_or_else(|error| {
        tracing::debug!(%error, %address, "a client certificate names nobody");
        PeerNames::default()
    })))
}

/// Drives a connection. It is asked to leave when the gateway ends, when it is old and when another needs its place, and
/// cut when its certificate is not vouched for any more.
async fn run(
    connection: impl GracefulConnection<Error = hyper::Error>,
    chain: &[CertificateDer<'static>],
    age: Option<Instant>,
    place: &Place,
    serving: &Serving,
) -> Result<(), Cut> {
    let mut connection = pin!(connection);
    let mut changes = serving.tls.as_ref().filter(|_| !chain.is_empty()).map(super::Tls::changes);
    let (mut leaving, mut gone_by) = (false, None);
    loop {
        let changed = async {
            match &mut changes {
                Some(changes) => changes.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = connection.as_mut() => return ended.or_else(|error| {
                tracing::debug!(%error, "a connection ended badly");
                cut_by_us(&error).map_or(Ok(()), Err)
            }),
            () = serving.drain.begun(), if !leaving => leaving = true,
            () = at(age), if !leaving => leaving = true,
            () = place.taken(), if gone_by.is_none() => {
                leaving = true;
                gone_by = Some(Instant::now() + serving.times.leaving);
            }
            () = at(gone_by) => return Err(Cut::Crowded),
            is_there = changed => {
                match &mut changes {
                    Some(changes) if is_there => {
                        if !changes.borrow_and_update().vouches_for(chain) {
                            return Err(Cut::Certificate);
                        }
                    }
                    // Whoever replaces it is gone.
                    _ => changes = None,
                }
                continue;
            }
        }
        connection.as_mut().graceful_shutdown();
    }
}

/// Why the library ended a connection, if it was not the peer who left.
fn cut_by_us(error: &hyper::Error) -> Option<Cut> {
    if error.is_timeout() {
        return Some(Cut::Slow);
    }
    let http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    let ours = http2.is_some_and(|error| !error.is_remote() && !error.is_io());
    (ours || error.is_parse()).then_some(Cut::Protocol)
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// A tenth more or less, so that connections that came together do not leave together.
fn jittered(age: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or_default() >> 16;
    age - age / 10 + age / 5 * random / (1 << 16)
}

fn http1(times: Times) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(times.opening).max_buf_size(HTTP1_HEADERS_BYTES_MAX);
    builder
}

/// HTTP/2 with every limit spelled out.
fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_local_error_reset_streams(LOCAL_ERROR_RESETS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_grow_about_as_old_as_they_should() {
        let age = Duration::from_secs(900);
        let ages: Vec<_> = (0..100).map(|_| jittered(age)).collect();
        assert!(ages.iter().all(|jittered| age.abs_diff(*jittered) <= age / 10), "{ages:?}");
        assert!(ages.iter().any(|jittered| *jittered < age) && ages.iter().any(|jittered| *jittered > age));
    }
}
