//! The process's environment, taken once; nobody else looks at it.

use std::collections::BTreeMap;

/// What the names of all variables begin with.
pub(super) const PREFIX: &str = "TOLLGATE_";
/// Names the TOML file.
pub const CONFIG_VARIABLE: &str = "TOLLGATE_CONFIG";
/// The token that the command line sends to a gateway.
pub const TOKEN_VARIABLE: &str = "TOLLGATE_TOKEN";
/// The gateway that the command line speaks to.
pub const ADDRESS_VARIABLE: &str = "TOLLGATE_ADDRESS";

/// Where systemd puts the credentials of a service (systemd.io/CREDENTIALS).
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The variables whose names begin with `TOLLGATE_`, and the one of [`CREDENTIALS_VARIABLE`].
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn current() -> Self {
        let all = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        Self(all.filter(|(name, _)| name.starts_with(PREFIX) || name == CREDENTIALS_VARIABLE).collect())
    }

    /// The value of one variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All variables that could be meant for the gateway.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| *name != CREDENTIALS_VARIABLE && !is_injected(name))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Kubernetes gives every pod variables such as `TOLLGATE_SERVICE_HOST` when a service is called `tollgate`
/// (kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
fn is_injected(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|part| name.contains(part))
        || name.ends_with("_PORT")
}
