//! Brings together who may call: callers and issuers of the configuration, and the API tokens of the store.

use std::sync::Arc;

use super::Error;
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::identity::{Registry, Settings, TokenRecord, token};
use crate::store::Store;

/// Everybody who may call.
///
/// # Errors
/// When a file of keys cannot be used or the store cannot be read.
pub(super) async fn registry(
    config: &Config,
    store: &Store,
    clock: &Arc<dyn Clock>,
) -> Result<Registry, Error> {
    let registry = Registry::new(Settings::read(config)?, Arc::clone(clock));
    let entries = store.entries(token::KIND).await?;
    // A token that cannot be read lets nobody in.
    let read = |(id, body): (String, Vec<u8>)| -> Option<TokenRecord> {
        let read = serde_json::from_slice(&body);
        read.map_err(|error| tracing::error!(id, %error, "the record of an API token cannot be read")).ok()
    };
    registry.set_tokens(entries.into_iter().filter_map(read).collect());
    Ok(registry)
}
