//! The file of webhook secrets: another one is added, all or nothing, for its owner's eyes. It is never shown.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use super::super::failure::Failure;

/// Only the owner reads secrets.
const FILE_MODE: u32 = 0o600;

/// A file that another secret can be added to: its successor is open already.
#[derive(Debug)]
pub(super) struct SecretFile {
    path: PathBuf,
    successor: PathBuf,
    open: File,
    known: Zeroizing<String>,
}

impl SecretFile {
    /// Reads the secrets that are there and opens the successor, so that adding one can hardly fail.
    pub(super) fn open(path: PathBuf) -> Result<Self, Failure> {
        let shown = path.display().to_string();
        let failed = |error: io::Error| Failure::Start(format!("cannot write `{shown}`: {error}"));
        // A link leads to the file that is to change.
        let path = path.canonicalize().unwrap_or(path);
        let before = match fs::metadata(&path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let known = match &before {
            Some(_) => fs::read_to_string(&path).map_err(failed)?,
            None => String::new(),
        };
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let successor = path.with_file_name(name);
        let open = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&successor);
        let file = Self { open: open.map_err(failed)?, successor, known: known.into(), path };
        if let Some(before) =
            before.filter(|before| file.owner().is_ok_and(|own| own != (before.uid(), before.gid())))
        {
            // The gateway that reads it may be another user than the one who runs this.
            fchown(&file.open, Some(before.uid()), Some(before.gid())).map_err(failed)?;
        }
        Ok(file)
    }

    fn owner(&self) -> io::Result<(u32, u32)> {
        self.open.metadata().map(|own| (own.uid(), own.gid()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the secret behind those that are there; a gateway takes events that are signed with any of them.
    pub(super) fn add(mut self, secret: &SecretString) -> io::Result<()> {
        let known = self.known.split(',').map(str::trim).filter(|known| !known.is_empty());
        let all: Vec<&str> = known.chain([secret.expose_secret()]).collect();
        let text = Zeroizing::new(format!("{}\n", all.join(",")));
        self.open.write_all(text.as_bytes())?;
        self.open.sync_all()?;
        fs::rename(&self.successor, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        // Gone already once it has become the file.
        fs::remove_file(&self.successor).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_comes_behind_the_others_and_only_the_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("webhook_secret");
        for secret in ["whsec_one", "whsec_two"] {
            SecretFile::open(path.clone()).unwrap().add(&secret.into()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "whsec_one,whsec_two\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_left_where_no_secret_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("webhook_secret");
        drop(SecretFile::open(path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(SecretFile::open(folder.path().join("none/secret")).is_err());
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&path, "whsec_one").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        SecretFile::open(link.clone()).unwrap().add(&"whsec_two".into()).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "whsec_one,whsec_two\n");
    }
}
