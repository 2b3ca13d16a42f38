//! A gateway in this process that reads its settings from files and follows them, beside a sandbox. Nothing here judges.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate::config::{Environment, Flags, Loader};
use tollgate::domain::clock::{Clock, SystemClock};
use tollgate::sandbox::{Control, Handle, Options, RestrictedKey, Sandbox, WebhookTarget};
use tollgate::server::{self, Running, Supervisor};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::service_fn;

use crate::rig::{sample, until};

/// How many deliveries the sandbox has under way at the most.
const UNDER_WAY_MAX: usize = 16;

/// What the gateway's certificate is for.
const NAME: &str = "gateway.example";

/// A caller and its tokens.
pub(super) struct Caller {
    pub(super) name: &'static str,
    pub(super) tokens: Vec<String>,
}

/// Sends whatever token stands in its place at the moment of a call.
#[derive(Clone)]
pub(super) struct Token(Arc<Mutex<String>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = format!("Bearer {}", self.0.lock().unwrap());
        request.metadata_mut().insert("authorization", MetadataValue::try_from(value).unwrap());
        Ok(request)
    }
}

pub(super) type Wire = InterceptedService<Channel, Token>;

/// Gateway, sandbox, and the files between which the gateway's settings stand.
pub(super) struct Place {
    folder: TempDir,
    sandbox: Handle,
    again: Arc<Notify>,
    authority: CertifiedIssuer<'static, KeyPair>,
    serving: Option<(Running, Channel)>,
}

