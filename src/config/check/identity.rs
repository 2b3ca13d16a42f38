//! Reads the settings of callers and issuers and sees to it that one credential means one caller.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::{Reader, header_safe, non_empty, parse_name, parse_url};
use crate::config::identity::{Algorithm, CallerConfig, IssuerConfig, KeySource, Subject};
use crate::domain::caller::PeerName;
use crate::domain::operation::hex;
use crate::domain::secret::Secret;

/// Shortest bearer token, in characters.
const TOKEN_CHARS_MIN: usize = 16;
/// Longest SPIFFE id, in bytes (the SPIFFE standard, section 2.3).
const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// Longest DNS name, in bytes (RFC 1035 section 2.3.4).
const DNS_NAME_BYTES_MAX: usize = 253;
/// Longest subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 255;

impl Reader<'_> {
    pub(super) fn callers(&mut self) -> Vec<CallerConfig> {
        let names = self.names("callers.");
        let callers: Vec<_> = names.into_iter().filter_map(|name| self.caller(&name)).collect();
        let mut seen = BTreeMap::new();
        for caller in &callers {
            let own = |what: &str| format!("callers.{}.{what}", caller.name);
            // A hash, so that no copy of a secret is left behind in memory.
            let hash = |token: &Secret| hex(&Sha256::digest(token.expose_secret().as_bytes()));
            let tokens = caller.tokens.iter().map(|token| (own("token"), hash(token)));
            let names = caller.certificates.iter().map(|name| (own("certificates"), name.to_string()));
            let subjects = caller.subjects.iter();
            let subjects =
                subjects.map(|Subject { issuer, subject }| (own("jwt"), format!("{issuer}:{subject}")));
            for (path, credential) in tokens.chain(names).chain(subjects) {
                let kind = path.rsplit('.').next().unwrap_or_default().to_owned();
                if let Some(other) = seen.insert((kind, credential), caller.name.as_str()) {
                    let of =
                        if other == caller.name { "there twice".into() } else { format!("of `{other}` too") };
                    self.faults.add(&path, format!("holds a credential that is {of}"), "");
                }
            }
        }
        callers
    }

    /// The names that the operator chose in keys that begin with `prefix`.
    pub(super) fn names(&self, prefix: &str) -> BTreeSet<String> {
        let set = self.values.keys().filter_map(|path| path.strip_prefix(prefix));
        set.filter_map(|rest| rest.split('.').next()).map(str::to_owned).collect()
    }

    fn caller(&mut self, name: &str) -> Option<CallerConfig> {
        let path = format!("callers.{name}");
        let named = parse_name(name).map_err(|what| self.faults.add(&path, what, "")).ok();
        let tokens = self.optional(&format!("{path}.token"), |text| list(text, parse_token));
        let namespace = self.optional(&format!("{path}.namespace"), parse_name);
        let groups = self.optional(&format!("{path}.groups"), |text| list(text, parse_name));
        let certificates = self.optional(&format!("{path}.certificates"), |text| list(text, parse_peer_name));
        let subjects = self.optional(&format!("{path}.jwt"), |text| list(text, parse_subject));
        let weight = self.optional_number(&format!("{path}.weight"));
        let name = named?;
        Some(CallerConfig {
            namespace: namespace?.unwrap_or_else(|| name.clone()),
            groups: groups?.unwrap_or_default(),
            weight: weight?.unwrap_or(1),
            name,
            tokens: tokens?.unwrap_or_default(),
            certificates: certificates?.unwrap_or_default(),
            subjects: subjects?.unwrap_or_default(),
        })
    }

    /// The issuers; every subject of a caller must be of one of them.
    pub(super) fn issuers(&mut self, callers: &[CallerConfig]) -> Vec<IssuerConfig> {
        let names = self.names("issuers.");
        for caller in callers {
            for Subject { issuer, .. } in caller.subjects.iter().filter(|one| !names.contains(&one.issuer)) {
                let path = format!("callers.{}.jwt", caller.name);
                self.faults.add(
                    &path,
                    format!("speaks of `{issuer}`, but `issuers.{issuer}` is not set"),
                    "",
                );
            }
        }
        let issuers: Vec<_> = names.into_iter().filter_map(|name| self.issuer(&name)).collect();
        let mut seen = BTreeMap::new();
        for IssuerConfig { name, issuer, .. } in &issuers {
            if let Some(other) = seen.insert(issuer, name) {
                self.faults.add(&format!("issuers.{name}.issuer"), format!("is that of `{other}` too"), "");
            }
        }
        issuers
    }

    fn issuer(&mut self, name: &str) -> Option<IssuerConfig> {
        let path = format!("issuers.{name}");
        let named = parse_name(name).map_err(|what| self.faults.add(&path, what, "")).ok();
        let issuer = self.required(&format!("{path}.issuer"), non_empty);
        let audiences = self.required(&format!("{path}.audience"), |text| list(text, non_empty));
        let file = self.optional(&format!("{path}.jwks_file"), non_empty);
        let url = self.optional(&format!("{path}.jwks_url"), parse_jwks_url);
        let algorithms = self.optional(&format!("{path}.algorithms"), |text| list(text, parse_algorithm));
        let keys = match (file?, url?) {
            (Some(file), None) => KeySource::File(file.into()),
            (None, Some(url)) => KeySource::Url(url),
            _ => {
                self.faults.add(&path, "needs either `jwks_file` or `jwks_url`, and not both", "");
                return None;
            }
        };
        Some(IssuerConfig {
            name: named?,
            issuer: issuer?,
            audiences: audiences?,
            keys,
            algorithms: algorithms?.unwrap_or_else(|| Algorithm::ALL.to_vec()),
        })
    }
}

