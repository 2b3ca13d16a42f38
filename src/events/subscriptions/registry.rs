//! All subscriptions of a gateway, as they were left by earlier runs and as they come and go.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::consumer::Consumer;
use super::named::{KIND, Named, PARKED, Unkept};
use super::progress::{Parked, Progress};
use super::terms::{Record, Terms};
use crate::domain::clock::{Clock, UnixMillis};
use crate::domain::drain::Drain;
use crate::domain::limits::{
    SUBSCRIPTIONS_PER_NAMESPACE_MAX, SUBSCRIPTIONS_SHOWN_MAX, SUBSCRIPTIONS_TICK_MS,
};
use crate::events::{Feed, Hold, Loss};
use crate::store::{self, AuditRow, Store};

/// Ticks after which progress is kept that nobody waits for.
const LAZY_TICKS: u64 = 10;

type Key = (String, String);

/// All subscriptions; clones share them.
#[derive(Clone, Debug)]
pub struct Subscriptions {
    feed: Feed,
    clock: Arc<dyn Clock>,
    all: Arc<RwLock<BTreeMap<Key, Arc<Named>>>>,
    /// Held while one is created or deleted, so that the disk and the list change in the same order.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// How far a subscription is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// What it is known by.
    pub subscription: String,
    /// In events.
    pub events: u64,
    /// In seconds.
    pub seconds: i64,
}

/// A subscription cannot be created, or those of earlier runs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is another one of this name.
    #[error("there is a subscription of this name that was created in another way")]
    Exists,
    /// The namespace has too many.
    #[error("the namespace has {SUBSCRIPTIONS_PER_NAMESPACE_MAX} subscriptions, the most that it may have")]
    TooMany,
    /// It was deleted meanwhile.
    #[error("the subscription was deleted")]
    Ended,
    /// The store failed.
    #[error("subscriptions cannot be kept or read: {0}")]
    Store(#[from] store::Error),
    /// An entry is damaged, or of a later version.
    #[error("the subscription `{id}` cannot be read: {source}")]
    Damaged {
        /// What it is known by.
        id: String,
        /// Where reading stopped.
        source: serde_json::Error,
    },
}

impl From<Unkept> for Error {
    fn from(error: Unkept) -> Self {
        match error {
            Unkept::Ended => Self::Ended,
            Unkept::Store(error) => Self::Store(error),
        }
    }
}

impl Subscriptions {
    /// What earlier runs left.
    ///
    /// # Errors
    /// When that cannot be read in full: a subscription must not be forgotten.
    pub async fn open(feed: Feed, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let store = feed.store();
        let mut parked = parked(store).await?;
        let mut all = BTreeMap::new();
        for (id, body) in store.entries(KIND).await? {
            let record: Record =
                serde_json::from_slice(&body).map_err(|source| Error::Damaged { id: id.clone(), source })?;
            let parked = parked.remove(&id).unwrap_or_default();
            let (terms, progress) = record.progress(parked.clone(), clock.wall());
            let named = Named::new((terms, progress), parked, store.clone());
            all.insert(key(named.terms()), Arc::new(named));
        }
        Ok(Self { feed, clock, all: Arc::new(RwLock::new(all)), turn: Arc::default() })
    }

    /// The subscription of this name in a namespace.
    #[must_use]
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Named>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The subscriptions of a namespace, by name.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Vec<Arc<Named>> {
        let mut all = self.all();
        all.retain(|named| named.terms().namespace == namespace);
        all
    }

