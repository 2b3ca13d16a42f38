//! What budgets admit, hold, give back and remember, through restarts and many callers at once.

use std::sync::Arc;

use super::super::fixtures::{operation, turn};
use super::*;
use crate::config::{Budget, BudgetWindow};
use crate::domain::operation::{Mode, Operation, OperationHash};

const LIMIT: i64 = 1_000;

fn budget(name: &str, window: BudgetWindow) -> Budget {
    Budget {
        name: name.to_owned(),
        callers: vec!["billing".to_owned()],
        groups: Vec::new(),
        rpcs: Vec::new(),
        currency: "eur".to_owned(),
        window,
        amount: LIMIT,
    }
}

fn daily() -> Budget {
    budget("daily", BudgetWindow::RollingDay)
}

fn one(operation_id: &str) -> Operation {
    Operation { operation_id: operation_id.to_owned(), ..operation() }
}

fn of_order(order_id: &str) -> Operation {
    Operation { order_id: order_id.to_owned(), ..operation() }
}

impl Stage {
    fn budgeted(budgets: Vec<Budget>) -> Self {
        let stage = Self::new();
        stage.ledger.budgets().replace(budgets);
        stage
    }

    /// The process ends, starts again and learns what is on record.
    async fn recovered(self, budgets: Vec<Budget>) -> Self {
        let stage = self.restart().await;
        stage.ledger.budgets().replace(budgets);
        stage.ledger.recover().await.unwrap();
        stage
    }

    async fn spend(&self, operation: Operation, amount: i64) -> Begun {
        self.spend_in(operation, amount, "eur", "billing").await
    }

    async fn spend_in(&self, operation: Operation, amount: i64, currency: &str, caller: &str) -> Begun {
        let text = amount.to_string();
        let params = params(&text);
        let claim = Claim {
            caller: caller.to_owned(),
            groups: vec!["support".to_owned()],
            currency: currency.to_owned(),
            amount,
        };
        let asked = Asked { operation, claim: Some(claim), ..self.asked(&text, &params) };
        self.ledger.begin(asked, self.audit(), None).await.unwrap()
    }

    async fn sent(&self, operation: Operation, amount: i64) -> Ticket {
        ticket(self.spend(operation, amount).await)
    }

    /// Used and held of the first budget.
    async fn used(&self) -> (i128, i128) {
        let asker = Asker { caller: None, mode: Mode::Test, order: Some(operation().order()) };
        let uses = self.ledger.budgets().uses(asker, self.clock.wall()).await.unwrap();
        uses.first().map_or((0, 0), |used| (used.spent - used.held, used.held))
    }
}

fn exceeded(begun: Begun) -> Exceeded {
    match begun {
        Begun::OverBudget(exceeded) => *exceeded,
        other => panic!("it fits: {other:?}"),
    }
}

#[tokio::test]
async fn what_does_not_fit_is_not_sent_and_the_reference_stays_free() {
    let stage = Stage::budgeted(vec![daily()]);
    let first = stage.sent(one("a"), 600).await;
    let refused = exceeded(stage.spend(one("b"), 401).await);
    assert_eq!((refused.left(), refused.held, refused.asked), (400, 600, 401));
    assert_eq!(refused.frees_at_ms, None, "what is held frees at no time that anybody knows");
    assert_eq!(stage.ledger.status(&one("b")).await.unwrap(), None);
    stage.settle(first, answered(200, SUCCESS)).await;
    assert_eq!(stage.used().await, (600, 0));
    assert!(exceeded(stage.spend(one("b"), 401).await).frees_at_ms.is_some());
    let second = stage.sent(one("b"), 400).await;
    assert_eq!(stage.used().await, (600, 400));
    stage.settle(second, answered(402, DECLINED)).await;
    assert_eq!(stage.used().await, (600, 0), "what was refused is given back");
    stage.clock.advance(HOUR * 24 + Duration::from_secs(60));
    assert_eq!(stage.used().await, (0, 0));
    stage.sent(one("c"), LIMIT).await;
}

#[tokio::test]
async fn a_replay_takes_nothing_and_a_new_try_takes_it_again() {
    let stage = Stage::budgeted(vec![daily()]);
    stage.settle(stage.sent(one("a"), 700).await, answered(200, SUCCESS)).await;
    assert!(matches!(stage.spend(one("a"), 700).await, Begun::Replay(_)));
    let sent = stage.sent(one("b"), 300).await;
    stage.settle(sent, Attempt::NotSent(Trouble::Connect)).await;
    assert_eq!(stage.used().await, (700, 0), "an open operation holds nothing");
    stage.settle(stage.sent(one("c"), 200).await, answered(200, SUCCESS)).await;
    assert_eq!(exceeded(stage.spend(one("b"), 300).await).left(), 100);
}

