//! What can go wrong in the store, and what each failure says about the rows. It holds no row contents.

use rusqlite::ErrorCode;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another program holds the database.
    #[error("the database is in use by another program")]
    Busy,
    /// No space is left on the disk, or the database has reached its largest size.
    #[error("the disk is full")]
    Full,
    /// The database or its folder cannot be written.
    #[error("the database is read-only")]
    ReadOnly,
    /// The operating system refused; the text is SQLite's or the system's.
    #[error("the database failed: {0}")]
    Io(String),
    /// The database file is damaged or not a database.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// A newer build made the database; this one must not touch it.
    #[error("the database has schema {found}, this build knows up to {known}")]
    TooNew {
        /// Schema of the database.
        found: i64,
        /// Newest schema this build knows.
        known: i64,
    },
    /// The folder was in use before, and its database is gone or empty.
    #[error(
        "its database is gone, and with it the memory of what was sent; restore it, or delete `{lock}` to begin with none"
    )]
    Vanished {
        /// The file that says so.
        lock: String,
    },
    /// Another gateway runs on the same folder.
    #[error("the data folder is in use by another gateway")]
    Locked,
    /// The batch is larger than the store takes.
    #[error("the batch has {bytes} bytes, the most is {bytes_max}")]
    TooLarge {
        /// Bytes of the batch's rows.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The commit itself failed: the rows may or may not be there, now and after a restart. Read again before acting.
    #[error("a write failed at its last step, its rows may or may not be stored")]
    Uncertain,
}

impl Error {
    /// Whether none of the rows is stored, now or later; only then may the same work be tried anew without a look.
    #[must_use]
    pub fn certain_not_written(&self) -> bool {
        !matches!(self, Self::Uncertain)
    }

    /// Whether the connection can go on after a roll-back. Anything else calls for a new connection and a check.
    pub(super) fn spares_the_connection(&self) -> bool {
        matches!(self, Self::Busy | Self::Full)
    }
}

/// Correct for every step before a commit and for reads; what fails at the commit itself is [`Error::Uncertain`].
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error.to_string()),
            _ => Self::Io(error.to_string()),
        }
    }
}
