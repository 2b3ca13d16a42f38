//! The servers that are compared, each a process of its own: the gateway as it is built, and how much processor time a
//! process took. It measures no work.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as Bound};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tollgate::domain::clock::SystemClock;
use tollgate::sandbox::{Handle, Options, Sandbox};

/// Unit of processor times in /proc: a hundredth of a second on every Linux (proc(5), `CLK_TCK`).
const TICK: Duration = Duration::from_millis(10);
/// How often a start is looked at, and how often at most.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS_MAX: usize = 3_000;

/// Connections from the one address that everybody here has.
const CONNECTIONS_MAX: usize = 1_000;

const KEY: &str = "sk_test_benchmark";
pub(crate) const SECRET: &str = "whsec_benchmark";
pub(crate) const TOKEN: &str = "token-of-the-benchmark";

/// A process that ends with this.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Processor time that all its threads took since its start.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.read("stat");
        // The name stands in parentheses and may have anything in it.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u32 =
            fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
        TICK * ticks
    }

    /// Memory that it holds, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The gateway, in front of a sandbox in this process.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) grpc: SocketAddr,
    pub(crate) webhook: SocketAddr,
    sandbox: Handle,
    _folder: TempDir,
}

impl Gateway {
    /// Starts one that keeps its data below `disk`.
    pub(crate) async fn start(disk: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sandbox =
            Sandbox::start(listener, Options::new(KEY, Arc::new(SystemClock::new()))).await.unwrap();
        let (folder, stripe) = (tempfile::tempdir_in(disk).unwrap(), sandbox.address());
        let [grpc, webhook, ops] = [(); 3].map(|()| free_port());
        let (file, policy) = (folder.path().join("tollgate.toml"), folder.path().join("policy.cedar"));
        let text = format!(
            "data = \"{}\"\n[stripe]\nkey = \"{KEY}\"\napi_base = \"http://{stripe}\"\nfiles_base = \"http://{stripe}\"\n\
             [traffic]\nrequests_per_s = 100000\nendpoint_requests_per_s = 100000\nrequests_at_once_max = 10000\n\
             [webhook]\nsecret = \"{SECRET}\"\n\
             [listen]\nconnections_per_address_max = {CONNECTIONS_MAX}\ngrpc = \"{grpc}\"\nwebhook = \"{webhook}\"\nops = \"{ops}\"\n\
             [policy]\nfiles = [\"{}\"]\n[callers.benchmark]\ntoken = \"{TOKEN}\"\n[telemetry]\nlog = \"warn\"\n",
            folder.path().join("data").display(),
            policy.display()
        );
        std::fs::write(&policy, "@id(\"all\") permit (principal, action, resource);").unwrap();
        std::fs::write(&file, text).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["serve", "--config"]).arg(file).env_clear().current_dir(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let process = Process(child);
        connect(grpc).await;
        Self { process, grpc, webhook, sandbox, _folder: folder }
    }

    pub(crate) async fn stop(self) {
        drop(self.process);
        self.sandbox.stop().await;
    }
}

/// Connects as soon as somebody listens there.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    for _ in 0..LOOKS_MAX {
        if let Ok(stream) = TcpStream::connect(address).await {
            stream.set_nodelay(true).unwrap();
            return stream;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("nobody listens at {address}");
}

/// An address that nobody has at the moment.
pub(crate) fn free_port() -> SocketAddr {
    Bound::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
