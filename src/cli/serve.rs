//! `tollgate serve`: the gateway by its configuration, until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::hardening;
use super::signal::{StopSignals, reload_signal};
use crate::config::{self, CONFIG_VARIABLE, Config, Environment, Flags, Loader, LogFormat};
use crate::domain::clock::SystemClock;
use crate::server::{self, Running, Supervisor};
use crate::telemetry;

/// Arguments of `serve`. Every setting is described in docs/config.md; secrets have no flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file [default: tollgate.toml, if there is one]
    #[arg(long, env = CONFIG_VARIABLE)]
    config: Option<PathBuf>,
    /// Folder of the database
    #[arg(long)]
    data: Option<String>,
    /// Where callers connect, ip:port
    #[arg(long)]
    listen_grpc: Option<String>,
    /// Where Stripe delivers webhooks, ip:port
    #[arg(long)]
    listen_webhook: Option<String>,
    /// Where health and metrics are, ip:port
    #[arg(long)]
    listen_ops: Option<String>,
    /// Base URL of Stripe's API
    #[arg(long)]
    stripe_api_base: Option<String>,
    /// Base URL of Stripe's file uploads
    #[arg(long)]
    stripe_files_base: Option<String>,
    /// Which log lines are written, such as info or tollgate=debug,warn
    #[arg(long)]
    log: Option<String>,
    /// Form of log lines: auto, json or text
    #[arg(long)]
    log_format: Option<String>,
    /// Check the configuration, and start nothing
    #[arg(long)]
    check: bool,
}

impl Arguments {
    fn flags(self) -> Flags {
        let given = [
            ("data", self.data),
            ("listen.grpc", self.listen_grpc),
            ("listen.webhook", self.listen_webhook),
            ("listen.ops", self.listen_ops),
            ("stripe.api_base", self.stripe_api_base),
            ("stripe.files_base", self.stripe_files_base),
            ("telemetry.log", self.log),
            ("telemetry.log_format", self.log_format),
        ];
        let values = given.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect();
        Flags { config: self.config, values }
    }
}

/// Runs the gateway until a signal stops it; `weakness` is what could not be hidden so far.
pub(super) async fn run(
    arguments: Arguments,
    environment: Environment,
    weakness: Option<String>,
) -> Result<(), Failure> {
    let weaknesses = weakness.into_iter().chain(hardening::harden());
    let check = arguments.check;
    let supervisor = Supervisor::new(&environment);
    let loader = Loader::new(arguments.flags(), environment);
    let config = loader.load().config?;
    if check {
        return Ok(());
    }
    let telemetry = start_telemetry(&config.telemetry)?;
    weaknesses.for_each(|weakness| tracing::warn!(weakness, "secrets are less safe than they could be"));
    let served = Box::pin(serve(config, loader, &supervisor)).await;
    // Whatever ended it, also at the start, is to be seen.
    telemetry.stop().await;
    served
}

/// From the start to the end.
async fn serve(config: Config, loader: Loader, supervisor: &Supervisor) -> Result<(), Failure> {
    let (mut signals, again) = (StopSignals::take(), reload_signal());
    let running = tokio::select! {
        running = server::start(config, Arc::new(SystemClock::new())) => running,
        () = signals.next() => return Ok(()),
    };
    let mut running = running.map_err(|error| Failure::Start(error.to_string()))?;
    running.follow(loader, again, supervisor.clone());
    tracing::info!(
        grpc = %running.grpc, webhook = %running.webhook, ops = %running.ops, account = running.account, "ready"
    );
    tokio::spawn(supervisor.clone().keep_alive());
    supervisor.ready(true);
    signals.next().await;
    supervisor.stopping();
    stop(running, &mut signals).await;
    Ok(())
}

/// Logs and traces as configured.
pub(super) fn start_telemetry(config: &config::Telemetry) -> Result<telemetry::Guard, Failure> {
    let format = match config.log_format {
        LogFormat::Auto => telemetry::Format::Auto,
        LogFormat::Json => telemetry::Format::Json,
        LogFormat::Text => telemetry::Format::Text,
    };
    let options =
        telemetry::Options { log: config.log.clone(), format, otlp_endpoint: config.otlp_endpoint.clone() };
    telemetry::init(&options).map_err(|error| Failure::Start(error.to_string()))
}

/// Lets open calls finish; a second signal cuts them.
pub(super) async fn stop(running: Running, signals: &mut StopSignals) {
    tracing::info!("stopping; what is on its way is served, open calls may finish, another signal cuts them");
    tokio::select! {
        () = running.stop() => {}
        () = signals.next() => tracing::warn!("cut short by a signal"),
    }
}
