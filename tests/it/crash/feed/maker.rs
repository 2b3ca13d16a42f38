//! The side of Stripe: makes events at a steady pace, on objects of their own and on the same ones by turns, and tells
//! in the end which it made.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate::sandbox::{Burst, Control};

use super::super::random::Random;
use crate::rig::KEY;

/// Events made a second.
const PER_SECOND: f64 = 200.0;
/// Most events made at once to keep up with the pace, where the machine was too slow.
const BEHIND_MAX: f64 = 400.0;
const TICK: Duration = Duration::from_millis(20);
/// What happens at the sandbox, and how many events come of it at once.
const FLOWS: [(&str, f64); 6] = [
    ("charge.refunded", 6.0),
    ("charge.dispute.closed", 6.0),
    ("customer.created", 1.0),
    ("customer.updated", 2.0),
    ("payment_intent.created", 1.0),
    ("payout.paid", 1.0),
];
/// One in so many makes some customers and changes them by turns, with so many events in all, at most.
const BURST_ONE_IN: u64 = 4;
const BURST_EVENTS_MAX: u64 = 12;
const BURST_OBJECTS_MAX: u64 = 3;
/// Events on a page of the sandbox's list, at most.
const PAGE: usize = 100;

/// Events being made.
pub(super) struct Maker {
    control: Control,
    listing: Listing,
    stop: watch::Sender<bool>,
    makes: JoinHandle<()>,
    started: Instant,
}

/// What was made.
pub(super) struct Made {
    pub(super) ids: BTreeSet<String>,
    pub(super) per_second: f64,
}

/// Stripe's own list of events, read as its callers do.
pub(crate) struct Listing {
    http: reqwest::Client,
    base: String,
}

impl Maker {
    pub(super) fn start(control: Control, address: SocketAddr, random: Random) -> Self {
        let (stop, stopped) = watch::channel(false);
        let listing = Listing::new(address);
        let makes = tokio::spawn(make(control.clone(), stopped, random));
        Self { control, listing, stop, makes, started: Instant::now() }
    }

    /// Stops, lets happen what is still to happen, and tells what was made.
    pub(super) async fn end(self) -> Made {
        let elapsed = self.started.elapsed();
        self.stop.send_replace(true);
        self.makes.await.unwrap();
        let before = self.listing.events().await.len();
        // Payouts arrive, for one.
        self.control.advance(Duration::from_secs(60));
        let ids = self.listing.events().await;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let per_second = before as f64 / elapsed.as_secs_f64();
        Made { ids, per_second }
    }
}

async fn make(control: Control, mut stopped: watch::Receiver<bool>, mut random: Random) {
    let (started, mut made) = (Instant::now(), 0.0);
    while !*stopped.borrow_and_update() {
        let due = started.elapsed().as_secs_f64() * PER_SECOND;
        made = f64::max(made, due - BEHIND_MAX);
        while made < due {
            made += happen(&control, &mut random);
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Something happens; answers about how many events came of it.
fn happen(control: &Control, random: &mut Random) -> f64 {
    if random.below(BURST_ONE_IN) > 0 {
        let (flow, events) = random.pick(&FLOWS);
        control.trigger(flow).unwrap();
        return *events;
    }
    let [count, objects] = [BURST_EVENTS_MAX, BURST_OBJECTS_MAX].map(|max| 1 + random.below(max));
    let [count, objects] = [count, objects].map(|number| usize::try_from(number).unwrap());
    control.burst(Burst { count, objects, fill_bytes: 0 }).unwrap();
    f64::from(u32::try_from(count).unwrap())
}

impl Listing {
    pub(crate) fn new(address: SocketAddr) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, base: format!("http://{address}") }
    }

    /// Ids of all events that the sandbox has.
    pub(crate) async fn events(&self) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        let mut after = String::new();
        loop {
            let url = format!("{}/v1/events?limit={PAGE}{after}", self.base);
            let answer = self.http.get(url).bearer_auth(KEY).send().await.unwrap().bytes().await.unwrap();
            let page: Value = serde_json::from_slice(&answer).unwrap();
            let events = page["data"].as_array().unwrap();
            ids.extend(events.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
            if page["has_more"] == false {
                return ids;
            }
            after = format!("&starting_after={}", events.last().unwrap()["id"].as_str().unwrap());
        }
    }
}
