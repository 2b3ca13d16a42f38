//! Gathers settings from all places into one map that knows where each came from; whether they make sense is
//! [`super::check`]'s.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Flags;
use super::environment::{ADDRESS_VARIABLE, CONFIG_VARIABLE, Environment, TOKEN_VARIABLE};
use super::fault::Faults;
use super::keys::{self, KEYS, Key, Shape};

/// The file that is read when none is named.
const FILE_DEFAULT: &str = "tollgate.toml";
/// Ends the name of a key whose value stands in a file of its own.
const FILE_SUFFIX: &str = "_file";

/// A value and where it came from.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) text: String,
    pub(super) origin: String,
}

/// Values by key path.
pub(super) type Values = BTreeMap<String, Found>;

/// All layers, the later over the earlier.
pub(super) fn gather(flags: &Flags, environment: &Environment) -> (Values, Faults) {
    let mut faults = Faults::default();
    let mut all = defaults();
    for layer in [
        from_toml(flags, environment, &mut faults),
        from_environment(environment, &mut faults),
        flags
            .values
            .iter()
            .map(|(path, text)| (*path, Found { text: text.clone(), origin: "a flag".into() }))
            .fold(Layer::default(), |mut layer, (path, found)| {
                layer.values.insert(path.to_owned(), found);
                layer
            }),
    ] {
        all.extend(layer.resolve(&mut faults));
    }
    (all, faults)
}

fn defaults() -> Values {
    let set = KEYS.iter().filter(|key| !key.default.is_empty());
    set.map(|key| (key.path.to_owned(), Found { text: key.default.to_owned(), origin: "the default".into() }))
        .collect()
}

/// What one place says; values that stand in files of their own are not read yet.
#[derive(Default)]
struct Layer {
    values: Values,
    files: Values,
}

impl Layer {
    fn resolve(mut self, faults: &mut Faults) -> Values {
        for (path, file) in self.files {
            if let Some(value) = self.values.get(&path) {
                let both =
                    format!("is set twice, as a value by {} and as a file by {}", value.origin, file.origin);
                faults.add(&path, both, "");
                continue;
            }
            match fs::read_to_string(&file.text) {
                Ok(text) => {
                    let origin = format!("file `{}`", file.text);
                    self.values.insert(path, Found { text: text.trim_end().to_owned(), origin });
                }
                Err(error) => {
                    faults.add(&path, format!("cannot read the file `{}`: {error}", file.text), &file.origin);
                }
            }
        }
        self.values
    }
}

fn from_toml(flags: &Flags, environment: &Environment, faults: &mut Faults) -> Layer {
    let mut layer = Layer::default();
    let named = flags.config.clone().or_else(|| environment.get(CONFIG_VARIABLE).map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| FILE_DEFAULT.into());
    let origin = format!("`{}`", path.display());
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => return layer,
        Err(error) => {
            faults.add("config", format!("cannot read the file {origin}: {error}"), "");
            return layer;
        }
    };
    match text.parse::<toml::Table>() {
        Ok(table) => flatten("", &table, &path, &mut layer, faults),
        // The parser's own rendering quotes the line, which may hold a secret.
        Err(error) => {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            faults.add("config", format!("is not TOML at line {line}: {}", error.message()), &origin);
        }
    }
    layer
}

fn flatten(prefix: &str, table: &toml::Table, file: &Path, layer: &mut Layer, faults: &mut Faults) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if let toml::Value::Table(inner) = value {
            if inner.is_empty() {
                // It was meant to say something, and would be forgotten in silence.
                faults.add(&path, "is an empty table", &format!("`{}`", file.display()));
            }
            flatten(&path, inner, file, layer, faults);
            continue;
        }
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

fn text_of(value: &toml::Value, shape: Shape) -> Option<String> {
    match (value, shape) {
        (toml::Value::Integer(number), Shape::Seconds(..) | Shape::Days(..)) => Some(number.to_string()),
        (toml::Value::Boolean(set), Shape::Choice(words)) if words.contains(&"true") => Some(set.to_string()),
        (toml::Value::Array(items), Shape::Secrets | Shape::Texts) => {
            let whole =
                |item: &toml::Value| item.as_str().filter(|item| !item.contains(',')).map(str::to_owned);
            items.iter().map(whole).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        (toml::Value::String(text), shape) if !matches!(shape, Shape::Seconds(..) | Shape::Days(..)) => {
            Some(text.clone())
        }
        _ => None,
    }
}

fn expected(shape: Shape) -> &'static str {
    match shape {
        Shape::Seconds(..) => "a whole number of seconds",
        Shape::Days(..) => "a whole number of days",
        Shape::Secrets | Shape::Texts => "text or an array of texts",
        Shape::Choice(words) if words.contains(&"true") => "`true` or `false`",
        _ => "text",
    }
}

fn from_environment(environment: &Environment, faults: &mut Faults) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in environment.iter() {
        let found = Found { text: value.to_owned(), origin: format!("the variable `{name}`") };
        let of =
            |variable: &str| KEYS.iter().find(|key| !key.variable.is_empty() && key.variable == variable);
        let by_file = || name.strip_suffix("_FILE").and_then(of).filter(|key| key.shape.is_secret());
        if let Some(key) = of(name) {
            layer.values.insert(key.variable_path(), found);
        } else if let Some(key) = by_file() {
            layer.files.insert(key.variable_path(), found);
        } else if ![CONFIG_VARIABLE, TOKEN_VARIABLE, ADDRESS_VARIABLE].contains(&name) {
            let known = known_variables();
            faults.unknown(name, "the environment", known.iter().map(String::as_str));
        }
    }
    layer
}

fn known_variables() -> Vec<String> {
    let named = KEYS.iter().filter(|key| !key.variable.is_empty());
    let with_files = named.flat_map(|key| {
        [key.shape.is_secret().then(|| format!("{}_FILE", key.variable)), Some(key.variable.to_owned())]
    });
    with_files
        .flatten()
        .chain([CONFIG_VARIABLE, TOKEN_VARIABLE, ADDRESS_VARIABLE].map(str::to_owned))
        .collect()
}
