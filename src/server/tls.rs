//! What TLS is spoken with: certificate, key, and the authorities of callers' certificates, read from their files and
//! replaced while connections are open. Who a certificate stands for is not its business.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::sync::watch;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::{self, ClientCertificates};
use crate::domain::clock::Clock;

/// What gRPC is spoken over (RFC 9113, section 3.2).
const ALPN_GRPC: &[u8] = b"h2";
/// What webhooks and probes are spoken over (RFC 7301, section 6).
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Why TLS cannot be spoken with the files as they are.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read the file `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what its setting asks for.
    #[error("the file `{}` holds no {what} in PEM", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key are not of one pair.
    #[error("the key of `{}` is not that of the certificate in `{}`", key.display(), certificate.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate is not valid at this time.
    #[error("the certificate in `{}` {what}; put one in its place that is valid", path.display())]
    Validity {
        /// The certificate's file.
        path: PathBuf,
        /// Whether it is too early or too late.
        what: &'static str,
    },
    /// An authority's certificate or a revocation list cannot be used.
    #[error("the file `{}` cannot be used: {what}", path.display())]
    Authority {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// Everything that TLS is spoken with, checked and ready.
#[derive(Clone, Debug)]
pub struct Material {
    /// The names that the certificate is for.
    pub names: Vec<String>,
    /// When the certificate ends, in seconds of Unix time.
    pub not_after_s: i64,
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    clock: Arc<dyn Clock>,
}

/// The material of the moment; cheap to clone, all clones see a replacement.
#[derive(Clone, Debug)]
pub struct Tls(Arc<watch::Sender<Arc<Material>>>);

impl Tls {
    /// Begins with this.
    #[must_use]
    pub fn new(material: Material) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(material))))
    }

    /// New handshakes take this from now on. Open connections go on, save those whose certificate its authorities do
    /// not vouch for: they are closed.
    pub fn replace(&self, material: Material) {
        self.0.send_replace(Arc::new(material));
    }

    /// The material of the moment.
    #[must_use]
    pub fn current(&self) -> Arc<Material> {
        Arc::clone(&self.0.borrow())
    }

    /// Tells of replacements.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Material>> {
        self.0.subscribe()
    }
}

impl Material {
    /// What handshakes of the gRPC port go by.
    pub(super) fn grpc(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.grpc)
    }

    /// What handshakes of the other ports go by; they ask for no certificate.
    pub(super) fn http(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.http)
    }

    /// Whether a chain that an earlier handshake accepted would be accepted now.
    pub(super) fn vouches_for(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return true };
        let verify = |verifier: &Arc<dyn ClientCertVerifier>| {
            verifier.verify_client_cert(leaf, intermediates, unix_time(&*self.clock)).is_ok()
        };
        self.verifier.as_ref().is_some_and(verify)
    }
}

/// Reads the files and checks that they fit each other.
///
/// # Errors
/// See [`Error`]; it names the file and says what is wrong with it.
pub fn load(settings: &config::Tls, clock: &Arc<dyn Clock>) -> Result<Material, Error> {
    let chain: Vec<CertificateDer<'static>> = items(&settings.certificate_file, "certificate")?;
    let key = key(&settings.key_file)?;
    let (names, not_after_s) = facts(&settings.certificate_file, &chain, &**clock)?;
    let verifier = verifier(settings)?;
    let pair = |error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            Error::Pair { certificate: settings.certificate_file.clone(), key: settings.key_file.clone() }
        }
        error => Error::Library(error),
    };
    let builder = || {
        let time = Arc::new(ClockTime(Arc::clone(clock)));
        ServerConfig::builder_with_details(provider(), time).with_safe_default_protocol_versions()
    };
    let http = builder()?.with_no_client_auth();
    let mut http = http.with_single_cert(chain.clone(), key.clone_key()).map_err(pair)?;
    http.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    let grpc = match &verifier {
        Some(verifier) => builder()?.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder()?.with_no_client_auth(),
    };
    let mut grpc = grpc.with_single_cert(chain, key).map_err(pair)?;
    grpc.alpn_protocols = vec![ALPN_GRPC.to_vec()];
    // A resumed session brings its certificate along unchecked, past its end and past a revocation.
    grpc.session_storage = Arc::new(NoServerSessionStorage {});
    grpc.send_tls13_tickets = 0;
    Ok(Material {
        names,
        not_after_s,
        grpc: Arc::new(grpc),
        http: Arc::new(http),
        verifier,
        clock: Arc::clone(clock),
    })
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What judges callers' certificates, if they are asked for.
fn verifier(settings: &config::Tls) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    if settings.client_certificates == ClientCertificates::Off {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    for path in &settings.client_ca_files {
        for certificate in items(path, "certificate")? {
            let wrong =
                |error: rustls::Error| Error::Authority { path: path.clone(), what: error.to_string() };
            roots.add(certificate).map_err(wrong)?;
        }
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let mut last = PathBuf::new();
    for path in &settings.client_crl_files {
        let lists: Vec<CertificateRevocationListDer<'static>> = items(path, "revocation list")?;
        builder = builder.with_crls(lists);
        last.clone_from(path);
    }
    if !settings.client_crl_files.is_empty() {
        builder = builder.only_check_end_entity_revocation();
    }
    if settings.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    let wrong = |error: rustls::server::VerifierBuilderError| Error::Authority {
        path: last,
        what: error.to_string(),
    };
    builder.build().map(Some).map_err(wrong)
}

/// All items of one kind in a file; at least one.
fn items<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, Error> {
    let text = read(path)?;
    let items: Option<Vec<T>> = T::pem_slice_iter(&text).map(Result::ok).collect();
    items.filter(|items| !items.is_empty()).ok_or_else(|| Error::Pem { path: path.to_owned(), what })
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    // The copy that is left behind is wiped.
    let text = SecretSlice::from(read(path)?);
    PrivateKeyDer::from_pem_slice(text.expose_secret())
        .map_err(|_| Error::Pem { path: path.to_owned(), what: "private key without a password" })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// The names of the certificate and its end.
fn facts(path: &Path, chain: &[CertificateDer<'_>], clock: &dyn Clock) -> Result<(Vec<String>, i64), Error> {
    let wrong = || Error::Pem { path: path.to_owned(), what: "certificate" };
    let leaf = chain.first().ok_or_else(wrong)?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| wrong())?;
    let now_s = clock.wall().div_euclid(1_000);
    let (not_before_s, not_after_s) =
        (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    let invalid = |what| Err(Error::Validity { path: path.to_owned(), what });
    if now_s > not_after_s {
        return invalid("has expired");
    }
    if now_s < not_before_s {
        return invalid("is not valid yet");
    }
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let names = alternatives.map(|extension| extension.value.general_names.iter().filter_map(name).collect());
    Ok((names.unwrap_or_default(), not_after_s))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match *name {
        GeneralName::DNSName(name) => Some(name.to_owned()),
        GeneralName::URI(uri) => Some(uri.to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// The gateway's clock as the library wants it.
#[derive(Debug)]
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(&*self.0))
    }
}

fn unix_time(clock: &dyn Clock) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(clock.wall().try_into().unwrap_or_default()))
}

#[cfg(test)]
mod tests;
