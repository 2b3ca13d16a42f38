//! Callers that make one change after the other at a pace, read some of them back, and send each call again until it is
//! answered: the same reference, after the time that the refusal names. They keep what they were told and judge nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::{CreateCustomerRequest, GetCustomerRequest, OperationRef};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::setup::TOKEN;

pub(crate) const CALLERS: usize = 512;
/// How often each of them begins a change, as long as the one before is over.
pub(crate) const PACE: Duration = Duration::from_secs(1);
/// One of so many customers is read when it is made.
pub(crate) const READ_EVERY: usize = 4;
/// How long a caller waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits before it calls again when nobody said how long; nobody does when its own time is up.
const PAUSE: Duration = Duration::from_secs(1);

/// What all callers share.
#[derive(Default)]
pub(crate) struct Work {
    is_over: AtomicBool,
    calls: Mutex<Vec<Call>>,
    /// Ids of the customers that callers were told they made.
    made: Mutex<Vec<String>>,
}

/// One call that has ended.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// The caller had sent the same before.
    pub(crate) is_again: bool,
    pub(crate) is_answered: bool,
    pub(crate) took: Duration,
}

pub(crate) struct Caller {
    number: usize,
    customers: CustomerServiceClient<Channel>,
    token: MetadataValue<Ascii>,
    work: Arc<Work>,
}

impl Work {
    /// Nothing is begun any more.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// The calls that have ended since this was asked last.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    pub(crate) fn made(&self) -> Vec<String> {
        self.made.lock().unwrap().clone()
    }
}

impl Caller {
    pub(crate) fn new(number: usize, channel: Channel, work: Arc<Work>) -> Self {
        let token = MetadataValue::try_from(format!("Bearer {TOKEN}")).unwrap();
        Self { number, customers: CustomerServiceClient::new(channel), token, work }
    }

    /// Goes on until the work is over and what was begun is answered.
    pub(crate) async fn calls(self) {
        // Not all at once.
        let mut due = Instant::now() + PACE.mul_f64(self.number as f64 / CALLERS as f64);
        for change in 1.. {
            tokio::time::sleep_until(due.into()).await;
            if self.work.is_over.load(Ordering::SeqCst) {
                break;
            }
            let id = self.create(change).await;
            if change % READ_EVERY == 0 {
                self.read(&id).await;
            }
            self.work.made.lock().unwrap().push(id);
            due = Instant::now().max(due + PACE);
        }
    }

    async fn create(&self, change: usize) -> String {
        let order_id = format!("outage-{}-{change}", self.number);
        let request = CreateCustomerRequest {
            operation: Some(OperationRef { order_id, ..OperationRef::default() }),
            name: Some("A Customer".to_owned()),
            ..CreateCustomerRequest::default()
        };
        let send = || {
            let (mut customers, request) = (self.customers.clone(), self.request(request.clone()));
            Box::pin(async move { customers.create_customer(request).await })
        };
        self.until_answered(send).await.customer.unwrap().id
    }

    async fn read(&self, id: &str) {
        let request = GetCustomerRequest { id: id.to_owned(), ..GetCustomerRequest::default() };
        let send = || {
            let (mut customers, request) = (self.customers.clone(), self.request(request.clone()));
            Box::pin(async move { customers.get_customer(request).await })
        };
        assert_eq!(self.until_answered(send).await.customer.unwrap().id, id);
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request.set_timeout(PATIENCE);
        request
    }

    async fn until_answered<T, F>(&self, send: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut is_again = false;
        loop {
            let started = Instant::now();
            let answer = send().await;
            let call = Call { is_again, is_answered: answer.is_ok(), took: started.elapsed() };
            self.work.calls.lock().unwrap().push(call);
            match answer {
                Ok(answer) => return answer.into_inner(),
                Err(status) => tokio::time::sleep(pause(&status)).await,
            }
            is_again = true;
        }
    }
}

/// How long to wait before the same is sent again. What says that this cannot help is no trouble of Stripe's.
fn pause(status: &Status) -> Duration {
    let may_help =
        [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Aborted, Code::ResourceExhausted];
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    assert!(
        may_help.contains(&status.code()) && pushback.is_none_or(|pushback| pushback != "-1"),
        "{status:?}"
    );
    status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or(PAUSE)
}
