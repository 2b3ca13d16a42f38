//! What caused an event, who is told, and what can be asked for by it; and one object with its events. Over the wire.

use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;
use tollgate::config::{CallerConfig, Config};
use tollgate::domain::clock::Clock as _;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::stripe_object::Object;
use tollgate::proto::v1::subscribe_request::Start;
use tollgate::proto::v1::watch_object_response::Item as Watched;
use tollgate::proto::v1::{
    Cause, CauseFilter, CauseKind, CausingCall, CreateRefundRequest, Event, EventFilter, GetEventRequest,
    GetOperationRequest, ListEventsRequest, Operation, Refund, StripeObject, SubscribeRequest,
    WatchObjectRequest, WatchObjectResponse, subscribe_response,
};
use tollgate::stripe::signature::sign;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::rig::{OPERATOR_TOKEN, POLICY, Rig, SECRET, Token, Wire, operation, until};

/// Longer than anything here takes, so that a test which would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(30);
const NEIGHBOUR: &str = "token-of-the-neighbour";

/// A second caller, with a namespace of its own.
fn neighbourly(config: &mut Config) {
    config.callers.push(CallerConfig {
        name: "neighbour".into(),
        namespace: "neighbour".into(),
        tokens: vec![NEIGHBOUR.into()],
        ..config.callers[0].clone()
    });
}

fn neighbour(rig: &Rig) -> Wire {
    InterceptedService::new(rig.channel(), Token(NEIGHBOUR))
}

async fn refund(rig: &Rig, payment: &str, order_id: &str) -> Refund {
    let request = CreateRefundRequest {
        operation: operation(order_id, "one"),
        payment_intent: Some(payment.to_owned()),
        amount: Some(100),
        ..Default::default()
    };
    let answer = RefundServiceClient::new(rig.wire()).create_refund(request).await.unwrap();
    answer.into_inner().refund.unwrap()
}

async fn listed(wire: Wire, filter: EventFilter) -> Vec<Event> {
    let question = ListEventsRequest { filter: Some(filter), page_size: 100, ..Default::default() };
    EventServiceClient::new(wire).list_events(question).await.unwrap().into_inner().events
}

async fn got(wire: Wire, id: &str) -> Result<Event, Status> {
    let question = GetEventRequest { id: id.to_owned(), account: String::new() };
    Ok(EventServiceClient::new(wire).get_event(question).await?.into_inner().event.unwrap())
}

