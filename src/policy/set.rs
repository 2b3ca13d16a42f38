//! Policies that were checked, and their decisions.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{
    ActionConstraint, Authorizer, EntityUid, Policy, PrincipalConstraint, ResourceConstraint, Schema,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::question::{Question, Vocabulary};
use super::{Action, DEFAULT_DENY, EVALUATION_ERROR, Fault, Faults, Source};
use crate::domain::caller::Caller;
use crate::domain::operation::hex;

/// Policies that were checked.
#[derive(Debug)]
pub struct PolicySet {
    pub(super) set: cedar_policy::PolicySet,
    pub(super) rules: BTreeMap<String, Rule>,
    pub(super) schema: Schema,
    pub(super) vocabulary: Vocabulary,
    hash: String,
}

/// What is known of a policy besides its text.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) file: String,
    pub(super) line: Option<usize>,
    pub(super) principal: PrincipalConstraint,
    pub(super) action: ActionConstraint,
    pub(super) resource: ResourceConstraint,
    /// Whether it speaks of the amount.
    pub(super) amount: bool,
    /// Whether it speaks of the currency.
    pub(super) currency: bool,
}

/// What was decided, and by which rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub permitted: bool,
    /// The rules that decided, in the order of their names; never empty.
    pub rules: Vec<String>,
    /// What went wrong in evaluating, which denies.
    pub trouble: Option<String>,
}

impl Decision {
    /// The deciding rules, as audit records and faults name them.
    #[must_use]
    pub fn rule(&self) -> String {
        self.rules.join(",")
    }

    fn denied(rule: &str, trouble: Option<String>) -> Self {
        Self { permitted: false, rules: vec![rule.to_owned()], trouble }
    }
}

impl Rule {
    pub(super) fn of(id: &str, policy: &Policy, file: &str, line: Option<usize>) -> Self {
        let mut mentioned = BTreeSet::new();
        match policy.to_json() {
            Ok(json) => mention(&json, &mut mentioned),
            // What cannot be looked into may speak of anything.
            Err(_) => mentioned.extend(["amount".to_owned(), "currency".to_owned()]),
        }
        let whole = mentioned.contains(WHOLE);
        Self {
            id: id.to_owned(),
            file: file.to_owned(),
            line,
            principal: policy.principal_constraint(),
            action: policy.action_constraint(),
            resource: policy.resource_constraint(),
            amount: whole || mentioned.contains("amount"),
            currency: whole || mentioned.contains("currency"),
        }
    }
}

/// Stands for the context as a whole among the attributes that a policy mentions.
const WHOLE: &str = "";

