//! The one way into the event log: whoever received an event, what does not belong is left out, what caused it is found,
//! and it is durable when this is done. Whether it is Stripe's own is for whoever received it to know.

use std::collections::BTreeSet;

use tracing::Instrument as _;

use super::causes::{Causes, Side};
use super::shared::SharedReads;
use crate::domain::operation::{DEFAULT_ALIAS, Mode};
use crate::events::{Arrival, Envelope, Error, Feed};
use crate::proto::v1::CauseKind;
use crate::stripe::STRIPE_VERSION;
use crate::telemetry::metrics::Metrics;

/// The way in; cheap to clone.
#[derive(Clone, Debug)]
pub struct Intake {
    feed: Feed,
    causes: Causes,
    reads: SharedReads,
    metrics: Metrics,
}

/// Which events belong under an alias.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Belongs {
    /// The account behind the alias, `acct_...`.
    pub account: String,
    /// Whether it is of live mode; events of the other mode are left out.
    pub livemode: bool,
    /// Only events that name one of these accounts, `acct_...`, where an empty name stands for those that name none; without
    /// it, of any.
    pub only: Option<BTreeSet<String>>,
    /// Other accounts that have an alias of their own, under which alone their events are taken: an event has one place in
    /// the log.
    pub elsewhere: BTreeSet<String>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the log now.
    Stored {
        /// Where.
        position: u64,
    },
    /// It was in the log before.
    Duplicate {
        /// Where.
        position: u64,
    },
    /// It is of the other mode.
    WrongMode,
    /// It is of an account that is not asked for here.
    WrongAccount,
}

impl Intake {
    /// The way into `feed`.
    #[must_use]
    pub fn new(feed: Feed, causes: Causes, reads: SharedReads, metrics: Metrics) -> Self {
        Self { feed, causes, reads, metrics }
    }

    /// Takes an event in; what caused it is found here. It is durable when this returns.
    ///
    /// # Errors
    /// When the store failed; the event must then be fetched or delivered again.
    pub async fn take(&self, belongs: &Belongs, mut arrival: Arrival) -> Result<Taken, Error> {
        let envelope = &arrival.envelope;
        let (id, kind) = (envelope.id.clone(), envelope.kind.clone());
        if let Some(stray) = belongs.refuses(envelope) {
            tracing::info!(event = id, kind, livemode = envelope.livemode, why = ?stray, "event left out");
            return Ok(stray);
        }
        arrival.cause = self.causes.of(envelope, &arrival.json, belongs.side(envelope)).await?;
        let noted = Noted::of(&arrival);
        // Who learns of the event and then reads must see what it tells.
        self.reads.anew();
        let appended = self.feed.append(arrival).instrument(tracing::info_span!("feed append")).await?;
        let position = appended.position;
        if appended.duplicate {
            return Ok(Taken::Duplicate { position });
        }
        self.metrics.events_appended(1);
        tracing::info!(event = id, kind, position, "event received");
        let Noted { alias, outside, other_version } = noted;
        if let Some(request) = outside {
            self.metrics.event_outside(&alias);
            tracing::info!(event = id, kind, account = alias, request, "caused outside of the gateway");
        }
        if let Some(version) = other_version {
            self.metrics.event_in_other_version(&alias);
            tracing::debug!(event = id, kind, account = alias, version, "rendered in another version");
        }
        Ok(Taken::Stored { position })
    }
}

/// What is worth a count of its own once the event is in the log.
struct Noted {
    alias: String,
    /// The request past the gateway that caused it.
    outside: Option<String>,
    /// The version that it is rendered in, where that is not the contract's.
    other_version: Option<String>,
}

impl Noted {
    fn of(Arrival { envelope, account, source, cause, .. }: &Arrival) -> Self {
        let alias = if account.is_empty() { DEFAULT_ALIAS } else { account };
        let is_outside = cause.kind(envelope, i32::from(*source)) == CauseKind::Outside;
        Self {
            alias: alias.to_owned(),
            outside: is_outside.then(|| envelope.request_id.clone()),
            other_version: is_other(&envelope.api_version).then(|| envelope.api_version.clone()),
        }
    }
}

/// Whether a version of Stripe's is not the one that the contract is written for. Thin events are rendered in none.
pub(super) fn is_other(version: &str) -> bool {
    ![STRIPE_VERSION, ""].contains(&version)
}

impl Belongs {
    fn refuses(&self, envelope: &Envelope) -> Option<Taken> {
        if envelope.livemode != self.livemode {
            return Some(Taken::WrongMode);
        }
        let of = &envelope.connected_account;
        let other = self.only.as_ref().is_some_and(|only| !only.contains(of));
        (other || self.elsewhere.contains(of)).then_some(Taken::WrongAccount)
    }

    fn side<'a>(&'a self, envelope: &'a Envelope) -> Side<'a> {
        let connected = Some(envelope.connected_account.as_str()).filter(|account| !account.is_empty());
        let mode = if envelope.livemode { Mode::Live } else { Mode::Test };
        Side { account: connected.unwrap_or(&self.account), mode }
    }
}
