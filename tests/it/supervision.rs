//! A service manager that starts the gateway hears how it stands: ready, reloading, alive, stopping.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate::domain::clock::{SystemClock, awake};
use tollgate::sandbox::{Options, Sandbox};

/// Longer than anything here takes, so that a test which would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(60);
/// Within which the service manager wants signs of life.
const WATCHDOG: Duration = Duration::from_millis(100);

/// Stands in for systemd: the socket that it listens on, and the process that it started.
struct Manager {
    socket: UnixDatagram,
    gateway: Child,
}

impl Manager {
    fn start(folder: &TempDir, stripe: &str) -> Self {
        let at = folder.path();
        let socket = UnixDatagram::bind(at.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["serve", "--config"]).arg(at.join("tollgate.toml")).env_clear().current_dir(at);
        command.env("NOTIFY_SOCKET", at.join("notify"));
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        // A secret in the environment has the program begin anew, which must not cut the line.
        command.env("TOLLGATE_STRIPE_KEY", "sk_test_supervised");
        write_settings(folder, stripe, "whsec_one");
        let gateway = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { socket, gateway: gateway.unwrap() }
    }

    /// The next word of this kind, as the lines that it has; others are passed over.
    fn hears(&self, kind: &str) -> Vec<String> {
        loop {
            let mut text = [0; 4096];
            let length = match self.socket.recv(&mut text) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                received => received.expect("the gateway says something"),
            };
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.iter().any(|line| line.starts_with(kind)) {
                return lines;
            }
        }
    }

    fn signal(&self, name: &str) {
        let id = self.gateway.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// What systemd does for `systemctl reload`: the signal, a word that reloading began after it, and one when it is over.
    fn reload(&self) -> String {
        let before = awake();
        self.signal("-HUP");
        let reloading = self.hears("RELOADING=1");
        let at = reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(Duration::from_micros(at.parse().unwrap()) >= before, "{reloading:?}");
        self.hears("READY=1").concat()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        self.gateway.kill().ok();
    }
}

fn write_settings(folder: &TempDir, stripe: &str, secret: &str) {
    let at = folder.path().display();
    let text = format!(
        r#"
data = "{at}/data"
[stripe]
api_base = "http://{stripe}"
files_base = "http://{stripe}"
[webhook]
secret = "{secret}"
[listen]
grpc = "127.0.0.1:0"
webhook = "127.0.0.1:0"
ops = "127.0.0.1:0"
lame_duck_s = 0
"#
    );
    std::fs::write(folder.path().join("new"), text).unwrap();
    std::fs::rename(folder.path().join("new"), folder.path().join("tollgate.toml")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_of_every_state() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options::new("sk_test_supervised", Arc::new(SystemClock::new()));
    let sandbox = Sandbox::start(listener, options).await.unwrap();
    let stripe = sandbox.address().to_string();
    let story = move || {
        let folder = TempDir::new().unwrap();
        let mut manager = Manager::start(&folder, &stripe);
        assert_eq!(manager.hears("READY=1"), ["READY=1", "STATUS=serving"]);
        manager.hears("WATCHDOG=1");
        assert_eq!(manager.reload(), "READY=1STATUS=serving");
        write_settings(&folder, &stripe, "");
        let told = manager.reload();
        assert!(told.contains("older settings"), "{told}");
        write_settings(&folder, &stripe, "whsec_two");
        assert_eq!(manager.reload(), "READY=1STATUS=serving");
        manager.hears("WATCHDOG=1");
        manager.signal("-TERM");
        manager.hears("STOPPING=1");
        assert!(manager.gateway.wait().unwrap().success());
    };
    tokio::task::spawn_blocking(story).await.unwrap();
}
