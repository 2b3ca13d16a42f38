//! What of a call is seen from outside: counters from the start, a span for each attempt, and never the key or the
//! parameters.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::format::FmtSpan;

use super::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_attempt_has_its_span_and_the_finest_log_has_no_key_and_no_parameter() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .finish();
    // With one subscriber in the process, a span that another test's thread reaches first would count as wanted by
    // nobody; with two, all of them are asked.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let guard = tracing::subscriber::set_default(subscriber);
    let script =
        Script::start(vec![reply(409, "Stripe-Notice: a word\r\n", "{}"), reply(200, "", r#"{"secret":1}"#)])
            .await;
    let outgoing = Outgoing { path: "/v1/refunds/re_1".to_owned(), ..refund() };
    script.client().send(&outgoing, &Sender::Gateway, None).await;
    drop(guard);

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let (spans, notices): (Vec<_>, Vec<_>) = lines
        .filter(|line| line["target"].as_str().unwrap().starts_with("tollgate::stripe"))
        .filter(|line| line["span"]["name"] != "queue")
        .partition(|line| line["fields"]["message"] == "close");
    let [first, second] = spans.as_slice() else { panic!("two spans were expected: {text}") };
    let (first, second) = (&first["span"], &second["span"]);
    assert_eq!(first["otel.name"], "POST /v1/refunds");
    assert_eq!((&first["otel.kind"], &first["server.address"]), (&"client".into(), &"127.0.0.1".into()));
    assert_eq!(
        (&first["http.request.method"], &first["url.template"]),
        (&"POST".into(), &"/v1/refunds".into())
    );
    assert_eq!((&first["http.response.status_code"], &first["error.type"]), (&409.into(), &"409".into()));
    assert_eq!(first.get("http.request.resend_count"), None);
    assert_eq!(
        (&second["http.response.status_code"], &second["http.request.resend_count"]),
        (&200.into(), &1.into())
    );
    assert_eq!(second.get("error.type"), None);
    assert_eq!((&notices[0]["level"], &notices[0]["fields"]["notice"]), (&"WARN".into(), &"a word".into()));
    for hidden in ["sk_test_scripted", "ch_1", "tg1-key", "secret"] {
        assert!(!text.contains(hidden), "`{hidden}` is in\n{text}");
    }
}

#[tokio::test]
async fn counters_of_trouble_at_stripe_stand_at_nought_before_any() {
    let (script, metrics) = (Script::start(Vec::new()).await, Metrics::new().unwrap());
    let options = Options { metrics: Some(metrics.clone()), ..script.options("http") };
    let _client = Client::new(&options).unwrap();
    let text = metrics.text().unwrap();
    let account = "tollgate_account=\"default\"";
    for series in [
        "tollgate_stripe_queue_refusals_total{tollgate_class=\"read\",tollgate_reason=\"deadline\""
            .to_owned(),
        "tollgate_stripe_queue_refusals_total{tollgate_class=\"background\",tollgate_reason=\"expired\""
            .to_owned(),
        format!("tollgate_stripe_breaker_refusals_total{{{account},tollgate_host=\"api\""),
        format!("tollgate_stripe_breaker_refusals_total{{{account},tollgate_host=\"files\""),
        format!("tollgate_stripe_retries_refused_total{{{account}"),
    ] {
        let line = text.lines().find(|line| line.starts_with(&series));
        assert!(line.is_some_and(|line| line.ends_with(" 0")), "{series} {line:?}");
    }
}
