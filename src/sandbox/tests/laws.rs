//! Laws of the books that hold whatever is asked in whatever order.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::domain::clock::ManualClock;
use crate::sandbox::Options;
use crate::sandbox::money::OPENING_BALANCE;
use crate::sandbox::object::{int, text};
use crate::sandbox::state::State;
use crate::sandbox::triggers::ask;

const CARDS: &[&str] = &[
    "pm_card_visa",
    "pm_card_bypassPending",
    "pm_card_pendingRefund",
    "pm_card_refundFail",
    "pm_card_createDispute",
    "pm_card_createDisputeInquiry",
    "pm_card_createMultipleDisputes",
];

const EVIDENCE: &[&str] = &["winning_evidence", "losing_evidence", "escalate_inquiry_evidence", "words"];

#[derive(Debug, Clone)]
enum Step {
    Pay { card: usize, amount: i64 },
    Refund { charge: usize, amount: Option<i64> },
    Cancel { refund: usize },
    Answer { dispute: usize, evidence: usize },
    Close { dispute: usize },
    Payout { amount: i64 },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..CARDS.len(), 50..5_000_i64).prop_map(|(card, amount)| Step::Pay { card, amount }),
        (0..4_usize, prop::option::of(1..3_000_i64))
            .prop_map(|(charge, amount)| Step::Refund { charge, amount }),
        (0..4_usize).prop_map(|refund| Step::Cancel { refund }),
        (0..4_usize, 0..EVIDENCE.len()).prop_map(|(dispute, evidence)| Step::Answer { dispute, evidence }),
        (0..4_usize).prop_map(|dispute| Step::Close { dispute }),
        prop_oneof![Just(OPENING_BALANCE), 1..5_000_i64].prop_map(|amount| Step::Payout { amount }),
        prop_oneof![0..20_u64, Just(4_000), Just(200_000), Just(1_000_000)]
            .prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// The id of the n-th newest object of a kind.
fn nth(state: &State, kind: &str, n: usize) -> String {
    state.all(kind).rev().nth(n).map(|object| text(object, "id").to_owned()).unwrap_or_default()
}

/// Takes a step; being refused is as good as being done.
fn take(state: &mut State, step: &Step) {
    let (path, form) = match step {
        Step::Pay { card, amount } => {
            let form = format!("amount={amount}&currency=usd&confirm=true&payment_method={}", CARDS[*card]);
            ("/v1/payment_intents".to_owned(), form)
        }
        Step::Refund { charge, amount } => {
            let amount = amount.map(|amount| format!("&amount={amount}")).unwrap_or_default();
            ("/v1/refunds".to_owned(), format!("charge={}{amount}", nth(state, "charge", *charge)))
        }
        Step::Cancel { refund } => {
            (format!("/v1/refunds/{}/cancel", nth(state, "refund", *refund)), String::new())
        }
        Step::Answer { dispute, evidence } => {
            let form = format!("evidence[uncategorized_text]={}", EVIDENCE[*evidence]);
            (format!("/v1/disputes/{}", nth(state, "dispute", *dispute)), form)
        }
        Step::Close { dispute } => {
            (format!("/v1/disputes/{}/close", nth(state, "dispute", *dispute)), String::new())
        }
        Step::Payout { amount } => ("/v1/payouts".to_owned(), format!("amount={amount}&currency=usd")),
        Step::Wait { seconds } => {
            state.advance(Duration::from_secs(*seconds));
            return;
        }
    };
    drop(ask(state, &path, &form));
}

fn check(state: &State) {
    let (mut available, mut pending) = (OPENING_BALANCE, 0);
    for transaction in state.all("balance_transaction") {
        let net = int(transaction, "net");
        assert_eq!(net, int(transaction, "amount") - int(transaction, "fee"));
        let purse = if text(transaction, "status") == "pending" { &mut pending } else { &mut available };
        *purse += net;
    }
    let purse = state.kept.money.purse("usd");
    assert_eq!(
        (purse.available, purse.pending),
        (available, pending),
        "the balance is the sum of its history"
    );
    for charge in state.all("charge") {
        let sum = |statuses: &[&str]| -> i64 {
            let of_charge = state.all("refund").filter(|refund| refund["charge"] == charge["id"]);
            of_charge
                .filter(|refund| statuses.contains(&text(refund, "status")))
                .map(|refund| int(refund, "amount"))
                .sum()
        };
        let refunded = int(charge, "amount_refunded");
        assert_eq!(refunded, sum(&["succeeded"]), "a charge counts what went back");
        assert!(sum(&["succeeded", "pending"]) <= int(charge, "amount_captured"), "never more than was paid");
        assert_eq!(charge["refunded"] == true, refunded == int(charge, "amount_captured"));
    }
    for dispute in state.all("dispute") {
        let moved: i64 = state
            .all("balance_transaction")
            .filter(|transaction| transaction["source"] == dispute["id"])
            .map(|transaction| int(transaction, "net"))
            .sum();
        let amount = int(dispute, "amount");
        let wanted = match text(dispute, "status") {
            status if status.starts_with("warning_") => 0,
            "won" => -1_500,
            _ => -1_500 - amount,
        };
        assert_eq!(moved, wanted, "{}", text(dispute, "status"));
        let shown = dispute["balance_transactions"].as_array().unwrap().len();
        assert_eq!(shown, usize::from(wanted != 0) + usize::from(text(dispute, "status") == "won"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_books_balance_after_every_step(steps in prop::collection::vec(step(), 1..40)) {
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let mut state = State::new(&Options::new("sk_test_laws", clock));
        for step in &steps {
            take(&mut state, step);
            check(&state);
        }
    }
}
