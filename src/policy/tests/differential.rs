//! The same rules read twice: by the engine, and by a plain reading that shares no code with it. Rules and questions are
//! made up at random from few names, so that they meet often.

use std::sync::LazyLock;

use cedar_policy::Schema;
use proptest::prelude::*;

use super::caller;
use crate::domain::operation::Mode;
use crate::policy::{
    ACTIONS, Action, DEFAULT_DENY, EVALUATION_ERROR, Facts, PolicySet, Question, Source, Target, parse,
};

/// Read once: it takes longer than all else.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| parse::schema().unwrap());

const CALLERS: [&str; 3] = ["orders", "support", "finance"];
const GROUPS: [&str; 2] = ["services", "people"];
const ACCOUNTS: [&str; 2] = ["default", "eu"];
const CURRENCIES: [&str; 3] = ["usd", "eur", "jpy"];
const TAGS: [&str; 2] = ["a", "b"];
const BALANCE: &str = "CustomerService.CreateCustomerBalanceTransaction";
const SCOPES: [&str; 11] = [
    "RefundService.CreateRefund",
    "RefundService.GetRefund",
    BALANCE,
    "EventService.ReceiveEvent",
    "read",
    "money",
    "change",
    "admin",
    "own",
    "RefundService",
    "SubscriptionService",
];
/// What is asked; all of them are in some scope or another, or in none.
const ASKED: [&str; 8] = [
    "RefundService.CreateRefund",
    "RefundService.GetRefund",
    BALANCE,
    "EventService.ReceiveEvent",
    "AdminService.ListOperations",
    "CustomerService.UpdateCustomer",
    "SubscriptionService.CreateSubscription",
    "SubscriptionService.Consume",
];

