//! The ledger on a real store, with time set by hand.

mod background;
mod budgets;
mod unresolved;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::Instant;

use super::fixtures::{NOW, operation, outgoing};
use super::*;
use crate::audit::Auditor;
use crate::contract::{self, Effect, Host, Paging, Pair, Sensitivity, Spec, Verb};
use crate::domain::caller::Caller;
use crate::domain::clock::ManualClock;
use crate::domain::planted;
use crate::store::Terms;
use crate::stripe::traffic::Why;
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
    money: None,
    id_prefixes: &[],
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
        let store = Store::open(folder.path(), Terms { audit: audit::terms, ..Terms::default() }).unwrap();
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
        let caller = Caller::own("billing", "shop");
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
            claim: None,
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
async fn what_a_leader_alone_lacked_is_not_what_its_followers_get() {
    let crowded = |why| Trouble::Crowded { why, retry_ms: 5 };
    for (trouble, is_its_own) in [
        (Trouble::Deadline, true),
        (crowded(Why::Deadline), true),
        (crowded(Why::Expired), true),
        (crowded(Why::CallerFull), true),
        (crowded(Why::Full), false),
        (Trouble::Connect, false),
        (Trouble::BreakerOpen { retry_ms: 5 }, false),
    ] {
        for is_resend in [false, true] {
            let stage = Arc::new(Stage::new());
            if is_resend {
                let lost = stage.ticket("500").await;
                stage.settle(lost, Attempt::Broken(Trouble::Reset)).await;
            }
            let leader = stage.ticket("500").await;
            let (first, follows) = (leader.outgoing.clone(), Arc::clone(&stage));
            let follower = tokio::spawn(async move { follows.begin("500").await.unwrap() });
            tokio::task::yield_now().await;
            stage.settle(leader, Attempt::NotSent(trouble)).await;
            match follower.await.unwrap() {
                Begun::New(next) => {
                    assert!(is_its_own, "{trouble:?}");
                    assert_eq!((next.outgoing, next.ambiguous), (first, is_resend), "under the same key");
                }
                Begun::Joined(Verdict::Open { .. } | Verdict::Unknown { .. }) => {
                    assert!(!is_its_own, "{trouble:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
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

/// A check of the test above, not of the ledger.
#[tokio::test]
async fn an_outcome_that_is_told_without_its_record_is_caught() {
    let _held = planted::plant("settle-not-awaited");
    let stage = Stage::new();
    let sent = stage.ticket("500").await;
    stage.store.close().await;
    assert!(stage.ledger.settle(sent, &[answered(200, SUCCESS)], stage.audit()).await.is_ok());
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
