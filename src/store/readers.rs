//! The connections that read beside the writer, off the runtime's own threads. What they read is asked elsewhere.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::error::Error;
use super::schema;

/// A few connections, opened when they are needed.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    slots: Arc<Semaphore>,
    count_max: usize,
}

impl Readers {
    /// At most `count_max` readers of the database at `path`.
    pub(super) fn new(path: PathBuf, count_max: usize) -> Self {
        Self { path, idle: Mutex::default(), slots: Arc::new(Semaphore::new(count_max)), count_max }
    }

    /// Runs a query on a thread that may block. Waits while all connections are busy.
    pub(super) async fn read<T, Q>(self: &Arc<Self>, query: Q) -> Result<T, Error>
    where
        T: Send + 'static,
        Q: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let readers = Arc::clone(self);
        let read = move |slot: OwnedSemaphorePermit| async move {
            let work = move || {
                let idle = readers.lock().pop();
                let connection = idle.map_or_else(|| schema::open_reader(&readers.path), Ok)?;
                let answer = query(&connection)?;
                // A connection that failed is not used again.
                readers.lock().push(connection);
                drop(slot);
                Ok(answer)
            };
            tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Closed))
        };
        let slots = Arc::clone(&self.slots);
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            return read(slot).await;
        }
        // On a task of its own, which goes when the caller goes: an event stream is asked for more only while its reader takes
        // what it has, and a slot given to one that is not asked would be kept from all others.
        let mut waiting = JoinSet::new();
        waiting.spawn(async move { read(slots.acquire_owned().await.map_err(|_| Error::Closed)?).await });
        waiting.join_next().await.and_then(Result::ok).unwrap_or(Err(Error::Closed))
    }

    /// Lets the running queries end and closes all connections, so that the writer's is the last.
    pub(super) async fn close(&self) {
        let all = self.slots.acquire_many(u32::try_from(self.count_max).unwrap_or(u32::MAX)).await;
        self.slots.close();
        drop(all);
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
