//! A first configuration file, made from the table of keys: what is required is set, everything else is told as a
//! comment.

use super::docs::value;
use super::keys::{KEYS, Key, Shape};

/// Keys that a gateway does not start without, and the files that their values are read from in the sample.
const REQUIRED: &[(&str, &str)] =
    &[("stripe.key", "/run/secrets/stripe_key"), ("webhook.secret", "/run/secrets/webhook_secret")];

const INTRODUCTION: &str = "\
# Tollgate's configuration. Lines that begin with `#` show the default, or how a setting is written.
# A variable `TOLLGATE_...` wins over this file; docs/config.md names them all. `tollgate config check` tells what is
# wrong, `tollgate config show` what holds, and `tollgate doctor` whether it works.
";

/// The text of the file.
#[must_use]
pub fn sample() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut section = "";
    // What belongs to no table has to stand before the first.
    let (outside, inside): (Vec<_>, Vec<_>) = KEYS.iter().partition(|key| !key.path.contains('.'));
    for key in outside.into_iter().chain(inside) {
        let (of, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if of != section {
            section = of;
            text.push_str(&heading(of));
        }
        text.push_str(&entry(key, name));
    }
    text
}

/// A table in which nothing is set stays a comment: an empty one is a fault.
fn heading(section: &str) -> String {
    let set = REQUIRED.iter().any(|(path, _)| path.rsplit_once('.').is_some_and(|(of, _)| of == section));
    format!("\n{}[{}]\n", if set { "" } else { "# " }, section.replace('*', "NAME"))
}

fn entry(key: &Key, name: &str) -> String {
    let about =
        format!("\n# {} ({})\n", key.about.replace("`*`", "`NAME`"), value(key.shape).replace('`', ""));
    let required = REQUIRED.iter().find(|(path, _)| *path == key.path);
    match (required, key.shape) {
        (Some((_, file)), _) => format!("{about}{name}_file = \"{file}\"\n"),
        (None, shape) if shape.is_secret() => format!("{about}# {name}_file = \"/run/secrets/{name}\"\n"),
        (None, Shape::Seconds(..) | Shape::Days(..) | Shape::Count(..) | Shape::Amount) => {
            format!("{about}# {name} = {}\n", if key.default.is_empty() { "0" } else { key.default })
        }
        (None, Shape::Choice(words)) if words.contains(&"true") => {
            format!("{about}# {name} = {}\n", if key.default.is_empty() { "false" } else { key.default })
        }
        (None, _) => format!("{about}# {name} = \"{}\"\n", key.default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags, load};

    #[test]
    fn the_sample_lacks_nothing_but_the_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tollgate.toml");
        let text = REQUIRED.iter().fold(sample(), |text, (path, secret)| {
            let own = folder.path().join(path);
            let value = if path.starts_with("stripe") { "sk_test_sample" } else { "whsec_sample" };
            std::fs::write(&own, value).unwrap();
            text.replace(secret, own.to_str().unwrap())
        });
        std::fs::write(&file, text).unwrap();
        let flags = Flags { config: Some(file), values: Vec::new() };
        load(&flags, &Environment::default()).unwrap();
    }

    #[test]
    fn every_default_is_written_as_the_file_wants_it() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let (section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            let entry = entry(key, name);
            let line = entry.lines().last().unwrap().trim_start_matches("# ");
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("tollgate.toml");
            let table = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
            std::fs::write(&file, format!("{table}{line}\n")).unwrap();
            let flags = Flags { config: Some(file), values: Vec::new() };
            let (shown, _) = crate::config::show(&flags, &Environment::default());
            let read = shown.iter().find(|shown| shown.key == key.path).unwrap();
            assert_eq!(
                (read.value.as_str(), read.configuration_file().is_some()),
                (key.default, true),
                "{line}"
            );
        }
    }
}
