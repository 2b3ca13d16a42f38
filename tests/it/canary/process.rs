//! The built binary as a process with secrets in its environment, and everything that can be seen of it from outside.
//! Nothing here judges.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate::config::ClientCertificates;
use tollgate::domain::clock::SystemClock;
use tollgate::sandbox::{Control, Handle, Options, Sandbox, WebhookTarget};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::rig::until;
use crate::tls::{Authority, authority, dial, settings};

/// The authority that the gateway's certificate is of.
const AUTHORITY: &str = "own.pem";
const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
/// Largest file below `/proc/PID` that is read; `mem` and `pagemap` are as large as the address space.
const PROC_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The form of log lines.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Json,
    Text,
}

/// Shows a credential.
#[derive(Clone)]
pub(super) struct Bearer(String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::try_from(format!("Bearer {}", self.0)).unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

/// A process that may dump core into its folder.
pub(super) struct Watched {
    child: Child,
    folder: TempDir,
}

impl Watched {
    /// With core dumps allowed, as they are on a machine whose operator wants them.
    fn start(folder: TempDir, arguments: &str, environment: &[(&str, &str)], log: &Path) -> Self {
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -c unlimited; exec '{TOLLGATE}' {arguments}")]);
        command.env_clear().envs(environment.iter().copied()).current_dir(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, folder }
    }

    /// Kills it as a failed assertion of the C library would; whether it dumped core.
    pub(super) async fn abort(&mut self) -> bool {
        signal("-ABRT", self.child.id());
        let status = until(async || self.child.try_wait().unwrap()).await;
        assert_eq!(status.signal(), Some(6), "{status}");
        status.core_dumped()
    }

    /// The core that it left in its folder, if any.
    pub(super) fn core(&self) -> Option<Vec<u8>> {
        let mut entries = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let core = entries.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("core"))?;
        Some(fs::read(core).unwrap())
    }

    /// What a debugger gets out of it; `None` where there is no debugger, or it is not let in.
    pub(super) fn gcore(&self) -> Option<Vec<u8>> {
        let at = self.folder.path().join("gcore");
        let mut debugger = Command::new("gcore");
        debugger.arg("-o").arg(&at).arg(self.child.id().to_string());
        let output = debugger.stdin(Stdio::null()).output().ok()?;
        let core = fs::read(format!("{}.{}", at.display(), self.child.id())).ok();
        println!("gcore: {}, {:?} bytes", output.status, core.as_ref().map(Vec::len));
        core
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A process that guards nothing, with `marker` in its memory.
pub(super) fn sandbox_process(marker: &str) -> Watched {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    Watched::start(folder, "sandbox --listen 127.0.0.1:0", &[("MARKER", marker)], &log)
}

/// A gateway and its sandbox.
pub(super) struct Process {
    watched: Watched,
    sandbox: Handle,
    key: String,
    hook: String,
    token: String,
    authority: Authority,
    log: PathBuf,
    grpc: SocketAddr,
    webhook: SocketAddr,
    ops: SocketAddr,
}

impl Process {
    /// Key and webhook secret come by variables, the caller's token stands in the settings, the key of TLS in a file of its
    /// own; logs say everything they can.
    pub(super) async fn start(form: Form, otlp: &str, key: &str, hook: &str, token: &str) -> Self {
        // An earlier one, set by another test, stays.
        drop(rustls::crypto::ring::default_provider().install_default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options::new(key, Arc::new(SystemClock::new()));
        let sandbox = Sandbox::start(listener, options).await.unwrap();
        let folder = TempDir::new().unwrap();
        let (at, stripe) = (folder.path().to_owned(), sandbox.address().to_string());
        let authority = authority();
        fs::write(at.join(AUTHORITY), authority.pem()).unwrap();
        settings(&at, &authority, &authority, ClientCertificates::Optional);
        write_settings(&at, &stripe, token);
        fs::write(at.join("rules.cedar"), "@id(\"all\") permit(principal, action, resource);\n").unwrap();
        let log = at.join("gateway.log");
        let format = match form {
            Form::Json => "json",
            Form::Text => "text",
        };
        let environment = [
            ("TOLLGATE_STRIPE_KEY", key),
            ("TOLLGATE_WEBHOOK_SECRET", hook),
            ("TOLLGATE_LOG", "trace"),
            ("TOLLGATE_LOG_FORMAT", format),
            ("TOLLGATE_OTLP_ENDPOINT", otlp),
            ("RUST_BACKTRACE", "1"),
        ];
        let watched = Watched::start(folder, "serve --config tollgate.toml", &environment, &log);
        let line = until(async || ready_line(&log)).await;
        let [grpc, webhook, ops] = ["grpc", "webhook", "ops"].map(|port| address(&line, port));
        let target = WebhookTarget {
            url: format!("http://{webhook}/webhooks/stripe"),
            secrets: vec![hook.to_owned()],
        };
        sandbox.control().set_webhooks(vec![target]);
        let [key, hook, token] = [key, hook, token].map(str::to_owned);
        Self { watched, sandbox, key, hook, token, authority, log, grpc, webhook, ops }
    }

    pub(super) fn id(&self) -> u32 {
        self.watched.child.id()
    }

    pub(super) fn control(&self) -> Control {
        self.sandbox.control()
    }

    fn config(&self) -> PathBuf {
        self.folder().join("tollgate.toml")
    }

    fn folder(&self) -> &Path {
        self.watched.folder.path()
    }

    pub(super) fn log(&self) -> Vec<u8> {
        fs::read(&self.log).unwrap()
    }

    pub(super) fn gcore(&self) -> Option<Vec<u8>> {
        self.watched.gcore()
    }

    pub(super) fn core(&self) -> Option<Vec<u8>> {
        self.watched.core()
    }

    pub(super) async fn abort(&mut self) -> bool {
        self.watched.abort().await
    }

    pub(super) async fn wire(&self, credential: &str) -> InterceptedService<Channel, Bearer> {
        let channel = dial(self.grpc, &self.authority, None).await.unwrap();
        InterceptedService::new(channel, Bearer(credential.to_owned()))
    }

    pub(super) async fn get(&self, path: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("http://{}{path}", self.ops)).send().await.unwrap().text().await.unwrap()
    }

    pub(super) async fn metrics(&self) -> String {
        self.get("/metrics").await
    }

    /// A webhook that nobody signed.
    pub(super) async fn post_webhook(&self, body: &str) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/webhooks/stripe", self.webhook);
        let request = client.post(url).header("stripe-signature", "t=1,v1=00").body(body.to_owned());
        assert_eq!(request.send().await.unwrap().status(), 400);
    }

    /// Writes settings that cannot be taken and waits until that is said.
    pub(super) async fn break_settings(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
        signal("-HUP", self.id());
        until(async || self.get("/readyz").await.contains("not taken").then_some(())).await;
    }

    pub(super) async fn mend_settings(&self) {
        write_settings(self.folder(), &self.sandbox.address().to_string(), &self.token);
        signal("-HUP", self.id());
        until(async || (!self.get("/readyz").await.contains("not taken")).then_some(())).await;
    }

    /// The command line as an operator has it, with the gateway's own settings.
    pub(super) async fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(TOLLGATE);
        command.args(arguments).env_clear().current_dir(self.folder()).stdin(Stdio::null());
        command.env("TOLLGATE_STRIPE_KEY", &self.key).env("TOLLGATE_WEBHOOK_SECRET", &self.hook);
        command.env("TOLLGATE_ADDRESS", format!("https://{}", self.grpc)).env("TOLLGATE_TLS_CA", AUTHORITY);
        command.env("TOLLGATE_TOKEN", &self.token);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// A file of its folder.
    pub(super) fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.folder().join(file)).unwrap()
    }

    /// What `/proc` shows of the process, by name; threads and open files among it.
    pub(super) fn proc_entries(&self) -> Vec<(String, Vec<u8>)> {
        let root = PathBuf::from(format!("/proc/{}", self.id()));
        let mut entries = Vec::new();
        for entry in fs::read_dir(&root).unwrap().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.file_type().unwrap().is_file()
                || ["mem", "pagemap", "clear_refs"].contains(&name.as_str())
            {
                continue;
            }
            let mut text = Vec::new();
            let Ok(file) = fs::File::open(entry.path()) else { continue };
            let mut file = std::io::Read::take(file, PROC_BYTES_MAX);
            // Some entries can be opened and not read.
            if std::io::Read::read_to_end(&mut file, &mut text).is_ok() {
                entries.push((name, text));
            }
        }
        for folder in ["fd", "task"] {
            let links = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
            let shown = links.filter_map(|path| fs::read_link(&path).or(Ok::<_, ()>(path)).ok());
            let text = shown.map(|path| path.display().to_string()).collect::<Vec<_>>().join("\n");
            entries.push((folder.to_owned(), text.into_bytes()));
        }
        entries
    }

    /// Ends it as a supervisor does, so that it sends its last spans.
    pub(super) async fn terminate(&mut self) {
        signal("-TERM", self.id());
        let ended = until(async || self.watched.child.try_wait().unwrap());
        let status = tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&self.log()));
    }
}

