//! Traffic to Stripe: nobody starves another caller, the gateway keeps to the limits that it knows and to those that Stripe
//! names, what finds no turn is refused before anything is written down, the same read under way is one request, and the
//! same change outlives the caller that it came from first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tollgate::config::{Budget, BudgetWindow, CallerConfig, Config};
use tollgate::proto::v1::admin_service_client::AdminServiceClient;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::payment_intent_service_client::PaymentIntentServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::settle_operation_request::Ruling;
use tollgate::proto::v1::{
    CreateCustomerRequest, CreateRefundRequest, GetOperationRequest, GetPaymentIntentRequest,
    GetRefundRequest, ListOperationsRequest, ResolveOperationRequest, SettleOperationRequest,
};
use tollgate::sandbox::Fault;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, Token, Wire, operation, sample, until};

const FLOOD_TOKEN: &str = "token-of-the-flooding-caller";
/// Calls that the flooding caller has open at once.
const FLOOD_CALLS: usize = 60;
/// How long it leaves it after a refusal.
const PAUSE: Duration = Duration::from_millis(20);

/// An account that lets so much through, and a caller `flood` beside the rig's.
fn narrow(requests_per_s: u32) -> impl FnOnce(&mut Config) {
    move |config| {
        config.traffic.requests_per_s = Some(requests_per_s);
        let flood = CallerConfig {
            name: "flood".into(),
            namespace: "flood".into(),
            tokens: vec![FLOOD_TOKEN.into()],
            ..config.callers[0].clone()
        };
        config.callers.push(flood);
    }
}

fn flood(rig: &Rig) -> Wire {
    InterceptedService::new(rig.channel(), Token(FLOOD_TOKEN))
}

/// Reads what does not exist, which Stripe is asked for all the same.
async fn read(wire: Wire, id: String, within: Duration) -> Result<(), Status> {
    let mut request = Request::new(GetRefundRequest { id, ..Default::default() });
    request.set_timeout(within);
    match RefundServiceClient::new(wire).get_refund(request).await {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(status),
        Ok(answer) => panic!("{answer:?}"),
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn a_caller_that_floods_leaves_another_its_turns() {
    let rig = Rig::start_with(narrow(25)).await;
    let (over, answered, refused) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut flooding = JoinSet::new();
    for number in 0..FLOOD_CALLS {
        let (wire, over) = (flood(&rig), Arc::clone(&over));
        let (answered, refused) = (Arc::clone(&answered), Arc::clone(&refused));
        flooding.spawn(async move {
            for turn in 0.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                match read(wire.clone(), format!("re_{number}x{turn}"), Duration::from_secs(2)).await {
                    Ok(()) => answered.fetch_add(1, Ordering::SeqCst),
                    Err(status) if reason(&status) == "STRIPE_CROWDED" => {
                        // Refusals come at once: without a pause they would take the processor from all others.
                        sleep(PAUSE).await;
                        refused.fetch_add(1, Ordering::SeqCst)
                    }
                    // The wait for a turn and the caller's deadline end together, and either end may see it first.
                    Err(status) if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => 0,
                    Err(status) => panic!("{status:?}"),
                };
            }
        });
    }
    until(async || (refused.load(Ordering::SeqCst) > 0).then_some(())).await;
    let before = answered.load(Ordering::SeqCst);
    for number in 0..10 {
        read(rig.wire(), format!("re_quiet{number}"), Duration::from_secs(5)).await.unwrap();
    }
    let meanwhile = answered.load(Ordering::SeqCst) - before;
    over.store(true, Ordering::SeqCst);
    flooding.join_all().await;
    // One behind the other, each of the ten calls would have had dozens before it.
    assert!(meanwhile <= 60, "{meanwhile}");
    let metrics = rig.metrics().await;
    assert!(!metrics.contains("http_response_status_code=\"429\""), "{metrics}");
    assert!(sample(&metrics, "tollgate_stripe_queue_refusals_total", "") > Some(0.0), "{metrics}");
    assert!(sample(&metrics, "tollgate_stripe_queue_wait_seconds_sum", "") > Some(0.0), "{metrics}");
}

#[tokio::test]
async fn a_change_that_finds_no_turn_is_not_on_record_and_goes_through_later() {
    let rig = Rig::start_with(narrow(1)).await;
    let waiting: Vec<_> = (0..6)
        .map(|number| tokio::spawn(read(flood(&rig), format!("re_{number}"), Duration::from_secs(8))))
        .collect();
    let crowded = async || (rig.sample("tollgate_stripe_queue_waiting", "").await >= Some(4.0)).then_some(());
    until(crowded).await;
    let mut customers = CustomerServiceClient::new(rig.wire());
    // One whose turn happens to be next is carried out; right behind it there is none for a second.
    let mut number = 0;
    let (request, status) = until(async || {
        number += 1;
        let request = CreateCustomerRequest {
            operation: operation("crowded", &number.to_string()),
            name: Some("A Customer".to_owned()),
            ..Default::default()
        };
        let mut hasty = Request::new(request.clone());
        hasty.set_timeout(Duration::from_millis(500));
        // On a slow machine its deadline may pass before it is looked at.
        let refused = customers.create_customer(hasty).await.err();
        refused.filter(|status| status.code() != Code::DeadlineExceeded).map(|status| (request, status))
    })
    .await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "STRIPE_CROWDED"));
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.domain.as_str(), info.metadata["why"].as_str()), ("tollgate", "deadline"));
    let pause = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    assert_eq!(pushback, pause.as_millis().to_string());
    let question = GetOperationRequest {
        operation: request.operation.clone(),
        rpc: "CustomerService/CreateCustomer".into(),
        account: String::new(),
    };
    let unknown = OperationServiceClient::new(rig.wire()).get_operation(question).await.unwrap_err();
    assert_eq!(reason(&unknown), "OPERATION_NOT_FOUND");
    waiting.into_iter().for_each(|read| read.abort());
    let made = customers.create_customer(request.clone()).await.unwrap().into_inner();
    let again = customers.create_customer(request).await.unwrap().into_inner();
    assert_eq!(made.customer.unwrap().id, again.customer.unwrap().id);
}

