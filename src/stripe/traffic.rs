//! Keeps the gateway's requests within what Stripe lets through, and fair between callers: every attempt waits for a turn
//! here. What is decided stands in [`scheduler`]; this is the clock and the waking around it.

mod account;
mod bucket;
mod fair;
mod lane;
mod scheduler;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

pub use self::lane::Class;
use self::lane::{Lane, object};
use self::scheduler::{Ask, Grant, Limiter, Refused, Scheduler};
use super::answer::{Answer, Attempt, Trouble};
use super::outgoing::Outgoing;
use crate::domain::limits::{
    STRIPE_AT_ONCE_MAX, STRIPE_ENDPOINT_REQUESTS_PER_S, STRIPE_LIVE_REQUESTS_PER_S, STRIPE_QUEUE_MS_MAX,
    STRIPE_TEST_REQUESTS_PER_S,
};
use crate::domain::operation::Mode;

/// For whom a request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A caller, by its name in the configuration.
    Caller(Arc<str>),
    /// The same, for what has to be read before a change of this class can go.
    Ahead(Arc<str>, Class),
    /// The gateway itself, of its own accord: what can wait.
    Gateway,
}

impl Sender {
    /// The sender of what has to be read before `change` can go: it is as urgent as the change.
    #[must_use]
    pub fn ahead_of(self, change: &Outgoing) -> Self {
        let class = Class::of(change, &self);
        match self {
            Self::Caller(name) | Self::Ahead(name, _) => Self::Ahead(name, class),
            Self::Gateway => Self::Gateway,
        }
    }
}

/// What an account lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Requests a second of the whole account.
    pub requests_per_s: u32,
    /// Requests a second to one endpoint.
    pub endpoint_requests_per_s: u32,
    /// Requests under way at once.
    pub requests_at_once_max: u32,
}

impl Settings {
    /// What Stripe says that it lets through in a mode (docs.stripe.com/rate-limits); it names no number for how many at
    /// once.
    #[must_use]
    pub fn of(mode: Mode) -> Self {
        let requests_per_s = match mode {
            Mode::Test => STRIPE_TEST_REQUESTS_PER_S,
            Mode::Live => STRIPE_LIVE_REQUESTS_PER_S,
        };
        Self {
            requests_per_s,
            endpoint_requests_per_s: STRIPE_ENDPOINT_REQUESTS_PER_S,
            requests_at_once_max: STRIPE_AT_ONCE_MAX,
        }
    }
}

/// Why a request gets no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// As many wait as may.
    Full,
    /// As many of this caller wait as may.
    CallerFull,
    /// It could not be sent before its deadline, or before nobody waits any longer.
    Deadline,
    /// It waited, and its time ran out.
    Expired,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Full, Self::CallerFull, Self::Deadline, Self::Expired];

    /// The name in metrics, faults and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::CallerFull => "caller_full",
            Self::Deadline => "deadline",
            Self::Expired => "expired",
        }
    }
}

/// What can be seen of an account's traffic from outside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Requests that wait for their turn.
    pub waiting: u64,
    /// Requests under way.
    pub under_way: u64,
    /// Requests a second that may go at most, as Stripe's refusals have left it.
    pub limit: f64,
    /// The part of that which was not used over the last seconds, from 0 to 1.
    pub headroom: f64,
}

/// The way to one account, which all requests share that count against it; cheap to clone.
#[derive(Clone, Debug)]
pub struct Traffic(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    queue: Mutex<Queue>,
    stirred: Notify,
    weights: RwLock<HashMap<String, u32>>,
}

#[derive(Debug)]
struct Queue {
    scheduler: Scheduler,
    waiting: HashMap<u64, oneshot::Sender<Result<Turn, Refused>>>,
    /// Whether a task sees to those who wait.
    is_driven: bool,
}

/// Somebody's turn, to be handed over once the queue is free again.
type Delivery = (oneshot::Sender<Result<Turn, Refused>>, Result<Turn, Refused>);

