//! Holds every annotated RPC against the official stripe-mock: the fullest request that the contract allows goes through
//! a real gateway, and the mock checks it against Stripe's OpenAPI document. What that document does not know yet must be
//! what the golden file says; a judge of its own holds the same file against the types of Stripe's Python library.

mod relay;
mod requests;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use tollgate::config::{self, Environment, Flags};
use tollgate::contract::{self, Spec};
use tollgate::domain::clock::SystemClock;
use tollgate::proto::DESCRIPTORS;
use tollgate::server::{self, Running};
use tonic::Status;
use tonic::transport::Channel;

use self::relay::{Relay, Seen};
use crate::wire;

const MOCK: &str = ".cache/bin/stripe-mock";
const GOLDEN: &str = "tests/golden/stripe_parameters.txt";
const PDF: &[u8] = b"%PDF-1.4\n1 0 obj <<>> endobj\ntrailer <<>>\n%%EOF\n";
const START: Duration = Duration::from_secs(30);

/// A running stripe-mock; it ends with the test.
struct Mock {
    process: Child,
    address: SocketAddr,
}

impl Mock {
    /// Starts it on a free port.
    async fn start() -> Self {
        assert!(Path::new(MOCK).exists(), "`{MOCK}` is missing: run `scripts/tools`");
        let mut process =
            Command::new(MOCK).args(["-http-addr", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (told, address) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        // Reads to the end, so that the mock never waits for somebody to read its log.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("HTTP at address: ")
                    && let Some(told) = told.take()
                {
                    told.send(address.parse().unwrap()).unwrap();
                }
            }
        });
        let address = tokio::time::timeout(START, address).await.expect("stripe-mock does not start");
        Self { process, address: address.expect("stripe-mock ended") }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

async fn gateway(stripe: SocketAddr, data: &Path) -> Running {
    let base = format!("http://{stripe}");
    let settings = [
        ("TOLLGATE_STRIPE_KEY", "sk_test_conformance"),
        ("TOLLGATE_STRIPE_API_BASE", &base),
        ("TOLLGATE_STRIPE_FILES_BASE", &base),
        ("TOLLGATE_WEBHOOK_SECRET", "whsec_conformance"),
        ("TOLLGATE_LISTEN_GRPC", "127.0.0.1:0"),
        ("TOLLGATE_LISTEN_WEBHOOK", "127.0.0.1:0"),
        ("TOLLGATE_LISTEN_OPS", "127.0.0.1:0"),
        ("TOLLGATE_DATA", data.to_str().unwrap()),
        // What is seen at Stripe is to be the calls' alone.
        ("TOLLGATE_EVENTS_SWEEP_READS_PER_DAY", "0"),
    ];
    let config = config::load(&Flags::default(), &Environment::from_iter(settings)).unwrap();
    server::start(config, Arc::new(SystemClock::new())).await.unwrap()
}

/// What a call came to, for people.
fn told(outcome: &Result<DynamicMessage, Status>) -> Result<(), String> {
    outcome.as_ref().map(|_| ()).map_err(|status| format!("{:?}: {}", status.code(), status.message()))
}

/// What the RPCs sent, for the table and for the golden file.
#[derive(Default)]
struct Report {
    table: String,
    parameters: BTreeSet<String>,
    failures: Vec<String>,
}

impl Report {
    fn add(&mut self, spec: &Spec, seen: &[Seen], outcome: &Result<(), String>) {
        let rpc = format!("{}/{}", spec.service, spec.rpc);
        let endpoint = format!("{} {}", spec.verb.as_str(), spec.path);
        for call in seen {
            let names: Vec<&str> = call.parameters.iter().map(String::as_str).collect();
            let _ = writeln!(self.table, "{rpc} | {} | {} {}", names.join(" "), call.status, said(outcome));
            for name in names {
                let known = if call.unknown.contains(name) { "not in stripe-mock" } else { "ok" };
                self.parameters.insert(format!("{endpoint} {} {known}", unindexed(name)));
            }
        }
        if seen.is_empty() {
            let _ = writeln!(self.table, "{rpc} | nothing | - {}", said(outcome));
        }
        if let Err(status) = outcome {
            self.failures.push(format!("{rpc}: {status}"));
        }
    }
}

fn said(outcome: &Result<(), String>) -> &str {
    outcome.as_ref().map_or_else(String::as_str, |()| "OK")
}

/// `expand[0]` as `expand[]`: which item it is does not matter.
fn unindexed(name: &str) -> String {
    let parts = name.split('[').enumerate().map(|(at, part)| match part.strip_suffix(']') {
        Some(index) if index.bytes().all(|byte| byte.is_ascii_digit()) => "[]".to_owned(),
        _ if at > 0 => format!("[{part}"),
        _ => part.to_owned(),
    });
    parts.collect()
}

/// Calls one RPC with every request that `requests` makes, and again for the page after.
async fn judge(
    channel: &Channel,
    relay: &Relay,
    method: &MethodDescriptor,
    spec: &Spec,
    report: &mut Report,
) {
    for mut request in requests::fullest(method, spec.path) {
        loop {
            let outcome = wire::call(channel, &spec.full_name(), &request, method.output()).await;
            let seen = relay.take();
            report.add(spec, &seen, &told(&outcome));
            match outcome.ok().and_then(|answer| next_page(&answer)) {
                Some(token) if !request.has_field_by_name("page_token") => {
                    request.set_field_by_name("page_token", Value::String(token));
                }
                _ => break,
            }
        }
    }
}

fn next_page(answer: &DynamicMessage) -> Option<String> {
    let token = answer.get_field_by_name("next_page_token")?.as_str()?.to_owned();
    (!token.is_empty()).then_some(token)
}

/// An upload: a header that is filled like any other request, but for what has to fit the file, and one chunk.
async fn upload(
    channel: &Channel,
    relay: &Relay,
    method: &MethodDescriptor,
    spec: &Spec,
    report: &mut Report,
) {
    let pool = method.parent_pool();
    let mut first = requests::fullest(method, spec.path).remove(0);
    let field = method.input().get_field_by_name("header").unwrap();
    let mut header = first.get_field(&field).as_message().unwrap().clone();
    let purpose = pool.get_enum_by_name("tollgate.v1.FilePurpose").unwrap();
    let evidence = purpose.get_value_by_name("FILE_PURPOSE_DISPUTE_EVIDENCE").unwrap().number();
    header.set_field_by_name("purpose", Value::EnumNumber(evidence));
    header.set_field_by_name("size", Value::I64(i64::try_from(PDF.len()).unwrap()));
    first.set_field(&field, Value::Message(header));
    let mut chunk = DynamicMessage::new(method.input());
    chunk.set_field_by_name("chunk", Value::Bytes(PDF.into()));
    let outcome = wire::upload(channel, &spec.full_name(), &[first, chunk], method.output()).await;
    report.add(spec, &relay.take(), &told(&outcome));
}

/// Refreshed with `UPDATE_GOLDEN=1 cargo test conformance`.
#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::disallowed_methods,
    reason = "the flag that refreshes golden files comes from the environment"
)]
async fn stripe_mock_accepts_the_fullest_request_of_every_rpc() {
    let mock = Mock::start().await;
    let (relay, address) = Relay::start(mock.address).await;
    let data = tempfile::tempdir().unwrap();
    let running = gateway(address, data.path()).await;
    let channel = wire::connect(running.grpc).await;
    relay.take();

    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let mut report = Report::default();
    for spec in contract::METHODS {
        let service = pool.get_service_by_name(&format!("tollgate.v1.{}", spec.service)).unwrap();
        let method = service.methods().find(|method| method.name() == spec.rpc).unwrap();
        if method.is_client_streaming() {
            upload(&channel, &relay, &method, spec, &mut report).await;
        } else {
            judge(&channel, &relay, &method, spec, &mut report).await;
        }
    }
    drop(channel);
    running.stop().await;

    println!("RPC | parameters sent | status\n{}", report.table);
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    let parameters: String = report.parameters.iter().map(|line| format!("{line}\n")).collect();
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        std::fs::write(GOLDEN, &parameters).unwrap();
    }
    assert_eq!(parameters, std::fs::read_to_string(GOLDEN).unwrap());
}
