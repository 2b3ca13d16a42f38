//! Settings exchanged while the gateway runs and calls go on: nothing that may go on fails or ends, what may not ends, and
//! what cannot be taken leaves everything as it was.

mod place;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tollgate::proto::v1::audit_service_client::AuditServiceClient;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::subscribe_request::Start;
use tollgate::proto::v1::subscribe_response::Item;
use tollgate::proto::v1::subscription_service_client::SubscriptionServiceClient;
use tollgate::proto::v1::{
    ConsumeRequest, CreateCustomerRequest, CreateSubscriptionRequest, GetCustomerRequest,
    SearchAuditRecordsRequest, SubscribeRequest, SubscribeResponse,
};
use tollgate::sandbox::RestrictedKey;
use tonic::{Code, Status, Streaming};

use crate::log::Lines;
use crate::rig::{operation, until};
use place::{Caller, Place, Wire};

/// Longer than anything here takes, so that a test which would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(60);
/// Within which an open stream of a caller that was cut off ends, from the word to read the settings: in the median, since
/// a machine on which other tests run may hold any one of them up.
const CUT_OFF_MAX: Duration = Duration::from_secs(1);
/// Within which each of them does, whatever else runs: none is forgotten.
const CUT_OFF_EACH_MAX: Duration = Duration::from_secs(10);
/// Calls that must have ended well between two changes, so that each change happens under load.
const CALLS_BETWEEN: u64 = 20;

/// In the last event of all.
const MARKER: &str = "the-last-event-of-all";
const FIXED: &str = "token-that-stays-for-good";
const OLD: &str = "token-that-is-rotated-away";
const NEW: &str = "token-that-comes-instead";

fn stays(tokens: &[&str]) -> Caller {
    Caller { name: "stays", tokens: tokens.iter().map(|&token| token.to_owned()).collect() }
}

fn leaves(number: usize) -> Caller {
    let name = ["leaves-0", "leaves-1", "leaves-2"][number];
    Caller { name, tokens: vec![format!("token-of-a-caller-that-{name}")] }
}

fn permits(rule: &str) -> String {
    format!("@id(\"{rule}\") permit(principal, action, resource);\n")
}

/// Calls without a pause until it is told to stop, and what came of them.
#[derive(Clone, Default)]
struct Load {
    stop: Arc<AtomicBool>,
    succeeded: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<Status>>>,
}

impl Load {
    /// One worker that makes and reads customers.
    async fn work(self, worker: usize, wire: Wire) {
        let mut customers = CustomerServiceClient::new(wire);
        for turn in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let request = CreateCustomerRequest {
                operation: operation(&format!("load-{worker}-{turn}"), ""),
                ..Default::default()
            };
            let made = match customers.create_customer(request).await {
                Ok(made) => made.into_inner().customer.unwrap_or_default().id,
                Err(status) => {
                    self.failed.lock().unwrap().push(status);
                    continue;
                }
            };
            let request = GetCustomerRequest { id: made, ..Default::default() };
            match customers.get_customer(request).await {
                Ok(_) => drop(self.succeeded.fetch_add(1, Ordering::SeqCst)),
                Err(status) => self.failed.lock().unwrap().push(status),
            }
        }
    }

    /// Returns once so many further calls have ended well.
    async fn goes_on(&self) {
        let from = self.succeeded.load(Ordering::SeqCst);
        until(async || {
            assert!(self.failed.lock().unwrap().is_empty(), "{:?}", self.failed.lock().unwrap());
            (self.succeeded.load(Ordering::SeqCst) >= from + CALLS_BETWEEN).then_some(())
        })
        .await;
    }
}

async fn subscribe(wire: Wire, start: Option<Start>) -> Streaming<SubscribeResponse> {
    let request = SubscribeRequest { start, ..SubscribeRequest::default() };
    EventServiceClient::new(wire).subscribe(request).await.unwrap().into_inner()
}

