//! Runs what people are told to type: the README's shell blocks that begin with `# run`, and the commands that
//! `tollgate dev` prints, each against a `tollgate dev` of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tollgate");
/// First line of a block that is run.
const MARK: &str = "# run\n";
const START: Duration = Duration::from_secs(60);
/// How long one command may take, in seconds, as `timeout` reads it.
const COMMAND_S_MAX: &str = "60";

/// A running `tollgate dev`, and the lines that it prints.
struct Dev {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Dev {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(PROGRAM)
            .args(["dev", "--ports", "random"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (told, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
        Self { process, lines }
    }

    /// The next line.
    fn line(&self) -> String {
        self.lines.recv_timeout(START).expect("`tollgate dev` says no more")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Asked nicely, so that it takes its folder with it.
        let asked = Command::new("kill").arg(self.process.id().to_string()).status();
        if asked.is_ok_and(|status| status.success()) {
            self.process.wait().unwrap();
        } else {
            self.process.kill().unwrap();
        }
    }
}

/// A shell in which `tollgate` is this build.
fn shell(script: &str, variables: &[(&str, &str)]) -> Output {
    let folder = Path::new(PROGRAM).parent().unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display());
    Command::new("timeout")
        .args([COMMAND_S_MAX, "sh", "-euc", script])
        .env_clear()
        .env("PATH", path)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn assert_success(script: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{script}\nended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The marked shell blocks of a document.
fn marked(document: &str) -> Vec<String> {
    let blocks = document.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter_map(|block| block.strip_prefix(MARK)).map(str::to_owned).collect()
}

#[test]
fn the_readme_s_commands_work() {
    let dev = Dev::start(&["--json-ready"]);
    let ready: serde_json::Value = serde_json::from_str(&dev.line()).unwrap();
    let text = |name: &str| ready[name].as_str().unwrap();
    let variables = [
        ("TOLLGATE_ADDRESS", text("grpc")),
        ("TOLLGATE_TOKEN", text("token")),
        ("PAYMENT_INTENT", text("payment_intent")),
        ("CUSTOMER", text("customer")),
    ];
    let blocks = marked(include_str!("../../README.md"));
    assert!(blocks.len() >= 3, "the README has {} blocks to run", blocks.len());
    for block in blocks {
        assert_success(&block, &shell(&block, &variables));
    }
}

#[test]
fn the_commands_that_dev_prints_work() {
    let dev = Dev::start(&[]);
    let mut commands = Vec::new();
    loop {
        let line = dev.line();
        if line.starts_with("Ctrl-C") {
            break;
        }
        let command = line.trim_start();
        if command != line && command.contains("/tollgate ") {
            commands.push(command.to_owned());
        }
    }
    assert!(commands.len() >= 5, "{commands:?}");
    for command in commands {
        if command.contains("events tail") {
            let output = shell(&format!("{command} --limit 3"), &[]);
            assert_success(&command, &output);
        } else {
            assert_success(&command, &shell(&command, &[]));
        }
    }
}

/// Method: the README's block for real keys, with its folders moved to a temporary one and Stripe to a sandbox.
#[tokio::test(flavor = "multi_thread")]
async fn the_readme_s_way_to_serve_works() {
    let document = include_str!("../../README.md");
    let block = document.split("```sh\n").filter_map(|rest| rest.split("```").next());
    let block = block.into_iter().find(|block| block.contains("tollgate serve")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stripe-key"), crate::rig::KEY).unwrap();
    std::fs::write(folder.path().join("webhook"), crate::rig::SECRET).unwrap();
    std::fs::write(folder.path().join("caller-token"), crate::rig::TOKEN).unwrap();
    let here = folder.path().display().to_string();
    let script =
        block.replace("/run/secrets", &here).replace("/var/lib", &here).replace("/etc/tollgate", &here);
    assert_eq!(script.matches(&here).count(), 5, "{block}");
    let sandbox = crate::rig::sandbox(std::sync::Arc::new(tollgate::domain::clock::SystemClock::new())).await;
    let stripe = format!("http://{}", sandbox.address());
    let folder_of_program = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let mut process = Command::new("sh")
        .args(["-euc", &script])
        .env_clear()
        .env("PATH", format!("{folder_of_program}:/usr/bin:/bin"))
        .env("TOLLGATE_STRIPE_API_BASE", &stripe)
        .env("TOLLGATE_STRIPE_FILES_BASE", &stripe)
        .envs(["GRPC", "WEBHOOK", "OPS"].map(|port| (format!("TOLLGATE_LISTEN_{port}"), "127.0.0.1:0")))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(process.stderr.take().unwrap());
    let (told, lines) = mpsc::channel();
    std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
    let ready = std::iter::from_fn(|| lines.recv_timeout(START).ok()).find(|line| line.contains("\"ready\""));
    let ready: serde_json::Value = serde_json::from_str(&ready.expect("it gets ready")).unwrap();
    let text = ready.to_string();
    let grpc = text.split("\"grpc\":\"").nth(1).unwrap().split('"').next().unwrap();
    let channel = crate::rig::connect(grpc.parse().unwrap()).await;
    let wire =
        tonic::service::interceptor::InterceptedService::new(channel, crate::rig::Token(crate::rig::TOKEN));
    let mut balance = tollgate::proto::v1::balance_service_client::BalanceServiceClient::new(wire);
    balance.get_balance(tollgate::proto::v1::GetBalanceRequest::default()).await.unwrap();
    assert!(Command::new("kill").arg(process.id().to_string()).status().unwrap().success());
    assert!(process.wait().unwrap().success());
}

/// Method: the same document with one broken command.
#[test]
fn a_command_that_fails_is_noticed() {
    let blocks = marked("text\n```sh\n# run\ntrue\nfalse\n```\n```sh\nnot run\n```\n");
    assert_eq!(blocks, ["true\nfalse\n"]);
    assert!(!shell(&blocks[0], &[]).status.success());
}
