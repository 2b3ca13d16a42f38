//! What sweeps vouch for when clocks differ, spans are read out of turn, and there is more than a day's reads can take.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prost_types::Timestamp;
use tollgate::config::{Config, EventsMode};
use tollgate::domain::clock::{Clock as _, ManualClock, SystemClock};
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::feed_service_client::FeedServiceClient;
use tollgate::proto::v1::{BackfillRequest, Completeness, GetFeedRequest, ListEventsRequest};
use tollgate::sandbox::{Burst, WebhookTarget};

use crate::rig::{Rig, until};

/// Reads the list alone, at start, and then so seldom that it does not again.
fn polled(config: &mut Config) {
    config.events.mode = EventsMode::Poll;
    config.events.sweep_reads_per_day = 1_000;
    config.events.sweep_every = Duration::from_secs(86_400);
}

async fn completeness(rig: &Rig) -> Vec<Completeness> {
    let feed = FeedServiceClient::new(rig.wire()).get_feed(GetFeedRequest::default()).await.unwrap();
    feed.into_inner().completeness
}

/// Waits for a sweep that ended at this time of the gateway's or later.
async fn swept(rig: &Rig, at_ms: i64) -> Completeness {
    let ended = |one: &Completeness| {
        one.last_sweep
            .as_ref()
            .is_some_and(|at| at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000 >= at_ms)
    };
    until(async || completeness(rig).await.into_iter().find(&ended)).await
}

async fn known(rig: &Rig) -> usize {
    let request = ListEventsRequest { page_size: 100, ..ListEventsRequest::default() };
    EventServiceClient::new(rig.wire()).list_events(request).await.unwrap().into_inner().events.len()
}

#[tokio::test]
async fn a_clock_that_was_ahead_hides_nothing() {
    for ahead_s in [300, 7_200] {
        let stripe = Arc::new(ManualClock::at(SystemClock::new().wall()));
        let ahead = Arc::new(ManualClock::at(stripe.wall() + ahead_s * 1_000));
        let rig = Rig::start_at(Arc::clone(&stripe), ahead, |config| {
            polled(config);
            config.events.sweep_every = Duration::from_millis(50);
        })
        .await;
        rig.control().set_webhooks(Vec::new());
        let first = swept(&rig, rig.clock.wall()).await;
        let now_s = stripe.wall().div_euclid(1_000);
        assert!(first.swept_to.is_none_or(|to| to.seconds <= now_s), "{ahead_s}: the future was not read");
        rig.control().trigger("customer.created").unwrap();
        rig.clock.set_wall(stripe.wall());
        until(async || (known(&rig).await == 1).then_some(())).await;
    }
}

#[tokio::test]
async fn a_span_read_on_demand_leaves_no_gap_behind_it() {
    let rig = Rig::start_with(polled).await;
    rig.control().set_webhooks(Vec::new());
    let first = swept(&rig, rig.clock.wall()).await;
    rig.clock.advance(Duration::from_secs(2 * 3_600));
    rig.control().trigger("customer.created").unwrap();
    rig.clock.advance(Duration::from_secs(3 * 3_600));
    let from = Some(Timestamp { seconds: rig.clock.wall() / 1_000 - 3_600, nanos: 0 });
    let request = BackfillRequest { from, ..BackfillRequest::default() };
    let answer = FeedServiceClient::new(rig.operator()).backfill(request).await.unwrap().into_inner();
    assert_eq!((answer.added, answer.completeness.unwrap().swept_to), (0, first.swept_to));
    let rig = rig.restart_with(polled).await;
    until(async || (known(&rig).await == 1).then_some(())).await;
}

#[tokio::test]
async fn an_account_that_stripe_does_not_show_is_swept_no_further() {
    let rig = Rig::start_with(polled).await;
    swept(&rig, rig.clock.wall()).await;
    let from = Some(Timestamp { seconds: rig.clock.wall() / 1_000 - 3_600, nanos: 0 });
    let connected_account = "acct_1SandboxNobody".to_owned();
    let request = BackfillRequest { from, connected_account, ..BackfillRequest::default() };
    FeedServiceClient::new(rig.operator()).backfill(request).await.unwrap_err();
    let all = completeness(&rig).await;
    assert!(all.iter().all(|one| one.connected_account.is_empty()), "{all:?}");
}

#[tokio::test]
async fn more_than_the_reads_of_a_day_comes_in_over_some_days() {
    let scarce = |config: &mut Config| {
        polled(config);
        config.events.sweep_reads_per_day = 16;
        // More than a day's reads by itself.
        config.events.sweep_overlap = Duration::from_secs(86_400);
    };
    let mut rig = Rig::start_with(scarce).await;
    rig.control().set_webhooks(Vec::new());
    swept(&rig, rig.clock.wall()).await;
    for _ in 0..17 {
        rig.clock.advance(Duration::from_secs(60));
        rig.control().burst(Burst { count: 100, objects: 1, fill_bytes: 0 }).unwrap();
    }
    let mut repaired = Vec::new();
    while repaired.last() != Some(&1_700) {
        assert!(repaired.len() < 6, "{repaired:?}");
        rig.clock.advance(Duration::from_secs(86_400));
        let now_ms = rig.clock.wall();
        rig = rig.restart_with(scarce).await;
        repaired.push(swept(&rig, now_ms).await.repaired);
    }
    assert!(repaired.len() > 1, "one day was not enough");
}

/// One endpoint of the account that is down is enough for every event to count as not taken.
#[tokio::test]
async fn what_endpoints_have_not_taken_leaves_reads_for_what_is_new() {
    const READS: usize = 40;
    let often = |config: &mut Config| {
        config.events.sweep_reads_per_day = READS;
        config.events.sweep_every = Duration::from_millis(50);
    };
    let rig = Rig::start_with(often).await;
    let url = "http://127.0.0.1:1/webhooks/stripe".to_owned();
    rig.control().set_webhooks(vec![WebhookTarget { url, secrets: Vec::new() }]);
    rig.control().burst(Burst { count: 200, objects: 1, fill_bytes: 0 }).unwrap();
    assert!(rig.control().give_up() > 0);
    rig.clock.advance(Duration::from_secs(86_400));
    let mut sweeps = BTreeSet::new();
    loop {
        rig.clock.advance(Duration::from_secs(1));
        let own = until(async || completeness(&rig).await.into_iter().next()).await;
        assert!(!own.last_error.contains("allotted"), "after {} sweeps: {own:?}", sweeps.len());
        if own.reads_today > READS as u64 * 7 / 8 {
            break;
        }
        if own.reads_today > READS as u64 / 2 {
            sweeps.extend(own.last_sweep.as_ref().map(|at| at.seconds));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(sweeps.len() > 8, "one read each: {sweeps:?}");
}
