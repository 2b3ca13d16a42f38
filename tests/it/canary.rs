//! Secrets and personal values are planted and looked for wherever the gateway leaves something behind: logs of every
//! level and form, spans, metrics, errors, the audit log and its exports, what commands show, core dumps and `/proc`. Each
//! search has to find something that is no secret, or it proves nothing.

mod process;

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::ExposeSecret as _;
use tollgate::config::{self, Environment, Flags};
use tollgate::domain::secret::Secret;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{CreateCustomerRequest, CreateRefundRequest, GetCustomerRequest};
use tollgate::sandbox::Fault;
use tollgate::stripe::Key;
use tonic::{Request, Status};

use crate::rig::{operation, until};
use crate::trace;
use process::{Form, Process, sandbox_process};

/// What nothing may show.
const KEY: &str = "sk_test_CanaryOfTheKey4eC39HqLyjWD";
const HOOK: &str = "whsec_CanaryOfTheWebhookSecret9X";
const TOKEN: &str = "CanaryOfTheToken-7f3a9c1e5b2d";
const JWT_BODY: &str = r#"{"iss":"https://canary.example","sub":"CanaryOfTheSubject"}"#;
const PERSON: &str = "canary.of.a.person@example.com";
const NAME: &str = "Canaria Ofaperson";
/// What everything may show, so that a search which finds nothing at all is found out.
const MARKER: &str = "order-marker-of-the-canaries";

fn jwt() -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"RS256","kid":"canary"}"#), part(JWT_BODY), part("CanarySignature"))
}

/// The canaries that every search looks for, each as it is and as it would look encoded.
fn canaries() -> Vec<Vec<u8>> {
    let jwt = jwt();
    let mut all: Vec<_> = [KEY, HOOK, TOKEN, &jwt, PERSON, NAME].into_iter().flat_map(encodings).collect();
    all.push(jwt.split('.').nth(1).unwrap().as_bytes().to_vec());
    all
}

fn encodings(canary: &str) -> [Vec<u8>; 4] {
    // Whole groups of three bytes are the same wherever the text ends.
    let groups = &canary.as_bytes()[..canary.len() / 3 * 3];
    let escaped = canary.replace('@', "%40").replace(' ', "+");
    [
        canary.as_bytes().to_vec(),
        hex(canary.as_bytes()),
        STANDARD_NO_PAD.encode(groups).into_bytes(),
        escaped.into_bytes(),
    ]
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let text = bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    text.into_bytes()
}

/// The secret number of a private key in PEM: as it is, in hexadecimal digits, and the parts of its text that no line
/// break of PEM cuts.
fn secret_number(pem: &[u8]) -> Vec<Vec<u8>> {
    let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
    let der = key.secret_der();
    // An octet string of 32 bytes (RFC 5915), which this form of key has behind 36 others.
    assert_eq!(&der[34..36], [0x04, 0x20]);
    let parts = [&der[36..48], &der[48..60]].map(|part| STANDARD_NO_PAD.encode(part).into_bytes());
    assert!(parts.iter().all(|part| holds(pem, part)), "the file itself shows them");
    parts.into_iter().chain([der[36..68].to_vec(), hex(&der[36..68])]).collect()
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// What is looked for, and what was found so far; all places are searched before the first find fails the test.
struct Search {
    canaries: Vec<Vec<u8>>,
    found: Vec<String>,
}

impl Search {
    /// Looks for these beside the canaries that are always looked for.
    fn with(more: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { canaries: canaries().into_iter().chain(more).collect(), found: Vec::new() }
    }

    /// No canary may be there.
    fn clean(&mut self, place: &str, haystack: impl AsRef<[u8]>) {
        let haystack = haystack.as_ref();
        for canary in &self.canaries {
            if let Some(at) = haystack.windows(canary.len()).position(|window| window == canary) {
                let around = &haystack[at.saturating_sub(200)..(at + canary.len() + 100).min(haystack.len())];
                self.found.push(format!("{place} shows a canary: {}", String::from_utf8_lossy(around)));
            }
        }
    }

    /// The same, where something that is no secret must be found.
    fn clean_but_for(&mut self, place: &str, haystack: impl AsRef<[u8]>, marker: &str) {
        if !holds(haystack.as_ref(), marker.as_bytes()) {
            self.found.push(format!("{place} does not even show `{marker}`"));
        }
        self.clean(place, haystack);
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.found.is_empty(), "{}", self.found.join("\n\n"));
        }
    }
}

fn customer(order: &str) -> CreateCustomerRequest {
    CreateCustomerRequest {
        operation: operation(order, ""),
        email: Some(PERSON.to_owned()),
        name: Some(NAME.to_owned()),
        description: Some(format!("{NAME} <{PERSON}>")),
        ..Default::default()
    }
}