impl Traffic {
    /// An account that nothing was sent to yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared {
            started: Instant::now(),
            queue: Mutex::new(Queue {
                scheduler: Scheduler::new(settings),
                waiting: HashMap::new(),
                is_driven: false,
            }),
            stirred: Notify::new(),
            weights: RwLock::default(),
        }))
    }

    /// What part callers get of what is short, by name; one who is not named weighs one.
    pub fn weigh(&self, weights: HashMap<String, u32>) {
        *self.0.weights.write().unwrap_or_else(PoisonError::into_inner) = weights;
    }

    /// What can be seen from outside.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "what is shown are small numbers")]
    pub fn standing(&self) -> Standing {
        let (now, queue) = (self.now(), self.queue());
        let allowance = queue.scheduler.allowance();
        Standing {
            waiting: queue.scheduler.waiting() as u64,
            under_way: allowance.under_way(),
            limit: allowance.milli_per_s(now) as f64 / 1_000.0,
            headroom: allowance.headroom_milli(now) as f64 / 1_000.0,
        }
    }

    /// Whether both are the way to the same account.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What a request would be refused with if it were sent now.
    pub(super) fn refusal(
        &self,
        outgoing: &Outgoing,
        sender: &Sender,
        deadline: Option<Instant>,
    ) -> Option<Trouble> {
        let ask = self.asking(outgoing, sender, deadline);
        self.queue().scheduler.has_room(self.now(), &ask).err().map(trouble)
    }

    /// Waits for a turn; to stop waiting gives the place in the queue up.
    ///
    /// # Errors
    /// [`Trouble::Crowded`], at once where there is no hope of a turn in time. Nothing was sent then.
    pub(super) async fn turn(
        &self,
        outgoing: &Outgoing,
        sender: &Sender,
        deadline: Option<Instant>,
    ) -> Result<Turn, Trouble> {
        let ask = self.asking(outgoing, sender, deadline);
        let (reply, turn) = oneshot::channel();
        let (id, deliveries) = {
            let (now, mut queue) = (self.now(), self.queue());
            let id = queue.scheduler.ask(now, ask).map_err(trouble)?;
            queue.waiting.insert(id, reply);
            let deliveries = self.serve(&mut queue, now);
            self.look_after(&mut queue);
            (id, deliveries)
        };
        let place = Place { traffic: self, id };
        deliver(deliveries);
        let turn = turn.await;
        drop(place);
        match turn {
            Ok(turn) => turn.map_err(trouble),
            // Nobody else holds the other end but the runtime that ends.
            Err(_) => Err(Trouble::Deadline),
        }
    }

    fn asking(&self, outgoing: &Outgoing, sender: &Sender, deadline: Option<Instant>) -> Ask {
        let latest = Instant::now() + Duration::from_millis(STRIPE_QUEUE_MS_MAX);
        let until = deadline.map_or(latest, |deadline| deadline.min(latest));
        let caller: Arc<str> = match sender {
            Sender::Caller(name) | Sender::Ahead(name, _) => Arc::clone(name),
            Sender::Gateway => Arc::default(),
        };
        let weights = self.0.weights.read().unwrap_or_else(PoisonError::into_inner);
        Ask {
            class: Class::of(outgoing, sender),
            weight: weights.get(&*caller).copied().unwrap_or(1),
            caller,
            lane: Lane::of(outgoing),
            object: object(outgoing).map(Into::into),
            until: until.saturating_duration_since(self.0.started),
        }
    }

    /// Gives out the turns that are due.
    fn serve(&self, queue: &mut Queue, now: Duration) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        for (id, decision) in queue.scheduler.poll(now) {
            match (queue.waiting.remove(&id), decision) {
                (Some(reply), Ok(grant)) => {
                    deliveries.push((reply, Ok(Turn { traffic: self.clone(), grant: Some(grant) })));
                }
                (Some(reply), Err(refused)) => deliveries.push((reply, Err(refused))),
                (None, Ok(grant)) => queue.scheduler.done(now, grant),
                (None, Err(_)) => {}
            }
        }
        deliveries
    }

    /// Sees to it that those who wait get their turns as time goes by.
    fn look_after(&self, queue: &mut Queue) {
        if queue.is_driven {
            self.0.stirred.notify_one();
        } else if queue.scheduler.waiting() > 0 {
            queue.is_driven = true;
            tokio::spawn(self.clone().drive());
        }
    }

    /// Gives out turns as time makes them due, until nobody waits.
    async fn drive(self) {
        loop {
            let (deliveries, next) = {
                let (now, mut queue) = (self.now(), self.queue());
                let deliveries = self.serve(&mut queue, now);
                let next = queue.scheduler.next();
                queue.is_driven = next.is_some();
                (deliveries, next)
            };
            deliver(deliveries);
            let Some(next) = next else { return };
            tokio::select! {
                () = sleep_until(self.0.started + next) => {}
                () = self.0.stirred.notified() => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, given up when dropped.
struct Place<'a> {
    traffic: &'a Traffic,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let reply = {
            let mut queue = self.traffic.queue();
            let reply = queue.waiting.remove(&self.id);
            if reply.is_some() {
                queue.scheduler.leave(self.id);
            }
            reply
        };
        drop(reply);
    }
}

