//! Policies through the whole gateway: what no rule permits does not happen, and every denial is on record. And the
//! examples: what they permit and deny is what their tables say.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;
use tollgate::policy::{self, PolicySet, Table};
use tollgate::proto::v1::audit_service_client::AuditServiceClient;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::subscribe_request::Start;
use tollgate::proto::v1::subscribe_response::Item;
use tollgate::proto::v1::subscription_service_client::SubscriptionServiceClient;
use tollgate::proto::v1::{
    AcknowledgeRequest, AuditPhase, ConsumeRequest, CreateRefundRequest, CreateSubscriptionRequest, Event,
    GetAuditRecordRequest, GetEventRequest, GetRefundRequest, GetSubscriptionRequest, ListEventsRequest,
    RefundReason, SubscribeRequest, SubscribeResponse, create_subscription_request,
};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::rig::{self, Rig, operation};

/// Longer than anything here takes, so that a test which would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(30);

const NARROW: &str = r#"
@id("refunds")
permit (principal == Caller::"rig", action == Action::"RefundService.CreateRefund", resource)
when { context.order_id like "10*" };
@id("no-fraud")
forbid (principal, action, resource) when { context has reason && context.reason == "fraudulent" };
@id("stream")
permit (principal == Caller::"rig", action in [Action::"EventService.Subscribe", Action::"EventService.ListEvents", Action::"EventService.GetEvent"], resource);
@id("charges")
permit (principal == Caller::"rig", action == Action::"EventService.ReceiveEvent", resource)
when { context.event_type like "charge.*" };
@id("operator")
permit (principal == Caller::"operator", action, resource);
"#;

async fn narrow() -> Rig {
    Rig::start_with(|config| std::fs::write(&config.policy_files[0], NARROW).unwrap()).await
}

fn refund(payment: &str, order_id: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        operation: operation(order_id, ""),
        payment_intent: Some(payment.to_owned()),
        amount: Some(100),
        ..Default::default()
    }
}

/// Reason and rule of a denial, and the id of its record.
fn denial(status: &Status) -> (String, String, String) {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert_eq!(info.metadata["account"], "default");
    (info.reason, info.metadata["rule"].clone(), info.metadata["audit_id"].clone())
}

#[tokio::test]
async fn what_no_rule_permits_does_not_happen_and_is_on_record() {
    let rig = narrow().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());

    refunds.create_refund(refund(&payment, "1001")).await.unwrap();
    let other = refunds.create_refund(refund(&payment, "2002")).await.unwrap_err();
    let preview = CreateRefundRequest { validate_only: true, ..refund(&payment, "2002") };
    let previewed = refunds.create_refund(preview).await.unwrap_err();
    let fraud = CreateRefundRequest { reason: RefundReason::Fraudulent.into(), ..refund(&payment, "1003") };
    let fraud = refunds.create_refund(fraud).await.unwrap_err();
    let read =
        refunds.get_refund(GetRefundRequest { id: "re_1".into(), ..Default::default() }).await.unwrap_err();
    assert_eq!(rig.refunds_made(), 1);

    let mut audit = AuditServiceClient::new(rig.operator());
    for (status, rule) in
        [(other, "default-deny"), (previewed, "default-deny"), (fraud, "no-fraud"), (read, "default-deny")]
    {
        let (reason, found, audit_id) = denial(&status);
        assert_eq!((reason.as_str(), found.as_str()), ("POLICY_DENIED", rule));
        let request = GetAuditRecordRequest { id: audit_id };
        let record = rig::until(async || {
            let answer = audit.get_audit_record(request.clone()).await.ok()?;
            answer.into_inner().record
        })
        .await;
        assert_eq!((record.phase(), record.decision.as_str()), (AuditPhase::Denied, rule), "{record:?}");
        assert_eq!((record.caller.as_str(), record.reason.as_str()), ("rig", "POLICY_DENIED"));
    }
}

#[tokio::test]
async fn a_replay_is_judged_too() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    refunds.create_refund(refund(&payment, "2002")).await.unwrap();
    replace(&rig, NARROW).await;
    let status = refunds.create_refund(refund(&payment, "2002")).await.unwrap_err();
    assert_eq!(denial(&status).1, "default-deny");
    assert_eq!(rig.refunds_made(), 1);
}

#[tokio::test]
async fn an_amount_that_is_left_out_is_read_before_it_is_judged() {
    let capped = NARROW.replace(
        "context.order_id like \"10*\"",
        "context.amount <= 500 && [\"usd\", \"eur\"].contains(context.currency)",
    );
    let rig = Rig::start_with(|config| std::fs::write(&config.policy_files[0], &capped).unwrap()).await;
    let (large, small) = (rig.payment(501).await, rig.payment(500).await);
    let mut refunds = RefundServiceClient::new(rig.wire());
    let all_of = |payment: &str, order| CreateRefundRequest { amount: None, ..refund(payment, order) };
    let status = refunds.create_refund(all_of(&large, "1")).await.unwrap_err();
    assert_eq!(denial(&status).1, "default-deny");
    let made = refunds.create_refund(all_of(&small, "2")).await.unwrap().into_inner().refund.unwrap();
    assert_eq!(made.amount, 500);
    assert_eq!(rig.refunds_made(), 1);
}

