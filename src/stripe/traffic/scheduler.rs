//! Who may send when: everything that waits for one account, and what the account still lets through. Pure: time comes in,
//! decisions go out; whoever uses it wakes the callers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::account::Allowance;
use super::bucket::{Bucket, Limit, brought};
use super::fair::Fair;
use super::lane::{Class, Lane};
use super::{Settings, Why};
use crate::domain::limits::{STRIPE_QUEUED_MAX, STRIPE_QUEUED_PER_CALLER_MAX, STRIPE_QUEUED_RESERVED};

/// How long an object rests whose own limit Stripe named, in milliseconds.
const OBJECT_REST_MS: u64 = 1_000;
/// Requests a second that Stripe takes of searches, of reads of files and of changes of files, each for itself.
const APART_PER_S: u64 = 20;
/// What a lane saves up while it is not used: requests of so many milliseconds.
const LANE_BURST_MS: u64 = 250;

/// What somebody wants to send.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) class: Class,
    /// Who has a share of its own; empty for the gateway.
    pub(super) caller: Arc<str>,
    /// The part that the caller gets of what is short, beside others.
    pub(super) weight: u32,
    pub(super) lane: Lane,
    /// The object that is changed, of which one change is sent at a time.
    pub(super) object: Option<Arc<str>>,
    /// From when on a turn is of no use any more.
    pub(super) until: Duration,
}

/// No turn, and when there might be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: Why,
    pub(super) wait: Duration,
}

/// A turn that was given: what is to be given back when the request has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    lane: usize,
    object: Option<Arc<str>>,
    /// It is under way in a place of the reserve.
    in_reserve: bool,
    /// How long it waited.
    pub(super) waited: Duration,
    began: Duration,
    /// Whether an attempt was made with it.
    pub(super) has_run: bool,
}

/// What became of somebody who waited, by the number that [`Scheduler::ask`] gave.
pub(super) type Decision = (u64, Result<Grant, Refused>);

/// Which limiter of Stripe's refused a request (docs.stripe.com/rate-limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limiter {
    Rate,
    Concurrency,
    EndpointRate,
    EndpointConcurrency,
    Object,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    lane: usize,
    object: Option<Arc<str>>,
    until: Duration,
    since: Duration,
}

/// Those of one caller and class that wait, the earliest first.
#[derive(Debug, Default)]
struct Flow {
    weight: u32,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug, Default)]
struct Queue {
    fair: Fair<Arc<str>>,
    flows: BTreeMap<Arc<str>, Flow>,
}

#[derive(Debug)]
struct LaneState {
    counts: bool,
    bucket: Bucket,
    rate: Limit,
    at_once: Limit,
    under_way: u64,
    waiting: u64,
}

/// What is known of an object that is being changed, or rests.
#[derive(Debug, Default)]
struct Object {
    is_busy: bool,
    rests_until: Duration,
}

/// Everything that waits for one account.
#[derive(Debug)]
pub(super) struct Scheduler {
    settings: Settings,
    allowance: Allowance,
    places: HashMap<Lane, usize>,
    lanes: Vec<LaneState>,
    objects: HashMap<Arc<str>, Object>,
    turns: Fair<Class>,
    queues: BTreeMap<Class, Queue>,
    waiting: usize,
    last_id: u64,
    now: Duration,
}

impl Scheduler {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            allowance: Allowance::new(&settings),
            settings,
            places: HashMap::new(),
            lanes: Vec::new(),
            objects: HashMap::new(),
            turns: Fair::default(),
            queues: BTreeMap::new(),
            waiting: 0,
            last_id: 0,
            now: Duration::ZERO,
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// What the account lets through.
    pub(super) fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    /// Whether there would be no turn for this in time.
    ///
    /// # Errors
    /// Why not, and when there might be.
    pub(super) fn has_room(&mut self, now: Duration, ask: &Ask) -> Result<(), Refused> {
        self.pass(now);
        let own = self.flow(ask).map_or(0, |flow| flow.waiting.len());
        let wait = self.wait(ask, own as u64);
        let why = if self.waiting + self.kept_from(ask.class) >= STRIPE_QUEUED_MAX {
            Why::Full
        } else if own >= STRIPE_QUEUED_PER_CALLER_MAX {
            Why::CallerFull
        } else if now + wait >= self.latest(ask.until) {
            Why::Deadline
        } else {
            return Ok(());
        };
        Err(Refused { why, wait })
    }

