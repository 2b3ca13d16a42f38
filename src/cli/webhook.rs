//! `tollgate webhook`: the webhook endpoints at Stripe. It shows no secret; a new one goes straight into a file.

mod secret_file;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::time::Instant;

use self::secret_file::SecretFile;
use super::config::Source;
use super::failure::{Failure, say};
use super::output::{Choice, Format};
use super::stripe;
use crate::config::{self, Environment};
use crate::domain::account::AccountHeader;
use crate::domain::operation::DEFAULT_ALIAS;
use crate::domain::secret::Secret;
use crate::stripe::webhook_endpoints::{
    ALL_EVENTS, EndpointError, WebhookEndpoint, is_connected, recommended_events,
};
use crate::stripe::{Client, STRIPE_VERSION};

/// How long Stripe may take for one request and its repetitions.
const WAIT: Duration = Duration::from_secs(60);
/// Where the gateway takes webhooks.
const PATH: &str = "/webhooks/stripe";

/// What to do with webhook endpoints.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register an endpoint for this gateway, in the version that it reads, and keep the endpoint's secret
    Register(Register),
    /// Show the endpoints of the account
    List {
        #[command(flatten)]
        way: Way,
        #[command(flatten)]
        output: Choice,
    },
    /// Remove an endpoint
    Delete {
        /// The endpoint, `we_...`
        id: String,
        #[command(flatten)]
        way: Way,
    },
}

/// Arguments of `register`.
#[derive(Debug, Args)]
pub(super) struct Register {
    /// Where Stripe reaches this gateway, https://HOST/webhooks/stripe
    #[arg(long)]
    url: String,
    /// Event types, separated by commas, or * for nearly all [default: those that the gateway and a payment desk need]
    #[arg(long, value_delimiter = ',')]
    events: Vec<String>,
    /// Ask for the events of connected accounts instead of the account's own; goes without saying for an account with
    /// `stripe_account`
    #[arg(long)]
    connected: bool,
    /// File that the secret is added to [default: the one of webhook.secret_file]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    way: Way,
    #[command(flatten)]
    output: Choice,
}

/// By which settings and key Stripe is asked.
#[derive(Debug, Args)]
pub(super) struct Way {
    #[command(flatten)]
    source: Source,
    /// Alias of the Stripe account
    #[arg(long, value_name = "ALIAS", default_value = DEFAULT_ALIAS)]
    account: String,
    /// File with another API key for this one command; the gateway's own needs no right to webhook endpoints
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Way {
    fn client(&self) -> Result<(Client, AccountHeader), Failure> {
        let (mut settings, mode, header) =
            config::stripe(&self.source.flags(), &Environment::current(), &self.account)?;
        if let Some(file) = &self.key_file {
            let key = fs::read_to_string(file)
                .map_err(|error| Failure::Data(format!("cannot read `{}`: {error}", file.display())))?;
            settings.keys = vec![Secret::from(key.trim_end())];
        }
        Ok((stripe::client(&settings, mode)?, header))
    }
}

/// Runs the command.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Register(arguments) => register(arguments).await,
        Command::List { way, output } => list(&way, output).await,
        Command::Delete { id, way } => {
            let (client, header) = way.client()?;
            let deleted = client.delete_webhook_endpoint(&id, &header, Some(Instant::now() + WAIT)).await;
            deleted.map_err(|error| failure(&error))?;
            say(&format!("`{id}` is gone; take its secret out of the file of webhook secrets"));
            Ok(())
        }
    }
}

