//! `tollgate doctor` against a gateway's surroundings with one fault planted at a time: each has to be named with its fix,
//! and sound surroundings have to pass.

mod endpoints;

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpListener as Plain;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate::config::{self, Environment, Flags};
use tollgate::domain::clock::{Clock as _, SystemClock};
use tollgate::sandbox::{Fault, Further, Handle, Options, RestrictedKey, Sandbox};
use tollgate::server;
use tollgate::store::{Store, Terms};

const SECRET_KEY: &str = "sk_test_doctor";
const KEY: &str = "rk_test_doctor";
const VERSION: &str = "2026-10-28.endive";

/// Sound surroundings of a gateway, to be spoilt.
struct Stage {
    sandbox: Handle,
    folder: TempDir,
    toml: String,
    variables: Vec<(&'static str, String)>,
}

impl Stage {
    async fn new() -> Self {
        Self::with_accounts(Vec::new()).await
    }

    /// The same with accounts at Stripe that are connected to the first.
    async fn with_accounts(connected: Vec<Further>) -> Self {
        // The first client of this process needs one; another test may have set it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options {
            restricted_keys: vec![RestrictedKey::without(KEY, &[])],
            accounts: connected,
            ..Options::new(SECRET_KEY, Arc::new(SystemClock::new()))
        };
        let sandbox = Sandbox::start(listener, options).await.unwrap();
        let folder = TempDir::new().unwrap();
        let stage = Self { toml: String::new(), variables: Vec::new(), sandbox, folder };
        stage.secret("stripe_key", KEY);
        stage.secret("webhook_secret", "whsec_doctor");
        fs::create_dir(stage.path("data")).unwrap();
        stage.mode("data", 0o700);
        let base = format!("http://{}", stage.sandbox.address());
        let toml = format!(
            "data = \"{}\"\n[stripe]\nkey_file = \"{}\"\napi_base = \"{base}\"\nfiles_base = \"{base}\"\n\
             [webhook]\nsecret_file = \"{}\"\n\
             [listen]\ngrpc = \"127.0.0.1:0\"\nwebhook = \"127.0.0.1:0\"\nops = \"127.0.0.1:0\"\n",
            stage.path("data").display(),
            stage.path("stripe_key").display(),
            stage.path("webhook_secret").display(),
        );
        let stage = Self { toml, ..stage };
        stage.endpoint("*", VERSION).await;
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn secret(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        self.mode(name, 0o600);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn replace(&mut self, from: &str, to: &str) {
        assert!(self.toml.contains(from), "{from}");
        self.toml = self.toml.replacen(from, to, 1);
    }

    async fn stripe(&self, method: &str, path: &str, form: &str) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}{path}", self.sandbox.address());
        let answer = client
            .request(method.parse().unwrap(), url)
            .bearer_auth(SECRET_KEY)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned());
        serde_json::from_slice(&answer.send().await.unwrap().bytes().await.unwrap()).unwrap()
    }

    /// The one endpoint at Stripe, in place of what there was.
    async fn endpoint(&self, events: &str, version: &str) -> String {
        self.no_endpoint().await;
        let form = format!(
            "url=https://gateway.example/webhooks/stripe&enabled_events[0]={events}&api_version={version}"
        );
        self.stripe("POST", "/v1/webhook_endpoints", &form).await["id"].as_str().unwrap().to_owned()
    }

    async fn no_endpoint(&self) {
        let all = self.stripe("GET", "/v1/webhook_endpoints", "").await;
        for endpoint in all["data"].as_array().unwrap() {
            let path = format!("/v1/webhook_endpoints/{}", endpoint["id"].as_str().unwrap());
            self.stripe("DELETE", &path, "").await;
        }
    }

    /// A database that a gateway of this account has left.
    async fn database(&self, account: &str) {
        let store = Store::open(&self.path("data"), Terms::default()).unwrap();
        store.keep_setting(&server::pinned_at("default"), account.as_bytes().to_vec()).await.unwrap();
        store.close().await;
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let file = self.path("tollgate.toml");
        fs::write(&file, &self.toml).unwrap();
        self.mode("tollgate.toml", 0o600);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(arguments).arg("--config").arg(file).stdin(Stdio::null());
        for name in ["TOLLGATE_STRIPE_KEY", "TOLLGATE_CONFIG", "TOLLGATE_ADDRESS", "TOLLGATE_TOKEN"] {
            command.env_remove(name);
        }
        command.envs(self.variables.clone());
        command
    }

    /// What doctor says, and its exit code.
    fn doctor(&self) -> (Value, Option<i32>) {
        let output = self.command(&["doctor", "-o", "json"]).output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        for secret in [KEY, SECRET_KEY, "whsec_doctor", "whsec_environment", "not_a_webhook_secret"] {
            assert!(!said.to_string().contains(secret), "no secret is shown: {said:#}");
        }
        (said, output.status.code())
    }

    /// Doctor names this, with this fix.
    fn finds(&self, result: &str, check: &str, found: &str, fix: &str) {
        let (said, code) = self.doctor();
        let holds = |finding: &Value, name: &str, text: &str| {
            finding[name].as_str().unwrap_or_default().contains(text)
        };
        let named = said["checks"].as_array().unwrap().iter().any(|finding| {
            finding["check"] == check
                && finding["result"] == result
                && holds(finding, "found", found)
                && holds(finding, "fix", fix)
        });
        assert!(named, "{result} {check} `{found}` `{fix}`: {said:#}");
        assert_eq!(code, Some(i32::from(said["failed"] != 0)), "{said:#}");
        assert_eq!(result == "FAIL", said["failed"] != 0, "{said:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_surroundings_pass_and_a_running_gateway_is_asked() {
    let mut stage = Stage::new().await;
    let before = stage.sandbox.control().book()["effects"].clone();
    let (said, code) = stage.doctor();
    assert_eq!(stage.sandbox.control().book()["effects"], before, "rights are tried without an effect");
    assert_eq!((code, &said["failed"]), (Some(0), &Value::from(0)), "{said:#}");
    let checks = said["checks"].as_array().unwrap();
    let of = |check: &str| checks.iter().find(|finding| finding["check"] == check).unwrap();
    for check in
        ["config", "account", "clock", "key", "webhook-secret", "webhook-endpoint", "database", "ports"]
    {
        assert_eq!(of(check)["result"], "PASS", "{said:#}");
    }
    assert_eq!(fs::read_dir(stage.path("data")).unwrap().count(), 0, "it leaves nothing behind");

    let flags = Flags { config: Some(stage.path("tollgate.toml")), values: Vec::new() };
    let settings = config::load(&flags, &Environment::default()).unwrap();
    let gateway = server::start(settings, Arc::new(SystemClock::new())).await.unwrap();
    stage.finds("FAIL", "gateway", "nothing answers", "two gateways cannot share a folder");
    stage.replace("ops = \"127.0.0.1:0\"", &format!("ops = \"{}\"", gateway.ops));
    let (said, code) = stage.doctor();
    assert_eq!(code, Some(0), "{said:#}");
    let ready = said["checks"].as_array().unwrap().iter().any(|finding| finding["check"] == "gateway");
    assert!(ready && !said.to_string().contains("\"ports\""), "{said:#}");
    gateway.stop().await;

    stage.sandbox.control().add_fault(Fault::parse("drop_before:GET:/v1/account").unwrap());
    let settings = config::load(&flags, &Environment::default()).unwrap();
    let gateway = server::start(settings, Arc::new(SystemClock::new())).await.unwrap();
    let (said, _) = stage.doctor();
    let doubt = "it runs, and says: Stripe has not told yet whose the key of default is";
    assert!(said.to_string().contains(doubt), "{said:#}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_settings_are_named_with_their_fix() {
    let mut stage = Stage::new().await;
    stage.replace("grpc = ", "grcp = ");
    stage.finds("FAIL", "config", "`listen.grcp`: there is no such setting", "write `listen.grpc`");

    let mut stage = Stage::new().await;
    stage.replace("ops = \"127.0.0.1:0\"", "ops = \"everywhere\"");
    stage.finds("FAIL", "config", "`everywhere` is not an address", "set `listen.ops` anew");

    let stage = Stage::new().await;
    fs::remove_file(stage.path("stripe_key")).unwrap();
    stage.finds("FAIL", "config", "cannot read the file", "set `stripe.key` anew");

    let mut stage = Stage::new().await;
    stage.replace("[listen]", "[audit]\ncheckpoint_file = \"/does/not/exist/log\"\n[listen]");
    stage.finds("FAIL", "checkpoints", "/does/not/exist/log", "make its folder");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_key_are_named_with_their_fix() {
    let stage = Stage::new().await;
    stage.secret("stripe_key", "rk_test_other");
    stage.finds("FAIL", "account", "refused the key", "API keys");

    let stage = Stage::new().await;
    stage.sandbox.control().set_restricted_keys(vec![RestrictedKey::without(KEY, &["refund_write"])]);
    stage.finds(
        "FAIL",
        "key",
        "lacks the right `refunds:write` (`rak_refund_write`)",
        "allow `refunds:write`",
    );
    let (said, _) = stage.doctor();
    assert!(said.to_string().contains("RefundService.CreateRefund"), "{said:#}");

    stage
        .sandbox
        .control()
        .set_restricted_keys(vec![RestrictedKey::without(KEY, &["accounts_kyc_basic_read"])]);
    stage.finds("FAIL", "account", "may not read its own account", "allow it to read its account");

    let stage = Stage::new().await;
    stage.secret("stripe_key", SECRET_KEY);
    stage.finds("WARN", "key", "may do everything", "restricted key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_webhook_endpoints_are_named_with_their_fix() {
    let stage = Stage::new().await;
    stage.endpoint("*", "2025-09-30.clover").await;
    stage.finds(
        "FAIL",
        "webhook-endpoint",
        "`2025-09-30.clover`",
        "tollgate webhook register --url https://",
    );
    let id = stage.endpoint("*", VERSION).await;
    stage.stripe("POST", &format!("/v1/webhook_endpoints/{id}"), "disabled=true").await;
    stage.finds("FAIL", "webhook-endpoint", "is disabled", "enable it");
    stage.endpoint("refund.created", VERSION).await;
    stage.finds("FAIL", "webhook-endpoint", "refund.failed", "add these types");
    stage.no_endpoint().await;
    stage.finds("FAIL", "webhook-endpoint", "no webhook endpoint", "tollgate webhook register");

    let stage = Stage::new().await;
    stage.secret("webhook_secret", "sk_test_not_a_webhook_secret");
    stage.finds("FAIL", "webhook-secret", "does not begin with `whsec_`", "from the endpoint's page");
    stage.secret("webhook_secret", "whsec_a,whsec_b,whsec_c");
    stage.finds("WARN", "webhook-secret", "3 webhook secrets", "remove those");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_files_and_ports_are_named_with_their_fix() {
    let stage = Stage::new().await;
    stage.mode("data", 0o755);
    stage.finds("FAIL", "data-folder", "mode 755", "chmod 700");

    let mut stage = Stage::new().await;
    stage.mode("stripe_key", 0o644);
    stage.finds("WARN", "secret-files", "can read `stripe.key`", "chmod 600");
    stage.mode("stripe_key", 0o600);
    let by_file = format!("[webhook]\nsecret_file = \"{}\"\n", stage.path("webhook_secret").display());
    stage.replace(&by_file, "");
    stage.variables.push(("TOLLGATE_WEBHOOK_SECRET", "whsec_environment".to_owned()));
    stage.finds("WARN", "secret-files", "`TOLLGATE_WEBHOOK_SECRET`", "`webhook.secret_file`");

    let mut stage = Stage::new().await;
    let holder = Plain::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    stage.replace("grpc = \"127.0.0.1:0\"", &format!("grpc = \"{address}\""));
    stage.finds("FAIL", "ports", &format!("nothing can listen on `{address}`"), "`listen.grpc`");
    drop(holder);
    stage.replace("ops = \"127.0.0.1:0\"", &format!("ops = \"{address}\""));
    stage.finds("FAIL", "ports", &format!("nothing can listen on `{address}`"), "`listen.ops`");
    stage.replace(&format!("ops = \"{address}\""), "ops = \"192.0.2.1:7402\"");
    stage.finds("FAIL", "ports", "192.0.2.1", "an address of this machine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_database_are_named_with_their_fix() {
    let stage = Stage::new().await;
    stage.database("acct_1Other").await;
    stage.finds("FAIL", "database", "belongs to the account `acct_1Other`", "use a key of that account");
    let database = stage.path("data/tollgate.db");
    let mut bytes = fs::read(&database).unwrap();
    bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0x5a);
    fs::write(&database, bytes).unwrap();
    stage.finds("FAIL", "database", "damaged", "restore it from a copy");
    fs::remove_file(&database).unwrap();
    stage.finds("FAIL", "database", "its database is gone", "restore it from a copy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_callers_and_policies_are_named_with_their_fix() {
    let mut stage = Stage::new().await;
    stage.finds("WARN", "callers", "may do everything", "`tollgate policy init`");
    let policy = stage.path("policy.cedar");
    let settings = format!(
        "[policy]\nfiles = [\"{}\"]\n[callers.orders]\ntoken = \"token-of-the-orders\"\n\
         [callers.forgotten]\ntoken = \"token-of-the-forgotten\"\n[listen]",
        policy.display()
    );
    stage.replace("[listen]", &settings);
    let rule =
        |caller: &str| format!("@id(\"all\") permit(principal == Caller::\"{caller}\", action, resource);\n");
    fs::write(&policy, rule("orders")).unwrap();
    stage.finds("WARN", "policy", "no rule permits the caller `forgotten`", "`Caller::\"forgotten\"`");
    fs::write(&policy, rule("ordres")).unwrap();
    stage.finds("WARN", "policy", "names Caller::\"ordres\"", "correct the rule");
    fs::write(&policy, "permit(principal, action, resource").unwrap();
    stage.finds("FAIL", "policy", "policy.cedar", "tollgate policy check");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_certificates_are_named_with_their_fix() {
    let mut stage = Stage::new().await;
    let files = format!(
        "[tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n[listen]",
        stage.path("cert.pem").display(),
        stage.path("key.pem").display()
    );
    stage.replace("[listen]", &files);
    stage.finds("FAIL", "certificates", "cannot read the file", "put the file there");
    let issue = |stage: &Stage, lives_s: i64| {
        let (mut params, key) = (
            rcgen::CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap(),
            rcgen::KeyPair::generate().unwrap(),
        );
        let since_2000_s = SystemClock::new().wall() / 1_000 - 946_684_800 + lives_s;
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = params.not_before + Duration::from_secs(since_2000_s.try_into().unwrap());
        stage.secret("cert.pem", &params.self_signed(&key).unwrap().pem());
        stage.secret("key.pem", &key.serialize_pem());
    };
    issue(&stage, -3_600);
    stage.finds("FAIL", "certificates", "has expired", "put a certificate there that is valid");
    issue(&stage, 5 * 24 * 3_600);
    stage.finds("WARN", "certificates", "ends in", "put a new one in its place");
    issue(&stage, 365 * 24 * 3_600);
    stage.finds("PASS", "certificates", "valid for gateway.example", "");
    stage.mode("key.pem", 0o640);
    stage.finds("WARN", "secret-files", "can read `tls.key_file`", "chmod 600");
    stage.secret("key.pem", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    stage.finds("FAIL", "certificates", "is not that of the certificate", "the certificate was issued for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_another_account_are_named_with_its_alias() {
    let mut stage = Stage::new().await;
    let account = "[accounts.eu]\nkey = \"rk_test_stranger\"\nwebhook_secret = \"whsec_eu\"\n[listen]";
    stage.replace("[listen]", account);
    stage.finds("FAIL", "account", "account `eu`: Stripe refused the key", "API keys");
}

/// Answers everything with an account, and with a date of long ago.
fn stopped_clock() -> std::net::SocketAddr {
    let listener = Plain::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            let body = r#"{"id":"acct_1Old","object":"account"}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ndate: Wed, 01 Jan 2020 00:00:00 GMT\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_off_and_a_stripe_out_of_reach_are_named_with_their_fix() {
    let mut stage = Stage::new().await;
    let (sandbox, old) = (stage.sandbox.address().to_string(), stopped_clock().to_string());
    stage.replace(&sandbox, &old);
    stage.finds("FAIL", "clock", "s apart", "NTP");
    stage.replace(&old, "127.0.0.1:1");
    stage.finds("FAIL", "account", "no answer from Stripe", "firewall");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_a_key_lacks_are_shown_while_the_gateway_serves() {
    let stage = Stage::new().await;
    let control = stage.sandbox.control();
    control.set_restricted_keys(vec![RestrictedKey::without(KEY, &["dispute_write", "customer_read"])]);
    drop(stage.command(&["doctor"]));
    let flags = Flags { config: Some(stage.path("tollgate.toml")), values: Vec::new() };
    let settings = config::load(&flags, &Environment::default()).unwrap();
    let gateway = server::start(settings, Arc::new(SystemClock::new())).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let page = crate::rig::until(async || {
        let answer = client.get(format!("http://{}/metrics", gateway.ops)).send().await.unwrap();
        let page = String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap();
        page.contains("tollgate_right=").then_some(page)
    })
    .await;
    let missing: Vec<&str> =
        page.lines().filter(|line| line.starts_with("tollgate_stripe_rights_missing{")).collect();
    assert_eq!(missing.len(), 1, "to write is to read: {missing:?}");
    let expected = "tollgate_account=\"default\",tollgate_right=\"disputes:write\"";
    assert!(missing[0].contains(expected), "{missing:?}");
    gateway.stop().await;
}
