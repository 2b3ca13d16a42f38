//! Reads the names out of a client certificate. Whether the certificate can be trusted is the TLS handshake's business.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::domain::caller::{PeerName, PeerNames};

/// What the URI of a SPIFFE id begins with.
const SPIFFE: &str = "spiffe://";

/// Why a certificate names nobody.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It cannot be read.
    #[error("the client certificate is not a certificate by RFC 5280")]
    Unreadable,
    /// It names nothing that a caller could be known by.
    #[error("the client certificate has neither a SPIFFE id nor a DNS name")]
    Nameless,
    /// It has a SPIFFE id and another URI beside it, which the X.509-SVID standard (section 2) forbids.
    #[error("the client certificate has more than one URI beside a SPIFFE id")]
    SeveralUris,
}

/// The names in a certificate that the handshake has verified. The common name does not count (RFC 9525 section 2).
///
/// # Errors
/// When the certificate names nobody.
pub fn names(der: &[u8]) -> Result<PeerNames, Error> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Error::Unreadable)?;
    let extension = certificate.subject_alternative_name().map_err(|_| Error::Unreadable)?;
    if !rest.is_empty() {
        return Err(Error::Unreadable);
    }
    let all = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let uris = all.iter().filter(|name| matches!(name, GeneralName::URI(_))).count();
    let mut sans: Vec<PeerName> = all.iter().filter_map(known).collect();
    if uris > 1 && sans.iter().any(|name| matches!(name, PeerName::Spiffe(_))) {
        return Err(Error::SeveralUris);
    }
    sans.sort();
    sans.dedup();
    let not_after_s = certificate.validity().not_after.timestamp();
    if sans.is_empty() { Err(Error::Nameless) } else { Ok(PeerNames { sans, not_after_s }) }
}

fn known(name: &GeneralName<'_>) -> Option<PeerName> {
    match name {
        GeneralName::URI(uri) if uri.starts_with(SPIFFE) => Some(PeerName::Spiffe((*uri).to_owned())),
        // A wildcard stands for many hosts, so it names none.
        GeneralName::DNSName(name) if !name.contains('*') => Some(PeerName::Dns(name.to_ascii_lowercase())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(sans: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans.to_vec();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn spiffe_ids_and_dns_names_are_names() {
        let der = certificate(&[
            uri("spiffe://example.org/orders"),
            dns("Orders.example.org"),
            dns("*.example.org"),
        ]);
        let names = names(&der).unwrap();
        let expected = [
            PeerName::Spiffe("spiffe://example.org/orders".into()),
            PeerName::Dns("orders.example.org".into()),
        ];
        assert_eq!(names.sans, expected);
        assert!(names.not_after_s > 1_000_000_000);
    }

    #[test]
    fn a_certificate_without_a_usable_name_is_nobodys() {
        assert_eq!(names(&certificate(&[])), Err(Error::Nameless));
        assert_eq!(names(&certificate(&[uri("https://example.org/orders")])), Err(Error::Nameless));
        assert_eq!(names(b"no certificate"), Err(Error::Unreadable));
    }

    #[test]
    fn a_spiffe_id_stands_alone_among_the_uris() {
        for other in ["spiffe://example.org/support", "https://example.org/"] {
            let der = certificate(&[uri("spiffe://example.org/orders"), uri(other)]);
            assert_eq!(names(&der), Err(Error::SeveralUris), "{other}");
        }
    }
}
