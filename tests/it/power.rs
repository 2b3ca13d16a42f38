//! The proof by power cuts: a process writes through the real store, every system call of it that changes a file is
//! traced with its bytes, and at thousands of moments all that was synced is kept while the rest is lost, kept in part or
//! torn by the sector. What is left is opened with the real store. `TOLLGATE_PROVE_CUTS` says how many cuts there are,
//! `TOLLGATE_PROVE_SEED` brings the choices back, `TOLLGATE_PROVE_RESULTS` names a folder for figures.
//!
//! A run has several lives of the writer, most of which end in the middle of their work, so that cuts also meet a store
//! that recovers from a kill, and in some of which system calls fail, so that cuts also meet a store that has lost a sync. The `-shm` file is left out: SQLite empties it before its first use of a database.

mod batches;
mod check;
mod medium;
mod trace;

use std::path::Path;

use tempfile::TempDir;
use tokio::runtime::Builder;

use self::batches::Plan;
use self::check::{Rule, Violations, Word, Written};
use self::medium::{Fate, Medium};
use self::trace::{Step, Tracer};
use crate::crash::planted_binary;
use crate::crash::random::Random;
use crate::prove;

const CUTS_DEFAULT: u64 = 600;
/// Until a planted fault counts as missed.
const CUTS_PLANTED: u64 = 600;
const CUTS_PER_TRACE: u64 = 100;
const LIVES: u64 = 3;
const STEPS_MIN: u64 = 6;
const STEPS_MORE: u64 = 10;
/// Threads that open what the cuts leave.
const WORKERS: usize = 2;
/// In memory if there is such a folder: what the check itself syncs is not judged.
const SCRATCH: &str = "/dev/shm";
const SHOWN_MAX: usize = 3;
/// Every sync from some moment on: a life ends with rows that never reached the disk.
const SYNCS_END: &str = "fsync,fdatasync:error=EIO:when=22+";
/// One sync in five, once the store is open.
const SYNCS_FAIL: &str = "fsync,fdatasync:error=EIO:when=20+5";
/// The sync with which a new database is given its write-ahead log.
const SYNC_OF_LOG: &str = "fsync,fdatasync:error=EROFS:when=5";
/// For a disk that fails at one moment of interest.
const CUTS_DIRECTED: u64 = 300;

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let cuts = prove::setting("TOLLGATE_PROVE_CUTS").unwrap_or(CUTS_DEFAULT);
    let report = Run { planted: None, disk: Disk::FailsByChance, cuts, seed: prove::seed() }.prove();
    prove::keep("power", report.seed, report.cuts, report.total(), &report.note());
    assert_eq!(report.total(), 0, "see the lines above; seed {}", report.seed);
}

#[test]
fn a_disk_that_fails_where_it_hurts_most_loses_nothing_either() {
    for fault in [SYNC_OF_LOG, SYNCS_END] {
        let report =
            Run { planted: None, disk: Disk::FailsFirst(fault), cuts: CUTS_DIRECTED, seed: prove::seed() }
                .prove();
        println!("{}", report.note());
        assert_eq!(report.total(), 0, "under {fault}; see the lines above; seed {}", report.seed);
    }
}

#[test]
fn a_store_with_synchronous_normal_is_caught() {
    caught("synchronous-normal", Disk::Whole, &[Rule::Lost]);
}

#[test]
fn a_store_with_synchronous_off_is_caught() {
    caught("synchronous-off", Disk::Whole, &[Rule::Lost, Rule::Damaged]);
}

#[test]
fn a_store_that_acknowledges_before_the_sync_is_caught() {
    caught("ack-before-sync", Disk::Whole, &[Rule::Lost]);
}

#[test]
fn a_store_that_takes_a_failed_sync_for_a_rollback_is_caught() {
    caught("uncertain-as-failed", Disk::Fails(SYNCS_FAIL), &[Rule::Invented]);
}

