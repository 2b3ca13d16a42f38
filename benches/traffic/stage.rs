//! A sandbox that is as slow and as narrow as Stripe's test mode, a gateway in front of it, and callers that make
//! customers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate::config::{self, Environment, Flags};
use tollgate::domain::clock::{Clock, SystemClock};
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::{CreateCustomerRequest, OperationRef};
use tollgate::sandbox::{Fault, Handle, Options, Sandbox};
use tollgate::server::{self, Running};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// Requests a second that the sandbox lets through, as Stripe does in test mode (docs.stripe.com/rate-limits).
pub(crate) const REQUESTS_PER_S: u32 = 25;
/// How long Stripe takes for a request, in milliseconds.
pub(crate) const STRIPE_MS: u64 = 100;
/// How long a caller waits for its answer.
const DEADLINE: Duration = Duration::from_secs(2);
const KEY: &str = "sk_test_benchmark";
/// Connections of one caller; a connection has a limit of open streams.
const CONNECTIONS: usize = 4;

/// Everything that a round needs.
pub(crate) struct Stage {
    sandbox: Handle,
    gateway: Running,
    _folder: TempDir,
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
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options =
            Options { rate_limit_per_second: Some(REQUESTS_PER_S), ..Options::new(KEY, Arc::clone(&clock)) };
        let sandbox = Sandbox::start(listener, options).await.unwrap();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let config = config(&folder, &sandbox.address().to_string());
        let gateway = server::start(config, clock).await.unwrap();
        let slow = format!("latency:*:*:ms={STRIPE_MS}");
        sandbox.control().add_fault(Fault::parse(&slow).unwrap());
        Self { sandbox, gateway, _folder: folder }
    }

    pub(crate) async fn stop(self) {
        self.gateway.stop().await;
        self.sandbox.stop().await;
    }

    pub(crate) async fn caller(&self, name: &'static str) -> Caller {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            let address = format!("http://{}", self.gateway.grpc);
            channels.push(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
        }
        let token = MetadataValue::try_from(format!("Bearer {}", token(name))).unwrap();
        Caller { channels, token, name }
    }

    /// Requests that the sandbox has got.
    pub(crate) fn received(&self) -> u64 {
        self.sandbox.control().received()
    }

    /// Attempts that Stripe refused for its limit.
    pub(crate) async fn limited(&self) -> u64 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("http://{}/metrics", self.gateway.ops)).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let counts = text.lines().filter(|line| {
            line.starts_with("http_client_request_duration_seconds_count{")
                && line.contains("http_response_status_code=\"429\"")
        });
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
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

fn config(folder: &TempDir, stripe: &str) -> config::Config {
    let (file, policy) = (folder.path().join("tollgate.toml"), folder.path().join("policy.cedar"));
    let text = format!(
        r#"
data = "{}"
[stripe]
key = "{KEY}"
api_base = "http://{stripe}"
files_base = "http://{stripe}"
[webhook]
secret = "whsec_benchmark"
[listen]
lame_duck_s = 0
grpc = "127.0.0.1:0"
webhook = "127.0.0.1:0"
ops = "127.0.0.1:0"
[events]
sweep_reads_per_day = 0
[policy]
files = ["{}"]
[callers.quiet]
token = "{}"
[callers.flood]
token = "{}"
"#,
        folder.path().join("data").display(),
        policy.display(),
        token("quiet"),
        token("flood"),
    );
    std::fs::write(&policy, "@id(\"benchmark\")\npermit (principal, action, resource);\n").unwrap();
    std::fs::write(&file, text).unwrap();
    let flags = Flags { config: Some(file), values: Vec::new() };
    config::load(&flags, &Environment::default()).unwrap()
}
