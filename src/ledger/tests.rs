//! The ledger on a real store, with time set by hand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::Instant;

use super::fixtures::{NOW, found, operation, outgoing};
use super::*;
use crate::audit::Auditor;
use crate::contract::{self, Effect, Host, Paging, Pair, Sensitivity, Spec, Verb};
use crate::domain::caller::Caller;
use crate::domain::clock::ManualClock;
use crate::store::Terms;
use crate::stripe::outgoing::STRIPE_VERSION;
use crate::stripe::{Answer, Body, Trouble};

const SUCCESS: &str = r#"{"id":"re_1","object":"refund","amount":500,"currency":"eur"}"#;
const DECLINED: &str = r#"{"error":{"type":"card_error","code":"card_declined"}}"#;
const HOUR: Duration = Duration::from_secs(3600);

/// An RPC whose effect may exist twice.
static UPLOAD: Spec = Spec {
    service: "FileService",
    rpc: "UploadFile",
    ledger_name: "FileService.UploadFile",
    verb: Verb::Post,
    path: "/v1/files",
    host: Host::Files,
    effect: Effect::Repeatable,
    lookup: None,
    settled_by: &[],
    turned_by: &[],
    paging: Paging::None,
    object: "file",
    fixed: &[],
    stamped: false,
    guards: &[],
    stages: None,
};

fn refunds() -> &'static Spec {
    contract::find("RefundService", "CreateRefund").unwrap()
}

/// A ledger, and what stands around it.
struct Stage {
    folder: TempDir,
    store: Store,
    clock: Arc<ManualClock>,
    ledger: Ledger,
    auditor: Auditor,
    repeatable: bool,
}

impl Stage {
    fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap(), Arc::new(ManualClock::at(NOW)))
    }

    fn on(folder: TempDir, clock: Arc<ManualClock>) -> Self {
        let store = Store::open(folder.path(), Terms::default()).unwrap();
        let ledger = Ledger::new(store.clone(), clock.clone(), HashKey::new([1; 32]));
        let auditor = Auditor::new(store.clone(), clock.clone(), HashKey::new([2; 32])).unwrap();
        Self { folder, store, clock, ledger, auditor, repeatable: false }
    }

    /// The process ends and starts again.
    async fn restart(self) -> Self {
        let Self { folder, store, clock, ledger, auditor, .. } = self;
        store.close().await;
        drop((store, ledger, auditor));
        Self::on(folder, clock)
    }

    fn audit(&self) -> audit::Record {
        let caller = Caller { name: "billing".to_owned(), namespace: "shop".to_owned(), admin: false };
        self.auditor.record(audit::Phase::Intent, &caller, "tollgate.v1.RefundService/CreateRefund")
    }

    async fn begin(&self, amount: &str) -> Result<Begun, Error> {
        self.ask(amount, false).await
    }

    async fn ask(&self, amount: &str, retry_refused: bool) -> Result<Begun, Error> {
        let params = params(amount);
        let asked = Asked { retry_refused, ..self.asked(amount, &params) };
        self.ledger.begin(asked, self.audit(), None).await
    }

    fn asked<'a>(&self, amount: &str, params: &'a [Pair]) -> Asked<'a> {
        Asked {
            operation: operation(),
            spec: if self.repeatable { &UPLOAD } else { refunds() },
            outgoing: outgoing(&format!("amount={amount}")),
            params,
            retry_refused: false,
        }
    }

    async fn ticket(&self, amount: &str) -> Ticket {
        ticket(self.begin(amount).await.unwrap())
    }

    async fn look(&self, amount: &str) -> Hold {
        match self.begin(amount).await.unwrap() {
            Begun::Look(hold) => *hold,
            other => panic!("nothing to look for: {other:?}"),
        }
    }

    async fn settle(&self, ticket: Ticket, attempt: Attempt) -> Verdict {
        self.ledger.settle(ticket, &[attempt], self.audit()).await.unwrap()
    }

    /// The audit records so far, oldest first.
    async fn trail(&self) -> Vec<audit::Record> {
        let stored = self.store.audit_after(0, 100).await.unwrap();
        stored.iter().map(|stored| serde_json::from_slice(&stored.row.record).unwrap()).collect()
    }
}

fn params(amount: &str) -> Vec<Pair> {
    vec![
        Pair { name: "charge".to_owned(), value: "ch_1".to_owned(), sensitivity: Sensitivity::Public },
        Pair { name: "amount".to_owned(), value: amount.to_owned(), sensitivity: Sensitivity::Public },
    ]
}

fn ticket(begun: Begun) -> Ticket {
    match begun {
        Begun::New(ticket) => *ticket,
        other => panic!("nothing to send: {other:?}"),
    }
}

fn answered(status: u16, body: &'static str) -> Attempt {
    let request_id = Some("req_1".to_owned());
    Attempt::Answered(Answer {
        status,
        request_id,
        body: Bytes::from_static(body.as_bytes()),
        ..Answer::default()
    })
}

