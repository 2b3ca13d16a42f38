//! The ways to be a wrong caller, and what each of them has to come to.

use prost_reflect::Value;
use tonic::Code;

use super::certificates::Presents;
use super::contract::{Does, Rpc};
use super::credentials::{self, Purse, Shown, bearer};
use super::house::{CAP, CAPPED, DOMESTIC, FROZEN, INTERN, NEIGHBOUR, NOTHING, READER, SPENDER, TENANT};
use crate::crash::random::Random;

/// Makes what a wrong caller shows, anew for each attempt.
type Showing = Box<dyn Fn(&Purse, &mut Random) -> Shown + Send + Sync>;

/// One way to be wrong.
pub(super) struct Wrong {
    pub(super) name: &'static str,
    pub(super) who: Who,
    /// At which RPCs.
    pub(super) at: fn(&Rpc, &Purse) -> bool,
    /// What its connection presents.
    pub(super) presents: Presents,
    /// What the call shows of itself.
    pub(super) shown: Showing,
    /// What it asks for.
    pub(super) request: fn(&Rpc, &Purse, &mut Random) -> Vec<Vec<u8>>,
}

/// As whom the gateway has to put the attempt on record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// As nobody, in a sum of this cause.
    Nobody(&'static str),
    /// As a caller to whom a rule of the policies, or none of them, speaks.
    Denied { caller: &'static str, rule: &'static str },
    /// As a caller whose changes are frozen.
    Frozen { caller: &'static str },
    /// As a caller whose budget is used up.
    Overspent { caller: &'static str },
}

impl Who {
    /// The code and the reason of the refusal.
    pub(super) fn refusal(&self) -> (Code, &'static str) {
        match self {
            Self::Nobody(_) => (Code::Unauthenticated, "UNAUTHENTICATED"),
            Self::Denied { .. } => (Code::PermissionDenied, "POLICY_DENIED"),
            Self::Frozen { .. } => (Code::FailedPrecondition, "FROZEN"),
            Self::Overspent { .. } => (Code::ResourceExhausted, "BUDGET_EXCEEDED"),
        }
    }
}

/// Everybody who must not have what is asked for.
pub(super) fn all() -> Vec<Wrong> {
    nobodies().into_iter().chain(strange_connections()).chain(denied()).collect()
}

/// Everybody whom no credential proves.
fn nobodies() -> Vec<Wrong> {
    let wrong = |kind: credentials::Kind| Wrong {
        name: kind.name,
        who: Who::Nobody(kind.cause),
        at: |_, _| true,
        presents: Presents::Nothing,
        shown: Box::new(kind.shown),
        request: |rpc, _, random| rpc.request(random, &[]),
    };
    credentials::kinds().map(wrong).collect()
}

/// Everybody whose connection presents a certificate that does not help.
fn strange_connections() -> Vec<Wrong> {
    let wrong = |name, presents, cause, shown: fn() -> Shown| Wrong {
        name,
        who: Who::Nobody(cause),
        at: |_, _| true,
        presents,
        shown: Box::new(move |_, _| shown()),
        request: |rpc, _, random| rpc.request(random, &[]),
    };
    let (unknown, common) = (Presents::Unknown, Presents::CommonName);
    let reader = || bearer(READER.1);
    vec![
        wrong("a certificate of another name", unknown, "unknown_certificate", Vec::new),
        wrong("a certificate of another name with a token", unknown, "unknown_certificate", reader),
        wrong("a certificate without names", common, "unknown_certificate", Vec::new),
        wrong("a certificate with another caller's token", Presents::Orders, "ambiguous", reader),
        wrong("a certificate with nobody's token", Presents::Orders, "unknown_token", || {
            bearer("nobody's-token")
        }),
    ]
}

/// Everybody who is known and must not.
fn denied() -> Vec<Wrong> {
    const DEFAULT: &str = "default-deny";
    let wrong = |name, (caller, token): (&'static str, &'static str), rule| Wrong {
        name,
        who: Who::Denied { caller, rule },
        at: |_, _| true,
        presents: Presents::Nothing,
        shown: Box::new(move |_, _| bearer(token)),
        request: |rpc, _, random| rpc.request(random, &[]),
    };
    let changes = |rpc: &Rpc, _: &Purse| rpc.does == Does::Changes;
    vec![
        wrong("a caller of whom no rule speaks", NOTHING, DEFAULT),
        Wrong {
            at: |rpc, purse| purse.pages.contains_key(&rpc.name()),
            request: |rpc, purse, _| purse.pages[&rpc.name()].clone(),
            // It may ask the same elsewhere: a cursor that brought its maker's rights along would let it in.
            ..wrong("with the cursor of another", NEIGHBOUR, DEFAULT)
        },
        Wrong { at: changes, ..wrong("a reader who changes something", READER, DEFAULT) },
        Wrong {
            at: |rpc, _| rpc.does == Does::Keeps,
            ..wrong("a reader who keeps something at the gateway", READER, DEFAULT)
        },
        Wrong {
            at: |rpc, _| rpc.does == Does::Operates,
            ..wrong("a reader as an operator", READER, DEFAULT)
        },
        Wrong {
            at: |rpc, _| rpc.does != Does::Reads,
            ..wrong("a change that a rule forbids", INTERN, "interns-only-read")
        },
        Wrong {
            at: |rpc, _| rpc.does == Does::Changes && rpc.takes("amount"),
            request: over_the_cap,
            ..wrong("an amount over the cap", CAPPED, "capped")
        },
        Wrong {
            at: |rpc, _| rpc.does == Does::Changes && rpc.takes("payment_intent"),
            request: |rpc, purse, random| rpc.request(random, &[paid(purse)]),
            ..wrong("an amount over the cap that is left out", CAPPED, "capped")
        },
        Wrong {
            who: Who::Overspent { caller: SPENDER.0 },
            at: |rpc, _| rpc.does == Does::Changes && rpc.takes("payment_intent"),
            request: over_the_cap,
            ..wrong("an amount over the budget", SPENDER, DEFAULT)
        },
        Wrong {
            at: |rpc, _| rpc.does == Does::Changes && rpc.takes("operation"),
            request: foreign_order,
            ..wrong("an order of another caller", TENANT, DEFAULT)
        },
        Wrong {
            at: |rpc, _| rpc.does != Does::Operates && rpc.takes("account"),
            request: |rpc, _, random| rpc.request(random, &[("account", Value::String("eu".to_owned()))]),
            ..wrong("another account", DOMESTIC, DEFAULT)
        },
        Wrong {
            who: Who::Frozen { caller: FROZEN.0 },
            at: changes,
            ..wrong("a caller whose changes are frozen", FROZEN, DEFAULT)
        },
    ]
}

fn over_the_cap(rpc: &Rpc, purse: &Purse, random: &mut Random) -> Vec<Vec<u8>> {
    let amount = CAP + 1 + i64::try_from(random.below(1_000_000)).unwrap();
    let mut set = vec![("amount", Value::I64(amount))];
    set.extend(rpc.takes("payment_intent").then(|| paid(purse)));
    rpc.request(random, &set)
}

/// A payment that Stripe knows, since its currency is read before anything is decided.
fn paid(purse: &Purse) -> (&'static str, Value) {
    ("payment_intent", Value::String(purse.payment.clone()))
}

/// An order whose name does not begin as those of the caller do.
fn foreign_order(rpc: &Rpc, _: &Purse, random: &mut Random) -> Vec<Vec<u8>> {
    let names = ["shop-1", "tenant", "Tenant-1", "tenan-1", "xtenant-1"];
    let name = *random.pick(&names);
    let operation = rpc.operation(name);
    rpc.request(random, &[("operation", operation)])
}
