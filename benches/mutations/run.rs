//! One run: a sandbox and a gateway of their own, callers that make customers through gRPC, and what was counted.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::{CreateCustomerRequest, OperationRef};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::report::Cell;
use crate::setup::{NO_TURNS, Setup, TOKEN, Wanted};

/// What the callers may do: rules of the kinds that a shop has, all of which are asked for each change.
const POLICY: &str = r#"
@id("the-benchmark-makes-customers")
permit (principal == Caller::"benchmark", action in Action::"CustomerService", resource == Account::"default");
@id("the-benchmark-refunds-up-to-500")
permit (principal == Caller::"benchmark", action == Action::"RefundService.CreateRefund", resource)
when { context.currency == "usd" && context.amount <= 50000 };
@id("orders-have-a-name-of-ours")
forbid (principal, action == Action::"CustomerService.CreateCustomer", resource) unless { context.order_id like "*-*" };
"#;
/// A budget that never runs out, so that one is kept for each change that moves money.
const BUDGET: &str = r#"
budgets.benchmark.callers = ["benchmark"]
budgets.benchmark.currency = "usd"
budgets.benchmark.window = "rolling_day"
budgets.benchmark.amount = 100000000
"#;
/// Callers that share one connection; a connection has a limit of open streams.
const CALLERS_PER_CONNECTION: usize = 64;
/// Changes of each caller before anything is counted.
const WARM_UP: usize = 20;

/// Has `callers` make changes for as long as `run`, with the gateway's data below `disk`.
pub(crate) async fn mutations(disk: &Path, callers: usize, run: Duration) -> Cell {
    let more = format!("{NO_TURNS}callers.benchmark.token = \"{TOKEN}\"\n{BUDGET}");
    let setup = Setup::start(disk, Wanted { more: &more, policy: POLICY }).await;
    let mut channels = Vec::new();
    for _ in 0..callers.div_ceil(CALLERS_PER_CONNECTION) {
        channels.push(setup.connect().await);
    }

    let all = |changes: Changes| {
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            tasks.spawn(caller_makes(channels[caller / CALLERS_PER_CONNECTION].clone(), caller, changes));
        }
        tasks.join_all()
    };
    all(Changes::Count(WARM_UP)).await;
    let (commits, started) = (setup.gateway.commits(), Instant::now());
    let mut latencies_us: Vec<u64> = all(Changes::Until(started + run)).await.concat();
    let (elapsed, commits) = (started.elapsed(), setup.gateway.commits() - commits);
    setup.stop().await;
    latencies_us.sort_unstable();
    Cell::new(&latencies_us, elapsed, commits)
}

/// How many changes a caller makes.
#[derive(Clone, Copy)]
enum Changes {
    Count(usize),
    Until(Instant),
}

/// Makes one customer after the other, and answers how long each took, in microseconds.
async fn caller_makes(channel: Channel, caller: usize, changes: Changes) -> Vec<u64> {
    let token = MetadataValue::try_from(format!("Bearer {TOKEN}")).unwrap();
    let mut customers =
        CustomerServiceClient::with_interceptor(channel, move |mut call: tonic::Request<()>| {
            call.metadata_mut().insert("authorization", token.clone());
            Ok(call)
        });
    let (phase, count) = match changes {
        Changes::Count(count) => ("warm-up", count),
        Changes::Until(_) => ("measured", usize::MAX),
    };
    let mut latencies_us = Vec::new();
    for change in 0..count {
        let started = Instant::now();
        if matches!(changes, Changes::Until(end) if started >= end) {
            break;
        }
        let operation =
            OperationRef { order_id: format!("{phase}-{caller}-{change}"), ..OperationRef::default() };
        let request = CreateCustomerRequest {
            operation: Some(operation),
            name: Some("A Customer".to_owned()),
            email: Some("a.customer@example.com".to_owned()),
            ..CreateCustomerRequest::default()
        };
        customers.create_customer(request).await.unwrap();
        latencies_us.push(u64::try_from(started.elapsed().as_micros()).unwrap());
    }
    latencies_us
}
