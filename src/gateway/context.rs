//! What the pipeline knows of a call besides its message.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use crate::domain::caller::Caller;
use crate::stripe::Sender;
use crate::telemetry::call::Notes;

/// Who calls, from where, and until when the caller waits.
#[derive(Clone, Debug)]
pub struct Context {
    /// The identified caller.
    pub caller: Caller,
    /// For whom the caller says it acts; empty when it says nothing. Never trusted.
    pub actor: String,
    /// Address the call came from.
    pub peer: String,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The trace that the call belongs to; empty when nobody traces.
    pub trace_id: String,
    /// What is noted of the call for its log line.
    pub notes: Notes,
    /// Whether the caller waits.
    pub presence: Presence,
}

/// Whether a caller still waits, for a change that goes on without it. By default it does, whatever happens.
#[derive(Clone, Debug, Default)]
pub struct Presence(Option<Weak<()>>);

impl Presence {
    /// For as long as `wait` is not dropped.
    pub(super) fn while_held(wait: &Arc<()>) -> Self {
        Self(Some(Arc::downgrade(wait)))
    }

    /// Whether it has left.
    pub(super) fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|wait| wait.strong_count() == 0)
    }
}

impl Context {
    /// For whom its requests go to Stripe.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::Caller(self.caller.name.as_str().into())
    }
}
