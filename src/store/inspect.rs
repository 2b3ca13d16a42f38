//! Looks at a data folder without claiming or changing it, for whoever wants to know whether a gateway could use it.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::error::Error;
use super::files::{DATABASE, LOCK};
use super::{query, schema};

/// Largest database that is read as a whole to see whether it is damaged, in bytes: some seconds of reading.
const CHECKED_BYTES_MAX: u64 = 2 << 30;

/// A data folder that no gateway uses at the moment.
#[derive(Debug)]
pub struct Inspection {
    connection: Connection,
    /// Whether the whole database was read; the larger ones are not.
    pub checked: bool,
}

impl Inspection {
    /// Looks at the folder; `None` where there is no database yet. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Locked`] while a gateway has the folder; [`Error::Vanished`], [`Error::TooNew`] and [`Error::Corrupt`] as
    /// the gateway itself would meet them, and whatever the disk says.
    pub fn of(dir: &Path) -> Result<Option<Self>, Error> {
        let failed = |error: std::io::Error| Error::Io(format!("`{}`: {error}", dir.display()));
        let (lock, database) = (dir.join(LOCK), dir.join(DATABASE));
        let mut used = false;
        if lock.try_exists().map_err(failed)? {
            let file = File::open(&lock).map_err(failed)?;
            match file.try_lock_shared() {
                Ok(()) => used = file.metadata().map_err(failed)?.len() > 0,
                Err(TryLockError::WouldBlock) => return Err(Error::Locked),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let bytes = if database.try_exists().map_err(failed)? {
            fs::metadata(&database).map_err(failed)?.len()
        } else {
            0
        };
        match (bytes, used) {
            (0, true) => return Err(Error::Vanished { lock: lock.display().to_string() }),
            (0, false) => return Ok(None),
            _ => {}
        }
        let connection = schema::open_reader(&database)?;
        schema::missing(&connection)?;
        let checked = bytes <= CHECKED_BYTES_MAX;
        if checked {
            let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if found != "ok" {
                return Err(Error::Corrupt(found));
            }
        }
        Ok(Some(Self { connection, checked }))
    }

    /// A setting by its name.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let read = "SELECT value FROM settings WHERE name = ?1";
        Ok(self.connection.query_row(read, [name], |row| row.get(0)).optional()?)
    }

    /// The entries of a kind with their ids.
    ///
    /// # Errors
    /// Whatever the disk says; a database of an older build has none.
    pub fn entries(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        Ok(query::entries(&self.connection, kind)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Store, Terms};
    use super::*;

    #[tokio::test]
    async fn a_folder_is_seen_as_the_gateway_would_meet_it_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("data");
        assert!(Inspection::of(&dir).unwrap().is_none());
        assert!(!dir.exists(), "looking makes nothing");
        let store = Store::open(&dir, Terms::default()).unwrap();
        store.keep_setting("account", b"acct_1".to_vec()).await.unwrap();
        assert_eq!(Inspection::of(&dir).unwrap_err(), Error::Locked);
        store.close().await;
        let seen = Inspection::of(&dir).unwrap().unwrap();
        assert_eq!(seen.setting("account").unwrap().as_deref(), Some(&b"acct_1"[..]));
        assert!(seen.checked && seen.setting("other").unwrap().is_none());
        drop(seen);

        let database = dir.join(DATABASE);
        let whole = fs::read(&database).unwrap();
        let damaged: Vec<u8> =
            whole.iter().enumerate().map(|(at, byte)| if at < 4096 { *byte } else { 0x5a }).collect();
        fs::write(&database, damaged).unwrap();
        assert!(matches!(Inspection::of(&dir), Err(Error::Corrupt(_))));
        fs::remove_file(&database).unwrap();
        assert!(matches!(Inspection::of(&dir), Err(Error::Vanished { .. })));
        assert!(!database.exists());
    }
}
