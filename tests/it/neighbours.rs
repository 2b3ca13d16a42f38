//! Two callers who may both call: neither is shown what belongs to the other, whatever it has got hold of — an order, a
//! record's name, a place in a list, a cursor.

use tollgate::config::{AccountConfig, Budget, BudgetWindow, CallerConfig, Config};
use tollgate::domain::account::AccountHeader;
use tollgate::domain::operation::Mode;
use tollgate::proto::v1::audit_service_client::AuditServiceClient;
use tollgate::proto::v1::budget_service_client::BudgetServiceClient;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::subscribe_request::Start;
use tollgate::proto::v1::subscribe_response::Item;
use tollgate::proto::v1::{
    BudgetUse, CreateRefundRequest, CreateRefundResponse, Event, GetAuditRecordRequest, GetOperationRequest,
    ListBudgetsRequest, ListEventsRequest, Operation, SearchAuditRecordsRequest, SubscribeRequest,
    TraceRequest, TraceResponse,
};
use tollgate::sandbox::WebhookTarget;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Status};

use crate::rig::{EUROPE, EUROPE_KEY, Rig, Token, Wire, operation, until};

const NEIGHBOUR: &str = "token-of-the-neighbour";
const EUROPE_SECRET: &str = "whsec_of_the_other_account";

/// Both may call everything that is no operator's; the neighbour at one account, and it receives some events only.
const POLICY: &str = r#"
@id("callers")
permit (principal, action, resource) unless { action in Action::"admin" };
@id("operator")
permit (principal == Caller::"operator", action, resource);
@id("at-home")
forbid (principal == Caller::"neighbour", action, resource == Account::"eu");
@id("charges")
forbid (principal == Caller::"neighbour", action == Action::"EventService.ReceiveEvent", resource)
unless { context.event_type like "charge.*" };
"#;

fn settings(config: &mut Config) {
    std::fs::write(&config.policy_files[0], POLICY).unwrap();
    config.callers.push(CallerConfig {
        name: "neighbour".into(),
        namespace: "neighbour".into(),
        tokens: vec![NEIGHBOUR.into()],
        ..config.callers[0].clone()
    });
    config.accounts = vec![AccountConfig {
        alias: "eu".into(),
        mode: Mode::Test,
        keys: vec![EUROPE_KEY.into()],
        webhook_secrets: vec![EUROPE_SECRET.into()],
        header: AccountHeader::None,
    }];
    config.budgets = [("daily", BudgetWindow::RollingDay), ("order", BudgetWindow::Order)]
        .map(|(name, window)| Budget {
            name: name.into(),
            callers: vec!["rig".into(), "neighbour".into()],
            groups: Vec::new(),
            rpcs: Vec::new(),
            currency: "usd".into(),
            window,
            amount: 10_000,
        })
        .into();
}

fn neighbour(rig: &Rig) -> Wire {
    InterceptedService::new(rig.channel(), Token(NEIGHBOUR))
}

async fn refund(wire: Wire, payment: &str, order: &str, amount: i64) -> CreateRefundResponse {
    let request = CreateRefundRequest {
        operation: operation(order, ""),
        payment_intent: Some(payment.to_owned()),
        amount: Some(amount),
        ..Default::default()
    };
    RefundServiceClient::new(wire).create_refund(request).await.unwrap().into_inner()
}

async fn looked_up(wire: Wire, order: &str) -> Result<Operation, Status> {
    let request = GetOperationRequest {
        operation: operation(order, ""),
        rpc: "RefundService/CreateRefund".to_owned(),
        ..Default::default()
    };
    let answer = OperationServiceClient::new(wire).get_operation(request).await?;
    Ok(answer.into_inner().operation.unwrap())
}

async fn traced(wire: Wire, id: &str) -> Result<TraceResponse, Status> {
    let request = TraceRequest { id: id.to_owned() };
    Ok(AuditServiceClient::new(wire).trace(request).await?.into_inner())
}

