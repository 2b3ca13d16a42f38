//! A gateway and a sandbox in this process, on free ports, with clients. Nothing here judges.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate::config::{self, Config, Environment, Flags};
use tollgate::domain::clock::{Clock, ManualClock, SystemClock};
use tollgate::proto::v1::OperationRef;
use tollgate::sandbox::{Control, Further, Handle, Options, Sandbox, WebhookTarget};
use tollgate::server::{self, Running};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub(crate) const KEY: &str = "sk_test_rig";
/// A further account of the sandbox with a key of its own.
pub(crate) const EUROPE: &str = "acct_1SandboxEurope";
pub(crate) const EUROPE_KEY: &str = "sk_test_rig_europe";
/// The key of the organisation that all accounts of the sandbox are of.
pub(crate) const ORGANISATION_KEY: &str = "sk_org_rig";
/// An account that is connected to the first.
pub(crate) const CONNECTED: &str = "acct_1SandboxShop";
pub(crate) const SECRET: &str = "whsec_rig_secret_for_tests";
pub(crate) const TOKEN: &str = "token-of-the-rig-caller";
pub(crate) const OPERATOR_TOKEN: &str = "token-of-the-rig-operator";

/// What the callers of the rig may do, and any others that a test adds.
pub(crate) const POLICY: &str = r#"
@id("rig")
permit (principal, action, resource) unless { action in Action::"admin" };
@id("operator")
permit (principal == Caller::"operator", action, resource);
"#;

/// Everything that a test needs.
pub(crate) struct Rig {
    sandbox: Option<Handle>,
    pub(crate) gateway: Running,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) data: TempDir,
    channel: Channel,
}

/// Sends the caller's token.
#[derive(Clone)]
pub(crate) struct Token(pub(crate) &'static str);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = format!("Bearer {}", self.0);
        request.metadata_mut().insert("authorization", MetadataValue::try_from(value).unwrap());
        Ok(request)
    }
}

pub(crate) type Wire = InterceptedService<Channel, Token>;

impl Rig {
    /// A sandbox, and a gateway in front of it that gets its webhooks.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock::new().wall()));
        Self::start_at(Arc::clone(&clock), clock, adjust).await
    }

    /// The same with a clock of its own for the gateway.
    pub(crate) async fn start_at(
        stripe_clock: Arc<ManualClock>,
        clock: Arc<ManualClock>,
        adjust: impl FnOnce(&mut Config),
    ) -> Self {
        let data = TempDir::new().unwrap();
        let sandbox = sandbox(stripe_clock as Arc<dyn Clock>).await;
        let mut config = config(sandbox.address(), &data);
        adjust(&mut config);
        let gateway = server::start(config, Arc::clone(&clock) as Arc<dyn Clock>).await.unwrap();
        Self::around(sandbox, gateway, clock, data).await
    }

    async fn around(sandbox: Handle, gateway: Running, clock: Arc<ManualClock>, data: TempDir) -> Self {
        let channel = connect(gateway.grpc).await;
        let rig = Self { sandbox: Some(sandbox), gateway, clock, data, channel };
        rig.deliver_webhooks();
        rig
    }

    /// Has the sandbox deliver its events to the gateway from now on.
    pub(crate) fn deliver_webhooks(&self) {
        let url = format!("http://{}/webhooks/stripe", self.gateway.webhook);
        self.control().set_webhooks(vec![WebhookTarget { url, secrets: vec![SECRET.to_owned()] }]);
    }

    /// Stops the gateway and starts it again on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.restart_after(|_| {}).await
    }

    /// The same, with something done to the data folder in between.
    pub(crate) async fn restart_after(self, between: impl FnOnce(&Path)) -> Self {
        self.restarted(between, |_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn restart_with(self, adjust: impl FnOnce(&mut Config)) -> Self {
        self.restarted(|_| {}, adjust).await
    }

    /// The same with both.
    pub(crate) async fn restarted(
        self,
        between: impl FnOnce(&Path),
        adjust: impl FnOnce(&mut Config),
    ) -> Self {
        let Self { sandbox, gateway, clock, data, .. } = self;
        let sandbox = sandbox.unwrap();
        gateway.stop().await;
        between(&data.path().join("data"));
        let mut config = config(sandbox.address(), &data);
        adjust(&mut config);
        let gateway = server::start(config, Arc::clone(&clock) as Arc<dyn Clock>).await.unwrap();
        Self::around(sandbox, gateway, clock, data).await
    }

    /// Ends the gateway without any grace and starts it again on the same data with other settings.
    pub(crate) async fn killed_with(self, adjust: impl Fn(&mut Config)) -> Self {
        let Self { sandbox, gateway, clock, data, .. } = self;
        let sandbox = sandbox.unwrap();
        drop(gateway);
        // What it had begun lets the folder go a moment later.
        let gateway = until(async || {
            let mut config = config(sandbox.address(), &data);
            adjust(&mut config);
            server::start(config, Arc::clone(&clock) as Arc<dyn Clock>).await.ok()
        })
        .await;
        Self::around(sandbox, gateway, clock, data).await
    }

    /// The same with its Stripe gone.
    pub(crate) async fn without_stripe(mut self) -> Self {
        self.sandbox.take().unwrap().stop().await;
        self
    }

    /// Where the sandbox listens.
    pub(crate) fn stripe_address(&self) -> SocketAddr {
        self.sandbox.as_ref().unwrap().address()
    }

    pub(crate) fn control(&self) -> Control {
        self.sandbox.as_ref().unwrap().control()
    }

    /// What operators scrape.
    pub(crate) async fn metrics(&self) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/metrics", self.gateway.ops);
        client.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// What the metrics show of one: see [`sample`].
    pub(crate) async fn sample(&self, metric: &str, label: &str) -> Option<f64> {
        sample(&self.metrics().await, metric, label)
    }

    /// Control of one of the sandbox's accounts.
    pub(crate) fn control_of(&self, account_id: &str) -> Control {
        self.sandbox.as_ref().unwrap().control_of(account_id).unwrap()
    }

    /// The wire of the caller that is configured.
    pub(crate) fn wire(&self) -> Wire {
        InterceptedService::new(self.channel.clone(), Token(TOKEN))
    }

    /// The wire of the operator that is configured.
    pub(crate) fn operator(&self) -> Wire {
        InterceptedService::new(self.channel.clone(), Token(OPERATOR_TOKEN))
    }

    /// A connection without a token.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A succeeded payment of so much, made at Stripe and not through the gateway.
    pub(crate) async fn payment(&self, amount: i64) -> String {
        self.payment_with("pm_card_bypassPending", amount).await
    }

    /// A succeeded payment with a certain test card.
    pub(crate) async fn payment_with(&self, card: &str, amount: i64) -> String {
        let form = format!(
            "amount={amount}&currency=usd&payment_method={card}&confirm=true&automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never"
        );
        let payment = self.stripe("/v1/payment_intents", &form).await;
        assert_eq!(payment["status"], "succeeded", "{payment}");
        payment["id"].as_str().unwrap().to_owned()
    }

    /// A POST straight to the sandbox.
    pub(crate) async fn stripe(&self, path: &str, form: &str) -> serde_json::Value {
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .post(format!("http://{}{path}", self.stripe_address()))
            .bearer_auth(KEY)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned())
            .send()
            .await
            .unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    /// A GET straight from the sandbox.
    pub(crate) async fn stripe_get(&self, path: &str) -> serde_json::Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}{path}", self.stripe_address());
        let answer = client.get(url).bearer_auth(KEY).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    /// How many refunds the sandbox carried out.
    pub(crate) fn refunds_made(&self) -> usize {
        let book = self.control().book();
        let effects = book["effects"].as_array().unwrap();
        effects.iter().filter(|effect| effect["path"] == "/v1/refunds").count()
    }
}

