//! The consumers of a named subscription: they share it, acknowledge most events, reject some, forget others, and are
//! killed at random moments. They remember what they were given and what they answered, and judge nothing but what no
//! gateway may answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tollgate::domain::clock::{Clock as _, SystemClock};
use tollgate::proto::v1::create_subscription_request::Start;
use tollgate::proto::v1::reject_request::Verdict;
use tollgate::proto::v1::subscription_service_client::SubscriptionServiceClient;
use tollgate::proto::v1::{
    AcknowledgeRequest, ConsumeRequest, ConsumeResponse, CreateSubscriptionRequest, DeliveryOptions,
    GetSubscriptionRequest, RejectRequest,
};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use super::super::random::Random;
use super::reader::{AGAIN_MS_MAX, SILENCE_MAX, passing};
use crate::rig::{TOKEN, Token, Wire};

/// Name of the subscription.
const NAME: &str = "proof";
/// A short lease, so that what was forgotten comes again within the proof.
const LEASE_S: i32 = 2;
/// No event is given out so often: what is parked was parked by a consumer.
const ATTEMPTS_MAX: i32 = 100;
const IN_FLIGHT_MAX: i32 = 200;
/// Events that a consumer takes before it answers for them, at most, and how long it waits for another.
const TAKES_MAX: usize = 32;
const TAKES_WITHIN: Duration = Duration::from_millis(10);
/// One round of a consumer in so many is its last.
const DIES_ONE_IN: u64 = 60;
/// How often it is looked at whether all is dealt with in the end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the consumers of a subscription were given and what they answered, by position in the log.
#[derive(Default)]
pub(crate) struct Consumed {
    /// In the order in which they came, over all consumers.
    pub(super) given: Vec<Given>,
    pub(super) settled: BTreeMap<u64, Settled>,
    pub(super) wrong: Vec<String>,
    pub(super) deaths: usize,
    pub(super) streams: usize,
    /// Answers without a word of the gateway, which may count or not.
    pub(super) unclear: usize,
}

/// One delivery.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) position: u64,
    pub(super) id: String,
    /// When the gateway gave it out, by its clock, which is that of this machine.
    pub(super) at_ms: i64,
}

/// When an event was acknowledged, parked or skipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    /// When that was first asked for.
    pub(super) asked_ms: i64,
    /// When it was first confirmed, if ever.
    pub(super) confirmed_ms: Option<i64>,
}

/// What all consumers share.
pub(super) struct Subscription {
    grpc: SocketAddr,
    consumed: Mutex<Consumed>,
}

/// One of them.
struct Consumer {
    name: String,
    client: Client,
    shared: Arc<Subscription>,
    random: Random,
}

type Client = SubscriptionServiceClient<Wire>;

/// An event that is to be answered for.
struct Open {
    position: u64,
    ack_id: String,
}

impl Subscription {
    pub(super) fn new(grpc: SocketAddr) -> Arc<Self> {
        Arc::new(Self { grpc, consumed: Mutex::default() })
    }

