//! The machine that a benchmark ran on, in a sentence for its page.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

/// Syncs that are timed to say how fast the disk is.
const SYNCS: usize = 200;

/// Commit, processor, kernel and the disk on which `disk` lies; takes as long as the syncs take.
pub(crate) fn measured(disk: &Path) -> String {
    format!(
        "Measured at commit {} on {}, Linux {}, with {} processors; appending 4 KiB and syncing them takes {} \u{b5}s on \
         its disk.",
        commit(),
        processor(),
        text("/proc/sys/kernel/osrelease"),
        std::thread::available_parallelism().map_or(0, usize::from),
        sync_us(disk),
    )
}

/// How long it takes to append 4 KiB and to make them durable, in microseconds: the run in the middle.
fn sync_us(disk: &Path) -> u128 {
    let folder = tempfile::tempdir_in(disk).unwrap();
    let mut file = File::create(folder.path().join("sync")).unwrap();
    let mut times: Vec<u128> = (0..SYNCS)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[1; 4096]).unwrap();
            file.sync_data().unwrap();
            started.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[SYNCS / 2]
}

fn commit() -> String {
    let asked = std::process::Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    asked.map(|answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned()).unwrap_or_default()
}

fn processor() -> String {
    let known = text("/proc/cpuinfo");
    let name = known.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "an unnamed processor".to_owned(), |(_, name)| name.trim().to_owned())
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
