//! The process's environment, taken once; nobody else looks at it.

use std::collections::BTreeMap;
use std::io::Read as _;

use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;

use super::keys::KEYS;
use crate::domain::secret::Secret;

/// What the names of all variables begin with.
pub(super) const PREFIX: &str = "TOLLGATE_";
/// Names the TOML file.
pub const CONFIG_VARIABLE: &str = "TOLLGATE_CONFIG";
/// The token that the command line sends to a gateway.
pub const TOKEN_VARIABLE: &str = "TOLLGATE_TOKEN";
/// The gateway that the command line speaks to.
pub const ADDRESS_VARIABLE: &str = "TOLLGATE_ADDRESS";
/// The authorities that the command line believes about a gateway.
pub const TLS_CA_VARIABLE: &str = "TOLLGATE_TLS_CA";
/// The certificate that the command line presents.
pub const TLS_CERT_VARIABLE: &str = "TOLLGATE_TLS_CERT";
/// The key of the certificate that the command line presents.
pub const TLS_KEY_VARIABLE: &str = "TOLLGATE_TLS_KEY";
/// The variables that are the command line's and no settings of a gateway.
pub(super) const NO_SETTINGS: [&str; 6] =
    [CONFIG_VARIABLE, TOKEN_VARIABLE, ADDRESS_VARIABLE, TLS_CA_VARIABLE, TLS_CERT_VARIABLE, TLS_KEY_VARIABLE];

/// Where systemd puts the credentials of a service (systemd.io/CREDENTIALS).
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// Where the service manager wants to be told how the gateway stands (sd_notify(3)).
pub const NOTIFY_SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
/// Within how many microseconds it wants signs of life (sd_watchdog_enabled(3)).
pub const WATCHDOG_USEC_VARIABLE: &str = "WATCHDOG_USEC";
/// The variables that are the service manager's.
const SERVICE_MANAGER: [&str; 3] = [CREDENTIALS_VARIABLE, NOTIFY_SOCKET_VARIABLE, WATCHDOG_USEC_VARIABLE];

/// Says that secrets were taken out of the environment and stand at standard input.
pub const HANDED_OVER_VARIABLE: &str = "TOLLGATE_SECRETS_FROM";
/// Most bytes of secrets that are handed over: what every pipe takes without a reader (pipe(7)).
const HANDED_OVER_BYTES_MAX: usize = 4096;

/// The variables whose names begin with `TOLLGATE_`, and those of the service manager. The values of secrets are
/// kept apart, in locked memory.
#[derive(Clone, Default)]
pub struct Environment {
    plain: BTreeMap<String, String>,
    secret: BTreeMap<String, Secret>,
    is_clean: bool,
}

impl Environment {
    /// That of this process; with what was taken out of it before the process began anew.
    #[must_use]
    pub fn current() -> Self {
        let all = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let mut environment: Self =
            all.filter(|(name, _)| name.starts_with(PREFIX) || is_managers(name)).collect();
        if environment.plain.remove(HANDED_OVER_VARIABLE).is_some() {
            let mut text = Zeroizing::new(String::new());
            let limit = u64::try_from(HANDED_OVER_BYTES_MAX).unwrap_or(u64::MAX);
            // What cannot be read is missing, and what is missing is said by the check of the settings.
            std::io::stdin().lock().take(limit).read_to_string(&mut text).ok();
            let pairs = text.split_terminator('\0').filter_map(|pair| pair.split_once('='));
            environment.is_clean = true;
            environment.secret.extend(pairs.map(|(name, value)| (name.to_owned(), value.into())));
        }
        environment
    }

    /// The value of one variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let secret = || self.secret.get(name).map(ExposeSecret::expose_secret);
        self.plain.get(name).map(String::as_str).or_else(secret)
    }

    /// The names of the variables that show a secret to whoever may read the process's environment.
    pub fn exposed(&self) -> impl Iterator<Item = &str> {
        self.secret.keys().map(String::as_str).filter(|_| !self.is_clean)
    }

    /// The secrets in the form in which the process hands them to its next beginning; `None` when they are too long.
    #[must_use]
    pub fn handed_over(&self) -> Option<Secret> {
        let pairs =
            || self.secret.iter().map(|(name, value)| [name.as_str(), "=", value.expose_secret(), "\0"]);
        let length = pairs().flatten().map(str::len).sum();
        // All at once, so that nothing is left behind where a text was too short.
        let mut text = String::with_capacity(length);
        pairs().flatten().for_each(|part| text.push_str(part));
        (length <= HANDED_OVER_BYTES_MAX).then(|| text.into())
    }

    /// All variables that could be meant for the gateway.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let secret = self.secret.iter().map(|(name, value)| (name.as_str(), value.expose_secret()));
        let plain = self.plain.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        plain.chain(secret).filter(|(name, _)| !is_managers(name) && !is_injected(name))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            let (name, value) = (name.into(), value.into());
            if is_secret(&name) {
                environment.secret.insert(name, value.into());
            } else {
                environment.plain.insert(name, value);
            }
        }
        environment
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.plain.keys().chain(self.secret.keys())).finish()
    }
}

/// Whether a variable holds a secret, and not only the name of its file.
fn is_secret(name: &str) -> bool {
    name == TOKEN_VARIABLE || KEYS.iter().any(|key| key.variable == name && key.shape.is_secret())
}

fn is_managers(name: &str) -> bool {
    SERVICE_MANAGER.contains(&name)
}

/// Kubernetes gives every pod variables such as `TOLLGATE_SERVICE_HOST` when a service is called `tollgate`
/// (kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
fn is_injected(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|part| name.contains(part))
        || name.ends_with("_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_kept_apart_and_never_shown() {
        let all = [
            ("TOLLGATE_STRIPE_KEY", "sk_test_hidden"),
            ("TOLLGATE_STRIPE_KEY_FILE", "/run/key"),
            ("TOLLGATE_DATA", "d"),
        ];
        let environment: Environment = all.into_iter().collect();
        assert_eq!(environment.exposed().collect::<Vec<_>>(), ["TOLLGATE_STRIPE_KEY"]);
        assert_eq!(environment.get("TOLLGATE_STRIPE_KEY"), Some("sk_test_hidden"));
        assert_eq!(
            environment.handed_over().unwrap().expose_secret(),
            "TOLLGATE_STRIPE_KEY=sk_test_hidden\0"
        );
        assert_eq!(environment.iter().count(), 3);
        assert!(!format!("{environment:?}").contains("hidden"));
        let long = "x".repeat(HANDED_OVER_BYTES_MAX);
        assert!(Environment::from_iter([("TOLLGATE_STRIPE_KEY", long)]).handed_over().is_none());
    }
}
