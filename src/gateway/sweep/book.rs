//! What sweeps have come to, durable, and one sweep at a time. It reads nothing at Stripe.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync;

use super::standing::{Reads, Standing};
use crate::domain::limits::CONNECTED_ACCOUNTS_MAX;
use crate::domain::operation::DEFAULT_ALIAS;
use crate::store::{Batch, Entry, Error, Setting, Store};

/// The kind of the store's entries that hold an account's standing.
const KIND: &str = "sweep";
/// Under which name the reads of the day are kept.
const READS: &str = "sweep.reads";

/// An account: its alias as the log has it, and the connected account (`acct_...`), empty for the alias's own.
pub(in crate::gateway) type Place = (String, String);

/// The book; cheap to clone.
#[derive(Clone, Debug)]
pub struct Sweeps(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    pages: Mutex<Pages>,
    /// Held by whoever sweeps.
    turn: sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Pages {
    standings: BTreeMap<Place, Standing>,
    reads: Reads,
}

/// What is kept cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error("what sweeps came to cannot be read: {0}")]
    Store(#[from] Error),
    /// It holds something else.
    #[error("what sweeps came to is not understood")]
    Content(#[from] serde_json::Error),
}

impl Sweeps {
    /// The book as the store has it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(store: Store) -> Result<Self, OpenError> {
        let mut pages = Pages::default();
        for (id, body) in store.entries(KIND).await? {
            let (alias, connected) = id.split_once('/').unwrap_or((&id, ""));
            let place = (alias.to_owned(), connected.to_owned());
            pages.standings.insert(place, serde_json::from_slice(&body)?);
        }
        if let Some(reads) = store.setting(READS).await? {
            pages.reads = serde_json::from_slice(&reads)?;
        }
        Ok(Self(Arc::new(Shared { store, pages: Mutex::new(pages), turn: sync::Mutex::new(()) })))
    }

    /// Waits for the turn to sweep, which lasts until the guard is dropped.
    pub(super) async fn turn(&self) -> sync::MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// How an account stands, if it was ever to be swept.
    pub(super) fn standing(&self, place: &Place) -> Option<Standing> {
        self.pages().standings.get(place).cloned()
    }

    /// How the accounts stand that go by an alias, its own first.
    pub(in crate::gateway) fn of(&self, alias: &str) -> Vec<(String, Standing)> {
        let pages = self.pages();
        let own = pages.standings.iter().filter(|((of, _), _)| of == alias);
        own.map(|((_, connected), standing)| (connected.clone(), standing.clone())).collect()
    }

    /// Up to when the log was compared with Stripe's list, in seconds of Unix time by alias, 0 for never. Of the accounts
    /// that go by an alias the one that is furthest behind counts; a connected one does not before it was read, nor while
    /// Stripe refuses it.
    #[must_use]
    pub fn swept_to(&self) -> Vec<(String, i64)> {
        let mut ends = BTreeMap::new();
        for ((alias, connected), standing) in &self.pages().standings {
            if !connected.is_empty() && (standing.refused || standing.swept.is_none()) {
                continue;
            }
            let alias = if alias.is_empty() { DEFAULT_ALIAS } else { alias };
            let to_s = standing.swept.map_or(0, |(_, to_s)| to_s);
            let end = ends.entry(alias.to_owned()).or_insert(to_s);
            *end = to_s.min(*end);
        }
        ends.into_iter().collect()
    }

    /// How many reads were made today.
    pub(in crate::gateway) fn reads_today(&self, now_s: i64) -> u64 {
        self.pages().reads.today(now_s)
    }

    /// Takes one read of the day; false when they are used up.
    pub(super) fn take_read(&self, now_s: i64, most: u64) -> bool {
        self.pages().reads.take(now_s, most)
    }

    /// Whether an account has no standing yet, and there is room for it.
    pub(in crate::gateway) fn lacks(&self, place: &Place) -> bool {
        let pages = self.pages();
        let is_connected = |(alias, connected): &&Place| *alias == place.0 && !connected.is_empty();
        let has_room = || {
            place.1.is_empty() || pages.standings.keys().filter(is_connected).count() < CONNECTED_ACCOUNTS_MAX
        };
        !pages.standings.contains_key(place) && has_room()
    }

    /// Makes a standing durable, and the number of reads with it. One of a further account for which there is no room is
    /// not kept.
    ///
    /// # Errors
    /// When the store failed; what was known before stands.
    pub(super) async fn keep(&self, place: &Place, standing: Standing) -> Result<(), Error> {
        if self.standing(place).is_none() && !self.lacks(place) {
            return Ok(());
        }
        let reads = self.pages().reads;
        let (Ok(body), Ok(value)) = (serde_json::to_vec(&standing), serde_json::to_vec(&reads)) else {
            // Numbers and texts always have a JSON form.
            return Ok(());
        };
        let entry = Entry { kind: KIND, id: format!("{}/{}", place.0, place.1), body: Some(body) };
        let state = vec![Setting { name: READS.to_owned(), value }];
        self.0.store.commit(Batch { entries: vec![entry], state, ..Batch::default() }).await?;
        self.pages().standings.insert(place.clone(), standing);
        Ok(())
    }

    /// Ends the sweeping of an account.
    ///
    /// # Errors
    /// When the store failed; it stands then.
    pub(super) async fn forget(&self, place: &Place) -> Result<(), Error> {
        let entry = Entry { kind: KIND, id: format!("{}/{}", place.0, place.1), body: None };
        self.0.store.commit(Batch { entries: vec![entry], ..Batch::default() }).await?;
        self.pages().standings.remove(place);
        Ok(())
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::store::Terms;

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(folder.path(), Terms::default()).unwrap();
        let sweeps = Sweeps::open(store.clone()).await.unwrap();
        let (own, connected) = (("eu".to_owned(), String::new()), ("eu".to_owned(), "acct_1".to_owned()));
        let standing = Standing { since_s: 7, repaired: 3, swept: Some((7, 9)), ..Standing::default() };
        assert!(sweeps.take_read(100, 5));
        sweeps.keep(&own, standing.clone()).await.unwrap();
        sweeps.keep(&connected, Standing::default()).await.unwrap();
        store.close().await;

        let sweeps = Sweeps::open(Store::open(folder.path(), Terms::default()).unwrap()).await.unwrap();
        assert_eq!(sweeps.standing(&own), Some(standing.clone()));
        assert_eq!(sweeps.of("eu"), [(String::new(), standing), ("acct_1".to_owned(), Standing::default())]);
        assert_eq!((sweeps.of(""), sweeps.reads_today(100)), (Vec::new(), 1));
    }

    #[tokio::test]
    async fn an_alias_has_so_many_connected_accounts_and_forgets_those_that_end() {
        let folder = TempDir::new().unwrap();
        let sweeps = Sweeps::open(Store::open(folder.path(), Terms::default()).unwrap()).await.unwrap();
        let place = |connected: &str| (String::new(), connected.to_owned());
        for n in 0..CONNECTED_ACCOUNTS_MAX {
            sweeps.keep(&place(&format!("acct_{n}")), Standing::default()).await.unwrap();
        }
        sweeps.keep(&place("acct_further"), Standing::default()).await.unwrap();
        assert_eq!(sweeps.standing(&place("acct_further")), None);
        assert!(sweeps.lacks(&place("")), "there is always room for the own one");
        sweeps.forget(&place("acct_7")).await.unwrap();
        assert!(sweeps.lacks(&place("acct_further")) && sweeps.standing(&place("acct_7")).is_none());
    }

    #[tokio::test]
    async fn an_alias_does_not_wait_for_connected_accounts_that_cannot_be_read() {
        let folder = TempDir::new().unwrap();
        let sweeps = Sweeps::open(Store::open(folder.path(), Terms::default()).unwrap()).await.unwrap();
        let keep = async |connected: &str, standing: Standing| {
            sweeps.keep(&("eu".to_owned(), connected.to_owned()), standing).await.unwrap();
            sweeps.swept_to()
        };
        let to = |to_s: i64| Standing { swept: Some((1, to_s)), ..Standing::default() };
        let eu = |to_s: i64| vec![("eu".to_owned(), to_s)];
        assert_eq!(keep("", Standing::default()).await, eu(0));
        assert_eq!(keep("", to(50)).await, eu(50));
        assert_eq!(keep("acct_1", Standing::default()).await, eu(50));
        assert_eq!(keep("acct_2", Standing { refused: true, ..to(30) }).await, eu(50));
        assert_eq!(keep("acct_3", to(40)).await, eu(40));
    }
}
