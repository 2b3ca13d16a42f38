//! The gateway as a process of its own: started, killed, started again on the same data and ports. It never outlives the
//! test.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tollgate::domain::clock::{Clock as _, SystemClock};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::compare::{Rule, Violations};
use super::random::Random;
use crate::rig::{KEY, SECRET, TOKEN};

/// Longest that a start or a stop may take.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a start or a stop is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Ports are taken from below those that the system gives to outgoing connections: one of these could take a port while
/// the gateway is down.
const PORT_MIN: u64 = 15_000;
const PORTS: u64 = 15_000;
/// Ports given to the runs of this process, for good.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// The binary and where it lives.
pub(crate) struct Gateway {
    binary: PathBuf,
    pub(crate) planted: Option<&'static str>,
    folder: PathBuf,
    pub(crate) grpc: SocketAddr,
    pub(crate) webhook: SocketAddr,
    child: Option<Child>,
    /// How often the process was killed, by us or by itself at a point it was told.
    pub(crate) kills: u64,
}

impl Gateway {
    /// Writes the configuration; starts nothing.
    pub(crate) fn new(
        binary: PathBuf,
        planted: Option<&'static str>,
        folder: &Path,
        stripe: SocketAddr,
    ) -> Self {
        let [grpc, webhook, ops] = free_ports();
        let policy = folder.join("policy.cedar");
        let text = format!(
            r#"
data = "{}"
[stripe]
key = "{KEY}"
api_base = "http://{stripe}"
files_base = "http://{stripe}"
[traffic]
requests_per_s = 100000
endpoint_requests_per_s = 100000
requests_at_once_max = 10000
[webhook]
secret = "{SECRET}"
[listen]
lame_duck_s = 0
grace_s = 30
grpc = "{grpc}"
webhook = "{webhook}"
ops = "{ops}"
[events]
sweep_reads_per_day = 0
[policy]
files = ["{}"]
[callers.prover]
token = "{TOKEN}"
[telemetry]
log = "warn"
"#,
            folder.join("data").display(),
            policy.display()
        );
        std::fs::write(&policy, "@id(\"all\") permit (principal, action, resource);").unwrap();
        std::fs::write(folder.join("tollgate.toml"), text).unwrap();
        Self { binary, planted, folder: folder.to_owned(), grpc, webhook, child: None, kills: 0 }
    }

    /// Adds settings; before the first start.
    pub(crate) fn configure(&self, more: &str) {
        let file = OpenOptions::new().append(true).open(self.folder.join("tollgate.toml"));
        file.unwrap().write_all(more.as_bytes()).unwrap();
    }

    /// Has it read Stripe's own list of events at each start, and so much of what was read before again; before the first
    /// start.
    pub(crate) fn sweep(&self, overlap_s: u64) {
        let file = self.folder.join("tollgate.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(
            file,
            text.replace("sweep_reads_per_day = 0", &format!("sweep_overlap_s = {overlap_s}")),
        )
        .unwrap();
    }

    /// The running process.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "the gateway runs already");
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--config"]).arg(self.folder.join("tollgate.toml"));
        command.env_clear().env("RUST_BACKTRACE", "1").current_dir(&self.folder);
        command.env("KILL_POINTS", self.orders());
        if let Some(fault) = self.planted {
            command.env("PLANTED_FAULT", fault);
        }
        let child = command.stdin(Stdio::null()).stdout(self.log_file()).stderr(self.log_file()).spawn();
        self.child = Some(child.unwrap());
    }

    /// Returns when the health service says that the gateway serves.
    pub(crate) async fn ready(&mut self) {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        let looked = tokio::time::timeout(WAIT_MAX, async {
            loop {
                if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                    panic!("the gateway ended by itself with {status}:\n{}", self.log());
                }
                if serving(&endpoint).await {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        if looked.await.is_err() {
            panic!("the gateway is not ready:\n{}", self.log());
        }
    }

    /// The same, unless the process dies at a point before: then it returns `false`.
    pub(crate) async fn ready_alive(&mut self) -> bool {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        let looked = tokio::time::timeout(WAIT_MAX, async {
            while !self.dead() {
                if serving(&endpoint).await {
                    return true;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            false
        });
        match looked.await {
            Ok(alive) => alive,
            Err(_) => panic!("the gateway is not ready:\n{}", self.log()),
        }
    }

    /// Tells the process, also one that is to be started, to die at the `nth` passage of a point from now on.
    pub(crate) fn order_death(&self, point: &str, nth: u64) {
        // A rename, so that nobody reads half of it; a number, so that equal orders are two.
        let file = self.folder.join("orders.new");
        std::fs::write(&file, format!("{point} {nth}\n{}", self.kills)).unwrap();
        std::fs::rename(file, self.orders()).unwrap();
    }

    /// Takes the order back.
    pub(crate) fn spare(&self) {
        drop(std::fs::remove_file(self.orders()));
    }

    /// Whether the process has killed itself; any other end is a failure.
    pub(crate) fn dead(&mut self) -> bool {
        let Some(child) = self.child.as_mut() else { return true };
        let Some(status) = child.try_wait().unwrap() else { return false };
        assert_eq!(status.signal(), Some(9), "the gateway ended by itself:\n{}", self.log());
        self.child = None;
        self.kills += 1;
        true
    }

    fn orders(&self) -> PathBuf {
        self.folder.join("orders")
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            self.kills += 1;
        }
    }

    /// SIGTERM, and the way that the process ends.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let asked = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
        assert!(asked.unwrap().success(), "SIGTERM was not sent");
        let ended = tokio::time::timeout(WAIT_MAX, async {
            loop {
                if let Some(status) = child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        match ended.await {
            Ok(status) => status,
            Err(_) => {
                child.kill().unwrap();
                child.wait().unwrap()
            }
        }
    }

    /// Notes an end that was no success, and panics in all its lives.
    pub(crate) fn judge_end(&self, ended: ExitStatus, violations: &mut Violations) {
        let log = self.log();
        let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).collect();
        if !ended.success() || !panics.is_empty() {
            let found = violations.entry(Rule::Process).or_default();
            found.extend(panics.into_iter().map(str::to_owned).chain([ended.to_string()]));
        }
    }

    /// Everything that it has written, over all its lives.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("gateway.log")
    }

    fn log_file(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the health service says so.
async fn serving(endpoint: &Endpoint) -> bool {
    let Ok(channel) = endpoint.connect().await else { return false };
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel).check(request).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

/// Ports that no other run of this process has, whatever its seed: a gateway that comes back must not find another in
/// its place.
fn free_ports() -> [SocketAddr; 3] {
    let now = SystemClock::new().wall().unsigned_abs();
    let mut random = Random::new(now ^ u64::from(std::process::id()) << 32);
    let mut taken = TAKEN.lock().unwrap();
    [(); 3].map(|()| {
        loop {
            let port = u16::try_from(PORT_MIN + random.below(PORTS)).unwrap();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if !taken.contains(&port) && TcpListener::bind(address).is_ok() {
                taken.insert(port);
                return address;
            }
        }
    })
}
