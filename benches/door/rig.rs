//! A sandbox and a gateway, and callers that keep a steady pace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate::config::{self, Environment, Flags};
use tollgate::domain::clock::{Clock, SystemClock};
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::{GetOperationRequest, OperationRef};
use tollgate::sandbox::{Handle, Options, Sandbox};
use tollgate::server::{self, Running};
use tonic::transport::Endpoint;

const KEY: &str = "sk_test_benchmark";

pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    gateway: Running,
    sandbox: Handle,
    _folder: TempDir,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sandbox = Sandbox::start(listener, Options::new(KEY, Arc::clone(&clock))).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (file, stripe) = (folder.path().join("tollgate.toml"), sandbox.address());
        let text = format!(
            "data = \"{}\"\n[stripe]\nkey = \"{KEY}\"\napi_base = \"http://{stripe}\"\nfiles_base = \"http://{stripe}\"\n\
             [traffic]\nrequests_per_s = 100000\nendpoint_requests_per_s = 100000\nrequests_at_once_max = 10000\n\
             [webhook]\nsecret = \"whsec_benchmark\"\n\
             [listen]\ngrpc = \"127.0.0.1:0\"\nwebhook = \"127.0.0.1:0\"\nops = \"127.0.0.1:0\"\n",
            folder.path().join("data").display()
        );
        std::fs::write(&file, text).unwrap();
        let flags = Flags { config: Some(file), values: Vec::new() };
        let config = config::load(&flags, &Environment::default()).unwrap();
        let gateway = server::start(config, clock).await.unwrap();
        Self { address: gateway.grpc, gateway, sandbox, _folder: folder }
    }

    /// Calls again and again at this pace, and answers how long each call took, in microseconds, from the moment at which
    /// it was due: whoever is held up does not get to leave calls out.
    pub(crate) fn call_until(&self, end: Instant, pace: Duration) -> impl Future<Output = Vec<u64>> + use<> {
        let address = format!("http://{}", self.address);
        async move {
            let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
            let mut operations = OperationServiceClient::new(channel);
            let operation = OperationRef { order_id: "none".to_owned(), ..OperationRef::default() };
            let request = GetOperationRequest {
                operation: Some(operation),
                rpc: "RefundService/CreateRefund".to_owned(),
                ..GetOperationRequest::default()
            };
            let (mut latencies, mut due) = (Vec::new(), Instant::now());
            while due < end {
                tokio::time::sleep_until(due.into()).await;
                let answer = operations.get_operation(request.clone()).await;
                assert_eq!(answer.unwrap_err().code(), tonic::Code::NotFound);
                latencies.push(u64::try_from(due.elapsed().as_micros()).unwrap());
                due += pace;
            }
            latencies
        }
    }

    /// What the gateway counted of the connections that it cut.
    pub(crate) async fn cuts(&self) -> String {
        let page = reqwest::Client::builder().no_proxy().build().unwrap();
        let page = page.get(format!("http://{}/metrics", self.gateway.ops)).send().await.unwrap();
        let page = page.text().await.unwrap();
        let cuts = page.lines().filter(|line| line.starts_with("tollgate_connections_cut"));
        cuts.collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn stop(self) {
        self.gateway.stop().await;
        self.sandbox.stop().await;
    }
}
