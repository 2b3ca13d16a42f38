//! The attacks, each until it is cut off.

use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use crate::attacker::{
    Attacker, CONTINUATION, END_HEADERS, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, call_headers, frame,
    literal,
};

/// More of anything than an attacker gets away with.
const FRAMES_MAX: u32 = 50_000;
/// Idle connections that are tried for.
const IDLE: usize = 10_000;
/// Where the idle connections come from, which is not where the callers are.
const SOURCE: [u8; 4] = [127, 0, 0, 66];
const PATH: &str = "/grpc.health.v1.Health/Check";

/// The attack whose turn it is.
pub(crate) async fn one(to: SocketAddr, turn: usize) {
    match turn % 6 {
        0 => flood(to, |_| frame(PING, 0, 0, &[7; 8])).await,
        1 => flood(to, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])).await,
        2 => {
            let headers = call_headers(PATH);
            flood(to, |turn| {
                let stream = 2 * turn + 1;
                let mut bytes = frame(HEADERS, END_HEADERS, stream, &headers);
                bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
                bytes
            })
            .await;
        }
        3 => flood(to, |turn| frame(HEADERS, END_HEADERS, 2 * turn + 1, &literal("x", "y"))).await,
        4 => {
            let more = literal("x", &"y".repeat(100));
            flood(to, |turn| match turn {
                0 => frame(HEADERS, 0, 1, &call_headers(PATH)),
                _ => frame(CONTINUATION, 0, 1, &more),
            })
            .await;
        }
        _ => Attacker::say(to, &PREFACE[..20]).await.until_cut().await,
    }
}

async fn flood(to: SocketAddr, bytes: impl Fn(u32) -> Vec<u8>) {
    let mut attacker = Attacker::connect(to).await;
    for turn in 0..FRAMES_MAX {
        if attacker.send(&bytes(turn)).await.is_err() {
            break;
        }
    }
    attacker.until_cut().await;
}

/// As many idle connections as one address gets.
pub(crate) async fn idle(to: SocketAddr) -> Vec<TcpStream> {
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((SOURCE, 0))).unwrap();
        // Whoever is refused may see that here already.
        if let Ok(stream) = socket.connect(to).await {
            idle.push(stream);
        }
    }
    idle
}
