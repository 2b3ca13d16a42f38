//! Why a question is decided as it is: what every rule has to say to it.

use cedar_policy::{Authorizer, PolicyId};

use super::question::Question;
use super::set::{Decision, PolicySet, Rule};
use super::{ACTIONS, DEFAULT_DENY, EVALUATION_ERROR};

/// A decision, and each rule's part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What was decided.
    pub decision: Decision,
    /// Every rule, in the order of their files and places.
    pub bearings: Vec<Bearing>,
}

/// What one rule has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearing {
    /// Its name.
    pub rule: String,
    /// Its file, and the line in it.
    pub place: String,
    /// Whether it forbids.
    pub forbids: bool,
    /// What it says: `applies`, or why it does not.
    pub says: String,
}

impl PolicySet {
    /// Decides a question, and says why.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Explained {
        let mut rules: Vec<&Rule> = self.rules.values().collect();
        rules.sort_by_key(|rule| (&rule.file, rule.line));
        let bearings = rules.into_iter().map(|rule| self.bearing(rule, question)).collect();
        Explained { decision: self.judge(question), bearings }
    }

    fn bearing(&self, rule: &Rule, question: &Question<'_>) -> Bearing {
        let policy = self.set.policy(&PolicyId::new(&rule.id));
        let line = rule.line.map(|line| format!(":{line}")).unwrap_or_default();
        Bearing {
            rule: rule.id.clone(),
            place: format!("{}{line}", rule.file),
            forbids: policy.is_some_and(|policy| policy.effect() == cedar_policy::Effect::Forbid),
            says: self.says(rule, question),
        }
    }

    fn says(&self, rule: &Rule, question: &Question<'_>) -> String {
        let action = ACTIONS.iter().find(|action| action.name == question.action);
        if !action.is_some_and(|action| rule.covers(action)) {
            return "is about other actions".to_owned();
        }
        if !rule.may_concern(question.caller) {
            return "is about other callers".to_owned();
        }
        if !rule.reaches(question.account.alias) {
            return "is about other accounts".to_owned();
        }
        match self.alone(rule, question) {
            Ok(true) => "applies".to_owned(),
            Ok(false) => "its conditions do not hold".to_owned(),
            Err(trouble) => format!("cannot be evaluated, which denies: {trouble}"),
        }
    }

    /// Whether the rule is satisfied, as if there were no other.
    fn alone(&self, rule: &Rule, question: &Question<'_>) -> Result<bool, String> {
        let policy = self.set.policy(&PolicyId::new(&rule.id)).cloned();
        let alone = cedar_policy::PolicySet::from_policies(policy).map_err(|error| error.to_string())?;
        let (request, entities) = self.vocabulary.ask(question)?;
        let response = Authorizer::new().is_authorized(&request, &alone, &entities);
        match response.diagnostics().errors().next() {
            Some(error) => Err(error.to_string()),
            None => Ok(response.diagnostics().reason().next().is_some()),
        }
    }
}

impl Decision {
    /// The decision in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let rule = self.rule();
        match (self.permitted, rule.as_str()) {
            (true, _) => format!("permitted by `{rule}`"),
            (false, DEFAULT_DENY) => format!("denied, since no rule permits it (`{DEFAULT_DENY}`)"),
            (false, EVALUATION_ERROR) => {
                let trouble = self.trouble.as_deref().unwrap_or("a rule cannot be evaluated");
                format!("denied, since {trouble} (`{EVALUATION_ERROR}`)")
            }
            (false, _) => format!("denied, since `{rule}` forbids it"),
        }
    }
}
