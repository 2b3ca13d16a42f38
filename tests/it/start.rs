//! A gateway that starts: what operators see meanwhile, and what does not hold it up.

#[path = "../../benches/start/left.rs"]
#[expect(dead_code, reason = "the benchmark uses more of it")]
mod left;

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate::domain::clock::{Clock, ManualClock, SystemClock};
use tollgate::sandbox::Fault;
use tollgate::server;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::rig::{config, connect, sample, sandbox, until};

/// Operations that an earlier gateway left open; more than a page of them.
const OPEN: usize = 1_000;

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(SystemClock::new().wall()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_is_alive_and_not_ready_yet() {
    let data = TempDir::new().unwrap();
    // A Stripe that takes connections and says nothing holds up the first start.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(silent.local_addr().unwrap(), &data);
    config.listen.ops = free.local_addr().unwrap();
    let ops = config.listen.ops;
    drop(free);
    let starts = tokio::spawn(server::start(config, clock()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |path: &str| {
        let answer = client.get(format!("http://{ops}{path}")).send().await;
        answer.ok().map(|answer| answer.status().as_u16())
    };
    until(async || (ask("/livez").await == Some(200)).then_some(())).await;
    assert_eq!(ask("/readyz").await, Some(503));
    assert!(!starts.is_finished());
    starts.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_serves_before_it_has_looked_into_what_was_left_open() {
    let (data, clock) = (TempDir::new().unwrap(), clock());
    let stripe = sandbox(Arc::clone(&clock)).await;
    left::open(&data.path().join("data"), OPEN, clock.as_ref()).await;
    // Whoever waited for one of them would wait for long.
    let late = Fault::parse("latency:GET:/v1/refunds:ms=60000").unwrap();
    stripe.control().add_fault(late);
    stripe.control().add_fault(Fault::parse("latency:POST:/v1/refunds:ms=60000").unwrap());
    let mut settings = config(stripe.address(), &data);
    settings.listen.grace = Duration::from_secs(1);
    let gateway = server::start(settings, clock).await.unwrap();
    let request = HealthCheckRequest { service: String::new() };
    let health = HealthClient::new(connect(gateway.grpc).await).check(request).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let metrics = client.get(format!("http://{}/metrics", gateway.ops)).send().await.unwrap();
    let unknown = "tollgate_state=\"unknown\"";
    let open = sample(&metrics.text().await.unwrap(), "tollgate_ledger_unresolved", unknown).unwrap();
    assert_eq!(open.to_string(), OPEN.to_string());
    gateway.stop().await;
    stripe.stop().await;
}