    /// How many free places of the queue a class may not have, since they are kept for what is reserved.
    fn kept_from(&self, class: Class) -> usize {
        if class == Class::Reserved {
            return 0;
        }
        let flows = self.queues.get(&Class::Reserved).into_iter().flat_map(|queue| queue.flows.values());
        STRIPE_QUEUED_RESERVED.saturating_sub(flows.map(|flow| flow.waiting.len()).sum())
    }

    /// Takes somebody in and gives it a number; [`Self::poll`] says when it is its turn.
    ///
    /// # Errors
    /// As [`Self::has_room`] has it.
    pub(super) fn ask(&mut self, now: Duration, ask: Ask) -> Result<u64, Refused> {
        self.has_room(now, &ask)?;
        let lane = self.lane(ask.lane);
        if let Some(state) = self.lanes.get_mut(lane) {
            state.waiting += 1;
        }
        self.last_id += 1;
        let until = self.latest(ask.until);
        let waiting = Waiting { id: self.last_id, lane, object: ask.object, until, since: now };
        let flow = self.queues.entry(ask.class).or_default().flows.entry(ask.caller).or_default();
        flow.weight = ask.weight;
        flow.waiting.push_back(waiting);
        self.waiting += 1;
        Ok(self.last_id)
    }

    /// Somebody waits no more.
    pub(super) fn leave(&mut self, id: u64) {
        self.take_out(|waiting| waiting.id == id);
    }

    /// Whose turn it is now, and who waited in vain.
    pub(super) fn poll(&mut self, now: Duration) -> Vec<Decision> {
        self.pass(now);
        let late = self.take_out(|waiting| waiting.until <= now);
        let refused = |waiting: Waiting| {
            (waiting.id, Err(Refused { why: Why::Expired, wait: now.saturating_sub(waiting.since) }))
        };
        let mut decisions: Vec<Decision> = late.into_iter().map(refused).collect();
        while let Some(decision) = self.next_turn() {
            decisions.push(decision);
        }
        self.queues.values_mut().for_each(|queue| queue.flows.retain(|_, flow| !flow.waiting.is_empty()));
        decisions
    }

    /// When [`Self::poll`] may have something new to say though nothing else happens.
    pub(super) fn next(&self) -> Option<Duration> {
        let each = |(class, waiting): (Class, &Waiting)| waiting.until.min(self.turn_at(class, waiting));
        self.everybody().map(each).min()
    }

    /// A request has ended.
    pub(super) fn done(&mut self, now: Duration, grant: Grant) {
        self.pass(now);
        let took = grant.has_run.then(|| now.saturating_sub(grant.began));
        self.allowance.leave(grant.in_reserve, took);
        if let Some(lane) = self.lanes.get_mut(grant.lane) {
            lane.under_way = lane.under_way.saturating_sub(1);
        }
        if let Some(path) = grant.object
            && let Some(object) = self.objects.get_mut(&path)
        {
            object.is_busy = false;
            if object.rests_until <= now {
                self.objects.remove(&path);
            }
        }
    }

    /// A limiter of Stripe's refused a request under way; says whether a limit of ours was cut for it.
    pub(super) fn limited(&mut self, now: Duration, grant: &Grant, limiter: Limiter) -> bool {
        self.pass(now);
        let Some(lane) = self.lanes.get_mut(grant.lane) else { return false };
        match limiter {
            Limiter::Rate if lane.counts => self.allowance.cut_rate(now),
            Limiter::Rate | Limiter::EndpointRate => {
                lane.bucket.empty();
                lane.rate.cut(now, u64::MAX)
            }
            Limiter::Concurrency => self.allowance.cut_at_once(now),
            Limiter::EndpointConcurrency => lane.at_once.cut(now, lane.under_way),
            Limiter::Object => {
                let rests_until = now + Duration::from_millis(OBJECT_REST_MS);
                let object = grant.object.as_ref().and_then(|path| self.objects.get_mut(path));
                object.map(|object| object.rests_until = rests_until).is_some()
            }
        }
    }

