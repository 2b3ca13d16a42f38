//! Turns gathered settings into typed ones and applies the rules between them; every fault is noted and none ends the
//! search for more.

mod accounts;
mod budgets;
mod events;
mod identity;
mod listen;
mod policy;
mod traffic;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretBox;

use self::accounts::{parse_mode, parse_stripe_keys};
use super::bytes;
use super::fault::{Fault, Faults};
use super::keys::{self, Shape};
use super::layers::Values;
use super::{
    Audit, Config, Feed, GuardMode, Guards, LogFormat, Roll, SigningKey, Source, Stripe, Telemetry, Webhook,
};
use crate::domain::account::AccountHeader;
use crate::domain::operation::{DEFAULT_ALIAS, Mode};
use crate::domain::secret::Secret;

/// Longest caller name or namespace, in characters.
const NAME_CHARS_MAX: usize = 100;

/// The typed settings, or all faults: those that were found while gathering and those found here.
pub(super) fn config(values: &Values, source: Source, faults: Faults) -> Result<Config, Faults> {
    let mut reader = Reader { values, source, faults };
    let config = reader.config();
    match config {
        Some(config) if reader.faults.0.is_empty() => Ok(config),
        _ => Err(reader.faults),
    }
}

/// Who may call, where that is beyond doubt whatever is wrong with other settings: every fault is known to be one of
/// those. A file that cannot be read and a name that means nothing may have been about callers.
pub(super) fn roll(values: &Values, faults: &Faults) -> Option<Roll> {
    let section = |path: &str| path.split('.').next().unwrap_or_default().to_owned();
    let is_elsewhere = |fault: &Fault| {
        let own = section(&fault.key);
        let is_known = keys::KEYS.iter().any(|key| section(key.path) == own);
        is_known && !fault.is_unknown() && !["callers", "issuers"].contains(&own.as_str())
    };
    if !faults.0.iter().all(is_elsewhere) {
        return None;
    }
    let mut reader = Reader { values, source: Source::default(), faults: Faults::default() };
    let callers = reader.callers();
    let issuers = reader.issuers(&callers);
    if reader.faults.0.is_empty() { Roll::new(callers, issuers) } else { None }
}

/// The settings of Stripe alone, with the keys of the account `alias`; faults of other keys are none of theirs.
pub(super) fn stripe(
    values: &Values,
    faults: Faults,
    alias: &str,
) -> Result<(Stripe, Mode, AccountHeader), Faults> {
    let own = format!("accounts.{alias}.");
    let concerned = |key: &str| ["config", "stripe.", &own].iter().any(|part| key.starts_with(part));
    let faults = Faults(faults.0.into_iter().filter(|fault| concerned(&fault.key)).collect());
    let mut reader = Reader { values, source: Source::default(), faults };
    let mode = reader.required("mode", parse_mode);
    let (mut stripe, mut mode, mut header) = (reader.stripe(mode), mode, Some(AccountHeader::None));
    if alias != DEFAULT_ALIAS {
        let key = format!("{own}key");
        let keys = reader.required(&key, parse_stripe_keys);
        mode = reader.optional(&format!("{own}mode"), parse_mode).and_then(|own| own.or(mode));
        header = reader.account_header(&format!("accounts.{alias}"));
        if let ((Some(mode), Some(keys)), Some(header)) = ((mode, &keys), &header) {
            reader.are_of(mode, &format!("{own}mode"), &key, keys);
            reader.can_act_on(header, &key, keys);
        }
        stripe = stripe.zip(keys).map(|(stripe, keys)| Stripe { keys, ..stripe });
    }
    match (stripe, mode, header) {
        (Some(stripe), Some(mode), Some(header)) if reader.faults.0.is_empty() => Ok((stripe, mode, header)),
        _ => Err(reader.faults),
    }
}

struct Reader<'a> {
    values: &'a Values,
    source: Source,
    faults: Faults,
}

