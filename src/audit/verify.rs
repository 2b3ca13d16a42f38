//! Checks a log from an export, checkpoints and public keys alone, in one pass, and names the first record that is not
//! what was signed. It reads no store and asks nobody.

use std::collections::BTreeMap;

use super::checkpoint::Checkpoint;
use super::entry::Entry;
use super::note::NoteVerifier;
use super::tree::{Frontier, Hash, leaf};

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A line of an export is none.
    #[error("record {position}: the line is damaged")]
    Unreadable {
        /// Which record should stand there.
        position: u64,
    },
    /// Another record stands there.
    #[error("record {position} is missing or out of place: record {found} stands there")]
    OutOfPlace {
        /// Which record should stand there.
        position: u64,
        /// Which one does.
        found: u64,
    },
    /// The bytes of a record are not those that were hashed.
    #[error("record {position} (`{id}`) was changed: its bytes do not have its leaf")]
    Changed {
        /// Its place.
        position: u64,
        /// Its name.
        id: String,
    },
    /// A record goes by another name than its own.
    #[error("record {position} goes by `{id}`, which is not the name inside")]
    Misnamed {
        /// Its place.
        position: u64,
        /// The false name.
        id: String,
    },
    /// Records and their leaves do not give the root that was signed.
    #[error(
        "records {first} to {position}: at least one was exchanged, inserted or removed, since they do not give the root that was signed at {position}"
    )]
    Root {
        /// The first record after the last checkpoint that holds.
        first: u64,
        /// The size of the checkpoint that does not.
        position: u64,
    },
    /// The log is shorter than it was.
    #[error(
        "the log ends before record {position}, and had {signed} records when a checkpoint was signed: its tail was cut, or records were taken out"
    )]
    Cut {
        /// The first record that is missing.
        position: u64,
        /// The largest size that was signed.
        signed: u64,
    },
    /// Two checkpoints contradict each other.
    #[error("two checkpoints of {position} records have different roots: somebody has signed two histories")]
    Forked {
        /// Their size.
        position: u64,
    },
    /// A checkpoint is damaged or signed by nobody who is trusted here.
    #[error("checkpoint {number} of the file is damaged, or not signed by the key")]
    Unsigned {
        /// Its place in the file, from 1.
        number: usize,
    },
    /// There is nothing to check against.
    #[error("there is no checkpoint, so nothing can be proved")]
    NoCheckpoint,
}

impl Flaw {
    /// The place of the first record concerned, where there is one.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        match self {
            Self::Unreadable { position }
            | Self::OutOfPlace { position, .. }
            | Self::Changed { position, .. }
            | Self::Misnamed { position, .. }
            | Self::Cut { position, .. }
            | Self::Forked { position } => Some(*position),
            Self::Root { first, .. } => Some(*first),
            Self::Unsigned { .. } | Self::NoCheckpoint => None,
        }
    }
}

/// What a check found in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Records looked at.
    pub records: u64,
    /// Records up to which the log is proved to be what was signed.
    pub proved: u64,
    /// Records whose bytes are erased, or were not given: their place is proved by their leaf.
    pub erased: u64,
    /// Checkpoints that hold.
    pub checkpoints: u64,
}

/// A check under way.
#[derive(Clone, Debug)]
pub struct Verifier {
    roots: BTreeMap<u64, Hash>,
    frontier: Frontier,
    verified: Verified,
}

impl Verifier {
    /// A check against these notes, each of which one of the keys must have signed.
    ///
    /// # Errors
    /// [`Flaw::Unsigned`], [`Flaw::Forked`] or [`Flaw::NoCheckpoint`].
    pub fn new<'a>(notes: impl IntoIterator<Item = &'a str>, keys: &[NoteVerifier]) -> Result<Self, Flaw> {
        let mut roots = BTreeMap::new();
        let mut origin = None;
        for (before, note) in notes.into_iter().enumerate() {
            let unsigned = Flaw::Unsigned { number: before.saturating_add(1) };
            let checkpoint = Checkpoint::open(note, keys).ok_or(unsigned.clone())?;
            // Keys of several logs may be known; a check is of one log.
            if *origin.get_or_insert_with(|| checkpoint.origin.clone()) != checkpoint.origin {
                return Err(unsigned);
            }
            if *roots.entry(checkpoint.size).or_insert(checkpoint.root) != checkpoint.root {
                return Err(Flaw::Forked { position: checkpoint.size });
            }
        }
        let verified = Verified { records: 0, proved: 0, erased: 0, checkpoints: 0 };
        let mut verifier = Self { roots, frontier: Frontier::default(), verified };
        if verifier.roots.is_empty() {
            return Err(Flaw::NoCheckpoint);
        }
        verifier.compare()?;
        Ok(verifier)
    }

    /// Takes the next line of an export.
    ///
    /// # Errors
    /// The flaw that it shows.
    pub fn line(&mut self, line: &str) -> Result<(), Flaw> {
        let position = self.next();
        self.entry(&Entry::parse(line).ok_or(Flaw::Unreadable { position })?)
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// The flaw that it shows.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), Flaw> {
        let position = self.next();
        if entry.sequence != position {
            return Err(Flaw::OutOfPlace { position, found: entry.sequence });
        }
        if entry.record.is_empty() {
            self.verified.erased += 1;
        } else {
            if leaf(&entry.record) != entry.leaf {
                return Err(Flaw::Changed { position, id: entry.id.clone() });
            }
            if id_inside(&entry.record).as_ref() != Some(&entry.id) {
                return Err(Flaw::Misnamed { position, id: entry.id.clone() });
            }
        }
        self.frontier.append(entry.leaf);
        self.verified.records = position;
        self.compare()
    }

    /// Ends the check.
    ///
    /// # Errors
    /// [`Flaw::Cut`] when a checkpoint speaks of more records than there were.
    pub fn finish(self) -> Result<Verified, Flaw> {
        match self.roots.last_key_value() {
            Some((&signed, _)) if signed > self.verified.records => {
                Err(Flaw::Cut { position: self.next(), signed })
            }
            _ => Ok(self.verified),
        }
    }

    fn next(&self) -> u64 {
        self.verified.records.saturating_add(1)
    }

    fn compare(&mut self) -> Result<(), Flaw> {
        let position = self.frontier.size();
        let Some(root) = self.roots.get(&position) else { return Ok(()) };
        if *root != self.frontier.root() {
            return Err(Flaw::Root { first: self.verified.proved.saturating_add(1), position });
        }
        self.verified.proved = position;
        self.verified.checkpoints += 1;
        Ok(())
    }
}

/// The `id` of a record's bytes.
fn id_inside(record: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_slice::<Named>(record).ok().map(|named| named.id)
}

#[cfg(test)]
mod tests;
