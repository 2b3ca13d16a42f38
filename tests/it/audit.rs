//! The audit log from outside: found, followed, exported and verified through the command line, and refused where it
//! cannot be written.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use tollgate::audit::entry::Entry;
use tollgate::audit::note::NoteSigner;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::file_service_client::FileServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::upload_file_request::Part;
use tollgate::proto::v1::{
    CreateCustomerRequest, CreateRefundRequest, FilePurpose, GetRefundRequest, UploadFileHeader,
    UploadFileRequest,
};
use tollgate::sandbox::Fault;
use tollgate::store::Store;
use tonic::{Code, Request};

use crate::rig::{OPERATOR_TOKEN, Rig, operation, until};

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");

/// The command line as an operator of this gateway has it.
async fn tollgate(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = Command::new(TOLLGATE);
    command.args(arguments).stdin(Stdio::null());
    for name in ["TOLLGATE_CONFIG", "TOLLGATE_STRIPE_KEY"] {
        command.env_remove(name);
    }
    command.env("TOLLGATE_ADDRESS", rig.gateway.grpc.to_string()).env("TOLLGATE_TOKEN", OPERATOR_TOKEN);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn said(rig: &Rig, arguments: &[&str]) -> String {
    let output = tollgate(rig, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Verifies the log of a gateway that is gone with `tollgate audit verify`, as an outsider would who has the export, the
/// checkpoint file and the key; then with one byte changed, which must be found at its record.
pub(crate) async fn verify_left_behind(store: &Store, data: &Path) {
    let checkpoints = data.join("audit-checkpoints");
    let stored = store.audit_after(0, usize::MAX).await.unwrap();
    if stored.is_empty() || !checkpoints.exists() {
        return;
    }
    let origin = format!("tollgate.{:016x}/audit", store.log_id());
    let key =
        NoteSigner::new(origin, &store.secret("audit_signing_key").await.unwrap()).verifier().to_string();
    let lines: Vec<String> = stored.into_iter().map(|stored| Entry::from(stored).line().unwrap()).collect();
    let folder = TempDir::new().unwrap();
    let verify = |text: &[u8]| {
        let export = folder.path().join("log.jsonl");
        std::fs::write(&export, text).unwrap();
        let mut command = Command::new(TOLLGATE);
        command.args(["audit", "verify", "--key", &key, "--export"]).arg(export);
        command.arg("--checkpoints").arg(&checkpoints).output().unwrap()
    };
    let mut text = format!("{}\n", lines.join("\n")).into_bytes();
    let sound = verify(&text);
    assert!(sound.status.success(), "{}: {sound:?}", data.display());
    let middle = lines.len() / 2;
    let byte = lines[..=middle].iter().map(|line| line.len() + 1).sum::<usize>() - 6;
    text[byte] ^= 1;
    let changed = verify(&text);
    let said = String::from_utf8_lossy(&changed.stderr);
    assert_eq!(changed.status.code(), Some(76), "{changed:?}");
    assert!(said.contains(&format!("record {}", middle + 1)), "{said}");
}

fn refund(payment: &str, order_id: &str, operation_id: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        operation: operation(order_id, operation_id),
        payment_intent: Some(payment.to_owned()),
        amount: Some(100),
        ..Default::default()
    }
}

/// Waits until the event log has an event of this object.
async fn event_of(rig: &Rig, object_id: &str) -> Value {
    until(async || {
        let listed =
            said(rig, &["call", "EventService/ListEvents", "-d", "{\"page_size\": 100}", "-o", "json"]).await;
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let events = listed["events"].as_array().cloned().unwrap_or_default();
        events.into_iter().find(|event| event["object_id"] == object_id)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_story_is_told_from_every_id_of_it() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    let mut request = Request::new(refund(&payment, "1001", ""));
    request.metadata_mut().insert("tollgate-actor", "ada".parse().unwrap());
    let made = refunds.create_refund(request).await.unwrap().into_inner();
    let (made, call) = (made.refund.unwrap(), made.call.unwrap());
    refunds.create_refund(refund(&payment, "2002", "")).await.unwrap();
    let event = event_of(&rig, &made.id).await;
    // Nothing more comes in.
    let events = until(async || {
        let listed =
            said(&rig, &["call", "EventService/ListEvents", "-d", "{\"page_size\": 100}", "-o", "json"])
                .await;
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let of_refunds =
            listed["events"].as_array()?.iter().filter(|event| event["type"] == "charge.refunded").count();
        (of_refunds == 2).then_some(listed)
    })
    .await;
    assert!(events["events"].as_array().unwrap().len() >= 4);

    let trace = async |id: &str| said(&rig, &["audit", "trace", id, "-o", "table"]).await;
    let story = trace("1001").await;
    for id in [made.id.as_str(), event["id"].as_str().unwrap(), &call.stripe_request_id, &call.audit_id] {
        assert_eq!(trace(id).await, story, "from {id}");
    }
    let kinds: Vec<&str> = story.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(&kinds[..4], ["call", "decision", "attempt", "answer"], "{story}");
    assert!(kinds[4..].contains(&"event"), "{story}");
    for part in [
        "rig for ada called RefundService/CreateRefund, order 1001",
        &call.stripe_request_id,
        &made.id,
        "charge.refunded",
        "rule rig",
    ] {
        assert!(story.contains(part), "{part} in {story}");
    }
    assert!(!story.contains("2002"), "{story}");

    let unknown = tollgate(&rig, &["audit", "trace", "re_never1"]).await;
    assert_eq!(unknown.status.code(), Some(66), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_found_by_what_they_say_and_personal_values_by_their_hash() {
    let rig = Rig::start().await;
    let mut customers = CustomerServiceClient::new(rig.wire());
    let customer = CreateCustomerRequest {
        operation: operation("c-1", ""),
        email: Some("ada@example.com".into()),
        ..Default::default()
    };
    customers.create_customer(customer).await.unwrap();
    let mut refunds = RefundServiceClient::new(rig.wire());
    let missing = GetRefundRequest { id: "re_missing1".into(), ..Default::default() };
    refunds.get_refund(missing).await.unwrap_err();

    let found = async |arguments: &[&str]| -> Vec<Value> {
        let text = said(&rig, &[&["audit", "search", "-o", "jsonl"], arguments].concat()).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let by_email = found(&["--param", "email=ada@example.com"]).await;
    assert_eq!(by_email.len(), 1, "{by_email:?}");
    assert_eq!(by_email[0]["phase"], "AUDIT_PHASE_INTENT");
    assert!(!by_email[0].to_string().contains("ada@"), "{by_email:?}");
    assert!(found(&["--param", "email=eve@example.com"]).await.is_empty());
    let outcome = found(&["c-1", "--phase", "outcome"]).await;
    assert_eq!((outcome.len(), &outcome[0]["result"]), (1, &"succeeded".into()), "{outcome:?}");
    let reads = until(async || {
        let reads = found(&["--rpc", "RefundService/GetRefund", "--result", "RESOURCE_NOT_FOUND"]).await;
        (!reads.is_empty()).then_some(reads)
    })
    .await;
    assert_eq!(reads[0]["caller"], "rig");
    assert_eq!(found(&["--order-id", "c-1", "--limit", "1"]).await.len(), 1);
    assert!(found(&["--since", "2100-01-01T00:00:00Z"]).await.is_empty());

    let id = by_email[0]["id"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&said(&rig, &["audit", "show", id]).await).unwrap();
    assert_eq!(shown["id"], id);
    let month = shown["parameters"][0]["hash"].as_str().unwrap().split(':').next().unwrap().to_owned();
    let in_use = tollgate(&rig, &["audit", "key", "--erase", &month, "--reason", "test"]).await;
    assert_eq!(in_use.status.code(), Some(73), "{in_use:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_verified_offline_and_one_changed_byte_is_named() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    for number in 0..5 {
        refunds.create_refund(refund(&payment, "1001", &number.to_string())).await.unwrap();
    }
    let folder = TempDir::new().unwrap();
    let key = said(&rig, &["audit", "key"]).await;
    let live = said(&rig, &["audit", "verify", "-o", "json"]).await;
    assert!(serde_json::from_str::<Value>(&live).is_ok(), "{live}");
    let rig = rig.restart().await;
    assert_eq!(said(&rig, &["audit", "key"]).await, key, "the key stays");
    export(&rig, folder.path()).await;
    let checkpoints = rig.data.path().join("data/audit-checkpoints");
    let signed = |text: &str| text.lines().filter_map(|line| line.parse::<u64>().ok()).max();
    until(async || {
        let text = std::fs::read_to_string(&checkpoints).unwrap();
        (signed(&text) >= Some(13)).then_some(())
    })
    .await;
    let file = folder.path().join("log.jsonl");
    let verify = async |file: &Path| {
        let (file, checkpoints) =
            (file.to_str().unwrap().to_owned(), checkpoints.to_str().unwrap().to_owned());
        let arguments = [
            "audit",
            "verify",
            "-o",
            "json",
            "--export",
            &file,
            "--checkpoints",
            &checkpoints,
            "--key",
            key.trim(),
        ];
        // Nobody listens there: it asks nobody.
        tollgate(&rig, &[&arguments[..], &["--address", "127.0.0.1:1"]].concat()).await
    };
    export(&rig, folder.path()).await;
    let sound = verify(&file).await;
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    let verified: Value = serde_json::from_slice(&sound.stdout).unwrap();
    assert!(verified["proved"].as_u64() >= Some(13), "{verified}");

    let text = std::fs::read(&file).unwrap();
    let lines: Vec<usize> = (0..text.len()).filter(|at| text[*at] == b'\n').collect();
    for position in [1, 4, 7] {
        let at = lines[position - 1] - 5;
        let mut changed = text.clone();
        changed[at] ^= 1;
        let forged = folder.path().join("forged.jsonl");
        std::fs::write(&forged, &changed).unwrap();
        let found = verify(&forged).await;
        assert_eq!(found.status.code(), Some(76), "{found:?}");
        let said = String::from_utf8(found.stderr).unwrap();
        assert!(said.contains(&format!("record {position}")), "{said}");
    }
    let cut = folder.path().join("cut.jsonl");
    std::fs::write(&cut, &text[..=lines[2]]).unwrap();
    let found = verify(&cut).await;
    assert!(String::from_utf8(found.stderr).unwrap().contains("ends before record 4"));

    let table = said(&rig, &["audit", "export", "--format", "csv"]).await;
    assert!(table.starts_with("sequence,id,leaf,at_ms,phase,caller"), "{table}");
}

async fn export(rig: &Rig, folder: &Path) {
    let file = folder.join("log.jsonl");
    said(rig, &["audit", "export", "--to", file.to_str().unwrap()]).await;
}

/// Method: another connection holds SQLite's write lock, as a disk that takes nothing would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_changed_that_cannot_be_audited_and_reads_go_on() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    let made = refunds.create_refund(refund(&payment, "before", "")).await.unwrap().into_inner();
    let made = made.refund.unwrap().id;

    let database = std::fs::read_dir(rig.data.path().join("data")).unwrap();
    let mut files = database.map(|file| file.unwrap().path());
    let database = files.find(|file| file.extension().is_some_and(|extension| extension == "db")).unwrap();
    let lock = Connection::open(database).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = refunds.create_refund(refund(&payment, "during", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let read = refunds.get_refund(GetRefundRequest { id: made.clone(), ..Default::default() }).await;
    assert_eq!(read.unwrap().into_inner().refund.unwrap().id, made);
    assert_eq!(rig.refunds_made(), 1, "nothing was sent");

    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    until(async || refunds.create_refund(refund(&payment, "during", "")).await.ok()).await;
    assert_eq!(rig.refunds_made(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_by_strangers_are_on_record_as_a_sum() {
    let rig = Rig::start().await;
    let mut refunds = RefundServiceClient::new(rig.channel());
    for _ in 0..3 {
        let read = GetRefundRequest { id: "re_1".into(), ..Default::default() };
        assert_eq!(refunds.get_refund(read).await.unwrap_err().code(), Code::Unauthenticated);
    }
    // What the pauses have not reported, the end does.
    let rig = rig.restart().await;
    let found = said(&rig, &["audit", "search", "--phase", "denied", "-o", "jsonl"]).await;
    let found: Value = serde_json::from_str(found.trim()).unwrap();
    assert_eq!((&found["count"], &found["reason"]), (&3.into(), &"UNAUTHENTICATED".into()), "{found}");
    assert_eq!(found["peer"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_refused_is_on_record() {
    let rig = Rig::start().await;
    let header = UploadFileHeader {
        operation: operation("upload", "large"),
        filename: "a.pdf".into(),
        purpose: FilePurpose::DisputeEvidence.into(),
        size: Some(99_999_999),
        ..Default::default()
    };
    let stream = tokio_stream::iter([UploadFileRequest { part: Some(Part::Header(header)) }]);
    FileServiceClient::new(rig.wire()).upload_file(stream).await.unwrap_err();
    let found = until(async || {
        let found = said(&rig, &["audit", "search", "--phase", "refused", "-o", "jsonl"]).await;
        serde_json::from_str::<Value>(found.trim()).ok()
    })
    .await;
    assert_eq!(
        (&found["rpc"], &found["caller"]),
        (&"tollgate.v1.FileService/UploadFile".into(), &"rig".into())
    );
    assert_eq!(found["reason"], "FILE_TOO_LARGE");
}

/// Method: Stripe is slow, and the caller leaves while the gateway waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_caller_leaves_before_the_answer_is_on_record() {
    let rig = Rig::start().await;
    rig.control().add_fault(Fault::parse("latency:GET:/v1/refunds:ms=60000").unwrap());
    let (wire, before) = (rig.wire(), rig.control().received());
    let call = tokio::spawn(async move {
        let read = GetRefundRequest { id: "re_left".into(), ..Default::default() };
        RefundServiceClient::new(wire).get_refund(read).await
    });
    until(async || (rig.control().received() > before).then_some(())).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let search = ["audit", "search", "--phase", "read", "--result", "abandoned", "-o", "jsonl"];
    let found = until(async || serde_json::from_str::<Value>(said(&rig, &search).await.trim()).ok()).await;
    assert_eq!(
        (&found["rpc"], &found["caller"], &found["parameters"][0]["value"]),
        (&"tollgate.v1.RefundService/GetRefund".into(), &"rig".into(), &"re_left".into()),
        "{found}"
    );
}
