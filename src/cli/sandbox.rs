//! `tollgate sandbox`: the simulated Stripe alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;

use super::failure::{Failure, say};
use super::signal::StopSignals;
use crate::domain::clock::SystemClock;
use crate::sandbox::{Fault, Further, Options, RestrictedKey, Sandbox, WebhookTarget};

/// Arguments of `sandbox`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where it listens, ip:port
    #[arg(long, default_value = "127.0.0.1:7403")]
    listen: SocketAddr,
    /// The API key that may do everything
    #[arg(long, default_value = "sk_test_sandbox")]
    key: String,
    /// The key of an organisation that all accounts are of, such as sk_org_test_a [default: none]
    #[arg(long, value_name = "KEY")]
    organization_key: Option<String>,
    /// A restricted key and its rights, such as rk_test_a=refund_write,charge_read; can be repeated
    #[arg(long = "restricted-key", value_name = "KEY=RIGHT,RIGHT", value_parser = RestrictedKey::parse)]
    restricted_keys: Vec<RestrictedKey>,
    /// A further account, acct_...=KEY, or acct_... for one that is connected to the first; can be repeated
    #[arg(long = "account", value_name = "ACCOUNT[=KEY]", value_parser = Further::parse)]
    accounts: Vec<Further>,
    /// Where it sends events
    #[arg(long, value_name = "URL", requires = "webhook_secret")]
    webhook_url: Option<String>,
    /// What it signs events with
    #[arg(long, value_name = "SECRET")]
    webhook_secret: Option<String>,
    /// Where it sends events in their thin form, signed with the same secret
    #[arg(long, value_name = "URL", requires = "webhook_secret")]
    thin_webhook_url: Option<String>,
    /// Tries for one delivery of an event, after which it is given up
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    delivery_tries: u32,
    /// A fault, such as drop_after:POST:/v1/refunds:times=1; can be repeated
    #[arg(long = "fault", value_name = "KIND:METHOD:PATH[:SETTINGS]", value_parser = Fault::parse)]
    faults: Vec<Fault>,
    /// File that keeps its state over restarts
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Seed of its ids and of faults by chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests that it lets in each second [default: any number]
    #[arg(long)]
    rate_limit: Option<u32>,
}

/// Runs the sandbox until a signal stops it.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut signals = StopSignals::take();
    let listener = bind(arguments.listen).await?;
    let target = |url: Option<String>| -> Vec<WebhookTarget> {
        let target = url.zip(arguments.webhook_secret.clone());
        target.map(|(url, secret)| WebhookTarget { url, secrets: vec![secret] }).into_iter().collect()
    };
    let options = Options {
        webhooks: target(arguments.webhook_url),
        thin_webhooks: target(arguments.thin_webhook_url),
        delivery_tries_max: arguments.delivery_tries,
        organisation_key: arguments.organization_key,
        restricted_keys: arguments.restricted_keys,
        accounts: arguments.accounts,
        faults: arguments.faults,
        state_file: arguments.state,
        seed: arguments.seed,
        rate_limit_per_second: arguments.rate_limit,
        ..Options::new(arguments.key, Arc::new(SystemClock::new()))
    };
    let sandbox =
        Sandbox::start(listener, options).await.map_err(|error| Failure::Start(error.to_string()))?;
    say(&format!("sandbox ready at http://{}", sandbox.address()));
    signals.next().await;
    sandbox.stop().await;
    Ok(())
}

/// A listener for the sandbox.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| Failure::Start(format!("cannot listen on `{address}`: {error}")))
}
