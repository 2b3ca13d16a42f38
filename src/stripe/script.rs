//! A server for tests that follows a script: one connection, one request and one reply at a time. It knows no Stripe.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Client, Key, Options};
use crate::domain::operation::Mode;

/// What the server does once it has read a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// Writes this and closes.
    Bytes(Vec<u8>),
    /// Writes nothing and keeps the connection open until the test ends.
    Silence,
}

/// A reply with its length in the header, and further header lines.
pub(super) fn reply(status: u16, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{headers}connection: close\r\n\r\n{body}"
    );
    Reply::Bytes(text.into_bytes())
}

/// The server; it listens until its script is at its end.
pub(super) struct Script {
    pub(super) address: SocketAddr,
    requests: JoinHandle<Vec<String>>,
}

impl Script {
    pub(super) async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, requests: tokio::spawn(follow(listener, replies)) }
    }

    /// Options of a client that talks to this server.
    pub(super) fn options(&self, scheme: &str) -> Options {
        let base = format!("{scheme}://{}", self.address);
        let key = Key::parse("sk_test_scripted".into()).unwrap();
        Options { api_base: base.clone(), files_base: base, ..Options::new(Mode::Test, key) }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.options("http")).unwrap()
    }

    /// Every request, once the whole script was played.
    pub(super) async fn requests(self) -> Vec<String> {
        self.requests.await.unwrap()
    }
}

async fn follow(listener: TcpListener, replies: Vec<Reply>) -> Vec<String> {
    let (mut requests, mut open) = (Vec::new(), Vec::new());
    for reply in replies {
        let (mut stream, _) = listener.accept().await.unwrap();
        requests.push(request(&mut stream).await);
        match reply {
            // The client may be gone before a long reply is written.
            Reply::Bytes(bytes) => drop(stream.write_all(&bytes).await),
            Reply::Silence => open.push(stream),
        }
    }
    requests
}

/// Reads one request, as far as its content length says; what is not HTTP is read once.
async fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.unwrap() > 0 {
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if text.is_ascii() {
                continue;
            }
            break;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