#[test]
fn a_store_that_trusts_what_it_finds_after_a_crash_is_caught() {
    caught("recovery-unsynced", Disk::Fails(SYNCS_END), &[Rule::Lost]);
}

fn caught(fault: &'static str, disk: Disk, by: &[Rule]) {
    let report = Run { planted: Some(fault), disk, cuts: CUTS_PLANTED, seed: prove::seed() }.prove();
    let note = report.note();
    let caught = by.iter().any(|rule| report.violations.contains_key(rule));
    prove::planted(fault, caught, &format!("{} violations in {} cuts; {note}", report.total(), report.cuts));
    assert!(caught, "the planted fault was not found; seed {}", report.seed);
}

/// What the system refuses to the writer.
#[derive(Clone, Copy)]
enum Disk {
    Whole,
    Fails(&'static str),
    /// In the first life alone.
    FailsFirst(&'static str),
    /// In half of the lives, each time otherwise.
    FailsByChance,
}

struct Run {
    planted: Option<&'static str>,
    disk: Disk,
    cuts: u64,
    seed: u64,
}

/// What came of it.
#[derive(Default)]
struct Report {
    seed: u64,
    cuts: u64,
    traces: u64,
    begun: usize,
    /// Acknowledged batches, summed over the cuts.
    acked: usize,
    /// Changes that were not synced at the cut, summed over the cuts.
    unsynced: usize,
    /// System calls that were refused to the writer.
    faults: usize,
    violations: Violations,
}

impl Run {
    fn prove(&self) -> Report {
        println!("power, seed {}, planted {:?}", self.seed, self.planted);
        let mut report = Report { seed: self.seed, ..Report::default() };
        // A planted fault needs to be noticed once.
        while report.cuts < self.cuts && (self.planted.is_none() || report.violations.is_empty()) {
            let cuts = CUTS_PER_TRACE.min(self.cuts - report.cuts);
            self.cut_one_trace(self.seed * 1_000 + report.traces, cuts, &mut report);
            report.cuts += cuts;
            report.traces += 1;
        }
        report
    }

    fn cut_one_trace(&self, seed: u64, cuts: u64, report: &mut Report) {
        let folder = TempDir::new().unwrap();
        let mut random = Random::new(seed);
        let (steps, faults) = self.trace(folder.path(), seed, &mut random);
        report.faults += faults;
        let mut word = Word::default();
        let mut all = Medium::default();
        steps.iter().filter_map(|step| all.take(step)).for_each(|line| word.hear(line));
        report.begun += word.begun.len();
        let written = Written::new(&Plan::new(seed), &word.begun);
        let mut points: Vec<(usize, Fate)> = (0..cuts)
            .map(|cut| {
                let point = 1 + random.below(steps.len() as u64);
                (usize::try_from(point).unwrap(), Fate::ALL[usize::try_from(cut).unwrap() % Fate::ALL.len()])
            })
            .collect();
        points.sort_by_key(|(point, _)| *point);
        let lanes = (0..WORKERS).map(|lane| points.iter().skip(lane).step_by(WORKERS).copied().collect());
        let lanes: Vec<Vec<(usize, Fate)>> = lanes.collect();
        let parts: Vec<Report> = std::thread::scope(|scope| {
            let work = lanes.iter().map(|lane| {
                let (root, steps, written, random) = (folder.path(), &steps, &written, random.fork());
                scope.spawn(move || Lane { seed, root, steps, written, random }.run(lane))
            });
            work.collect::<Vec<_>>().into_iter().map(|lane| lane.join().unwrap()).collect()
        });
        for part in parts {
            report.acked += part.acked;
            report.unsynced += part.unsynced;
            for (rule, found) in part.violations {
                report.violations.entry(rule).or_default().extend(found);
            }
        }
    }

    /// The lives of one writer.
    fn trace(&self, folder: &Path, seed: u64, random: &mut Random) -> (Vec<Step>, usize) {
        let binary = planted_binary();
        let [data, word, output] = ["data", "word", "trace"].map(|name| folder.join(name));
        let tracer = Tracer { root: folder, word: &word, output: &output };
        for life in 0..LIVES {
            let steps = STEPS_MIN + random.below(STEPS_MORE);
            let end = if random.below(3) == 0 { "close" } else { "drop" };
            let mut args = vec!["write-store".to_owned()];
            args.extend([&data, &word].map(|path| path.display().to_string()));
            args.extend([seed, life, steps].map(|number| number.to_string()));
            args.push(end.to_owned());
            let fault = match self.disk {
                Disk::Fails(fault) => Some(fault.to_owned()),
                Disk::FailsFirst(fault) if life == 0 => Some(fault.to_owned()),
                Disk::FailsByChance if random.below(2) == 0 => Some(fault_by_chance(random)),
                Disk::Whole | Disk::FailsFirst(_) | Disk::FailsByChance => None,
            };
            if let Some(fault) = &fault {
                println!("trace {seed}, life {life}: {fault}");
            }
            tracer.run(&binary, &args, self.planted, fault.as_slice());
        }
        (tracer.steps(), tracer.refused())
    }
}

/// A call that fails from some moment on, once or again and again, as `strace --inject` has it.
fn fault_by_chance(random: &mut Random) -> String {
    let call =
        random.pick(&["fsync,fdatasync", "fsync,fdatasync", "pwrite64", "ftruncate", "unlink,unlinkat"]);
    let error = random.pick(&["EIO", "ENOSPC", "EROFS"]);
    let first = 4 + random.below(if *call == "pwrite64" { 300 } else { 22 });
    let again = match random.below(3) {
        0 => String::new(),
        1 => "+".to_owned(),
        _ => format!("+{}", 2 + random.below(15)),
    };
    format!("{call}:error={error}:when={first}{again}")
}

/// One thread's share of the cuts.
struct Lane<'a> {
    seed: u64,
    root: &'a Path,
    steps: &'a [Step],
    written: &'a Written,
    random: Random,
}

impl Lane<'_> {
    fn run(mut self, cuts: &[(usize, Fate)]) -> Report {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (mut medium, mut word, mut report) = (Medium::default(), Word::default(), Report::default());
        let mut taken = 0;
        for (point, fate) in cuts {
            self.steps[taken..*point]
                .iter()
                .filter_map(|step| medium.take(step))
                .for_each(|line| word.hear(line));
            taken = *point;
            let image = medium.cut(*fate, &mut self.random);
            let scratch = scratch();
            check::lay(&image, self.root, scratch.path());
            let data = scratch.path().join("data");
            let found = check::violations(&data, &word, self.written, &mut self.random);
            for (rule, what) in runtime.block_on(found) {
                let what = what
                    .into_iter()
                    .map(|what| format!("trace {}, step {point}, {fate:?}: {what}", self.seed));
                report.violations.entry(rule).or_default().extend(what);
            }
            report.acked += word.acked.len();
            report.unsynced += medium.unsynced();
        }
        report
    }
}

fn scratch() -> TempDir {
    TempDir::new_in(SCRATCH).or_else(|_| TempDir::new()).unwrap()
}

impl Report {
    fn total(&self) -> usize {
        self.violations.values().map(Vec::len).sum()
    }

    /// What it did besides the count, and examples of what it found.
    fn note(&self) -> String {
        let Self { traces, begun, faults, acked, unsynced, violations, .. } = self;
        for (rule, found) in violations {
            println!("  {:>5} x {}", found.len(), rule.says());
            found.iter().take(SHOWN_MAX).for_each(|one| println!("          {one}"));
        }
        // A run whose cuts met no work proves nothing.
        assert!(*acked > 0 && *unsynced > 0, "the cuts met no work");
        format!(
            "{traces} traces with {begun} batches and {faults} refused calls, \
             {acked} acknowledgements checked, {unsynced} unsynced changes at stake"
        )
    }
}
