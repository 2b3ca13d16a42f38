//! What the registry is built from: the configuration of callers and issuers, with each issuer's keys at hand.

use std::path::PathBuf;
use std::sync::Arc;

use super::jwks::{self, Keys};
use crate::config::{CallerConfig, Config, IssuerConfig};

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of keys cannot be read.
    #[error("the keys of an issuer cannot be read from `{}`: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file holds no key set.
    #[error("the file of an issuer's keys `{}` {source}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: jwks::Error,
    },
    /// The client that fetches keys cannot be set up.
    #[error("the keys at `{0}` cannot be fetched; are the system's certificate authorities installed?")]
    Client(String),
}

/// Callers, and issuers with their keys. A running registry takes all of it at once.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub(super) callers: Vec<CallerConfig>,
    pub(super) issuers: Vec<(IssuerConfig, Arc<Keys>)>,
}

impl Settings {
    /// The settings, with the key sets of files read; those at URLs are fetched later, so that a start does not wait for
    /// them.
    ///
    /// # Errors
    /// When a file cannot be read or holds no key set, or no HTTPS client can be set up.
    pub fn read(config: &Config) -> Result<Self, Error> {
        let with_keys = |issuer: &IssuerConfig| Ok((issuer.clone(), Arc::new(Keys::open(&issuer.keys)?)));
        let issuers = config.issuers.iter().map(with_keys).collect::<Result<_, Error>>()?;
        Ok(Self { callers: config.callers.clone(), issuers })
    }
}
