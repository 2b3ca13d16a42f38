//! The settings as they hold, each with where it came from; a secret only as set or not.

use std::path::{Path, PathBuf};

use super::keys::{self, KEYS};
use super::layers::Gathered;
use super::{Environment, Faults, Flags, Stripe, check, layers};
use crate::domain::account::AccountHeader;
use crate::domain::operation::{DEFAULT_ALIAS, Mode};

/// What begins the origin of a secret that was read from a file of its own.
const SECRET_FILE: &str = "file `";

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    /// Path of the key, with the operator's own names in it.
    pub key: String,
    /// The value; `set` in place of a secret, `not set` where there is none.
    pub value: String,
    /// Where it came from; empty where it is not set.
    pub origin: String,
}

impl Shown {
    /// The file of its own that a secret was read from.
    #[must_use]
    pub fn secret_file(&self) -> Option<&Path> {
        self.origin.strip_prefix(SECRET_FILE)?.strip_suffix('`').map(Path::new)
    }

    /// The configuration file that the value stands in itself.
    #[must_use]
    pub fn configuration_file(&self) -> Option<&Path> {
        self.origin.strip_prefix('`')?.strip_suffix('`').map(Path::new)
    }

    /// Whether it is a secret that is set.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        !self.origin.is_empty() && keys::find(&self.key).is_some_and(|key| key.shape.is_secret())
    }
}

/// Every setting, in the order of the reference, and what is wrong with them.
#[must_use]
pub fn show(flags: &Flags, environment: &Environment) -> (Vec<Shown>, Faults) {
    let Gathered { values, faults, .. } = layers::gather(flags, environment);
    let mut all = Vec::new();
    for key in KEYS {
        let found: Vec<_> = values.iter().filter(|(path, _)| key.matches(path)).collect();
        if found.is_empty() && !key.path.contains('*') {
            all.push(Shown { key: key.path.to_owned(), value: "not set".to_owned(), origin: String::new() });
        }
        for (path, found) in found {
            let secret = keys::find(path).is_none_or(|key| key.shape.is_secret());
            let value = if secret { "set".to_owned() } else { found.text.to_string() };
            all.push(Shown { key: path.clone(), value, origin: found.origin.clone() });
        }
    }
    (all, faults)
}

/// The settings of Stripe alone, with the keys of the account `alias`, its mode and how it is named to Stripe, for those who
/// need no others.
///
/// # Errors
/// With everything that is wrong with these.
pub fn stripe(
    flags: &Flags,
    environment: &Environment,
    alias: &str,
) -> Result<(Stripe, Mode, AccountHeader), Faults> {
    let Gathered { values, faults, .. } = layers::gather(flags, environment);
    check::stripe(&values, faults, alias)
}

/// The file that webhook secrets of the account `alias` are to be read from, whether it is there or not.
#[must_use]
pub fn webhook_secret_file(flags: &Flags, environment: &Environment, alias: &str) -> Option<PathBuf> {
    let key = match alias {
        DEFAULT_ALIAS => "webhook.secret".to_owned(),
        alias => format!("accounts.{alias}.webhook_secret"),
    };
    layers::gather(flags, environment).secret_files.remove(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_as_set_and_everything_with_its_origin() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "whsec_hidden").unwrap();
        let toml = folder.path().join("t.toml");
        let text = format!(
            "data = \"d\"\n[stripe]\nkey = \"sk_test_hidden\"\n[webhook]\nsecret_file = \"{}\"\n[callers.a]\nnamespace = \"n\"\n",
            secret.display()
        );
        std::fs::write(&toml, text).unwrap();
        let flags = Flags { config: Some(toml.clone()), values: vec![("listen.ops", "127.0.0.1:1".into())] };
        let (shown, faults) = show(&flags, &Environment::from_iter([("TOLLGATE_LOG", "warn")]));
        assert_eq!(faults, Faults::default());
        let of = |key: &str| {
            let found = shown.iter().find(|shown| shown.key == key).unwrap();
            (found.value.as_str(), found.origin.clone())
        };
        let file = format!("`{}`", toml.display());
        assert_eq!(of("data"), ("d", file.clone()));
        assert_eq!(of("stripe.key"), ("set", file.clone()));
        assert_eq!(of("webhook.secret"), ("set", format!("file `{}`", secret.display())));
        assert_eq!(of("callers.a.namespace"), ("n", file));
        assert_eq!(of("listen.ops"), ("127.0.0.1:1", "a flag".into()));
        assert_eq!(of("telemetry.log"), ("warn", "the variable `TOLLGATE_LOG`".into()));
        let shown_of = |key: &str| shown.iter().find(|shown| shown.key == key).unwrap();
        assert_eq!(shown_of("webhook.secret").secret_file(), Some(secret.as_path()));
        assert_eq!(shown_of("stripe.key").configuration_file(), Some(toml.as_path()));
        assert!(shown_of("stripe.key").is_secret() && !shown_of("data").is_secret());
        assert_eq!(of("mode"), ("test", "the default".into()));
        assert_eq!(of("audit.signing_key"), ("not set", String::new()));
        assert!(!format!("{shown:?}").contains("hidden"));
    }
}