    /// When a request has to go so that its answer may still come in time. Half of its time is always for waiting: else
    /// nothing would be sent any more once answers take longer than anybody waits for them.
    fn latest(&self, until: Duration) -> Duration {
        let left = until.saturating_sub(self.now);
        until.saturating_sub(self.allowance.takes().min(left / 2))
    }

    /// Lets time pass: everything that fills up does.
    fn pass(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        self.allowance.pass(now, passed);
        for lane in &mut self.lanes {
            lane.bucket.fill(brought(lane.rate.at(now), passed));
        }
        self.objects.retain(|_, object| object.is_busy || object.rests_until > now);
    }

    /// Gives the next turn to the first in the fair order who can use one.
    fn next_turn(&mut self) -> Option<Decision> {
        let mut classes: Vec<Class> = self.queues.keys().copied().collect();
        classes.sort_by_key(|class| (self.turns.place(class), *class));
        let (class, caller, place) = classes.into_iter().find_map(|class| self.next_of(class))?;
        let queue = self.queues.get_mut(&class)?;
        let flow = queue.flows.get_mut(&caller)?;
        let weight = flow.weight;
        let waiting = flow.waiting.remove(place)?;
        queue.fair.charge(&caller, weight);
        self.turns.charge(&class, class.weight());
        Some((waiting.id, Ok(self.grant(class, waiting))))
    }

    /// The next caller of a class, and which of its requests can go.
    fn next_of(&self, class: Class) -> Option<(Class, Arc<str>, usize)> {
        let queue = self.queues.get(&class)?;
        let oldest = |flow: &Flow| flow.waiting.front().map(|waiting| waiting.id);
        let mut callers: Vec<_> = queue.flows.iter().collect();
        callers.sort_by_key(|(caller, flow)| (queue.fair.place(caller), oldest(flow)));
        callers.into_iter().find_map(|(caller, flow)| {
            let place = flow.waiting.iter().position(|waiting| self.can_go(class, waiting))?;
            Some((class, Arc::clone(caller), place))
        })
    }

    fn can_go(&self, class: Class, waiting: &Waiting) -> bool {
        let Some(lane) = self.lanes.get(waiting.lane) else { return false };
        let object = waiting.object.as_ref().and_then(|path| self.objects.get(path));
        lane.bucket.has_one()
            && lane.under_way < lane.at_once.at(self.now)
            && self.allowance.has_place(class, self.now)
            && (!lane.counts || self.allowance.has_one(class))
            && object.is_none_or(|object| !object.is_busy && object.rests_until <= self.now)
    }

    /// From when on somebody may go, as far as time alone decides.
    fn turn_at(&self, class: Class, waiting: &Waiting) -> Duration {
        let Some(lane) = self.lanes.get(waiting.lane) else { return waiting.until };
        let object = waiting.object.as_ref().and_then(|path| self.objects.get(path));
        if lane.under_way >= lane.at_once.at(self.now)
            || !self.allowance.has_place(class, self.now)
            || object.is_some_and(|object| object.is_busy)
        {
            return waiting.until;
        }
        let counted = if lane.counts { self.allowance.until_one(class, self.now) } else { Duration::ZERO };
        let own = lane.bucket.until(1, lane.rate.at(self.now));
        (self.now + counted.max(own)).max(object.map_or(Duration::ZERO, |object| object.rests_until))
    }

    fn grant(&mut self, class: Class, waiting: Waiting) -> Grant {
        if let Some(path) = &waiting.object {
            self.objects.entry(Arc::clone(path)).or_default().is_busy = true;
        }
        let mut counts = false;
        if let Some(lane) = self.lanes.get_mut(waiting.lane) {
            lane.bucket.take();
            lane.under_way += 1;
            lane.waiting = lane.waiting.saturating_sub(1);
            counts = lane.counts;
        }
        self.waiting = self.waiting.saturating_sub(1);
        let in_reserve = self.allowance.enter(class, counts, self.now);
        let waited = self.now.saturating_sub(waiting.since);
        let Waiting { lane, object, .. } = waiting;
        Grant { lane, object, in_reserve, waited, began: self.now, has_run: false }
    }

