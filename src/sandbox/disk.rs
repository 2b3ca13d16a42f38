//! The state file: read at the start, written whole and atomically after changes. It must not look into the state.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::state::Kept;
use super::{Error, Shared};

/// How often the state is compared with what is on disk.
const WRITE_EVERY: Duration = Duration::from_millis(200);

/// What the file holds; nothing when there is no file yet.
pub(super) async fn load(path: Option<&Path>) -> Result<Option<Kept>, Error> {
    let Some(path) = path else { return Ok(None) };
    let text = match tokio::fs::read(path).await {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::File { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| Error::Content { path: path.to_owned(), source })
}

/// Keeps the file up to date until told to stop, and once more then.
pub(super) async fn keep(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let Some(path) = shared.options.state_file.clone() else { return };
    let mut written = None;
    loop {
        let stop = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => true,
            () = tokio::time::sleep(WRITE_EVERY) => false,
        };
        let version = shared.state().version();
        if written != Some(version) {
            match write(&shared, &path).await {
                Ok(()) => written = Some(version),
                Err(error) => tracing::error!(path = %path.display(), %error, "sandbox state not written"),
            }
        }
        if stop {
            return;
        }
    }
}

async fn write(shared: &Shared, path: &Path) -> std::io::Result<()> {
    let text = serde_json::to_vec(&shared.state().kept)?;
    let fresh = path.with_extension("new");
    tokio::fs::write(&fresh, text).await?;
    tokio::fs::rename(&fresh, path).await
}