/// Puts other policies in force while the gateway runs.
async fn replace(rig: &Rig, text: &str) {
    let config = rig::config(rig.stripe_address(), &rig.data);
    std::fs::write(&config.policy_files[0], text).unwrap();
    rig.gateway.reload(config).await.unwrap();
}

async fn subscribe(rig: &Rig) -> Streaming<SubscribeResponse> {
    let request = SubscribeRequest { start: Some(Start::Earliest(true)), ..Default::default() };
    EventServiceClient::new(rig.wire()).subscribe(request).await.unwrap().into_inner()
}

/// The next event of a stream, or its end.
async fn event(stream: &mut Streaming<SubscribeResponse>) -> Result<Event, Status> {
    loop {
        let message = timeout(PATIENCE, stream.message()).await.expect("something comes")?;
        if let Some(Item::Event(event)) = message.expect("a stream ends with a status only").item {
            return Ok(event);
        }
    }
}

#[tokio::test]
async fn only_events_that_a_rule_shows_are_shown() {
    let rig = narrow().await;
    let mut stream = subscribe(&rig).await;
    rig.payment(1000).await;
    rig.payment(1000).await;
    let shown = [event(&mut stream).await.unwrap(), event(&mut stream).await.unwrap()];
    assert!(shown.iter().all(|event| event.r#type == "charge.succeeded"), "{shown:?}");

    let all =
        EventServiceClient::new(rig.operator()).list_events(ListEventsRequest::default()).await.unwrap();
    let hidden = all.into_inner().events.into_iter().find(|event| event.r#type == "payment_intent.succeeded");
    let mut own = EventServiceClient::new(rig.wire());
    let listed = own.list_events(ListEventsRequest::default()).await.unwrap().into_inner().events;
    assert_eq!(listed.len(), 2);
    let get = |id: &str| GetEventRequest { id: id.to_owned(), ..Default::default() };
    assert!(own.get_event(get(&listed[0].id)).await.is_ok());
    let status = own.get_event(get(&hidden.unwrap().id)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

/// What a consumer may have and is shown.
const CONSUMER: &str = r#"
@id("subscriptions")
permit (principal == Caller::"rig", action in Action::"SubscriptionService", resource);
@id("succeeded-charges")
permit (principal == Caller::"rig", action == Action::"EventService.ReceiveEvent", resource)
when { context.event_type == "charge.succeeded" };
@id("operator")
permit (principal == Caller::"operator", action, resource);
"#;

#[tokio::test]
async fn a_subscription_gives_out_what_a_rule_shows_and_the_rest_is_no_lag() {
    let rig = Rig::start_with(|config| std::fs::write(&config.policy_files[0], CONSUMER).unwrap()).await;
    for _ in 0..2 {
        rig.payment(1000).await;
    }
    rig.stripe("/v1/customers", "name=Jenny").await;
    let types = rig::until(async || {
        let delivered = rig.control().undelivered() == 0;
        let all = EventServiceClient::new(rig.operator()).list_events(ListEventsRequest::default()).await;
        let events = all.unwrap().into_inner().events;
        let types: Vec<_> = events.into_iter().map(|event| event.r#type).collect();
        (delivered && types.iter().any(|kind| kind == "customer.created")).then_some(types)
    })
    .await;
    assert_eq!(types.iter().filter(|kind| *kind == "charge.succeeded").count(), 2, "{types:?}");
    assert!(types.len() > 4, "more is hidden than shown: {types:?}");

    let mut client = SubscriptionServiceClient::new(rig.wire());
    let name = || "orders".to_owned();
    let start = Some(create_subscription_request::Start::Earliest(true));
    let creation = CreateSubscriptionRequest { name: name(), start, ..Default::default() };
    client.create_subscription(creation).await.unwrap();
    let request = ConsumeRequest { name: name(), ..Default::default() };
    let mut stream = client.consume(request).await.unwrap().into_inner();
    let mut shown = Vec::new();
    let status = timeout(PATIENCE, async {
        loop {
            let message = stream.message().await.unwrap().expect("a stream ends with a status only");
            if let (Some(event), Some(delivery)) = (message.event, message.delivery) {
                let ack_ids = vec![delivery.ack_id];
                client.acknowledge(AcknowledgeRequest { name: name(), ack_ids }).await.unwrap();
                shown.push(event.r#type);
            }
            let asked = client.get_subscription(GetSubscriptionRequest { name: name() }).await.unwrap();
            let status = asked.into_inner().subscription.unwrap().status.unwrap();
            if status.lag_events == 0 {
                return status;
            }
        }
    });
    let status = status.await.expect("the lag ends");
    assert_eq!(shown, ["charge.succeeded", "charge.succeeded"]);
    assert_eq!((status.position, status.parked, status.lost), (status.head_position, 0, None));
}

#[tokio::test]
async fn an_open_stream_is_judged_anew_when_policies_change() {
    let rig = narrow().await;
    rig.payment(1000).await;
    let mut stream = subscribe(&rig).await;
    assert_eq!(event(&mut stream).await.unwrap().r#type, "charge.succeeded");

    replace(&rig, &NARROW.replace("charge.*", "customer.*")).await;
    rig.payment(1000).await;
    rig.stripe("/v1/customers", "name=Jenny").await;
    assert_eq!(
        event(&mut stream).await.unwrap().r#type,
        "customer.created",
        "the stream goes on by other rules"
    );

    replace(&rig, &NARROW.replace("Action::\"EventService.Subscribe\", ", "")).await;
    let end = event(&mut stream).await.unwrap_err();
    let info = end.get_details_error_info().unwrap();
    assert_eq!((end.code(), info.reason.as_str()), (Code::PermissionDenied, "POLICY_DENIED"));
    assert!(!info.metadata["cursor"].is_empty());
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policy")
}

/// Method: every table beside the examples is asked, and every example is valid beside all the others.
#[test]
fn the_examples_decide_as_their_tables_say() {
    let policies = policy::files(&[examples()]).unwrap();
    let all = PolicySet::parse(&policy::read(&policies).unwrap()).unwrap();
    assert_eq!(all.warnings(None), []);
    let tables = Table::beside(&policies);
    assert_eq!(tables.len(), policies.len());
    for path in tables {
        let table = Table::read(&path).unwrap();
        let set = PolicySet::parse(&policy::read(&table.policies(&path)).unwrap()).unwrap();
        let verdicts = table.judge(&set);
        let wrong: Vec<_> = verdicts.iter().filter(|verdict| !verdict.as_expected).collect();
        assert!(wrong.is_empty() && verdicts.len() >= 6, "{}: {wrong:#?}", path.display());
    }
}

/// Method: the same tables against rules that permit more; each has a row that notices.
#[test]
fn a_table_notices_rules_that_permit_more() {
    let text = "@id(\"all\") permit (principal, action, resource);".to_owned();
    let set = PolicySet::parse(&[policy::Source { file: "all.cedar".to_owned(), text }]).unwrap();
    for path in Table::beside(&policy::files(&[examples()]).unwrap()) {
        let verdicts = Table::read(&path).unwrap().judge(&set);
        assert!(verdicts.iter().any(|verdict| !verdict.as_expected), "{}", path.display());
    }
}

fn tollgate(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let output = command.env_clear().arg("policy").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_line_checks_tests_and_explains_without_a_gateway() {
    let examples = examples().display().to_string();
    let (code, said, warned) = tollgate(&["check", "--strict", &examples]);
    assert_eq!((code, warned.as_str()), (Some(0), ""), "{said}");
    let (code, rows, _) = tollgate(&["test", &examples, "-o", "jsonl"]);
    assert!(code == Some(0) && rows.lines().count() > 24 && !rows.contains("FAILED"), "{rows}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.cedar").display().to_string();
    assert_eq!(tollgate(&["init", &file, "--caller", "orders"]).0, Some(0));
    assert_eq!(tollgate(&["init", &file]).0, Some(65), "what is there is not overwritten");
    let refund =
        ["--action", "RefundService.CreateRefund", "--amount", "5001", "--currency", "usd", "-o", "table"];
    let explain = |who: &[&str], file: &str| tollgate(&[&["explain", file][..], who, &refund[..]].concat()).1;
    assert!(explain(&["--caller", "orders"], &file).starts_with("permitted by `orders-may-do-everything`\n"));
    let support = explain(&["--caller", "any", "--group", "support"], &examples);
    assert!(support.starts_with("denied, since no rule permits it (`default-deny`)\n"), "{support}");
    let cap = support.lines().find(|line| line.starts_with("support-refunds-up-to-50 ")).unwrap();
    assert!(cap.contains("its conditions do not hold") && cap.contains("support.cedar:"), "{cap}");

    std::fs::write(&file, "permit(principal, action);").unwrap();
    let (code, _, error) = tollgate(&["check", &file]);
    assert!(code == Some(78) && error.contains("policy.cedar` line 1: "), "{error}");
    let table = folder.path().join("policy.decisions.toml");
    std::fs::write(&file, "@id(\"all\") permit(principal, action, resource);").unwrap();
    let row = "[[decision]]\nsays = \"reads\"\ncaller = \"a\"\naction = \"RefundService.GetRefund\"\nexpect = \"deny\"\n";
    std::fs::write(&table, row).unwrap();
    let (code, rows, _) = tollgate(&["test", &file, "-o", "jsonl"]);
    assert!(code == Some(1) && rows.contains("FAILED") && rows.contains("permitted by `all`"), "{rows}");
    std::fs::write(&table, row.replace("GetRefund", "GetRefunds")).unwrap();
    let (code, _, error) = tollgate(&["test", &file]);
    assert!(code == Some(78) && error.contains("there is no action `RefundService.GetRefunds`"), "{error}");
}
