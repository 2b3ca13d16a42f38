//! Tampering with a log of 1,000 records in every way there is: all of it must be found, at the right place, as far as
//! the last checkpoint reaches.

use super::*;
use crate::audit::checkpoint::{entry as file_entry, notes};
use crate::audit::note::NoteSigner;

const RECORDS: u64 = 1_000;
/// Records between two checkpoints.
const STEP: u64 = 256;
const ORIGIN: &str = "tollgate.0123456789abcdef/audit";

/// A log: its export and its checkpoints.
struct Log {
    lines: Vec<String>,
    notes: Vec<String>,
}

fn signer() -> NoteSigner {
    NoteSigner::new(ORIGIN, &[7; 32])
}

fn record(sequence: u64, word: &str) -> Entry {
    let id = format!("aud_{sequence:026}");
    let record = format!(r#"{{"version":1,"id":"{id}","phase":"read","rpc":"{word}"}}"#).into_bytes();
    Entry { sequence, id, leaf: leaf(&record), record }
}

fn log_of(entries: impl IntoIterator<Item = Entry>) -> Log {
    let (mut frontier, mut lines, mut signed) = (Frontier::default(), Vec::new(), Vec::new());
    let mut entries = entries.into_iter().peekable();
    while let Some(entry) = entries.next() {
        frontier.append(entry.leaf);
        lines.push(entry.line().unwrap());
        if frontier.size() % STEP == 0 || entries.peek().is_none() {
            let checkpoint =
                Checkpoint { origin: ORIGIN.into(), size: frontier.size(), root: frontier.root() };
            signed.push(checkpoint.sign(&signer()));
        }
    }
    Log { lines, notes: signed }
}

fn log() -> Log {
    log_of((1..=RECORDS).map(|sequence| record(sequence, "a")))
}

fn verify<'a>(lines: impl IntoIterator<Item = &'a str>, notes: &[String]) -> Result<Verified, Flaw> {
    let mut verifier = Verifier::new(notes.iter().map(String::as_str), &[signer().verifier()])?;
    lines.into_iter().try_for_each(|line| verifier.line(line))?;
    verifier.finish()
}

fn check(log: &Log) -> Result<Verified, Flaw> {
    verify(log.lines.iter().map(String::as_str), &log.notes)
}

/// The records that a flaw speaks of.
fn concerns(flaw: &Flaw, position: u64) -> bool {
    match flaw {
        Flaw::Root { first, position: last } => (*first..=*last).contains(&position),
        // Without numbers to go by, a removal after the last checkpoint but one shows as a log that is too short.
        Flaw::Cut { position: end, .. } => (RECORDS - STEP..=*end).contains(&position),
        other => other.position() == Some(position),
    }
}

#[test]
fn a_log_as_it_was_signed_is_proved_to_its_last_checkpoint() {
    let log = log();
    let verified = Verified { records: 1_000, proved: 1_000, erased: 0, checkpoints: 4 };
    assert_eq!(check(&log), Ok(verified));
    let without_last = Log { notes: log.notes[..3].to_vec(), ..log };
    assert_eq!(check(&without_last), Ok(Verified { proved: 768, checkpoints: 3, ..verified }));
}

/// A check of the records before each place in turn, with the place.
fn at_each_place(log: &Log, mut test: impl FnMut(usize, u64, &Verifier)) {
    let mut before = Verifier::new(log.notes.iter().map(String::as_str), &[signer().verifier()]).unwrap();
    for (at, line) in log.lines.iter().enumerate() {
        test(at, u64::try_from(at).unwrap() + 1, &before);
        before.line(line).unwrap();
    }
}

#[test]
fn every_byte_that_changes_is_found_at_its_record() {
    let log = log();
    let mut flips = 0;
    at_each_place(&log, |at, position, before| {
        for byte in 0..log.lines[at].len() {
            let flaw = match flipped(&log.lines[at], byte, 1) {
                Some(changed) => before.clone().line(&changed).unwrap_err(),
                None => Flaw::Unreadable { position },
            };
            assert_eq!(flaw.position(), Some(position), "byte {byte}: {flaw}");
            flips += 1;
        }
    });
    assert!(flips > 180_000, "{flips}");
}

/// The line with one byte turned over; `None` when it is no text any more.
fn flipped(line: &str, byte: usize, mask: u8) -> Option<String> {
    let mut bytes = line.as_bytes().to_vec();
    bytes[byte] ^= mask;
    String::from_utf8(bytes).ok()
}

#[test]
fn every_record_that_is_dropped_is_found() {
    let log = log();
    at_each_place(&log, |at, position, before| {
        let flaw = match log.lines.get(at + 1) {
            Some(next) => before.clone().line(next).unwrap_err(),
            None => before.clone().finish().unwrap_err(),
        };
        assert_eq!(flaw.position(), Some(position), "{flaw}");
    });
    // The same with the rest numbered anew.
    for position in (1..=RECORDS).step_by(97) {
        let rest = (1..=RECORDS).filter(|place| *place != position).zip(1..);
        let lines = log_of(rest.map(|(old, sequence)| Entry { sequence, ..record(old, "a") })).lines;
        let flaw = verify(lines.iter().map(String::as_str), &log.notes).unwrap_err();
        assert!(concerns(&flaw, position), "{position}: {flaw}");
    }
}

