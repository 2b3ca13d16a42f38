//! Reads the event log once for what the gateway does because of it by and by: accounts that turn up are swept, and
//! deadlines are kept. What an event proves is the settler's.

use std::sync::Arc;
use std::time::Duration;

use super::accounts::Account;
use super::call::Gateway;
use super::deadlines::{self, Deadlines};
use super::sweep::Stop;
use crate::domain::account::AccountHeader;
use crate::domain::drain::Drain;
use crate::events::{self, Bookmark, LogEvent};

/// Under which name the place in the event log is kept.
pub(super) const BOOKMARK: &str = "follower";
/// How often deadlines are looked at, and how soon after a failure the log is read again.
const TICK: Duration = Duration::from_secs(1);

/// The background task of one gateway.
#[derive(Debug)]
pub struct Follower {
    gateway: Arc<Gateway>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Events(#[from] events::Error),
    #[error(transparent)]
    Deadlines(#[from] deadlines::Error),
    #[error(transparent)]
    Sweeps(#[from] Stop),
}

impl Follower {
    /// A follower that has not read anything yet.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    /// Works until the gateway goes down. What was dealt with right before a crash is dealt with again.
    pub async fn run(self, drain: Drain) {
        while !drain.has_begun() {
            let worked = tokio::select! {
                biased;
                () = drain.begun() => return,
                worked = self.work() => worked,
            };
            if let Err(error) = worked {
                tracing::warn!(%error, "the event log could not be followed; trying again");
            }
            tokio::select! {
                () = drain.begun() => return,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn work(&self) -> Result<(), Error> {
        let deadlines = Deadlines::open(self.gateway.store.clone()).await?;
        let mut bookmark = Bookmark::open(self.gateway.feed.clone(), BOOKMARK).await?;
        let mut tick = tokio::time::interval(TICK);
        loop {
            let batch = tokio::select! {
                batch = bookmark.next() => batch?,
                _ = tick.tick() => {
                    // What is not read yet may say that nothing is due any more.
                    if bookmark.is_at_end() {
                        self.gateway.remind(&deadlines).await?;
                    }
                    continue;
                }
            };
            let now_s = self.gateway.clock.wall().div_euclid(1000);
            for event in &batch {
                self.gateway.notice_account(event, now_s).await?;
                deadlines.notice(event, now_s).await?;
                bookmark.advance(event.position);
            }
            bookmark.keep().await?;
        }
    }
}

impl Gateway {
    /// An account that is connected to one of ours and has sent an event is swept from now on.
    async fn notice_account(&self, event: &LogEvent, now_s: i64) -> Result<(), Stop> {
        let connected = event.envelope().map(|envelope| envelope.connected_account.as_str());
        let account = self.accounts.resolve(&event.event.account);
        let (Some(connected), Some(account)) = (connected, account) else { return Ok(()) };
        // An alias that names one account to Stripe is that account, and no other comes under it.
        if connected.is_empty() || account.header != AccountHeader::None || is_own(account, connected) {
            return Ok(());
        }
        let place = (account.log_alias().to_owned(), connected.to_owned());
        if !self.sweeps.lacks(&place) {
            return Ok(());
        }
        let overlap_s = i64::try_from(self.events.sweep_overlap.as_secs()).unwrap_or(i64::MAX);
        let since_s = event.event.created_s.min(now_s).saturating_sub(overlap_s);
        tracing::info!(account = account.alias, connected, "a connected account sent its first event");
        self.begin(&place, since_s).await.map(drop)
    }
}

fn is_own(account: &Account, connected: &str) -> bool {
    account.id == connected
}