/// The right to send one attempt; it ends with the attempt.
#[derive(Debug)]
pub(super) struct Turn {
    traffic: Traffic,
    grant: Option<Grant>,
}

impl Turn {
    /// How long it was waited for.
    pub(super) fn waited(&self) -> Duration {
        self.grant.as_ref().map_or(Duration::ZERO, |grant| grant.waited)
    }

    /// An attempt begins. If it is given up, it took at least as long as until then.
    pub(super) fn begins(&mut self) {
        if let Some(grant) = &mut self.grant {
            grant.has_run = true;
        }
    }

    /// Takes in how the attempt ended, and what Stripe's limiters say.
    pub(super) fn heard(&mut self, attempt: &Attempt) {
        let Some(grant) = &mut self.grant else { return };
        // How soon it is clear that nothing can be sent says nothing of how long Stripe takes.
        grant.has_run = !matches!(attempt, Attempt::NotSent(_));
        let Attempt::Answered(Answer { status: 429, rate_limited_reason: Some(reason), .. }) = attempt else {
            return;
        };
        let limiter = match reason.as_str() {
            "global-concurrency" => Limiter::Concurrency,
            "endpoint-rate" => Limiter::EndpointRate,
            "endpoint-concurrency" => Limiter::EndpointConcurrency,
            "resource-specific" => Limiter::Object,
            // Also what no document names: to slow down is never wrong.
            _ => Limiter::Rate,
        };
        if self.traffic.queue().scheduler.limited(self.traffic.now(), grant, limiter) {
            tracing::warn!(reason, "Stripe's limiter refused; fewer requests are sent for a while");
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        let deliveries = {
            let (now, mut queue) = (self.traffic.now(), self.traffic.queue());
            queue.scheduler.done(now, grant);
            let deliveries = self.traffic.serve(&mut queue, now);
            self.traffic.look_after(&mut queue);
            deliveries
        };
        deliver(deliveries);
    }
}

/// Hands turns over. One that is not wanted any more ends here, for which the queue must be free.
fn deliver(deliveries: Vec<Delivery>) {
    for (reply, turn) in deliveries {
        drop(reply.send(turn));
    }
}

fn trouble(refused: Refused) -> Trouble {
    let retry_ms = u32::try_from(refused.wait.as_millis()).unwrap_or(u32::MAX);
    Trouble::Crowded { why: refused.why, retry_ms }
}

#[cfg(test)]
mod tests;