/// The items of a list, each of which must be sound; an empty list is a mistake.
fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(|item| parse(item.trim())).collect()
}

fn parse_token(text: &str) -> Result<Secret, String> {
    if text.chars().count() < TOKEN_CHARS_MIN {
        return Err(format!("is shorter than {TOKEN_CHARS_MIN} characters"));
    }
    header_safe(text)
}

fn parse_peer_name(text: &str) -> Result<PeerName, String> {
    let wrong = || {
        format!(
            "`{text}` is neither a SPIFFE id like `spiffe://example.org/orders` nor a DNS name like `dns:orders.example.org`"
        )
    };
    if text.starts_with("spiffe://") {
        return is_spiffe_id(text).then(|| PeerName::Spiffe(text.to_owned())).ok_or_else(wrong);
    }
    let name = text.strip_prefix("dns:").ok_or_else(wrong)?.to_ascii_lowercase();
    is_dns_name(&name).then_some(PeerName::Dns(name)).ok_or_else(wrong)
}

/// A SPIFFE id with a path, by the SPIFFE standard, section 2.
fn is_spiffe_id(text: &str) -> bool {
    let rest = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    let Some((domain, path)) = rest.filter(|_| text.len() <= SPIFFE_ID_BYTES_MAX) else { return false };
    let domain_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let segment = |part: &str| !["", ".", ".."].contains(&part) && part.bytes().all(path_byte);
    !domain.is_empty() && domain.bytes().all(domain_byte) && path.split('/').all(segment)
}

/// A DNS name in lower case, without a wildcard.
fn is_dns_name(name: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| !label.is_empty() && label.bytes().all(byte);
    name.len() <= DNS_NAME_BYTES_MAX && name.split('.').all(label)
}

fn parse_subject(text: &str) -> Result<Subject, String> {
    let wrong = || format!("`{text}` is not `ISSUER_NAME:SUBJECT`");
    let (issuer, subject) = text.split_once(':').ok_or_else(wrong)?;
    let issuer = parse_name(issuer).map_err(|_| wrong())?;
    let fits = (1..=SUBJECT_BYTES_MAX).contains(&subject.len());
    fits.then(|| Subject { issuer, subject: subject.to_owned() }).ok_or_else(wrong)
}

fn parse_algorithm(text: &str) -> Result<Algorithm, String> {
    let all = || Algorithm::ALL.map(|one| format!("`{}`", one.as_str())).join(", ");
    Algorithm::parse(text).ok_or_else(|| format!("`{text}` is none of {}", all()))
}

/// Where keys are fetched decides who may call, so plain http is for the machine itself.
fn parse_jwks_url(text: &str) -> Result<String, String> {
    let url: http::Uri = text.parse().map_err(|_| format!("`{text}` is not a URL"))?;
    let base = format!(
        "{}://{}",
        url.scheme_str().unwrap_or_default(),
        url.authority().map_or("", |at| at.as_str())
    );
    parse_url(&base)?;
    if url.scheme_str() == Some("http") && !url.host().is_some_and(super::is_loopback) {
        return Err(format!(
            "`{text}` could be forged on its way; plain http is for the loopback address only"
        ));
    }
    Ok(text.to_owned())
}
