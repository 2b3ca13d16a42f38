//! Reads the settings of the Stripe accounts, and sees to it that keys are of their mode, that no account has two names,
//! and that nobody moves real money before it is said who may.

use secrecy::ExposeSecret as _;

use super::{Reader, header_safe, parse_name, parts};
use crate::config::{AccountConfig, Config};
use crate::domain::account::AccountHeader;
use crate::domain::operation::{DEFAULT_ALIAS, Mode};
use crate::domain::secret::Secret;

/// Longest id of an account, or path of ids, in characters.
const ACCOUNT_CHARS_MAX: usize = 255;
/// What a key of one mode begins with, by kind and mode (docs.stripe.com/keys).
const PREFIXES: [(&str, Mode); 6] = [
    ("sk_test_", Mode::Test),
    ("rk_test_", Mode::Test),
    ("sk_org_test_", Mode::Test),
    ("sk_live_", Mode::Live),
    ("rk_live_", Mode::Live),
    ("sk_org_live_", Mode::Live),
];
/// What an organisation's key begins with, which need not tell its mode (docs.stripe.com/keys/organization-api-keys).
const ORGANISATION: &str = "sk_org_";

impl Reader<'_> {
    /// The accounts beside the default one, which is of `mode`.
    pub(super) fn accounts(&mut self, mode: Option<Mode>) -> Vec<AccountConfig> {
        let names = self.names("accounts.");
        names.into_iter().filter_map(|alias| self.account(&alias, mode)).collect()
    }

    fn account(&mut self, alias: &str, default_mode: Option<Mode>) -> Option<AccountConfig> {
        let path = format!("accounts.{alias}");
        let named = parse_name(alias).map_err(|what| self.faults.add(&path, what, "")).ok();
        if alias == DEFAULT_ALIAS {
            let what = "is the account of `stripe` and `webhook`; give this one a name of its own";
            self.faults.add(&path, what.to_owned(), "");
        }
        let mode = self.optional(&format!("{path}.mode"), parse_mode).map(|mode| mode.or(default_mode));
        let key = format!("{path}.key");
        let keys = self.required(&key, parse_stripe_keys);
        let webhook_secrets = self.webhook_secrets(&format!("{path}.webhook_secret"));
        let header = self.account_header(&path)?;
        let (mode, keys) = (mode??, keys?);
        self.are_of(mode, &format!("{path}.mode"), &key, &keys);
        self.can_act_on(&header, &key, &keys);
        Some(AccountConfig { alias: named?, mode, keys, webhook_secrets: webhook_secrets?, header })
    }

    /// The secrets of a webhook endpoint, of which there is none where events are read from Stripe's list.
    pub(super) fn webhook_secrets(&mut self, path: &str) -> Option<Vec<Secret>> {
        let polls = self.values.get("events.mode").is_some_and(|found| found.text.as_str() == "poll");
        if polls {
            self.optional(path, parse_webhook_secrets).map(Option::unwrap_or_default)
        } else {
            self.required(path, parse_webhook_secrets)
        }
    }

    /// How the account whose settings stand at `path` is named to Stripe.
    pub(super) fn account_header(&mut self, path: &str) -> Option<AccountHeader> {
        let account = self.optional(&format!("{path}.stripe_account"), parse_account);
        let context = self.optional(&format!("{path}.stripe_context"), parse_context);
        match (account?, context?) {
            (None, None) => Some(AccountHeader::None),
            (Some(id), None) => Some(AccountHeader::StripeAccount(id)),
            (None, Some(context)) => Some(AccountHeader::StripeContext(context)),
            (Some(_), Some(_)) => {
                let what = "and `stripe_account` are both set, and Stripe takes one of them at a time";
                self.faults.add(&format!("{path}.stripe_context"), what.to_owned(), "");
                None
            }
        }
    }

    /// Notes keys that are not of the account's mode.
    pub(super) fn are_of(&mut self, mode: Mode, mode_path: &str, path: &str, keys: &[Secret]) {
        let other = |key: &Secret| mode_of(key.expose_secret()).is_some_and(|own| own != mode);
        if keys.iter().any(other) {
            let (is, said) = match mode {
                Mode::Test => ("live", "test"),
                Mode::Live => ("test", "live"),
            };
            self.faults.add(path, format!("is a {is} key, but `{mode_path}` is `{said}`"), "");
        }
    }

    /// Notes keys of an organisation that are not told on which of its accounts to act.
    pub(super) fn can_act_on(&mut self, header: &AccountHeader, path: &str, keys: &[Secret]) {
        let is_organisations = |key: &Secret| key.expose_secret().starts_with(ORGANISATION);
        if keys.iter().any(is_organisations) && !matches!(header, AccountHeader::StripeContext(_)) {
            let what = "is an organisation's key, which acts on the account that `stripe_context` names and on no other";
            let fix = "give it to an account `accounts.NAME` that has `stripe_context`";
            self.faults.add(path, what.to_owned(), fix);
        }
    }

    /// Notes what cannot stand together.
    pub(super) fn fit_together(&mut self, config: &Config) {
        if config.is_live() && (config.callers.is_empty() || config.policy_files.is_empty()) {
            let what = "`live` moves real money, so it takes callers with credentials (`callers.NAME`) and policies \
                        that say what they may do (`policy.files`; `tollgate policy init` writes some to begin with)";
            self.faults.add("mode", what.to_owned(), "");
        }
        let own = [(DEFAULT_ALIAS, &config.stripe.keys, &config.webhook.secrets, &AccountHeader::None)];
        let others = config.accounts.iter();
        let others = others.map(|one| (one.alias.as_str(), &one.keys, &one.webhook_secrets, &one.header));
        let all: Vec<_> = own.into_iter().chain(others).collect();
        for (at, (alias, keys, secrets, header)) in all.iter().enumerate() {
            for (earlier, their_keys, their_secrets, their_header) in all.iter().take(at) {
                if header == their_header && shared(keys, their_keys) {
                    let what =
                        format!("is the key of `{earlier}` too, and one account cannot have two names");
                    self.faults.add(&format!("accounts.{alias}.key"), what, "");
                }
                if shared(secrets, their_secrets) {
                    let what =
                        format!("is the secret of `{earlier}` too; each account has endpoints of its own");
                    self.faults.add(&format!("accounts.{alias}.webhook_secret"), what, "");
                }
            }
        }
    }
}

