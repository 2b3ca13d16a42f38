//! What a run found, for people and for `scripts/prove`.

use super::compare::{Rule, Violations};

/// Examples shown of each violation.
const SHOWN_MAX: usize = 3;

/// The result of one run.
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) kills: u64,
    pub(crate) operations: usize,
    pub(crate) calls: u64,
    /// Calls that ended without a word of the gateway.
    pub(crate) cut: u64,
    pub(crate) effects: usize,
    pub(crate) acknowledged: usize,
    pub(crate) unknown: usize,
    pub(crate) violations: Violations,
}

impl Report {
    pub(crate) fn count(&self, rule: Rule) -> usize {
        self.violations.get(&rule).map_or(0, Vec::len)
    }

    pub(crate) fn total(&self) -> usize {
        self.violations.values().map(Vec::len).sum()
    }

    pub(crate) fn print(&self, title: &str) {
        println!("{title}: seed {}, {} kills", self.seed, self.kills);
        println!(
            "  {} operations in {} calls ({} cut off), {} effects, {} webhooks acknowledged, {} unknown for good",
            self.operations, self.calls, self.cut, self.effects, self.acknowledged, self.unknown
        );
        print_violations(&self.violations);
    }

    /// The figures besides kills and violations.
    pub(crate) fn figures(&self) -> String {
        let Self { operations, calls, effects, acknowledged, unknown, .. } = self;
        format!(
            "{operations} operations in {calls} calls, {effects} effects, {acknowledged} webhooks acknowledged, \
             {unknown} unknown for good"
        )
    }
}

/// What broke, by promise, with some examples of each.
pub(crate) fn print_violations(violations: &Violations) {
    println!("  {} violations", violations.values().map(Vec::len).sum::<usize>());
    for (rule, found) in violations {
        println!("  {:>5} x {}", found.len(), rule.says());
        for one in found.iter().take(SHOWN_MAX) {
            println!("          {one}");
        }
    }
}
