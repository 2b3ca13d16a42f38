//! The proof by a broken disk: under a running gateway with its load of changes and webhooks, writes, syncs and opens fail
//! once, now and then or until the disk is mended. Meanwhile changes are refused and reads go on, afterwards all is served
//! again by the same process, and at the end three records that know nothing of each other are compared.
//! `TOLLGATE_PROVE_FAULTS` says how often the disk breaks, `TOLLGATE_PROVE_SEED` brings a run's choices back.

mod breaker;

use std::time::Duration;

use tempfile::TempDir;
use tollgate::proto::v1::GetCustomerRequest;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::sandbox::WebhookTarget;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use self::breaker::{Breakage, Broken};
use crate::crash::change::{Change, Operation};
use crate::crash::end::{Ended, end};
use crate::crash::gateway::Gateway;
use crate::crash::load::Load;
use crate::crash::random::Random;
use crate::crash::records::Book;
use crate::crash::{start_sandbox, stock};
use crate::prove;
use crate::rig::{SECRET, TOKEN, Token, Wire};

const FAULTS_DEFAULT: u64 = 8;
/// How long one probe waits for its answer.
const PROBE_WAIT: Duration = Duration::from_secs(10);
/// Probes until the service has to be back, with their pause.
const PROBES_MAX: usize = 300;
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// How long the load works undisturbed between two faults.
const CALM: Duration = Duration::from_millis(300);
const SHOWN_MAX: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_disk_refuses_changes_spares_reads_and_loses_nothing() {
    let faults = prove::setting("TOLLGATE_PROVE_FAULTS").unwrap_or(FAULTS_DEFAULT);
    let seed = prove::seed();
    let mut random = Random::new(seed);
    let folder = TempDir::new().unwrap();
    let sandbox = start_sandbox(seed).await;
    let control = sandbox.control();
    let mut gateway =
        Gateway::new(env!("CARGO_BIN_EXE_tollgate").into(), None, folder.path(), sandbox.address());
    let url = format!("http://{}/webhooks/stripe", gateway.webhook);
    control.set_webhooks(vec![WebhookTarget { url, secrets: vec![SECRET.to_owned()] }]);
    let stock = stock(&control);
    let seeded = Book::read(&control).effects.len();
    let channel = Endpoint::from_shared(format!("http://{}", gateway.grpc)).unwrap().connect_lazy();
    let wire = InterceptedService::new(channel, Token(TOKEN));
    let customer = stock.customers[0].clone();
    let load = Load::new(wire.clone(), stock, seed);
    gateway.spawn();
    gateway.ready().await;
    let mut callers = load.start(&mut random);
    let mut probe = Probe { load: &load, wire, customer, seed, probes: 0, wrong: Vec::new() };
    let (mut refused, mut bitten) = (0, 0);
    for number in 0..faults {
        tokio::time::sleep(CALM).await;
        let breakage = Breakage::by_chance(&mut random);
        let output = folder.path().join(format!("fault-{number}"));
        let mut broken = Broken::attach(gateway.id(), &gateway.data(), &breakage, output).await;
        if broken.bites().await {
            bitten += 1;
            drop(control.trigger("customer.created"));
            Box::pin(probe.during(&breakage)).await;
        }
        refused += broken.mend().await;
        probe.until_served(&breakage).await;
    }
    let probes = probe.probes;
    let wrong = probe.wrong;
    load.end();
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    load.settle(&mut random).await;
    let Ended { history, effects, acknowledged, violations } =
        end(&load, &mut gateway, &control, seeded, 0).await;
    for (rule, found) in &violations {
        println!("  {:>5} x {}", found.len(), rule.says());
        found.iter().take(SHOWN_MAX).for_each(|one| println!("          {one}"));
    }
    wrong.iter().for_each(|one| println!("  {one}"));
    let total = violations.values().map(Vec::len).sum::<usize>() + wrong.len();
    let note = format!(
        "{bitten} met a write, {refused} calls refused, {} operations, {probes} probes, {effects} effects, \
         {acknowledged} webhooks acknowledged",
        history.len()
    );
    prove::keep("disk", seed, faults, total, &note);
    sandbox.stop().await;
    assert!(bitten * 2 > faults, "most faults met no write");
    assert_eq!(total, 0, "see the lines above; seed {seed}");
}

/// A caller that looks whether changes and reads are served.
struct Probe<'a> {
    load: &'a Load,
    wire: Wire,
    customer: String,
    seed: u64,
    probes: usize,
    wrong: Vec<String>,
}

impl Probe<'_> {
    /// While the disk is broken.
    async fn during(&mut self, breakage: &Breakage) {
        let request = GetCustomerRequest { id: self.customer.clone(), ..Default::default() };
        let mut client = CustomerServiceClient::new(self.wire.clone());
        let read = Box::pin(client.get_customer(request)).await;
        if let Err(status) = read {
            self.wrong.push(format!("a read failed during {breakage:?}: {status}"));
        }
        if breakage.stops_writing() && self.change().await {
            self.wrong.push(format!("a change succeeded during {breakage:?}"));
        }
        if breakage.passes() {
            self.until_served(breakage).await;
        }
    }

    /// A change of its own; answers whether it succeeded. It is settled with the load's in the end.
    async fn change(&mut self) -> bool {
        self.probes += 1;
        let change = Change::CreateCustomer { name: format!("Probe {}", self.probes) };
        let order = format!("probe-{}-{}", self.seed, self.probes);
        let operation = Operation { order, id: "1".to_owned(), change };
        let at = self.load.add(operation.clone());
        Box::pin(self.load.ask_within(at, &operation, PROBE_WAIT)).await.is_none()
    }

    async fn until_served(&mut self, breakage: &Breakage) {
        for _ in 0..PROBES_MAX {
            if self.change().await {
                return;
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
        self.wrong.push(format!("changes were not served again after {breakage:?}"));
    }
}
