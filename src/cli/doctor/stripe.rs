//! Looks at Stripe's side: the key, its account and rights, the clocks, and the webhook endpoints. It changes nothing
//! there.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::super::stripe::client;
use super::report::Report;
use crate::config::{self, Config};
use crate::contract::METHODS;
use crate::domain::account::AccountHeader;
use crate::domain::clock::{Clock as _, SystemClock};
use crate::domain::limits::CLOCK_DIFFERENCE_MS_MAX;
use crate::domain::operation::{DEFAULT_ALIAS, Mode};
use crate::domain::secret::Secret;
use crate::stripe::rights::{Needed, Right, Standing, needed};
use crate::stripe::webhook_endpoints::{EndpointError, WebhookEndpoint, needed_events, recommended_events};
use crate::stripe::{AccountError, Client, STRIPE_VERSION};

/// How long all questions of one kind to Stripe may take.
const WAIT: Duration = Duration::from_secs(30);
/// A clock that is so far off is on its way to be wrong, in milliseconds; Stripe's `Date` has whole seconds.
const CLOCK_DRIFT_MS: u64 = 10_000;
/// Where a gateway takes webhooks; an endpoint whose URL ends with it is taken for a gateway's.
const WEBHOOK_PATH: &str = "/webhooks/stripe";
/// Secrets of one endpoint that can be valid at once while one is rotated.
const SECRETS_WHILE_ROTATING: usize = 2;

/// One account as configured.
#[derive(Debug)]
pub(super) struct Account<'a> {
    pub(super) alias: &'a str,
    mode: Mode,
    keys: &'a [Secret],
    secrets: &'a [Secret],
    header: &'a AccountHeader,
}

/// All accounts as configured, the default first.
pub(super) fn accounts(config: &Config) -> impl Iterator<Item = Account<'_>> {
    let header = &AccountHeader::None;
    let (keys, secrets) = (&config.stripe.keys, &config.webhook.secrets);
    let others = config.accounts.iter().map(|one| Account {
        alias: &one.alias,
        mode: one.mode,
        keys: &one.keys,
        secrets: &one.webhook_secrets,
        header: &one.header,
    });
    std::iter::once(Account { alias: DEFAULT_ALIAS, mode: config.mode, keys, secrets, header }).chain(others)
}

impl Account<'_> {
    /// Looks at everything, as far as the key allows; the account's id, if Stripe told it.
    pub(super) async fn look(&self, config: &Config, report: &mut Report) -> Option<String> {
        secrets(self.secrets, report);
        let settings = config::Stripe { keys: self.keys.to_vec(), ..config.stripe.clone() };
        let client = match client(&settings, self.mode) {
            Ok(client) => client,
            Err(error) => {
                report.fail("account", error.to_string(), "set the key and `stripe.api_base` anew");
                return None;
            }
        };
        let id = account(&client, self.header, report).await?;
        for key in client.one_by_one() {
            rights(&key, self.header, report).await;
        }
        report.pass_if_nothing_else("key", "every right that can be tried is there");
        endpoints(&client, self, report).await;
        Some(id)
    }

    /// Where the gateway takes its webhooks.
    fn path(&self) -> String {
        if self.alias == DEFAULT_ALIAS {
            WEBHOOK_PATH.to_owned()
        } else {
            format!("{WEBHOOK_PATH}/{}", self.alias)
        }
    }

    /// How an endpoint for it is registered.
    fn register(&self, url: &str) -> String {
        let account =
            if self.alias == DEFAULT_ALIAS { String::new() } else { format!(" --account {}", self.alias) };
        format!("tollgate webhook register --url {url}{account}")
    }
}

fn secrets(secrets: &[Secret], report: &mut Report) {
    if secrets.iter().any(|secret| !secret.expose_secret().starts_with("whsec_")) {
        report.fail(
            "webhook-secret",
            "a webhook secret does not begin with `whsec_`, so no event of Stripe's can be signed with it",
            "take it from the endpoint's page in the Dashboard, or run `tollgate webhook register`",
        );
    }
    if secrets.len() > SECRETS_WHILE_ROTATING {
        report.warn(
            "webhook-secret",
            format!("{} webhook secrets are valid at once", secrets.len()),
            "remove those of endpoints that are gone: whoever has one can forge events",
        );
    }
    report.pass_if_nothing_else("webhook-secret", format!("{} is set", secrets.len()));
}

async fn account(client: &Client, header: &AccountHeader, report: &mut Report) -> Option<String> {
    let error = match client.own_account(header, Instant::now() + WAIT).await {
        Ok(own) => {
            let mode = client.mode().as_str();
            report.pass("account", format!("the key belongs to `{}`, {mode} mode", own.id));
            clock(own.date_s, report);
            return Some(own.id);
        }
        Err(error) => error,
    };
    let fix = match &error {
        AccountError::KeyRefused => {
            "put a key that is valid into the settings: Dashboard, Developers, API keys; it may have been rolled"
        }
        AccountError::NoPermission => {
            "edit the restricted key in the Dashboard and allow it to read its account"
        }
        AccountError::ModeHidden => {
            "edit the organisation's key in the Dashboard and allow it to read the balance"
        }
        AccountError::OtherMode(_) => {
            "set the account's key to one of its `mode`, or its `mode` to that of the key"
        }
        AccountError::NoAnswer(_) => {
            "let this machine connect to `stripe.api_base`: DNS, firewall, and the system's certificate authorities; \
             no proxy is used"
        }
        AccountError::Status(_) => "look at status.stripe.com, and try again",
        AccountError::Foreign => {
            "set `stripe.api_base` to Stripe's own address; something else answers there"
        }
    };
    report.fail("account", error.to_string(), fix);
    None
}

