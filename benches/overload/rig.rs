//! A gateway with a certain number of places before a sandbox that takes its time, and calls that are made or refused.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::{CreateCustomerRequest, OperationRef};
use tollgate::sandbox::Fault;
use tonic::Code;
use tonic::transport::Channel;

use crate::setup::{NO_TURNS, Setup, Wanted};

/// Calls that the gateway takes; its one caller gets four fifths of them.
const CALLS_IN_FLIGHT_MAX: usize = 50;
/// What that leaves for the caller.
pub(crate) const PLACES: usize = 40;
/// How long the sandbox takes for a change.
pub(crate) const LATENCY_MS: u64 = 150;
/// Connections of the caller; each has a limit of open calls.
const CONNECTIONS: usize = 8;

pub(crate) struct Rig {
    setup: Setup,
    channels: Vec<Channel>,
    numbers: Arc<AtomicU64>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Refused,
}

/// Makes calls on one of the connections.
pub(crate) struct Calls {
    channel: Channel,
    numbers: Arc<AtomicU64>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let more = format!("{NO_TURNS}listen.calls_in_flight_max = {CALLS_IN_FLIGHT_MAX}\n");
        let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let setup = Setup::start(disk, Wanted { more: &more, policy: "" }).await;
        let fault = format!("latency:POST:/v1/customers:ms={LATENCY_MS}");
        setup.sandbox.control().add_fault(Fault::parse(&fault).unwrap());
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(setup.connect().await);
        }
        Self { setup, channels, numbers: Arc::default() }
    }

    pub(crate) fn calls(&self, connection: usize) -> Calls {
        let channel = self.channels[connection % self.channels.len()].clone();
        Calls { channel, numbers: Arc::clone(&self.numbers) }
    }

    pub(crate) async fn stop(self) {
        self.setup.stop().await;
    }
}

impl Calls {
    /// Makes one customer, or is refused.
    pub(crate) async fn one(&self) -> Answer {
        let order_id = format!("overload-{}", self.numbers.fetch_add(1, Ordering::Relaxed));
        let request = CreateCustomerRequest {
            operation: Some(OperationRef { order_id, ..OperationRef::default() }),
            name: Some("A Customer".to_owned()),
            ..CreateCustomerRequest::default()
        };
        match CustomerServiceClient::new(self.channel.clone()).create_customer(request).await {
            Ok(_) => Answer::Done,
            Err(status) if status.code() == Code::ResourceExhausted => Answer::Refused,
            Err(status) => panic!("{status:?}"),
        }
    }
}
