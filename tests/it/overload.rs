//! More calls than the gateway takes: who is refused, how, and who is not.

use std::time::Duration;

use tokio::task::JoinHandle;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::{CreateCustomerRequest, CreateCustomerResponse};
use tollgate::sandbox::Fault;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, Wire, operation, until};

/// Places of the gateway; a caller alone gets four fifths of them.
const PLACES: usize = 20;
const OF_ONE: usize = 16;

/// How late the answers are that calls wait for: long enough to look around meanwhile.
const LATE_MS: u32 = 5_000;

type Call = JoinHandle<Result<Response<CreateCustomerResponse>, Status>>;

fn create(wire: Wire, number: usize) -> Call {
    let operation = operation("overload", &number.to_string());
    let request = CreateCustomerRequest { operation, ..Default::default() };
    tokio::spawn(async move { CustomerServiceClient::new(wire).create_customer(request).await })
}

fn customers_made(rig: &Rig) -> usize {
    rig.control().book()["effects"].as_array().unwrap().len()
}

/// A gateway with few places, of which one caller has all that it may have, by calls that Stripe answers so late.
async fn crowded(late_ms: u32) -> (Rig, Vec<Call>) {
    let rig = Rig::start_with(|config| config.listen.calls_in_flight_max = PLACES).await;
    let late = format!("latency:POST:/v1/customers:ms={late_ms},times={OF_ONE}");
    rig.control().add_fault(Fault::parse(&late).unwrap());
    let calls: Vec<Call> = (0..OF_ONE).map(|number| create(rig.wire(), number)).collect();
    until(async || (rig.sample("tollgate_calls_in_flight", "").await == Some(16.0)).then_some(())).await;
    (rig, calls)
}

#[tokio::test]
async fn a_call_beyond_the_places_is_refused_with_when_to_come_back() {
    let (rig, calls) = crowded(LATE_MS).await;
    let status = create(rig.wire(), OF_ONE).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("OVERLOADED", "tollgate"));
    assert_eq!(info.metadata["limit"], "listen.calls_in_flight_max");
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
    assert!((Duration::from_millis(500)..=Duration::from_millis(1500)).contains(&after), "{after:?}");
    let pushback: u128 =
        status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(pushback, after.as_millis());
    assert_eq!(rig.sample("tollgate_calls_shed_total", "tollgate_reason=\"share\"").await, Some(1.0));

    for call in calls {
        call.await.unwrap().unwrap();
    }
    create(rig.wire(), OF_ONE).await.unwrap().unwrap();
    assert_eq!(customers_made(&rig), OF_ONE + 1, "what was refused was not done, and could be sent again");
}

#[tokio::test]
async fn a_caller_who_takes_what_it_can_leaves_room_for_another_and_for_health() {
    let (rig, calls) = crowded(LATE_MS).await;
    create(rig.operator(), OF_ONE).await.unwrap().unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(rig.channel());
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_leaves_gives_its_place_back() {
    // Longer than anybody here waits, so that no place is free because its call has ended.
    let (rig, calls) = crowded(60_000).await;
    for call in calls {
        call.abort();
    }
    until(async || (rig.sample("tollgate_calls_in_flight", "").await == Some(0.0)).then_some(())).await;
}