/// Reads until the stream ends, and gives the positions that it had.
async fn read_to_its_end(mut stream: Streaming<SubscribeResponse>, last: &str) -> (Vec<u64>, Option<Status>) {
    let mut positions = Vec::new();
    loop {
        match timeout(PATIENCE, stream.message()).await.expect("something comes") {
            Ok(Some(SubscribeResponse { item: Some(Item::Event(event)), .. })) => {
                positions.push(event.position);
                if event.json.contains(last) {
                    return (positions, None);
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return (positions, Some(Status::ok("it ended without a word"))),
            Err(status) => return (positions, Some(status)),
        }
    }
}

fn everybody(tokens: &[&str]) -> Vec<Caller> {
    vec![stays(tokens), leaves(0), leaves(1), leaves(2)]
}

/// Who is left when the callers to this one are gone.
fn without(gone: usize, tokens: &[&str]) -> Vec<Caller> {
    std::iter::once(stays(tokens)).chain((gone + 1..3).map(leaves)).collect()
}

/// Both keys, then the old one is gone at Stripe, then in the settings too.
async fn exchange_the_key(place: &Place, load: &Load, old: RestrictedKey, new: RestrictedKey) {
    place.control().set_restricted_keys(vec![old, new.clone()]);
    place.exchange("stripe_key", "rk_test_new,rk_test_old\n").await;
    load.goes_on().await;
    place.control().set_restricted_keys(vec![new]);
    load.goes_on().await;
    place.exchange("stripe_key", "rk_test_new\n").await;
    load.goes_on().await;
}

/// Both secrets, then Stripe signs with the new one, then the old one is gone.
async fn exchange_the_webhook_secret(place: &Place, load: &Load) {
    place.exchange("webhook_secret", "whsec_old\nwhsec_new\n").await;
    place.deliver_with("whsec_new");
    load.goes_on().await;
    place.until_delivered().await;
    place.exchange("webhook_secret", "whsec_new\n").await;
    load.goes_on().await;
}

/// Both tokens, then the caller shows the new one, then the old one is gone.
async fn exchange_a_token(place: &Place, load: &Load, shown: &Mutex<String>) {
    place.exchange_callers(&everybody(&[FIXED, OLD, NEW])).await;
    NEW.clone_into(&mut shown.lock().unwrap());
    load.goes_on().await;
    place.exchange_callers(&everybody(&[FIXED, NEW])).await;
    load.goes_on().await;
}

/// An open stream of a caller that leaves, read until it ends: the middle one's is of a named subscription.
async fn opened(place: &Place, gone: usize) -> JoinHandle<Status> {
    let wire = place.wire(&leaves(gone).tokens[0]);
    if gone != 1 {
        return tokio::spawn(end(subscribe(wire, None).await));
    }
    let mut client = SubscriptionServiceClient::new(wire);
    let name = || "work".to_owned();
    let creation = CreateSubscriptionRequest { name: name(), ..Default::default() };
    client.create_subscription(creation).await.unwrap();
    let request = ConsumeRequest { name: name(), ..Default::default() };
    tokio::spawn(end(client.consume(request).await.unwrap().into_inner()))
}

/// How a stream ends; what comes before is passed over.
async fn end<T>(mut stream: Streaming<T>) -> Status {
    loop {
        match timeout(PATIENCE, stream.message()).await.expect("something comes") {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok("it ended without a word"),
            Err(status) => return status,
        }
    }
}

/// Takes a caller with an open stream out of the settings; how long the stream goes on.
async fn cut_off(place: &Place, gone: usize, left: &[Caller]) -> Duration {
    let reading = opened(place, gone).await;
    place.write_callers(left);
    let cut = Instant::now();
    place.read_again();
    let end = reading.await.unwrap();
    let took = cut.elapsed();
    assert_eq!(end.code(), Code::Unauthenticated, "{end:?}");
    took
}

fn assert_soon(mut took: Vec<Duration>) {
    took.sort_unstable();
    assert!(took[took.len() / 2] < CUT_OFF_MAX, "the median of {took:?} is too long");
    assert!(took[took.len() - 1] < CUT_OFF_EACH_MAX, "one of {took:?} is too long");
}

/// Callers are cut off one after the other, each with an open stream.
async fn cut_callers_off(place: &Place, load: &Load) {
    let mut took = Vec::new();
    for gone in 0..3 {
        load.goes_on().await;
        took.push(cut_off(place, gone, &without(gone, &[FIXED, NEW])).await);
        place.until_taken_over().await;
    }
    assert_soon(took);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_exchanged_under_load_and_nothing_fails_that_may_go_on() {
    let old_key = RestrictedKey::without("rk_test_old", &[]);
    let new_key = RestrictedKey::without("rk_test_new", &[]);
    let mut place = Place::start("rk_test_old", std::slice::from_ref(&old_key)).await;
    place.write_callers(&everybody(&[FIXED, OLD]));
    place.write("rules.cedar", &permits("first"));
    place.serve().await;

    let rotated = Arc::new(Mutex::new(OLD.to_owned()));
    let load = Load::default();
    let mut workers = JoinSet::new();
    for worker in 0..3 {
        workers.spawn(load.clone().work(worker, place.wire_of(Arc::clone(&rotated))));
    }
    let stream = subscribe(place.wire(FIXED), Some(Start::Earliest(true))).await;
    let watched = tokio::spawn(read_to_its_end(stream, MARKER));
    load.goes_on().await;

    exchange_the_key(&place, &load, old_key, new_key).await;
    exchange_the_webhook_secret(&place, &load).await;
    exchange_a_token(&place, &load, &rotated).await;
    place.exchange("rules.cedar", &permits("second")).await;
    load.goes_on().await;
    let shown = place.shown_certificate().await;
    place.exchange_certificate().await;
    load.goes_on().await;
    assert_ne!(place.shown_certificate().await, shown, "who connects now is shown the new one");
    cut_callers_off(&place, &load).await;

    load.goes_on().await;
    load.stop.store(true, Ordering::SeqCst);
    while workers.join_next().await.is_some() {}
    assert!(load.failed.lock().unwrap().is_empty(), "{:?}", load.failed.lock().unwrap());
    let request = CreateCustomerRequest {
        operation: operation("last", ""),
        description: Some(MARKER.to_owned()),
        ..Default::default()
    };
    CustomerServiceClient::new(place.wire(NEW)).create_customer(request).await.unwrap();
    let (positions, end) = watched.await.unwrap();
    assert!(end.is_none(), "the stream of a caller that stays ended: {end:?}");
    assert!(positions.iter().copied().eq(1..=positions.len() as u64), "{positions:?}");
    let refused = place.sample("tollgate_webhook_deliveries_total", "bad_signature").await;
    assert_eq!(refused.unwrap_or_default(), 0.0);

    let records = recorded(place.wire(NEW)).await;
    for changed in [
        "stripe.key",
        "webhook.secret",
        "callers.stays.token",
        "callers.leaves-2.token",
        "policy.files",
        "tls.certificate_file",
        "tls.key_file",
    ] {
        assert!(records.iter().any(|note| note.contains(changed)), "{changed}: {records:?}");
    }
    let all = records.join("\n");
    for secret in ["rk_test", "whsec", FIXED, OLD, NEW] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
}

/// What the records of exchanged settings say.
async fn recorded(wire: Wire) -> Vec<String> {
    let request =
        SearchAuditRecordsRequest { rpc: "tollgate/reload".to_owned(), page_size: 100, ..Default::default() };
    let answer = AuditServiceClient::new(wire).search_audit_records(request).await.unwrap().into_inner();
    answer.records.into_iter().map(|record| record.note).collect()
}

// One thread, so that everything that the gateway does reports to this test's subscriber and to no other.
#[tokio::test(flavor = "current_thread")]
async fn what_cannot_be_taken_keeps_the_old_and_says_so_until_it_is_mended() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(lines.clone());
    let dispatch = tracing::Dispatch::new(subscriber.finish());
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let here = tracing::dispatcher::set_default(&dispatch);
    let mut place = Place::start("rk_test_old", &[RestrictedKey::without("rk_test_old", &[])]).await;
    place.write_callers(&[stays(&[FIXED])]);
    place.write("rules.cedar", &permits("first"));
    place.serve().await;
    let mut customers = CustomerServiceClient::new(place.wire(FIXED));
    for (turn, (file, broken, named)) in [
        ("tollgate.toml", "data = \"unfinished", "config"),
        ("tollgate.toml", "dta = \"x\"", "dta"),
        ("rules.cedar", "permit(principal", "policy.files"),
        ("rules.cedar", "permit(principal, action, resource);", "policy.files"),
        ("stripe_key", "rk_test_unknown_to_stripe", "the key of default"),
        ("stripe_key", "pk_test_publishable", "stripe.key"),
        ("webhook_secret", "", "webhook.secret"),
        ("tls/data/certificate.pem", "no certificate", "tls"),
    ]
    .into_iter()
    .enumerate()
    {
        let sound = place.read(file);
        place.write(file, broken);
        let said = place.until_concern(true).await;
        assert!(said.starts_with("ready\n") && said.contains(named), "{file}: {said}");
        assert!(!said.contains("unknown_to_stripe") && !said.contains("publishable"), "{said}");
        assert_eq!(place.sample("tollgate_config_reload_failed", "").await, Some(1.0));
        let request = CreateCustomerRequest {
            operation: operation(&format!("meanwhile-{turn}"), ""),
            ..Default::default()
        };
        customers.create_customer(request).await.unwrap();
        place.write(file, &sound);
        place.until_concern(false).await;
        assert_eq!(place.sample("tollgate_config_reload_failed", "").await, Some(0.0));
    }
    place.stop().await;
    drop(here);
    let log = lines.text();
    let failures: Vec<&str> =
        log.lines().filter(|line| line.contains("the new settings are not taken")).collect();
    assert!(failures.len() >= 8 && failures.iter().all(|line| line.contains("\"ERROR\"")), "{failures:#?}");
    for named in ["dta", "rules.cedar", "stripe.key", "webhook.secret"] {
        assert!(failures.iter().any(|line| line.contains(named)), "{named}: {failures:#?}");
    }
    assert!(!log.contains("unknown_to_stripe") && !log.contains("pk_test_publishable"), "{log}");
}

#[tokio::test]
async fn settings_that_wait_for_a_restart_are_left_alone() {
    let mut place = Place::start("rk_test_old", &[RestrictedKey::without("rk_test_old", &[])]).await;
    place.write_callers(&[stays(&[FIXED])]);
    place.write("rules.cedar", &permits("first"));
    place.serve().await;
    let before = place.read("tollgate.toml");
    place.exchange("tollgate.toml", &format!("{before}[guards]\nopen_dispute = \"refuse\"\n")).await;
    let records = recorded(place.wire(FIXED)).await;
    assert!(records.is_empty(), "nothing was changed: {records:?}");
    assert_eq!(place.sample("tollgate_config_reload_failed", "").await, Some(0.0));
    place.stop().await;
}

#[tokio::test]
async fn the_last_caller_goes_by_a_restart_alone() {
    let mut place = Place::start("rk_test_old", &[RestrictedKey::without("rk_test_old", &[])]).await;
    place.write_callers(&[stays(&[FIXED])]);
    place.write("rules.cedar", &permits("first"));
    place.serve().await;
    place.write_callers(&[]);
    let said = place.until_concern(true).await;
    assert!(said.contains("not taken: callers"), "{said}");
    let stranger = CustomerServiceClient::new(place.wire("token-of-nobody-at-all"))
        .get_customer(GetCustomerRequest { id: "cus_1".to_owned(), ..Default::default() })
        .await
        .unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_elsewhere_does_not_keep_in_who_was_taken_away() {
    let mut place = Place::start("rk_test_old", &[RestrictedKey::without("rk_test_old", &[])]).await;
    place.write_callers(&everybody(&[FIXED, OLD]));
    place.write("rules.cedar", &permits("first"));
    place.serve().await;
    let shown = place.shown_certificate().await;
    let rotated = tokio::spawn(read_to_its_end(subscribe(place.wire(OLD), None).await, MARKER));

    place.write("rules.cedar", "permit(principal");
    place.until_concern(true).await;
    place.issue("2");
    let mut took = Vec::new();
    for gone in 0..3 {
        took.push(cut_off(&place, gone, &without(gone, &[FIXED, OLD, NEW])).await);
    }
    assert_soon(took);

    // Now what is wrong are the settings themselves.
    place.write("webhook_secret", "");
    place.write_callers(&[stays(&[FIXED, NEW])]);
    assert_eq!(rotated.await.unwrap().1.unwrap().code(), Code::Unauthenticated);
    let said = until(async || {
        let said = place.until_concern(true).await;
        said.contains("callers.stays").then_some(said)
    })
    .await;
    assert!(said.contains("not taken: webhook.secret; taken away already: callers.leaves-0"), "{said}");

    let get = async |token: &str| {
        let request = GetCustomerRequest { id: "cus_none".to_owned(), ..Default::default() };
        CustomerServiceClient::new(place.wire(token)).get_customer(request).await.unwrap_err().code()
    };
    assert_eq!(get(FIXED).await, Code::NotFound, "who stays goes on");
    assert_eq!(get(NEW).await, Code::Unauthenticated, "nobody new is let in");
    assert_eq!(place.shown_certificate().await, shown, "nothing else is taken");
    let records = recorded(place.wire(FIXED)).await;
    assert!(records.iter().any(|note| note.contains("taken away: callers.leaves-0")), "{records:?}");
    assert!(records.iter().all(|note| !note.starts_with("changed")), "{records:?}");

    place.write("rules.cedar", &permits("second"));
    place.write("webhook_secret", "whsec_old");
    place.until_concern(false).await;
    assert_eq!(get(NEW).await, Code::NotFound, "what was meant is taken once nothing is wrong");
    assert_ne!(place.shown_certificate().await, shown);
    place.stop().await;
}

#[tokio::test]
async fn a_settings_file_that_is_emptied_changes_nothing() {
    let mut place = Place::start("rk_test_old", &[RestrictedKey::without("rk_test_old", &[])]).await;
    place.write_callers(&[stays(&[FIXED])]);
    place.write("rules.cedar", &permits("first"));
    place.serve().await;
    place.write("tollgate.toml", "");
    let said = place.until_concern(true).await;
    assert!(said.contains("config") && !said.contains("taken away"), "{said}");
    let request = GetCustomerRequest { id: "cus_none".to_owned(), ..Default::default() };
    let status = CustomerServiceClient::new(place.wire(FIXED)).get_customer(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    place.stop().await;
}
