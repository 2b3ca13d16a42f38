//! TLS on the gRPC port: callers known by their certificates, and certificates that are replaced while calls go on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tollgate::config::{self, CallerConfig, ClientCertificates, Config};
use tollgate::domain::caller::PeerName;
use tollgate::domain::clock::{Clock, SystemClock};
use tollgate::proto::v1::audit_service_client::AuditServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{AuditPhase, GetRefundRequest, SearchAuditRecordsRequest};
use tollgate::server::tls;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::rig::{Rig, Token, until};

const ORDERS: &str = "spiffe://example.org/orders";

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issuer(authority: &Authority) -> &Issuer<'static, KeyPair> {
    authority
}

/// A certificate of a caller with this SPIFFE id and serial number.
fn identity(authority: &Authority, id: &str, serial: u64) -> Identity {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.serial_number = Some(SerialNumber::from(serial));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer(authority)).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// Puts a certificate for 127.0.0.1 of this authority into the folder.
pub(crate) fn settings(
    folder: &Path,
    own: &Authority,
    callers: &Authority,
    asked: ClientCertificates,
) -> config::Tls {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, issuer(own)).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    config::Tls {
        certificate_file: write("cert.pem", &certificate.pem()),
        key_file: write("key.pem", &key.serialize_pem()),
        client_ca_files: vec![write("ca.pem", &callers.pem())],
        client_crl_files: Vec::new(),
        client_certificates: asked,
        webhook: false,
        ops: false,
    }
}