/// A reference for one change.
pub(crate) fn operation(order_id: &str, operation_id: &str) -> Option<OperationRef> {
    Some(OperationRef { order_id: order_id.into(), operation_id: operation_id.into(), retry_refused: false })
}

pub(crate) async fn sandbox(clock: Arc<dyn Clock>) -> Handle {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let further = |id: &str, key: Option<&str>| Further {
        account_id: id.to_owned(),
        secret_key: key.map(str::to_owned),
    };
    let accounts = vec![further(EUROPE, Some(EUROPE_KEY)), further(CONNECTED, None)];
    let organisation_key = Some(ORGANISATION_KEY.to_owned());
    let options = Options { accounts, organisation_key, ..Options::new(KEY, clock) };
    Sandbox::start(listener, options).await.unwrap()
}

/// The configuration of the rig's gateway, by the way that a user's takes.
pub(crate) fn config(stripe: SocketAddr, data: &TempDir) -> Config {
    let file = data.path().join("tollgate.toml");
    let policy = data.path().join("policy.cedar");
    let text = format!(
        r#"
data = "{}"
[stripe]
key = "{KEY}"
api_base = "http://{stripe}"
files_base = "http://{stripe}"
[traffic]
requests_per_s = 100000
endpoint_requests_per_s = 100000
requests_at_once_max = 10000
[webhook]
secret = "{SECRET}"
[listen]
lame_duck_s = 0
grpc = "127.0.0.1:0"
webhook = "127.0.0.1:0"
ops = "127.0.0.1:0"
[policy]
files = ["{}"]
[events]
sweep_reads_per_day = 0
[callers.rig]
token = "{TOKEN}"
[callers.operator]
token = "{OPERATOR_TOKEN}"
"#,
        data.path().join("data").display(),
        policy.display()
    );
    std::fs::write(&file, text).unwrap();
    std::fs::write(&policy, POLICY).unwrap();
    let flags = Flags { config: Some(file), values: Vec::new() };
    config::load(&flags, &Environment::default()).unwrap()
}

pub(crate) async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// The sum of what a page of metrics shows of this one, over all series in whose labels the text stands; `None` where there
/// is none.
pub(crate) fn sample(page: &str, metric: &str, label: &str) -> Option<f64> {
    let of_metric = page.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    let samples =
        of_metric.filter_map(|rest| rest.rsplit_once("} ")).filter(|(labels, _)| labels.contains(label));
    samples.map(|(_, value)| value.parse::<f64>().unwrap()).reduce(|sum, value| sum + value)
}

/// Waits until something holds; a generous limit turns a hang into a failure.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1500 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came true");
}
