//! The gateway in a process of its own, the sandbox in this one, and a way between them that can be cut. It counts and looks
//! for wrong outcomes, and judges nothing else.

use std::collections::HashSet;
use std::ops::Sub;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tollgate::domain::limits::STRIPE_AT_ONCE_MAX;
use tollgate::sandbox::{Fault, Handle};

use crate::breaker::Breaker;
use crate::callers::{CALLERS, Caller, Work};
use crate::figures::Watched;
use crate::process::{Gateway, Process};
use crate::proxy::Proxy;
use crate::setup::{self, ALL, TOKEN, Wanted};
use crate::{Stripe, metrics};

/// Settings: none of the limits is changed but Stripe's own number of requests a second, of which the sandbox has none. Of
/// the log, what the breaker does.
const SETTINGS: &str = "traffic.requests_per_s = 100000\ntraffic.endpoint_requests_per_s = 100000\n\
                        telemetry.log = \"error,tollgate::stripe::health=info\"\n";
/// Callers that share one connection; a connection has a limit of open streams.
const CALLERS_PER_CONNECTION: usize = 64;
/// How often the gateway is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Rig {
    pub(crate) work: Arc<Work>,
    pub(crate) breaker: Breaker,
    gateway: Gateway,
    proxy: Proxy,
    is_cut: bool,
    sandbox: Handle,
}

/// What is counted at both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    /// The gateway's attempts at Stripe, those among them that repeat an earlier one of the same call, and those that found
    /// nobody to connect to.
    pub(crate) attempts: f64,
    pub(crate) resends: f64,
    pub(crate) unconnected: f64,
    /// Attempts that were not made for the breaker or for the budget of resends.
    pub(crate) kept_away: f64,
    pub(crate) unpaid: f64,
    /// Requests that the sandbox got.
    pub(crate) received: f64,
}

impl Rig {
    pub(crate) async fn start(disk: &Path) -> Self {
        let sandbox = setup::sandbox(None).await;
        let proxy = Proxy::before(sandbox.address()).await;
        let more = format!("{SETTINGS}callers.benchmark.token = \"{TOKEN}\"\n");
        let wanted = Wanted { more: &more, policy: ALL };
        let mut gateway = Gateway::start(disk, proxy.address, wanted, Stdio::piped()).await;
        let breaker = Breaker::follow(gateway.process.log());
        Self { work: Arc::default(), breaker, gateway, proxy, is_cut: false, sandbox }
    }

    /// Has the callers begin.
    pub(crate) async fn call(&self) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        let mut channel = setup::connect(self.gateway.grpc).await;
        for number in 0..CALLERS {
            if number % CALLERS_PER_CONNECTION == 0 {
                channel = setup::connect(self.gateway.grpc).await;
            }
            callers.spawn(Caller::new(number, channel.clone(), Arc::clone(&self.work)).calls());
        }
        callers
    }

    /// Has Stripe fare like this from now on.
    pub(crate) async fn becomes(&mut self, stripe: Stripe) {
        let control = self.sandbox.control();
        control.clear_faults();
        match stripe {
            Stripe::There(faults) => {
                for fault in faults {
                    control.add_fault(Fault::parse(fault).unwrap());
                }
                if std::mem::take(&mut self.is_cut) {
                    self.proxy.mend().await;
                }
            }
            Stripe::Gone => {
                self.proxy.cut().await;
                self.is_cut = true;
            }
        }
    }

    /// Looks at the gateway now and then for so long.
    pub(crate) async fn watch(&self, watched: &mut Watched, long: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < long {
            tokio::time::sleep(LOOK_EVERY.min(long.saturating_sub(begin.elapsed()))).await;
            watched.note(self).await;
        }
    }

    pub(crate) fn process(&self) -> &Process {
        &self.gateway.process
    }

    pub(crate) async fn metrics(&self) -> String {
        metrics::page(self.gateway.ops).await
    }

    pub(crate) async fn counters(&self) -> Counters {
        let page = self.metrics().await;
        let all = |series| metrics::sum(&page, series, |_| true);
        let attempts = "http_client_request_duration_seconds_count{";
        Counters {
            attempts: all(attempts),
            resends: all("tollgate_stripe_resends_total"),
            unconnected: metrics::sum(&page, attempts, |line| line.contains("error_type=\"connect\"")),
            kept_away: all("tollgate_stripe_breaker_refusals_total"),
            unpaid: all("tollgate_stripe_retries_refused_total"),
            received: self.sandbox.control().received() as f64,
        }
    }

    /// Waits until the gateway knows of no operation that is not settled.
    pub(crate) async fn open_operations_end(&self) {
        until(async || {
            let open = metrics::sum(&self.metrics().await, "tollgate_ledger_unresolved", |_| true);
            (open < 0.5).then_some(())
        })
        .await;
    }

    /// Holds what callers were told, and what the gateway counted in all, against the sandbox's book; answers how many
    /// changes were made.
    pub(crate) fn judge(&self, counted: &Counters) -> usize {
        // What is on its way at the end is on one side only, and so are reads that ended with their callers, of which there
        // are no more than places while Stripe is slow.
        let never_came = counted.connected() - counted.received;
        assert!(never_came.abs() <= f64::from(STRIPE_AT_ONCE_MAX), "{never_came} attempts never came");
        let made = self.work.made();
        let book = self.sandbox.control().book();
        let effects = book["effects"].as_array().unwrap();
        let all_of = |name| effects.iter().map(move |effect| effect[name].as_str().unwrap());
        let operations: HashSet<&str> = all_of("operation").collect();
        let (told, objects): (HashSet<&str>, HashSet<&str>) =
            (made.iter().map(String::as_str).collect(), all_of("object").collect());
        let lost = told.symmetric_difference(&objects).count();
        println!("{} changes made, {} effects of {} operations", made.len(), effects.len(), operations.len());
        assert_eq!(effects.len(), operations.len(), "an operation had more than one effect");
        assert_eq!((lost, told.len()), (0, made.len()), "callers hold other outcomes than those that are");
        made.len()
    }

    pub(crate) async fn stop(self) {
        drop(self.gateway);
        self.sandbox.stop().await;
    }
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            attempts: self.attempts - before.attempts,
            resends: self.resends - before.resends,
            unconnected: self.unconnected - before.unconnected,
            kept_away: self.kept_away - before.kept_away,
            unpaid: self.unpaid - before.unpaid,
            received: self.received - before.received,
        }
    }
}

/// Waits until something holds; a generous limit turns a hang into a failure.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never came true");
}
