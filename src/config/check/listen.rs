//! Where the gateway listens and what protects it there: addresses, TLS, and what must not be reached from beyond the
//! machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Reader, non_empty};
use crate::config::{ClientCertificates, Listen, Tls};

impl Reader<'_> {
    pub(super) fn listen(&mut self, without_callers: bool) -> Option<Listen> {
        let with_tls = self.values.contains_key("tls.certificate_file");
        let grpc = self.required("listen.grpc", |text| {
            let address = parse_address(text)?;
            match missing(with_tls, without_callers) {
                Some(missing) if !address.ip().is_loopback() => Err(format!(
                    "`{address}` is beyond the loopback address and {missing}, or listen on 127.0.0.1"
                )),
                _ => Ok(address),
            }
        });
        let webhook = self.required("listen.webhook", parse_address);
        let ops = self.required("listen.ops", parse_address);
        let connections_max = self.count("listen.connections_max");
        let connections_per_address_max = self.count("listen.connections_per_address_max");
        let calls_in_flight_max = self.count("listen.calls_in_flight_max");
        let lame_duck = self.seconds("listen.lame_duck_s");
        let grace = self.seconds("listen.grace_s");
        Some(Listen {
            grpc: grpc?,
            webhook: webhook?,
            ops: ops?,
            connections_max: connections_max?,
            connections_per_address_max: connections_per_address_max?,
            calls_in_flight_max: calls_in_flight_max?,
            lame_duck: lame_duck?,
            grace: grace?,
        })
    }

    /// `None` for a fault, `Some(None)` without TLS.
    pub(super) fn tls(&mut self) -> Option<Option<Tls>> {
        let certificate_file = self.optional("tls.certificate_file", path);
        let key_file = self.optional("tls.key_file", path);
        let client_ca_files = self.optional("tls.client_ca_files", paths);
        let client_crl_files = self.optional("tls.client_crl_files", paths);
        let client_certificates = self.optional("tls.client_certificates", parse_client_certificates);
        let webhook = self.required("tls.webhook", parse_flag);
        let ops = self.required("tls.ops", parse_flag);
        let client_ca_files = client_ca_files?.unwrap_or_default();
        let (certificate_file, key_file) = match (certificate_file?, key_file?) {
            (Some(certificate_file), Some(key_file)) => (certificate_file, key_file),
            (None, None) => return self.without_tls().then_some(None),
            (Some(_), None) => return self.half("tls.key_file", "the certificate's private key, in PEM"),
            (None, Some(_)) => return self.half("tls.certificate_file", "the key's certificate, in PEM"),
        };
        let asked = client_certificates?;
        let client_certificates = asked.unwrap_or(match client_ca_files.is_empty() {
            true => ClientCertificates::Off,
            false => ClientCertificates::Optional,
        });
        if client_certificates != ClientCertificates::Off && client_ca_files.is_empty() {
            let what = "needs `tls.client_ca_files`, the authorities whose certificates callers may present";
            self.faults.add("tls.client_certificates", what, "");
        }
        Some(Some(Tls {
            certificate_file,
            key_file,
            client_ca_files,
            client_crl_files: client_crl_files?.unwrap_or_default(),
            client_certificates,
            webhook: webhook?,
            ops: ops?,
        }))
    }

    fn half<T>(&mut self, missing: &str, what: &str) -> Option<T> {
        self.faults.add(missing, format!("is required: {what}"), "");
        None
    }

    /// Whether nothing asks for the TLS that is not set up.
    fn without_tls(&mut self) -> bool {
        let asks = |path: &&str| {
            self.values.get(*path).is_some_and(|found| !["false", "off"].contains(&found.text.as_str()))
        };
        let all = [
            "tls.client_ca_files",
            "tls.client_crl_files",
            "tls.client_certificates",
            "tls.webhook",
            "tls.ops",
        ];
        let asking: Vec<&str> = all.into_iter().filter(asks).collect();
        for path in &asking {
            let what = "needs `tls.certificate_file` and `tls.key_file`, without which there is no TLS";
            self.faults.add(path, what, "");
        }
        asking.is_empty()
    }
}

/// What an address beyond the machine itself lacks, with the way to fix it.
fn missing(with_tls: bool, without_callers: bool) -> Option<String> {
    let tls = "there is no TLS: set `tls.certificate_file` and `tls.key_file`";
    let callers = "no caller is known: set `TOLLGATE_CALLER_TOKEN` or `callers.NAME`";
    match (with_tls, without_callers) {
        (true, false) => None,
        (false, false) => Some(tls.to_owned()),
        (true, true) => Some(callers.to_owned()),
        (false, true) => Some(format!("{tls}; {callers}")),
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    non_empty(text).map(Into::into)
}

fn paths(text: &str) -> Result<Vec<PathBuf>, String> {
    text.split(',').map(|part| path(part.trim())).collect()
}

fn parse_client_certificates(text: &str) -> Result<ClientCertificates, String> {
    match text {
        "off" => Ok(ClientCertificates::Off),
        "optional" => Ok(ClientCertificates::Optional),
        "required" => Ok(ClientCertificates::Required),
        _ => Err(format!("`{text}` is none of `off`, `optional`, `required`")),
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address like `127.0.0.1:7400`"))
}

fn parse_flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{text}` is neither `true` nor `false`"))
}
