//! Stripe in trouble of every kind, one after the other, while callers go on: slow, failing now and then, cutting
//! connections off, gone, and back. Nothing is lost or made twice, and the gateway adds little to the trouble.

mod bounded;
mod proxy;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{
    CreateCustomerRequest, CreateRefundRequest, GetOperationRequest, GetRefundRequest, OperationState,
};
use tollgate::sandbox::Fault;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use self::proxy::Proxy;
use crate::rig::{Rig, Wire, operation, until};

/// Callers, each of which makes one change after the other.
const CALLERS: usize = 20;
/// Resends that the budget allows before calls have paid for any.
const RESERVE: f64 = 10.0;
/// How long a caller waits for an answer, and at most before it sends again.
const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// After this time, the operations that are unresolved are gone through once more.
const SCAN: Duration = Duration::from_secs(31);

/// Changes that callers have made so far, and whether to make more.
#[derive(Default)]
struct Work {
    made: AtomicUsize,
    is_over: AtomicBool,
}

/// A gateway whose way to its Stripe can be cut.
async fn rig() -> (Rig, Proxy) {
    let rig = Rig::start().await;
    let proxy = Proxy::before(rig.stripe_address()).await;
    let api_base = format!("http://{}", proxy.address);
    let adjust = |config: &mut tollgate::config::Config| {
        config.stripe.api_base = api_base;
        config.stripe.attempt_timeout = Duration::from_secs(2);
    };
    (rig.restart_with(adjust).await, proxy)
}

/// Makes changes until the work is over, sending each again until it is made.
async fn calls(wire: Wire, caller: usize, work: Arc<Work>) {
    let mut customers = CustomerServiceClient::new(wire);
    for number in 0.. {
        if work.is_over.load(Ordering::SeqCst) {
            break;
        }
        let operation = operation("outage", &format!("{caller}-{number}"));
        loop {
            let mut request =
                Request::new(CreateCustomerRequest { operation: operation.clone(), ..Default::default() });
            request.set_timeout(PATIENCE);
            let Err(status) = customers.create_customer(request).await else { break };
            let is_trouble = [Code::Unavailable, Code::DeadlineExceeded, Code::Aborted, Code::Cancelled]
                .contains(&status.code());
            assert!(is_trouble, "{status:?}");
            tokio::time::sleep(pause(&status).min(PAUSE_MAX)).await;
        }
        work.made.fetch_add(1, Ordering::SeqCst);
    }
}

fn pause(status: &Status) -> Duration {
    status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or(PAUSE_MAX)
}

async fn breaker_is(rig: &Rig, state: &str) -> bool {
    let labels = format!("tollgate_account=\"default\",tollgate_host=\"api\",tollgate_state=\"{state}\"");
    rig.sample("tollgate_stripe_breaker", &labels).await > Some(0.5)
}

/// How many attempts at Stripe were the first of their call, and how many repeated one.
async fn attempts(rig: &Rig) -> (f64, f64) {
    let resends = rig.sample("tollgate_stripe_resends_total", "").await.unwrap_or_default();
    let all = rig.sample("http_client_request_duration_seconds_count", "").await.unwrap_or_default();
    (all - resends, resends)
}

#[tokio::test]
async fn through_slowness_failures_resets_and_an_outage_nothing_is_lost_or_made_twice() {
    let (rig, mut proxy) = rig().await;
    let work = Arc::new(Work::default());
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(calls(rig.wire(), caller, Arc::clone(&work)));
    }
    let more = async |number: usize| {
        let until_made = work.made.load(Ordering::SeqCst) + number;
        until(async || (work.made.load(Ordering::SeqCst) >= until_made).then_some(())).await;
    };
    for (fault, enough) in [
        ("latency:POST:/v1/customers:ms=1000", 2 * CALLERS),
        ("status:POST:/v1/customers:status=500,probability=0.2", 200),
        ("reset:POST:/v1/customers:probability=0.5", 100),
    ] {
        rig.control().add_fault(Fault::parse(fault).unwrap());
        more(enough).await;
        rig.control().clear_faults();
    }
    proxy.cut().await;
    until(async || breaker_is(&rig, "open").await.then_some(())).await;
    let refusals =
        async || rig.sample("tollgate_stripe_breaker_refusals_total", "").await.unwrap_or_default();
    let enough = refusals().await + 100.0;
    until(async || (refusals().await > enough).then_some(())).await;
    proxy.mend().await;
    more(2 * CALLERS).await;
    work.is_over.store(true, Ordering::SeqCst);
    callers.join_all().await;

    assert!(breaker_is(&rig, "closed").await);
    let (firsts, resends) = attempts(&rig).await;
    assert!(resends <= 0.2 * firsts + RESERVE, "{resends} resends of {firsts} attempts");
    let made = work.made.load(Ordering::SeqCst);
    let book = rig.control().book();
    let effects = book["effects"].as_array().unwrap();
    let operations: HashSet<_> = effects.iter().map(|effect| effect["operation"].as_str().unwrap()).collect();
    assert_eq!((effects.len(), operations.len()), (made, made), "each change has one effect");
}