impl Reader<'_> {
    /// Reads everything before it gives up on anything.
    fn config(&mut self) -> Option<Config> {
        let mode = self.required("mode", parse_mode);
        let stripe = self.stripe(mode);
        let traffic = self.traffic();
        let accounts = self.accounts(mode);
        let secrets = self.webhook_secrets("webhook.secret");
        let callers = self.callers();
        let issuers = self.issuers(&callers);
        let policy_files = self.policy_files(!callers.is_empty());
        let tls = self.tls();
        let listen = self.listen(callers.is_empty());
        let data = self.required("data", |text| non_empty(text).map(Into::into));
        let checkpoint_interval = self.seconds("feed.checkpoint_interval_s");
        let events = self.events();
        let audit = self.audit();
        let over_refund = self.required("guards.over_refund", parse_guard_mode);
        let open_dispute = self.required("guards.open_dispute", parse_guard_mode);
        let budgets = self.budgets();
        let telemetry = self.telemetry();
        let config = Config {
            mode: mode?,
            stripe: stripe?,
            traffic: traffic?,
            accounts,
            webhook: Webhook { secrets: secrets? },
            listen: listen?,
            tls: tls?,
            data: data?,
            callers,
            issuers,
            policy_files: policy_files?,
            feed: Feed { checkpoint_interval: checkpoint_interval? },
            events: events?,
            audit: audit?,
            guards: Guards { over_refund: over_refund?, open_dispute: open_dispute? },
            budgets,
            telemetry: telemetry?,
            source: self.source.clone(),
        };
        self.fit_together(&config);
        Some(config)
    }

    fn stripe(&mut self, mode: Option<Mode>) -> Option<Stripe> {
        let keys = self.required("stripe.key", parse_stripe_keys);
        if let Some((mode, keys)) = mode.zip(keys.as_deref()) {
            self.are_of(mode, "mode", "stripe.key", keys);
            self.can_act_on(&AccountHeader::None, "stripe.key", keys);
        }
        let api_base = self.required("stripe.api_base", parse_stripe_base);
        let files_base = self.required("stripe.files_base", parse_stripe_base);
        let attempt_timeout = self.seconds("stripe.attempt_timeout_s");
        let connect_timeout = self.seconds("stripe.connect_timeout_s");
        Some(Stripe {
            keys: keys?,
            api_base: api_base?,
            files_base: files_base?,
            attempt_timeout: attempt_timeout?,
            connect_timeout: connect_timeout?,
        })
    }

    fn audit(&mut self) -> Option<Audit> {
        let checkpoint_file = self.optional("audit.checkpoint_file", non_empty);
        let signing_key = self.optional("audit.signing_key", parse_signing_key);
        let retention_days = self.days("audit.retention_days");
        Some(Audit {
            checkpoint_file: checkpoint_file?.map(Into::into),
            signing_key: signing_key?,
            retention_days: retention_days?,
        })
    }

    fn telemetry(&mut self) -> Option<Telemetry> {
        let otlp_endpoint = self.optional("telemetry.otlp_endpoint", parse_otlp_endpoint);
        let log = self.required("telemetry.log", non_empty);
        let log_format = self.required("telemetry.log_format", parse_log_format);
        Some(Telemetry { otlp_endpoint: otlp_endpoint?, log: log?, log_format: log_format? })
    }

    fn seconds(&mut self, path: &str) -> Option<Duration> {
        let bounds = keys::find(path).map(|key| key.shape);
        self.required(path, |text| {
            let seconds = text.parse().map_err(|_| format!("`{text}` is not a whole number of seconds"))?;
            match bounds {
                Some(Shape::Seconds(low, high)) if !(low..=high).contains(&seconds) => {
                    Err(format!("`{seconds}` is not between {low} and {high} seconds"))
                }
                _ => Ok(Duration::from_secs(seconds)),
            }
        })
    }

    fn days(&mut self, path: &str) -> Option<u32> {
        let bounds = keys::find(path).map(|key| key.shape);
        self.required(path, |text| {
            let days = text.parse().map_err(|_| format!("`{text}` is not a whole number of days"))?;
            match bounds {
                Some(Shape::Days(low, high)) if !(low..=high).contains(&days) => {
                    Err(format!("`{days}` is not between {low} and {high} days"))
                }
                _ => Ok(days),
            }
        })
    }

    /// A whole number within the bounds of its key.
    fn count(&mut self, path: &str) -> Option<usize> {
        self.number(path).and_then(|number| usize::try_from(number).ok())
    }

    fn number(&mut self, path: &str) -> Option<u32> {
        self.required(path, |text| parse_number(path, text))
    }

    fn optional_number(&mut self, path: &str) -> Option<Option<u32>> {
        self.optional(path, |text| parse_number(path, text))
    }

    /// An amount of bytes within the bounds of its key.
    fn bytes(&mut self, path: &str) -> Option<u64> {
        let bounds = keys::find(path).map(|key| key.shape);
        self.required(path, |text| {
            let number = bytes::parse(text);
            let number =
                number.ok_or_else(|| format!("`{text}` is not an amount of bytes such as `64MiB`"))?;
            match bounds {
                Some(Shape::Bytes(low, high)) if !(low..=high).contains(&number) => {
                    Err(format!("`{text}` is not between {} and {}", bytes::shown(low), bytes::shown(high)))
                }
                _ => Ok(number),
            }
        })
    }

    fn required<T>(&mut self, path: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let given = self.optional(path, parse)?;
        if given.is_none() {
            let how = keys::find(path).map(|key| match key.variable {
                "" => String::new(),
                variable => format!("; set it in the file or as `{variable}`"),
            });
            self.faults.add(path, format!("is required{}", how.unwrap_or_default()), "");
        }
        given
    }

    /// `None` for a fault, `Some(None)` for a value that is not set.
    fn optional<T>(&mut self, path: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Option<T>> {
        let Some(found) = self.values.get(path) else { return Some(None) };
        parse(&found.text).map(Some).map_err(|what| self.faults.add(path, what, &found.origin)).ok()
    }
}

