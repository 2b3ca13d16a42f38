//! The command line's own way to Stripe, for what no gateway is asked: it sends nothing by itself.

use super::failure::Failure;
use crate::config;
use crate::domain::operation::{DEFAULT_ALIAS, Mode};
use crate::stripe::traffic::{Settings, Traffic};
use crate::stripe::{Client, Key, Options};

/// A client of an account of this mode by the settings.
pub(super) fn client(config: &config::Stripe, mode: Mode) -> Result<Client, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::Start(error.to_string());
    let keys: Result<Vec<Key>, _> = config.keys.iter().cloned().map(Key::parse).collect();
    let options = Options {
        mode,
        account: DEFAULT_ALIAS.to_owned(),
        keys: keys.map_err(|error| wrong(&error))?,
        traffic: Traffic::new(Settings::of(mode)),
        extra_roots_pem: None,
        metrics: None,
        api_base: config.api_base.clone(),
        files_base: config.files_base.clone(),
        attempt_timeout: config.attempt_timeout,
        connect_timeout: config.connect_timeout,
    };
    Client::new(&options).map_err(|error| wrong(&error))
}