    /// How long one more would wait as things stand, for its lane and for the account: each time the shorter of what its
    /// caller has before it, at its fair share, and of all that waits.
    fn wait(&self, ask: &Ask, own: u64) -> Duration {
        let (part, whole) = self.share(ask);
        let by_lane = self.places.get(&ask.lane).and_then(|place| Some((*place, self.lanes.get(*place)?)));
        let in_lane = by_lane.map_or(Duration::ZERO, |(place, lane)| {
            let rate = lane.rate.at(self.now);
            let own =
                self.flow(ask).map_or(0, |flow| flow.waiting.iter().filter(|one| one.lane == place).count());
            let by_share = lane.bucket.until(own as u64 + 1, rate * part / whole);
            by_share.min(lane.bucket.until(lane.waiting + 1, rate))
        });
        if !ask.lane.counts() {
            return in_lane;
        }
        let pace = self.allowance.milli_per_s(self.now);
        let by_share = self.allowance.wait(ask.class, own, pace * part / whole, self.now);
        let after_all = self.allowance.wait(ask.class, self.waiting as u64, pace, self.now);
        in_lane.max(by_share.min(after_all))
    }

    /// What a caller gets for a class while everybody who waits now goes on to: a part, and of what whole.
    fn share(&self, ask: &Ask) -> (u64, u64) {
        let classes =
            self.queues.iter().filter(|(class, queue)| **class != ask.class && !queue.flows.is_empty());
        let all: u32 = classes.map(|(class, _)| class.weight()).sum::<u32>() + ask.class.weight();
        let others = self.queues.get(&ask.class).into_iter().flat_map(|queue| &queue.flows);
        let others = others.filter(|(caller, _)| **caller != ask.caller).map(|(_, flow)| flow.weight);
        let beside = others.fold(ask.weight, u32::saturating_add);
        let part = u64::from(ask.class.weight()) * u64::from(ask.weight.max(1));
        (part, (u64::from(all) * u64::from(beside)).max(part))
    }

    /// What waits already of the same caller and class.
    fn flow(&self, ask: &Ask) -> Option<&Flow> {
        self.queues.get(&ask.class)?.flows.get(&ask.caller)
    }

    fn lane(&mut self, lane: Lane) -> usize {
        if let Some(place) = self.places.get(&lane) {
            return *place;
        }
        let counts = lane.counts();
        let per_s = if counts { u64::from(self.settings.endpoint_requests_per_s) } else { APART_PER_S };
        self.lanes.push(LaneState {
            counts,
            bucket: Bucket::full(per_s * 1_000, Duration::from_millis(LANE_BURST_MS)),
            rate: Limit::new(per_s * 1_000),
            at_once: Limit::new(u64::from(self.settings.requests_at_once_max)),
            under_way: 0,
            waiting: 0,
        });
        self.places.insert(lane, self.lanes.len() - 1);
        self.lanes.len() - 1
    }

    fn everybody(&self) -> impl Iterator<Item = (Class, &Waiting)> {
        self.queues.iter().flat_map(|(class, queue)| {
            queue.flows.values().flat_map(move |flow| flow.waiting.iter().map(move |one| (*class, one)))
        })
    }

    fn take_out(&mut self, is_out: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut out = Vec::new();
        for flow in self.queues.values_mut().flat_map(|queue| queue.flows.values_mut()) {
            while let Some(place) = flow.waiting.iter().position(&is_out) {
                out.extend(flow.waiting.remove(place));
            }
        }
        self.waiting = self.waiting.saturating_sub(out.len());
        for waiting in &out {
            if let Some(lane) = self.lanes.get_mut(waiting.lane) {
                lane.waiting = lane.waiting.saturating_sub(1);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
