//! Looks at the gateway's own certificate and the authorities of callers' certificates. It speaks TLS with nobody.

use std::sync::Arc;

use super::files::exposed;
use super::report::Report;
use crate::config::Config;
use crate::domain::clock::{Clock, SystemClock};
use crate::server::tls::{self, Error};

/// How long before its end a certificate is worth a word, in seconds.
const ENDING_S: i64 = 14 * 24 * 3_600;

/// Looks at the files as a start would read them.
pub(super) fn look(config: &Config, report: &mut Report) {
    let Some(settings) = &config.tls else {
        report.pass("certificates", "TLS is not spoken, and gRPC is for this machine only");
        return;
    };
    exposed("tls.key_file", &settings.key_file, report);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let material = match tls::load(settings, &clock) {
        Ok(material) => material,
        Err(error) => {
            report.fail("certificates", error.to_string(), fix(&error));
            return;
        }
    };
    let left_s = material.not_after_s - clock.wall().div_euclid(1_000);
    if left_s < ENDING_S {
        report.warn(
            "certificates",
            format!("the certificate ends in {} days", left_s.div_euclid(24 * 3_600)),
            "put a new one in its place; a running gateway takes it up without a restart",
        );
    }
    if material.names.is_empty() {
        report.fail(
            "certificates",
            "the certificate names no host (subject alternative name), so no client accepts it",
            "have it issued for the names that callers connect to",
        );
    }
    report.pass_if_nothing_else("certificates", format!("valid for {}", material.names.join(", ")));
}

fn fix(error: &Error) -> &'static str {
    match error {
        Error::Read { .. } => "put the file there and let the gateway's user read it, or set its path anew",
        Error::Pem { .. } => {
            "put a PEM file there (`-----BEGIN ...-----`) that holds what the setting asks for"
        }
        Error::Pair { .. } => {
            "put the key there that the certificate was issued for, or have a new one issued"
        }
        Error::Validity { .. } => {
            "put a certificate there that is valid now; see too that the machine's clock is right"
        }
        Error::Authority { .. } => {
            "put the authorities' certificates and their current revocation lists there"
        }
        Error::Library(_) => {
            "have certificate and key issued with an algorithm of today: ECDSA P-256, or RSA of 2048 bits"
        }
    }
}
