//! A question to the policies, and how it is put into Cedar's terms: who, what, on which account, and the facts.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr as _;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
};

use super::action::{ACTIONS, Action, Kind};
use crate::domain::caller::Caller;
use crate::domain::operation::Mode;

/// Attributes that are known together or not at all.
pub(super) const MONEY: [&str; 2] = ["amount", "currency"];

/// Whether a caller may do something.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// What: the name of an [`Action`].
    pub action: &'a str,
    /// On which Stripe account.
    pub account: Target<'a>,
    /// What else is known.
    pub facts: Facts<'a>,
}

/// The Stripe account that a call is for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its alias.
    pub alias: &'a str,
    /// Its id, `acct_...`.
    pub id: &'a str,
    /// Test or live.
    pub mode: Mode,
}

/// What is known of a call besides who and what. Facts that the action's context does not have are left out.
#[derive(Clone, Default)]
pub struct Facts<'a> {
    /// The order.
    pub order_id: &'a str,
    /// The operation of the order.
    pub operation_id: &'a str,
    /// Amount, in the smallest unit and of either sign, and currency: of an action that moves money, where a rule asks.
    pub money: Option<(i64, &'a str)>,
    /// Fields of the request by their names at Stripe, as text.
    pub fields: Vec<(&'a str, &'a str)>,
    /// The caller's own keys and values, as this call sends them.
    pub metadata: Vec<(&'a str, &'a str)>,
    /// The type of an event.
    pub event_type: &'a str,
}

impl fmt::Debug for Facts<'_> {
    /// Metadata may be personal and stays out.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = out.debug_struct("Facts");
        out.field("order_id", &self.order_id).field("operation_id", &self.operation_id);
        out.field("money", &self.money).field("event_type", &self.event_type).finish_non_exhaustive()
    }
}

/// Cedar's names of what the schema declares.
#[derive(Debug)]
pub(super) struct Vocabulary {
    caller: EntityTypeName,
    group: EntityTypeName,
    account: EntityTypeName,
    metadata: EntityUid,
    actions: BTreeMap<&'static str, (&'static Action, Entity)>,
}

impl Vocabulary {
    pub(super) fn new() -> Result<Self, String> {
        let name = |text: &str| EntityTypeName::from_str(text).map_err(|error| error.to_string());
        let action = name("Action")?;
        let uid = |id: &str| EntityUid::from_type_name_and_id(action.clone(), EntityId::new(id));
        let entity = |known: &'static Action| {
            let groups = known.groups.iter().map(|group| uid(group)).collect();
            (known.name, (known, Entity::new_no_attrs(uid(known.name), groups)))
        };
        Ok(Self {
            caller: name("Caller")?,
            group: name("Group")?,
            account: name("Account")?,
            metadata: EntityUid::from_type_name_and_id(name("Metadata")?, EntityId::new("of this call")),
            actions: ACTIONS.iter().map(entity).collect(),
        })
    }

    /// The question as Cedar takes it.
    pub(super) fn ask(&self, question: &Question<'_>) -> Result<(Request, Entities), String> {
        let (action, entity) = self
            .actions
            .get(question.action)
            .ok_or_else(|| format!("there is no action `{}`", question.action))?;
        let (caller, account) = (self.caller(question.caller)?, self.account(question.account)?);
        let context = self.context(action, &question.facts)?;
        let request = Request::new(caller.uid(), entity.uid(), account.uid(), context, None);
        let request = request.map_err(|error| error.to_string())?;
        let mut entities = vec![entity.clone(), caller, account];
        if action.tagged {
            let tags = question.facts.metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value)));
            let metadata = Entity::new_with_tags(self.metadata.clone(), [], [], tags);
            entities.push(metadata.map_err(|error| error.to_string())?);
        }
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        Ok((request, entities))
    }

    fn caller(&self, caller: &Caller) -> Result<Entity, String> {
        let uid = EntityUid::from_type_name_and_id(self.caller.clone(), EntityId::new(&caller.name));
        let group = |name: &String| EntityUid::from_type_name_and_id(self.group.clone(), EntityId::new(name));
        let attributes = [
            ("namespace".to_owned(), text(&caller.namespace)),
            ("credential".to_owned(), text(caller.credential.kind())),
        ];
        Entity::new(uid, attributes.into(), caller.groups.iter().map(group).collect())
            .map_err(|error| error.to_string())
    }

    fn account(&self, account: Target<'_>) -> Result<Entity, String> {
        let uid = EntityUid::from_type_name_and_id(self.account.clone(), EntityId::new(account.alias));
        let attributes =
            [("id".to_owned(), text(account.id)), ("mode".to_owned(), text(account.mode.as_str()))];
        Entity::new(uid, attributes.into(), [].into()).map_err(|error| error.to_string())
    }

    fn context(&self, action: &Action, facts: &Facts<'_>) -> Result<Context, String> {
        let mut pairs = BTreeMap::new();
        // What is judged as money is what was found out, and never a field that may leave half of it out.
        let fields = action.fields.iter().filter(|(name, _)| !(action.money && MONEY.contains(name)));
        for (name, kind) in fields {
            let given = facts.fields.iter().find(|(given, _)| given == name);
            if let Some(value) = given.and_then(|(_, given)| value(*kind, given)) {
                pairs.insert(*name, value);
            }
        }
        if let (Some((amount, currency)), true) = (facts.money, action.money) {
            // A cap is for both directions of a credit balance.
            pairs.insert("amount", RestrictedExpression::new_long(amount.saturating_abs()));
            pairs.insert("currency", text(currency));
        }
        if action.ordered {
            pairs.insert("order_id", text(facts.order_id));
            pairs.insert("operation_id", text(facts.operation_id));
        }
        if action.tagged {
            pairs.insert("metadata", RestrictedExpression::new_entity_uid(self.metadata.clone()));
        }
        if action.receives {
            pairs.insert("event_type", text(facts.event_type));
        }
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value));
        Context::from_pairs(pairs).map_err(|error| error.to_string())
    }
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

/// A field's value; `None` where the text is none of its kind, so that no rule takes it for something else.
fn value(kind: Kind, given: &str) -> Option<RestrictedExpression> {
    match kind {
        Kind::Text => Some(text(given)),
        Kind::Number => given.parse().ok().map(RestrictedExpression::new_long),
        Kind::Flag => given.parse().ok().map(RestrictedExpression::new_bool),
    }
}
