//! What the gateways of the benchmarks have in common: their settings, a sandbox that they stand before, and both in this
//! process. It measures nothing.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate::config::{self, Config, Environment, Flags};
use tollgate::domain::clock::{Clock, SystemClock};
use tollgate::sandbox::{Handle, Options, Sandbox};
use tollgate::server::{self, Running};
use tonic::transport::{Channel, Endpoint};

pub(crate) const KEY: &str = "sk_test_benchmark";
pub(crate) const SECRET: &str = "whsec_benchmark";
pub(crate) const TOKEN: &str = "token-of-the-benchmark";
/// Settings with which no request waits for its turn at Stripe.
pub(crate) const NO_TURNS: &str = "traffic.requests_per_s = 100000\ntraffic.endpoint_requests_per_s = 100000\n\
                                   traffic.requests_at_once_max = 10000\n";
/// A policy with which callers may do everything.
pub(crate) const ALL: &str = "@id(\"all\") permit (principal, action, resource);\n";

/// What differs from one benchmark to the next.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    /// Further settings, each a line `table.key = value`.
    pub(crate) more: &'a str,
    /// What callers may do; empty where nobody is told apart.
    pub(crate) policy: &'a str,
}

/// A gateway before a sandbox, both in this process.
pub(crate) struct Setup {
    pub(crate) gateway: Running,
    pub(crate) sandbox: Handle,
    _folder: TempDir,
}

impl Setup {
    /// Starts both, with the gateway's data below `disk`.
    pub(crate) async fn start(disk: &Path, wanted: Wanted<'_>) -> Self {
        Self::before(sandbox(None).await, disk, wanted).await
    }

    /// Starts a gateway before this sandbox.
    pub(crate) async fn before(sandbox: Handle, disk: &Path, wanted: Wanted<'_>) -> Self {
        let folder = tempfile::tempdir_in(disk).unwrap();
        let config = config(folder.path(), sandbox.address(), wanted);
        let gateway = server::start(config, clock()).await.unwrap();
        Self { gateway, sandbox, _folder: folder }
    }

    /// A connection to the gateway.
    pub(crate) async fn connect(&self) -> Channel {
        connect(self.gateway.grpc).await
    }

    pub(crate) async fn stop(self) {
        self.gateway.stop().await;
        self.sandbox.stop().await;
    }
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

/// A sandbox that lets so many requests a second through, or all.
pub(crate) async fn sandbox(requests_per_s: Option<u32>) -> Handle {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { rate_limit_per_second: requests_per_s, ..Options::new(KEY, clock()) };
    Sandbox::start(listener, options).await.unwrap()
}

pub(crate) async fn connect(gateway: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{gateway}")).unwrap().connect().await.unwrap()
}

/// The settings of a gateway with its data in the folder, by the way that a user's take.
pub(crate) fn config(folder: &Path, stripe: SocketAddr, wanted: Wanted<'_>) -> Config {
    let flags = Flags { config: Some(file(folder, stripe, wanted)), values: Vec::new() };
    config::load(&flags, &Environment::default()).unwrap()
}

/// Writes the file with the settings.
pub(crate) fn file(folder: &Path, stripe: SocketAddr, wanted: Wanted<'_>) -> PathBuf {
    let (file, policy) = (folder.join("tollgate.toml"), folder.join("policy.cedar"));
    let mut text = format!(
        "data = \"{}\"\n{}stripe.key = \"{KEY}\"\nstripe.api_base = \"http://{stripe}\"\n\
         stripe.files_base = \"http://{stripe}\"\nwebhook.secret = \"{SECRET}\"\nevents.sweep_reads_per_day = 0\n\
         listen.lame_duck_s = 0\nlisten.grpc = \"127.0.0.1:0\"\nlisten.webhook = \"127.0.0.1:0\"\nlisten.ops = \"127.0.0.1:0\"\n",
        folder.join("data").display(),
        wanted.more,
    );
    if !wanted.policy.is_empty() {
        text += &format!("policy.files = [\"{}\"]\n", policy.display());
        std::fs::write(&policy, wanted.policy).unwrap();
    }
    std::fs::write(&file, text).unwrap();
    file
}
