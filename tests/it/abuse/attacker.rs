//! A peer that writes HTTP/2 frames by hand (RFC 9113, section 6) and reads whatever comes back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_HEADERS: u8 = 4;

/// Longer than any limit of the gateway, so that a hang becomes a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that is up to no good.
pub(crate) struct Attacker {
    writer: OwnedWriteHalf,
    reader: JoinHandle<()>,
}

impl Attacker {
    /// One that begins as it should.
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::say(to, &[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await
    }

    /// One that begins with these bytes.
    pub(crate) async fn say(to: SocketAddr, opening: &[u8]) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        writer.write_all(opening).await.unwrap();
        let reader = tokio::spawn(async move {
            let mut ignored = vec![0; 64 * 1024];
            while matches!(reader.read(&mut ignored).await, Ok(1..)) {}
        });
        Self { writer, reader }
    }

    /// Sends bytes; an error says that the gateway has had enough.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.reader.is_finished() {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        tokio::time::timeout(PATIENCE, self.writer.write_all(bytes)).await?
    }

    /// Waits until the gateway ends the connection, which this end keeps open.
    pub(crate) async fn until_cut(self) {
        tokio::time::timeout(PATIENCE, self.reader).await.expect("the connection is not cut").unwrap();
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length.to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header that the other end does not keep (RFC 7541, section 6.2.2).
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The headers of a call.
pub(crate) fn call_headers(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "gateway"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}