    /// Creates a subscription that begins right behind `position`, or answers with the one that there is. It is done
    /// whether somebody waits for it or not, as is [`Subscriptions::delete`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create(
        &self,
        terms: Terms,
        (position, since_ms): (u64, UnixMillis),
        audit: Vec<AuditRow>,
    ) -> Result<Arc<Named>, Error> {
        let this = self.clone();
        let work = tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            if let Some(named) = this.find(&terms.namespace, &terms.name) {
                return if named.terms().is_like(&terms) { Ok(named) } else { Err(Error::Exists) };
            }
            if this.of(&terms.namespace).len() >= SUBSCRIPTIONS_PER_NAMESPACE_MAX {
                return Err(Error::TooMany);
            }
            let progress = Progress::new(terms.delivering, position, since_ms);
            let store = this.feed.store().clone();
            let named = Arc::new(Named::new((terms, progress), BTreeMap::new(), store));
            named.keep(audit).await?;
            let mut all = this.all.write().unwrap_or_else(PoisonError::into_inner);
            all.insert(key(named.terms()), Arc::clone(&named));
            Ok(named)
        });
        work.await.unwrap_or(Err(Error::Store(store::Error::Uncertain)))
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// When that cannot be made durable; it then goes on.
    pub async fn delete(&self, named: Arc<Named>, audit: Vec<AuditRow>) -> Result<(), Error> {
        let this = self.clone();
        let work = tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            named.end(audit).await?;
            this.all.write().unwrap_or_else(PoisonError::into_inner).remove(&key(named.terms()));
            Ok(())
        });
        work.await.unwrap_or(Err(Error::Store(store::Error::Uncertain)))
    }

    /// Opens a stream of a subscription for a consumer of this name that may have so many events out.
    #[must_use]
    pub fn consume(&self, named: Arc<Named>, consumer: &str, in_flight_max: usize) -> Consumer {
        let shared = (self.feed.clone(), Arc::clone(&self.clock));
        Consumer::open(shared, named, (consumer, in_flight_max))
    }

    /// What every subscription has still to deliver.
    #[must_use]
    pub fn holds(&self) -> Vec<Hold> {
        let hold = |named: Arc<Named>| Hold { subscription: named.terms().key(), position: named.needless() };
        self.all().into_iter().map(hold).collect()
    }

    /// What a subscription has still to deliver of a part of the log is about to go; it has that on record once this
    /// returns.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub async fn lose(&self, loss: &Loss) -> Result<(), store::Error> {
        let named = self.all().into_iter().find(|named| named.terms().key() == loss.subscription);
        let Some(named) = named else { return Ok(()) };
        named.lose(loss.last);
        named.keep(Vec::new()).await.or_else(Unkept::unless_ended)
    }

    /// How far each is behind; of many, the first by namespace and name.
    #[must_use]
    pub fn lags(&self) -> Vec<Lag> {
        let (head, now_ms) = (*self.feed.head().borrow(), self.clock.wall());
        let lag = |named: Arc<Named>| {
            let (events, seconds) = named.lag(head, now_ms);
            Lag { subscription: named.terms().key(), events, seconds }
        };
        self.all().into_iter().take(SUBSCRIPTIONS_SHOWN_MAX).map(lag).collect()
    }

    /// Looks after all of them until the gateway goes down, and leaves nothing unkept.
    pub async fn run(self, drain: Drain) {
        for tick in 0_u64.. {
            let going = drain.has_begun();
            self.tend(going || tick.is_multiple_of(LAZY_TICKS)).await;
            if going {
                return;
            }
            tokio::select! {
                () = drain.begun() => {}
                () = tokio::time::sleep(Duration::from_millis(SUBSCRIPTIONS_TICK_MS)) => {}
            }
        }
    }

    async fn tend(&self, all: bool) {
        for named in self.all() {
            let tended = named.tend(all, self.clock.now()).await;
            // What the metrics show is read on the way.
            let looked = named.look_back(&self.feed).await;
            let failed = tended.err().map(|error| error.to_string());
            if let Some(error) = failed.or(looked.err().map(|error| error.to_string())) {
                tracing::warn!(subscription = named.terms().key(), error, "a subscription is kept later");
            }
        }
    }

    fn all(&self) -> Vec<Arc<Named>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

fn key(terms: &Terms) -> Key {
    (terms.namespace.clone(), terms.name.clone())
}

/// What is parked, by the key of its subscription.
async fn parked(store: &Store) -> Result<BTreeMap<String, BTreeMap<u64, Parked>>, Error> {
    let mut all = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (id, body) in store.entries(PARKED).await? {
        let parked = serde_json::from_slice(&body);
        let parked = parked.map_err(|source| Error::Damaged { id: id.clone(), source })?;
        let place = id.rsplit_once('/').and_then(|(key, position)| Some((key, position.parse().ok()?)));
        if let Some((key, position)) = place {
            all.entry(key.to_owned()).or_default().insert(position, parked);
        }
    }
    Ok(all)
}
