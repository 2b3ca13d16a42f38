//! Fetches what thin events only name. The notification is in the log already; what Stripe answers follows as an event of
//! the gateway's own that names the ones it covers. One read serves all that tell of one object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::call::Gateway;
use super::deadlines::{Data, Made};
use super::sweep::header;
use crate::config::Thin;
use crate::domain::account::AccountHeader;
use crate::domain::drain::Drain;
use crate::domain::limits::THIN_GATHER_MS;
use crate::events::{self, Arrival, BadEnvelope, Bookmark, Cause, Envelope, LogEvent, snapshot};
use crate::proto::v1::EventSource;
use crate::stripe::STRIPE_VERSION;
use crate::stripe::events::ReadError;

/// Under which name the place in the event log is kept.
pub(super) const BOOKMARK: &str = "thin";
/// What begins the ids of the events that follow; the rest is that of the newest event that they cover.
const ID_PREFIX: &str = "evt_tollgate_full_";
/// Pause after a failure that passes.
const PAUSE: Duration = Duration::from_secs(2);

/// The background task of one gateway.
#[derive(Debug)]
pub struct Fetcher {
    gateway: Arc<Gateway>,
}

/// Why fetching stopped.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Events(#[from] events::Error),
    #[error("what Stripe answered makes no event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("what Stripe answered makes no event: {0}")]
    Envelope(#[from] BadEnvelope),
}

/// What is read of a notification beside its envelope.
#[derive(Deserialize)]
struct Notification {
    related_object: Option<Related>,
}

#[derive(Deserialize)]
struct Related {
    url: Option<String>,
}

/// What is read of the full form of an event.
#[derive(Deserialize)]
struct Full {
    data: Option<Box<RawValue>>,
}

