//! Certificates of every kind, made for one run, and connections that present them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// The name by which a certificate is that of the caller `orders`.
pub(super) const ORDERS: &str = "spiffe://example.org/orders";
/// The name of the gateway in its certificate.
const GATEWAY: &str = "localhost";

/// What a connection presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Presents {
    Nothing,
    /// The certificate of the caller `orders`.
    Orders,
    /// One of a name that nobody has.
    Unknown,
    /// One with a common name and nothing else; that name does not count (RFC 9525, section 2).
    CommonName,
    Expired,
    NotYetValid,
    /// The right name, by an authority that the gateway does not know.
    Foreign,
    /// The right name, for servers only (RFC 5280, section 4.2.1.12).
    ForServers,
}

impl Presents {
    /// What the handshake lets through; whom it stands for is asked afterwards.
    pub(super) const LET_THROUGH: [Self; 4] = [Self::Nothing, Self::Orders, Self::Unknown, Self::CommonName];
    /// What the handshake has to refuse.
    pub(super) const REFUSED: [Self; 4] = [Self::Expired, Self::NotYetValid, Self::Foreign, Self::ForServers];
}

/// The authorities of one run.
pub(super) struct Authorities {
    known: CertifiedIssuer<'static, KeyPair>,
    foreign: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authorities {
    pub(super) fn new() -> Self {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        Self { known: authority("the known authority"), foreign: authority("another authority") }
    }

    /// Writes what the gateway needs into the folder, and answers its settings.
    pub(super) fn settings(&self, folder: &Path) -> String {
        let file = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let params = CertificateParams::new(vec![GATEWAY.to_owned()]).unwrap();
        let Pair { certificate, key } = issue(params, &self.known);
        format!(
            "[tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\nclient_ca_files = [\"{}\"]\n\
             client_certificates = \"optional\"\n",
            file("gateway.pem", certificate.pem()),
            file("gateway.key", key.serialize_pem()),
            file("callers.pem", self.known.pem()),
        )
    }

    /// A connection to a gateway that presents something.
    ///
    /// # Errors
    /// When the gateway refuses the handshake and the client notices it at once.
    pub(super) async fn connect(
        &self,
        address: SocketAddr,
        presents: Presents,
    ) -> Result<Channel, tonic::transport::Error> {
        let connector = TlsConnector::from(Arc::new(self.client(presents)));
        let connect = move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(GATEWAY).map_err(std::io::Error::other)?;
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        };
        // The connector speaks TLS by itself.
        let endpoint = Endpoint::from_shared(format!("http://{GATEWAY}")).unwrap();
        endpoint.connect_with_connector(tower::service_fn(connect)).await
    }

    fn client(&self, presents: Presents) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.known.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = match self.pair(presents) {
            None => builder.with_no_client_auth(),
            Some(Pair { certificate, key }) => {
                let chain = vec![CertificateDer::from(certificate.der().to_vec())];
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    fn pair(&self, presents: Presents) -> Option<Pair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "orders");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = |text: &str| vec![SanType::URI(text.try_into().unwrap())];
        params.subject_alt_names = uri(ORDERS);
        let mut authority = &self.known;
        match presents {
            Presents::Nothing => return None,
            Presents::Orders => {}
            Presents::Unknown => params.subject_alt_names = uri("spiffe://example.org/orders/other"),
            Presents::CommonName => params.subject_alt_names = Vec::new(),
            Presents::Expired => params.not_after = rcgen::date_time_ymd(2020, 1, 1),
            Presents::NotYetValid => params.not_before = rcgen::date_time_ymd(2090, 1, 1),
            Presents::Foreign => authority = &self.foreign,
            Presents::ForServers => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        }
        Some(issue(params, authority))
    }
}

fn issue(params: CertificateParams, authority: &CertifiedIssuer<'static, KeyPair>) -> Pair {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &**authority).unwrap();
    Pair { certificate, key }
}
