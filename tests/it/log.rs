//! The one log line of each call.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tollgate::proto::v1::CreateCustomerRequest;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tonic::Request;
use tracing_subscriber::fmt::MakeWriter;

use crate::rig::{Rig, TOKEN, operation};

/// Where the lines go.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Everything that was written.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

// One thread, so that everything that the gateway starts reports to this test's subscriber and to no other.
#[tokio::test(flavor = "current_thread")]
async fn each_call_has_one_line_and_no_personal_value_is_in_it() {
    let lines = Lines::default();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(lines.clone());
    let dispatch = tracing::Dispatch::new(subscriber.finish());
    // As in the test of traces: with two subscribers, no other test's thread decides what is wanted.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let here = tracing::dispatcher::set_default(&dispatch);
    let rig = Rig::start().await;
    let mut customers = CustomerServiceClient::new(rig.wire());
    let mut request = CreateCustomerRequest {
        operation: operation("logged", "1"),
        name: Some("Ada Lovelace".into()),
        ..Default::default()
    };
    let first = customers.create_customer(Request::new(request.clone())).await.unwrap().into_inner();
    customers.create_customer(Request::new(request.clone())).await.unwrap();
    request.name = Some("Grace Hopper".into());
    customers.create_customer(Request::new(request)).await.unwrap_err();
    drop(here);

    let text = lines.text();
    for hidden in ["Ada", "Grace", TOKEN, crate::rig::KEY, crate::rig::SECRET] {
        assert!(!text.contains(hidden), "`{hidden}` is in the log");
    }
    let calls: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["target"] == "tollgate::call")
        .map(|line| line["fields"].clone())
        .collect();
    let of = |field: &str| calls.iter().map(|call| call[field].to_string()).collect::<Vec<_>>();
    assert_eq!(of("code"), [r#""OK""#, r#""OK""#, r#""ALREADY_EXISTS""#]);
    assert_eq!(of("replayed"), ["false", "true", "false"]);
    assert_eq!(of("reason"), [r#""""#, r#""""#, r#""OPERATION_REUSED""#]);
    for call in &calls {
        assert_eq!(call["rpc"], "tollgate.v1.CustomerService/CreateCustomer");
        assert_eq!((&call["order_id"], &call["operation_id"]), (&"logged".into(), &"1".into()));
        assert_eq!(call["caller"], "rig");
        assert!(call["latency_ms"].is_u64() && call["audit_id"].as_str().unwrap().starts_with("aud_"));
    }
    let about = first.call.unwrap();
    assert_eq!(
        (&calls[0]["audit_id"], &calls[0]["stripe_request_id"]),
        (&about.audit_id.into(), &about.stripe_request_id.into())
    );
}
