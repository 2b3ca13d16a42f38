//! The callers: each call has a trace of its own, by which the gateway's records tell whether it was accepted. They send
//! again what was not, leave some calls in the middle, and note every end that a caller does not like.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tollgate::proto::v1::GetCustomerRequest;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{ConnectError, Status};

use super::super::change::{Answer, Sending, meaning};
use super::super::load::Load;
use super::super::random::Random;
use crate::rig::{TOKEN, Token, Wire};

const CALLERS: usize = 10;
/// Of them, so many have a connection of their own for each call.
const STRANGERS: usize = 2;
/// Pause of a caller between two calls, at most.
const PAUSE_MS_MAX: u64 = 40;
/// Pause before a call that was not accepted is sent again, at most.
const AGAIN_MS_MAX: u64 = 100;
/// One call in so many is a read.
const READ_ONE_IN: u64 = 4;
/// One call in so many is left by its caller, after so long at most.
const LEAVES_ONE_IN: u64 = 6;
const LEAVES_MS_MAX: u64 = 150;
/// Longer than any call takes.
const DEADLINE: Duration = Duration::from_secs(25);

/// What the callers saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) calls: u64,
    /// Calls that their callers left.
    pub(super) left: u64,
    pub(super) cut: Vec<Cut>,
    /// Answers of the gateway that are failures, which nothing here explains.
    pub(super) failed: Vec<String>,
}

/// A call that ended without a word of the gateway.
pub(super) struct Cut {
    pub(super) trace: String,
    /// Whether its caller knows by the protocol that it was not accepted.
    pub(super) is_known: bool,
    pub(super) what: String,
}

/// All callers.
pub(super) struct Callers {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    load: Arc<Load>,
    grpc: SocketAddr,
    seen: Mutex<Seen>,
    /// Calls that their callers wait for.
    open: AtomicUsize,
    over: AtomicBool,
}

/// What is asked for.
enum Asked {
    /// The operation with this number.
    Change(usize),
    Read(String),
}

impl Callers {
    pub(super) fn start(load: Arc<Load>, grpc: SocketAddr, random: &mut Random) -> Self {
        let shared = Arc::new(Shared {
            load,
            grpc,
            seen: Mutex::default(),
            open: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let common = wire(grpc);
        let mut tasks = JoinSet::new();
        for number in 0..CALLERS {
            let wire = Some(common.clone()).filter(|_| number >= STRANGERS);
            tasks.spawn(Arc::clone(&shared).call_on(wire, random.fork()));
        }
        Self { shared, tasks }
    }

    /// How many calls are open.
    pub(super) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Lets them end when the call that each is in does.
    pub(super) async fn end(mut self) -> Seen {
        self.shared.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.shared.seen())
    }
}

impl Shared {
    async fn call_on(self: Arc<Self>, common: Option<Wire>, mut random: Random) {
        while !self.over.load(Ordering::Relaxed) {
            tokio::time::sleep(random.pause(PAUSE_MS_MAX)).await;
            let asked = match random.below(READ_ONE_IN) {
                0 => Asked::Read(random.pick(&self.load.stock.customers).clone()),
                _ => Asked::Change(self.load.new_operation(&mut random)),
            };
            let leaves = (random.below(LEAVES_ONE_IN) == 0).then(|| random.pause(LEAVES_MS_MAX));
            let patience = leaves.unwrap_or(2 * DEADLINE);
            loop {
                let wire = common.clone().unwrap_or_else(|| wire(self.grpc));
                let call = self.call(wire, &asked, &mut random);
                self.open.fetch_add(1, Ordering::Relaxed);
                let ended = timeout(patience, call).await;
                self.open.fetch_sub(1, Ordering::Relaxed);
                let Ok(is_over) = ended else {
                    self.seen().left += 1;
                    break;
                };
                if is_over {
                    break;
                }
                tokio::time::sleep(random.pause(AGAIN_MS_MAX)).await;
            }
        }
    }

    /// One call; whether it need not be sent again.
    async fn call(&self, wire: Wire, asked: &Asked, random: &mut Random) -> bool {
        self.seen().calls += 1;
        let trace = format!("{:016x}{:016x}", random.below(u64::MAX) | 1, random.below(u64::MAX) | 1);
        let sending = Sending { wait: DEADLINE, trace: &trace };
        let (what, ended) = match asked {
            Asked::Read(customer) => {
                let request = GetCustomerRequest { id: customer.clone(), ..Default::default() };
                let got = CustomerServiceClient::new(wire).get_customer(sending.request(request)).await;
                ("a read", got.map(drop))
            }
            Asked::Change(at) => {
                let operation = self.load.history()[*at].operation.clone();
                let rpc = operation.change.rpc();
                match Box::pin(operation.exchange(wire, sending)).await {
                    Ok(done) => {
                        self.load.history()[*at].told.done.insert(done);
                        (rpc, Ok(()))
                    }
                    Err(status) if meaning(&status) == Answer::Refused => {
                        self.load.history()[*at].told.refused = true;
                        (rpc, Ok(()))
                    }
                    Err(status) => (rpc, Err(status)),
                }
            }
        };
        let Err(status) = ended else { return true };
        let says = format!("{what}: {:?} {}", status.code(), shown(&status));
        match meaning(&status) {
            Answer::Later { reason, .. } if reason == "transport" => {
                let is_known = was_not_accepted(&status);
                self.seen().cut.push(Cut { trace, is_known, what: says });
                false
            }
            _ => {
                self.seen().failed.push(says);
                true
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

pub(super) fn wire(grpc: SocketAddr) -> Wire {
    let channel = Endpoint::from_shared(format!("http://{grpc}")).unwrap().connect_lazy();
    InterceptedService::new(channel, Token(TOKEN))
}

/// Whether the protocol says that the call was not processed, so that any client may send it again by itself: it never
/// left for want of a connection, its stream was refused, or GOAWAY left it out (RFC 9113, sections 6.8 and 8.7).
fn was_not_accepted(status: &Status) -> bool {
    causes(status).any(|cause| {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        let left_out = |error: &h2::Error| {
            let reason = error.reason();
            reason == Some(h2::Reason::REFUSED_STREAM)
                || error.is_go_away() && error.is_remote() && reason == Some(h2::Reason::NO_ERROR)
        };
        cause.is::<ConnectError>()
            || cause.downcast_ref().is_some_and(refused)
            || cause.downcast_ref().is_some_and(left_out)
            || cause.downcast_ref().is_some_and(hyper::Error::is_canceled)
    })
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |cause| (**cause).source())
}

fn shown(status: &Status) -> String {
    causes(status).fold(status.message().to_owned(), |shown, cause| format!("{shown}: {cause}"))
}