    /// Creates the subscription at the beginning of the log; tries until there is a gateway.
    pub(super) async fn create(&self) {
        let request = CreateSubscriptionRequest {
            name: NAME.to_owned(),
            start: Some(Start::Earliest(true)),
            options: Some(DeliveryOptions {
                lease_s: LEASE_S,
                max_in_flight: IN_FLIGHT_MAX,
                max_attempts: ATTEMPTS_MAX,
                ..DeliveryOptions::default()
            }),
            ..CreateSubscriptionRequest::default()
        };
        while let Err(status) = client(self.grpc).create_subscription(request.clone()).await {
            assert!(passing(&status), "the subscription was not created: {status:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Consumes, under a name of its own, until all is dealt with or it is time to give up.
    pub(super) async fn consume(self: Arc<Self>, number: usize, random: Random, end: watch::Receiver<bool>) {
        let name = format!("consumer-{number}");
        let client = client(self.grpc);
        let mut consumer = Consumer { name, client, shared: self, random };
        while !*end.borrow() {
            consumer.live(end.clone()).await;
            tokio::time::sleep(consumer.random.pause(AGAIN_MS_MAX)).await;
        }
    }

    /// Waits until nothing is left to be acknowledged; what never is shows when the records are compared.
    pub(super) async fn all_is_settled(&self, head: u64, patience: Duration) {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let request = GetSubscriptionRequest { name: NAME.to_owned() };
            let answer = client(self.grpc).get_subscription(request).await.unwrap().into_inner();
            let status = answer.subscription.unwrap().status.unwrap();
            if status.position >= head && status.lag_events == 0 {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.consumed().wrong.push("it never came up to the head".to_owned());
    }

    pub(super) fn consumed(&self) -> MutexGuard<'_, Consumed> {
        self.consumed.lock().unwrap()
    }
}

impl Consumer {
    /// One stream, until it breaks or the consumer dies.
    async fn live(&mut self, end: watch::Receiver<bool>) {
        let request = ConsumeRequest { name: NAME.to_owned(), consumer: self.name.clone(), max_in_flight: 0 };
        let mut stream = match self.client.consume(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return self.broken(&status),
        };
        self.shared.consumed().streams += 1;
        let mut since = Instant::now();
        while !*end.borrow() {
            match self.take(&mut stream).await {
                Ok(None) if since.elapsed() > SILENCE_MAX => {
                    return self.broken(&Status::deadline_exceeded("a stream was silent"));
                }
                Ok(None) => {}
                Ok(Some(open)) => {
                    since = Instant::now();
                    // Killed with the events in its hands.
                    if self.random.below(DIES_ONE_IN) == 0 {
                        self.shared.consumed().deaths += 1;
                        return;
                    }
                    self.answer(open).await;
                }
                Err(status) => return self.broken(&status),
            }
        }
    }

    /// The next events, if any came in time; a sign of life is none.
    async fn take(&mut self, stream: &mut Streaming<ConsumeResponse>) -> Result<Option<Vec<Open>>, Status> {
        let mut open = Vec::new();
        let mut alive = false;
        while open.len() < TAKES_MAX {
            let Ok(message) = timeout(TAKES_WITHIN, stream.message()).await else { break };
            let message = message?.ok_or_else(|| Status::data_loss("a stream ended without a status"))?;
            alive = true;
            let (Some(event), Some(delivery)) = (message.event, message.delivery) else { continue };
            let lease_end = delivery.lease_end.unwrap_or_default();
            let lease_end_ms = lease_end.seconds * 1000 + i64::from(lease_end.nanos) / 1_000_000;
            let at_ms = lease_end_ms - i64::from(LEASE_S) * 1000;
            let position = event.position;
            self.shared.consumed().given.push(Given { position, id: event.id, at_ms });
            open.push(Open { position, ack_id: delivery.ack_id });
        }
        Ok(alive.then_some(open))
    }

    /// Acknowledges most of the events, rejects some and forgets others.
    async fn answer(&mut self, open: Vec<Open>) {
        let mut done = Vec::new();
        for one in open {
            match self.random.below(100) {
                0..=1 => {}
                2..=3 => self.reject(one, Verdict::RetryAfterS(0)).await,
                4 => self.reject(one, Verdict::RetryAfterS(1)).await,
                5 => self.reject(one, Verdict::Park(true)).await,
                6 => self.reject(one, Verdict::Skip(true)).await,
                _ => done.push(one),
            }
        }
        if done.is_empty() {
            return;
        }
        let positions: Vec<u64> = done.iter().map(|one| one.position).collect();
        self.asked(&positions);
        let ack_ids = done.into_iter().map(|one| one.ack_id).collect();
        let answer = self.client.acknowledge(AcknowledgeRequest { name: NAME.to_owned(), ack_ids }).await;
        self.answered(&positions, answer.map(drop));
    }

    async fn reject(&mut self, one: Open, verdict: Verdict) {
        let settles = !matches!(verdict, Verdict::RetryAfterS(_));
        let positions = if settles { vec![one.position] } else { Vec::new() };
        self.asked(&positions);
        let request = RejectRequest {
            name: NAME.to_owned(),
            ack_id: one.ack_id,
            verdict: Some(verdict),
            reason: "by chance".to_owned(),
        };
        let answer = self.client.reject(request).await;
        self.answered(&positions, answer.map(drop));
    }

    fn asked(&self, positions: &[u64]) {
        let asked_ms = SystemClock::new().wall();
        let mut consumed = self.shared.consumed();
        for position in positions {
            consumed.settled.entry(*position).or_insert(Settled { asked_ms, confirmed_ms: None });
        }
    }

    fn answered(&self, positions: &[u64], answer: Result<(), Status>) {
        let now = SystemClock::new().wall();
        let mut consumed = self.shared.consumed();
        match answer {
            Ok(()) => {
                for position in positions {
                    if let Some(settled) = consumed.settled.get_mut(position) {
                        settled.confirmed_ms.get_or_insert(now);
                    }
                }
            }
            // Its lease had ended and another has the event, or it was dealt with before.
            Err(status) if reason(&status) == "ACK_STALE" => {}
            Err(status) if passing(&status) => consumed.unclear += 1,
            Err(status) => consumed.wrong.push(format!("{:?} {}", status.code(), status.message())),
        }
    }

    fn broken(&self, status: &Status) {
        let replaced = status.code() == Code::Aborted && reason(status) == "CONSUMER_REPLACED";
        if !replaced && !passing(status) {
            self.shared.consumed().wrong.push(format!("{:?} {}", status.code(), status.message()));
        }
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn client(grpc: SocketAddr) -> Client {
    let channel = Endpoint::from_shared(format!("http://{grpc}")).unwrap().connect_lazy();
    SubscriptionServiceClient::new(InterceptedService::new(channel, Token(TOKEN)))
}