fn succeeded() -> Settled {
    Settled::Succeeded(Success {
        json: Some(SUCCESS.to_owned()),
        request_id: Some("req_1".to_owned()),
        object_id: Some("re_1".to_owned()),
        turned_by: None,
        turned_s: None,
    })
}

#[tokio::test]
async fn a_success_is_answered_from_memory_ever_after() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    assert_eq!(sent.outgoing.idempotency_key, Some(operation().key(1)));
    assert_eq!(stage.settle(sent, answered(200, SUCCESS)).await, Verdict::Settled(succeeded()));

    let stage = stage.restart().await;
    stage.clock.advance(HOUR * 24 * 400);
    assert!(matches!(stage.begin("500").await.unwrap(), Begun::Replay(settled) if settled == succeeded()));
    assert!(matches!(stage.begin("501").await.unwrap(), Begun::Mismatch(fields) if fields == ["amount"]));
}

#[tokio::test]
async fn the_intent_and_its_audit_record_are_durable_before_anything_is_sent() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    let stored = stage.store.operation(&operation().hash()).await.unwrap().unwrap();
    let record = Record::decode(&stored).unwrap();
    assert_eq!(record.into_outgoing(), Some(sent.outgoing.clone()));
    let [intent] = stage.trail().await.try_into().unwrap();
    assert_eq!((intent.phase, intent.generation), (audit::Phase::Intent, Some(1)));
    assert_eq!(intent.idempotency_key, sent.outgoing.idempotency_key);
    assert_eq!(intent.operation, Some(operation().hash().to_string()));

    stage.settle(sent, answered(200, SUCCESS)).await;
    let [_, outcome] = stage.trail().await.try_into().unwrap();
    let result = outcome.outcome.clone().unwrap();
    assert_eq!(
        (outcome.phase, result.result.as_str(), result.http_status),
        (audit::Phase::Outcome, "succeeded", Some(200))
    );
    assert_eq!((outcome.amount_minor, outcome.currency.as_deref()), (Some(500), Some("eur")));
    assert_eq!((outcome.object_id.as_deref(), outcome.attempts), (Some("re_1"), Some(1)));
    assert_eq!(outcome.stripe_request_ids, ["req_1"]);
}

#[tokio::test]
async fn a_refusal_stands_until_the_caller_asks_anew() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.settle(sent, answered(402, DECLINED)).await;
    let Begun::Replay(Settled::Refused(refusal)) = stage.begin("500").await.unwrap() else {
        panic!("not replayed")
    };
    assert_eq!((refusal.status, refusal.body.as_str()), (402, DECLINED));

    let again = ticket(stage.ask("500", true).await.unwrap());
    assert_eq!((again.generation(), &again.outgoing.idempotency_key), (2, &Some(operation().key(2))));
    stage.settle(again, answered(402, DECLINED)).await;
    let changed = stage.ticket("400").await;
    assert_eq!((changed.generation(), &changed.outgoing.body), (3, &Body::Form("amount=400".to_owned())));
}

#[tokio::test]
async fn what_was_never_settled_is_resent_with_the_same_bytes_and_key() {
    let stage = Stage::new();
    let first = stage.ticket("500").await.outgoing;
    let stage = stage.restart().await;
    stage.clock.advance(HOUR * 22);
    let resent = {
        let params = params("500");
        // A later build would spell the same parameters in another way.
        let asked = Asked { outgoing: outgoing("amount=500&new=1"), ..stage.asked("500", &params) };
        ticket(stage.ledger.begin(asked, stage.audit(), None).await.unwrap())
    };
    assert_eq!((&resent.outgoing, resent.generation(), resent.ambiguous), (&first, 1, true));
    // A fresh refusal may mean that the first attempt succeeded.
    let verdict = stage.settle(resent, answered(402, DECLINED)).await;
    assert!(matches!(verdict, Verdict::Unknown { conflict: false, .. }));
    assert!(matches!(stage.begin("400").await.unwrap(), Begun::Mismatch(_)));
    assert_eq!(stage.ticket("500").await.outgoing, first);
}

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

#[tokio::test]
async fn an_attempt_that_did_nothing_leaves_the_operation_open() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    let refused = Attempt::NotSent(Trouble::Connect);
    assert_eq!(stage.settle(sent, refused.clone()).await, Verdict::Open { last: Some(refused) });
    stage.clock.advance(HOUR * 100);
    let again = stage.ticket("500").await;
    assert_eq!((again.generation(), again.ambiguous), (1, false));
    stage.settle(again, Attempt::NotSent(Trouble::Connect)).await;
    assert_eq!(stage.ticket("400").await.generation(), 2);
}

