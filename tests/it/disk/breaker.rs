//! Breaks the disk under a running process, and mends it: `strace` is attached, refuses certain system calls on certain
//! files, and is detached again. The process itself is not restarted and does not know.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::crash::random::Random;

const DATABASE: &str = "tollgate.db";
const LOG: &str = "tollgate.db-wal";
/// How `strace` marks a call that it refused.
const REFUSED: &str = "(INJECTED)";
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOKS_MAX: u32 = 6_000;

/// What fails.
#[derive(Clone, Debug)]
pub(crate) struct Breakage {
    calls: &'static str,
    error: &'static str,
    /// Which of the calls, counted for each thread.
    when: &'static str,
    files: &'static [&'static str],
    /// A sync that fails first, so that the database is opened anew while the rest fails.
    sync_first: bool,
}

impl Breakage {
    pub(crate) fn by_chance(random: &mut Random) -> Self {
        let (calls, files, sync_first): (_, &[_], _) = match random.below(8) {
            0..=1 => ("pwrite64", &[LOG], false),
            2..=3 => ("fsync,fdatasync", &[LOG], false),
            4 => ("pwrite64,fsync,fdatasync,ftruncate,openat", &[LOG, DATABASE], false),
            5 => ("openat", &[LOG, DATABASE], true),
            6 => ("pwrite64,fsync,fdatasync,ftruncate", &[DATABASE], true),
            _ => ("ftruncate", &[LOG], true),
        };
        let error = *random.pick(&["EIO", "ENOSPC", "EROFS"]);
        let when = *random.pick(&["1", "2", "3", "1+", "1+", "1+2", "2+3"]);
        Self { calls, error, when, files, sync_first }
    }

    /// No commit can become durable.
    pub(crate) fn stops_writing(&self) -> bool {
        self.when == "1+" && self.files.contains(&LOG) && self.calls != "ftruncate" && !self.sync_first
    }

    /// It ends by itself.
    pub(crate) fn passes(&self) -> bool {
        !self.when.contains('+')
    }
}

/// A disk that is broken until it is mended.
pub(crate) struct Broken {
    strace: Child,
    output: PathBuf,
}

impl Broken {
    /// Returns when the breakage is in force.
    pub(crate) async fn attach(process: u32, data: &Path, breakage: &Breakage, output: PathBuf) -> Self {
        let Breakage { calls, error, when, files, sync_first } = breakage;
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "0", "-p", &process.to_string()]);
        for file in *files {
            command.arg("-P").arg(data.join(file));
        }
        if *sync_first {
            let log = data.join(LOG);
            command.arg("-P").arg(log).arg("--inject=fsync,fdatasync:error=EIO:when=1");
        }
        command.arg(format!("--inject={calls}:error={error}:when={when}"));
        let said = File::create(&output).unwrap();
        let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn();
        let mut broken =
            Self { strace: strace.expect("`strace` is missing; scripts/tools installs it"), output };
        let attached = broken.says("attached").await;
        assert!(attached, "`strace` was not attached: {}", broken.said());
        broken
    }

    /// Whether a call has been refused; waits for the first for a while.
    pub(crate) async fn bites(&mut self) -> bool {
        self.says(REFUSED).await
    }

    /// Lets the process go; answers how many calls were refused.
    pub(crate) async fn mend(mut self) -> usize {
        let asked = Command::new("kill").args(["-INT", &self.strace.id().to_string()]).status();
        assert!(asked.unwrap().success(), "SIGINT was not sent");
        for _ in 0..LOOKS_MAX {
            if self.strace.try_wait().unwrap().is_some() {
                return self.said().matches(REFUSED).count();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("`strace` does not end");
    }

    async fn says(&mut self, what: &str) -> bool {
        for _ in 0..LOOKS_MAX / 10 {
            if self.said().contains(what) {
                return true;
            }
            assert_eq!(self.strace.try_wait().unwrap(), None, "`strace` ended: {}", self.said());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        false
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap()).into_owned()
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        drop(self.strace.kill());
        drop(self.strace.wait());
    }
}