#[derive(Clone, Debug)]
enum Who {
    Anybody,
    Named(&'static str),
    Member(&'static str),
}

#[derive(Clone, Debug)]
enum What {
    Anything,
    Exactly(&'static str),
    Any(Vec<&'static str>),
}

/// Conditions, with which actions have what they speak of.
#[derive(Clone, Debug)]
enum If {
    Mode(&'static str),
    Namespace(&'static str),
    AtMost(i64, Option<&'static str>),
    Order(&'static str),
    Tag(&'static str),
    Event(&'static str),
}

#[derive(Clone, Debug)]
struct Plain {
    forbids: bool,
    who: Who,
    what: What,
    account: Option<&'static str>,
    condition: Option<If>,
    unless: bool,
}

#[derive(Clone, Debug)]
struct Asked {
    caller: &'static str,
    groups: Vec<&'static str>,
    action: &'static str,
    account: &'static str,
    live: bool,
    amount: i64,
    currency: &'static str,
    order: &'static str,
    tags: Vec<&'static str>,
    event: &'static str,
}

impl Plain {
    /// The rule as its author would write it.
    fn cedar(&self, id: usize) -> String {
        let who = match self.who {
            Who::Anybody => "principal".to_owned(),
            Who::Named(name) => format!("principal == Caller::\"{name}\""),
            Who::Member(group) => format!("principal in Group::\"{group}\""),
        };
        let quoted = |name: &&str| format!("Action::\"{name}\"");
        let what = match &self.what {
            What::Anything => "action".to_owned(),
            What::Exactly(name) => format!("action == {}", quoted(name)),
            What::Any(names) => {
                format!("action in [{}]", names.iter().map(quoted).collect::<Vec<_>>().join(", "))
            }
        };
        let account = self
            .account
            .map_or_else(|| "resource".to_owned(), |account| format!("resource == Account::\"{account}\""));
        let condition = self.condition.as_ref().map(|condition| match condition {
            If::Mode(mode) => format!("resource.mode == \"{mode}\""),
            If::Namespace(name) => format!("principal.namespace == \"{name}\""),
            If::AtMost(amount, None) => format!("context has amount && context.amount <= {amount}"),
            If::AtMost(amount, Some(currency)) => format!(
                "context has amount && context.amount <= {amount} && context has currency && context.currency == \"{currency}\""
            ),
            If::Order(prefix) => format!("context has order_id && context.order_id like \"{prefix}*\""),
            If::Tag(tag) => format!(
                "context has metadata && context.metadata.hasTag(\"{tag}\") && context.metadata.getTag(\"{tag}\") == \"1\""
            ),
            If::Event(prefix) => format!("context has event_type && context.event_type like \"{prefix}.*\""),
        });
        let word = if self.unless { "unless" } else { "when" };
        let condition = condition.map(|condition| format!("\n{word} {{ {condition} }}")).unwrap_or_default();
        let effect = if self.forbids { "forbid" } else { "permit" };
        format!("@id(\"r{id}\")\n{effect}({who}, {what}, {account}){condition};\n")
    }

    /// Whether it bears on the question, read plainly.
    fn bears(&self, asked: &Asked, action: &Action) -> bool {
        let who = match self.who {
            Who::Anybody => true,
            Who::Named(name) => name == asked.caller,
            Who::Member(group) => asked.groups.contains(&group),
        };
        let what = match &self.what {
            What::Anything => true,
            What::Exactly(name) => *name == asked.action,
            What::Any(names) => {
                names.iter().any(|name| *name == asked.action || action.groups.contains(name))
            }
        };
        let account = self.account.is_none_or(|account| account == asked.account);
        let money = [BALANCE, "RefundService.CreateRefund"].contains(&asked.action);
        let holds = self.condition.as_ref().map(|condition| match condition {
            If::Mode(mode) => (*mode == "live") == asked.live,
            If::Namespace(name) => *name == asked.caller,
            If::AtMost(amount, currency) => {
                // What is taken from a credit balance counts like what is added to it.
                money
                    && asked.amount.abs() <= *amount
                    && currency.is_none_or(|currency| currency == asked.currency)
            }
            If::Order(prefix) => action.ordered && asked.order.starts_with(prefix),
            If::Tag(tag) => action.tagged && asked.tags.contains(tag),
            If::Event(prefix) => {
                action.receives && asked.event.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'))
            }
        });
        who && what && account && holds.is_none_or(|holds| holds != self.unless)
    }
}

/// The decision by a plain reading: whether, and by which rules.
fn plainly(rules: &[Plain], asked: &Asked) -> (bool, Vec<String>) {
    let action = ACTIONS.iter().find(|action| action.name == asked.action).unwrap();
    let bearing = |forbids: bool| {
        let these = rules.iter().enumerate();
        let these = these.filter(|(_, rule)| rule.forbids == forbids && rule.bears(asked, action));
        these.map(|(id, _)| format!("r{id}")).collect::<Vec<_>>()
    };
    let (forbidding, permitting) = (bearing(true), bearing(false));
    match (forbidding.is_empty(), permitting.is_empty()) {
        (false, _) => (false, forbidding),
        (true, false) => (true, permitting),
        (true, true) => (false, vec![DEFAULT_DENY.to_owned()]),
    }
}

fn plain() -> impl Strategy<Value = Plain> {
    let who = prop_oneof![
        Just(Who::Anybody),
        prop::sample::select(&CALLERS[..]).prop_map(Who::Named),
        prop::sample::select(&GROUPS[..]).prop_map(Who::Member),
    ];
    let what = prop_oneof![
        Just(What::Anything),
        prop::sample::select(&ASKED[..]).prop_map(What::Exactly),
        prop::collection::vec(prop::sample::select(&SCOPES[..]), 1..3).prop_map(What::Any),
    ];
    let condition = prop_oneof![
        prop::sample::select(&["test", "live"][..]).prop_map(If::Mode),
        prop::sample::select(&CALLERS[..]).prop_map(If::Namespace),
        (0_i64..4, prop::option::of(prop::sample::select(&CURRENCIES[..])))
            .prop_map(|(amount, currency)| If::AtMost(amount, currency)),
        prop::sample::select(&["", "eu", "eu-1"][..]).prop_map(If::Order),
        prop::sample::select(&TAGS[..]).prop_map(If::Tag),
        prop::sample::select(&["refund", "charge"][..]).prop_map(If::Event),
    ];
    (
        prop::bool::weighted(0.3),
        who,
        what,
        prop::option::of(prop::sample::select(&ACCOUNTS[..])),
        prop::option::of(condition),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(forbids, who, what, account, condition, unless)| Plain {
            forbids,
            who,
            what,
            account,
            unless: unless && condition.is_some(),
            condition,
        })
}

fn asked() -> impl Strategy<Value = Asked> {
    (
        prop::sample::select(&CALLERS[..]),
        prop::sample::subsequence(&GROUPS[..], 0..=2),
        prop::sample::select(&ASKED[..]),
        prop::sample::select(&ACCOUNTS[..]),
        any::<bool>(),
        -4_i64..5,
        prop::sample::select(&CURRENCIES[..]),
        prop::sample::select(&["", "eu-1", "eu-2", "us-1"][..]),
        prop::sample::subsequence(&TAGS[..], 0..=2),
        prop::sample::select(&["refund.created", "charge.refunded", "refund"][..]),
    )
        .prop_map(|(caller, groups, action, account, live, amount, currency, order, tags, event)| {
            Asked { caller, groups, action, account, live, amount, currency, order, tags, event }
        })
}

proptest! {
    #[test]
    fn the_engine_decides_as_a_plain_reading_does(
        rules in prop::collection::vec(plain(), 0..6),
        questions in prop::collection::vec(asked(), 20),
    ) {
        let text: String = rules.iter().enumerate().map(|(id, rule)| rule.cedar(id)).collect();
        let source = Source { file: "random.cedar".into(), text: text.clone() };
        let set = PolicySet::checked(&[source], SCHEMA.clone()).unwrap();
        for asked in questions {
            let someone = caller(asked.caller, &asked.groups);
            let amount = asked.amount.to_string();
            let question = Question {
                caller: &someone,
                action: asked.action,
                account: Target {
                    alias: asked.account,
                    id: "acct_1",
                    mode: if asked.live { Mode::Live } else { Mode::Test },
                },
                facts: Facts {
                    order_id: asked.order,
                    operation_id: "",
                    fields: vec![("amount", &amount), ("currency", asked.currency)],
                    metadata: asked.tags.iter().map(|tag| (*tag, "1")).collect(),
                    event_type: asked.event,
                    money: Some((asked.amount, asked.currency)),
                },
            };
            let decision = set.judge(&question);
            prop_assert_ne!(decision.rule(), EVALUATION_ERROR);
            prop_assert_eq!((decision.permitted, decision.rules), plainly(&rules, &asked), "{}\n{:?}", text, asked);
        }
    }
}
