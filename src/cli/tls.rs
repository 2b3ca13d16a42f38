//! TLS of the command line as a client: whom it believes, and what it presents.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tower::Service;

use super::failure::Failure;
use crate::config::{TLS_CA_VARIABLE, TLS_CERT_VARIABLE, TLS_KEY_VARIABLE};

/// What a connection over TLS needs.
#[derive(Clone, Debug, Args)]
pub(super) struct TlsArgs {
    /// Authorities of the gateway's certificate, a file in PEM; for an https:// address
    #[arg(long, env = TLS_CA_VARIABLE, global = true)]
    tls_ca: Option<PathBuf>,
    /// Certificate to present, a file in PEM
    #[arg(long, env = TLS_CERT_VARIABLE, global = true)]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate to present, a file in PEM
    #[arg(long, env = TLS_KEY_VARIABLE, global = true)]
    tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// What connects, with the files read.
    pub(super) fn connector(
        &self,
    ) -> Result<
        impl Service<Uri, Response = TokioIo<TlsStream<TcpStream>>, Error = io::Error, Future: Send>
        + Send
        + use<>,
        Failure,
    > {
        let connector = TlsConnector::from(Arc::new(self.config()?));
        Ok(tower::service_fn(move |uri: Uri| {
            let connector = connector.clone();
            async move {
                let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
                Ok(TokioIo::new(connector.connect(name, stream).await?))
            }
        }))
    }

    fn config(&self) -> Result<ClientConfig, Failure> {
        let Some(ca) = &self.tls_ca else {
            let what = format!("an https:// address needs `--tls-ca FILE` (or `{TLS_CA_VARIABLE}`)");
            return Err(Failure::Data(what));
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| unusable(ca, &error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(ca, &error))?
            .with_root_certificates(roots);
        let mut config = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
                let chain = certificates(cert)?;
                builder.with_client_auth_cert(chain, secret).map_err(|error| unusable(cert, &error))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(Failure::Data("`--tls-cert` and `--tls-key` go together".into())),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, &error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| unusable(path, &error))?;
    match found.is_empty() {
        true => Err(unusable(path, &"it holds no certificate in PEM")),
        false => Ok(found),
    }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Data(format!("the file `{}` cannot be used: {error}", path.display()))
}
