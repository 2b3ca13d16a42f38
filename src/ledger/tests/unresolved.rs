//! Operations whose outcome is unknown, and every way in which it is found out.

use std::sync::Arc;

use super::super::fixtures::{NOW, found, operation, turn};
use super::*;
use crate::stripe::outgoing::STRIPE_VERSION;

#[tokio::test]
async fn an_unknown_is_looked_for_after_23_hours_and_never_sent_again() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    stage.clock.advance(HOUR * 23);
    assert_eq!(stage.ledger.status(&operation()).await.unwrap().unwrap().standing, Standing::Unknown);
    let hold = stage.look("500").await;
    assert_eq!((hold.why(), hold.record().generation), (Some(Stuck::Expired), 1));
    assert_eq!(hold.spec().unwrap().rpc, "CreateRefund");
    assert_eq!(hold.record().outgoing().unwrap().body, Body::Form("amount=500".to_owned()));
    drop(hold);
    assert_eq!(stage.ledger.status(&operation()).await.unwrap().unwrap().standing, Standing::Unknown);

    let finding = Finding::Absent { found: vec![found()] };
    let hold = stage.look("500").await;
    let verdict = stage.ledger.found(hold, finding, stage.audit()).await.unwrap();
    let case = Case { why: Stuck::Absent, note: String::new(), found: vec![found()] };
    assert_eq!(verdict, Verdict::NeedsOperator(case.clone()));
    stage.clock.set_wall(NOW);
    let stage = stage.restart().await;
    let words: Vec<_> = stage.trail().await.into_iter().filter_map(|record| record.outcome).collect();
    let mut words: Vec<_> = words.iter().map(|outcome| outcome.result.as_str()).collect();
    // Records that nobody waits for come in their own time.
    words.sort_unstable();
    assert_eq!(words, ["looked_for", "looked_for", "needs_operator", "unknown"]);
    let begun = stage.begin("500").await.unwrap();
    assert!(matches!(begun, Begun::Unresolved(Unresolved::NeedsOperator(stuck)) if stuck == case));
}

#[tokio::test]
async fn a_process_that_was_stopped_for_long_has_no_right_to_send_whatever_its_wall_clock_says() {
    let stage = Stage::new();
    let lease = stage.ticket("500").await.lease();
    assert!(lease.holds(stage.clock.now()));
    stage.clock.advance(HOUR * 24);
    stage.clock.set_wall(NOW + 1);
    assert!(!lease.holds(stage.clock.now()));
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_remembered_when_it_is_right_again() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    stage.clock.advance(HOUR * 30);
    stage.clock.set_wall(NOW + 1);
    assert_eq!(stage.look("500").await.why(), Some(Stuck::ClockSetBack));
    stage.clock.reboot();
    stage.clock.advance(HOUR);
    let stage = stage.restart().await;
    assert_eq!(stage.look("500").await.why(), Some(Stuck::ClockSetBack));
}

#[tokio::test]
async fn a_look_that_finds_the_effect_settles_it_for_everybody_who_waits() {
    let stage = Arc::new(Stage::new());
    let sent = stage.ticket("500").await;
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    let hash = operation().hash();
    let hold = stage.ledger.hold(hash).await.unwrap().unwrap();
    assert_eq!(hold.why(), None);
    assert!(stage.ledger.hold(hash).await.unwrap().is_none(), "one at a time");
    let waits = Arc::clone(&stage);
    let waiting = tokio::spawn(async move { waits.begin("500").await.unwrap() });
    tokio::task::yield_now().await;
    let Settled::Succeeded(success) = succeeded() else { panic!() };
    stage.ledger.found(hold, Finding::Effected(success), stage.audit()).await.unwrap();
    match waiting.await.unwrap() {
        Begun::Joined(Verdict::Settled(settled)) | Begun::Replay(settled) => assert_eq!(settled, succeeded()),
        other => panic!("{other:?}"),
    }
    assert!(stage.ledger.hold(hash).await.unwrap().is_none(), "nothing is unresolved");
}

#[tokio::test]
async fn a_young_unknown_is_not_given_up_by_looking() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    let findings = [
        Finding::Absent { found: Vec::new() },
        Finding::Undecided { why: "two".to_owned(), found: vec![found()] },
        Finding::Unread { why: "no connection".to_owned() },
    ];
    for finding in findings {
        let hold = stage.ledger.hold(operation().hash()).await.unwrap().unwrap();
        let verdict = stage.ledger.found(hold, finding, stage.audit()).await.unwrap();
        assert_eq!(verdict, Verdict::Unknown { last: None, conflict: false });
    }
    assert!(stage.ticket("500").await.ambiguous);
}

