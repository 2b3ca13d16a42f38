//! Consumers of one subscription that may not be shown the same, callers that leave before they are answered, and accounts
//! that go.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::timeout;
use tollgate::config::{CallerConfig, Config};
use tollgate::domain::clock::Clock as _;
use tollgate::domain::secret::Secret;
use tollgate::proto::v1::audit_service_client::AuditServiceClient;
use tollgate::proto::v1::reject_request::Verdict;
use tollgate::proto::v1::seek_subscription_request::To;
use tollgate::proto::v1::subscription_service_client::SubscriptionServiceClient;
use tollgate::proto::v1::{
    ConsumeRequest, CreateSubscriptionRequest, DeleteSubscriptionRequest, DeliveryOptions,
    ListParkedEventsRequest, PauseSubscriptionRequest, ReplayEventsRequest, SearchAuditRecordsRequest,
    SeekSubscriptionRequest,
};
use tollgate::stripe::signature::sign;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Status};

use crate::accounts::accounts;
use crate::rig::{POLICY, Rig, SECRET, Token, until};
use crate::subscriptions::{
    Client, acknowledge, client, consume, created, creation, head, make, name, next, reason, reject,
    status_of, take,
};

const WEAK: &str = "token-of-the-weak-consumer";
const OF_CHARGES: &str = r#"
@id("of-charges")
forbid (principal == Caller::"weak", action == Action::"EventService.ReceiveEvent", resource)
unless { context.event_type == "charge.succeeded" };
"#;

/// A caller `weak` in the namespace of the rig's, which may be shown one type of events only.
fn settings(config: &mut Config) {
    std::fs::write(&config.policy_files[0], format!("{POLICY}{OF_CHARGES}")).unwrap();
    config.callers.push(CallerConfig {
        name: "weak".into(),
        namespace: "rig".into(),
        tokens: vec![WEAK.into()],
        ..config.callers[0].clone()
    });
}

fn weak(rig: &Rig) -> Client {
    SubscriptionServiceClient::new(InterceptedService::new(rig.channel(), Token(WEAK)))
}

