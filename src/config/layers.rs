//! Gathers settings from all places into one map that knows where each came from; whether they make sense is
//! [`super::check`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;

use super::Flags;
use super::environment::{CONFIG_VARIABLE, CREDENTIALS_VARIABLE, Environment, NO_SETTINGS};
use super::fault::{Faults, nearest};
use super::keys::{self, KEYS, Key, Shape};
use super::reloaded;

/// The file that is read when none is named.
const FILE_DEFAULT: &str = "tollgate.toml";
/// Ends the name of a key whose value stands in a file of its own.
const FILE_SUFFIX: &str = "_file";

/// A value and where it came from. The text is wiped at the end, since it may be a secret.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) text: Zeroizing<String>,
    pub(super) origin: String,
}

/// Values by key path.
pub(super) type Values = BTreeMap<String, Found>;

/// All that was found.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) values: Values,
    /// Every file that had a say, whether it could be read or not.
    pub(super) files: BTreeSet<PathBuf>,
    /// The file that each secret of a file was to be read from, by key path.
    pub(super) secret_files: BTreeMap<String, PathBuf>,
    pub(super) faults: Faults,
    /// Whether there is a settings file and it sets anything.
    pub(super) file_speaks: bool,
}

/// All layers, the later over the earlier.
pub(super) fn gather(flags: &Flags, environment: &Environment) -> Gathered {
    let mut all = Gathered { values: defaults(), ..Gathered::default() };
    for layer in
        [from_toml(flags, environment, &mut all), from_environment(environment, &mut all), from_flags(flags)]
    {
        let found = layer.resolve(&mut all);
        for (path, found) in found {
            let is_secret = keys::find(&path).is_some_and(|key| key.shape.is_secret());
            match all.values.get(&path) {
                // Which of two secrets is the valid one must not depend on a rule that nobody has in mind.
                Some(other) if is_secret => {
                    let both = format!("is set twice, by {} and by {}", other.origin, found.origin);
                    all.faults.add(&path, both, "");
                }
                _ => drop(all.values.insert(path, found)),
            }
        }
    }
    let named = all.values.iter().filter(|(path, _)| reloaded::names_files(path));
    all.files.extend(named.flat_map(|(_, found)| found.text.split(',').map(|file| file.trim().into())));
    all
}

fn from_flags(flags: &Flags) -> Layer {
    let found = |text: &String| Found { text: text.clone().into(), origin: "a flag".into() };
    let values = flags.values.iter().map(|(path, text)| ((*path).to_owned(), found(text)));
    Layer { values: values.collect(), ..Layer::default() }
}

fn defaults() -> Values {
    let set = KEYS.iter().filter(|key| !key.default.is_empty());
    set.map(|key| {
        (key.path.to_owned(), Found { text: key.default.to_owned().into(), origin: "the default".into() })
    })
    .collect()
}

/// What one place says; values that stand in files of their own are not read yet.
#[derive(Default)]
struct Layer {
    values: Values,
    files: Values,
}

impl Layer {
    /// Notes that a secret stands in a file of its own; a second file for it is a fault.
    fn stands_in(&mut self, path: String, file: Found, faults: &mut Faults) {
        if let Some(other) = self.files.get(&path) {
            let both = format!("is set twice, as a file by {} and by {}", other.origin, file.origin);
            faults.add(&path, both, "");
        } else {
            self.files.insert(path, file);
        }
    }

    fn resolve(mut self, all: &mut Gathered) -> Values {
        for (path, file) in self.files {
            if let Some(value) = self.values.get(&path) {
                let both =
                    format!("is set twice, as a value by {} and as a file by {}", value.origin, file.origin);
                all.faults.add(&path, both, "");
                continue;
            }
            all.files.insert(file.text.as_str().into());
            all.secret_files.insert(path.clone(), file.text.as_str().into());
            match fs::read_to_string(&*file.text).map(Zeroizing::new) {
                Ok(text) => {
                    let origin = format!("file `{}`", *file.text);
                    let text = Zeroizing::new(text.trim_end().to_owned());
                    self.values.insert(path, Found { text, origin });
                }
                Err(error) => {
                    let what = format!("cannot read the file `{}`: {error}", *file.text);
                    all.faults.add(&path, what, &file.origin);
                }
            }
        }
        self.values
    }
}

fn from_toml(flags: &Flags, environment: &Environment, all: &mut Gathered) -> Layer {
    let mut layer = Layer::default();
    let named = flags.config.clone().or_else(|| environment.get(CONFIG_VARIABLE).map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| FILE_DEFAULT.into());
    let origin = format!("`{}`", path.display());
    all.files.insert(path.clone());
    let faults = &mut all.faults;
    let text = match fs::read_to_string(&path).map(Zeroizing::new) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => return layer,
        Err(error) => {
            faults.add("config", format!("cannot read the file {origin}: {error}"), "");
            return layer;
        }
    };
    match text.parse::<toml::Table>() {
        Ok(table) => {
            all.file_speaks = !table.is_empty();
            flatten("", table, &path, &mut layer, faults);
        }
        // The parser's own rendering quotes the line, which may hold a secret.
        Err(error) => {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            faults.add("config", format!("is not TOML at line {line}: {}", error.message()), &origin);
        }
    }
    layer
}

