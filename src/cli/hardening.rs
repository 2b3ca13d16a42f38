//! Keeps a gateway's memory and environment to itself. What could not be done is told with its remedy and keeps nothing
//! from starting.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::config::{Environment, HANDED_OVER_VARIABLE};
use crate::domain::secret::Secret;

/// Which mappings a core dump holds, as bits: none (core(5)).
#[cfg(target_os = "linux")]
const CORE_FILTER: (&str, &str) = ("/proc/self/coredump_filter", "0");
/// This program, also after its file was replaced.
#[cfg(target_os = "linux")]
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The environment of a gateway. Where secrets stand in it, the program starts anew, in the same process, without them:
/// the first environment of a process can be read for as long as it lives (`/proc/PID/environ`). The new start finds them
/// at its standard input.
///
/// With it, where secrets stay in sight, what to do about it.
pub(super) fn environment(arguments: &[OsString]) -> (Environment, Option<String>) {
    let environment = Environment::current();
    let exposed: Vec<&str> = environment.exposed().collect();
    if exposed.is_empty() {
        return (environment, None);
    }
    let error = begin_anew(arguments, &environment, &exposed);
    let names = exposed.join(", ");
    let weakness = format!(
        "{names}: readable in the process's environment ({error}); use the variable with `_FILE`, or systemd's credentials"
    );
    (environment, Some(weakness))
}

/// Returns only when it fails.
fn begin_anew(arguments: &[OsString], environment: &Environment, exposed: &[&str]) -> io::Error {
    #[cfg(target_os = "linux")]
    let program = OsString::from(THIS_PROGRAM);
    #[cfg(not(target_os = "linux"))]
    let program = arguments.first().cloned().unwrap_or_default();
    let Some(handed_over) = environment.handed_over() else {
        return io::Error::other("too long");
    };
    let reader = match io::pipe() {
        // The pipe holds all of it, and has its end once the writer is gone.
        Ok((reader, mut writer)) => match writer.write_all(handed_over.expose_bytes()) {
            Ok(()) => reader,
            Err(error) => return error,
        },
        Err(error) => return error,
    };
    let mut command = Command::new(program);
    command.args(arguments.iter().skip(1)).stdin(Stdio::from(reader)).env(HANDED_OVER_VARIABLE, "stdin");
    if let Some(name) = arguments.first() {
        command.arg0(name);
    }
    for name in exposed {
        command.env_remove(name);
    }
    command.exec()
}

/// Shuts out core dumps and other processes of the same user. Afterwards only those with the right to trace every
/// process read its memory or its environment.
///
/// Returns what could not be done.
pub(super) fn harden() -> Vec<String> {
    let mut left = Vec::new();
    // Before the last step, which takes the right to write this file away.
    #[cfg(target_os = "linux")]
    if let Err(error) = std::fs::write(CORE_FILTER.0, CORE_FILTER.1) {
        left.push(format!("a core dump could hold secrets ({error}); mount /proc writable for the process"));
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        left.push(format!("core dumps are not switched off ({error}); run with `ulimit -c 0`"));
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        left.push(format!(
            "other processes of this user can read the memory ({error}); use a user of its own"
        ));
    }
    if !Secret::from("a secret").is_locked() {
        left.push(
            "secrets may be swapped to disk: no memory can be locked; raise `ulimit -l` (systemd: \
             `LimitMEMLOCK=1M`, containers: `--ulimit memlock=1048576`) or switch swap off"
                .to_owned(),
        );
    }
    left
}