#[tokio::test]
async fn what_one_consumer_may_not_be_shown_another_gets_and_only_what_the_creator_may_not_is_passed_over() {
    let rig = Rig::start_with(settings).await;
    let (mut strong, mut weak) = (client(&rig), weak(&rig));
    created(&mut strong, DeliveryOptions::default()).await;
    rig.payment(1000).await;
    let events = until(async || {
        let delivered = rig.control().undelivered() == 0;
        let head = head(&rig).await;
        (delivered && head > 1).then_some(head)
    })
    .await;
    let mut of_weak = consume(&mut weak, "").await;
    let charge = next(&mut of_weak).await.unwrap();
    assert_eq!(charge.0.r#type, "charge.succeeded");
    acknowledge(&mut weak, [&charge]).await.unwrap();
    assert_eq!(status_of(&mut strong).await.lag_events, events - 1, "the rest is left");
    let mut of_strong = consume(&mut strong, "").await;
    for _ in 1..events {
        let taken = next(&mut of_strong).await.unwrap();
        assert_ne!(taken.0.r#type, "charge.succeeded");
        acknowledge(&mut strong, [&taken]).await.unwrap();
    }
    let status = status_of(&mut strong).await;
    assert_eq!((status.lag_events, status.position), (0, events));
    assert_eq!(rig.sample("tollgate_events_passed_over_total", "").await, None);

    strong.delete_subscription(DeleteSubscriptionRequest { name: name() }).await.unwrap();
    created(&mut weak, DeliveryOptions::default()).await;
    let charge = next(&mut consume(&mut weak, "").await).await.unwrap();
    acknowledge(&mut weak, [&charge]).await.unwrap();
    until(async || (status_of(&mut weak).await.lag_events == 0).then_some(())).await;
    let counted = rig.sample("tollgate_events_passed_over_total", "").await.unwrap();
    assert_eq!(counted.to_string(), (events - 1).to_string());
}

#[tokio::test]
async fn an_answer_whose_caller_leaves_is_on_record_if_it_counts() {
    const EVENTS: usize = 40;
    let rig = Rig::start().await;
    let mut client = client(&rig);
    created(&mut client, DeliveryOptions::default()).await;
    make(&rig, EVENTS, EVENTS).await;
    let taken = take(&mut consume(&mut client, "").await, EVENTS).await;
    for (place, one) in (0_u64..).zip(&taken) {
        // Some leave before the call arrives, some while it is carried out, some after it.
        let patience = Duration::from_micros(place * 150);
        if place % 2 == 0 {
            drop(timeout(patience, acknowledge(&mut client.clone(), [one])).await);
        } else {
            drop(timeout(patience, reject(&mut client.clone(), &one.1, Verdict::Skip(true))).await);
        }
    }
    until(async || {
        let left = status_of(&mut client).await.lag_events;
        let recorded = recorded(&rig, "Acknowledge").await + recorded(&rig, "Reject").await;
        (recorded + usize::try_from(left).unwrap() == EVENTS).then_some(())
    })
    .await;
}

/// How many calls of an RPC are on record as succeeded.
async fn recorded(rig: &Rig, rpc: &str) -> usize {
    let (rpc, result) = (format!("SubscriptionService/{rpc}"), "succeeded".to_owned());
    let search = SearchAuditRecordsRequest { rpc, result, page_size: 100, ..Default::default() };
    let page = AuditServiceClient::new(rig.wire()).search_audit_records(search).await.unwrap();
    page.into_inner().records.len()
}

#[tokio::test]
async fn a_page_of_parked_events_ends_before_it_is_too_large_for_clients() {
    let rig = Rig::start().await;
    let mut client = client(&rig);
    let options = DeliveryOptions { max_in_flight_bytes: 64 << 20, ..DeliveryOptions::default() };
    created(&mut client, options).await;
    for number in 1..=4 {
        send_large(&rig, number).await;
    }
    for taken in take(&mut consume(&mut client, "").await, 4).await {
        assert!(reject(&mut client, &taken.1, Verdict::Park(true)).await.unwrap());
    }
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListParkedEventsRequest { name: name(), page_token, ..Default::default() };
        let page = client.list_parked_events(request).await.unwrap().into_inner();
        pages.push(page.events.len());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [3, 1]);
}

/// Delivers an event of about 900 kB to the gateway.
async fn send_large(rig: &Rig, number: u32) {
    let now_s = rig.clock.wall() / 1000;
    let body = format!(
        r#"{{"id":"evt_large{number}","object":"event","type":"product.created","created":{now_s},"livemode":false,
        "api_version":"2026-10-28.endive","data":{{"object":{{"id":"prod_{number}","object":"product",
        "description":"{}"}}}},"request":null}}"#,
        "x".repeat(900_000)
    );
    let signature = sign(&Secret::from(SECRET), now_s, body.as_bytes());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/webhooks/stripe", rig.gateway.webhook);
    let answer = http.post(url).header("stripe-signature", signature).body(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

#[tokio::test]
async fn a_subscription_of_an_account_that_is_gone_can_be_seen_and_deleted_and_nothing_else() {
    let rig = Rig::start_with(accounts).await;
    let of_europe = CreateSubscriptionRequest { account: "eu".to_owned(), ..creation() };
    client(&rig).create_subscription(of_europe).await.unwrap();
    let rig = rig.restart().await;
    let mut client = client(&rig);
    assert_unknown(client.consume(ConsumeRequest { name: name(), ..Default::default() }).await);
    let parked = ListParkedEventsRequest { name: name(), ..Default::default() };
    assert_unknown(client.list_parked_events(parked).await);
    let replay = ReplayEventsRequest {
        name: name(),
        event_ids: vec!["evt_1".to_owned()],
        reason: "again please".to_owned(),
    };
    assert_unknown(client.replay_events(replay).await);
    let to = Some(To::Earliest(true));
    let seek = SeekSubscriptionRequest { name: name(), to, reason: "again please".to_owned() };
    assert_unknown(client.seek_subscription(seek).await);
    assert_unknown(client.pause_subscription(PauseSubscriptionRequest { name: name() }).await);
    assert_eq!(status_of(&mut client).await.position, 0);
    client.delete_subscription(DeleteSubscriptionRequest { name: name() }).await.unwrap();
}

fn assert_unknown<T: Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "ACCOUNT_UNKNOWN"));
}