#[tokio::test]
async fn while_stripe_is_gone_calls_are_refused_at_once_and_told_when_to_come_back() {
    let (rig, mut proxy) = rig().await;
    proxy.cut().await;
    let mut customers = CustomerServiceClient::new(rig.wire());
    let mut create = async || {
        let operation = operation("outage", "gone");
        let mut request = Request::new(CreateCustomerRequest { operation, ..Default::default() });
        request.set_timeout(Duration::from_secs(1));
        customers.create_customer(request).await
    };
    let status = until(async || {
        let status = create().await.unwrap_err();
        let info = status.get_details_error_info();
        // A deadline that passes first is told without a trouble.
        let trouble = info.and_then(|mut info| info.metadata.remove("trouble"));
        trouble.is_some_and(|trouble| trouble == "breaker_open").then_some(status)
    })
    .await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.get_details_error_info().unwrap().reason, "STRIPE_UNREACHABLE");
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
    assert!(after > Duration::ZERO && after <= Duration::from_secs(10), "{after:?}");
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
    proxy.mend().await;
    until(async || create().await.ok()).await;
    assert!(breaker_is(&rig, "closed").await);
    assert_eq!(rig.control().book()["effects"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_could_not_be_looked_up_while_stripe_was_gone_is_found_out_when_it_is_back() {
    let (rig, mut proxy) = rig().await;
    rig.control().set_webhooks(Vec::new());
    let payment = rig.payment(2000).await;
    rig.control().add_fault(Fault::parse("drop_after:POST:/v1/refunds:times=1000").unwrap());
    let mut refunds = RefundServiceClient::new(rig.wire());
    let request = CreateRefundRequest {
        operation: operation("outage", "unknown"),
        payment_intent: Some(payment),
        amount: Some(100),
        ..Default::default()
    };
    let status = refunds.create_refund(request).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "OUTCOME_UNKNOWN");
    rig.control().clear_faults();
    let state = async || {
        let question = GetOperationRequest {
            operation: operation("outage", "unknown"),
            rpc: "RefundService/CreateRefund".to_owned(),
            account: String::new(),
        };
        let answer = OperationServiceClient::new(rig.wire()).get_operation(question).await.unwrap();
        answer.into_inner().operation.unwrap().state()
    };

    proxy.cut().await;
    until(async || {
        refunds.get_refund(GetRefundRequest { id: "re_1".into(), ..Default::default() }).await.unwrap_err();
        breaker_is(&rig, "open").await.then_some(())
    })
    .await;
    let tried = async || {
        let refused = rig.sample("tollgate_stripe_breaker_refusals_total", "").await.unwrap_or_default();
        refused + rig.sample("http_client_request_duration_seconds_count", "").await.unwrap_or_default()
    };
    let week = Duration::from_secs(8 * 24 * 3600);
    for pause in [week, SCAN, SCAN] {
        let before = tried().await;
        rig.clock.advance(pause);
        until(async || (tried().await > before).then_some(())).await;
    }
    assert_eq!(state().await, OperationState::Unknown, "nobody asked Stripe");
    proxy.mend().await;
    until(async || {
        // Not so fast that the resolver has to tidy up all the time.
        rig.clock.advance(Duration::from_millis(500));
        (state().await == OperationState::Succeeded).then_some(())
    })
    .await;
    assert_eq!(rig.refunds_made(), 1);
}

/// Method: Stripe takes one request at a time, so that the second change waits for the first.
#[tokio::test]
async fn a_caller_that_leaves_takes_back_what_was_not_sent_yet() {
    let rig = Rig::start_with(|config| config.traffic.requests_at_once_max = 1).await;
    rig.control().add_fault(Fault::parse("latency:POST:/v1/customers:ms=5000,times=1").unwrap());
    let create = |id: &'static str| {
        let mut customers = CustomerServiceClient::new(rig.wire());
        let request = CreateCustomerRequest { operation: operation("left", id), ..Default::default() };
        tokio::spawn(async move { customers.create_customer(request).await })
    };
    let first = create("first");
    until(async || (rig.sample("tollgate_stripe_in_flight", "").await > Some(0.5)).then_some(())).await;
    let second = create("second");
    until(async || (rig.sample("tollgate_stripe_queue_waiting", "").await > Some(0.5)).then_some(())).await;
    second.abort();
    until(async || (rig.sample("tollgate_calls_in_flight", "").await < Some(1.5)).then_some(())).await;
    first.await.unwrap().unwrap();
    create("third").await.unwrap().unwrap();
    let operations = rig.control().book()["effects"].as_array().unwrap().len();
    assert_eq!(operations, 2, "the second was not sent");
}