/// Has the gateway make a token, which it shows this once.
async fn made_token(process: &Process) -> String {
    let said = process.cli(&["tokens", "create", "canary", "-o", "json"]).await;
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    said["token"].as_str().unwrap().to_owned()
}

/// Everything that a caller can do wrong or right with personal values, and the errors that come of it; `made` is a token
/// that the gateway made.
async fn exercise(process: &Process, made: &str) -> Vec<Status> {
    let mut errors = Vec::new();
    let mut note = |result: Result<(), Status>| errors.extend(result.err());
    let mut customers = CustomerServiceClient::new(process.wire(made).await);
    let customer_made =
        customers.create_customer(customer(MARKER)).await.unwrap().into_inner().customer.unwrap();
    customers.create_customer(customer(MARKER)).await.unwrap();
    let request = GetCustomerRequest { id: customer_made.id, ..Default::default() };
    customers.get_customer(request).await.unwrap();
    // Other parameters, a faulty value, no order, an object that does not exist.
    let other = CreateCustomerRequest { email: Some(format!("x{PERSON}")), ..customer(MARKER) };
    note(customers.create_customer(other).await.map(drop));
    let long = CreateCustomerRequest { email: Some(PERSON.repeat(50)), ..customer("too-long") };
    note(customers.create_customer(long).await.map(drop));
    note(
        customers.create_customer(CreateCustomerRequest { operation: None, ..customer("") }).await.map(drop),
    );
    let missing = GetCustomerRequest { id: "cus_none".to_owned(), ..Default::default() };
    note(customers.get_customer(missing).await.map(drop));
    // Trouble at Stripe, of each kind once.
    for (turn, fault) in
        ["status:POST:/v1/customers:status=402", "html:*:/v1/customers", "half_body:*:/v1/customers"]
            .into_iter()
            .enumerate()
    {
        process.control().add_fault(
            Fault::parse(&format!("{fault}:times=1").replace(":status=402:", ":status=402,")).unwrap(),
        );
        let mut request = Request::new(customer(&format!("trouble-{turn}")));
        request.set_timeout(std::time::Duration::from_millis(400));
        note(customers.create_customer(request).await.map(drop));
        process.control().clear_faults();
    }
    let refund = CreateRefundRequest {
        operation: operation("no-payment", ""),
        payment_intent: Some("pi_none".to_owned()),
        metadata: [("who".to_owned(), PERSON.to_owned())].into(),
        ..Default::default()
    };
    note(RefundServiceClient::new(process.wire(TOKEN).await).create_refund(refund).await.map(drop));
    // Credentials that are not taken.
    for wrong in [format!("{TOKEN}x"), format!("{made}x"), jwt(), KEY.to_owned()] {
        let mut customers = CustomerServiceClient::new(process.wire(&wrong).await);
        note(customers.create_customer(customer("stranger")).await.map(drop));
    }
    // An event with personal values reaches the log; one that is not signed by us does not.
    let appended = |line: &str| line.starts_with("tollgate_events_appended_total{") && !line.ends_with(" 0");
    until(async || process.metrics().await.lines().any(appended).then_some(())).await;
    process.post_webhook(&format!(r#"{{"id":"evt_1","customer":"{PERSON}"}}"#)).await;
    assert!(errors.len() >= 9, "{errors:?}");
    errors
}

async fn look_everywhere(form: Form) {
    let (collector, endpoint) = trace::collector().await;
    let mut process = Process::start(form, &endpoint, KEY, HOOK, TOKEN).await;
    let made = made_token(&process).await;
    assert!(made.starts_with("tgt_"), "{made}");
    // What follows the name: 32 random bytes and a checksum, in hexadecimal digits.
    let digits = &made[made.len() - 72..made.len() - 8];
    let bytes = (0..64).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    let key = secret_number(&process.read("key.pem"));
    let mut search = Search::with(encodings(digits).into_iter().chain([bytes]).chain(key));
    let errors = Box::pin(exercise(&process, &made)).await;
    for status in &errors {
        let details = String::from_utf8_lossy(status.details());
        search.clean("an error", format!("{status:?} {status} {details} {:?}", status.metadata()));
    }
    // Settings that cannot be taken, with a canary in them.
    process
        .break_settings(&format!("[stripe]\nkey = \"{KEY}\" oops\n[webhook]\nsecret = 5 # {HOOK}\n"))
        .await;
    search.clean_but_for("/readyz", process.get("/readyz").await, "not taken");
    process.mend_settings().await;
    search.clean_but_for("/metrics", process.metrics().await, "rpc_server_call_duration");

    for format in ["jsonl", "csv"] {
        let file = format!("export.{format}");
        let said = process.cli(&["audit", "export", "--to", &file, "--format", format]).await;
        search.clean("what an export says", [said.stdout, said.stderr].concat());
        search.clean_but_for("an export", process.read(&file), MARKER);
    }
    for (arguments, marker) in [
        (&["audit", "search", MARKER, "-o", "json"][..], MARKER),
        (&["audit", "trace", MARKER], MARKER),
        (&["tokens", "list", "-o", "json"], "canary"),
        (&["config", "show", "--config", "tollgate.toml"], "stripe.key"),
        (&["doctor", "--config", "tollgate.toml"], "PASS"),
    ] {
        let said = process.cli(arguments).await;
        search.clean_but_for(&arguments.join(" "), [said.stdout, said.stderr].concat(), marker);
    }

    let entries = process.proc_entries();
    assert!(entries.iter().any(|(name, text)| name == "cmdline" && holds(text, b"serve")));
    let environ = entries.iter().find(|(name, _)| name == "environ").unwrap();
    assert!(holds(&environ.1, b"TOLLGATE_LOG"), "the environment can be read by this test");
    for (name, text) in &entries {
        search.clean(&format!("/proc/PID/{name}"), text);
    }
    if let Some(core) = process.gcore() {
        search.clean("a core that a debugger wrote", core);
    }
    process.terminate().await;
    search.clean_but_for("the log", process.log(), MARKER);
    search.clean_but_for("the spans", collector.text(), "CreateCustomer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_the_gateway_leaves_behind_shows_a_secret_with_logs_as_json() {
    Box::pin(look_everywhere(Form::Json)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_the_gateway_leaves_behind_shows_a_secret_with_logs_as_text() {
    Box::pin(look_everywhere(Form::Text)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_leaves_no_core_and_no_file_shows_its_secrets() {
    let (_collector, endpoint) = trace::collector().await;
    let mut process = Process::start(Form::Json, &endpoint, KEY, HOOK, TOKEN).await;
    CustomerServiceClient::new(process.wire(TOKEN).await).create_customer(customer(MARKER)).await.unwrap();
    assert!(!process.abort().await, "it dumped core");
    assert!(process.core().is_none());

    // The same death of a process that guards nothing leaves a core, in which the same search finds what it holds.
    let mut control = sandbox_process(MARKER);
    if let Some(core) = control.gcore() {
        assert!(holds(&core, MARKER.as_bytes()), "the search finds nothing in any core");
    }
    assert!(control.abort().await, "no process dumps core here");
    if let Some(core) = control.core() {
        assert!(holds(&core, MARKER.as_bytes()), "the search finds nothing in any core");
    }
}

#[test]
fn neither_debug_nor_a_panic_shows_a_secret() {
    let mut search = Search::with([]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    let text = format!(
        "data = \"{MARKER}\"\n[stripe]\nkey = \"{KEY}\"\n[webhook]\nsecret = \"{HOOK}\"\n[callers.a]\ntoken = \"{TOKEN}\"\n"
    );
    std::fs::write(&file, format!("policy.files = [\"{MARKER}\"]\n{text}")).unwrap();
    let environment: Environment = [("TOLLGATE_OTLP_ENDPOINT", "http://127.0.0.1:1")].into_iter().collect();
    let flags = Flags { config: Some(file), values: Vec::new() };
    let config = config::load(&flags, &environment).unwrap();
    search.clean_but_for("the settings", format!("{config:?} {config:#?}"), MARKER);
    let hidden: Environment = [("TOLLGATE_STRIPE_KEY", KEY), ("TOLLGATE_DATA", MARKER)].into_iter().collect();
    search.clean_but_for("the environment", format!("{hidden:?}"), "TOLLGATE_STRIPE_KEY");
    let (secret, key) = (Secret::from(KEY), Key::parse(KEY.into()).unwrap());
    search.clean("a key", format!("{secret:?} {key:?} {:?}", Some(&key)));
    let panicked = std::panic::catch_unwind(|| {
        assert!(secret.expose_secret().is_empty(), "{MARKER}: {config:?} {hidden:?} {secret:?} {key:?}");
    });
    let text = *panicked.unwrap_err().downcast::<String>().unwrap();
    search.clean_but_for("a panic", text, MARKER);
}

/// A secret given by a variable is out of sight as soon as the gateway runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_the_environment_is_taken_out_of_it_before_anything_starts() {
    let (_collector, endpoint) = trace::collector().await;
    let mut process = Process::start(Form::Json, &endpoint, KEY, HOOK, TOKEN).await;
    let environ = process.proc_entries().into_iter().find(|(name, _)| name == "environ").unwrap().1;
    assert!(!holds(&environ, b"TOLLGATE_STRIPE_KEY") && !holds(&environ, b"TOLLGATE_WEBHOOK_SECRET"));
    // Another process of the same user gets nothing at all of it, nor of the memory.
    let environ = format!("/proc/{}/environ", process.id());
    let owner = Command::new("stat").args(["-c", "%u", &environ]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&owner.stdout).trim(), "0", "only root may look");
    process.terminate().await;
}
