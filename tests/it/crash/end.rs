//! The end of a run, whatever happened in it: the gateway ends in peace, and the records that know nothing of each other
//! are compared.

use tollgate::sandbox::Control;

use super::compare::{self, Violations};
use super::deliver_all;
use super::gateway::Gateway;
use super::load::{Entry, Load};
use super::records::{self, Book, Records};

/// What a run came to.
pub(crate) struct Ended {
    pub(crate) history: Vec<Entry>,
    /// Effects in the sandbox's book, without those that were there before.
    pub(crate) effects: usize,
    /// Webhooks that the gateway acknowledged.
    pub(crate) acknowledged: usize,
    pub(crate) violations: Violations,
}

/// Ends the run of `load` against `gateway`. `seeded` effects were in the sandbox's book before it, and the outcome of
/// `unknown_max` changes may stay unknown.
pub(crate) async fn end(
    load: &Load,
    gateway: &mut Gateway,
    control: &Control,
    seeded: usize,
    unknown_max: usize,
) -> Ended {
    deliver_all(control).await;
    let ledger = load.ledger().await;
    let ended = gateway.terminate().await;

    let mut book = Book::read(control);
    book.effects.drain(..seeded);
    let (audit, log) = records::stored(&gateway.data()).await;
    let events = log.into_iter().map(|logged| logged.id).collect();
    let history = std::mem::take(&mut *load.history());
    let records = Records { history: &history, ledger, book, audit, events, unknown_max };
    let mut violations = compare::violations(&records);
    gateway.judge_end(ended, &mut violations);
    let (effects, acknowledged) = (records.book.effects.len(), records.book.acknowledged.len());
    Ended { history, effects, acknowledged, violations }
}
