//! `tollgate dev`: sandbox and gateway in one process, with something in them, and what to type next.

mod guide;
mod home;
mod seed;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use self::home::{CALLER, Home, Kept};
use super::failure::Failure;
use super::output::write_line;
use super::sandbox::bind;
use super::serve::{start_telemetry, stop};
use super::signal::StopSignals;
use crate::config::{
    Audit, CallerConfig, Config, Events, EventsMode, Feed, GuardMode, Guards, Listen, LogFormat, Source,
    Stripe, Telemetry, Thin, Traffic, Webhook,
};
use crate::domain::clock::{Clock, SystemClock};
use crate::domain::limits::{
    CALLS_IN_FLIGHT_MAX, CONNECTIONS_MAX, STRIPE_AT_ONCE_MAX, STRIPE_ENDPOINT_REQUESTS_PER_S,
};
use crate::domain::operation::Mode;
use crate::sandbox::{Handle, Options, Sandbox, WebhookTarget};
use crate::server::{self, Running};

const GRPC_PORT: u16 = 7400;
const WEBHOOK_PORT: u16 = 7401;
const OPS_PORT: u16 = 7402;
const SANDBOX_PORT: u16 = 7403;

/// Arguments of `dev`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Listen on ports 7400 to 7403, or on any that are free
    #[arg(long, value_enum, default_value_t = Ports::Default)]
    ports: Ports,
    /// Say that it is ready with one line of JSON, for scripts
    #[arg(long)]
    json_ready: bool,
    /// Keep everything in this folder over restarts [default: a new one that is removed at the end]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Which log lines are written to standard error
    #[arg(long, default_value = "warn")]
    log: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ports {
    Default,
    Random,
}

impl Ports {
    fn address(self, port: u16) -> SocketAddr {
        let port = if self == Self::Random { 0 } else { port };
        (Ipv4Addr::LOCALHOST, port).into()
    }
}

/// What runs, and what is in it.
struct Dev {
    sandbox: Handle,
    gateway: Running,
    kept: Kept,
}

/// Runs both until a signal stops them.
pub(super) async fn run(arguments: Arguments, program: &OsString) -> Result<(), Failure> {
    let log = Telemetry { otlp_endpoint: None, log: arguments.log, log_format: LogFormat::Auto };
    let telemetry = start_telemetry(&log)?;
    let mut signals = StopSignals::take();
    let home = Home::open(arguments.data)?;
    let dev = start(&home, arguments.ports, log).await?;
    if arguments.json_ready {
        write_line(&ready_line(&dev))?;
    } else {
        write_line(&guide::text(&dev, program))?;
    }
    signals.next().await;
    stop(dev.gateway, &mut signals).await;
    dev.sandbox.stop().await;
    telemetry.stop().await;
    Ok(())
}

async fn start(home: &Home, ports: Ports, telemetry: Telemetry) -> Result<Dev, Failure> {
    let mut kept = home.kept()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let options = Options {
        state_file: Some(home.sandbox_file()),
        ..Options::new(kept.stripe_key.clone(), Arc::clone(&clock))
    };
    let listener = bind(ports.address(SANDBOX_PORT)).await?;
    let sandbox =
        Sandbox::start(listener, options).await.map_err(|error| Failure::Start(error.to_string()))?;
    let stripe = format!("http://{}", sandbox.address());
    let config = config(home, &kept, ports, stripe.clone(), telemetry)?;
    let gateway = server::start(config, clock).await.map_err(|error| Failure::Start(error.to_string()))?;
    let url = webhook_url(&gateway);
    let target = WebhookTarget { url, secrets: vec![kept.webhook_secret.clone()] };
    sandbox.control().set_webhooks(vec![target]);
    if kept.seeds.is_none() {
        kept.seeds = Some(seed::fill(&stripe, &kept.stripe_key).await?);
        home.keep(&kept)?;
    }
    Ok(Dev { sandbox, gateway, kept })
}

fn config(
    home: &Home,
    kept: &Kept,
    ports: Ports,
    stripe: String,
    telemetry: Telemetry,
) -> Result<Config, Failure> {
    let policy = home.policy()?;
    let caller = CallerConfig {
        name: CALLER.into(),
        namespace: CALLER.into(),
        groups: Vec::new(),
        weight: 1,
        tokens: vec![kept.token.clone().into()],
        certificates: Vec::new(),
        subjects: Vec::new(),
    };
    Ok(Config {
        mode: Mode::Test,
        stripe: Stripe {
            keys: vec![kept.stripe_key.clone().into()],
            api_base: stripe.clone(),
            files_base: stripe,
            attempt_timeout: Duration::from_secs(80),
            connect_timeout: Duration::from_secs(10),
        },
        traffic: Traffic {
            requests_per_s: None,
            endpoint_requests_per_s: STRIPE_ENDPOINT_REQUESTS_PER_S,
            requests_at_once_max: STRIPE_AT_ONCE_MAX,
        },
        accounts: Vec::new(),
        webhook: Webhook { secrets: vec![kept.webhook_secret.clone().into()] },
        listen: Listen {
            grpc: ports.address(GRPC_PORT),
            webhook: ports.address(WEBHOOK_PORT),
            ops: ports.address(OPS_PORT),
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_MAX,
            calls_in_flight_max: CALLS_IN_FLIGHT_MAX,
            lame_duck: Duration::ZERO,
            grace: Duration::from_secs(85),
        },
        tls: None,
        data: home.gateway_folder(),
        policy_files: vec![policy],
        callers: vec![caller],
        issuers: Vec::new(),
        feed: Feed { checkpoint_interval: Duration::from_secs(15) },
        events: Events {
            mode: EventsMode::Webhook,
            retention_days: 90,
            retention_bytes: 1 << 30,
            retention_hard_days: 180,
            sweep_every: Duration::from_secs(300),
            sweep_overlap: Duration::from_secs(600),
            sweep_types: Vec::new(),
            sweep_reads_per_day: 5_000,
            thin: Thin::AsDelivered,
            memory_bytes: 64 << 20,
        },
        audit: Audit { checkpoint_file: None, signing_key: None, retention_days: 396 },
        budgets: Vec::new(),
        guards: Guards { over_refund: GuardMode::Advise, open_dispute: GuardMode::Advise },
        telemetry,
        source: Source::default(),
    })
}

fn webhook_url(gateway: &Running) -> String {
    format!("http://{}/webhooks/stripe", gateway.webhook)
}

/// For scripts: addresses, credentials and the ids of what was made.
fn ready_line(dev: &Dev) -> String {
    let mut line = json!({
        "grpc": dev.gateway.grpc.to_string(),
        "webhook": format!("http://{}", dev.gateway.webhook),
        "ops": format!("http://{}", dev.gateway.ops),
        "stripe": format!("http://{}", dev.sandbox.address()),
        "token": dev.kept.token,
        "webhook_secret": dev.kept.webhook_secret,
        "stripe_key": dev.kept.stripe_key,
    });
    if let (Some(line), Some(seeds)) = (line.as_object_mut(), &dev.kept.seeds) {
        let seeds = json!(seeds);
        line.extend(seeds.as_object().cloned().unwrap_or_default());
    }
    line.to_string()
}
