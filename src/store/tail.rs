//! The newest journal rows and the list in memory, for look-ups that must not wait for the disk; it never touches the
//! disk itself.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use rusqlite::Connection;

use super::commit::counter;
use super::error::Error;
use super::rows::{Batch, OperationRow};
use crate::domain::operation::OperationHash;

/// Name of the counter of the highest journal row that the index knows.
pub(super) const INDEXED: &str = "journal_indexed";

/// The journal above the index, by operation, and all operations whose newest record is listed.
#[derive(Debug, Default)]
pub(super) struct Tail {
    newest: HashMap<OperationHash, Newest>,
    /// Bytes of the records held.
    bytes: usize,
    /// Highest row that the index knows.
    indexed: i64,
    listed: BTreeSet<OperationHash>,
    /// Settings whose last replacement may or may not be stored.
    doubtful: HashSet<String>,
    /// Kinds of which an entry's last replacement may or may not be stored.
    doubtful_kinds: HashSet<&'static str>,
}

/// An operation of the list, with its record unless only the index can tell.
pub(super) type Listed = (OperationHash, Option<Vec<u8>>);

#[derive(Debug)]
enum Newest {
    Row { seq: i64, record: Vec<u8> },
    InDoubt,
}

impl Tail {
    /// Reads the list and the rows that the index does not know yet.
    pub(super) fn load(connection: &Connection) -> Result<Self, Error> {
        let indexed = counter(connection, INDEXED)?;
        let listed = connection
            .prepare_cached("SELECT operation FROM listed_operations")?
            .query_map([], |row| row.get(0).map(OperationHash))?
            .collect::<Result<_, _>>()?;
        let mut tail = Self { indexed, listed, ..Self::default() };
        let mut rows = connection.prepare_cached(
            "SELECT seq, operation, record, listed FROM journal WHERE seq > ?1 ORDER BY seq",
        )?;
        let mut rows = rows.query([indexed])?;
        while let Some(row) = rows.next()? {
            let hash = OperationHash(row.get(1)?);
            tail.append(row.get(0)?, OperationRow { hash, record: row.get(2)?, listed: row.get(3)? });
        }
        Ok(tail)
    }

    /// The newest record of the operation: `None` when only the index can tell.
    ///
    /// # Errors
    /// [`Error::Uncertain`] when the last write of this operation failed and has not been looked into yet.
    pub(super) fn get(&self, hash: &OperationHash) -> Result<Option<Vec<u8>>, Error> {
        match self.newest.get(hash) {
            Some(Newest::Row { record, .. }) => Ok(Some(record.clone())),
            Some(Newest::InDoubt) => Err(Error::Uncertain),
            None => Ok(None),
        }
    }

    /// Whether the operation has a row above the index, or may have.
    pub(super) fn holds(&self, hash: &OperationHash) -> bool {
        self.newest.contains_key(hash)
    }

    /// The listed operations after `after` in the order of their hashes, at most `count_max`.
    ///
    /// # Errors
    /// [`Error::Uncertain`] while any operation is in doubt, since it might be on the list.
    pub(super) fn listed(
        &self,
        after: Option<OperationHash>,
        count_max: usize,
    ) -> Result<Vec<Listed>, Error> {
        if self.newest.values().any(|newest| matches!(newest, Newest::InDoubt)) {
            return Err(Error::Uncertain);
        }
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.listed
            .range((from, Bound::Unbounded))
            .take(count_max)
            .map(|hash| Ok((*hash, self.get(hash)?)))
            .collect()
    }

    /// Whether the setting's last replacement may or may not be stored.
    pub(super) fn doubts_setting(&self, name: &str) -> bool {
        self.doubtful.contains(name)
    }

    /// Whether the last replacement of an entry of this kind may or may not be stored.
    pub(super) fn doubts_entries(&self, kind: &str) -> bool {
        self.doubtful_kinds.contains(kind)
    }

    /// Takes a row that has become durable.
    pub(super) fn append(&mut self, seq: i64, row: OperationRow) {
        if row.listed {
            self.listed.insert(row.hash);
        } else {
            self.listed.remove(&row.hash);
        }
        self.bytes = self.bytes.saturating_add(row.record.len());
        let before = self.newest.insert(row.hash, Newest::Row { seq, record: row.record });
        self.bytes = self.bytes.saturating_sub(before.map_or(0, |newest| newest.bytes()));
    }

    /// Marks what the batch replaces, which may or may not be stored; only a new [`Tail::load`] clears it.
    pub(super) fn doubt(&mut self, batch: &Batch) {
        for row in &batch.operations {
            let before = self.newest.insert(row.hash, Newest::InDoubt);
            self.bytes = self.bytes.saturating_sub(before.map_or(0, |newest| newest.bytes()));
        }
        self.doubtful.extend(batch.state.iter().map(|setting| setting.name.clone()));
        self.doubtful_kinds.extend(batch.entries.iter().map(|entry| entry.kind));
    }

    /// Lets go of what the index knows up to and including row `indexed`.
    pub(super) fn forget(&mut self, indexed: i64) {
        self.indexed = indexed;
        self.newest.retain(|_, newest| newest.seq().is_none_or(|seq| seq > indexed));
        self.bytes = self.newest.values().map(Newest::bytes).sum();
    }

    /// Highest row that the index knows.
    pub(super) fn indexed(&self) -> i64 {
        self.indexed
    }

    /// Bytes of the records held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Newest {
    fn bytes(&self) -> usize {
        match self {
            Self::Row { record, .. } => record.len(),
            Self::InDoubt => 0,
        }
    }

    fn seq(&self) -> Option<i64> {
        match self {
            Self::Row { seq, .. } => Some(*seq),
            Self::InDoubt => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(operation: u8, bytes: usize, listed: bool) -> OperationRow {
        OperationRow { hash: OperationHash([operation; 32]), record: vec![7; bytes], listed }
    }

    #[test]
    fn only_rows_above_the_index_are_held() {
        let mut tail = Tail::default();
        for (seq, row) in [(1, row(1, 10, false)), (2, row(2, 20, false)), (3, row(1, 30, false))] {
            tail.append(seq, row);
        }
        tail.append(4, row(3, 40, false));
        tail.doubt(&Batch { operations: vec![row(3, 1, false)], ..Batch::default() });
        assert_eq!(tail.bytes(), 50, "a replaced record takes no room");
        tail.forget(2);
        assert_eq!((tail.indexed(), tail.bytes()), (2, 30));
        assert_eq!(tail.get(&OperationHash([1; 32])), Ok(Some(vec![7; 30])));
        assert_eq!(tail.get(&OperationHash([2; 32])), Ok(None));
        assert_eq!(tail.get(&OperationHash([3; 32])), Err(Error::Uncertain));
    }

    #[test]
    fn the_list_is_uncertain_as_a_whole_while_an_operation_is_in_doubt() {
        let mut tail = Tail::default();
        tail.append(1, row(2, 10, true));
        tail.append(2, row(1, 10, true));
        tail.append(3, row(3, 10, false));
        tail.forget(1);
        let (one, two) = (OperationHash([1; 32]), OperationHash([2; 32]));
        assert_eq!(tail.listed(None, 9), Ok(vec![(one, Some(vec![7; 10])), (two, None)]));
        assert_eq!(tail.listed(Some(one), 9), Ok(vec![(two, None)]));
        tail.doubt(&Batch { operations: vec![row(9, 1, true)], ..Batch::default() });
        assert_eq!(tail.listed(None, 9), Err(Error::Uncertain));
    }
}
