//! The command line as scripts have it: the built binary, run as a process, and what it says by its output and exit code.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tollgate::config::Listen;
use tollgate::domain::clock::{Clock, SystemClock};
use tollgate::sandbox::WebhookTarget;
use tollgate::server;

use crate::rig;

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");

/// A command that runs; killed if the test fails before it ends.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn dev(temporary: &Path, arguments: &[&str]) -> Self {
        let dev = ["dev", "--ports", "random", "--json-ready"];
        Self::start(tollgate(&dev).args(arguments).env("TMPDIR", temporary))
    }

    /// The next line of its output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended: {:?}", self.child.try_wait());
        line.trim_end().to_owned()
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Stops it as a user or a supervisor does; the rest of its output, and its exit code.
    fn stop(mut self, signal: &str) -> (String, Option<i32>) {
        assert!(
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success()
        );
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        self.child.kill().ok();
    }
}

/// The binary with nothing of the tester's own settings.
fn tollgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(TOLLGATE);
    command.args(arguments).stdin(Stdio::null());
    for name in ["TOLLGATE_ADDRESS", "TOLLGATE_TOKEN", "TOLLGATE_CONFIG", "TOLLGATE_STRIPE_KEY"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    tollgate(arguments).output().unwrap()
}

#[test]
fn dev_tells_scripts_one_line_of_json_and_keeps_its_state() {
    let (temporary, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let arguments = ["--data", data.path().to_str().unwrap()];
    let mut dev = Running::dev(temporary.path(), &arguments);
    let first = dev.json();
    for (key, prefix) in
        [("webhook", "http://"), ("ops", "http://"), ("stripe", "http://"), ("grpc", "127.0.0.1:")]
    {
        assert!(first[key].as_str().unwrap().starts_with(prefix), "{first}");
    }
    for (key, prefix) in
        [("payment_intent", "pi_"), ("customer", "cus_"), ("dispute", "du_"), ("token", "tg_dev_")]
    {
        assert!(first[key].as_str().unwrap().starts_with(prefix), "{first}");
    }
    assert_eq!(dev.stop("-TERM"), (String::new(), Some(0)));

    let mut dev = Running::dev(temporary.path(), &arguments);
    let second = dev.json();
    for key in ["payment_intent", "customer", "token", "dispute", "webhook_secret", "stripe_key"] {
        assert_eq!(first[key], second[key]);
    }
    let (address, token) = (second["grpc"].as_str().unwrap(), second["token"].as_str().unwrap());
    let request = format!("{{\"id\": {}}}", second["customer"]);
    let call = ["call", "CustomerService/GetCustomer", "-d", &request, "--address", address];
    let answer = tollgate(&call).env("TOLLGATE_TOKEN", token).output().unwrap();
    assert!(answer.status.success(), "{answer:?}");

    let without_token = run(&call);
    assert_eq!(without_token.status.code(), Some(77), "{without_token:?}");
    let refused = ["refunds", "get", "re_none", "--address", address, "--token", token];
    let refused = run(&refused);
    assert_eq!(refused.status.code(), Some(66), "{refused:?}");
    assert!(
        String::from_utf8_lossy(&refused.stderr).starts_with("error: NOT_FOUND (RESOURCE_NOT_FOUND)"),
        "{refused:?}"
    );
    let in_use =
        run(&["sandbox", "--listen", second["stripe"].as_str().unwrap().trim_start_matches("http://")]);
    assert_eq!(in_use.status.code(), Some(71), "{in_use:?}");
    assert_eq!(dev.stop("-TERM"), (String::new(), Some(0)));
}

#[test]
fn dev_takes_its_temporary_folder_with_it() {
    let temporary = TempDir::new().unwrap();
    let folders = || std::fs::read_dir(temporary.path()).unwrap().count();
    let mut dev = Running::dev(temporary.path(), &[]);
    dev.json();
    assert_eq!(folders(), 1);
    assert_eq!(dev.stop("-INT"), (String::new(), Some(0)));
    assert_eq!(folders(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_goes_on_where_it_was_when_the_gateway_comes_back() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let data = TempDir::new().unwrap();
    let sandbox = rig::sandbox(Arc::clone(&clock)).await;
    let mut config = rig::config(sandbox.address(), &data);
    let gateway = server::start(config.clone(), Arc::clone(&clock)).await.unwrap();
    // The second gateway takes over the first one's places, as after a restart.
    config.listen =
        Listen { grpc: gateway.grpc, webhook: gateway.webhook, ops: gateway.ops, ..config.listen };
    let url = format!("http://{}/webhooks/stripe", gateway.webhook);
    let target = WebhookTarget { url, secrets: vec![rig::SECRET.to_owned()] };
    sandbox.control().set_webhooks(vec![target]);

    let address = gateway.grpc.to_string();
    let arguments =
        ["events", "tail", "--from", "earliest", "--types", "customer.*", "--limit", "2", "-o", "jsonl"];
    let mut tail = Running::start(tollgate(&arguments).args(["--address", &address, "--token", rig::TOKEN]));
    sandbox.control().trigger("customer.created").unwrap();
    let (first, mut tail) = tokio::task::spawn_blocking(move || (tail.json(), tail)).await.unwrap();
    gateway.stop().await;
    let gateway = server::start(config, clock).await.unwrap();
    sandbox.control().trigger("customer.created").unwrap();
    let (second, ended) =
        tokio::task::spawn_blocking(move || (tail.json(), tail.child.wait().unwrap().code())).await.unwrap();
    assert_eq!((&first["position"], &second["position"]), (&1.into(), &2.into()), "{first} {second}");
    assert_ne!(first["id"], second["id"]);
    assert_eq!(ended, Some(0));
    gateway.stop().await;
}

/// Method: checkpoints that are further apart than the silence that the reader puts up with, so that its stream breaks
/// between two events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_takes_a_silent_stream_for_broken_and_goes_on_behind_what_it_has() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let data = TempDir::new().unwrap();
    let sandbox = rig::sandbox(Arc::clone(&clock)).await;
    let mut config = rig::config(sandbox.address(), &data);
    config.feed.checkpoint_interval = Duration::from_secs(300);
    let gateway = server::start(config, clock).await.unwrap();
    let url = format!("http://{}/webhooks/stripe", gateway.webhook);
    sandbox.control().set_webhooks(vec![WebhookTarget { url, secrets: vec![rig::SECRET.to_owned()] }]);

    let address = gateway.grpc.to_string();
    let arguments = ["events", "tail", "--from", "earliest", "--types", "customer.*", "--silence", "1"];
    let mut command = tollgate(&arguments);
    command.args(["--limit", "2", "-o", "jsonl", "--address", &address, "--token", rig::TOKEN]);
    let mut tail = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (events, words) = (tail.stdout.take().unwrap(), tail.stderr.take().unwrap());
    let (mut events, mut words) = (BufReader::new(events).lines(), BufReader::new(words).lines());
    sandbox.control().trigger("customer.created").unwrap();
    let (first, told, mut events) = tokio::task::spawn_blocking(move || {
        let first = events.next().unwrap().unwrap();
        (first, words.find(|word| word.as_ref().unwrap().contains("silent for 1 s")), events)
    })
    .await
    .unwrap();
    assert!(told.is_some());
    sandbox.control().trigger("customer.created").unwrap();
    let second = tokio::task::spawn_blocking(move || {
        let second = events.next().unwrap().unwrap();
        assert!(tail.wait().unwrap().success());
        second
    });
    let (first, second): (Value, Value) =
        (serde_json::from_str(&first).unwrap(), serde_json::from_str(&second.await.unwrap()).unwrap());
    assert_eq!((&first["position"], &second["position"]), (&1.into(), &2.into()), "{first} {second}");
    gateway.stop().await;
}

#[test]
fn exit_codes_tell_scripts_what_went_wrong() {
    for (arguments, code) in [
        (&["version"][..], 0),
        (&["call", "--list"], 0),
        (&["completions", "bash"], 0),
        (&["--help"], 0),
        (&["refund"], 2),
        (&["call", "RefundService/Nothing", "-d", "{}"], 65),
        (&["call", "RefundService/GetRefund", "-d", "{\"ids\": 1}"], 65),
        (&["health", "--address", "127.0.0.1:1"], 69),
        (&["serve", "--config", "/nowhere/tollgate.toml"], 78),
    ] {
        let done = run(arguments);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {done:?}");
        assert_eq!(done.stdout.is_empty(), code != 0, "{arguments:?}: data goes to standard output only");
        assert_eq!(done.stderr.is_empty(), code == 0, "{arguments:?}: {done:?}");
    }
}

#[test]
fn a_reader_that_stops_reading_is_no_error() {
    let mut child =
        tollgate(&["call", "--list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}