#[test]
fn every_pair_that_is_swapped_is_found() {
    let log = log();
    at_each_place(&log, |at, position, before| {
        let Some(next) = log.lines.get(at + 1) else { return };
        let flaw = before.clone().line(next).unwrap_err();
        assert_eq!(flaw, Flaw::OutOfPlace { position, found: position + 1 });
    });
    // The same with each in the other's place by number too.
    for at in (0..log.lines.len() - 1).step_by(97) {
        let position = u64::try_from(at).unwrap() + 1;
        let mut lines = log.lines.clone();
        lines[at] = Entry { sequence: position, ..record(position + 1, "a") }.line().unwrap();
        lines[at + 1] = Entry { sequence: position + 1, ..record(position, "a") }.line().unwrap();
        let flaw = verify(lines.iter().map(String::as_str), &log.notes).unwrap_err();
        assert!(concerns(&flaw, position), "{flaw}");
    }
}

#[test]
fn a_record_that_is_put_in_is_found() {
    let log = log();
    for position in (1..=RECORDS).step_by(97) {
        let with = (1..position).map(|sequence| record(sequence, "a"));
        let with = with.chain([record(position, "b")]);
        let with =
            with.chain((position..=RECORDS).map(|old| Entry { sequence: old + 1, ..record(old, "a") }));
        let lines = log_of(with).lines;
        let flaw = verify(lines.iter().map(String::as_str), &log.notes).unwrap_err();
        assert!(concerns(&flaw, position), "{position}: {flaw}");
    }
}

#[test]
fn every_cut_of_the_tail_is_found() {
    at_each_place(&log(), |_, position, before| {
        assert_eq!(before.clone().finish(), Err(Flaw::Cut { position, signed: RECORDS }));
    });
}

/// Method: whoever has the signing key writes another history and signs it; one checkpoint that was kept elsewhere is
/// enough to tell.
#[test]
fn a_history_that_was_written_anew_is_found_by_any_outside_checkpoint() {
    let honest = log();
    for changed in (1..=RECORDS).step_by(143) {
        let word = |sequence| if sequence == changed { "b" } else { "a" };
        let forged = log_of((1..=RECORDS).map(|sequence| record(sequence, word(sequence))));
        assert!(check(&forged).is_ok(), "alone it proves itself");
        for kept in &honest.notes {
            let size = Checkpoint::open(kept, &[signer().verifier()]).unwrap().size;
            let found = verify(forged.lines.iter().map(String::as_str), std::slice::from_ref(kept));
            assert_eq!(found.is_err(), changed <= size, "{changed} of {size}: {found:?}");
            let mut both = forged.notes.clone();
            both.push(kept.clone());
            let fork = verify(forged.lines.iter().map(String::as_str), &both);
            let forked = changed <= size;
            assert_eq!(fork == Err(Flaw::Forked { position: size }), forked, "{changed} of {size}: {fork:?}");
        }
    }
}

#[test]
fn every_byte_of_a_checkpoint_that_changes_is_found() {
    let log = log();
    let file: String = log.notes.iter().map(|note| file_entry(note)).collect();
    let verify_file = |file: &str| {
        let notes: Vec<String> = notes(file).collect();
        check(&Log { lines: log.lines.clone(), notes })
    };
    assert!(verify_file(&file).is_ok());
    // The checks before the first signature that fails are cheap; a whole log for each byte is not.
    for byte in 0..file.len() {
        let Some(changed) = flipped(&file, byte, 1) else { continue };
        let read: Vec<String> = notes(&changed).collect();
        let opened = Verifier::new(read.iter().map(String::as_str), &[signer().verifier()]);
        assert!(matches!(opened, Err(Flaw::Unsigned { .. })) || read == log.notes, "byte {byte}: {opened:?}");
    }
}

#[test]
fn an_erased_record_keeps_its_place_by_its_leaf() {
    let mut log = log();
    for at in 0..300 {
        let entry = Entry { record: Vec::new(), ..Entry::parse(&log.lines[at]).unwrap() };
        log.lines[at] = entry.line().unwrap();
    }
    let verified = Verified { records: 1_000, proved: 1_000, erased: 300, checkpoints: 4 };
    assert_eq!(check(&log), Ok(verified));
    let entry = Entry::parse(&log.lines[9]).unwrap();
    log.lines[9] = Entry { leaf: [0; 32], ..entry }.line().unwrap();
    assert_eq!(check(&log), Err(Flaw::Root { first: 1, position: 256 }));
}

#[test]
fn nothing_is_proved_without_a_checkpoint_of_a_trusted_key() {
    let log = log();
    assert_eq!(verify(log.lines.iter().map(String::as_str), &[]), Err(Flaw::NoCheckpoint));
    let stranger = NoteSigner::new(ORIGIN, &[8; 32]);
    let text = Checkpoint { origin: ORIGIN.into(), size: 1, root: [0; 32] };
    let found = verify(log.lines.iter().map(String::as_str), &[text.sign(&stranger)]);
    assert_eq!(found, Err(Flaw::Unsigned { number: 1 }));
}
