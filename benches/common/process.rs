//! Servers that are measured, each a process of its own: the gateway as it is built, and how much processor time and memory
//! a process took. It measures no work.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener as Bound};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::setup::{self, Wanted};

/// Unit of processor times in /proc: a hundredth of a second on every Linux (proc(5), `CLK_TCK`).
const TICK: Duration = Duration::from_millis(10);
/// How often a start is looked at, and how often at most.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS_MAX: usize = 3_000;

/// A process that ends with this.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// What it writes to its log, where that was piped.
    pub(crate) fn log(&mut self) -> ChildStderr {
        self.0.stderr.take().unwrap()
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
        self.status_bytes("VmRSS:")
    }

    /// The most memory that it held since the peak was last forgotten, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// Has the peak begin anew with what it holds now (proc(5), `clear_refs`).
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5").unwrap();
    }

    fn status_bytes(&self, line: &str) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|known| known.strip_prefix(line)).unwrap();
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

/// The gateway, with data of its own.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) grpc: SocketAddr,
    pub(crate) webhook: SocketAddr,
    pub(crate) ops: SocketAddr,
    _folder: TempDir,
}

impl Gateway {
    /// Starts one that keeps its data below `disk`, before the Stripe at that address.
    pub(crate) async fn start(disk: &Path, stripe: SocketAddr, wanted: Wanted<'_>, log: Stdio) -> Self {
        let folder = tempfile::tempdir_in(disk).unwrap();
        let file = setup::file(folder.path(), stripe, wanted);
        let [grpc, webhook, ops] = [(); 3].map(|()| free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["serve", "--config"]).arg(file).env_clear().current_dir(folder.path());
        for (port, address) in [("GRPC", grpc), ("WEBHOOK", webhook), ("OPS", ops)] {
            command.env(format!("TOLLGATE_LISTEN_{port}"), address.to_string());
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let process = Process(child);
        connect(grpc).await;
        Self { process, grpc, webhook, ops, _folder: folder }
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
