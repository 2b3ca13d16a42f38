//! What the policies decide, and a comparison with a plain reading of the same rules.

mod differential;

use super::*;
use crate::domain::caller::{Caller, Credential};
use crate::domain::operation::Mode;

pub(super) fn set(text: &str) -> PolicySet {
    PolicySet::parse(&[Source { file: "test.cedar".into(), text: text.into() }]).unwrap()
}

fn faults(text: &str) -> Vec<String> {
    let parsed = PolicySet::parse(&[Source { file: "test.cedar".into(), text: text.into() }]);
    parsed.unwrap_err().0.iter().map(ToString::to_string).collect()
}

pub(super) fn caller(name: &str, groups: &[&str]) -> Caller {
    Caller {
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        credential: Credential::Token { id: "tok_1".into() },
        ..Caller::own(name, name)
    }
}

pub(super) fn target(alias: &str) -> Target<'_> {
    Target { alias, id: "acct_1", mode: Mode::Test }
}

fn ask<'a>(caller: &'a Caller, action: &'a str) -> Question<'a> {
    Question { caller, action, account: target("default"), facts: Facts::default() }
}

const REFUND: &str = "RefundService.CreateRefund";

#[test]
fn nothing_is_permitted_unless_a_rule_says_so() {
    let orders = caller("orders", &[]);
    for action in ACTIONS {
        let decision = set("").judge(&ask(&orders, action.name));
        assert_eq!((decision.permitted, decision.rule().as_str()), (false, DEFAULT_DENY), "{}", action.name);
    }
    let decision = set("@id(\"all\") permit(principal, action, resource);").judge(&ask(&orders, "No.Such"));
    assert_eq!((decision.permitted, decision.rule().as_str()), (false, EVALUATION_ERROR));
}

#[test]
fn without_callers_everything_is_permitted() {
    let set = PolicySet::on_loopback().unwrap();
    for action in ACTIONS {
        let decision = set.judge(&ask(&Caller::loopback(), action.name));
        assert_eq!((decision.permitted, decision.rule().as_str()), (true, ON_LOOPBACK), "{}", action.name);
    }
}

#[test]
fn a_forbidding_rule_wins_and_all_deciding_rules_are_named() {
    let set = set("@id(\"b\") permit(principal, action, resource);\
                   @id(\"a\") permit(principal, action in Action::\"change\", resource);\
                   @id(\"no-refunds\") forbid(principal == Caller::\"support\", action == Action::\"RefundService.CreateRefund\", resource);");
    let (orders, support) = (caller("orders", &[]), caller("support", &[]));
    assert_eq!(set.judge(&ask(&orders, REFUND)).rules, ["a", "b"]);
    let decision = set.judge(&ask(&support, REFUND));
    assert_eq!((decision.permitted, decision.rules), (false, vec!["no-refunds".to_owned()]));
    assert!(set.judge(&ask(&support, "RefundService.GetRefund")).permitted);
}

#[test]
fn a_rule_that_cannot_be_evaluated_denies() {
    let set = set("@id(\"all\") permit(principal, action, resource);\
                   @id(\"large\") forbid(principal, action == Action::\"CustomerService.CreateCustomerBalanceTransaction\", resource)\
                   when { context.amount * 9223372036854775807 > 10 };");
    let orders = caller("orders", &[]);
    let mut question = ask(&orders, "CustomerService.CreateCustomerBalanceTransaction");
    question.facts.fields = vec![("amount", "3")];
    question.facts.money = Some((-3, "eur"));
    let decision = set.judge(&question);
    assert_eq!((decision.permitted, decision.rule().as_str()), (false, EVALUATION_ERROR));
    assert!(decision.trouble.is_some_and(|trouble| trouble.contains("large")));
}

