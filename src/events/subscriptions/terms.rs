//! What a subscription was created as, and the form in which it is kept.

use std::collections::BTreeMap;

use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::progress::{Delivering, Parked, Progress, Saved};
use crate::domain::clock::UnixMillis;
use crate::events::{Filter, Types, Viewer};
use crate::proto::v1::{EventFilter, EventPreset};

/// What a subscription was created as; never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Tells it from every other, also from one that had its name before.
    pub id: u64,
    /// The namespace that it belongs to.
    pub namespace: String,
    /// Its name in there; it has no `/`.
    pub name: String,
    /// The account whose events it delivers, as the log has it.
    pub account: String,
    /// Event types, as they were asked for.
    pub types: Vec<String>,
    /// Groups of event types, as the contract numbers them.
    pub presets: Vec<i32>,
    /// What else an event has to be like, encoded; empty where nothing was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<u8>,
    /// How it delivers.
    pub delivering: Delivering,
    /// When it was created.
    pub created_ms: UnixMillis,
    /// The caller that created it.
    pub created_by: String,
}

/// What is kept of a subscription, but for what is parked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) terms: Terms,
    pub(super) saved: Saved,
}

impl Terms {
    /// What the subscription is known by in the store and in the logs.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The groups of event types.
    pub fn presets(&self) -> impl Iterator<Item = EventPreset> {
        self.presets.iter().filter_map(|preset| EventPreset::try_from(*preset).ok())
    }

    /// What else an event has to be like.
    #[must_use]
    pub fn filter(&self) -> Option<EventFilter> {
        (!self.filter.is_empty()).then(|| EventFilter::decode(self.filter.as_slice()).unwrap_or_default())
    }

    /// Whether it was created as `other` was asked for.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { id, created_ms, created_by, .. } = self.clone();
        *self == Self { id, created_ms, created_by, ..other.clone() }
    }

    /// The events that it lets through. Causes are those of its own namespace alone: who consumes it later is not known.
    pub(super) fn matcher(&self) -> Filter {
        let presets: Vec<_> = self.presets().collect();
        // They were checked before they were kept.
        let types = Types::new(&self.types, &presets).unwrap_or_default();
        let viewer = Viewer { namespace: self.namespace.clone(), every: false };
        Filter::new(&self.account, types).about(self.filter().as_ref(), viewer)
    }
}

impl Record {
    pub(super) fn progress(self, parked: BTreeMap<u64, Parked>, now_ms: UnixMillis) -> (Terms, Progress) {
        let progress = Progress::load(self.terms.delivering, self.saved, parked, now_ms);
        (self.terms, progress)
    }
}