fn write_settings(at: &Path, stripe: &str, token: &str) {
    let text = format!(
        r#"
data = "{at}/data"
policy.files = ["{at}/rules.cedar"]
[stripe]
api_base = "http://{stripe}"
files_base = "http://{stripe}"
[traffic]
requests_per_s = 100000
endpoint_requests_per_s = 100000
requests_at_once_max = 10000
[listen]
grpc = "127.0.0.1:0"
webhook = "127.0.0.1:0"
ops = "127.0.0.1:0"
[tls]
certificate_file = "{at}/cert.pem"
key_file = "{at}/key.pem"
[callers.canary]
token = "{token}"
"#,
        at = at.display()
    );
    fs::write(at.join("tollgate.toml"), text).unwrap();
}

fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

/// The line that says where the gateway listens.
fn ready_line(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let said = |line: &&str| line.contains("\"message\":\"ready\"") || line.contains(" ready grpc=");
    text.lines().find(said).map(str::to_owned)
}

/// The address after a name, in JSON or in text.
fn address(line: &str, name: &str) -> SocketAddr {
    let (_, rest) =
        line.split_once(&format!("{name}=")).or(line.split_once(&format!("\"{name}\":\""))).unwrap();
    let end = rest.find([' ', '"']).unwrap_or(rest.len());
    rest[..end].parse().unwrap()
}