async fn budgets(wire: Wire, caller: &str, order: &str) -> Result<Vec<BudgetUse>, Status> {
    let request =
        ListBudgetsRequest { caller: caller.to_owned(), order_id: order.to_owned(), ..Default::default() };
    Ok(BudgetServiceClient::new(wire).list_budgets(request).await?.into_inner().budgets)
}

/// The events of an account behind a cursor, up to the head of the log.
async fn events(wire: Wire, account: &str, start: Start) -> Result<Vec<Event>, Status> {
    let request = SubscribeRequest { account: account.to_owned(), start: Some(start), ..Default::default() };
    let mut stream = EventServiceClient::new(wire).subscribe(request).await?.into_inner();
    let mut events = Vec::new();
    while let Some(message) = stream.message().await? {
        match message.item {
            Some(Item::Event(event)) => events.push(event),
            Some(Item::CaughtUp(_)) => break,
            _ => {}
        }
    }
    Ok(events)
}

#[tokio::test]
async fn orders_records_and_budgets_of_another_caller_are_not_shown() {
    let rig = Rig::start_with(settings).await;
    let payment = rig.payment(5_000).await;
    // Both have an order of one name, and each has one that the other has not.
    let other = refund(rig.wire(), &payment, "1001", 700).await;
    let made = other.refund.unwrap().id;
    refund(rig.wire(), &payment, "1002", 30).await;
    refund(neighbour(&rig), &payment, "1001", 5).await;

    assert_eq!(looked_up(neighbour(&rig), "1002").await.unwrap_err().code(), Code::NotFound);
    let [own, others] = [neighbour(&rig), rig.wire()].map(|wire| looked_up(wire, "1001"));
    let (own, others) = (own.await.unwrap(), others.await.unwrap());
    assert_ne!((own.idempotency_key, own.object_id), (others.idempotency_key, others.object_id));

    // A record is there for the one and not for the other.
    let get = GetAuditRecordRequest { id: other.call.unwrap().audit_id };
    AuditServiceClient::new(rig.wire()).get_audit_record(get.clone()).await.unwrap();
    let mut audit = AuditServiceClient::new(neighbour(&rig));
    assert_eq!(audit.get_audit_record(get).await.unwrap_err().code(), Code::NotFound);

    // Another's place in the list leads to own records only, and its orders to none.
    let first = SearchAuditRecordsRequest { page_size: 1, ..Default::default() };
    let page = AuditServiceClient::new(rig.wire()).search_audit_records(first).await.unwrap().into_inner();
    assert_eq!(page.records[0].namespace, "rig");
    let next = SearchAuditRecordsRequest { page_token: page.next_page_token, ..Default::default() };
    let seen = audit.search_audit_records(next).await.unwrap().into_inner().records;
    assert!(!seen.is_empty() && seen.iter().all(|record| record.namespace == "neighbour"), "{seen:?}");
    for request in [
        SearchAuditRecordsRequest { order_id: "1002".into(), ..Default::default() },
        SearchAuditRecordsRequest { caller: "rig".into(), ..Default::default() },
        SearchAuditRecordsRequest { id: made.clone(), ..Default::default() },
    ] {
        let found = audit.search_audit_records(request.clone()).await.unwrap().into_inner().records;
        assert!(found.iter().all(|record| record.namespace == "neighbour"), "{request:?}: {found:?}");
    }

    // Stories have the neighbour's own records, whoever's object or order is asked for.
    assert!(traced(rig.wire(), "1002").await.unwrap().order_ids.contains(&"1002".to_owned()));
    for id in ["1001", payment.as_str(), made.as_str()] {
        // What nothing goes by that may be seen is not found, which is as good.
        let story = traced(neighbour(&rig), id).await.unwrap_or_default();
        assert!(story.records.iter().all(|record| record.namespace == "neighbour"), "{id}: {story:?}");
        assert!(!story.order_ids.contains(&"1002".to_owned()), "{id}: {story:?}");
    }
    // It asked for the order itself, in vain, which is all that there is to tell: none of the other's events.
    for id in ["1002", "order rig 1002"] {
        let story = traced(neighbour(&rig), id).await.unwrap_or_default();
        assert!(story.records.iter().all(|record| record.namespace == "neighbour"), "{id}: {story:?}");
        assert!(story.steps.iter().all(|step| step.event_id.is_empty()), "{id}: {story:?}");
    }

    for caller in ["rig", "-"] {
        let status = budgets(neighbour(&rig), caller, "").await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{caller}");
    }
    let used = async |wire, order| {
        let uses = budgets(wire, "", order).await.unwrap();
        uses.into_iter().map(|used| (used.budget, used.caller, used.used)).collect::<Vec<_>>()
    };
    let line = |budget: &str, caller: &str, used| (budget.to_owned(), caller.to_owned(), used);
    assert_eq!(used(neighbour(&rig), "1001").await, [line("daily", "neighbour", 5), line("order", "", 5)]);
    assert_eq!(used(neighbour(&rig), "1002").await, [line("daily", "neighbour", 5), line("order", "", 0)]);
    assert_eq!(used(rig.wire(), "1001").await, [line("daily", "rig", 730), line("order", "", 700)]);
}