fn clock(stripe_s: Option<i64>, report: &mut Report) {
    let Some(stripe_ms) = stripe_s.map(|seconds| seconds.saturating_mul(1_000)) else {
        report.warn("clock", "Stripe told no time", "see that no proxy removes the header `Date`");
        return;
    };
    let apart_ms = SystemClock::new().wall().abs_diff(stripe_ms);
    let found = format!("the clock of this machine and Stripe's are {} s apart", apart_ms / 1_000);
    let fix = "synchronise the clock (NTP: chrony or systemd-timesyncd); webhooks are refused, and keys counted as \
               older or newer than they are, by a clock that is wrong";
    match apart_ms {
        CLOCK_DIFFERENCE_MS_MAX.. => report.fail("clock", found, fix),
        CLOCK_DRIFT_MS.. => report.warn("clock", found, fix),
        _ => report.pass("clock", "it agrees with Stripe's"),
    }
}

async fn rights(client: &Client, header: &AccountHeader, report: &mut Report) {
    let needed = needed(METHODS.iter().copied());
    if !client.is_restricted() {
        let names: Vec<_> = needed.iter().map(|needed| needed.right.to_string()).collect();
        report.warn(
            "key",
            "the key may do everything with the account",
            format!("make a restricted key with these rights and use it instead: {}", names.join(", ")),
        );
        return;
    }
    let found = client.rights(&needed, header, Some(Instant::now() + WAIT)).await;
    for (needed, (right, standing)) in needed.iter().zip(&found) {
        lacking(needed, right, standing, report);
    }
}

fn lacking(needed: &Needed, right: &Right, standing: &Standing, report: &mut Report) {
    let methods = needed.methods.join(", ");
    match standing {
        Standing::Held => {}
        Standing::Missing { permission } => {
            let name = permission.as_ref().map(|name| format!(" (`{name}`)")).unwrap_or_default();
            report.fail(
                "key",
                format!("the key lacks the right `{right}`{name}, which these need: {methods}"),
                format!("edit the restricted key in the Dashboard and allow `{right}`{name}"),
            );
        }
        // Nothing can be done about it, and a warning that never goes away is not read.
        Standing::Untold(_) if !needed.can_be_tried() => {}
        Standing::Untold(why) => report.warn(
            "key",
            format!("whether the key has the right `{right}` is not known: {why}"),
            "run `tollgate doctor` again",
        ),
    }
}

async fn endpoints(client: &Client, account: &Account<'_>, report: &mut Report) {
    let endpoints = match client.webhook_endpoints(account.header, Some(Instant::now() + WAIT)).await {
        Ok(endpoints) => endpoints,
        Err(error @ EndpointError::NoPermission) => {
            report.warn(
                "webhook-endpoint",
                format!("the webhook endpoints cannot be looked at: {error}"),
                "allow the restricted key to read webhook endpoints, or look at them in the Dashboard",
            );
            return;
        }
        Err(error) => {
            let found = format!("the webhook endpoints cannot be looked at: {error}");
            report.warn("webhook-endpoint", found, "run `tollgate doctor` again");
            return;
        }
    };
    let path = account.path();
    let leads_here = |endpoint: &&WebhookEndpoint| endpoint.url.trim_end_matches('/').ends_with(&path);
    let ours: Vec<_> = endpoints.iter().filter(leads_here).collect();
    if ours.is_empty() {
        report.fail(
            "webhook-endpoint",
            format!("no webhook endpoint at Stripe has a URL that ends with `{path}`, so no event arrives"),
            format!("run `{}`", account.register(&format!("https://YOUR.HOST{path}"))),
        );
    }
    for endpoint in ours {
        look_at(endpoint, account, report);
    }
    report.pass_if_nothing_else(
        "webhook-endpoint",
        "every event that is needed is delivered, as this build reads it",
    );
}

fn look_at(endpoint: &WebhookEndpoint, account: &Account<'_>, report: &mut Report) {
    let WebhookEndpoint { id, url, api_version, status, .. } = endpoint;
    if status != "enabled" {
        report.fail(
            "webhook-endpoint",
            format!("`{id}` for `{url}` is {status}"),
            "enable it in the Dashboard, once the gateway can be reached; Stripe disables endpoints that fail for days",
        );
    }
    if api_version.as_deref() != Some(STRIPE_VERSION) {
        let version = api_version.as_deref().unwrap_or("the account's default version");
        report.fail(
            "webhook-endpoint",
            format!("`{id}` renders events in `{version}`, this build reads `{STRIPE_VERSION}`"),
            format!(
                "the version of an endpoint cannot be changed: run `{}`, then `tollgate webhook delete {id}`",
                account.register(url)
            ),
        );
    }
    let missing = |types: Vec<&'static str>| -> Vec<&'static str> {
        types.into_iter().filter(|event| !endpoint.delivers(event)).collect()
    };
    let (needed, recommended) = (missing(needed_events()), missing(recommended_events()));
    if !needed.is_empty() {
        report.fail(
            "webhook-endpoint",
            format!("`{id}` does not deliver what unknown outcomes are settled by: {}", needed.join(", ")),
            format!("add these types to the endpoint `{id}` in the Dashboard"),
        );
    } else if !recommended.is_empty() {
        report.warn(
            "webhook-endpoint",
            format!("`{id}` does not deliver {}", recommended.join(", ")),
            format!("add these types to the endpoint `{id}` in the Dashboard"),
        );
    }
}
