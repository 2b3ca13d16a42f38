//! What the ledger is asked, and what it answers.

use super::budget::Exceeded;
use super::flights::Flight;
use super::lease::Lease;
use super::outcome::{Case, Settled, Stuck};
use super::proof::Verdict;
use super::resolve::Hold;
use super::spend::Claim;
use super::state::Record;
use super::transition::{Call, Known, Sending};
use crate::contract::{Effect, Pair, Spec};
use crate::domain::clock::UnixMillis;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::operation::Operation;
use crate::stripe::Outgoing;

/// A change that a caller asks for.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Which one.
    pub operation: Operation,
    /// By which RPC.
    pub spec: &'static Spec,
    /// What would go out if it is sent for the first time. The ledger puts in the key.
    pub outgoing: Outgoing,
    /// The parameters by which it is told whether two calls ask for the same: of an upload its name, purpose, size and
    /// hash instead of its bytes. What the gateway adds by itself is left out.
    pub params: &'a [Pair],
    /// Whether a refusal is to be tried again rather than answered from memory.
    pub retry_refused: bool,
    /// What it would take from budgets, where one speaks of it.
    pub claim: Option<Claim>,
}

/// What the ledger says to a call.
#[derive(Debug)]
pub enum Begun {
    /// Send [`Ticket::outgoing`], then [`settle`](super::Ledger::settle).
    New(Box<Ticket>),
    /// Answer from memory.
    Replay(Settled),
    /// An equal call was in flight, and this came of it.
    Joined(Verdict),
    /// The operation stands for another change: these fields differ.
    Mismatch(Vec<String>),
    /// The outcome of an earlier call is unknown, and no resend finds it out: look at Stripe, then say what was
    /// [`found`](super::Ledger::found).
    Look(Box<Hold>),
    /// The outcome of an earlier call is unknown.
    Unresolved(Unresolved),
    /// It does not fit into a budget; nothing was written or sent.
    OverBudget(Box<Exceeded>),
}

/// Why an unknown outcome is not found out by this call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// An equal call is in flight still, and the time to wait for it is over.
    InFlight,
    /// A person has to decide.
    NeedsOperator(Case),
    /// It moves money, and the ledger may have forgotten an earlier call: see [`Ledger::forgetful`](super::Ledger::forgetful).
    Forgotten,
}

/// What a call would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preview {
    /// It would be sent.
    Send {
        /// Under which key.
        how: Sending,
        /// Exactly what would go out, but for an upload's bytes.
        outgoing: Box<Outgoing>,
    },
    /// It would be answered without sending.
    Answer(Known),
    /// Its outcome would be looked for at Stripe.
    Look(Stuck),
    /// It would not fit into a budget.
    OverBudget(Box<Exceeded>),
}

/// What is known of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it stands.
    pub standing: Standing,
    /// Which try it is about.
    pub generation: u32,
    /// When the try can first have reached Stripe.
    pub first_sent_ms: UnixMillis,
    /// When it came to stand there.
    pub last_ms: UnixMillis,
}

/// Where an operation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing happened, and it may be sent again.
    Open,
    /// On its way.
    InFlight,
    /// It may have taken effect; the next call finds out, by a resend or a look at Stripe.
    Unknown,
    /// It may have taken effect; a person has to decide.
    NeedsOperator(Case),
    /// Stripe's answer is known.
    Settled(Settled),
}

/// The right to send one change, once. Dropping it leaves the outcome unknown and lets the next call resend.
#[derive(Debug)]
pub struct Ticket {
    pub(super) flight: Flight<Landed>,
    pub(super) record: Record,
    pub(super) spec: &'static Spec,
    pub(super) lease: Lease,
    /// Exactly what to send. The body of an upload has its boundary and no bytes: encode the file with that boundary.
    pub outgoing: Outgoing,
    /// Whether an earlier attempt of the same key may have taken effect.
    pub ambiguous: bool,
}

/// What a leader learnt, and about which parameters.
#[derive(Clone, Debug)]
pub(super) struct Landed {
    pub(super) fingerprint: Fingerprint,
    pub(super) verdict: Verdict,
}

impl Asked<'_> {
    pub(super) fn call<'f>(&self, fingerprint: &'f Fingerprint) -> Call<'f> {
        let repeatable = self.spec.effect == Effect::Repeatable;
        Call { fingerprint, retry_refused: self.retry_refused, repeatable }
    }
}

impl Ticket {
    /// Which change it is for.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        &self.record.operation
    }

    /// For how long the first byte of an attempt may go out; to be asked right before each.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// Which try of the operation it is.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.record.generation
    }
}

impl Begun {
    /// The answer in one word, for the audit record.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::New(_) => "sent",
            Self::Replay(_) => "replayed",
            Self::Joined(_) => "joined",
            Self::Mismatch(_) => "mismatch",
            Self::Unresolved(Unresolved::InFlight) => "in_flight",
            Self::Look(_) => "looked_for",
            Self::Unresolved(Unresolved::NeedsOperator(_)) => "needs_operator",
            Self::Unresolved(Unresolved::Forgotten) => "forgotten",
            Self::OverBudget(_) => "failed",
        }
    }
}

impl From<Known> for Begun {
    fn from(known: Known) -> Self {
        match known {
            Known::Replay(settled) => Self::Replay(settled),
            Known::Mismatch(fields) => Self::Mismatch(fields),
            Known::InFlight => Self::Unresolved(Unresolved::InFlight),
            Known::NeedsOperator(case) => Self::Unresolved(Unresolved::NeedsOperator(case)),
            Known::Forgotten => Self::Unresolved(Unresolved::Forgotten),
        }
    }
}
