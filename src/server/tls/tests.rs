//! Which files TLS can be spoken with, and what is said about those that it cannot.

use rcgen::{CertificateParams, CertifiedIssuer, DnType, Issuer, KeyPair, SanType};
use tempfile::TempDir;

use super::*;
use crate::domain::clock::{ManualClock, SystemClock};

struct Setup {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    clock: Arc<ManualClock>,
    settings: config::Tls,
}

impl Setup {
    fn sound() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let settings = config::Tls {
            certificate_file: file("cert.pem"),
            key_file: file("key.pem"),
            client_ca_files: Vec::new(),
            client_crl_files: Vec::new(),
            client_certificates: ClientCertificates::Off,
            webhook: false,
            ops: false,
        };
        let clock = Arc::new(ManualClock::at(SystemClock::new().wall()));
        let setup = Self { folder, authority, clock, settings };
        setup.issue();
        setup
    }

    /// Puts a new certificate with its key in place.
    fn issue(&self) {
        let mut params = CertificateParams::new(vec!["gateway.example".into()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        let year_2000 = rcgen::date_time_ymd(2000, 1, 1);
        (params.not_before, params.not_after) = (year_2000, rcgen::date_time_ymd(2100, 1, 1));
        let key = KeyPair::generate().unwrap();
        let issuer: &Issuer<'_, KeyPair> = &self.authority;
        let certificate = params.signed_by(&key, issuer).unwrap();
        self.write("cert.pem", &certificate.pem());
        self.write("key.pem", &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self) -> Result<Material, Error> {
        load(&self.settings, &(Arc::clone(&self.clock) as Arc<dyn Clock>))
    }

    fn refusal(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

#[test]
fn a_certificate_with_its_key_is_enough() {
    let material = Setup::sound().load().unwrap();
    assert_eq!(material.names, ["gateway.example", "127.0.0.1"]);
    assert_eq!(material.not_after_s, 4_102_444_800);
    assert_eq!(material.grpc.alpn_protocols, [b"h2"]);
    assert_eq!(material.http.alpn_protocols, [b"http/1.1"]);
    assert!(!material.vouches_for(&[CertificateDer::from(vec![1])]), "nobody was asked for a certificate");
}

#[test]
fn a_file_that_does_not_fit_is_named_with_what_is_wrong() {
    let setup = Setup::sound();
    let path = |name: &str| setup.folder.path().join(name).display().to_string();

    setup.write("key.pem", &KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(
        setup.refusal(),
        format!("the key of `{}` is not that of the certificate in `{}`", path("key.pem"), path("cert.pem"))
    );
    setup.write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA");
    assert!(setup.refusal().contains("key.pem` holds no private key"), "{}", setup.refusal());
    setup.issue();
    setup.write("cert.pem", "");
    assert!(setup.refusal().contains("cert.pem` holds no certificate"), "{}", setup.refusal());
    fs::remove_file(path("cert.pem")).unwrap();
    assert!(setup.refusal().starts_with("cannot read the file `"), "{}", setup.refusal());
    setup.issue();
    assert!(setup.load().is_ok());
}

#[test]
fn a_certificate_is_used_within_its_time_only() {
    let setup = Setup::sound();
    setup.clock.set_wall(4_102_444_801_000);
    assert!(setup.refusal().contains("has expired; put one in its place"), "{}", setup.refusal());
    setup.clock.set_wall(0);
    assert!(setup.refusal().contains("is not valid yet"), "{}", setup.refusal());
}

#[test]
fn authorities_and_revocation_lists_must_be_readable() {
    let mut setup = Setup::sound();
    setup.settings.client_certificates = ClientCertificates::Required;
    setup.settings.client_ca_files = vec![setup.write("ca.pem", &setup.authority.pem())];
    assert!(setup.load().is_ok());
    setup.settings.client_crl_files = vec![setup.write("crl.pem", &setup.authority.pem())];
    assert!(setup.refusal().contains("crl.pem` holds no revocation list"), "{}", setup.refusal());
    setup.settings.client_crl_files.clear();
    setup.write("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(setup.refusal().contains("ca.pem` cannot be used"), "{}", setup.refusal());
}
