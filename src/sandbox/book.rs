//! The book of what the sandbox was asked and what it did, so that a test can count effects. It must not influence any
//! answer.

use serde::{Deserialize, Serialize};

/// One executed change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Effect {
    /// Position in the book, from 1.
    pub(super) n: u64,
    /// Sandbox time in Unix milliseconds.
    pub(super) at: i64,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) idempotency_key: Option<String>,
    /// The caller's stamp, `metadata[tollgate_operation]`.
    pub(super) operation: Option<String>,
    /// The id of the object answered.
    pub(super) object: Option<String>,
    pub(super) amount: Option<i64>,
    pub(super) request_id: String,
}

/// Effects in order, how many requests ended in which way, and which events were taken.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Book {
    pub(super) effects: Vec<Effect>,
    pub(super) received: u64,
    pub(super) replayed: u64,
    pub(super) refused: u64,
    /// Ids of the events that a target took with success, in the order of its answers.
    #[serde(default)]
    pub(super) acknowledged: Vec<String>,
}

impl Book {
    /// Appends an effect and numbers it.
    pub(super) fn record(&mut self, mut effect: Effect) {
        effect.n = self.effects.last().map_or(1, |last| last.n + 1);
        self.effects.push(effect);
    }
}
