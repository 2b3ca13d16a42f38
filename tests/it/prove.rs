//! What every proof has in common: how large it is, from which seed, and where its figures go. It proves nothing itself.

use std::path::Path;

use tollgate::config::Environment;
use tollgate::domain::clock::{Clock as _, SystemClock};

/// Seeds are short, so that they are easy to type.
const SEEDS: u64 = 1_000_000;

/// A number from the environment, such as the size of a proof.
pub(crate) fn setting(name: &str) -> Option<u64> {
    Environment::current().get(name).map(|value| value.parse().unwrap())
}

/// A text from the environment.
pub(crate) fn text(name: &str) -> Option<String> {
    Environment::current().get(name).map(str::to_owned)
}

/// What a run's choices are made from: `TOLLGATE_PROVE_SEED`, or the time.
pub(crate) fn seed() -> u64 {
    setting("TOLLGATE_PROVE_SEED").unwrap_or_else(|| SystemClock::new().wall().unsigned_abs() % SEEDS)
}

/// Keeps the figures of a proof for `scripts/prove`, if it asked for them.
pub(crate) fn keep(proof: &str, seed: u64, count: u64, violations: usize, note: &str) {
    println!("{proof}: seed {seed}, {count} run, {violations} violations; {note}");
    write(proof, &format!("{seed}\t{count}\t{violations}\t{note}\n"));
}

/// Keeps whether a planted fault was noticed, and by what.
pub(crate) fn planted(fault: &str, caught: bool, what: &str) {
    println!("planted {fault}: {}; {what}", if caught { "caught" } else { "MISSED" });
    write(&format!("planted-{fault}"), &format!("{fault}\t{}\t{what}\n", u8::from(caught)));
}

fn write(name: &str, line: &str) {
    if let Some(folder) = text("TOLLGATE_PROVE_RESULTS") {
        std::fs::write(Path::new(&folder).join(name), line).unwrap();
    }
}