/// The attributes of the context that an expression in Cedar's JSON form mentions
/// (docs.cedarpolicy.com/policies/json-format.html).
fn mention(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::Object(members) => {
            for (name, value) in members {
                let attribute = [".", "has"].contains(&name.as_str()).then(|| attribute(value)).flatten();
                match attribute {
                    Some(attribute) => drop(found.insert(attribute)),
                    None if name == "Var" && value == "context" => drop(found.insert(WHOLE.to_owned())),
                    None => mention(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| mention(item, found)),
        _ => {}
    }
}

/// `attribute` of `context.attribute` or `context has attribute`.
fn attribute(access: &Value) -> Option<String> {
    let left = access.pointer("/left/Var")?;
    (left == "context").then(|| access.get("attr")?.as_str().map(str::to_owned)).flatten()
}

impl PolicySet {
    pub(super) fn assemble(
        set: cedar_policy::PolicySet,
        rules: BTreeMap<String, Rule>,
        schema: Schema,
        sources: &[Source],
    ) -> Result<Self, Faults> {
        let vocabulary = Vocabulary::new().map_err(|error| {
            Faults(vec![Fault { file: "the built-in actions".to_owned(), line: None, what: error }])
        })?;
        let digest = sources.iter().fold(Sha256::new(), |digest, source| {
            let length = u64::try_from(source.text.len()).unwrap_or(u64::MAX);
            digest.chain_update(length.to_be_bytes()).chain_update(&source.text)
        });
        Ok(Self { set, rules, schema, vocabulary, hash: hex(&digest.finalize()) })
    }

    /// SHA-256 of the texts, by which audit records name what is in force.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Names of the rules, in order.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    /// Decides a question: denied unless a policy permits it and none forbids it. Where a policy cannot be evaluated, it
    /// is denied, since what could not be evaluated might have forbidden it.
    #[must_use]
    pub fn judge(&self, question: &Question<'_>) -> Decision {
        let (request, entities) = match self.vocabulary.ask(question) {
            Ok(asked) => asked,
            Err(trouble) => return Decision::denied(EVALUATION_ERROR, Some(trouble)),
        };
        let response = Authorizer::new().is_authorized(&request, &self.set, &entities);
        if let Some(error) = response.diagnostics().errors().next() {
            return Decision::denied(EVALUATION_ERROR, Some(error.to_string()));
        }
        let mut rules: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        rules.sort();
        let permitted = response.decision() == cedar_policy::Decision::Allow;
        if rules.is_empty() {
            return Decision::denied(DEFAULT_DENY, None);
        }
        Decision { permitted, rules, trouble: None }
    }

    /// Whether a rule that can bear on this caller's use of the action speaks of an amount or a currency, so that both
    /// have to be known before it is judged.
    #[must_use]
    pub fn needs_money(&self, caller: &Caller, action: &str) -> bool {
        let Some(action) = super::ACTIONS.iter().find(|known| known.name == action) else { return false };
        let speaks = self.rules.values().filter(|rule| rule.amount || rule.currency);
        let mut bearing = speaks.filter(|rule| rule.may_concern(caller) && rule.covers(action));
        bearing.next().is_some()
    }

    /// Whether some rule may permit the caller the action with the account of this alias, on whatever conditions.
    #[must_use]
    pub fn may_permit_call(&self, caller: &Caller, action: &str, alias: &str) -> bool {
        let Some(action) = super::ACTIONS.iter().find(|known| known.name == action) else { return false };
        self.permitting().any(|rule| rule.may_concern(caller) && rule.covers(action) && rule.reaches(alias))
    }

    /// Whether some rule permits somebody an RPC, on whatever conditions.
    #[must_use]
    pub fn may_permit(&self, service: &str, rpc: &str) -> bool {
        let name = format!("{service}.{rpc}");
        let Some(action) = super::ACTIONS.iter().find(|known| known.name == name) else { return false };
        self.permitting().any(|rule| rule.covers(action))
    }

    /// Whether some rule permits the caller anything, on whatever conditions.
    #[must_use]
    pub fn speaks_for(&self, caller: &Caller) -> bool {
        self.permitting().any(|rule| rule.may_concern(caller))
    }

    fn permitting(&self) -> impl Iterator<Item = &Rule> {
        let permits = self.set.policies().filter(|policy| policy.effect() == cedar_policy::Effect::Permit);
        permits.filter_map(|policy| self.rules.get(AsRef::<str>::as_ref(policy.id())))
    }

    /// The entities that the policies name, of one type.
    pub(super) fn named(&self, kind: &str) -> BTreeMap<String, &Rule> {
        let policies = self.set.policies().filter_map(|policy| {
            let id: &str = policy.id().as_ref();
            Some((policy, self.rules.get(id)?))
        });
        let of_kind = |uid: &EntityUid| uid.type_name().basename() == kind;
        policies
            .flat_map(|(policy, rule)| {
                let named = policy.entity_literals().into_iter().filter(of_kind);
                named.map(|uid| (uid.id().unescaped().to_owned(), rule)).collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Rule {
    /// Whether its scope has the action.
    pub(super) fn covers(&self, action: &Action) -> bool {
        let fits = |uid: &EntityUid| {
            let id = uid.id().unescaped();
            id == action.name || action.groups.contains(&id)
        };
        match &self.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => uid.id().unescaped() == action.name,
            ActionConstraint::In(uids) => uids.iter().any(fits),
        }
    }

    /// Whether its scope may have the caller.
    pub(super) fn may_concern(&self, caller: &Caller) -> bool {
        let fits = |uid: &EntityUid| {
            let id = uid.id().unescaped();
            match uid.type_name().basename() {
                "Caller" => id == caller.name,
                "Group" => caller.groups.iter().any(|group| group == id),
                _ => false,
            }
        };
        match &self.principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) => fits(uid),
            PrincipalConstraint::Is(kind) => kind.basename() == "Caller",
            PrincipalConstraint::IsIn(kind, uid) => kind.basename() == "Caller" && fits(uid),
        }
    }

    /// Whether its scope has the account with this alias.
    pub(super) fn reaches(&self, alias: &str) -> bool {
        let fits = |uid: &EntityUid| uid.id().unescaped() == alias && uid.type_name().basename() == "Account";
        match &self.resource {
            ResourceConstraint::Any => true,
            ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) => fits(uid),
            ResourceConstraint::Is(kind) => kind.basename() == "Account",
            ResourceConstraint::IsIn(kind, uid) => kind.basename() == "Account" && fits(uid),
        }
    }
}
