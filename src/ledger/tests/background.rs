//! What the ledger does without being asked.

use super::super::fixtures::{NOW, operation};
use super::*;
use crate::domain::limits::RESPONSE_KEPT_MS;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn what_an_earlier_process_left_behind_is_known_after_a_start() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    assert_eq!(stage.ledger.census(), Census { in_flight: 1, ..Census::default() });
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    let stage = stage.restart().await;
    assert_eq!(stage.ledger.holder_of(&operation().key(1)), None);
    assert_eq!(stage.ledger.recover().await.unwrap(), Census { unknown: 1, ..Census::default() });
    assert_eq!(stage.ledger.holder_of(&operation().key(1)), Some(operation().hash()));

    let [entry] = stage.ledger.unresolved(None, 10).await.unwrap().try_into().unwrap();
    assert_eq!((entry.hash, entry.record.operation, entry.live), (operation().hash(), operation(), false));
    let after = Some(operation().hash());
    assert!(stage.ledger.unresolved(after, 10).await.unwrap().is_empty());
    let sent = stage.ticket("500").await;
    assert!(stage.ledger.unresolved(None, 10).await.unwrap()[0].live);
    stage.settle(sent, answered(200, SUCCESS)).await;
    assert!(stage.ledger.unresolved(None, 10).await.unwrap().is_empty());
    assert_eq!(stage.ledger.census(), Census::default());
}

#[tokio::test]
async fn a_clock_that_is_set_back_for_a_moment_is_noticed_without_a_call() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    stage.ledger.watch_clock().await.unwrap();
    drop(stage.ticket("500").await);
    stage.clock.set_wall(NOW - 3_600_000);
    stage.ledger.watch_clock().await.unwrap();
    stage.clock.set_wall(NOW);
    let stage = stage.restart().await;
    assert_eq!(stage.look("500").await.why(), Some(Stuck::ClockSetBack));
}

#[tokio::test]
async fn a_clock_that_is_set_back_after_a_start_is_noticed_however_old_the_operation() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    stage.clock.advance(DAY);
    stage.clock.reboot();
    let stage = stage.restart().await;
    stage.ledger.recover().await.unwrap();
    stage.clock.set_wall(NOW + 3_600_000);
    assert_eq!(stage.look("500").await.why(), Some(Stuck::ClockSetBack));
}

#[tokio::test]
async fn a_clock_that_is_set_back_while_nobody_runs_is_noticed_at_the_start() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    stage.clock.advance(DAY);
    stage.ledger.watch_clock().await.unwrap();
    stage.clock.reboot();
    stage.clock.set_wall(NOW + 3_600_000);
    let stage = stage.restart().await;
    stage.ledger.recover().await.unwrap();
    assert_eq!(stage.look("500").await.why(), Some(Stuck::ClockSetBack));
}

#[tokio::test]
async fn a_clock_that_is_found_to_be_wrong_tells_no_age_of_an_earlier_run() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    stage.ledger.distrust_clock().await.unwrap();
    drop(stage.ticket("500").await);
    stage.clock.reboot();
    let stage = stage.restart().await;
    stage.ledger.recover().await.unwrap();
    stage.ledger.distrust_clock().await.unwrap();
    assert_eq!(stage.look("500").await.why(), Some(Stuck::ClockSetBack));
}

/// Prunes until nothing is left to do; the store indexes in its own time, and only then are entries seen.
async fn prune_until(stage: &Stage, dropped: usize) {
    let mut total = 0;
    let all = async {
        while total < dropped {
            total += stage.ledger.prune(10).await.unwrap().dropped;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
}

#[tokio::test]
async fn answers_are_dropped_after_a_month_and_outcomes_never() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, answered(200, SUCCESS)).await;
    stage.clock.advance(DAY * 29);
    assert_eq!(stage.ledger.prune(10).await.unwrap(), Pruned::default());
    assert!(matches!(stage.begin("500").await.unwrap(), Begun::Replay(settled) if settled == succeeded()));
    stage.clock.advance(DAY);
    prune_until(&stage, 1).await;
    let stage = stage.restart().await;
    let forgotten = |begun: Begun| match begun {
        Begun::Replay(Settled::Succeeded(success)) => (success.json, success.object_id),
        other => panic!("{other:?}"),
    };
    assert_eq!(forgotten(stage.begin("500").await.unwrap()), (None, Some("re_1".to_owned())));
    assert!(matches!(stage.begin("501").await.unwrap(), Begun::Mismatch(fields) if fields == ["amount"]));
    stage.clock.advance(DAY * 4000);
    assert_eq!(stage.ledger.prune(10).await.unwrap().dropped, 0, "once is enough");
    assert_eq!(forgotten(stage.begin("500").await.unwrap()), (None, Some("re_1".to_owned())));
}

#[tokio::test]
async fn a_refusal_keeps_its_codes_and_an_open_request_goes() {
    const REFUSED: &str =
        r#"{"error":{"type":"card_error","code":"card_declined","message":"Ada's card was declined"}}"#;
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, answered(402, REFUSED)).await;
    stage.clock.advance(DAY * 30);
    prune_until(&stage, 1).await;
    let Begun::Replay(Settled::Refused(refusal)) = stage.begin("500").await.unwrap() else { panic!() };
    assert_eq!((refusal.status, refusal.body.as_str()), (402, DECLINED));

    let sent = stage.ticket("400").await;
    stage.settle(sent, Attempt::NotSent(Trouble::Connect)).await;
    stage.clock.advance(DAY * 30);
    prune_until(&stage, 1).await;
    assert_eq!(stage.ledger.entry(operation().hash()).await.unwrap().unwrap().record.state, State::Lapsed);
    assert_eq!(stage.ledger.status(&operation()).await.unwrap().unwrap().standing, Standing::Open);
    assert_eq!(stage.ticket("400").await.generation(), 3);
}

#[tokio::test]
async fn what_is_unresolved_is_never_dropped() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    let outgoing = sent.outgoing.clone();
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    stage.clock.advance(Duration::from_millis(RESPONSE_KEPT_MS.unsigned_abs()) * 12);
    let stage = stage.restart().await;
    assert_eq!(stage.ledger.prune(10).await.unwrap(), Pruned::default());
    let entry = stage.ledger.entry(operation().hash()).await.unwrap().unwrap();
    assert_eq!(entry.record.outgoing(), Some(&outgoing));
}