/// A whole number within the bounds of its key.
fn parse_number(path: &str, text: &str) -> Result<u32, String> {
    let number = text.parse().map_err(|_| format!("`{text}` is not a whole number"))?;
    match keys::find(path).map(|key| key.shape) {
        Some(Shape::Count(low, high)) if !(low..=high).contains(&number) => {
            Err(format!("`{number}` is not between {low} and {high}"))
        }
        _ => Ok(number),
    }
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty".into()) } else { Ok(text.to_owned()) }
}

/// Secrets that stand side by side, in one line or one in each.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', '\n']).map(str::trim)
}

fn parse_signing_key(text: &str) -> Result<SigningKey, String> {
    let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let wrong = "is not 32 bytes in base64; `openssl rand -base64 32` makes one";
    bytes.map(|bytes| SigningKey(Arc::new(SecretBox::new(Box::new(bytes))))).ok_or_else(|| wrong.to_owned())
}

/// A secret that goes into an HTTP header as it is.
fn header_safe(text: &str) -> Result<Secret, String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.into())
    } else {
        Err("holds a character other than printable ASCII".into())
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let fits = (1..=NAME_CHARS_MAX).contains(&text.len());
    if fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a name: 1 to {NAME_CHARS_MAX} letters, digits, `-` and `_`"))
    }
}

fn parse_url(text: &str) -> Result<http::Uri, String> {
    let url: http::Uri = text.parse().map_err(|_| format!("`{text}` is not a URL"))?;
    // A path, a query or credentials would be lost or leak.
    let bare = url.path_and_query().is_none_or(|rest| rest.as_str() == "/")
        && url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    match url.scheme_str() {
        Some("http" | "https") if bare => Ok(url),
        _ => Err("is not a URL of `http://` or `https://`, a host and perhaps a port".into()),
    }
}

fn parse_stripe_base(text: &str) -> Result<String, String> {
    let url = parse_url(text)?;
    if url.scheme_str() == Some("http") && !url.host().is_some_and(is_loopback) {
        return Err(format!(
            "`{text}` would send the key in the clear; plain http is for the loopback address only"
        ));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn parse_otlp_endpoint(text: &str) -> Result<String, String> {
    match parse_url(text)?.scheme_str() {
        Some("http") => Ok(text.to_owned()),
        _ => {
            Err("must begin with `http://`; run a collector beside the gateway that speaks TLS for it".into())
        }
    }
}

fn parse_guard_mode(text: &str) -> Result<GuardMode, String> {
    match text {
        "off" => Ok(GuardMode::Off),
        "advise" => Ok(GuardMode::Advise),
        "refuse" => Ok(GuardMode::Refuse),
        _ => Err(format!("`{text}` is none of `off`, `advise`, `refuse`")),
    }
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err(format!("`{text}` is none of `auto`, `json`, `text`")),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
