//! A sandbox and a gateway, and callers that keep a steady pace.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::{GetOperationRequest, OperationRef};

use crate::metrics;
use crate::setup::{Setup, Wanted, connect};

pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    setup: Setup,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let setup = Setup::start(Path::new(env!("CARGO_TARGET_TMPDIR")), Wanted::default()).await;
        Self { address: setup.gateway.grpc, setup }
    }

    /// Calls again and again at this pace, and answers how long each call took, in microseconds, from the moment at which
    /// it was due: whoever is held up does not get to leave calls out.
    pub(crate) fn call_until(&self, end: Instant, pace: Duration) -> impl Future<Output = Vec<u64>> + use<> {
        let address = self.address;
        async move {
            let mut operations = OperationServiceClient::new(connect(address).await);
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
        let page = metrics::page(self.setup.gateway.ops).await;
        let cuts =
            page.lines().filter(|line| line.starts_with("tollgate_connections_cut") && !line.ends_with(" 0"));
        cuts.collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn stop(self) {
        self.setup.stop().await;
    }
}
