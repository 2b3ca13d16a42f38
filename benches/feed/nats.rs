//! The other side of the comparison: a nats-server of its own for each run, and a lean client that speaks its text
//! protocol (docs.nats.io/reference/reference-protocols/nats-protocol). It measures nothing.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::{Buf as _, Bytes, BytesMut};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::{Process, connect, free_port};

/// Put there by `scripts/tools`.
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/python/bin/nats-server");
/// Bytes read from a connection at a time.
const READ_BYTES: usize = 64 * 1024;
/// The stream that JetStream keeps, and the subject that it takes.
const STREAM: &str = "EVENTS";
pub(crate) const SUBJECT: &str = "events.all";

/// What the server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Core NATS: nothing; who is not connected misses it.
    Nothing,
    /// JetStream in files, as it comes: what it acknowledged may be lost with the power.
    Files,
    /// JetStream in files, with a sync before each acknowledgement (`sync_interval: always`).
    Synced,
}

/// A running server with its data, both gone when it is dropped.
pub(crate) struct Nats {
    pub(crate) process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

/// A connection to it.
pub(crate) struct Connection {
    stream: TcpStream,
    read: BytesMut,
    inbox: String,
}

/// A message that came.
#[derive(Debug)]
pub(crate) struct Message {
    /// Subject that an answer goes to.
    pub(crate) reply: Option<String>,
    /// The headers as they came; empty where there are none.
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
}

impl Nats {
    /// Starts a server that keeps its data below `disk`, with the stream in place where it has one.
    pub(crate) async fn start(disk: &Path, keeps: Keeps) -> Self {
        assert!(Path::new(SERVER).exists(), "{SERVER} is missing; `scripts/tools` puts it there");
        let (folder, address) = (tempfile::tempdir_in(disk).unwrap(), free_port());
        let file = folder.path().join("nats.conf");
        std::fs::write(&file, settings(address, folder.path(), keeps)).unwrap();
        let process = Process::start(Command::new(SERVER).arg("--config").arg(file));
        connect(address).await;
        let nats = Self { process, address, _folder: folder };
        if keeps != Keeps::Nothing {
            let stream = format!(r#"{{"name":"{STREAM}","subjects":["events.>"],"storage":"file"}}"#);
            nats.connect().await.ask(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &stream).await;
        }
        nats
    }

    pub(crate) async fn connect(&self) -> Connection {
        let stream = connect(self.address).await;
        let inbox = format!("_INBOX.{}", stream.local_addr().unwrap().port());
        let mut connection = Connection { stream, read: BytesMut::new(), inbox };
        // The server speaks first.
        connection.line().await;
        let options = r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"lean","version":"1"}"#;
        connection.send(format!("{options}\r\nPING\r\n").as_bytes()).await;
        while connection.line().await != "PONG" {}
        connection
    }
}

fn settings(address: SocketAddr, folder: &Path, keeps: Keeps) -> String {
    let mut text = format!("listen: \"{address}\"\n");
    if keeps != Keeps::Nothing {
        let files: PathBuf = folder.join("files");
        let sync = if keeps == Keeps::Synced { "  sync_interval: always\n" } else { "" };
        write!(text, "jetstream {{\n  store_dir: \"{}\"\n{sync}}}\n", files.display()).unwrap();
    }
    text
}

impl Connection {
    /// Has messages of a subject come to this connection.
    pub(crate) async fn subscribe(&mut self, subject: &str) {
        self.send(format!("SUB {subject} 1\r\nPING\r\n").as_bytes()).await;
        while self.line().await != "PONG" {}
    }