#[tokio::test]
async fn a_look_that_sent_nothing_was_none_and_who_waits_looks_for_itself() {
    let stage = Arc::new(Stage::new());
    let sent = stage.ticket("500").await;
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    stage.clock.advance(HOUR * 24 * 8);
    let hold = stage.look("500").await;
    let waits = Arc::clone(&stage);
    let waiting = tokio::spawn(async move { waits.begin("500").await.unwrap() });
    tokio::task::yield_now().await;
    let before = stage.ledger.entry(operation().hash()).await.unwrap().unwrap().record;
    let unasked = Finding::Unasked { why: "no turn".to_owned() };
    let verdict = stage.ledger.found(hold, unasked, stage.audit()).await.unwrap();
    assert_eq!(verdict, Verdict::Unknown { last: None, conflict: false });
    let Begun::Look(hold) = waiting.await.unwrap() else { panic!("it got what another one did not find") };
    assert_eq!(*hold.record(), before);
    let unread = Finding::Unread { why: "no connection".to_owned() };
    let verdict = stage.ledger.found(*hold, unread, stage.audit()).await.unwrap();
    assert!(matches!(verdict, Verdict::NeedsOperator(case) if case.why == Stuck::Overdue));
}

#[tokio::test]
async fn an_event_with_the_key_settles_whatever_was_thought_before() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    let proof = EventProof {
        event_id: "evt_1".to_owned(),
        kind: "refund.created".to_owned(),
        idempotency_key: operation().key(1),
        object: SUCCESS.to_owned(),
        api_version: STRIPE_VERSION.to_owned(),
    };
    let hash = operation().hash();
    let prove = async |proof: &EventProof| stage.ledger.prove(hash, proof, stage.audit()).await.unwrap();
    assert_eq!(prove(&proof).await, Proved::InFlight);
    stage.settle(sent, answered(402, DECLINED)).await;
    let sent = ticket(stage.ask("500", true).await.unwrap());
    stage.settle(sent, Attempt::Broken(Trouble::Reset)).await;
    assert_eq!(stage.ledger.holder_of(&operation().key(1)), Some(hash));

    let foreign = EventProof { idempotency_key: operation().key(3), ..proof.clone() };
    assert_eq!(prove(&foreign).await, Proved::NotOurs);
    let other = EventProof { kind: "charge.updated".to_owned(), ..proof.clone() };
    assert_eq!(prove(&other).await, Proved::Nothing);
    assert_eq!(prove(&proof).await, Proved::Settled { later_sent: true });
    assert_eq!(prove(&proof).await, Proved::Nothing);
    assert_eq!(stage.ledger.holder_of(&operation().key(1)), None);
    let Begun::Replay(Settled::Succeeded(success)) = stage.begin("500").await.unwrap() else { panic!() };
    assert_eq!((success.json.as_deref(), success.object_id.as_deref()), (Some(SUCCESS), Some("re_1")));
    let last = stage.trail().await.into_iter().rev().find(|record| record.phase == audit::Phase::Intent);
    assert_eq!(last.unwrap().outcome.unwrap().reason.as_deref(), Some("event_of_earlier_generation"));
}

#[tokio::test]
async fn replays_show_the_latest_state_of_the_object() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, answered(200, SUCCESS)).await;
    let turn = |event_id: &str, created_s: i64, object: &str, api_version: &str| Turn {
        event_id: event_id.to_owned(),
        kind: "refund.failed".to_owned(),
        created_s,
        object: object.to_owned(),
        api_version: api_version.to_owned(),
    };
    let failed = r#"{"id":"re_1","object":"refund","status":"failed"}"#;
    let hash = operation().hash();
    let shown = async |turn: Turn| {
        let proved = stage.ledger.turn(hash, &turn, stage.audit()).await.unwrap();
        let Begun::Replay(Settled::Succeeded(success)) = stage.begin("500").await.unwrap() else { panic!() };
        (proved, success.turned_by, success.json)
    };
    let failed_by = |event: &str| (Some(event.to_owned()), Some(failed.to_owned()));
    let (proved, by, json) = shown(turn("evt_2", 20, failed, STRIPE_VERSION)).await;
    assert_eq!((proved, (by, json)), (Proved::Settled { later_sent: false }, failed_by("evt_2")));
    let (proved, by, json) = shown(turn("evt_1", 10, SUCCESS, STRIPE_VERSION)).await;
    assert_eq!((proved, (by, json)), (Proved::Nothing, failed_by("evt_2")));
    let (proved, ..) = shown(turn("evt_3", 30, r#"{"id":"re_2"}"#, STRIPE_VERSION)).await;
    assert_eq!(proved, Proved::NotOurs);
    let (_, by, json) = shown(turn("evt_4", 40, failed, "2020-08-27")).await;
    assert_eq!((by.as_deref(), json), (Some("evt_4"), None), "this build does not read that version");
}

#[tokio::test]
async fn a_failure_that_was_told_while_the_outcome_was_unknown_outlives_the_process() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    let hash = operation().hash();
    let failed = turn("evt_2", 20, "failed");
    let told = stage.ledger.turn(hash, &failed, stage.audit()).await.unwrap();
    assert_eq!(told, Proved::InFlight);
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    let told = stage.ledger.turn(hash, &failed, stage.audit()).await.unwrap();
    assert_eq!(told, Proved::Settled { later_sent: false });
    let stage = stage.restart().await;
    stage.ledger.recover().await.unwrap();
    let earlier = stage.ledger.turn(hash, &turn("evt_1", 10, "pending"), stage.audit()).await.unwrap();
    assert_eq!(earlier, Proved::Nothing);
    // The answer to the resend is the one that Stripe gave when the refund was made.
    let verdict = stage.settle(stage.ticket("500").await, answered(200, SUCCESS)).await;
    let Verdict::Settled(Settled::Succeeded(success)) = verdict else { panic!("{verdict:?}") };
    assert_eq!((success.json, success.turned_by), (Some(failed.object), Some("evt_2".to_owned())));
}