#[test]
fn groups_services_accounts_metadata_and_event_types_can_be_spoken_of() {
    let set = set(
        "@id(\"a\") permit(principal in Group::\"team\", action in Action::\"RefundService\", resource == Account::\"eu\")\
                   when { resource.mode == \"test\" };\
                   @id(\"b\") permit(principal, action == Action::\"RefundService.UpdateRefund\", resource)\
                   when { context.metadata.hasTag(\"shop\") && context.metadata.getTag(\"shop\") == \"one\" };\
                   @id(\"c\") permit(principal, action == Action::\"EventService.ReceiveEvent\", resource)\
                   when { context.event_type like \"refund.*\" };",
    );
    let (member, other) = (caller("x", &["team"]), caller("y", &[]));
    let with = |account| Question { account: target(account), ..ask(&member, REFUND) };
    assert!(set.judge(&with("eu")).permitted && !set.judge(&with("us")).permitted);
    assert!(!set.judge(&Question { caller: &other, ..with("eu") }).permitted);
    for (tags, permitted) in [(vec![], false), (vec![("shop", "two")], false), (vec![("shop", "one")], true)]
    {
        let mut question = ask(&other, "RefundService.UpdateRefund");
        question.facts.metadata = tags;
        assert_eq!(set.judge(&question).permitted, permitted, "{question:?}");
    }
    for (kind, permitted) in [("refund.created", true), ("refund", false), ("charge.refunded", false)] {
        let mut question = ask(&other, RECEIVE_EVENT);
        question.facts.event_type = kind;
        assert_eq!(set.judge(&question).permitted, permitted, "{kind}");
    }
}

#[test]
fn every_fault_is_named_with_its_place() {
    let found = faults(
        "permit(principal, action, resource);\n\n@id(\"a b\")\npermit(principal, action, resource);\n@id(\"default-deny\") permit(principal, action, resource);",
    );
    assert_eq!(found[0], "`test.cedar` line 1: the rule has no name; write `@id(\"...\")` above it");
    assert!(found[1].starts_with("`test.cedar` line 3: `a b` is not a name of a rule"), "{found:?}");
    assert!(found[2].ends_with("is the gateway's own name"), "{found:?}");
    let twice = faults(
        "@id(\"a\") permit(principal, action, resource);\n@id(\"a\") permit(principal, action, resource);",
    );
    assert_eq!(twice, ["`test.cedar` line 2: the name `a` is taken by a rule in `test.cedar`"]);
    for (text, line, what) in [
        ("@id(\"a\")\npermit(principal, action);", 2, "resource"),
        (
            "@id(\"a\")\npermit(principal, action == Action::\"RefundService.MakeRefund\", resource);",
            2,
            "MakeRefund",
        ),
        (
            "@id(\"a\")\npermit(principal, action in Action::\"read\", resource)\nwhen { context.amount < 5 };",
            3,
            "amount",
        ),
        ("@id(\"a\") permit(principal == ?principal, action, resource);", 1, "templates"),
    ] {
        let found = faults(text);
        assert!(
            found[0].starts_with(&format!("`test.cedar` line {line}: ")) && found[0].contains(what),
            "{found:?}"
        );
    }
}

#[test]
fn only_rules_that_can_bear_ask_for_money() {
    let set = set(
        "@id(\"cap\") permit(principal == Caller::\"support\", action == Action::\"CustomerService.CreateCustomerBalanceTransaction\", resource)\
                   when { context.amount <= 5000 && context.currency == \"eur\" };\
                   @id(\"team\") forbid(principal in Group::\"night\", action in Action::\"money\", resource)\
                   when { context has amount && context.amount > 100 };\
                   @id(\"rest\") permit(principal, action, resource);",
    );
    let balance = "CustomerService.CreateCustomerBalanceTransaction";
    assert!(set.needs_money(&caller("support", &[]), balance));
    assert!(!set.needs_money(&caller("orders", &[]), balance));
    assert!(set.needs_money(&caller("orders", &["night"]), balance));
    assert!(!set.needs_money(&caller("support", &["night"]), "RefundService.GetRefund"));
}