/// Takes the table apart; its texts may be secrets, and are wiped.
fn flatten(prefix: &str, table: toml::Table, file: &Path, layer: &mut Layer, faults: &mut Faults) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let value = match value {
            toml::Value::Table(inner) => {
                if inner.is_empty() && !prefix.is_empty() {
                    // Whoever is named there would be forgotten in silence.
                    faults.add(&path, "is an empty table", &format!("`{}`", file.display()));
                }
                flatten(&path, inner, file, layer, faults);
                continue;
            }
            value => value,
        };
        let origin = format!("`{}`", file.display());
        let (path, place, shape) = match (keys::find(&path), file_key(&path)) {
            (Some(key), _) => (path, &mut layer.values, key.shape),
            // The file that holds a secret is named by text.
            (None, Some((own, _))) => (own, &mut layer.files, Shape::Text),
            (None, None) => {
                let known: Vec<String> = known_paths(&path);
                faults.unknown(&path, &origin, known.iter().map(String::as_str));
                continue;
            }
        };
        match text_of(value, shape) {
            Some(text) => drop(place.insert(path, Found { text, origin })),
            None => faults.add(&path, format!("must be {}", expected(shape)), &origin),
        }
    }
}

/// The key whose `_file` form `path` is.
fn file_key(path: &str) -> Option<(String, &'static Key)> {
    let own = path.strip_suffix(FILE_SUFFIX)?;
    let key = keys::find(own).filter(|key| key.shape.is_secret())?;
    Some((own.to_owned(), key))
}

/// Every path that could have been meant, with the operator's own names filled in.
fn known_paths(given: &str) -> Vec<String> {
    let name = given.split('.').nth(1).unwrap_or(keys::DEFAULT_CALLER);
    let paths = KEYS.iter().map(|key| (key.path.replace('*', name), key.shape.is_secret()));
    paths
        .flat_map(|(path, secret)| [secret.then(|| format!("{path}{FILE_SUFFIX}")), Some(path)])
        .flatten()
        .collect()
}

fn text_of(value: toml::Value, shape: Shape) -> Option<Zeroizing<String>> {
    match (value, shape) {
        (
            toml::Value::Integer(number),
            Shape::Seconds(..) | Shape::Days(..) | Shape::Count(..) | Shape::Bytes(..) | Shape::Amount,
        ) => Some(number.to_string().into()),
        (toml::Value::String(_), Shape::Seconds(..) | Shape::Days(..) | Shape::Count(..) | Shape::Amount) => {
            None
        }
        (toml::Value::Boolean(set), Shape::Choice(words)) if words.contains(&"true") => {
            Some(set.to_string().into())
        }
        (toml::Value::Array(items), Shape::Secrets | Shape::Texts) => {
            let whole = |item| match item {
                toml::Value::String(item) if !item.contains(',') => Some(Zeroizing::new(item)),
                _ => None,
            };
            let items: Vec<_> = items.into_iter().map(whole).collect::<Option<_>>()?;
            let texts: Vec<&str> = items.iter().map(|item| item.as_str()).collect();
            Some(texts.join(",").into())
        }
        (toml::Value::String(text), _) => Some(text.into()),
        _ => None,
    }
}

fn expected(shape: Shape) -> &'static str {
    match shape {
        Shape::Seconds(..) => "a whole number of seconds",
        Shape::Days(..) => "a whole number of days",
        Shape::Count(..) | Shape::Amount => "a whole number",
        Shape::Bytes(..) => "a whole number of bytes, or text such as `64MiB`",
        Shape::Secrets | Shape::Texts => "text or an array of texts",
        Shape::Choice(words) if words.contains(&"true") => "`true` or `false`",
        _ => "text",
    }
}

fn from_environment(environment: &Environment, all: &mut Gathered) -> Layer {
    let mut layer = Layer::default();
    let faults = &mut all.faults;
    for (name, value) in environment.iter() {
        let found = Found { text: value.to_owned().into(), origin: format!("the variable `{name}`") };
        let of =
            |variable: &str| KEYS.iter().find(|key| !key.variable.is_empty() && key.variable == variable);
        let by_file = || name.strip_suffix("_FILE").and_then(of).filter(|key| key.shape.is_secret());
        if let Some(key) = of(name) {
            layer.values.insert(key.variable_path(), found);
        } else if let Some(key) = by_file() {
            layer.stands_in(key.variable_path(), found, faults);
        } else if !NO_SETTINGS.contains(&name) {
            let known = known_variables();
            faults.unknown(name, "the environment", known.iter().map(String::as_str));
        }
    }
    if let Some(folder) = environment.get(CREDENTIALS_VARIABLE) {
        from_credentials(Path::new(folder), &mut layer, all);
    }
    layer
}

/// systemd's credentials: one file for each, named like the key (systemd.io/CREDENTIALS). What has another name is some
/// other program's, unless it is nearly one of ours.
fn from_credentials(folder: &Path, layer: &mut Layer, all: &mut Gathered) {
    let names = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
    });
    let names: Vec<String> = match names {
        Ok(names) => names,
        Err(error) => {
            let what = format!("cannot read the folder `{}`: {error}", folder.display());
            return all.faults.add(CREDENTIALS_VARIABLE, what, "");
        }
    };
    for name in names {
        if keys::find(&name).is_some_and(|key| key.shape.is_secret()) {
            let (text, origin) =
                (folder.join(&name).display().to_string(), format!("the credential `{name}`"));
            layer.stands_in(name, Found { text: text.into(), origin }, &mut all.faults);
        } else {
            let known = known_paths(&name);
            if nearest(&name, known.iter().map(String::as_str)).is_some() {
                all.faults.unknown(&name, "systemd's credentials", known.iter().map(String::as_str));
            }
        }
    }
}

fn known_variables() -> Vec<String> {
    let named = KEYS.iter().filter(|key| !key.variable.is_empty());
    let with_files = named.flat_map(|key| {
        [key.shape.is_secret().then(|| format!("{}_FILE", key.variable)), Some(key.variable.to_owned())]
    });
    with_files.flatten().chain(NO_SETTINGS.map(str::to_owned)).collect()
}
