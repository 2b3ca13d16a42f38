//! Reads the settings as often as one likes from the same places, and tells two readings apart. It changes nothing that
//! runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};

use super::layers::{self, Gathered};
use super::{Config, Environment, Faults, Flags, Roll, check, reloaded};

/// Where settings are read from: flags and environment as they were at the start, and the files that they name.
#[derive(Clone, Debug)]
pub struct Loader {
    flags: Flags,
    environment: Environment,
    /// Whether a reading has found settings in the file.
    file_spoke: Arc<AtomicBool>,
}

/// One reading.
#[derive(Debug)]
pub struct Loaded {
    /// The settings, or everything that is wrong with them.
    pub config: Result<Config, Faults>,
    /// Who may call, where that is beyond doubt even if other settings are wrong.
    pub roll: Option<Roll>,
    /// Every file that had a say; a change of one of them is a reason to read again.
    pub files: BTreeSet<PathBuf>,
}

impl Loader {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(flags: Flags, environment: Environment) -> Self {
        Self { flags, environment, file_spoke: Arc::default() }
    }

    /// Reads everything. A settings file that set something at an earlier reading must not be missing or empty at a later
    /// one: everything that it set would be switched off in silence.
    #[must_use]
    pub fn load(&self) -> Loaded {
        let gathered = layers::gather(&self.flags, &self.environment);
        let Gathered { values, files, mut faults, file_speaks, .. } = gathered;
        if self.file_spoke.fetch_or(file_speaks, Ordering::SeqCst) && !file_speaks {
            faults.add("config", "the settings file was read before, and is missing or sets nothing now", "");
        }
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
        let config = check::config(&values, Source { marks }, faults);
        let roll = match &config {
            Ok(config) => Roll::of(config),
            Err(faults) => check::roll(&values, faults),
        };
        Loaded { config, roll, files }
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

    /// Whether nothing has changed since `earlier` in the settings that begin with `prefix`, or in the files that they
    /// name. Of settings that were not read from anywhere that is not known.
    #[must_use]
    pub fn is_unchanged(&self, earlier: &Self, prefix: &str) -> bool {
        let own = |source: &Self| -> BTreeMap<_, _> {
            let marks = source.marks.iter().filter(|(path, _)| path.starts_with(prefix));
            marks.map(|(path, mark)| (path.clone(), *mark)).collect()
        };
        !self.marks.is_empty() && own(self) == own(earlier)
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

    #[test]
    fn a_settings_file_that_was_read_neither_goes_nor_is_emptied_in_silence() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tollgate.toml");
        let flags = || {
            let secrets = [("stripe.key", "sk_test_a"), ("webhook.secret", "whsec_a")];
            let values = secrets.map(|(key, value)| (key, value.to_owned())).to_vec();
            Flags { config: Some(file.clone()), values }
        };
        fs::write(&file, "").unwrap();
        let loader = Loader::new(flags(), Environment::default());
        assert!(loader.load().config.is_ok(), "one that was never more than empty takes nothing away");
        fs::write(&file, "[guards]\nopen_dispute = \"refuse\"\n").unwrap();
        assert!(loader.load().config.is_ok());
        fs::write(&file, "# nothing\n").unwrap();
        for _ in 0..2 {
            let faults = loader.clone().load().config.unwrap_err();
            assert_eq!(faults.0.iter().map(|fault| &fault.key).collect::<Vec<_>>(), ["config"]);
        }
        fs::remove_file(&file).unwrap();
        assert!(loader.load().config.is_err());
        fs::write(&file, "[guards]\nopen_dispute = \"off\"\n").unwrap();
        assert!(loader.load().config.is_ok());

        // The file that is read when none is named, which is not there.
        let loader = Loader::new(Flags { config: None, ..flags() }, Environment::default());
        assert!(loader.load().config.is_ok());
        loader.file_spoke.store(true, Ordering::SeqCst);
        assert_eq!(loader.load().config.unwrap_err().0.len(), 1);
    }

    #[test]
    fn who_may_call_is_beyond_doubt_where_the_faults_are_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tollgate.toml");
        let roll = |text: &str| {
            let caller = "callers.orders.token = \"a-token-of-orders\"\npolicy.files = [\"rules.cedar\"]\n";
            fs::write(&file, format!("{caller}{text}")).unwrap();
            let flags = Flags { config: Some(file.clone()), values: Vec::new() };
            let loaded = Loader::new(flags, Environment::default()).load();
            assert!(loaded.config.is_err(), "{text}");
            loaded.roll.map(|roll| roll.callers.len())
        };
        for elsewhere in ["", "mode = \"neither\"", "stripe.key_file = \"/nowhere\"", "webhook.secret = \"\""]
        {
            assert_eq!(roll(elsewhere), Some(1), "{elsewhere}");
        }
        for doubtful in [
            "= no TOML",
            "caller.support.token = \"a-token-of-support\"",
            "callers.support.token = \"short\"",
            "callers.support.token_file = \"/nowhere\"",
            "callers.support.jwt = [\"idp:support\"]",
            "[stripe.callers.support]\ntoken = \"a-token-of-support\"",
        ] {
            assert_eq!(roll(doubtful), None, "{doubtful}");
        }
    }

    #[test]
    fn a_changed_file_is_a_change_of_the_settings_that_name_it() {
        let of = |marks: &[(&str, u8)]| Source {
            marks: marks.iter().map(|(path, mark)| ((*path).to_owned(), [*mark; 32])).collect(),
        };
        let first = of(&[("data", 1), ("tls.key_file", 1), ("tls.key_file (/key)", 1)]);
        assert!(
            of(&[("data", 2), ("tls.key_file", 1), ("tls.key_file (/key)", 1)]).is_unchanged(&first, "tls.")
        );
        assert!(!of(&[("tls.key_file", 1), ("tls.key_file (/key)", 2)]).is_unchanged(&first, "tls."));
        assert!(!of(&[("tls.key_file", 1)]).is_unchanged(&first, "tls."));
        assert!(!Source::default().is_unchanged(&Source::default(), "tls."));
    }

    #[test]
    fn a_caller_in_another_namespace_or_other_groups_is_named() {
        let config = |callers: &str| {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("tollgate.toml");
            let head = "data = \"d\"\npolicy.files = [\"rules.cedar\"]\n[stripe]\nkey = \"sk_test_a\"\n[webhook]\nsecret = \"whsec_a\"\n";
            fs::write(&file, format!("{head}{callers}")).unwrap();
            let flags = Flags { config: Some(file), values: Vec::new() };
            Loader::new(flags, Environment::default()).load().config.unwrap()
        };
        let caller = |more: &str| {
            format!(
                "[callers.a]\ntoken = \"0123456789abcdef\"\n{more}\n[callers.b]\ntoken = \"0123456789abcdeb\"\n"
            )
        };
        let before = config(&caller("groups = [\"x\", \"y\"]"));
        let moved = |more: &str| Roll::of(&config(&caller(more))).unwrap().moved_since(&before);
        assert!(moved("groups = [\"y\", \"x\"]").is_empty());
        for more in ["groups = [\"x\"]", "", "groups = [\"x\", \"y\"]\nnamespace = \"other\""] {
            assert_eq!(moved(more), ["a"], "{more}");
        }
    }
}
