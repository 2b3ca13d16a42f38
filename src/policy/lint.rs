//! What is allowed and yet probably a mistake; nothing here changes a decision.

use std::collections::BTreeSet;
use std::fmt;

use cedar_policy::{ValidationMode, Validator};

use super::set::{PolicySet, Rule};
use crate::config::Config;
use crate::domain::operation::DEFAULT_ALIAS;

/// The names that the configuration knows.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Callers.
    pub callers: BTreeSet<String>,
    /// Groups that callers are in.
    pub groups: BTreeSet<String>,
    /// Aliases of Stripe accounts.
    pub accounts: BTreeSet<String>,
}

impl Known {
    /// The names in these settings.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            callers: config.callers.iter().map(|caller| caller.name.clone()).collect(),
            groups: config.callers.iter().flat_map(|caller| caller.groups.clone()).collect(),
            accounts: std::iter::once(DEFAULT_ALIAS.to_owned())
                .chain(config.accounts.iter().map(|account| account.alias.clone()))
                .collect(),
        }
    }
}

/// Something that is probably a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule's name.
    pub rule: String,
    /// Its file, and the line in it.
    pub place: String,
    /// What is odd.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: rule `{}` {}", self.place, self.rule, self.what)
    }
}

impl PolicySet {
    /// What is probably a mistake, by the policies alone and, where the names are known, by those.
    #[must_use]
    pub fn warnings(&self, known: Option<&Known>) -> Vec<Warning> {
        let amounts = self.rules.values().filter(|rule| rule.amount && !rule.currency);
        let mut warnings: Vec<Warning> = amounts
            .map(|rule| {
                rule.warning(
                    "compares an amount without naming a currency: 5000 is 50.00 in `usd` and 5000 in `jpy`",
                )
            })
            .collect();
        let checked = Validator::new(self.schema.clone()).validate(&self.set, ValidationMode::Strict);
        warnings.extend(checked.validation_warnings().filter_map(|warning| {
            let rule = self.rules.get(AsRef::<str>::as_ref(warning.policy_id()))?;
            Some(rule.warning(&format!("is odd: {warning}")))
        }));
        if let Some(known) = known {
            let kinds = [("Caller", &known.callers), ("Group", &known.groups), ("Account", &known.accounts)];
            for (kind, names) in kinds {
                let unknown = self.named(kind).into_iter().filter(|(name, _)| !names.contains(name));
                warnings.extend(unknown.map(|(name, rule)| {
                    rule.warning(&format!("names {kind}::\"{name}\", which the configuration does not know"))
                }));
            }
        }
        warnings.sort_by(|a, b| (&a.place, &a.what).cmp(&(&b.place, &b.what)));
        warnings
    }
}

impl Rule {
    fn warning(&self, what: &str) -> Warning {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        Warning { rule: self.id.clone(), place: format!("{}{line}", self.file), what: what.to_owned() }
    }
}
