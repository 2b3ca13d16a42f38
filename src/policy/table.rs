//! Tables of expected decisions: files beside the policies that say, row by row, what must be permitted and what denied.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::fault::line_of;
use super::question::{Facts, MONEY, Question, Target};
use super::set::PolicySet;
use super::{ACTIONS, Fault, Faults};
use crate::domain::caller::{Caller, Credential};
use crate::domain::operation::Mode;

/// How the name of a table ends.
const SUFFIX: &str = ".decisions.toml";
/// The account of a row that names none.
const DEFAULT_ACCOUNT: &str = "default";

/// A table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Files with the policies that are asked, beside the table; without them, the one that is called like it.
    #[serde(default)]
    policies: Vec<PathBuf>,
    /// Callers that are more than a name.
    #[serde(default)]
    callers: BTreeMap<String, Who>,
    /// Accounts that are not in test mode.
    #[serde(default)]
    accounts: BTreeMap<String, Where>,
    /// What must be decided.
    #[serde(rename = "decision")]
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    namespace: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Where {
    mode: Option<Mode>,
    #[serde(default)]
    id: String,
}

/// One expected decision.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What the row is about, in words.
    pub says: String,
    caller: String,
    action: String,
    #[serde(default)]
    account: Option<String>,
    #[serde(default)]
    order_id: String,
    #[serde(default)]
    operation_id: String,
    amount: Option<i64>,
    currency: Option<String>,
    #[serde(default)]
    event_type: String,
    /// Fields of the request by their names at Stripe.
    #[serde(default)]
    fields: BTreeMap<String, toml::Value>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    expect: Expectation,
    /// A rule that must be among those that decide.
    rule: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expectation {
    Permit,
    Deny,
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the row is about.
    pub says: String,
    /// What was decided, in a sentence.
    pub found: String,
    /// Whether that is what the row expects.
    pub as_expected: bool,
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// When it is no table, or a row speaks of what the schema does not know.
    pub fn read(path: &Path) -> Result<Self, Faults> {
        let file = path.display().to_string();
        let one = |line, what| Faults(vec![Fault { file: file.clone(), line, what }]);
        let text =
            std::fs::read_to_string(path).map_err(|error| one(None, format!("cannot be read: {error}")))?;
        let table: Self = toml::from_str(&text).map_err(|error| {
            one(error.span().map(|span| line_of(&text, span.start)), error.message().to_owned())
        })?;
        let faults: Vec<Fault> = table
            .rows
            .iter()
            .flat_map(|row| row.faults().into_iter().map(|what| format!("row \"{}\": {what}", row.says)))
            .map(|what| Fault { file: file.clone(), line: None, what })
            .collect();
        if faults.is_empty() { Ok(table) } else { Err(Faults(faults)) }
    }

    /// The tables that lie beside these policies: those that are called like a policy file or name one of them.
    #[must_use]
    pub fn beside(policies: &[PathBuf]) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = policies
            .iter()
            .filter_map(|policy| policy.parent())
            .map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .filter(|path| path.to_string_lossy().ends_with(SUFFIX))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// The files with the policies that the table at `path` asks.
    #[must_use]
    pub fn policies(&self, path: &Path) -> Vec<PathBuf> {
        let folder = path.parent().unwrap_or(Path::new(""));
        if self.policies.is_empty() {
            let name = path.to_string_lossy();
            return vec![PathBuf::from(format!("{}.cedar", name.trim_end_matches(SUFFIX)))];
        }
        self.policies.iter().map(|policy| folder.join(policy)).collect()
    }

    /// Asks the policies every row.
    #[must_use]
    pub fn judge(&self, set: &PolicySet) -> Vec<Verdict> {
        self.rows.iter().map(|row| self.row(row, set)).collect()
    }

    fn row(&self, row: &Row, set: &PolicySet) -> Verdict {
        let who = self.callers.get(&row.caller).cloned().unwrap_or_default();
        let caller = Caller {
            name: row.caller.clone(),
            namespace: who.namespace.unwrap_or_else(|| row.caller.clone()),
            groups: who.groups,
            credential: Credential::Token { id: String::new() },
            ..Caller::own("", "")
        };
        let alias = row.account.as_deref().unwrap_or(DEFAULT_ACCOUNT);
        let place = self.accounts.get(alias).cloned().unwrap_or_default();
        let decision = row.ask(&caller, (alias, &place), |question| set.judge(question));
        let expected = row.expect == if decision.permitted { Expectation::Permit } else { Expectation::Deny };
        let by_rule = row.rule.as_ref().is_none_or(|rule| decision.rules.contains(rule));
        Verdict { says: row.says.clone(), found: decision.sentence(), as_expected: expected && by_rule }
    }
}

impl Row {
    fn ask<R>(
        &self,
        caller: &Caller,
        (alias, place): (&str, &Where),
        ask: impl FnOnce(&Question<'_>) -> R,
    ) -> R {
        let mut texts: BTreeMap<&str, String> = self
            .fields
            .iter()
            .map(|(name, value)| {
                (name.as_str(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        texts.extend(self.amount.map(|amount| ("amount", amount.to_string())));
        texts.extend(self.currency.clone().map(|currency| ("currency", currency)));
        let metadata = self.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        ask(&Question {
            caller,
            action: &self.action,
            account: Target { alias, id: &place.id, mode: place.mode.unwrap_or(Mode::Test) },
            facts: Facts {
                order_id: &self.order_id,
                operation_id: &self.operation_id,
                money: self.amount.zip(self.currency.as_deref()),
                fields: texts.iter().map(|(name, value)| (*name, value.as_str())).collect(),
                metadata,
                event_type: &self.event_type,
            },
        })
    }

    /// What the row says that no question can.
    fn faults(&self) -> Vec<String> {
        let Some(action) = ACTIONS.iter().find(|action| action.name == self.action) else {
            return vec![format!("there is no action `{}`", self.action)];
        };
        let has = |name: &str| {
            action.fields.iter().any(|(known, _)| *known == name) || (action.money && MONEY.contains(&name))
        };
        let given = [
            ("amount", self.amount.is_some() && !has("amount")),
            ("currency", self.currency.is_some() && !has("currency")),
            ("order_id", !self.order_id.is_empty() && !action.ordered),
            ("operation_id", !self.operation_id.is_empty() && !action.ordered),
            ("metadata", !self.metadata.is_empty() && !action.tagged),
            ("event_type", !self.event_type.is_empty() && !action.receives),
        ];
        let own = given.into_iter().filter(|(_, wrong)| *wrong).map(|(name, _)| name);
        let fields = self.fields.keys().map(String::as_str).filter(|name| !has(name));
        own.chain(fields).map(|name| format!("`{}` has no `{name}`", self.action)).collect()
    }
}