#[tokio::test]
async fn a_person_settles_what_nobody_else_can() {
    let stage = Stage::new();
    let hash = operation().hash();
    let rule = async |ruling| stage.ledger.rule(hash, ruling, stage.audit()).await.unwrap();
    assert_eq!(rule(Ruling::NotExecuted).await, Ruled::NotUnresolved);
    let sent = stage.ticket("500").await;
    assert_eq!(rule(Ruling::NotExecuted).await, Ruled::TooEarly);
    stage.settle(sent, Attempt::Broken(Trouble::Timeout)).await;
    assert_eq!(rule(Ruling::NotExecuted).await, Ruled::TooEarly);
    stage.clock.advance(HOUR);
    let not_executed = Settled::NotExecuted(Witness::Operator);
    assert_eq!(rule(Ruling::NotExecuted).await, Ruled::Done(not_executed.clone()));
    assert_eq!(rule(Ruling::NotExecuted).await, Ruled::NotUnresolved);
    assert!(matches!(stage.begin("500").await.unwrap(), Begun::Replay(settled) if settled == not_executed));
    assert_eq!(ticket(stage.ask("500", true).await.unwrap()).generation(), 2);
}

fn customers() -> &'static Spec {
    contract::by_ledger_name("customers.update").unwrap()
}

/// An update of the name of one customer, as the order `order`.
fn update<'a>(order: &str, name: &str, params: &'a [Pair]) -> Asked<'a> {
    let operation =
        Operation { rpc: customers().ledger_name.to_owned(), order_id: order.to_owned(), ..operation() };
    let outgoing = Outgoing {
        template: customers().path.to_owned(),
        path: "/v1/customers/cus_1".to_owned(),
        ..outgoing(&format!("name={name}"))
    };
    Asked { operation, spec: customers(), outgoing, params, retry_refused: false, claim: None }
}

#[tokio::test]
async fn an_update_is_not_sent_again_over_a_later_one() {
    const CUSTOMER: &str = r#"{"id":"cus_1","object":"customer"}"#;
    let stage = Stage::new();
    let (ours, theirs) = (params("Ada"), params("Bob"));
    let ask = async |order: &str, name: &str, params: &[Pair]| {
        stage.ledger.begin(update(order, name, params), stage.audit(), None).await.unwrap()
    };
    let earlier = ticket(ask("0", "Eve", &theirs).await);
    stage.settle(earlier, answered(200, CUSTOMER)).await;
    let first = ticket(ask("1", "Ada", &ours).await);
    stage.settle(first, Attempt::Broken(Trouble::Reset)).await;
    let again = ticket(ask("1", "Ada", &ours).await);
    assert!(again.ambiguous, "an earlier update changes nothing");
    stage.settle(again, Attempt::Broken(Trouble::Reset)).await;

    let refused = ticket(ask("2", "Bob", &theirs).await);
    stage.settle(refused, answered(402, DECLINED)).await;
    let again = ticket(ask("1", "Ada", &ours).await);
    assert!(again.ambiguous, "a refused update changes nothing");
    stage.settle(again, Attempt::Broken(Trouble::Reset)).await;

    let later = ticket(ask("3", "Bob", &theirs).await);
    stage.settle(later, answered(200, CUSTOMER)).await;
    let Begun::Look(hold) = ask("1", "Ada", &ours).await else { panic!("sent over a later update") };
    assert_eq!(hold.why(), Some(Stuck::Superseded));
    let finding = Finding::Undecided { why: "overwritten".to_owned(), found: Vec::new() };
    let verdict = stage.ledger.found(*hold, finding, stage.audit()).await.unwrap();
    assert!(matches!(verdict, Verdict::NeedsOperator(case) if case.why == Stuck::Superseded));
}
