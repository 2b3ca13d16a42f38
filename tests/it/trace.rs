//! A call's trace as a collector sees it: a real OTLP receiver takes what the gateway exports, and the spans are checked
//! against each other and the caller's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tollgate::proto::v1::CreateCustomerRequest;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::sandbox::Fault;
use tollgate::telemetry::{self, Format};
use tonic::{Code, Request, Response, Status};

use crate::rig::{Rig, operation};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";
/// Path of a method that the gateway does not have.
const INVENTED: &str = "/made.up/Method";
const CALLER_SPAN: &str = "b7ad6b7169203331";

/// Keeps what it is sent.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    resources: Arc<Mutex<Vec<HashMap<String, String>>>>,
}

impl Collector {
    /// Everything that it was sent, as text.
    pub(crate) fn text(&self) -> String {
        format!("{:?} {:?}", self.spans.lock().unwrap(), self.resources.lock().unwrap())
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for group in request.into_inner().resource_spans {
            let resource = group.resource.unwrap_or_default();
            self.resources.lock().unwrap().push(attributes(&resource.attributes));
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(pairs: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> HashMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value = |pair: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        pair.value.as_ref().and_then(|value| value.value.as_ref()).map(text).unwrap_or_default()
    };
    pairs.iter().map(|pair| (pair.key.clone(), value(pair))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) async fn collector() -> (Collector, String) {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (collector, endpoint)
}

/// How many buckets of each histogram quote the trace.
async fn exemplars(rig: &Rig) -> [(&'static str, usize); 2] {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = client.get(format!("http://{}/metrics", rig.gateway.ops)).header("accept", OPEN_METRICS);
    let text = asked.send().await.unwrap().text().await.unwrap();
    let quote = format!("# {{trace_id=\"{TRACE}\"}} ");
    ["http_client_request_duration_seconds", "rpc_server_call_duration_seconds"].map(|name| {
        (name, text.lines().filter(|line| line.starts_with(name) && line.contains(&quote)).count())
    })
}

/// Calls a method that is the caller's own invention.
async fn call_what_nobody_has(rig: &Rig) {
    let mut client = tonic::client::Grpc::new(rig.channel());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let status = client.unary(Request::new(()), INVENTED.parse().unwrap(), codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
}

// One thread, so that everything that the gateway starts reports to this test's subscriber and to no other.
#[tokio::test(flavor = "current_thread")]
async fn a_call_is_one_trace_with_a_span_for_each_attempt_at_stripe() {
    let (collector, endpoint) = collector().await;
    let options =
        telemetry::Options { log: "off".into(), format: Format::Json, otlp_endpoint: Some(endpoint) };
    let (dispatch, guard) = telemetry::build(&options).unwrap();
    // With one subscriber in the process, a span that another test's thread reaches first would count as wanted by
    // nobody; with two, all of them are asked.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let here = tracing::dispatcher::set_default(&dispatch);
    let rig = Rig::start().await;
    rig.control().add_fault(Fault::parse("status:POST:/v1/customers:status=500,times=1").unwrap());

    let mut request = Request::new(CreateCustomerRequest {
        operation: operation("traced", ""),
        name: Some("Ada Lovelace".into()),
        ..Default::default()
    });
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{CALLER_SPAN}-01").parse().unwrap());
    CustomerServiceClient::new(rig.wire()).create_customer(request).await.unwrap();
    call_what_nobody_has(&rig).await;
    let quoted = exemplars(&rig).await;
    rig.gateway.stop().await;
    guard.stop().await;
    drop(here);

    assert!(!collector.text().contains("made.up"), "{}", collector.text());
    let spans = collector.spans.lock().unwrap();
    let invented =
        spans.iter().find(|span| span.name == "_OTHER").expect("a call is a span whatever it calls");
    assert_eq!(attributes(&invented.attributes)["rpc.method"], "_OTHER");
    let traced: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let of = |kind: SpanKind| traced.iter().filter(move |span| span.kind == kind as i32).collect::<Vec<_>>();
    let [server] = of(SpanKind::Server)[..] else { panic!("not one server span: {traced:#?}") };
    assert_eq!(server.name, "tollgate.v1.CustomerService/CreateCustomer");
    assert_eq!(hex(&server.parent_span_id), CALLER_SPAN);
    assert_eq!(attributes(&server.attributes)["rpc.response.status_code"], "OK");

    let mut attempts = of(SpanKind::Client);
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    let statuses: Vec<String> = attempts
        .iter()
        .map(|span| attributes(&span.attributes)["http.response.status_code"].clone())
        .collect();
    assert_eq!(statuses, ["500", "200"]);
    let inside = |name: &str| {
        let [span] = traced.iter().filter(|span| span.name == name).collect::<Vec<_>>()[..] else {
            panic!("not one span `{name}`: {traced:#?}")
        };
        assert_eq!(span.parent_span_id, server.span_id, "{span:#?}");
        span
    };
    let [policy, begin, send, settle] = ["policy", "ledger begin", "send", "ledger settle"].map(inside);
    let starts = [policy, begin, send, settle].map(|span| span.start_time_unix_nano);
    assert!(starts.is_sorted(), "{traced:#?}");
    for attempt in attempts {
        assert_eq!(attempt.parent_span_id, send.span_id, "{attempt:#?}");
        let attributes = attributes(&attempt.attributes);
        assert_eq!(attributes["url.template"], "/v1/customers");
        assert!(!format!("{attributes:?}").contains("Ada"), "{attributes:?}");
    }
    assert_eq!(
        quoted,
        [("http_client_request_duration_seconds", 2), ("rpc_server_call_duration_seconds", 1)]
    );
    let resources = collector.resources.lock().unwrap();
    assert!(resources.iter().all(|resource| resource["service.name"] == "tollgate"), "{resources:?}");
}
