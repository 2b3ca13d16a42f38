//! Which certificates are believed. The server's is its own authority, for 127.0.0.1 only, and nobody else has its key.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::domain::clock::{Clock as _, ManualClock};

const LOOPBACK_PEM: &[u8] = include_bytes!("loopback.pem");

/// Answers one connection to a loopback address with an empty object and gives back what it could decrypt. `accepted` is
/// called before the handshake.
fn serve(at: [u8; 4], accepted: impl FnOnce() + Send + 'static) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            CertificateDer::pem_slice_iter(LOOPBACK_PEM).map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_slice(LOOPBACK_PEM).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind(SocketAddr::from((at, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread::spawn(move || {
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let (stream, _) = listener.accept().unwrap();
        accepted();
        let mut stream = StreamOwned::new(connection, stream);
        let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
        while !received.ends_with(BODY.as_bytes()) {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return received,
                Ok(read) => received.extend_from_slice(&buffer[..read]),
            }
        }
        stream.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").unwrap();
        received
    });
    (address, served)
}

fn client(address: &str, extra_roots_pem: Option<Vec<u8>>) -> Client {
    let key = Key::parse("sk_test_scripted".into()).unwrap();
    let base = format!("https://{address}");
    Client::new(&Options {
        api_base: base.clone(),
        files_base: base,
        extra_roots_pem,
        ..Options::new(Mode::Test, key)
    })
    .unwrap()
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_whose_certificate_is_not_trusted() {
    let (address, served) = serve([127, 0, 0, 1], || ());
    let sent = client(&address.to_string(), None).send(&refund(), &Sender::Gateway, None).await;
    assert_eq!(sent.attempts, [Attempt::NotSent(Trouble::Tls)]);
    assert!(served.join().unwrap().is_empty());
}

#[tokio::test]
async fn an_extra_authority_is_trusted_for_its_own_names_only() {
    let (address, served) = serve([127, 0, 0, 1], || ());
    let sent = client(&address.to_string(), Some(LOOPBACK_PEM.to_vec()))
        .send(&refund(), &Sender::Gateway, None)
        .await;
    assert_eq!(sent.answer().map(|answer| answer.status), Some(200), "{sent:?}");
    assert!(served.join().unwrap().ends_with(BODY.as_bytes()));

    let (address, served) = serve([127, 0, 0, 2], || ());
    let sent = client(&address.to_string(), Some(LOOPBACK_PEM.to_vec()))
        .send(&refund(), &Sender::Gateway, None)
        .await;
    assert_eq!(sent.attempts, [Attempt::NotSent(Trouble::Tls)]);
    assert!(served.join().unwrap().is_empty());
}

#[test]
fn extra_authorities_that_cannot_be_read_are_refused() {
    let key = Key::parse("sk_test_scripted".into()).unwrap();
    for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let options = Options { extra_roots_pem: Some(pem.into()), ..Options::new(Mode::Test, key.clone()) };
        assert!(matches!(Client::new(&options), Err(SetupError::Roots | SetupError::Library)), "{pem}");
    }
}

#[tokio::test]
async fn a_right_to_send_that_ran_out_while_connecting_is_gone() {
    let clock = Arc::new(ManualClock::at(0));
    let (passing, hour) = (Arc::clone(&clock), Duration::from_secs(3_600));
    let (address, served) = serve([127, 0, 0, 1], move || passing.advance(hour));
    let client = client(&address.to_string(), Some(LOOPBACK_PEM.to_vec()));
    let sent = client.send_while(&refund(), &Sender::Gateway, None, move |_| clock.monotonic() < hour).await;
    assert_eq!(sent.attempts, [Attempt::NotSent(Trouble::Deadline)]);
    assert!(served.join().unwrap().is_empty());
}