/// The event of this type about an object, once it has arrived.
async fn about(rig: &Rig, object_id: &str, kind: &str) -> Event {
    let filter = EventFilter { object_id: object_id.to_owned(), ..Default::default() };
    until(async || listed(rig.wire(), filter.clone()).await.into_iter().find(|event| event.r#type == kind))
        .await
}

fn order(order_id: &str) -> EventFilter {
    EventFilter { order_id: order_id.to_owned(), ..Default::default() }
}

fn whose(cause: CauseFilter) -> EventFilter {
    EventFilter { cause: cause.into(), ..Default::default() }
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

fn typed(object: Option<StripeObject>) -> Object {
    object.unwrap().object.unwrap()
}

#[tokio::test]
async fn an_event_leads_back_to_its_call_for_those_who_may_know() {
    let rig = Rig::start_with(neighbourly).await;
    let payment = rig.payment(1000).await;
    let refund = refund(&rig, &payment, "1001").await;
    let event = about(&rig, &refund.id, "refund.created").await;

    let call = CausingCall {
        order_id: "1001".into(),
        operation_id: "one".into(),
        rpc: "RefundService/CreateRefund".into(),
        caller: "rig".into(),
        trace_id: event.cause.clone().unwrap().call.unwrap().trace_id,
    };
    let whole = Cause { kind: CauseKind::ThisGateway.into(), call: Some(call.clone()), origin: Some(call) };
    assert_eq!(event.cause, Some(whole.clone()));
    let Object::Refund(shown) = typed(event.object.clone()) else { panic!("{event:?}") };
    assert_eq!(
        (shown.id.as_str(), shown.amount, event.api_version_differs),
        (refund.id.as_str(), 100, false)
    );

    // The neighbour is told that somebody did it here, and not who. An operator may know.
    let told = got(neighbour(&rig), &event.id).await.unwrap();
    assert_eq!(told.cause, Some(Cause { kind: CauseKind::ThisGateway.into(), ..Cause::default() }));
    assert_eq!(got(rig.operator(), &event.id).await.unwrap().cause, Some(whole.clone()));

    // Nor does it find out by asking.
    for filter in [order("1001"), whose(CauseFilter::Mine)] {
        assert!(ids(&listed(rig.wire(), filter.clone()).await).contains(&event.id.as_str()), "{filter:?}");
        assert!(listed(neighbour(&rig), filter).await.is_empty());
    }
    assert!(ids(&listed(rig.operator(), order("1001")).await).contains(&event.id.as_str()));
    assert!(listed(rig.operator(), whose(CauseFilter::Mine)).await.is_empty());

    // A stream shows the same, whoever else reads it.
    for (wire, cause) in [(rig.wire(), whole), (neighbour(&rig), told.cause.unwrap())] {
        let request = SubscribeRequest {
            start: Some(Start::Earliest(true)),
            filter: Some(EventFilter { object_id: refund.id.clone(), ..Default::default() }),
            ..Default::default()
        };
        let mut stream = EventServiceClient::new(wire).subscribe(request).await.unwrap().into_inner();
        let first = timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap().item;
        let Some(subscribe_response::Item::Event(first)) = first else { panic!("{first:?}") };
        assert_eq!((first.id, first.cause), (event.id.clone(), Some(cause)));
    }
}

#[tokio::test]
async fn what_others_do_with_the_key_is_told_apart_and_counted() {
    let rig = Rig::start().await;
    let payment = rig.payment(1000).await;
    let refund = refund(&rig, &payment, "1001").await;
    let own = about(&rig, &refund.id, "refund.created").await;
    let foreign = about(&rig, &payment, "payment_intent.succeeded").await;
    assert_eq!(foreign.cause, Some(Cause { kind: CauseKind::Outside.into(), ..Cause::default() }));
    assert!(matches!(typed(foreign.object.clone()), Object::PaymentIntent(_)));

    let outside = listed(rig.wire(), whose(CauseFilter::Outside)).await;
    assert!(ids(&outside).contains(&foreign.id.as_str()) && !ids(&outside).contains(&own.id.as_str()));
    let counted = rig.sample("tollgate_events_outside_total", r#"tollgate_account="default""#).await.unwrap();
    assert_eq!(counted.to_string(), outside.len().to_string());
}

/// Delivers an event about a refund as Stripe would.
async fn deliver(rig: &Rig, id: &str, stamp: &str, request: &str) {
    let body = format!(
        r#"{{"id":"{id}","object":"event","type":"refund.failed","created":1,"livemode":false,"api_version":"2020-08-27",
            "data":{{"object":{{"id":"re_late","object":"refund","metadata":{{"tollgate_operation":"{stamp}"}}}}}},
            "request":{request}}}"#
    );
    let signature = sign(&SECRET.into(), rig.clock.wall().div_euclid(1_000), body.as_bytes());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/webhooks/stripe", rig.gateway.webhook);
    let sent = client.post(url).header("stripe-signature", signature).body(body).send().await.unwrap();
    assert_eq!(sent.status(), 200);
}

async fn known(rig: &Rig) -> Operation {
    let question = GetOperationRequest {
        operation: operation("1001", "one"),
        rpc: "RefundService/CreateRefund".to_owned(),
        account: String::new(),
    };
    let answer = OperationServiceClient::new(rig.wire()).get_operation(question).await.unwrap();
    answer.into_inner().operation.unwrap()
}

#[tokio::test]
async fn a_call_of_an_earlier_run_is_found_in_the_audit_log() {
    let rig = Rig::start().await;
    let payment = rig.payment(1000).await;
    refund(&rig, &payment, "1001").await;
    let Operation { idempotency_key, stamp, .. } = known(&rig).await;
    let rig = rig.restart().await;

    let by_key = format!(r#"{{"id":"req_1","idempotency_key":"{idempotency_key}"}}"#);
    let nobodys = format!("tg1-{}", "0".repeat(64));
    let by_other = format!(r#"{{"id":"req_2","idempotency_key":"{nobodys}"}}"#);
    for (id, stamp, request, kind, (has_call, has_origin)) in [
        ("evt_key", "", by_key.as_str(), CauseKind::ThisGateway, (true, false)),
        ("evt_stamp", stamp.as_str(), "null", CauseKind::Stripe, (false, true)),
        ("evt_both", stamp.as_str(), by_key.as_str(), CauseKind::ThisGateway, (true, true)),
        ("evt_other", &"0".repeat(64), by_other.as_str(), CauseKind::Outside, (false, false)),
    ] {
        deliver(&rig, id, stamp, request).await;
        let event = got(rig.wire(), id).await.unwrap();
        let cause = event.cause.clone().unwrap();
        assert_eq!(cause.kind(), kind, "{id}");
        assert_eq!((cause.call.is_some(), cause.origin.is_some()), (has_call, has_origin), "{id}");
        for call in [cause.call, cause.origin].into_iter().flatten() {
            assert_eq!((call.order_id.as_str(), call.caller.as_str()), ("1001", "rig"), "{id}");
            assert_eq!(call.rpc, "RefundService/CreateRefund", "{id}");
        }
        assert!(event.api_version_differs, "{id}");
    }
    let of_order = listed(rig.wire(), order("1001")).await;
    for id in ["evt_key", "evt_stamp", "evt_both"] {
        assert!(ids(&of_order).contains(&id), "{id}");
    }
    assert!(!ids(&of_order).contains(&"evt_other"));
}

async fn watch(wire: Wire, id: &str) -> Result<Streaming<WatchObjectResponse>, Status> {
    let request = WatchObjectRequest { id: id.to_owned(), account: String::new() };
    Ok(EventServiceClient::new(wire).watch_object(request).await?.into_inner())
}

async fn next(stream: &mut Streaming<WatchObjectResponse>) -> Watched {
    let message = timeout(PATIENCE, stream.message()).await.expect("something comes").unwrap();
    message.expect("a stream ends with a status only").item.unwrap()
}

#[tokio::test]
async fn a_watched_object_comes_as_it_is_and_then_its_events_alone() {
    let rig = Rig::start().await;
    let payment = rig.payment(1000).await;
    let refund = refund(&rig, &payment, "1001").await;
    about(&rig, &refund.id, "refund.created").await;
    let mut stream = watch(rig.wire(), &refund.id).await.unwrap();
    let Watched::Snapshot(snapshot) = next(&mut stream).await else { panic!("the snapshot comes first") };
    assert_eq!(typed(snapshot.object), Object::Refund(Box::new(refund.clone())));
    let json: serde_json::Value = serde_json::from_str(&snapshot.json).unwrap();
    assert_eq!(json["id"], *refund.id);
    assert!(snapshot.read.is_some() && !snapshot.cursor.is_empty());

    rig.payment(2000).await;
    rig.stripe(&format!("/v1/refunds/{}", refund.id), "metadata[shelf]=7").await;
    let event = loop {
        match next(&mut stream).await {
            Watched::Event(event) => break event,
            Watched::Checkpoint(_) | Watched::CaughtUp(_) => {}
            Watched::Snapshot(_) => panic!("one snapshot is enough"),
        }
    };
    assert_eq!((event.object_id.as_str(), event.r#type.as_str()), (refund.id.as_str(), "refund.updated"));
    let Object::Refund(changed) = typed(event.object) else { panic!("{}", event.json) };
    assert_eq!(changed.metadata.get("shelf").map(String::as_str), Some("7"));
}

#[tokio::test]
async fn what_cannot_be_read_cannot_be_watched() {
    let rig = Rig::start().await;
    let faulty = watch(rig.wire(), "evt_1").await.unwrap_err();
    assert_eq!(faulty.code(), Code::InvalidArgument);
    let fields = faulty.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields.iter().map(|field| field.field.as_str()).collect::<Vec<_>>(), ["id"]);
    assert_eq!(watch(rig.wire(), "re_none").await.unwrap_err().code(), Code::NotFound);

    // Whoever may not read the object does not see it here either.
    let blind = format!(
        "{POLICY}\n@id(\"blind\") forbid (principal == Caller::\"rig\", action == \
         Action::\"RefundService.GetRefund\", resource);"
    );
    let rig = Rig::start_with(|config| std::fs::write(&config.policy_files[0], blind).unwrap()).await;
    let denied = watch(rig.wire(), "re_none").await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(denied.get_details_error_info().unwrap().metadata["rule"], "blind");
}

#[tokio::test]
async fn the_command_line_lists_what_belongs_to_an_order() {
    let rig = Rig::start().await;
    let payment = rig.payment(1000).await;
    let refund = refund(&rig, &payment, "1001").await;
    let event = about(&rig, &refund.id, "refund.created").await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["events", "list", "--order-id", "1001", "--types", "refund.*", "-o", "jsonl"]);
    command.env("TOLLGATE_ADDRESS", rig.gateway.grpc.to_string()).env("TOLLGATE_TOKEN", OPERATOR_TOKEN);
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(listed.iter().any(|listed| listed["id"] == *event.id), "{said}");
    assert!(listed.iter().all(|listed| listed["object_type"] == "refund"), "{said}");
}
