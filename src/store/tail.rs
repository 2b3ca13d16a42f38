//! The newest journal rows in memory, for look-ups that must not wait for the disk; it never touches the disk itself.

use std::collections::HashMap;

use rusqlite::Connection;

use super::commit::counter;
use super::error::Error;
use super::rows::OperationRow;
use crate::domain::operation::OperationHash;

/// Name of the counter of the highest journal row that the index knows.
pub(super) const INDEXED: &str = "journal_indexed";

/// The journal above the index, by operation.
#[derive(Debug, Default)]
pub(super) struct Tail {
    newest: HashMap<OperationHash, Newest>,
    /// Bytes of the records held.
    bytes: usize,
    /// Highest row that the index knows.
    indexed: i64,
}

#[derive(Debug)]
enum Newest {
    Row { seq: i64, record: Vec<u8> },
    InDoubt,
}

impl Tail {
    /// Reads the rows that the index does not know yet.
    pub(super) fn load(connection: &Connection) -> Result<Self, Error> {
        let indexed = counter(connection, INDEXED)?;
        let mut tail = Self { indexed, ..Self::default() };
        let mut rows = connection
            .prepare_cached("SELECT seq, operation, record FROM journal WHERE seq > ?1 ORDER BY seq")?;
        let mut rows = rows.query([indexed])?;
        while let Some(row) = rows.next()? {
            let record = OperationRow { hash: OperationHash(row.get(1)?), record: row.get(2)? };
            tail.append(row.get(0)?, record);
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

    /// Takes a row that has become durable.
    pub(super) fn append(&mut self, seq: i64, row: OperationRow) {
        self.bytes = self.bytes.saturating_add(row.record.len());
        let before = self.newest.insert(row.hash, Newest::Row { seq, record: row.record });
        self.bytes = self.bytes.saturating_sub(before.map_or(0, |newest| newest.bytes()));
    }

    /// Marks an operation whose last row may or may not be stored; only a new [`Tail::load`] clears it.
    pub(super) fn doubt(&mut self, hash: OperationHash) {
        let before = self.newest.insert(hash, Newest::InDoubt);
        self.bytes = self.bytes.saturating_sub(before.map_or(0, |newest| newest.bytes()));
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

    #[test]
    fn only_rows_above_the_index_are_held() {
        let row =
            |operation, bytes| OperationRow { hash: OperationHash([operation; 32]), record: vec![7; bytes] };
        let mut tail = Tail::default();
        for (seq, row) in [(1, row(1, 10)), (2, row(2, 20)), (3, row(1, 30)), (4, row(3, 40))] {
            tail.append(seq, row);
        }
        tail.doubt(OperationHash([3; 32]));
        assert_eq!(tail.bytes(), 50, "a replaced record takes no room");
        tail.forget(2);
        assert_eq!((tail.indexed(), tail.bytes()), (2, 30));
        assert_eq!(tail.get(&OperationHash([1; 32])), Ok(Some(vec![7; 30])));
        assert_eq!(tail.get(&OperationHash([2; 32])), Ok(None));
        assert_eq!(tail.get(&OperationHash([3; 32])), Err(Error::Uncertain));
    }
}
