//! Sockets: accepts connections, reads whole requests, writes answers, or closes and resets when a fault says so. It must
//! not know what requests mean.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::accounts::Accounts;
use super::pipeline::{self, Asked, Reply};
use super::{Shared, control};

/// Largest request body: a file upload and its envelope.
const REQUEST_BODY_BYTES_MAX: usize = 24 * 1024 * 1024;

/// How often due changes are looked for; the clock may be one that is moved by hand.
const SETTLE_EVERY: Duration = Duration::from_millis(50);

/// Time for the first half of a broken answer to leave before the connection closes.
const HALF_BODY_PAUSE: Duration = Duration::from_millis(20);

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection closed on purpose")]
pub(super) struct Disconnect {
    /// With a TCP reset and not in order.
    pub(super) reset: bool,
}

/// Accepts connections until told to stop, then cuts those still open.
pub(super) async fn serve(listener: TcpListener, accounts: Accounts, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => if let Ok((stream, peer)) = accepted {
                connections.spawn(connection(stream, peer, accounts.clone()));
            },
        }
    }
    connections.shutdown().await;
}

/// Carries out scheduled changes as their time comes, until told to stop.
pub(super) async fn settle(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(SETTLE_EVERY) => shared.state().settle_due(),
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, accounts: Accounts) {
    // Answers are small and latency counts; a platform without the option serves all the same.
    drop(stream.set_nodelay(true));
    let reset = Arc::new(AtomicBool::new(false));
    let line = Line { stream, reset: Arc::clone(&reset) };
    let service = service_fn(move |request| {
        let (accounts, reset) = (accounts.clone(), Arc::clone(&reset));
        async move {
            let answered = respond(request, peer, accounts).await;
            if let Err(Disconnect { reset: true }) = answered {
                reset.store(true, Ordering::Release);
            }
            answered
        }
    });
    // What ends a connection is the client's business or a fault asked for; neither is the sandbox's error.
    drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(line), service).await);
}

async fn respond(
    request: Request<Incoming>,
    peer: SocketAddr,
    accounts: Accounts,
) -> Result<Response<Body>, Disconnect> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, REQUEST_BODY_BYTES_MAX).collect().await else {
        return Err(Disconnect { reset: false });
    };
    let asked = Asked {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    if asked.path.starts_with(control::PREFIX) {
        return Ok(response(control::answer(accounts.own(), &asked, peer.ip())));
    }
    let shared = match accounts.asked(&asked) {
        Ok(shared) => Arc::clone(shared),
        Err(refusal) => return Ok(response(pipeline::turned_away(accounts.own(), &refusal))),
    };
    // A task of its own: like the real service, the sandbox goes on when the caller hangs up.
    match tokio::spawn(pipeline::answer(shared, asked)).await {
        Ok(answered) => answered.map(response),
        Err(_) => Err(Disconnect { reset: false }),
    }
}

fn response(reply: Reply) -> Response<Body> {
    let length = reply.body.len();
    let body = if reply.half { half(reply.body) } else { Body::from(reply.body) };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

/// A body that ends in the middle: its announced length never arrives.
fn half(body: Bytes) -> Body {
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        // A receiver that is gone has closed the connection already.
        drop(send.send(Ok(body.slice(..body.len() / 2))).await);
        tokio::time::sleep(HALF_BODY_PAUSE).await;
        drop(send.send(Err(io::Error::from(io::ErrorKind::ConnectionAborted))).await);
    });
    Body::from_stream(ReceiverStream::new(receive))
}

/// A TCP stream that can end in a reset.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Acquire) {
            // Closing with unsent data discarded is what makes the kernel send a reset.
            drop(self.stream.set_zero_linger());
        }
    }
}
