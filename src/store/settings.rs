//! Settings: values that are kept under a name for the folder's whole life, secrets among them. What they mean is not its
//! business.

use super::error::Error;
use super::rows::{Batch, Setting};
use super::{Store, query};

impl Store {
    /// The value of a setting of either kind, or `None` if it was never kept.
    ///
    /// # Errors
    /// [`Error::Uncertain`] while it is not known whether its last replacement is stored; whatever the disk says.
    pub async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        if self.shared.tail().doubts_setting(name) {
            return Err(Error::Uncertain);
        }
        let name = name.to_owned();
        self.readers.read(move |connection| query::setting(connection, &name)).await
    }

    /// Keeps a setting if it has no value yet; answers the value that stands, which may be an earlier one.
    ///
    /// # Errors
    /// As for [`Store::commit`].
    pub async fn keep_setting(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, Error> {
        if let Some(value) = self.setting(name).await? {
            return Ok(value);
        }
        let settings = vec![Setting { name: name.to_owned(), value }];
        self.commit(Batch { settings, ..Batch::default() }).await?;
        self.setting(name).await?.ok_or_else(|| Error::Corrupt(format!("setting `{name}` is gone")))
    }

    /// A secret of this data folder: random bytes made at the first request for the name and the same ever after.
    ///
    /// # Errors
    /// As for [`Store::commit`].
    pub async fn secret(&self, name: &str) -> Result<[u8; 32], Error> {
        let name = format!("secret.{name}");
        let secret = self.keep_setting(&name, random::<32>()?.to_vec()).await?;
        secret.try_into().map_err(|_| Error::Corrupt(format!("setting `{name}` has the wrong length")))
    }
}

pub(super) fn random<const BYTES: usize>() -> Result<[u8; BYTES], Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Error::Io(error.to_string()))?;
    Ok(bytes)
}