async fn register(arguments: Register) -> Result<(), Failure> {
    check_url(&arguments.url, &arguments.way.account)?;
    let (client, header) = arguments.way.client()?;
    if let (true, AccountHeader::StripeContext(_)) = (arguments.connected, &header) {
        let what = "the account has endpoints of its own, since `stripe_context` reaches it: leave `--connected` out";
        return Err(Failure::Data(what.to_owned()));
    }
    let connected = arguments.connected || is_connected(&header);
    // Whether the secret can be kept has to be known before there is one.
    let file = SecretFile::open(secret_file(&arguments)?)?;
    let events = match arguments.events.is_empty() {
        true => recommended_events().into_iter().map(str::to_owned).collect(),
        false => arguments.events,
    };
    let deadline = || Some(Instant::now() + WAIT);
    let before = client.webhook_endpoints(&header, deadline()).await.map_err(|error| failure(&error))?;
    let made =
        client.create_webhook_endpoint(&arguments.url, &events, (&header, connected), deadline()).await;
    let (endpoint, secret) = made.map_err(|error| failure(&error))?;
    let path = file.path().display().to_string();
    if let Err(error) = file.add(&secret) {
        // An endpoint whose secret nobody has is of no use to anybody.
        let gone = client.delete_webhook_endpoint(&endpoint.id, &header, deadline()).await;
        let rest = match gone {
            Ok(()) => "the endpoint was removed again".to_owned(),
            Err(gone) => format!("and the endpoint `{}` could not be removed: {gone}", endpoint.id),
        };
        return Err(Failure::Start(format!("cannot write `{path}`: {error}; {rest}")));
    }
    for other in before.iter().filter(|other| other.url == endpoint.url) {
        say(&format!(
            "`{0}` has the same URL: once events come with the new secret, run `tollgate webhook delete {0}`",
            other.id
        ));
    }
    let mut output = arguments.output.open();
    match output.format() {
        Format::Table => {
            let of = if connected { ", for the events of connected accounts" } else { "" };
            output.line(&format!(
                "registered `{}` for `{}` ({STRIPE_VERSION}){of}",
                endpoint.id, endpoint.url
            ))?;
            output.line(&format!("its secret was added to `{path}`; a gateway that runs on it takes it up"))
        }
        _ => {
            let mut shown = shown(&endpoint);
            if let Some(members) = shown.as_object_mut() {
                members.insert("secret_file".to_owned(), json!(path));
            }
            output.value(&shown)
        }
    }
}

fn secret_file(arguments: &Register) -> Result<PathBuf, Failure> {
    let way = &arguments.way;
    let configured =
        || config::webhook_secret_file(&way.source.flags(), &Environment::current(), &way.account);
    arguments.secret_file.clone().or_else(configured).ok_or_else(|| {
        Failure::Data(
            "no file for the secret: give `--secret-file`, or set `webhook.secret_file` in the configuration"
                .into(),
        )
    })
}

/// Stripe delivers over TLS; a sandbox on this machine does without.
fn check_url(url: &str, alias: &str) -> Result<(), Failure> {
    let wrong = |why: &str| Err(Failure::Data(format!("`{url}` {why}")));
    let Ok(parsed) = url.parse::<::http::Uri>() else { return wrong("is not a URL") };
    let local = matches!(parsed.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
    match parsed.scheme_str() {
        Some("https") => {}
        Some("http") if local => {}
        _ => return wrong("does not begin with `https://`, and Stripe delivers to nothing else"),
    }
    let path = if alias == DEFAULT_ALIAS { PATH.to_owned() } else { format!("{PATH}/{alias}") };
    if !parsed.path().trim_end_matches('/').ends_with(&path) {
        say(&format!(
            "note: the gateway takes these webhooks at `{path}`; a proxy has to lead `{url}` there"
        ));
    }
    Ok(())
}

async fn list(way: &Way, output: Choice) -> Result<(), Failure> {
    let (client, header) = way.client()?;
    let endpoints = client.webhook_endpoints(&header, Some(Instant::now() + WAIT)).await;
    let rows: Vec<_> = endpoints.map_err(|error| failure(&error))?.iter().map(shown).collect();
    let mut output = output.open();
    match output.format() {
        Format::Table => output.table(
            &[
                ("ID", "/id"),
                ("STATUS", "/status"),
                ("VERSION", "/api_version"),
                ("EVENTS", "/events"),
                ("URL", "/url"),
            ],
            &rows,
        ),
        Format::Json => output.value(&json!({"webhook_endpoints": rows})),
        Format::Jsonl => rows.iter().try_for_each(|row| output.value(row)),
    }
}

fn shown(endpoint: &WebhookEndpoint) -> serde_json::Value {
    let all = endpoint.enabled_events.iter().any(|event| event == ALL_EVENTS);
    let events = if all { "all".to_owned() } else { endpoint.enabled_events.len().to_string() };
    json!({
        "id": endpoint.id, "status": endpoint.status, "api_version": endpoint.api_version, "events": events,
        "enabled_events": endpoint.enabled_events, "url": endpoint.url,
    })
}

fn failure(error: &EndpointError) -> Failure {
    match error {
        EndpointError::NoPermission => Failure::Data(format!(
            "{error}: allow the restricted key to write them in the Dashboard, or give another key with `--key-file`"
        )),
        EndpointError::Unknown(_) => {
            Failure::Unreachable(format!("{error}; see `tollgate webhook list` before you try again"))
        }
        EndpointError::NotSent(_) | EndpointError::Foreign => Failure::Unreachable(error.to_string()),
        EndpointError::Refused { .. } => Failure::Data(error.to_string()),
    }
}