#[tokio::test]
async fn an_unknown_is_held_through_restarts_until_somebody_finds_out() {
    let stage = Stage::budgeted(vec![daily()]);
    for id in ["a", "b"] {
        stage.settle(stage.sent(one(id), 500).await, Attempt::Broken(Trouble::Timeout)).await;
    }
    let stage = stage.recovered(vec![daily()]).await;
    assert_eq!(stage.used().await, (0, 1_000));
    stage.clock.advance(HOUR * 25);
    let stage = stage.recovered(vec![daily()]).await;
    assert_eq!(stage.used().await, (0, 1_000), "however long it takes");
    exceeded(stage.spend(one("c"), 1).await);
    let ruled = stage.ledger.rule(one("a").hash(), Ruling::NotExecuted, stage.audit()).await.unwrap();
    assert!(matches!(ruled, Ruled::Done(_)));
    let Settled::Succeeded(success) = succeeded() else { panic!() };
    stage.ledger.rule(one("b").hash(), Ruling::Executed(success), stage.audit()).await.unwrap();
    assert_eq!(stage.used().await, (500, 0), "it counts from when it was found out");
    let stage = stage.recovered(vec![daily()]).await;
    assert_eq!(stage.used().await, (500, 0));
}

#[tokio::test]
async fn a_refund_that_fails_later_gives_its_money_back() {
    let stage = Stage::budgeted(vec![daily()]);
    stage.settle(stage.sent(operation(), 900).await, answered(200, SUCCESS)).await;
    let failed = turn("evt_1", 5, "failed");
    stage.ledger.turn(operation().hash(), &failed, stage.audit()).await.unwrap();
    assert_eq!(stage.used().await, (0, 0));
    let stage = stage.recovered(vec![daily()]).await;
    assert_eq!(stage.used().await, (0, 0));

    stage.settle(stage.sent(one("b"), 900).await, Attempt::Broken(Trouble::Timeout)).await;
    stage.ledger.turn(one("b").hash(), &failed, stage.audit()).await.unwrap();
    assert_eq!(stage.used().await, (0, 900), "as long as nobody knows what it made");
    let again = stage.sent(one("b"), 900).await;
    stage.settle(again, answered(200, SUCCESS)).await;
    assert_eq!(stage.used().await, (0, 0));
}

#[tokio::test]
async fn an_effect_that_comes_late_counts_even_over_the_limit() {
    let stage = Stage::budgeted(vec![daily()]);
    stage.settle(stage.sent(one("a"), 900).await, answered(402, DECLINED)).await;
    stage.settle(stage.sent(one("b"), 900).await, answered(200, SUCCESS)).await;
    let proof = EventProof {
        event_id: "evt_1".to_owned(),
        kind: "refund.created".to_owned(),
        idempotency_key: one("a").key(1),
        object: r#"{"id":"re_9","object":"refund"}"#.to_owned(),
        api_version: String::new(),
    };
    stage.ledger.prove(one("a").hash(), &proof, stage.audit()).await.unwrap();
    assert_eq!(stage.used().await, (1_800, 0));
    assert_eq!(exceeded(stage.spend(one("c"), 1).await).left(), 0);
    assert_eq!(stage.recovered(vec![daily()]).await.used().await, (1_800, 0));
}

#[tokio::test]
async fn an_order_has_one_budget_whoever_asks_and_for_ever() {
    let per_order = || Budget { callers: Vec::new(), ..budget("order", BudgetWindow::Order) };
    let stage = Stage::budgeted(vec![per_order()]);
    stage.settle(stage.sent(one("a"), 600).await, answered(200, SUCCESS)).await;
    stage.clock.advance(HOUR * 24 * 400);
    let stage = stage.recovered(vec![per_order()]).await;
    assert_eq!(stage.used().await, (600, 0));
    let refused = exceeded(stage.spend_in(one("b"), 401, "eur", "other").await);
    assert_eq!((refused.left(), refused.frees_at_ms), (400, None));
    stage.sent(of_order("1002"), LIMIT).await;
    let held = ticket(stage.spend_in(one("b"), 400, "eur", "other").await);
    assert_eq!(stage.used().await, (600, 400));
    stage.settle(held, answered(402, DECLINED)).await;
    assert_eq!(stage.used().await, (600, 0));
}

