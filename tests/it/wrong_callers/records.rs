//! The denials that a gateway left in its audit log, counted. Reading only.

use std::collections::BTreeMap;

use super::wrong::Who;
use crate::crash::records::Audit;

/// How many denials there are of each kind: whose, by which rule or for which cause, and of which RPC. Those of nobody
/// have no RPC, since a sum keeps the last one only.
pub(super) type Denials = BTreeMap<(String, String, String), u64>;

/// What stands for any freeze, which has a name of its own that nobody can know beforehand.
const FREEZE: &str = "freeze";
/// What stands for any budget.
const BUDGET: &str = "budget";

/// Where the denial of an attempt is counted.
pub(super) fn place(who: &Who, rpc: &str) -> (String, String, String) {
    match who {
        Who::Nobody(cause) => (String::new(), (*cause).to_owned(), String::new()),
        Who::Denied { caller, rule } => ((*caller).to_owned(), (*rule).to_owned(), rpc.to_owned()),
        Who::Overspent { caller } => ((*caller).to_owned(), BUDGET.to_owned(), rpc.to_owned()),
        Who::Frozen { caller } => ((*caller).to_owned(), FREEZE.to_owned(), rpc.to_owned()),
    }
}

/// Counts the denials on record.
pub(super) fn denials(audit: &[Audit]) -> Denials {
    let mut denials = Denials::new();
    for row in audit {
        if row.phase != "denied" {
            continue;
        }
        let place = if row.caller.is_empty() {
            (String::new(), row.note.clone().unwrap_or_default(), String::new())
        } else {
            let rule = match row.decision.as_deref().unwrap_or_default() {
                rule if rule.starts_with("freeze frz_") => FREEZE,
                rule if rule.starts_with("budget ") => BUDGET,
                rule => rule,
            };
            (row.caller.clone(), rule.to_owned(), row.rpc.clone())
        };
        *denials.entry(place).or_default() += row.count.unwrap_or(1);
    }
    denials
}