#[test]
fn a_cap_holds_in_both_directions_and_where_nothing_is_known() {
    let set = set(
        "@id(\"cap\") permit(principal, action == Action::\"CustomerService.CreateCustomerBalanceTransaction\", resource)\
                   when { context.amount <= 5000 && context.currency == \"eur\" };",
    );
    let support = caller("support", &[]);
    for (money, rule) in [
        (Some((5000, "eur")), "cap"),
        (Some((-5000, "eur")), "cap"),
        (Some((5001, "eur")), DEFAULT_DENY),
        (Some((-5001, "eur")), DEFAULT_DENY),
        (Some((i64::MIN, "eur")), DEFAULT_DENY),
        (Some((1, "usd")), DEFAULT_DENY),
        (None, EVALUATION_ERROR),
    ] {
        let mut question = ask(&support, "CustomerService.CreateCustomerBalanceTransaction");
        // What the request says beside it does not count.
        question.facts.fields = vec![("amount", "1"), ("currency", "eur")];
        question.facts.money = money;
        assert_eq!(set.judge(&question).rule(), rule, "{money:?}");
    }
}

#[test]
fn amounts_without_a_currency_and_unknown_names_are_warned_of() {
    let set = set(
        "@id(\"cap\")\npermit(principal == Caller::\"suport\", action == Action::\"CustomerService.CreateCustomerBalanceTransaction\", resource)\
                   when { context.amount <= 5000 };",
    );
    let known = Known { callers: ["support".to_owned()].into(), ..Known::default() };
    let warnings: Vec<String> = set.warnings(Some(&known)).iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("without naming a currency"), "{warnings:?}");
    assert!(warnings[1].contains("names Caller::\"suport\""), "{warnings:?}");
    assert_eq!(set.warnings(None).len(), 1);
}

#[test]
fn a_question_has_the_context_that_the_schema_declares() {
    let set = set("");
    for action in ACTIONS {
        let someone = caller("orders", &["team"]);
        let mut question = ask(&someone, action.name);
        question.facts.fields = action
            .fields
            .iter()
            .map(|(name, kind)| {
                (
                    *name,
                    match kind {
                        Kind::Text => "x",
                        Kind::Number => "1",
                        Kind::Flag => "true",
                    },
                )
            })
            .collect();
        question.facts.money = Some((1, "eur"));
        let (request, _) = set.vocabulary.ask(&question).unwrap();
        let context = request.context().unwrap().clone();
        let uid = request.action().unwrap().clone();
        assert!(context.validate(&set.schema, &uid).is_ok(), "{}", action.name);
    }
}

#[tokio::test]
async fn replaced_policies_are_in_force_at_once_and_told_of() {
    let policies = Policies::new(set(""));
    let mut changes = policies.changes();
    let orders = caller("orders", &[]);
    assert!(!policies.judge(&ask(&orders, REFUND)).permitted && !changes.has_changed().unwrap());
    policies.replace(set("@id(\"all\") permit(principal, action, resource);"));
    assert!(policies.judge(&ask(&orders, REFUND)).permitted);
    changes.changed().await.unwrap();
    assert_ne!(policies.current().hash(), set("").hash());
}

#[test]
fn an_explanation_says_what_each_rule_says() {
    let set = set("@id(\"reads\") permit(principal, action in Action::\"read\", resource);\n\
                   @id(\"other\") permit(principal == Caller::\"x\", action, resource);\n\
                   @id(\"account\") permit(principal, action, resource == Account::\"eu\");\n\
                   @id(\"order\") permit(principal, action == Action::\"RefundService.CreateRefund\", resource) when { context.order_id like \"eu-*\" };\n\
                   @id(\"all\") permit(principal, action, resource);");
    let orders = caller("orders", &[]);
    let explained = set.explain(&ask(&orders, REFUND));
    let says: Vec<(&str, &str)> =
        explained.bearings.iter().map(|bearing| (bearing.rule.as_str(), bearing.says.as_str())).collect();
    assert_eq!(
        says,
        [
            ("reads", "is about other actions"),
            ("other", "is about other callers"),
            ("account", "is about other accounts"),
            ("order", "its conditions do not hold"),
            ("all", "applies"),
        ]
    );
    assert_eq!(explained.decision.sentence(), "permitted by `all`");
}