#[tokio::test]
async fn a_caller_moves_money_in_the_currencies_of_its_budgets_alone() {
    let grouped = Budget { callers: vec![], groups: vec!["support".to_owned()], ..daily() };
    let stage = Stage::budgeted(vec![grouped]);
    let refused = exceeded(stage.spend_in(one("a"), 1, "usd", "ada").await);
    assert_eq!((refused.left(), refused.currency.as_str()), (0, "usd"));
    ticket(stage.spend_in(one("b"), LIMIT, "eur", "ada").await);
    ticket(stage.spend_in(one("c"), LIMIT, "eur", "eve").await);
    exceeded(stage.spend_in(one("d"), 1, "eur", "eve").await);
}

#[tokio::test]
async fn a_preview_tells_and_takes_nothing() {
    let stage = Stage::budgeted(vec![daily()]);
    let params = params("1001");
    let claim =
        Claim { caller: "billing".to_owned(), groups: vec![], currency: "eur".to_owned(), amount: 1_001 };
    let asked = Asked { claim: Some(claim), ..stage.asked("1001", &params) };
    let previewed = stage.ledger.preview(asked).await.unwrap();
    assert!(matches!(previewed, Preview::OverBudget(exceeded) if exceeded.left() == 1_000));
    assert_eq!(stage.used().await, (0, 0));
}

#[tokio::test]
async fn a_month_ends_with_the_calendar() {
    let monthly = || budget("monthly", BudgetWindow::CalendarMonth);
    let stage = Stage::budgeted(vec![monthly()]);
    stage.settle(stage.sent(one("a"), LIMIT).await, answered(200, SUCCESS)).await;
    let frees_at_ms = exceeded(stage.spend(one("b"), 1).await).frees_at_ms.unwrap();
    stage.clock.set_wall(frees_at_ms - 1);
    exceeded(stage.spend(one("b"), 1).await);
    stage.clock.set_wall(frees_at_ms);
    stage.sent(one("b"), LIMIT).await;
}

/// Many callers at once, each with an outcome of its own.
async fn rush(stage: &Arc<Stage>, round: usize) -> Vec<OperationHash> {
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..64_usize {
        let stage = Arc::clone(stage);
        calls.spawn(async move {
            let operation = one(&format!("{round}-{number}"));
            let amount = 10 + i64::try_from((number * 7919 + round * 104_729) % 90).unwrap();
            if let Begun::New(ticket) = stage.spend(operation.clone(), amount).await {
                tokio::task::yield_now().await;
                let attempt = match number % 4 {
                    0 => answered(402, DECLINED),
                    1 => Attempt::Broken(Trouble::Timeout),
                    2 => Attempt::NotSent(Trouble::Connect),
                    _ => answered(200, SUCCESS),
                };
                stage.settle(*ticket, attempt).await;
            }
            operation.hash()
        });
    }
    calls.join_all().await
}

/// What the entries themselves say was taken.
async fn taken(stage: &Stage, operations: &[OperationHash]) -> i64 {
    let mut sum = 0;
    for hash in operations {
        let entry = stage.ledger.entry(*hash).await.unwrap();
        sum += entry.and_then(|entry| entry.record.taken()).map_or(0, |taken| taken.spend.amount);
    }
    sum
}

async fn overspent_by_a_rush() -> bool {
    let stage = Arc::new(Stage::budgeted(vec![daily()]));
    let mut operations = Vec::new();
    for round in 0..6 {
        operations.extend(rush(&stage, round).await);
        let taken = taken(&stage, &operations).await;
        if taken > LIMIT {
            return true;
        }
        let (used, held) = stage.used().await;
        assert_eq!(used + held, i128::from(taken), "what is counted is what the entries say");
    }
    let stage = Arc::into_inner(stage).unwrap().recovered(vec![daily()]).await;
    let (used, held) = stage.used().await;
    let taken = taken(&stage, &operations).await;
    assert_eq!(used + held, i128::from(taken), "and what a later process counts");
    let rest = LIMIT - taken;
    stage.sent(one("rest"), rest).await;
    exceeded(stage.spend(one("more"), 1).await);
    false
}

#[tokio::test]
async fn callers_at_once_never_overspend_and_can_spend_all_of_it() {
    assert!(!overspent_by_a_rush().await);
}

#[tokio::test]
async fn a_budget_that_is_not_reserved_before_the_write_is_caught() {
    let _planted = planted::plant("budget-not-reserved");
    assert!(overspent_by_a_rush().await);
}

#[tokio::test]
async fn a_budget_that_lets_go_of_what_is_unknown_is_caught() {
    let _planted = planted::plant("budget-not-held");
    let stage = Stage::budgeted(vec![daily()]);
    stage.settle(stage.sent(one("a"), LIMIT).await, Attempt::Broken(Trouble::Timeout)).await;
    assert_eq!(stage.used().await, (0, 0));
}
