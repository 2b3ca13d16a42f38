//! Lets events leave the log when their time is over, after what subscriptions lose by it is told. Which may go is the
//! feed's to say.

use std::sync::Arc;
use std::time::Duration;

use super::call::Gateway;
use super::{follower, settler, thin};
use crate::config::Thin;
use crate::domain::clock::{UnixMillis, Vouched};
use crate::domain::drain::Drain;
use crate::events::{Bookmark, Error, Read};

/// Pause between two looks at the log.
const PAUSE: Duration = Duration::from_secs(5);

/// The background task of one gateway.
#[derive(Debug)]
pub struct Keeper {
    gateway: Arc<Gateway>,
}

impl Keeper {
    /// A keeper that has not looked yet.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    /// Works until the gateway goes down.
    pub async fn run(self, drain: Drain) {
        let mut vouched = Vouched::new(&*self.gateway.clock, Some(UnixMillis::MIN));
        loop {
            match self.look(&mut vouched).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "the retention of events is late"),
            }
            tokio::select! {
                () = drain.begun() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn look(&self, vouched: &mut Vouched) -> Result<(), Error> {
        let Gateway { feed, clock, events, metrics, .. } = &*self.gateway;
        let Some(span) = feed.span().await? else { return Ok(()) };
        // Stripe's clock vouches for ours, so that none that is wrong empties the log.
        let made_ms = span.newest_created_s.map_or(UnixMillis::MIN, |made_s| made_s.saturating_mul(1000));
        if vouched.now(&**clock) < made_ms {
            *vouched = Vouched::new(&**clock, Some(made_ms));
        }
        let now = vouched.now(&**clock);
        let mut followed = Bookmark::kept(feed, follower::BOOKMARK).await?;
        if events.thin == Thin::Fetch {
            followed = followed.min(Bookmark::kept(feed, thin::BOOKMARK).await?);
        }
        let read = Read { settled: Bookmark::kept(feed, settler::BOOKMARK).await?, followed };
        let departure = feed.limits(events, now, read).await?.departure(&self.gateway.subscriptions.holds());
        for loss in departure.lost {
            // Told before the events go, so that no crash keeps it quiet.
            self.gateway.subscriptions.lose(&loss).await?;
        }
        feed.expire(departure.up_to, now).await?;
        if departure.up_to >= span.oldest {
            tracing::info!(up_to = departure.up_to, "old events left the log");
        }
        if let Some(span) = feed.span().await? {
            let age_ms = clock.wall().saturating_sub(span.oldest_received_ms);
            metrics.event_log(span.bytes, Duration::from_millis(u64::try_from(age_ms).unwrap_or_default()));
        }
        Ok(())
    }
}
