//! The data folder: its permissions, its lock and the path of the database in it. It opens no database.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use super::error::Error;

pub(super) const DATABASE: &str = "tollgate.db";
pub(super) const LOCK: &str = "lock";
/// What the lock file says once there is a database.
const USED: &[u8] = b"This folder holds the memory of a gateway. Its database must not be lost.\n";
/// Others on the machine see neither records nor their names. An existing folder keeps the mode its owner gave it.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// How much of the write-ahead log is held in memory when it is written anew.
const PART_BYTES: usize = 1 << 20;

/// A data folder that belongs to this process until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    /// Where the database is.
    pub(super) database: PathBuf,
    /// Held as long as the database may be written.
    pub(super) lock: File,
}

impl Folder {
    /// Makes the folder if need be, takes its lock and makes sure that the database file is there, for its owner alone.
    pub(super) fn claim(dir: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| refused(&format!("`{}`", dir.display()), &error);
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir).map_err(failed)?;
        let lock = private_file(&dir.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let database = dir.join(DATABASE);
        let used = lock.metadata().map_err(failed)?.len() > 0;
        if used && fs::metadata(&database).map_or(0, |found| found.len()) == 0 {
            return Err(Error::Vanished { lock: dir.join(LOCK).display().to_string() });
        }
        // SQLite gives its own files beside the database the mode of the database.
        drop(private_file(&database).map_err(failed)?);
        sync_names(dir).map_err(failed)?;
        Ok(Self { database, lock })
    }

    /// Notes in the lock file that the database holds something from now on: one that is missing later has been lost, and
    /// to begin anew would forget what was paid.
    pub(super) fn mark_used(&self) -> Result<(), Error> {
        let marked = || -> io::Result<()> {
            if self.lock.metadata()?.len() == 0 {
                self.lock.write_all_at(USED, 0)?;
                self.lock.sync_all()?;
            }
            Ok(())
        };
        marked().map_err(|error| Error::Io(format!("the lock file: {error}")))
    }
}

/// What it means that the system refused something: by its kind, else in its own words.
fn refused(what: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full,
        io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly,
        _ => Error::Io(format!("{what}: {error}")),
    }
}

/// Opens or creates a file that only its owner may use, whatever the umask.
fn private_file(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    fs::set_permissions(path, Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// Writes the write-ahead log over with what it holds, and syncs it; one that is not there is left so. After a failed sync the system
/// shows what it may not have written, and no later sync writes that (Rebello and others, "Can Applications Recover from
/// fsync Failures?", 2020): only what is written again is on the disk after the next one.
pub(super) fn write_anew(path: &Path) -> Result<(), Error> {
    let written = || -> io::Result<()> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let (mut part, mut at) = (vec![0; PART_BYTES], 0);
        loop {
            let read = file.read_at(&mut part, at)?;
            let Some(bytes) = part.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            file.write_all_at(bytes, at)?;
            at += bytes.len() as u64;
        }
        if at > 0 { file.sync_all() } else { Ok(()) }
    };
    written().map_err(|error| refused("the write-ahead log cannot be written anew", &error))
}

/// A new name is durable only once the folder that holds it is synced: the files' in `dir`, its own and those above it,
/// which an earlier process may have made and not lived to sync. Folders that this process may not read are not its work.
pub(super) fn sync_names(dir: &Path) -> io::Result<()> {
    let dir = dir.canonicalize()?;
    let device = dir.metadata()?.dev();
    for folder in dir.ancestors() {
        match File::open(folder) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
            Ok(folder) if folder.metadata()?.dev() != device => break,
            Ok(folder) => folder.sync_all()?,
        }
    }
    Ok(())
}