#[tokio::test]
async fn a_cursor_of_another_caller_shows_nothing_that_the_policies_forbid() {
    let rig = Rig::start_with(settings).await;
    let url = format!("http://{}/webhooks/stripe/eu", rig.gateway.webhook);
    let target = WebhookTarget { url, secrets: vec![EUROPE_SECRET.to_owned()] };
    rig.control_of(EUROPE).set_webhooks(vec![target]);
    europe_pays(&rig).await;
    let seen = async |account: &str, count: usize| {
        until(async || {
            let seen = events(rig.wire(), account, Start::Earliest(true)).await.unwrap();
            (seen.iter().filter(|event| event.r#type == "charge.succeeded").count() == count).then_some(seen)
        })
        .await
    };
    let cursor = seen("eu", 1).await[0].cursor.clone();
    rig.payment(1_000).await;
    europe_pays(&rig).await;
    let (europe, home) = (seen("eu", 2).await, seen("", 1).await);
    assert!(europe.iter().all(|event| event.account == "eu"));
    assert!(home.iter().any(|event| !event.r#type.starts_with("charge.")), "nothing is hidden: {home:?}");

    let shown = events(neighbour(&rig), "", Start::AfterCursor(cursor.clone())).await.unwrap();
    assert!(!shown.is_empty());
    for event in &shown {
        assert!(event.account.is_empty() && event.r#type.starts_with("charge."), "{event:?}");
    }
    let status = events(neighbour(&rig), "eu", Start::AfterCursor(cursor)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);

    // Places in the lists of both accounts.
    for (account, code) in [("eu", Code::PermissionDenied), ("", Code::Ok)] {
        let first = ListEventsRequest { account: account.to_owned(), page_size: 1, ..Default::default() };
        let page = EventServiceClient::new(rig.wire()).list_events(first.clone()).await.unwrap().into_inner();
        let next = ListEventsRequest { page_token: page.next_page_token, page_size: 100, ..first };
        let mut lists = EventServiceClient::new(neighbour(&rig));
        let listed = lists.list_events(next.clone()).await;
        assert_eq!(listed.as_ref().map_or_else(Status::code, |_| Code::Ok), code, "{listed:?}");
        let listed = listed.map(|listed| listed.into_inner().events).unwrap_or_default();
        assert!(listed.iter().all(|event| event.r#type.starts_with("charge.")), "{listed:?}");
        let elsewhere = ListEventsRequest { account: String::new(), ..next };
        let moved = lists.list_events(elsewhere).await;
        assert!(account.is_empty() || moved.is_err_and(|status| status.code() == Code::InvalidArgument));
    }
}

/// A payment at the account `eu`, made without the gateway.
async fn europe_pays(rig: &Rig) {
    let form = "amount=1000&currency=usd&payment_method=pm_card_bypassPending&confirm=true\
                &automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never";
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{}/v1/payment_intents", rig.stripe_address()));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    assert!(request.bearer_auth(EUROPE_KEY).send().await.unwrap().status().is_success());
}
