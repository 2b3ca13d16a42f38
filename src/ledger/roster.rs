//! Which operations are unresolved and which keys were sent for them, in memory: what stands in the store, found without
//! reading it. It decides nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::{Record, State};
use crate::domain::operation::OperationHash;

/// How many generations of an operation are found by their key: each costs a hash for every intent.
const ROSTER_GENERATIONS: u32 = 16;

/// The unresolved operations. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster(Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    operations: HashMap<OperationHash, (Kind, Vec<String>)>,
    keys: HashMap<String, OperationHash>,
}

/// In which way an operation is unresolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    InFlight,
    Unknown,
    NeedsOperator,
}

/// How many operations are unresolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// On their way, or left behind on their way by an earlier process.
    pub in_flight: u64,
    /// They may have taken effect.
    pub unknown: u64,
    /// They may have taken effect, and a person has to decide.
    pub needs_operator: u64,
}

impl Roster {
    /// Takes note of the newest entry of an operation.
    pub(super) fn note(&self, hash: OperationHash, record: &Record) {
        let kind = match &record.state {
            State::InFlight { .. } => Some(Kind::InFlight),
            State::Unknown { .. } => Some(Kind::Unknown),
            State::NeedsOperator { .. } => Some(Kind::NeedsOperator),
            State::Open(_) | State::Settled(_) | State::Lapsed => None,
        };
        let mut names = self.lock();
        match kind {
            None => names.strike(hash),
            Some(kind) => names.enter(hash, kind, record),
        }
    }

    /// The unresolved operation for which a request with this key was sent, in whichever generation.
    pub(super) fn holder_of(&self, key: &str) -> Option<OperationHash> {
        self.lock().keys.get(key).copied()
    }

    pub(super) fn census(&self) -> Census {
        let names = self.lock();
        names.operations.values().fold(Census::default(), |mut census, (kind, _)| {
            match kind {
                Kind::InFlight => census.in_flight += 1,
                Kind::Unknown => census.unknown += 1,
                Kind::NeedsOperator => census.needs_operator += 1,
            }
            census
        })
    }

    /// A panic elsewhere can leave a key too many, which its reader finds out.
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn enter(&mut self, hash: OperationHash, kind: Kind, record: &Record) {
        let (stood, keys) = self.operations.entry(hash).or_insert_with(|| (kind, Vec::new()));
        *stood = kind;
        let known = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        // Effects of generations before these are known by their stamp.
        let oldest = record.generation.saturating_sub(ROSTER_GENERATIONS);
        for generation in known.max(oldest).saturating_add(1)..=record.generation {
            let key = record.key(generation);
            if self.keys.insert(key.clone(), hash).is_none() {
                keys.push(key);
            }
        }
    }

    fn strike(&mut self, hash: OperationHash) {
        for key in self.operations.remove(&hash).into_iter().flat_map(|(_, keys)| keys) {
            self.keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{operation, outgoing, record, success, unknown};
    use super::super::outcome::{Settled, Stuck};
    use super::*;

    #[test]
    fn an_operation_is_found_by_every_key_it_ever_had_as_long_as_it_is_unresolved() {
        let (roster, hash) = (Roster::default(), operation().hash());
        roster.note(hash, &record(1, unknown(false)));
        let case = Stuck::Absent.into();
        roster.note(hash, &record(3, State::NeedsOperator { outgoing: outgoing("a=1"), case }));
        for generation in 1..=3 {
            assert_eq!(roster.holder_of(&operation().key(generation)), Some(hash));
        }
        assert_eq!(roster.holder_of(&operation().key(4)), None);
        assert_eq!(roster.census(), Census { needs_operator: 1, ..Census::default() });
        roster.note(hash, &record(3, State::Settled(Settled::Succeeded(success()))));
        assert_eq!((roster.holder_of(&operation().key(1)), roster.census()), (None, Census::default()));
    }
}
