//! What waits while Stripe hangs is bounded: so many requests under way, so many that wait for their turn, and whoever comes
//! beyond them is refused at once and leaves nothing behind.

use std::time::Duration;

use tollgate::domain::limits::STRIPE_QUEUED_PER_CALLER_MAX;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::{CreateCustomerRequest, CreateCustomerResponse};
use tollgate::sandbox::Fault;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, TOKEN, Token, Wire, connect, operation, until};

/// Requests that Stripe takes at once, and changes that find neither a turn nor a place in the queue.
const AT_ONCE: usize = 4;
const BEYOND: usize = 46;
const CALLS: usize = AT_ONCE + STRIPE_QUEUED_PER_CALLER_MAX + BEYOND;
/// Connections that they come over; each has a limit of open calls.
const CONNECTIONS: usize = 4;

async fn create(wire: Wire, number: usize) -> Result<Response<CreateCustomerResponse>, Status> {
    let operation = operation("bounded", &number.to_string());
    CustomerServiceClient::new(wire)
        .create_customer(CreateCustomerRequest { operation, ..Default::default() })
        .await
}

#[tokio::test]
async fn while_stripe_hangs_no_more_waits_than_the_limits_allow() {
    let rig = Rig::start_with(|config| config.traffic.requests_at_once_max = 4).await;
    rig.control().add_fault(Fault::parse("latency:POST:/v1/customers:ms=5000,times=4").unwrap());
    let mut wires = Vec::new();
    for _ in 0..CONNECTIONS {
        wires.push(InterceptedService::new(connect(rig.gateway.grpc).await, Token(TOKEN)));
    }
    let calls: Vec<_> =
        (0..CALLS).map(|number| tokio::spawn(create(wires[number % CONNECTIONS].clone(), number))).collect();
    // Nobody beyond the limits waits for Stripe: they have their answer while all others are still without one.
    let ended = || calls.iter().filter(|call| call.is_finished()).count();
    until(async || (ended() >= BEYOND).then_some(())).await;
    let shown = async |metric: &str| rig.sample(metric, "").await.unwrap_or_default();
    let (at_stripe, waiting) =
        (shown("tollgate_stripe_in_flight").await, shown("tollgate_stripe_queue_waiting").await);
    let open = shown("tollgate_ledger_unresolved").await;
    assert_eq!(ended(), BEYOND);
    assert_eq!((at_stripe, waiting), (AT_ONCE as f64, STRIPE_QUEUED_PER_CALLER_MAX as f64));
    assert!(open <= (AT_ONCE + STRIPE_QUEUED_PER_CALLER_MAX) as f64, "{open} operations are open");

    let mut refused = Vec::new();
    for (number, call) in calls.into_iter().enumerate() {
        if let Err(status) = call.await.unwrap() {
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), info.reason.as_str()), (Code::ResourceExhausted, "STRIPE_CROWDED"));
            let after = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
            assert!(after > Duration::ZERO, "{after:?}");
            refused.push(number);
        }
    }
    let made = || rig.control().book()["effects"].as_array().unwrap().len();
    // On a slow machine some also wait for their turn longer than anybody may.
    assert!(refused.len() >= BEYOND, "{}", refused.len());
    assert_eq!(made(), CALLS - refused.len(), "what was refused was not sent");
    for number in refused {
        create(wires[0].clone(), number).await.unwrap();
    }
    assert_eq!(made(), CALLS);
}
