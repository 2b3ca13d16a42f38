//! A gateway with a certain number of places before a sandbox that takes its time, and calls that are made or refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate::config::{self, Environment, Flags};
use tollgate::domain::clock::{Clock, SystemClock};
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::{CreateCustomerRequest, OperationRef};
use tollgate::sandbox::{Fault, Handle, Options, Sandbox};
use tollgate::server::{self, Running};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const KEY: &str = "sk_test_benchmark";
/// Calls that the gateway takes; its one caller gets four fifths of them.
const CALLS_IN_FLIGHT_MAX: usize = 50;
/// What that leaves for the caller.
pub(crate) const PLACES: usize = 40;
/// How long the sandbox takes for a change.
pub(crate) const LATENCY_MS: u64 = 150;
/// Connections of the caller; each has a limit of open calls.
const CONNECTIONS: usize = 8;

pub(crate) struct Rig {
    gateway: Running,
    sandbox: Handle,
    channels: Vec<Channel>,
    numbers: Arc<AtomicU64>,
    _folder: TempDir,
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
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sandbox = Sandbox::start(listener, Options::new(KEY, Arc::clone(&clock))).await.unwrap();
        let fault = format!("latency:POST:/v1/customers:ms={LATENCY_MS}");
        sandbox.control().add_fault(Fault::parse(&fault).unwrap());
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (file, stripe) = (folder.path().join("tollgate.toml"), sandbox.address());
        let text = format!(
            r#"
data = "{}"
[stripe]
key = "{KEY}"
api_base = "http://{stripe}"
files_base = "http://{stripe}"
[traffic]
requests_per_s = 100000
endpoint_requests_per_s = 100000
requests_at_once_max = 10000
[webhook]
secret = "whsec_benchmark"
[listen]
grpc = "127.0.0.1:0"
webhook = "127.0.0.1:0"
ops = "127.0.0.1:0"
calls_in_flight_max = {CALLS_IN_FLIGHT_MAX}
"#,
            folder.path().join("data").display()
        );
        std::fs::write(&file, text).unwrap();
        let flags = Flags { config: Some(file), values: Vec::new() };
        let config = config::load(&flags, &Environment::default()).unwrap();
        let gateway = server::start(config, clock).await.unwrap();
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            let address = format!("http://{}", gateway.grpc);
            channels.push(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
        }
        Self { gateway, sandbox, channels, numbers: Arc::default(), _folder: folder }
    }

    pub(crate) fn calls(&self, connection: usize) -> Calls {
        let channel = self.channels[connection % self.channels.len()].clone();
        Calls { channel, numbers: Arc::clone(&self.numbers) }
    }

    pub(crate) async fn stop(self) {
        self.gateway.stop().await;
        self.sandbox.stop().await;
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
