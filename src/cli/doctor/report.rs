//! What `doctor` found: one entry for each thing looked at, with its fix. It looks at nothing itself.

use serde_json::{Value, json};

use crate::domain::operation::DEFAULT_ALIAS;

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Pass,
    /// It works, and somebody will be sorry.
    Warn,
    /// It does not work, or not for long.
    Fail,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// What was looked at; the same word each time, for scripts.
    pub(super) check: &'static str,
    /// How it stands.
    pub(super) level: Level,
    /// What was seen.
    pub(super) found: String,
    /// What to do about it; empty where nothing is to be done.
    pub(super) fix: String,
}

impl Finding {
    pub(super) fn json(&self) -> Value {
        let mut json = json!({"check": self.check, "result": self.level.as_str(), "found": self.found});
        if let (Some(members), false) = (json.as_object_mut(), self.fix.is_empty()) {
            members.insert("fix".to_owned(), json!(self.fix));
        }
        json
    }
}

/// Everything that was looked at, in order.
#[derive(Debug, Default)]
pub(super) struct Report(pub(super) Vec<Finding>);

impl Report {
    pub(super) fn pass(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(Level::Pass, check, found.into(), String::new());
    }

    pub(super) fn warn(&mut self, check: &'static str, found: impl Into<String>, fix: impl Into<String>) {
        self.add(Level::Warn, check, found.into(), fix.into());
    }

    pub(super) fn fail(&mut self, check: &'static str, found: impl Into<String>, fix: impl Into<String>) {
        self.add(Level::Fail, check, found.into(), fix.into());
    }

    /// Passes unless something was found under this name already.
    pub(super) fn pass_if_nothing_else(&mut self, check: &'static str, found: impl Into<String>) {
        if !self.0.iter().any(|finding| finding.check == check) {
            self.pass(check, found);
        }
    }

    /// Takes what was found about the account `alias`; the default one needs no name.
    pub(super) fn take(&mut self, alias: &str, own: Self) {
        let about = if alias == DEFAULT_ALIAS { String::new() } else { format!("account `{alias}`: ") };
        let named = own.0.into_iter().map(|one| Finding { found: format!("{about}{}", one.found), ..one });
        self.0.extend(named);
    }

    pub(super) fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    fn add(&mut self, level: Level, check: &'static str, found: String, fix: String) {
        self.0.push(Finding { check, level, found, fix });
    }
}