impl Fetcher {
    /// A fetcher that has not read anything yet.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    /// Works until the gateway goes down, if it is to fetch at all. What was fetched right before a crash is known by its
    /// id and not appended again.
    pub async fn run(self, drain: Drain) {
        if self.gateway.events.thin != Thin::Fetch {
            return;
        }
        loop {
            let worked = tokio::select! {
                biased;
                () = drain.begun() => return,
                worked = self.work() => worked,
            };
            if let Err(error) = worked {
                tracing::warn!(%error, "what thin events name could not be fetched; trying again");
            }
            tokio::select! {
                () = drain.begun() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn work(&self) -> Result<(), Stop> {
        let mut bookmark = Bookmark::open(self.gateway.feed.clone(), BOOKMARK).await?;
        loop {
            if bookmark.next().await?.iter().any(|event| is_thin(event)) {
                // Events of one object come in bursts, and one read serves them all.
                tokio::time::sleep(Duration::from_millis(THIN_GATHER_MS)).await;
            }
            let batch = bookmark.next().await?;
            let mut objects: BTreeMap<_, Vec<&LogEvent>> = BTreeMap::new();
            for event in batch.iter().filter(|event| is_thin(event)) {
                let Some(envelope) = event.envelope() else { continue };
                let name = if envelope.object_id.is_empty() { &envelope.id } else { &envelope.object_id };
                let of = (event.event.account.clone(), envelope.connected_account.clone(), name.clone());
                objects.entry(of).or_default().push(event);
            }
            for events in objects.values() {
                match self.fetch(events).await {
                    // Nothing that is tried again would mend it, and others wait.
                    Err(error) if !passes(&error) => {
                        let newest = events.last().map(|event| event.event.id.as_str());
                        tracing::error!(%error, newest, "what thin events name is left unfetched");
                    }
                    fetched => fetched?,
                }
            }
            if let Some(last) = batch.last() {
                bookmark.advance(last.position);
                bookmark.keep().await?;
            }
        }
    }

    /// Fetches what the events name, which are about one object and in the order of the log.
    async fn fetch(&self, events: &[&LogEvent]) -> Result<(), Stop> {
        let gateway = &self.gateway;
        let mut covered = Vec::new();
        for event in events.iter().rev() {
            let follow_up = format!("{ID_PREFIX}{}", event.event.id);
            if gateway.feed.get(&event.event.account, &follow_up).await?.is_some() {
                break;
            }
            covered.push(event.event.id.as_str());
        }
        covered.reverse();
        let (Some(_), Some(newest)) = (covered.first(), events.last()) else { return Ok(()) };
        let Some(envelope) = newest.envelope() else { return Ok(()) };
        let Some(account) = gateway.accounts.resolve(&newest.event.account) else { return Ok(()) };
        let connected = &envelope.connected_account;
        let header = match account.header {
            AccountHeader::None => header(account, connected),
            _ => account.header.clone(),
        };
        gateway.give_way().await;
        let object = self.object(newest, envelope, &account.stripe, &header).await?;
        let request = json!({"id": envelope.request_id, "idempotency_key": envelope.idempotency_key});
        let made = Made {
            id: format!("{ID_PREFIX}{}", newest.event.id),
            object: "event",
            api_version: STRIPE_VERSION.to_owned(),
            account: Some(connected.clone()).filter(|connected| !connected.is_empty()),
            created: envelope.created_s,
            data: Data { object },
            livemode: envelope.livemode,
            kind: &envelope.kind,
            request: Some(request).filter(|_| !envelope.request_id.is_empty()),
            tollgate: json!({"covers": covered}),
        };
        let json = serde_json::to_string(&made)?;
        let arrival = Arrival {
            envelope: Envelope::parse(&json)?,
            account: newest.event.account.clone(),
            source: EventSource::Synthetic,
            json,
            cause: Cause::default(),
        };
        gateway.intake.take(&gateway.accounts.belonging_to(account), arrival).await?;
        Ok(())
    }

    /// The object as it is now, or what the event carries where it names none.
    async fn object(
        &self,
        event: &LogEvent,
        envelope: &Envelope,
        stripe: &crate::stripe::Client,
        header: &AccountHeader,
    ) -> Result<Box<RawValue>, Stop> {
        let notification: Notification = serde_json::from_str(&event.event.json)?;
        let url = notification.related_object.and_then(|related| related.url).filter(|url| is_path(url));
        let Some(url) = url else {
            let full: Full = serde_json::from_slice(&stripe.full_thin_event(&envelope.id, header).await?)?;
            return Ok(full.data.map_or_else(|| RawValue::from_string("{}".to_owned()), Ok)?);
        };
        match stripe.object(&url, header).await {
            Ok(body) => Ok(serde_json::from_slice(&body)?),
            Err(ReadError::Missing) => {
                let gone = json!({"id": envelope.object_id, "object": envelope.object_type, "deleted": true});
                Ok(serde_json::value::to_raw_value(&gone)?)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether an event is Stripe's and names its object alone.
fn is_thin(event: &LogEvent) -> bool {
    event.event.source != i32::from(EventSource::Synthetic) && snapshot(&event.event.json).is_none()
}

/// Whether a later try can go better.
fn passes(stop: &Stop) -> bool {
    match stop {
        Stop::Read(ReadError::Missing | ReadError::NoPermission(_)) | Stop::Json(_) | Stop::Envelope(_) => {
            false
        }
        Stop::Read(ReadError::Refused(status)) => *status >= 500,
        Stop::Read(_) | Stop::Events(_) => true,
    }
}

/// Whether Stripe's API has such paths; nothing else is asked for under a key.
fn is_path(url: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
    (url.starts_with("/v1/") || url.starts_with("/v2/")) && url.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_api_are_asked_for() {
        assert!(is_path("/v1/refunds/re_1") && is_path("/v2/core/accounts/acct_1"));
        for url in
            ["https://a.example/v1/refunds/re_1", "//a.example/v1/x", "/v1/../v1/x", "/v1/x?expand=y", ""]
        {
            assert!(!is_path(url), "{url}");
        }
    }
}
