//! The waiting around the scheduler.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::domain::account::AccountHeader;

const SETTINGS: Settings =
    Settings { requests_per_s: 200, endpoint_requests_per_s: 200, requests_at_once_max: 2 };
/// So slow that a turn comes in none of these tests.
const SLOW: Settings = Settings { requests_per_s: 1, ..SETTINGS };

fn caller(name: &str) -> Sender {
    Sender::Caller(name.into())
}

fn read() -> Outgoing {
    Outgoing::read("/v1/charges", String::new(), AccountHeader::None)
}

async fn turn(traffic: &Traffic, name: &str) -> Result<Turn, Trouble> {
    traffic.turn(&read(), &caller(name), None).await
}

/// Uses up what was saved.
async fn used_up(settings: Settings) -> Traffic {
    let traffic = Traffic::new(settings);
    while turn(&traffic, "before").await.unwrap().waited().is_zero() {}
    traffic
}

#[tokio::test]
async fn turns_come_no_faster_than_the_rate_and_by_fair_shares() {
    let (traffic, done) = (used_up(SETTINGS).await, Arc::new(AtomicU32::new(0)));
    let started = Instant::now();
    let flood: Vec<_> = (0..100)
        .map(|_| {
            let (traffic, done) = (traffic.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                drop(turn(&traffic, "flood").await.unwrap());
                done.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    tokio::task::yield_now().await;
    for _ in 0..5 {
        drop(turn(&traffic, "other").await.unwrap());
    }
    // One behind the other, the first of the five would have had a hundred before it.
    assert!(done.load(Ordering::SeqCst) < 80);
    for one in flood {
        one.await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(105 * 1_000 / 200 - 10));
    assert_eq!(traffic.standing().waiting, 0);
    assert!(traffic.standing().headroom < 1.0);
}

#[tokio::test]
async fn who_stops_waiting_gives_the_place_up_and_what_ends_lets_the_next_go() {
    let traffic = used_up(SLOW).await;
    let soon = Duration::from_millis(1);
    let mut waiting = Box::pin(turn(&traffic, "a"));
    assert!(tokio::time::timeout(soon, &mut waiting).await.is_err() && traffic.standing().waiting == 1);
    drop(waiting);
    assert_eq!(traffic.standing().waiting, 0);

    // Both places are taken, so time alone brings no turn.
    let traffic = Traffic::new(SETTINGS);
    let (one, _two) = (turn(&traffic, "a").await.unwrap(), turn(&traffic, "a").await.unwrap());
    let mut third = Box::pin(turn(&traffic, "a"));
    assert!(tokio::time::timeout(soon, &mut third).await.is_err());
    drop(one);
    drop(third.await.unwrap());
    assert_eq!(traffic.standing().under_way, 1);
}

#[tokio::test]
async fn a_turn_that_cannot_come_in_time_is_refused_at_once_with_when_it_could() {
    let traffic = used_up(SLOW).await;
    let soon = Some(Instant::now() + Duration::from_millis(10));
    let refused = traffic.turn(&read(), &caller("a"), soon).await.unwrap_err();
    let Trouble::Crowded { why: Why::Deadline, retry_ms } = refused else { panic!("{refused:?}") };
    assert!((10..=1_300).contains(&retry_ms), "{retry_ms}");
    assert!(traffic.refusal(&read(), &caller("a"), soon).is_some());
    assert_eq!(traffic.refusal(&read(), &caller("a"), None), None);
}

#[tokio::test]
async fn stripes_word_slows_the_account_down() {
    let traffic = Traffic::new(SETTINGS);
    let answer = |reason: Option<&str>| {
        let rate_limited_reason = reason.map(str::to_owned);
        Attempt::Answered(Answer { status: 429, rate_limited_reason, ..Answer::default() })
    };
    let mut held = turn(&traffic, "a").await.unwrap();
    // A lock of the object is no limiter's word.
    held.heard(&answer(None));
    assert!((traffic.standing().limit - 200.0).abs() < 0.1);
    held.heard(&answer(Some("global-rate")));
    assert!((140.0..190.0).contains(&traffic.standing().limit), "{:?}", traffic.standing());
}

#[tokio::test]
async fn only_turns_with_an_attempt_tell_how_long_stripe_takes() {
    let traffic = Traffic::new(SETTINGS);
    let takes = || traffic.queue().scheduler.allowance().takes();
    let soon = Duration::from_millis(50);
    let unused = turn(&traffic, "a").await.unwrap();
    tokio::time::sleep(soon).await;
    drop(unused);
    let mut unsent = turn(&traffic, "a").await.unwrap();
    unsent.begins();
    tokio::time::sleep(soon).await;
    unsent.heard(&Attempt::NotSent(Trouble::Deadline));
    drop(unsent);
    assert_eq!(takes(), Duration::ZERO);
    let mut given_up = turn(&traffic, "a").await.unwrap();
    given_up.begins();
    tokio::time::sleep(soon).await;
    drop(given_up);
    let once = takes();
    assert!(once > Duration::ZERO);
    let mut answered = turn(&traffic, "a").await.unwrap();
    answered.begins();
    tokio::time::sleep(soon).await;
    answered.heard(&Attempt::Answered(Answer::default()));
    drop(answered);
    assert!(takes() > once);
}
