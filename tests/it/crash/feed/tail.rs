//! A reader that is a process of its own: `tollgate events tail`, killed at random moments, and started again behind the
//! last whole line that it wrote.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::random::Random;
use super::compare::{Read, Sight, Stream};
use crate::rig::TOKEN;

/// Longest life of the process.
const LIFE_MS_MAX: u64 = 6_000;
/// How often its output is looked at in the end, and after how long without a further line it has come up to the head.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const QUIET: Duration = Duration::from_secs(8);

/// The command, run over and over.
pub(super) struct Tail {
    address: String,
    folder: PathBuf,
    random: Random,
    read: Read,
    /// Where the next life goes on.
    cursor: Option<String>,
    after: u64,
}

/// A process that does not outlive the test.
struct Life {
    child: Child,
    output: PathBuf,
}

impl Tail {
    pub(super) fn new(
        number: usize,
        grpc: SocketAddr,
        types: &[&str],
        folder: &Path,
        random: Random,
    ) -> Self {
        let folder = folder.join(format!("tail-{number}"));
        std::fs::create_dir(&folder).unwrap();
        let types = types.iter().map(ToString::to_string).collect();
        let read = Read { name: format!("tail {number}"), types, ..Read::default() };
        Self { address: grpc.to_string(), folder, random, read, cursor: None, after: 0 }
    }

    /// Lives one life after the other until it has come up to the last event that matches, for which it is given so
    /// much time.
    pub(super) async fn run(mut self, mut end: watch::Receiver<Option<u64>>, patience: Duration) -> Read {
        while end.borrow_and_update().is_none() {
            let mut life = self.begin();
            tokio::select! {
                () = tokio::time::sleep(self.random.pause(LIFE_MS_MAX)) => {}
                _ = end.changed() => {}
            }
            life.kill();
            self.read.deaths += 1;
            self.remember(&life.output);
        }
        // A filter may let nothing through up to the head, and lines have events only: quiet is the end.
        let until = Instant::now() + patience;
        let mut life = self.begin();
        let (mut length, mut quiet_since) = (0, Instant::now());
        while quiet_since.elapsed() < QUIET && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = std::fs::metadata(&life.output).unwrap().len();
            if std::mem::replace(&mut length, now) != now {
                quiet_since = Instant::now();
            }
        }
        life.kill();
        self.remember(&life.output);
        self.read
    }

    fn begin(&self) -> Life {
        let output = self.folder.join(self.read.streams.len().to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let from = self.cursor.as_deref().unwrap_or("earliest");
        command.args(["events", "tail", "-o", "jsonl", "--address", &self.address, "--from", from]);
        if !self.read.types.is_empty() {
            command.args(["--types", &self.read.types.join(",")]);
        }
        command.env_clear().env("TOLLGATE_TOKEN", TOKEN).stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.stdout(File::create(&output).unwrap()).spawn().unwrap();
        Life { child, output }
    }

    /// What it wrote; the last line may be torn.
    fn remember(&mut self, output: &Path) {
        let text = std::fs::read_to_string(output).unwrap();
        let mut sights = Vec::new();
        let after = self.after;
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let event: Value = serde_json::from_str(line).unwrap();
            let part = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            // A number of 64 bits is a text in JSON.
            let position = event["position"].as_u64().or_else(|| part("position").parse().ok()).unwrap();
            sights.push(Sight::Event { position, id: part("id") });
            (self.cursor, self.after) = (Some(part("cursor")), position);
        }
        self.read.streams.push(Stream { after, sights });
    }
}

impl Life {
    /// SIGKILL, unless it ended because it found no gateway.
    fn kill(&mut self) {
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.kill();
    }
}