/// What speaks TLS with a gateway whose certificate is of this authority.
fn connector(authority: &Authority, identity: Option<Identity>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// A connection to a gateway whose certificate is of this authority.
pub(crate) async fn dial(
    to: SocketAddr,
    authority: &Authority,
    identity: Option<Identity>,
) -> Result<Channel, String> {
    let connector = connector(authority, identity);
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let stream = connector.connect(name, TcpStream::connect(to).await?).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_shared(format!("https://{to}")).unwrap();
    endpoint.connect_with_connector(connect).await.map_err(|error| format!("{error:?}"))
}

/// Asks for something that is not there; whoever gets to the end of the pipeline is told so.
async fn ask(channel: &Channel) -> Status {
    let request = GetRefundRequest { id: "re_none".into(), ..Default::default() };
    RefundServiceClient::new(channel.clone()).get_refund(request).await.unwrap_err()
}

fn orders(config: &mut Config) {
    config.callers.push(CallerConfig {
        name: "orders".into(),
        namespace: "orders".into(),
        certificates: vec![PeerName::Spiffe(ORDERS.into())],
        ..config.callers[0].clone()
    });
    config.callers.last_mut().unwrap().tokens.clear();
}

/// A rig with TLS, with the authorities of its own certificate and of its callers'.
async fn rig(asked: ClientCertificates) -> (Rig, Authority, Authority) {
    let (own, callers) = (authority(), authority());
    let rig = Rig::start_with(|config| {
        orders(config);
        let folder = config.data.parent().unwrap().to_owned();
        config.tls = Some(settings(&folder, &own, &callers, asked));
    })
    .await;
    (rig, own, callers)
}

#[tokio::test]
async fn a_caller_is_known_by_its_certificate() {
    let (rig, own, callers) = rig(ClientCertificates::Optional).await;
    let to = rig.gateway.grpc;
    let known = dial(to, &own, Some(identity(&callers, ORDERS, 1))).await.unwrap();
    assert_eq!(ask(&known).await.code(), Code::NotFound);
    let other = dial(to, &own, Some(identity(&callers, "spiffe://example.org/other", 2))).await.unwrap();
    assert_eq!(ask(&other).await.code(), Code::Unauthenticated);
    let nobody = dial(to, &own, None).await.unwrap();
    assert_eq!(ask(&nobody).await.code(), Code::Unauthenticated);
    let mut with_token = RefundServiceClient::with_interceptor(nobody, Token(crate::rig::TOKEN));
    let request = GetRefundRequest { id: "re_none".into(), ..Default::default() };
    assert_eq!(with_token.get_refund(request).await.unwrap_err().code(), Code::NotFound);
    rig.gateway.stop().await;
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_nobody_named_is_refused() {
    let (rig, own, _) = rig(ClientCertificates::Required).await;
    for identity in [None, Some(identity(&authority(), ORDERS, 1))] {
        // With TLS 1.3 a client learns of the refusal with its first answer.
        if let Ok(channel) = dial(rig.gateway.grpc, &own, identity).await {
            assert!(![Code::NotFound, Code::Unauthenticated].contains(&ask(&channel).await.code()));
        }
    }
    assert!(dial(rig.gateway.grpc, &authority(), None).await.is_err(), "nor is the gateway believed");
    // The end puts on record what the pauses have not. Nobody's calls are of no namespace: operators see them.
    let rig = rig.restart().await;
    let search = SearchAuditRecordsRequest { phase: AuditPhase::Denied.into(), ..Default::default() };
    let found = AuditServiceClient::new(rig.operator()).search_audit_records(search).await;
    let found = found.unwrap().into_inner();
    for cause in ["missing", "refused_certificate"] {
        let sum = found.records.iter().find(|record| record.note == cause).expect(cause);
        assert!(sum.count > 0 && sum.rpc.is_empty() && sum.peer == "127.0.0.1", "{sum:?}");
    }
    rig.gateway.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let (rig, own, callers) = rig(ClientCertificates::Optional).await;
    let to = rig.gateway.grpc;
    let open = dial(to, &own, Some(identity(&callers, ORDERS, 1))).await.unwrap();
    assert_eq!(ask(&open).await.code(), Code::NotFound);

    let newer = authority();
    let settings = settings(rig.data.path(), &newer, &callers, ClientCertificates::Optional);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    rig.gateway.tls.as_ref().unwrap().replace(tls::load(&settings, &clock).unwrap());
    assert!(dial(to, &own, None).await.is_err());
    assert!(dial(to, &newer, None).await.is_ok());
    // A new handshake would fail, so this is the connection that was open before.
    assert_eq!(ask(&open).await.code(), Code::NotFound);
    rig.gateway.stop().await;
}

#[tokio::test]
async fn a_revoked_certificate_loses_its_open_connections() {
    let (rig, own, callers) = rig(ClientCertificates::Optional).await;
    let (revoked, sound) = (identity(&callers, ORDERS, 66), identity(&callers, ORDERS, 77));
    let revoked = dial(rig.gateway.grpc, &own, Some(revoked)).await.unwrap();
    let sound = dial(rig.gateway.grpc, &own, Some(sound)).await.unwrap();
    assert_eq!((ask(&revoked).await.code(), ask(&sound).await.code()), (Code::NotFound, Code::NotFound));

    let settings = settings_that_revoke(66, rig.data.path(), &own, &callers);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    rig.gateway.tls.as_ref().unwrap().replace(tls::load(&settings, &clock).unwrap());
    until(async || (ask(&revoked).await.code() != Code::NotFound).then_some(())).await;
    assert_eq!(ask(&sound).await.code(), Code::NotFound);
    rig.gateway.stop().await;
}

/// Settings with a list that revokes the certificate with this serial number.
fn settings_that_revoke(serial: u64, folder: &Path, own: &Authority, callers: &Authority) -> config::Tls {
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let file = folder.join("revoked.pem");
    std::fs::write(&file, list.signed_by(issuer(callers)).unwrap().pem().unwrap()).unwrap();
    let mut settings = settings(folder, own, callers, ClientCertificates::Optional);
    settings.client_crl_files.push(file);
    settings
}

#[tokio::test]
async fn a_certificate_that_is_revoked_in_the_middle_of_its_handshake_is_cut_off() {
    let (rig, own, callers) = rig(ClientCertificates::Optional).await;
    let (to, tls) = (rig.gateway.grpc, rig.gateway.tls.clone().unwrap());
    let settings = settings_that_revoke(66, rig.data.path(), &own, &callers);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let revoking = tls::load(&settings, &clock).unwrap();

    let connector = connector(&own, Some(identity(&callers, ORDERS, 66)));
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let relay = tokio::spawn(async move {
        let (mut hello, mut gateway) = (vec![0; 16 * 1024], TcpStream::connect(to).await.unwrap());
        let length = far.read(&mut hello).await.unwrap();
        gateway.write_all(&hello[..length]).await.unwrap();
        // Once it has answered, its mind is made up on what the handshake goes by.
        gateway.readable().await.unwrap();
        tls.replace(revoking);
        drop(tokio::io::copy_bidirectional(&mut far, &mut gateway).await);
    });
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut once = Some(connector.connect(name, near).await.unwrap());
    let connect = tower::service_fn(move |_| {
        let stream = once.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| std::io::Error::other("there is one connection only")) }
    });
    let endpoint = Endpoint::from_shared(format!("https://{to}")).unwrap();
    if let Ok(channel) = endpoint.connect_with_connector(connect).await {
        assert_ne!(ask(&channel).await.code(), Code::NotFound);
    }
    relay.await.unwrap();
    rig.gateway.stop().await;
}
