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
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
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
use crate::identity::{Stranger, certificate};
use crate::server::tls::Material;
use crate::telemetry::names::Cut;

/// HTTP/2 flow-control window of a stream and of a connection, in bytes.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Largest HTTP/2 frame, in bytes; large frames are what makes many events cheap to send.
const FRAME_BYTES_MAX: u32 = 64 * 1024;
/// Largest headers of a request of HTTP/1.1, in bytes.
const HTTP1_HEADERS_BYTES_MAX: usize = 32 * 1024;

/// The certificates that a peer presented, and news of what vouches for them.
struct Vouched {
    chain: Vec<CertificateDer<'static>>,
    changes: Option<watch::Receiver<Arc<Material>>>,
}

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
        let nobody = Vouched { chain: Vec::new(), changes: None };
        return protocol(stream, address, nobody, opened_by, place, serving).await;
    };
    // What is replaced from here on is news, be it in the middle of the handshake.
    let mut changes = tls.changes();
    let material = Arc::clone(&changes.borrow_and_update());
    let config = match serving.protocol() {
        Protocol::Http1 => material.http(),
        Protocol::Http2 => material.grpc(),
    };
    let stream = tokio::select! {
        accepted = TlsAcceptor::from(config).accept(stream) => match accepted {
            Err(error) => {
                tracing::debug!(%error, %address, "a TLS handshake failed");
                count_refused(&error, address, serving);
                return Err(Cut::Handshake);
            }
            Ok(stream) => stream,
        },
        late = late(opened_by, serving) => return late,
        () = place.taken() => return Err(Cut::Crowded),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let changes = Some(changes).filter(|_| !chain.is_empty());
    protocol(stream, address, Vouched { chain, changes }, opened_by, place, serving).await
}

/// Waits until a connection had to stand. One that comes while the gateway goes has a moment: with its first words it may
/// have sent a call, and only a connection that stands can say whether that is taken.
async fn late(opened_by: Instant, serving: &Serving) -> Result<(), Cut> {
    let gone = async {
        serving.drain.begun().await;
        sleep(serving.times.ending).await;
    };
    tokio::select! {
        () = sleep_until(opened_by) => Err(Cut::Slow),
        () = gone => Ok(()),
    }
}

/// Counts a handshake that failed because of the peer's certificate, as calls by strangers are.
fn count_refused(error: &io::Error, address: SocketAddr, serving: &Serving) {
    let cause = match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Stranger::RefusedCertificate,
        Some(rustls::Error::NoCertificatesPresented) => Stranger::Missing,
        _ => return,
    };
    serving.strangers.count(cause.as_str(), "", &address.ip().to_string());
    serving.metrics.stranger(cause.as_str());
}

async fn protocol<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    address: SocketAddr,
    vouched: Vouched,
    opened_by: Instant,
    place: Arc<Place>,
    serving: &Serving,
) -> Result<(), Cut> {
    let peer = Peer { address: address.ip().to_string(), certificate: names(&vouched.chain, address) };
    let contract_only = serving.protocol() == Protocol::Http2;
    let arrival = contract_only.then_some(serving.times.request);
    let (router, in_place) = (serving.router.clone(), Arc::clone(&place));
    let calls = Calls { router, peer, place: in_place, contract_only, arrival };
    match serving.protocol() {
        Protocol::Http1 => {
            let connection = http1(serving.times).serve_connection(TokioIo::new(stream), calls);
            run(connection, vouched, None, &place, serving).await
        }
        Protocol::Http2 => {
            let stream = tokio::select! {
                opened = Metered::open(stream) => match opened {
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(Cut::Protocol),
                    Err(_) => return Ok(()),
                    Ok(stream) => stream,
                },
                late = late(opened_by, serving) => return late,
                () = place.taken() => return Err(Cut::Crowded),
            };
            let flooded = stream.flooded();
            let age = Instant::now() + jittered(serving.times.age);
            let connection = http2(serving.times).serve_connection(TokioIo::new(stream), calls);
            let ended = run(connection, vouched, Some(age), &place, serving).await;
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
/// cut when its certificate is not vouched for any more, or when it is old and not in use.
async fn run(
    connection: impl GracefulConnection<Error = hyper::Error>,
    Vouched { chain, mut changes }: Vouched,
    age: Option<Instant>,
    place: &Place,
    serving: &Serving,
) -> Result<(), Cut> {
    let mut connection = pin!(connection);
    let (mut leaving, mut ending, mut gone_by, mut unused_by) = (false, false, None, None);
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
            () = serving.drain.begun(), if !ending => {
                (leaving, ending) = (true, true);
                unused_by = Some(Instant::now() + serving.times.ending);
            }
            () = at(age), if !leaving => {
                leaving = true;
                unused_by = Some(Instant::now() + serving.times.lingering);
            }
            () = at(unused_by) => {
                if !place.is_in_use() {
                    return if ending { Ok(()) } else { Err(Cut::Old) };
                }
                let again = if ending { serving.times.ending } else { serving.times.lingering };
                unused_by = Some(Instant::now() + again);
                continue;
            }
            () = place.taken(), if gone_by.is_none() => {
                leaving = true;
                gone_by = Some(Instant::now() + serving.times.leaving);
            }
            () = at(gone_by) => return Err(Cut::Crowded),
            is_there = changed => {
                match &mut changes {
                    Some(changes) if is_there => {
                        if !changes.borrow_and_update().vouches_for(&chain) {
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
fn http2(times: Times) -> http2::Builder<TokioExecutor> {
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
        .keep_alive_interval(times.silence)
        .keep_alive_timeout(times.sign_of_life);
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