#[tokio::test]
async fn of_equal_calls_at_once_one_is_sent_and_all_get_its_outcome() {
    let stage = Arc::new(Stage::new());
    let leader = stage.ticket("500").await;
    let calls = |amount: &'static str, count: usize| -> Vec<_> {
        (0..count)
            .map(|_| Arc::clone(&stage))
            .map(|stage| tokio::spawn(async move { stage.begin(amount).await.unwrap() }))
            .collect()
    };
    let (equal, other) = (calls("500", 20), calls("400", 5));
    tokio::task::yield_now().await;
    stage.settle(leader, answered(200, SUCCESS)).await;
    for call in equal {
        match call.await.unwrap() {
            Begun::Joined(Verdict::Settled(settled)) | Begun::Replay(settled) => {
                assert_eq!(settled, succeeded());
            }
            other => panic!("{other:?}"),
        }
    }
    for call in other {
        assert!(matches!(call.await.unwrap(), Begun::Mismatch(fields) if fields == ["amount"]));
    }
}

#[tokio::test]
async fn a_leader_that_is_lost_leaves_the_next_one_the_same_bytes() {
    let stage = Arc::new(Stage::new());
    let leader = stage.ticket("500").await;
    let first = leader.outgoing.clone();
    let follower = {
        let stage = Arc::clone(&stage);
        tokio::spawn(async move { stage.begin("500").await.unwrap() })
    };
    tokio::task::yield_now().await;
    drop(leader);
    let next = ticket(follower.await.unwrap());
    assert_eq!((next.outgoing, next.ambiguous), (first, true));
}

#[tokio::test]
async fn a_wait_for_a_call_in_flight_ends_at_the_deadline() {
    let stage = Stage::new();
    let _leader = stage.ticket("500").await;
    let params = params("500");
    let asked = stage.asked("500", &params);
    let begun = stage.ledger.begin(asked, stage.audit(), Some(Instant::now())).await.unwrap();
    assert!(matches!(begun, Begun::Unresolved(Unresolved::InFlight)));
    assert_eq!(stage.ledger.status(&operation()).await.unwrap().unwrap().standing, Standing::InFlight);
}

#[tokio::test]
async fn nothing_is_sent_without_a_record_and_no_outcome_is_told_without_one() {
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.store.close().await;
    let error = stage.ledger.settle(sent, &[answered(200, SUCCESS)], stage.audit()).await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    let error = stage.begin("500").await.unwrap_err();
    assert!(!error.outcome_unknown(), "{error}");
}

#[tokio::test]
async fn an_upload_keeps_its_boundary_and_none_of_its_bytes() {
    let stage = Stage { repeatable: true, ..Stage::new() };
    let params = params("sha256 of the file");
    let ask = async |boundary: &str| {
        let body = Body::Multipart { boundary: boundary.to_owned(), bytes: Bytes::new() };
        let asked = Asked { outgoing: Outgoing { body, ..outgoing("") }, ..stage.asked("", &params) };
        ticket(stage.ledger.begin(asked, stage.audit(), None).await.unwrap())
    };
    let boundary = |ticket: &Ticket| match &ticket.outgoing.body {
        Body::Multipart { boundary, bytes } if bytes.is_empty() => boundary.clone(),
        other => panic!("{other:?}"),
    };
    let mut first = ask("one").await;
    assert_eq!(boundary(&first), "one");
    first.outgoing.body =
        Body::Multipart { boundary: "one".to_owned(), bytes: Bytes::from_static(b"evidence") };
    stage.settle(first, Attempt::Broken(Trouble::Reset)).await;
    let resent = ask("two").await;
    assert_eq!((boundary(&resent).as_str(), resent.generation()), ("one", 1));
    drop(resent);
    stage.clock.advance(HOUR * 23);
    let anew = ask("three").await;
    assert_eq!((boundary(&anew).as_str(), anew.generation()), ("three", 2));
}

#[tokio::test]
async fn a_preview_tells_what_would_happen_and_leaves_no_trace() {
    let stage = Stage::new();
    let (same, other) = (params("500"), params("501"));
    let preview = async |params| stage.ledger.preview(stage.asked("500", params)).await.unwrap();
    let Preview::Send { how: Sending::New, outgoing } = preview(&same).await else { panic!("not sent") };
    assert_eq!(stage.store.operation(&operation().hash()).await.unwrap(), None);
    assert_eq!(stage.ledger.status(&operation()).await.unwrap(), None);

    let sent = stage.ticket("500").await;
    assert_eq!(*outgoing, sent.outgoing);
    assert_eq!(preview(&same).await, Preview::Answer(Known::InFlight));
    drop(sent);
    assert!(matches!(preview(&same).await, Preview::Send { how: Sending::Resend { ambiguous: true }, .. }));
    assert_eq!(preview(&other).await, Preview::Answer(Known::Mismatch(vec!["amount".to_owned()])));
    let resent = stage.ticket("500").await;
    stage.settle(resent, answered(200, SUCCESS)).await;
    assert_eq!(preview(&same).await, Preview::Answer(Known::Replay(succeeded())));
}