fn shared(one: &[Secret], other: &[Secret]) -> bool {
    one.iter().any(|secret| other.contains(secret))
}

fn mode_of(key: &str) -> Option<Mode> {
    PREFIXES.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, mode)| *mode)
}

pub(super) fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "test" => Ok(Mode::Test),
        "live" => Ok(Mode::Live),
        _ => Err(format!("`{text}` is neither `test` nor `live`")),
    }
}

/// Several while one replaces another: all of one account and mode.
pub(super) fn parse_stripe_keys(text: &str) -> Result<Vec<Secret>, String> {
    parts(text).map(parse_stripe_key).collect()
}

fn parse_stripe_key(text: &str) -> Result<Secret, String> {
    if text.starts_with("pk_") {
        return Err(
            "is a publishable key, which cannot do what the gateway does; use `sk_test_...` or `rk_test_...`"
                .into(),
        );
    }
    let mut prefixes = PREFIXES.iter().map(|(prefix, _)| *prefix).chain([ORGANISATION]);
    if !prefixes.any(|prefix| text.len() > prefix.len() && text.starts_with(prefix)) {
        return Err(
            "is not a Stripe key; it begins with `sk_` or `rk_`, then `test_` or `live_`, or with `sk_org_`"
                .into(),
        );
    }
    header_safe(text)
}

fn parse_webhook_secrets(text: &str) -> Result<Vec<Secret>, String> {
    if parts(text).any(str::is_empty) {
        return Err("holds an empty secret, with which anybody could sign events".into());
    }
    Ok(parts(text).map(Secret::from).collect())
}

fn parse_account(text: &str) -> Result<String, String> {
    if is_id(text) && text.starts_with("acct_") {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not the id of an account, `acct_...`"))
    }
}

fn parse_context(text: &str) -> Result<String, String> {
    let last = text.rsplit('/').next().unwrap_or_default();
    if text.len() <= ACCOUNT_CHARS_MAX && text.split('/').all(is_id) && last.starts_with("acct_") {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not a path of ids that ends with an account, such as `acct_1` or `acct_1/acct_2`"
        ))
    }
}

fn is_id(text: &str) -> bool {
    (1..=ACCOUNT_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
