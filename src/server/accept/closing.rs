//! The end of a listener: whoever is connected by then is accepted, and nobody new gets in. What becomes of a connection is
//! not its business.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::domain::limits::HANDSHAKE_MS_MAX;

/// Closes a listener and hands over whoever has connected until then.
///
/// A kernel resets what waits to be accepted when its listener closes, and whoever has sent a call on it can't know whether it
/// was taken. So new connections are kept out first, those that are half way get the time to stand, and only then, when
/// nothing waits, it closes.
pub(super) async fn close(listener: TcpListener, mut admit: impl FnMut((TcpStream, SocketAddr))) {
    match keep_out(&listener) {
        Ok(()) => {
            let mut stand = pin!(sleep(Duration::from_millis(HANDSHAKE_MS_MAX)));
            loop {
                tokio::select! {
                    Ok(accepted) = listener.accept() => admit(accepted),
                    () = &mut stand => break,
                }
            }
        }
        Err(error) => tracing::debug!(%error, "new connections can't be kept out while the listener closes"),
    }
    let Ok(listener) = listener.into_std() else { return };
    // What the runtime knows of the queue may be old, so the kernel itself is asked.
    loop {
        match listener.accept().and_then(|(stream, address)| Ok((nonblocking(stream)?, address))) {
            Ok(accepted) => admit(accepted),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(_) => break,
        }
    }
}

fn nonblocking(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// From now on the kernel drops each segment that asks for a connection, as if it were lost on the way; its sender asks
/// again within a second or so, and finds another gateway or is refused.
#[cfg(target_os = "linux")]
fn keep_out(listener: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};

    // A classic BPF program, which sees a segment from its TCP header on (RFC 9293, section 3.1): of SYN and ACK in the
    // flags, is only SYN set? Then nothing of it is kept, else all. The codes are those of linux/bpf_common.h.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(target_os = "linux"))]
fn keep_out(_: &TcpListener) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