    /// Has the stream's messages, from the next one on, come to this connection, in order and without acknowledgements.
    pub(crate) async fn consume(&mut self) {
        let deliver = format!("{}.deliver", self.inbox);
        let config = format!(
            r#"{{"stream_name":"{STREAM}","config":{{"deliver_subject":"{deliver}","deliver_policy":"new",
            "ack_policy":"none","max_deliver":1,"mem_storage":true,"num_replicas":1,"flow_control":true,
            "idle_heartbeat":5000000000}}}}"#
        );
        // Only this very subject counts as interest in it; the answer comes to it too.
        self.subscribe(&deliver).await;
        self.publish_with(&format!("$JS.API.CONSUMER.CREATE.{STREAM}"), Some(&deliver), &config).await;
        let answer = self.next().await.payload;
        assert!(!answer.windows(7).any(|part| part == b"\"error\""), "{answer:?}");
    }

    /// Sends a message without waiting for anything.
    pub(crate) async fn publish(&mut self, subject: &str, payload: &str) {
        self.publish_with(subject, None, payload).await;
    }

    async fn publish_with(&mut self, subject: &str, reply: Option<&str>, payload: &str) {
        let reply = reply.map(|reply| format!(" {reply}")).unwrap_or_default();
        self.send(format!("PUB {subject}{reply} {}\r\n{payload}\r\n", payload.len()).as_bytes()).await;
    }

    /// Sends a message under an id by which JetStream knows it again; the answer says that it is kept.
    pub(crate) async fn publish_once(&mut self, id: &str, payload: &str) {
        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
        let (inbox, header_bytes) = (&self.inbox, headers.len());
        let all_bytes = header_bytes + payload.len();
        let text = format!("HPUB {SUBJECT} {inbox}.ack {header_bytes} {all_bytes}\r\n{headers}{payload}\r\n");
        self.send(text.as_bytes()).await;
        let answer = self.next().await.payload;
        assert!(answer.windows(5).any(|part| part == b"\"seq\""), "{answer:?}");
    }

    /// Gets ready for the answers of [`Connection::publish_once`].
    pub(crate) async fn await_answers(&mut self) {
        let inbox = format!("{}.>", self.inbox);
        self.subscribe(&inbox).await;
    }

    /// Asks on a subject; the first answer counts.
    async fn ask(&mut self, subject: &str, payload: &str) -> Bytes {
        self.await_answers().await;
        let inbox = format!("{}.answer", self.inbox);
        self.publish_with(subject, Some(&inbox), payload).await;
        let answer = self.next().await.payload;
        assert!(!answer.windows(7).any(|part| part == b"\"error\""), "{answer:?}");
        answer
    }

    /// The next message. Flow control is answered and signs of life are passed over, as every client does.
    pub(crate) async fn next(&mut self) -> Message {
        loop {
            let line = self.line().await;
            let mut words = line.split_ascii_whitespace();
            let message = match words.next() {
                Some("PING") => {
                    self.send(b"PONG\r\n").await;
                    continue;
                }
                Some("MSG") => self.message(words.collect(), false).await,
                Some("HMSG") => self.message(words.collect(), true).await,
                Some("PONG" | "INFO" | "+OK") => continue,
                _ => panic!("nats-server said `{line}`"),
            };
            // A status without a payload: a sign of life, or a question whether the reader keeps up.
            if message.payload.is_empty() && message.headers.starts_with(b"NATS/1.0 100") {
                if let Some(reply) = message.reply {
                    self.publish(&reply, "").await;
                }
                continue;
            }
            return message;
        }
    }

    /// `subject sid [reply] [header bytes] bytes`, and what follows.
    async fn message(&mut self, words: Vec<&str>, headed: bool) -> Message {
        let number = |word: Option<&&str>| word.unwrap().parse::<usize>().unwrap();
        let header_bytes = if headed { number(words.get(words.len() - 2)) } else { 0 };
        let all_bytes = number(words.last());
        let fixed = if headed { 4 } else { 3 };
        let reply = (words.len() > fixed).then(|| words[2].to_owned());
        while self.read.len() < all_bytes + 2 {
            self.fill().await;
        }
        let headers = self.read.split_to(header_bytes).freeze();
        let payload = self.read.split_to(all_bytes - header_bytes).freeze();
        self.read.advance(2);
        Message { reply, headers, payload }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.read.split_to(end);
                self.read.advance(2);
                return String::from_utf8(line.to_vec()).unwrap();
            }
            self.fill().await;
        }
    }

    async fn fill(&mut self) {
        self.read.reserve(READ_BYTES);
        assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "nats-server closed the connection");
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }
}