/// Makes a refund while many reads of `wire` wait, most of which have to wait still when it is made.
async fn refund_amid_reads(rig: &Rig, wire: Wire, amount: Option<i64>) {
    let payment = rig.payment(2000).await;
    let waiting: Vec<_> = (0..30)
        .map(|number| tokio::spawn(read(wire.clone(), format!("re_{number}"), Duration::from_secs(60))))
        .collect();
    let crowded =
        async || (rig.sample("tollgate_stripe_queue_waiting", "").await >= Some(15.0)).then_some(());
    until(crowded).await;
    let request = CreateRefundRequest {
        operation: operation("urgent", ""),
        payment_intent: Some(payment),
        amount,
        ..Default::default()
    };
    RefundServiceClient::new(rig.wire()).create_refund(request).await.unwrap();
    assert!(waiting.iter().filter(|read| !read.is_finished()).count() >= 10);
    waiting.into_iter().for_each(|read| read.abort());
}

#[tokio::test]
async fn a_refund_does_not_wait_behind_reads() {
    let rig = Rig::start_with(narrow(4)).await;
    refund_amid_reads(&rig, flood(&rig), Some(100)).await;
}

/// Method: a budget needs the amount, which the refund leaves out; the reads are of the same caller.
#[tokio::test]
async fn nor_does_what_has_to_be_read_for_it() {
    let budget = Budget {
        name: "daily".to_owned(),
        callers: vec!["rig".to_owned()],
        groups: Vec::new(),
        rpcs: Vec::new(),
        currency: "usd".to_owned(),
        window: BudgetWindow::RollingDay,
        amount: 5_000,
    };
    let adjust = |config: &mut Config| {
        narrow(4)(config);
        config.budgets = vec![budget];
    };
    let rig = Rig::start_with(adjust).await;
    refund_amid_reads(&rig, rig.wire(), None).await;
}

/// A customer to be made within so long, in a task of its own.
fn customer(rig: &Rig, id: &str, within: Duration) -> JoinHandle<Result<String, Status>> {
    let mut customers = CustomerServiceClient::new(rig.wire());
    let mut request =
        Request::new(CreateCustomerRequest { operation: operation("follow", id), ..Default::default() });
    request.set_timeout(within);
    tokio::spawn(async move {
        let made = customers.create_customer(request).await?;
        Ok(made.into_inner().customer.unwrap().id)
    })
}

/// Method: Stripe takes one request at a time, and the first takes long.
#[tokio::test]
async fn who_follows_a_change_that_gives_up_in_the_queue_makes_it() {
    let rig = Rig::start_with(|config| config.traffic.requests_at_once_max = 1).await;
    let shows = async |name: &str, more: f64| {
        until(async || (rig.sample(name, "").await > Some(more)).then_some(())).await;
    };
    for (id, within) in [("leaves", 30), ("late", 1)] {
        rig.control().add_fault(Fault::parse("latency:POST:/v1/customers:ms=3000,times=1").unwrap());
        let first = customer(&rig, &format!("before-{id}"), Duration::from_secs(30));
        shows("tollgate_stripe_in_flight", 0.5).await;
        let leader = customer(&rig, id, Duration::from_secs(within));
        shows("tollgate_stripe_queue_waiting", 0.5).await;
        let follower = customer(&rig, id, Duration::from_secs(30));
        shows("tollgate_calls_in_flight", 2.5).await;
        if id == "leaves" {
            leader.abort();
        } else {
            leader.await.unwrap().unwrap_err();
        }
        let made = follower.await.unwrap().unwrap();
        assert_ne!(made, first.await.unwrap().unwrap());
        assert_eq!(made, customer(&rig, id, Duration::from_secs(30)).await.unwrap().unwrap());
    }
    assert_eq!(rig.control().book()["effects"].as_array().unwrap().len(), 4, "each change has one effect");
}

