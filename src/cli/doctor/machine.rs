//! Looks at the machine: the data folder, its disk, the process's limits and the ports. It makes nothing that stays.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::report::Report;
use crate::config::Config;

/// Free bytes below which the database has no room for long, and below which it has none for a busy day.
const FREE_BYTES_MIN: u64 = 256 << 20;
const FREE_BYTES_LOW: u64 = 2 << 30;
/// Writes that are synced to see how fast the disk is, and the bytes of each.
const SYNCS: usize = 9;
const SYNC_BYTES: usize = 4096;
/// A disk that takes longer to sync holds up every change.
const SYNC_SLOW: Duration = Duration::from_millis(50);
/// Files besides connections: the database, logs, connections to Stripe.
const FILES_BESIDE: usize = 512;
/// Bytes of memory that the secrets of a gateway need to be locked.
const LOCKED_BYTES_MIN: u64 = 256 << 10;
/// File systems that do not keep what was synced, by their numbers in linux/magic.h and what they are called.
const FORGETFUL: &[(u64, &str)] =
    &[(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0x794c_7630, "overlayfs")];
/// File systems whose locks and syncs reach another machine.
const REMOTE: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
];

/// Looks at the data folder and what it lies on.
pub(super) fn folder(dir: &Path, report: &mut Report) {
    match fs::metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            report.pass("data-folder", format!("`{}` will be made at the first start", dir.display()));
        }
        Err(error) => report.fail(
            "data-folder",
            format!("`{}` cannot be looked at: {error}", dir.display()),
            "run `doctor` as the user of the gateway, and let that user own the folder",
        ),
        Ok(found) if !found.is_dir() => report.fail(
            "data-folder",
            format!("`{}` is not a folder", dir.display()),
            "set `data` to a folder of the gateway's own",
        ),
        Ok(found) => {
            if found.permissions().mode() & 0o077 != 0 {
                let mode = found.permissions().mode() & 0o777;
                report.fail(
                    "data-folder",
                    format!("others on this machine can get into `{}` (mode {mode:o})", dir.display()),
                    format!("chmod 700 {}", dir.display()),
                );
            }
            report.pass_if_nothing_else("data-folder", "it is its owner's alone");
            sync(dir, report);
        }
    }
    let existing = dir.ancestors().find(|folder| folder.is_dir());
    disk(existing.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")), report);
}

fn disk(folder: &Path, report: &mut Report) {
    let (space, kind) = match (rustix::fs::statvfs(folder), rustix::fs::statfs(folder)) {
        (Ok(space), Ok(kind)) => (space, kind),
        (Err(error), _) | (_, Err(error)) => {
            let found = format!("the disk of `{}` cannot be looked at: {error}", folder.display());
            report.warn("disk", found, "run `doctor` as the user of the gateway");
            return;
        }
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let found = format!("{} MiB are free for `{}`", free >> 20, folder.display());
    match free {
        ..FREE_BYTES_MIN => report.fail("disk", found, "make room: on a full disk every change is refused"),
        FREE_BYTES_MIN..FREE_BYTES_LOW => {
            report.warn("disk", found, "make room before it is full: on a full disk every change is refused");
        }
        _ => report.pass("disk", found),
    }
    // The kernel's numbers are compared as they are, whatever width and sign the platform gives them.
    let kind = u64::try_from(i128::from(kind.f_type) & 0xffff_ffff).unwrap_or_default();
    let of = |known: &[(u64, &'static str)]| {
        known.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
    };
    if let Some(name) = of(FORGETFUL) {
        report.warn(
            "disk",
            format!("`{}` is on {name}, which is gone with the machine or the container", folder.display()),
            "keep `data` on a disk or a volume that stays: to forget what was paid is to pay it twice",
        );
    }
    if let Some(name) = of(REMOTE) {
        report.warn(
            "disk",
            format!("`{}` is on {name}, another machine's disk", folder.display()),
            "keep `data` on a local disk: locks and syncs over a network do not hold what a database needs",
        );
    }
}

/// Writes and syncs a few times, in a file that is gone afterwards.
fn sync(dir: &Path, report: &mut Report) {
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let times = || -> std::io::Result<Vec<Duration>> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let mut times = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            let began = Instant::now();
            file.write_all(&[0; SYNC_BYTES])?;
            file.sync_all()?;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        Ok(times)
    };
    let times = times();
    // What cannot be removed could not be made either, or is told as that.
    fs::remove_file(&path).ok();
    match times.map(|times| times.get(SYNCS / 2).copied().unwrap_or_default()) {
        Err(error) => report.fail(
            "disk-sync",
            format!("nothing can be written to `{}`: {error}", dir.display()),
            "run `doctor` as the user of the gateway, and let that user write to the folder",
        ),
        Ok(median) if median > SYNC_SLOW => report.warn(
            "disk-sync",
            format!("a synced write takes {} ms (median of {SYNCS})", median.as_millis()),
            "use a disk with a protected write cache: each change waits for two such writes",
        ),
        Ok(median) => report.pass("disk-sync", format!("a synced write takes {} µs", median.as_micros())),
    }
}

/// Looks at the limits that a process of this user begins with.
pub(super) fn limits(config: &Config, report: &mut Report) {
    let enough = |limit: Option<u64>, least: u64| limit.is_none_or(|limit| limit >= least);
    let files = u64::try_from(config.listen.connections_max * 3 + FILES_BESIDE).unwrap_or(u64::MAX);
    let open = getrlimit(Resource::Nofile).current;
    if !enough(open, files) {
        report.warn(
            "limits",
            format!("{} files may be open at once, all connections together need {files}", open.unwrap_or(0)),
            format!("raise it: `ulimit -n {files}`, or `LimitNOFILE={files}` of systemd"),
        );
    }
    let locked = getrlimit(Resource::Memlock).current;
    if !enough(locked, LOCKED_BYTES_MIN) {
        report.warn(
            "limits",
            format!("{} bytes of memory may be locked, secrets need {LOCKED_BYTES_MIN}", locked.unwrap_or(0)),
            "raise it, or keys can end up in swap: `ulimit -l 1024`, or `LimitMEMLOCK=1M` of systemd",
        );
    }
    report.pass_if_nothing_else("limits", "enough files may be open, and enough memory locked");
}

/// Looks whether the ports are free for a gateway that does not run yet.
pub(super) fn ports(config: &Config, report: &mut Report) {
    let listen = &config.listen;
    let wanted = [("grpc", listen.grpc), ("webhook", listen.webhook), ("ops", listen.ops)];
    // All are held until the end, so that one that is given twice is found.
    let mut held = Vec::new();
    for (name, address) in wanted {
        match TcpListener::bind(address) {
            Ok(listener) => held.push(listener),
            Err(error) => report.fail(
                "ports",
                format!("nothing can listen on `{address}`: {error}"),
                fix(name, address, error.kind()),
            ),
        }
    }
    report.pass_if_nothing_else("ports", "all three are free");
}

fn fix(name: &str, address: SocketAddr, kind: ErrorKind) -> String {
    match kind {
        ErrorKind::AddrInUse => {
            format!(
                "stop what listens there (`ss -ltnp 'sport = :{}'`), or set `listen.{name}`",
                address.port()
            )
        }
        ErrorKind::AddrNotAvailable => format!("set `listen.{name}` to an address of this machine"),
        ErrorKind::PermissionDenied => format!("set `listen.{name}` to a port above 1023"),
        _ => format!("set `listen.{name}` to another address"),
    }
}
