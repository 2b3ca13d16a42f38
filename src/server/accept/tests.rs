//! Connections over plain TCP whose times are short.

use axum::routing::any;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::*;
use crate::domain::drain::Trigger;

const SHORT: Duration = Duration::from_millis(50);
/// How every connection of HTTP/2 begins, and settings without any (RFC 9113, sections 3.4 and 6.5).
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: u8 = 6;
const ACKNOWLEDGED: u8 = 1;
/// Longer than anything here takes, so that a test which would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection on which this is called; the call's answer, and the connection until it ends.
async fn calling(to: SocketAddr, path: &str) -> (h2::client::ResponseFuture, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(async move { drop(connection.await) });
    let request = Request::post(format!("http://gateway{path}")).body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    (answer, connection)
}

#[tokio::test]
async fn an_old_connection_is_cut_unless_a_call_of_the_contract_is_open_on_it() {
    let (release, (trigger, drain)) = (Arc::new(Notify::new()), Drain::channel());
    let released = Arc::clone(&release);
    let held = any(move || async move { released.notified().await });
    let router = axum::Router::new()
        .route("/tollgate.v1.Events/Watch", held)
        .route("/grpc.health.v1.Health/Watch", any(std::future::pending::<()>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Serving {
        port: Port::Grpc,
        tls: None,
        router,
        drain,
        caps: Caps { total: 10, per_address: 10 },
        times: Times { age: SHORT, lingering: SHORT, ..Times::default() },
        strangers: Strangers::default(),
        metrics: Metrics::new().unwrap(),
    };
    let served = tokio::spawn(serve(listener, serving, SHORT));
    let (answer, in_use) = calling(address, "/tollgate.v1.Events/Watch").await;
    let (watched, unused) = calling(address, "/grpc.health.v1.Health/Watch").await;
    unused.await.unwrap();
    assert!(watched.await.is_err());
    // This one is older and yet there.
    assert!(!in_use.is_finished());
    release.notify_one();
    assert_eq!(answer.await.unwrap().status(), 200);
    in_use.await.unwrap();
    trigger.begin();
    served.await.unwrap();
}

/// A peer of a port on which a silent connection is soon asked for a sign of life.
async fn peer() -> (TcpStream, Trigger) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, drain) = Drain::channel();
    let serving = Serving {
        port: Port::Grpc,
        tls: None,
        router: axum::Router::new(),
        drain,
        caps: Caps { total: 9, per_address: 9 },
        times: Times { silence: SHORT, sign_of_life: 4 * SHORT, ..Times::default() },
        strangers: Strangers::default(),
        metrics: Metrics::new().unwrap(),
    };
    tokio::spawn(serve(listener, serving, PATIENCE));
    let mut peer = TcpStream::connect(address).await.unwrap();
    peer.write_all(OPENING).await.unwrap();
    (peer, trigger)
}

/// Type, flags and contents of the next frame; `None` once the gateway has hung up.
async fn frame(peer: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let read = async {
        let mut head = [0; 9];
        peer.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, ..] = head;
        let mut contents = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        peer.read_exact(&mut contents).await.ok()?;
        Some((kind, flags, contents))
    };
    timeout(PATIENCE, read).await.expect("a frame, or the end")
}

#[tokio::test]
async fn a_peer_that_has_vanished_is_noticed_though_its_socket_is_open() {
    let (mut peer, _trigger) = peer().await;
    let mut asked = false;
    while let Some((kind, flags, _)) = frame(&mut peer).await {
        asked |= (kind, flags) == (PING, 0);
    }
    assert!(asked);
}

#[tokio::test]
async fn a_silent_peer_that_gives_signs_of_life_stays() {
    let (mut peer, _trigger) = peer().await;
    let mut signs = 0;
    while signs < 8 {
        let (kind, flags, contents) = frame(&mut peer).await.expect("the connection stays");
        if (kind, flags) == (PING, 0) {
            let head = [0, 0, 8, PING, ACKNOWLEDGED, 0, 0, 0, 0];
            peer.write_all(&[&head[..], &contents].concat()).await.unwrap();
            signs += 1;
        }
    }
}

const GOAWAY: u8 = 7;

/// A port of which everything is short but the patience with its calls, and the word that it is to end.
async fn port(router: axum::Router) -> (SocketAddr, Trigger, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, drain) = Drain::channel();
    let serving = Serving {
        port: Port::Grpc,
        tls: None,
        router,
        drain,
        caps: Caps { total: 100_000, per_address: 100_000 },
        times: Times { ending: 10 * SHORT, ..Times::default() },
        strangers: Strangers::default(),
        metrics: Metrics::new().unwrap(),
    };
    (address, trigger, tokio::spawn(serve(listener, serving, 2 * PATIENCE)))
}

#[tokio::test]
async fn whoever_had_connected_before_the_end_is_told_that_nothing_is_taken_any_more() {
    let (address, trigger, served) = port(axum::Router::new()).await;
    let mut peer = TcpStream::connect(address).await.unwrap();
    trigger.begin();
    peer.write_all(OPENING).await.unwrap();
    let mut told = false;
    while let Some((kind, ..)) = frame(&mut peer).await {
        told |= kind == GOAWAY;
    }
    assert!(told);
    timeout(PATIENCE, served).await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_who_only_connects_or_watches_holds_up_the_end() {
    let watch = any(std::future::pending::<()>);
    let (address, trigger, served) =
        port(axum::Router::new().route("/grpc.health.v1.Health/Watch", watch)).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let (watched, watching) = calling(address, "/grpc.health.v1.Health/Watch").await;
    trigger.begin();
    timeout(PATIENCE, served).await.unwrap().unwrap();
    watching.await.unwrap();
    assert!(watched.await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_connects_while_the_listener_closes_is_reset() {
    for _ in 0..10 {
        let (address, trigger, served) = port(axum::Router::new()).await;
        let (mut peers, end) = (JoinSet::new(), Instant::now() + 4 * SHORT);
        for _ in 0..20 {
            peers.spawn(connect_again_and_again(address, end));
        }
        tokio::time::sleep(SHORT).await;
        trigger.begin();
        let connected: usize = peers.join_all().await.into_iter().sum();
        assert!(connected > 20, "{connected}");
        timeout(PATIENCE, served).await.unwrap().unwrap();
    }
}

/// Opens connections until none can be had, or for so long, and hears each of them out; how many there were.
async fn connect_again_and_again(to: SocketAddr, end: Instant) -> usize {
    let mut peers = Vec::new();
    while Instant::now() < end {
        let Ok(Ok(mut peer)) = timeout(SHORT, TcpStream::connect(to)).await else { break };
        peer.write_all(OPENING).await.unwrap();
        peers.push(peer);
        tokio::task::yield_now().await;
    }
    let count = peers.len();
    for mut peer in peers {
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.expect("an end, and no reset");
    }
    count
}
