//! What peers may do to the gRPC port, frame by frame over bare TCP: the offender is cut off, and others are served on.

mod attacker;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tollgate::domain::limits::CONNECTIONS_PER_ADDRESS_MAX;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use self::attacker::{
    Attacker, CONTINUATION, END_HEADERS, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, call_headers, frame, literal,
};
use crate::rig::{Rig, connect, sample, until};

/// More of anything than a peer that is not cut off gets away with.
const ATTEMPTS: u32 = 50_000;

/// That the gateway serves a newcomer.
async fn assert_serves(rig: &Rig) {
    let mut health = HealthClient::new(connect(rig.gateway.grpc).await);
    let answer = health.check(HealthCheckRequest::default()).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// How many connections of gRPC were cut for this reason.
async fn cut(rig: &Rig, reason: &str) -> f64 {
    let mut page = String::new();
    let mut stream = TcpStream::connect(rig.gateway.ops).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    stream.read_to_string(&mut page).await.unwrap();
    let labels = format!("tollgate_port=\"grpc\",tollgate_reason=\"{reason}\"");
    sample(&page, "tollgate_connections_cut_total", &labels).unwrap_or_default()
}

/// That a connection on which this is sent again and again is cut, for that reason.
async fn assert_cut(rig: &Rig, what: &str, reason: &str, bytes: impl Fn(u32) -> Vec<u8>) {
    let before = cut(rig, reason).await;
    let mut attacker = Attacker::connect(rig.gateway.grpc).await;
    for attempt in 0..ATTEMPTS {
        if attacker.send(&bytes(attempt)).await.is_err() {
            break;
        }
    }
    attacker.until_cut().await;
    until(async || (cut(rig, reason).await > before).then_some(())).await;
    println!("{what}: cut as {reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_control_frames_without_end_is_cut_off() {
    let rig = Rig::start().await;
    let known = rig.channel();
    for (what, bytes) in [
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("priorities", frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 1])),
        ("unknown frames", frame(0x55, 0, 0, &[])),
    ] {
        assert_cut(&rig, what, "flood", |_| bytes.clone()).await;
    }
    assert_serves(&rig).await;
    // The connection of somebody else stood all the while.
    assert!(HealthClient::new(known).check(HealthCheckRequest::default()).await.is_ok());
    rig.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_resets_streams_without_end_is_cut_off() {
    let rig = Rig::start().await;
    let headers = call_headers("/grpc.health.v1.Health/Check");
    let mut attacker = Attacker::connect(rig.gateway.grpc).await;
    for attempt in 0..ATTEMPTS {
        let stream = 2 * attempt + 1;
        let mut bytes = frame(HEADERS, END_HEADERS, stream, &headers);
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        if attacker.send(&bytes).await.is_err() {
            break;
        }
    }
    // The library and the watch over frames both know this; whichever comes first.
    attacker.until_cut().await;
    until(async || (cut(&rig, "flood").await + cut(&rig, "protocol").await > 0.0).then_some(())).await;
    assert_serves(&rig).await;
    rig.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_headers_that_make_no_sense_is_cut_off() {
    let rig = Rig::start().await;
    let no_method = literal("x", "y");
    assert_cut(&rig, "malformed headers", "protocol", |attempt| {
        frame(HEADERS, END_HEADERS, 2 * attempt + 1, &no_method)
    })
    .await;
    assert_cut(&rig, "headers that cannot be decoded", "protocol", |attempt| {
        frame(HEADERS, END_HEADERS, 2 * attempt + 1, &[0xff; 16])
    })
    .await;
    let more = literal("x", &"y".repeat(100));
    assert_cut(&rig, "headers without end", "protocol", |attempt| match attempt {
        0 => frame(HEADERS, 0, 1, &call_headers("/grpc.health.v1.Health/Check")),
        _ => frame(CONTINUATION, 0, 1, &more),
    })
    .await;
    assert_serves(&rig).await;
    rig.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_begin_is_cut_off() {
    let rig = Rig::start().await;
    let address = rig.gateway.grpc;
    // At once, as soon as it is clear.
    for opening in [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), vec![0x16, 3, 1, 2, 0, 1], vec![0; 64]] {
        let attacker = Attacker::say(address, &opening).await;
        attacker.until_cut().await;
    }
    until(async || (cut(&rig, "protocol").await >= 3.0).then_some(())).await;
    // In the end, if nothing comes.
    let half = PREFACE.get(..20).unwrap();
    let (silent, slow, without_settings) = tokio::join!(
        Attacker::say(address, b""),
        Attacker::say(address, half),
        Attacker::say(address, PREFACE),
    );
    tokio::join!(silent.until_cut(), slow.until_cut(), without_settings.until_cut());
    until(async || (cut(&rig, "slow").await >= 3.0).then_some(())).await;
    assert_serves(&rig).await;
    rig.gateway.stop().await;
}

/// Connects from this address of the machine itself.
async fn connect_from(source: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    socket.connect(to).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_of_one_address_leave_room_for_others() {
    let rig = Rig::start().await;
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        // Whoever is refused may see that already here.
        if let Ok(stream) = connect_from([127, 0, 0, 66], rig.gateway.grpc).await {
            idle.push(stream);
        }
    }
    let refused = f64::from(10_000 - u32::try_from(CONNECTIONS_PER_ADDRESS_MAX).unwrap());
    until(async || (cut(&rig, "address").await >= refused).then_some(())).await;
    assert_serves(&rig).await;
    rig.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_full_house_the_unused_make_room() {
    let rig = Rig::start_with(|config| config.listen.connections_max = 8).await;
    let mut first = connect_from([127, 0, 0, 66], rig.gateway.grpc).await.unwrap();
    let mut others = Vec::new();
    for last in 1..=20 {
        others.push(connect_from([127, 0, 0, 66 + last], rig.gateway.grpc).await.unwrap());
        assert_serves(&rig).await;
    }
    let ended = tokio::time::timeout(Duration::from_secs(30), first.read_u8()).await.unwrap();
    assert!(ended.is_err(), "it was the longest without a call");
    assert!(cut(&rig, "crowded").await > 0.0);
    rig.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_only_watches_health_cannot_lock_others_out() {
    let rig = Rig::start_with(|config| config.listen.connections_max = 8).await;
    let mut watches = Vec::new();
    for _ in 0..8 {
        let mut health = HealthClient::new(connect(rig.gateway.grpc).await);
        let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert!(watch.message().await.unwrap().is_some());
        watches.push((health, watch));
    }
    assert_serves(&rig).await;
    until(async || (cut(&rig, "crowded").await > 0.0).then_some(())).await;
    assert_eq!(cut(&rig, "full").await, 0.0);
    rig.gateway.stop().await;
}

#[tokio::test]
async fn strangers_cannot_send_large_messages() {
    let rig = Rig::start().await;
    let mut health = HealthClient::new(rig.channel());
    let request = HealthCheckRequest { service: "x".repeat(10_000) };
    let refused = health.check(request).await.unwrap_err();
    assert!([Code::OutOfRange, Code::InvalidArgument].contains(&refused.code()), "{refused}");
    rig.gateway.stop().await;
}