#[tokio::test]
async fn a_limit_that_stripe_names_is_kept_to_from_then_on() {
    let rig = Rig::start_with(narrow(100)).await;
    let limit = async || rig.sample("tollgate_stripe_limit", "").await.unwrap();
    assert!((limit().await - 100.0).abs() < 0.01);
    let fault = "status:GET:/v1/refunds:status=429,rate_limited_reason=global-rate,times=1";
    rig.control().add_fault(Fault::parse(fault).unwrap());
    read(rig.wire(), "re_1".to_owned(), Duration::from_secs(10)).await.unwrap();
    let lowered = limit().await;
    assert!((70.0..90.0).contains(&lowered), "{lowered}");
}

#[tokio::test]
async fn identical_reads_under_way_are_one_request_and_each_is_on_record() {
    let rig = Rig::start().await;
    let payment = rig.payment(2000).await;
    let mut refunds = RefundServiceClient::new(rig.wire());
    let request = CreateRefundRequest {
        operation: operation("shared", ""),
        payment_intent: Some(payment),
        amount: Some(100),
        ..Default::default()
    };
    let refund = refunds.create_refund(request).await.unwrap().into_inner().refund.unwrap();
    // Events of the refund would have reads made anew.
    rig.control().set_webhooks(Vec::new());
    rig.control().add_fault(Fault::parse("latency_after:GET:/v1/refunds:ms=2000,times=1").unwrap());
    let before = rig.control().received();
    let mut reads = JoinSet::new();
    for _ in 0..10 {
        let (mut refunds, id) = (refunds.clone(), refund.id.clone());
        reads.spawn(async move {
            let read = refunds.get_refund(GetRefundRequest { id, ..Default::default() }).await;
            read.unwrap().into_inner().call.unwrap()
        });
    }
    let calls = reads.join_all().await;
    assert_eq!(rig.control().received() - before, 1);
    let mut ids: Vec<_> = calls.iter().map(|call| call.audit_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10);
    assert!(calls.iter().all(|call| call.stripe_request_id == calls[0].stripe_request_id));
    assert_eq!(rig.sample("tollgate_stripe_reads_shared_total", "").await, Some(9.0));
}

/// Method: a read from before is under way, whose answer takes long.
#[tokio::test]
async fn who_hears_what_came_of_a_change_and_reads_gets_no_answer_from_before() {
    let rig = Rig::start().await;
    rig.control().set_webhooks(Vec::new());
    let payment = rig.payment(2000).await;
    let read = || {
        let mut payments = PaymentIntentServiceClient::new(rig.wire());
        let request = GetPaymentIntentRequest { id: payment.clone(), ..Default::default() };
        tokio::spawn(async move { payments.get_payment_intent(request).await.unwrap() })
    };
    let mut admin = AdminServiceClient::new(rig.operator());
    for (way, kind) in [("look", "drop_after"), ("operator", "drop_before")] {
        rig.control().add_fault(Fault::parse(&format!("{kind}:POST:/v1/refunds:times=1000")).unwrap());
        let request = CreateRefundRequest {
            operation: operation("unknown", way),
            payment_intent: Some(payment.clone()),
            amount: Some(100),
            ..Default::default()
        };
        RefundServiceClient::new(rig.wire()).create_refund(request).await.unwrap_err();
        rig.control().clear_faults();
        let listed = admin.list_operations(ListOperationsRequest::default()).await.unwrap().into_inner();
        let id = listed.operations[0].id.clone();
        let by_hand = rig.stripe("/v1/refunds", &format!("payment_intent={payment}&amount=100")).await;
        if way == "operator" {
            // A person has to wait for five minutes, and after one the background looks by itself.
            let received = rig.control().received();
            rig.clock.advance(Duration::from_secs(6 * 60));
            until(async || (rig.control().received() > received).then_some(())).await;
        }
        let latency = "latency_after:GET:/v1/payment_intents:ms=3000,times=1";
        rig.control().add_fault(Fault::parse(latency).unwrap());
        let received = rig.control().received();
        let before = read();
        until(async || (rig.control().received() > received).then_some(())).await;
        if way == "look" {
            admin.resolve_operation(ResolveOperationRequest { id }).await.unwrap();
        } else {
            let ruling = Some(Ruling::Executed(by_hand["id"].as_str().unwrap().to_owned()));
            let reason = "made by hand".to_owned();
            admin.settle_operation(SettleOperationRequest { id, ruling, reason }).await.unwrap();
        }
        read().await.unwrap();
        assert!(!before.is_finished(), "{way}");
        before.await.unwrap();
    }
    assert_eq!(rig.sample("tollgate_stripe_reads_shared_total", "").await.unwrap_or_default(), 0.0);
}
