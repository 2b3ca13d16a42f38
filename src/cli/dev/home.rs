//! The folder of a `dev` run: where things are in it, what is kept over restarts, and its end if it was a temporary one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::seed::Seeds;
use crate::cli::failure::Failure;
use crate::cli::policy;

/// The caller of a `dev` run.
pub(super) const CALLER: &str = "dev";
/// Random bytes of a token, a key and a secret.
const SECRET_BYTES: usize = 24;

/// What a `dev` run keeps.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    /// Key that the sandbox accepts.
    pub(super) stripe_key: String,
    /// Token of the caller.
    pub(super) token: String,
    /// Secret of the webhooks.
    pub(super) webhook_secret: String,
    /// What is in the sandbox; absent until all of it is.
    pub(super) seeds: Option<Seeds>,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    temporary: bool,
}

impl Home {
    /// The named folder, made if need be, or a new one that goes away with this value.
    pub(super) fn open(folder: Option<PathBuf>) -> Result<Self, Failure> {
        let temporary = folder.is_none();
        let folder = match folder {
            Some(folder) => folder,
            None => std::env::temp_dir().join(format!("tollgate-dev-{}", random()?)),
        };
        // Keys and a token are in it.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| cannot_use(&folder, &error))?;
        Ok(Self { folder, temporary })
    }

    /// Folder of the gateway's database.
    pub(super) fn gateway_folder(&self) -> PathBuf {
        self.folder.join("gateway")
    }

    /// The policies: everything is permitted to begin with, and what a user changed is kept.
    pub(super) fn policy(&self) -> Result<PathBuf, Failure> {
        let path = self.folder.join("policy.cedar");
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                let text = policy::starter(&[CALLER.to_owned()]);
                file.write_all(text.as_bytes()).map_err(|error| cannot_use(&path, &error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(cannot_use(&path, &error)),
        }
        Ok(path)
    }

    /// File of the sandbox's state.
    pub(super) fn sandbox_file(&self) -> PathBuf {
        self.folder.join("sandbox.json")
    }

    /// What an earlier run kept, or new keys.
    pub(super) fn kept(&self) -> Result<Kept, Failure> {
        let path = self.kept_file();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| cannot_use(&path, &error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let kept = Kept {
                    stripe_key: format!("sk_test_{}", random()?),
                    token: format!("tg_dev_{}", random()?),
                    webhook_secret: format!("whsec_{}", random()?),
                    seeds: None,
                };
                self.keep(&kept)?;
                Ok(kept)
            }
            Err(error) => Err(cannot_use(&path, &error)),
        }
    }

    /// Keeps it for the next run.
    pub(super) fn keep(&self, kept: &Kept) -> Result<(), Failure> {
        let path = self.kept_file();
        let new = path.with_extension("new");
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(serde_json::to_string_pretty(kept)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| cannot_use(&path, &error))
    }

    fn kept_file(&self) -> PathBuf {
        self.folder.join("dev.json")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed lies in the system's folder for such things.
            fs::remove_dir_all(&self.folder).ok();
        }
    }
}

fn cannot_use(path: &Path, error: &io::Error) -> Failure {
    Failure::Start(format!("`{}` cannot be used: {error}", path.display()))
}

fn random() -> Result<String, Failure> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Failure::Start(format!("no randomness: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_the_same_in_a_kept_folder() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Home::open(Some(folder.path().to_owned())).unwrap().kept().unwrap();
        let (first, second) = (open(), open());
        assert_eq!((first.token, first.stripe_key), (second.token, second.stripe_key));
    }

    #[test]
    fn a_temporary_folder_goes_away() {
        let home = Home::open(None).unwrap();
        let folder = home.folder.clone();
        assert!(folder.is_dir());
        drop(home);
        assert!(!folder.exists());
    }
}
