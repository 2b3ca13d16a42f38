//! The one log line of each call.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::{CreateCustomerRequest, GetCustomerRequest};
use tollgate::sandbox::Fault;
use tonic::Request;
use tracing_subscriber::fmt::MakeWriter;

use crate::rig::{Rig, TOKEN, operation, until};

/// Where the lines go.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Everything that was written.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of calls, at the level that is always on.
    fn calls(&self) -> Vec<Value> {
        let lines = self.text();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_calls = lines.filter(|line| line["target"] == "tollgate::call" && line["level"] == "INFO");
        of_calls.map(|line| line["fields"].clone()).collect()
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
    let calls = lines.calls();
    assert_eq!(calls.len(), 3, "one line each");
    let of = |field: &str| calls.iter().map(|call| call[field].to_string()).collect::<Vec<_>>();
    assert_eq!(of("code"), [r#""OK""#, r#""OK""#, r#""ALREADY_EXISTS""#]);
    assert_eq!(of("replayed"), ["false", "true", "false"]);
    assert_eq!(of("attempts"), ["1", "0", "0"]);
    assert!(calls[0]["ledger_ms"].as_f64() > Some(0.0) && calls[0]["stripe_ms"].as_f64() > Some(0.0));
    assert_eq!(calls[1]["stripe_ms"], 0.0, "nothing was sent");
    assert_eq!(of("reason"), [r#""""#, r#""""#, r#""OPERATION_REUSED""#]);
    for call in &calls {
        assert_eq!(call["rpc"], "tollgate.v1.CustomerService/CreateCustomer");
        assert_eq!((&call["order_id"], &call["operation_id"]), (&"logged".into(), &"1".into()));
        assert_eq!(call["caller"], "rig");
        assert_eq!(call["account"], "default");
        assert!(
            call["total_ms"].as_f64() > Some(0.0) && call["audit_id"].as_str().unwrap().starts_with("aud_")
        );
    }
    let about = first.call.unwrap();
    assert_eq!(
        (&calls[0]["audit_id"], &calls[0]["stripe_request_id"]),
        (&about.audit_id.into(), &about.stripe_request_id.into())
    );
}

// A line each, and no metric lost, for callers who go before their answer and for what the pipeline never saw.
#[tokio::test(flavor = "current_thread")]
async fn a_call_whose_caller_left_and_one_that_cannot_be_read_have_their_lines_too() {
    let lines = Lines::default();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO).with_writer(lines.clone());
    let dispatch = tracing::Dispatch::new(subscriber.finish());
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let here = tracing::dispatcher::set_default(&dispatch);
    let rig = Rig::start().await;
    rig.control().add_fault(Fault::parse("latency:GET:/v1/customers:ms=60000").unwrap());
    let mut customers = CustomerServiceClient::new(rig.wire());
    let read = GetCustomerRequest { id: "cus_1".into(), ..Default::default() };
    let (before, mut reader) = (rig.control().received(), customers.clone());
    let call = tokio::spawn(async move { reader.get_customer(read).await });
    until(async || (rig.control().received() > before).then_some(())).await;
    call.abort();
    let huge = CreateCustomerRequest { name: Some("x".repeat(5 << 20)), ..Default::default() };
    customers.create_customer(huge).await.unwrap_err();
    let calls = until(async || {
        let calls = lines.calls();
        (calls.len() == 2).then_some(calls)
    })
    .await;
    let metrics = rig.metrics().await;
    drop(here);

    let told = |rpc: &str| calls.iter().find(|call| call["rpc"].as_str().unwrap().ends_with(rpc)).unwrap();
    assert_eq!(
        (&told("GetCustomer")["code"], &told("GetCustomer")["caller"]),
        (&"CANCELLED".into(), &"rig".into())
    );
    assert_eq!(told("CreateCustomer")["reason"], "MESSAGE_TOO_LARGE");
    for failed in [
        r#"{tollgate_reason="_OTHER",tollgate_side="caller""#,
        r#"{tollgate_reason="MESSAGE_TOO_LARGE",tollgate_side="caller""#,
    ] {
        assert!(metrics.contains(&format!("tollgate_calls_failed_total{failed}")), "{metrics}");
    }
}
