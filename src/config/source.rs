//! Reads the settings as often as one likes from the same places, and tells two readings apart. It changes nothing that
//! runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};

use super::layers::{self, Gathered};
use super::{Config, Environment, Faults, Flags, check, reloaded};

/// Where settings are read from: flags and environment as they were at the start, and the files that they name.
#[derive(Clone, Debug)]
pub struct Loader {
    flags: Flags,
    environment: Environment,
}

/// One reading.
#[derive(Debug)]
pub struct Loaded {
    /// The settings, or everything that is wrong with them.
    pub config: Result<Config, Faults>,
    /// Every file that had a say; a change of one of them is a reason to read again.
    pub files: BTreeSet<PathBuf>,
}

impl Loader {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(flags: Flags, environment: Environment) -> Self {
        Self { flags, environment }
    }

    /// Reads everything.
    #[must_use]
    pub fn load(&self) -> Loaded {
        let Gathered { values, files, faults, .. } = layers::gather(&self.flags, &self.environment);
        let mut marks: BTreeMap<_, _> =
            values.iter().map(|(path, found)| (path.clone(), mark(found.text.as_bytes()))).collect();
        for (path, found) in values.iter().filter(|(path, _)| reloaded::names_files(path)) {
            for file in found.text.split(',').flat_map(|file| inside(Path::new(file.trim()))) {
                // What cannot be read is missing here, and said by whoever needs it.
                if let Ok(content) = fs::read(&file).map(Zeroizing::new) {
                    marks.insert(format!("{path} ({})", file.display()), mark(&content));
                }
            }
        }
        Loaded { config: check::config(&values, Source { marks }, faults), files }
    }
}

fn mark(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The file itself, or the files of a folder.
fn inside(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return vec![path.to_owned()] };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// What was set, as hashes: enough to tell what has changed, and not what it was. Settings that were not read from
/// anywhere have none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Source {
    marks: BTreeMap<String, [u8; 32]>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.marks.keys()).finish()
    }
}

/// Keys whose values differ between two readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that take effect while the gateway runs.
    pub applied: Vec<String>,
    /// Those that wait for the next start.
    pub awaiting_restart: Vec<String>,
}

impl Source {
    /// What has changed since `earlier`.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> Changes {
        let all: BTreeSet<&String> = self.marks.keys().chain(earlier.marks.keys()).collect();
        let changed = all.into_iter().filter(|path| self.marks.get(*path) != earlier.marks.get(*path));
        let (applied, awaiting_restart) = changed.cloned().partition(|path| reloaded::is_reloaded(path));
        Changes { applied, awaiting_restart }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_reading_tells_what_has_changed_and_what_waits_for_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let (file, secret) = (folder.path().join("tollgate.toml"), folder.path().join("secret"));
        let write = |data: &str, text: &str| {
            let text = format!(
                "data = \"{data}\"\n[stripe]\nkey = \"{text}\"\n[webhook]\nsecret_file = \"{}\"\n",
                secret.display()
            );
            fs::write(&file, text).unwrap();
        };
        write("a", "sk_test_a");
        fs::write(&secret, "whsec_a").unwrap();
        let flags = Flags { config: Some(file.clone()), values: Vec::new() };
        let loader = Loader::new(flags, Environment::default());
        let source = || loader.load().config.unwrap().source;
        let first = source();
        assert_eq!(loader.load().files, BTreeSet::from([file.clone(), secret.clone()]));
        assert_eq!(source().changes_since(&first), Changes::default());
        fs::write(&secret, "whsec_b\n").unwrap();
        let changed = source().changes_since(&first);
        assert_eq!((changed.applied, changed.awaiting_restart), (vec!["webhook.secret".to_owned()], vec![]));
        write("b", "sk_test_b");
        let changed = source().changes_since(&first);
        assert_eq!(changed.applied, ["stripe.key", "webhook.secret"]);
        assert_eq!(changed.awaiting_restart, ["data"]);
        fs::remove_file(&secret).unwrap();
        let broken = loader.load();
        assert!(broken.config.is_err());
        assert!(broken.files.contains(&secret), "what cannot be read is looked at again");
        assert!(!format!("{first:?}").contains("sk_test"));
    }
}