impl Place {
    /// A sandbox that takes these keys, and files with a key and a webhook secret.
    pub(super) async fn start(key: &str, keys: &[RestrictedKey]) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options { restricted_keys: keys.to_vec(), ..Options::new("sk_test_root", clock) };
        let sandbox = Sandbox::start(listener, options).await.unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (folder, again) = (TempDir::new().unwrap(), Arc::default());
        let place = Self { folder, sandbox, again, authority, serving: None };
        fs::create_dir(place.path("tls")).unwrap();
        place.issue("1");
        place.write("stripe_key", key);
        place.write("webhook_secret", "whsec_old");
        place
    }

    /// Starts the gateway, which follows its files from then on.
    pub(super) async fn serve(&mut self) {
        let flags = Flags { config: Some(self.path("tollgate.toml")), values: Vec::new() };
        let loader = Loader::new(flags, Environment::default());
        let config = loader.load().config.unwrap();
        let mut gateway = server::start(config, Arc::new(SystemClock::new())).await.unwrap();
        gateway.follow(loader, Arc::clone(&self.again), Supervisor::default());
        let channel = self.connect(gateway.grpc).await;
        self.serving = Some((gateway, channel));
        self.deliver_with("whsec_old");
        until(async || (self.taken().await > 0.0).then_some(())).await;
    }

    pub(super) async fn stop(&mut self) {
        let (gateway, channel) = self.serving.take().unwrap();
        drop(channel);
        gateway.stop().await;
    }

    fn gateway(&self) -> &Running {
        &self.serving.as_ref().unwrap().0
    }

    pub(super) fn control(&self) -> Control {
        self.sandbox.control()
    }

    /// A certificate with its key in a folder, and a link to it in the place of the one before, as Kubernetes does it.
    pub(super) fn issue(&self, version: &str) {
        let folder = self.path("tls").join(version);
        fs::create_dir(&folder).unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let issuer: &Issuer<'_, KeyPair> = &self.authority;
        fs::write(folder.join("certificate.pem"), params.signed_by(&key, issuer).unwrap().pem()).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        symlink(version, self.path("tls/new")).unwrap();
        fs::rename(self.path("tls/new"), self.path("tls/data")).unwrap();
    }

    pub(super) async fn exchange_certificate(&self) {
        let before = self.taken().await;
        self.issue("2");
        until(async || (self.taken().await > before).then_some(())).await;
    }

    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    async fn connect(&self, address: SocketAddr) -> Channel {
        let connector = self.connector();
        let connect = move |_| {
            let connector = connector.clone();
            async move { tls(&connector, address).await.map(TokioIo::new) }
        };
        let endpoint = Endpoint::from_static("http://gateway.example");
        endpoint.connect_with_connector(service_fn(connect)).await.unwrap()
    }

    /// The certificate that a new connection is shown.
    pub(super) async fn shown_certificate(&self) -> Vec<u8> {
        let stream = tls(&self.connector(), self.gateway().grpc).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    /// Has the sandbox sign what it delivers with this secret.
    pub(super) fn deliver_with(&self, secret: &str) {
        let url = format!("http://{}/webhooks/stripe", self.gateway().webhook);
        self.control().set_webhooks(vec![WebhookTarget { url, secrets: vec![secret.to_owned()] }]);
    }

    /// A wire that shows this token.
    pub(super) fn wire(&self, token: &str) -> Wire {
        self.wire_of(Arc::new(Mutex::new(token.to_owned())))
    }

    /// A wire that shows what stands there.
    pub(super) fn wire_of(&self, token: Arc<Mutex<String>>) -> Wire {
        InterceptedService::new(self.serving.as_ref().unwrap().1.clone(), Token(token))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(super) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    /// Puts a file in the place of another, as editors and deployments do.
    pub(super) fn write(&self, file: &str, text: &str) {
        let new = self.path(&format!("{file}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(file)).unwrap();
    }

    /// Writes the settings with these callers.
    pub(super) fn write_callers(&self, callers: &[Caller]) {
        let (at, stripe) = (self.folder.path().display(), self.sandbox.address());
        let mut text = format!(
            r#"
data = "{at}/data"
policy.files = ["{at}/rules.cedar"]
[stripe]
key_file = "{at}/stripe_key"
api_base = "http://{stripe}"
files_base = "http://{stripe}"
[traffic]
requests_per_s = 100000
endpoint_requests_per_s = 100000
requests_at_once_max = 10000
[webhook]
secret_file = "{at}/webhook_secret"
[listen]
grpc = "127.0.0.1:0"
webhook = "127.0.0.1:0"
ops = "127.0.0.1:0"
[tls]
certificate_file = "{at}/tls/data/certificate.pem"
key_file = "{at}/tls/data/key.pem"
"#
        );
        for Caller { name, tokens } in callers {
            text += &format!("[callers.{name}]\ntoken = {tokens:?}\n");
        }
        self.write("tollgate.toml", &text);
    }

    /// Puts a file in the place of another and waits until the gateway has taken it over by itself.
    pub(super) async fn exchange(&self, file: &str, text: &str) {
        let before = self.taken().await;
        self.write(file, text);
        until(async || (self.taken().await > before).then_some(())).await;
    }

    pub(super) async fn exchange_callers(&self, callers: &[Caller]) {
        let before = self.taken().await;
        self.write_callers(callers);
        until(async || (self.taken().await > before).then_some(())).await;
    }

    /// What SIGHUP does.
    pub(super) fn read_again(&self) {
        self.again.notify_one();
    }

    /// Waits until the files as they stand have been taken over.
    pub(super) async fn until_taken_over(&self) {
        let before = self.taken().await;
        self.read_again();
        until(async || (self.taken().await > before).then_some(())).await;
    }

    /// Waits until so many events have been delivered that none is on its way any more that an older secret signed.
    pub(super) async fn until_delivered(&self) {
        let delivered = || self.control().book()["acknowledged"].as_array().unwrap().len();
        let from = delivered();
        until(async || (delivered() >= from + 2 * UNDER_WAY_MAX).then_some(())).await;
    }

    async fn get(&self, path: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}{path}", self.gateway().ops);
        client.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// What the metrics show of one: see [`sample`].
    pub(super) async fn sample(&self, metric: &str, label: &str) -> Option<f64> {
        sample(&self.get("/metrics").await, metric, label)
    }

    /// How often settings have been taken.
    async fn taken(&self) -> f64 {
        self.sample("tollgate_config_reloads_total", "\"taken\"").await.unwrap_or_default()
    }

    /// What `/readyz` says once it has a concern, or has none any more.
    pub(super) async fn until_concern(&self, is_wanted: bool) -> String {
        until(async || {
            let said = self.get("/readyz").await;
            ((said.lines().count() > 1) == is_wanted).then_some(said)
        })
        .await
    }
}

async fn tls(connector: &TlsConnector, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    connector.connect(NAME.try_into().unwrap(), stream).await
}
