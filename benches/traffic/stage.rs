//! A sandbox that is as slow and as narrow as Stripe's test mode, a gateway in front of it, and callers that make
//! customers.

use std::path::Path;
use std::time::{Duration, Instant};

use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::{CreateCustomerRequest, OperationRef};
use tollgate::sandbox::Fault;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::metrics;
use crate::setup::{self, ALL, Setup, Wanted};

/// Requests a second that the sandbox lets through, as Stripe does in test mode (docs.stripe.com/rate-limits).
pub(crate) const REQUESTS_PER_S: u32 = 25;
/// How long Stripe takes for a request, in milliseconds.
pub(crate) const STRIPE_MS: u64 = 100;
/// How long a caller waits for its answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Connections of one caller; a connection has a limit of open streams.
const CONNECTIONS: usize = 4;

/// Everything that a round needs.
pub(crate) struct Stage {
    setup: Setup,
}

/// How one call ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    Refused,
    Late,
}

/// One caller's connections.
#[derive(Clone)]
pub(crate) struct Caller {
    channels: Vec<Channel>,
    token: MetadataValue<tonic::metadata::Ascii>,
    name: &'static str,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let sandbox = setup::sandbox(Some(REQUESTS_PER_S)).await;
        let more: String =
            ["quiet", "flood"].map(|name| format!("callers.{name}.token = \"{}\"\n", token(name))).concat();
        let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let setup = Setup::before(sandbox, disk, Wanted { more: &more, policy: ALL }).await;
        let slow = format!("latency:*:*:ms={STRIPE_MS}");
        setup.sandbox.control().add_fault(Fault::parse(&slow).unwrap());
        Self { setup }
    }

    pub(crate) async fn stop(self) {
        self.setup.stop().await;
    }

    pub(crate) async fn caller(&self, name: &'static str) -> Caller {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(self.setup.connect().await);
        }
        let token = MetadataValue::try_from(format!("Bearer {}", token(name))).unwrap();
        Caller { channels, token, name }
    }

    /// Requests that the sandbox has got.
    pub(crate) fn received(&self) -> u64 {
        self.setup.sandbox.control().received()
    }

    /// Attempts that Stripe refused for its limit.
    pub(crate) async fn limited(&self) -> u64 {
        let page = metrics::page(self.setup.gateway.ops).await;
        metrics::sum(&page, "http_client_request_duration_seconds_count{", |line| {
            line.contains("http_response_status_code=\"429\"")
        }) as u64
    }
}

impl Caller {
    /// Makes one customer; how it ended and how long it took.
    pub(crate) async fn call(&self, number: usize) -> (End, Duration) {
        let operation =
            OperationRef { order_id: format!("{}-{number}", self.name), ..OperationRef::default() };
        let mut request = Request::new(CreateCustomerRequest {
            operation: Some(operation),
            name: Some("A Customer".to_owned()),
            ..CreateCustomerRequest::default()
        });
        request.metadata_mut().insert("authorization", self.token.clone());
        request.set_timeout(DEADLINE);
        let channel = self.channels[number % self.channels.len()].clone();
        let started = Instant::now();
        let end = match CustomerServiceClient::new(channel).create_customer(request).await {
            Ok(_) => End::Answered,
            Err(status) if status.code() == Code::ResourceExhausted => End::Refused,
            Err(status) if [Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()) => End::Late,
            Err(status) => panic!("{status:?}"),
        };
        (end, started.elapsed())
    }
}

fn token(name: &str) -> String {
    format!("token-of-{name}-in-the-benchmark")
}
