//! Several Stripe accounts behind one gateway: each by its alias, with its own key, its own webhooks and its own
//! operations.

use std::time::{Duration, Instant};

use tollgate::config::{AccountConfig, Config};
use tollgate::domain::account::AccountHeader;
use tollgate::domain::clock::Clock as _;
use tollgate::domain::operation::Mode;
use tollgate::proto::v1::admin_service_client::AdminServiceClient;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::operation_service_client::OperationServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::settle_operation_request::Ruling;
use tollgate::proto::v1::{
    CreateCustomerRequest, CreateRefundRequest, CreateRefundResponse, Event, FreezeWritesRequest,
    GetEventRequest, GetOperationRequest, InspectOperationRequest, ListEventsRequest, ListOperationsRequest,
    Operation, OperationState, SettleOperationRequest,
};
use tollgate::sandbox::{Control, Fault, WebhookTarget};
use tollgate::server::{self, ReloadError};
use tollgate::stripe::signature::sign;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rig::{CONNECTED, EUROPE, EUROPE_KEY, KEY, Rig, config, operation, until};

const EUROPE_SECRET: &str = "whsec_rig_europe_for_tests";
const SHOP_SECRET: &str = "whsec_rig_shop_for_tests";

/// An account of its own, `eu`, and one that is connected to the default account, `shop`.
pub(crate) fn accounts(config: &mut Config) {
    let account = |alias: &str, key: &str, secret: &str, header| AccountConfig {
        alias: alias.to_owned(),
        mode: Mode::Test,
        keys: vec![key.into()],
        webhook_secrets: vec![secret.into()],
        header,
    };
    config.accounts = vec![
        account("eu", EUROPE_KEY, EUROPE_SECRET, AccountHeader::None),
        account("shop", KEY, SHOP_SECRET, AccountHeader::StripeAccount(CONNECTED.to_owned())),
    ];
}

async fn rig() -> Rig {
    let rig = Rig::start_with(accounts).await;
    for (id, alias, secret) in [(EUROPE, "eu", EUROPE_SECRET), (CONNECTED, "shop", SHOP_SECRET)] {
        deliver(&rig, &rig.control_of(id), &format!("/{alias}"), secret);
    }
    rig
}

fn deliver(rig: &Rig, control: &Control, path: &str, secret: &str) {
    let url = format!("http://{}/webhooks/stripe{path}", rig.gateway.webhook);
    control.set_webhooks(vec![WebhookTarget { url, secrets: vec![secret.to_owned()] }]);
}

/// A succeeded payment of 1000 at an account, made without the gateway.
async fn payment(rig: &Rig, alias: &str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/payment_intents", rig.stripe_address());
    let form = "amount=1000&currency=usd&payment_method=pm_card_bypassPending&confirm=true\
                &automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never";
    let request = client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
    let request = match alias {
        "eu" => request.bearer_auth(EUROPE_KEY),
        "shop" => request.bearer_auth(KEY).header("stripe-account", CONNECTED),
        _ => request.bearer_auth(KEY),
    };
    let answer = request.send().await.unwrap().bytes().await.unwrap();
    let payment: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(payment["status"], "succeeded", "{payment}");
    payment["id"].as_str().unwrap().to_owned()
}

fn refund(alias: &str, payment: &str) -> CreateRefundRequest {
    CreateRefundRequest {
        account: alias.to_owned(),
        operation: operation("accounts", "one"),
        payment_intent: Some(payment.to_owned()),
        amount: Some(100),
        ..Default::default()
    }
}

async fn send(rig: &Rig, request: &CreateRefundRequest) -> Result<CreateRefundResponse, Status> {
    let mut refunds = RefundServiceClient::new(rig.wire());
    refunds.create_refund(request.clone()).await.map(tonic::Response::into_inner)
}

fn made(control: &Control) -> usize {
    let book = control.book();
    let effects = book["effects"].as_array().unwrap();
    effects.iter().filter(|effect| effect["path"] == "/v1/refunds").count()
}

async fn known(rig: &Rig, alias: &str) -> Result<Operation, Status> {
    let question = GetOperationRequest {
        operation: operation("accounts", "one"),
        rpc: "RefundService/CreateRefund".to_owned(),
        account: alias.to_owned(),
    };
    let answer = OperationServiceClient::new(rig.wire()).get_operation(question).await?;
    Ok(answer.into_inner().operation.unwrap())
}

async fn events(rig: &Rig, alias: &str) -> Vec<Event> {
    let types = vec!["refund.created".to_owned()];
    let question = ListEventsRequest { account: alias.to_owned(), types, ..Default::default() };
    EventServiceClient::new(rig.wire()).list_events(question).await.unwrap().into_inner().events
}

#[tokio::test]
async fn one_reference_is_a_change_of_its_own_in_each_account() {
    let rig = rig().await;
    let own = rig.gateway.account.clone();
    for (alias, id) in [("", own.as_str()), ("eu", EUROPE), ("shop", CONNECTED)] {
        let control = rig.control_of(id);
        let request = refund(alias, &payment(&rig, alias).await);
        let first = send(&rig, &request).await.unwrap();
        let again = send(&rig, &request).await.unwrap();
        assert!(!first.call.unwrap().replayed && again.call.unwrap().replayed, "{alias}");
        assert_eq!(made(&control), 1, "{alias}");
        let known = known(&rig, alias).await.unwrap();
        assert_eq!((known.account.as_str(), known.object_id), (id, first.refund.unwrap().id), "{alias}");
    }
    let status = send(&rig, &refund("us", "pi_1")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.get_details_error_info().unwrap().reason, "ACCOUNT_UNKNOWN");
    let elsewhere = refund("eu", &payment(&rig, "").await);
    let elsewhere = CreateRefundRequest { operation: operation("accounts", "two"), ..elsewhere };
    assert_eq!(send(&rig, &elsewhere).await.unwrap_err().code(), Code::NotFound, "no account sees another's");
}

#[tokio::test]
async fn a_start_waits_for_silent_accounts_all_at_once_and_hears_the_others() {
    let rig = rig().await;
    for id in [rig.gateway.account.as_str(), CONNECTED] {
        rig.control_of(id).add_fault(Fault::parse("latency:GET:/v1/account:ms=60000").unwrap());
    }
    let since = Instant::now();
    let rig = rig.restart_with(accounts).await;
    // Each alone may take ten seconds.
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    let said = until(async || {
        let said = readyz(&rig).await;
        let is_silent = |alias: &str| said.contains(&format!("whose the key of {alias} is"));
        (is_silent("default") && is_silent("shop")).then_some(said)
    })
    .await;
    assert!(!said.contains("the key of eu"), "{said}");
}

#[tokio::test]
async fn events_stand_under_the_account_that_they_are_of() {
    let rig = rig().await;
    for alias in ["", "eu", "shop"] {
        send(&rig, &refund(alias, &payment(&rig, alias).await)).await.unwrap();
        let [event] = until(async || <[Event; 1]>::try_from(events(&rig, alias).await).ok()).await;
        assert_eq!(event.account, alias);
        assert_eq!(event.connected_account, if alias == "shop" { CONNECTED } else { "" });
        let mut reader = EventServiceClient::new(rig.wire());
        for asked in ["", "eu", "shop"] {
            let question = GetEventRequest { id: event.id.clone(), account: asked.to_owned() };
            assert_eq!(reader.get_event(question).await.is_ok(), asked == alias, "{asked} for {alias}");
        }
    }
}

#[tokio::test]
async fn what_comes_to_the_endpoint_of_another_account_is_not_taken() {
    let rig = rig().await;
    let delivered = |control: Control| async move {
        until(async || (control.undelivered() == 0).then_some(())).await;
    };
    // What is signed for one endpoint is nothing at another.
    deliver(&rig, &rig.control_of(EUROPE), "/shop", SHOP_SECRET);
    deliver(&rig, &rig.control_of(CONNECTED), "", crate::rig::SECRET);
    for alias in ["eu", "shop"] {
        send(&rig, &refund(alias, &payment(&rig, alias).await)).await.unwrap();
    }
    delivered(rig.control_of(EUROPE)).await;
    delivered(rig.control_of(CONNECTED)).await;
    for alias in ["", "eu", "shop"] {
        assert!(events(&rig, alias).await.is_empty(), "{alias}");
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_by_an_event_of_its_own_account() {
    let rig = rig().await;
    let control = rig.control_of(EUROPE);
    control.add_fault(Fault::parse("drop_after:POST:/v1/refunds:times=1000").unwrap());
    let status = send(&rig, &refund("eu", &payment(&rig, "eu").await)).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "OUTCOME_UNKNOWN", "{status:?}");
    until(async || (known(&rig, "eu").await.unwrap().state() == OperationState::Succeeded).then_some(()))
        .await;
    assert_eq!(made(&control), 1);
    assert_eq!(known(&rig, "").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_unknown_outcome_is_looked_up_at_its_own_account_after_a_restart() {
    let rig = rig().await;
    let control = rig.control_of(CONNECTED);
    control.set_webhooks(Vec::new());
    control.add_fault(Fault::parse("drop_after:POST:/v1/refunds:times=1000").unwrap());
    send(&rig, &refund("shop", &payment(&rig, "shop").await)).await.unwrap_err();
    assert_eq!(known(&rig, "shop").await.unwrap().state(), OperationState::Unknown);
    let rig = rig.restart_with(accounts).await;
    rig.clock.advance(Duration::from_secs(3600));
    until(async || (known(&rig, "shop").await.unwrap().state() == OperationState::Succeeded).then_some(()))
        .await;
    assert_eq!(made(&rig.control_of(CONNECTED)), 1);
}

#[tokio::test]
async fn an_event_of_another_account_proves_nothing() {
    let rig = rig().await;
    let europe = rig.control_of(EUROPE);
    europe.set_webhooks(Vec::new());
    for control in [&europe, &rig.control()] {
        control.add_fault(Fault::parse("drop_after:POST:/v1/refunds:times=1000").unwrap());
    }
    send(&rig, &refund("eu", &payment(&rig, "eu").await)).await.unwrap_err();
    let unknown = known(&rig, "eu").await.unwrap();
    // The same key and the same stamp, by whoever has the other account's key.
    let form = format!(
        "payment_intent={}&amount=100&metadata[tollgate_operation]={}",
        payment(&rig, "").await,
        unknown.stamp
    );
    rig.control().clear_faults();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/refunds", rig.stripe_address());
    let request = client.post(url).bearer_auth(KEY).header("idempotency-key", &unknown.idempotency_key);
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(request.send().await.unwrap().status(), 200);
    until(async || (events(&rig, "").await.len() == 1).then_some(())).await;
    // What comes later in the log is dealt with later.
    rig.control().add_fault(Fault::parse("drop_after:POST:/v1/refunds:times=1000").unwrap());
    send(&rig, &refund("", &payment(&rig, "").await)).await.unwrap_err();
    until(async || (known(&rig, "").await.unwrap().state() == OperationState::Succeeded).then_some(())).await;
    assert_eq!(known(&rig, "eu").await.unwrap().state(), OperationState::Unknown);
}

#[tokio::test]
async fn a_freeze_of_an_account_leaves_the_others_alone() {
    let rig = rig().await;
    let freeze = FreezeWritesRequest {
        account: "eu".to_owned(),
        reason: "closing the books".to_owned(),
        ..FreezeWritesRequest::default()
    };
    AdminServiceClient::new(rig.operator()).freeze_writes(freeze).await.unwrap();
    let status = send(&rig, &refund("eu", &payment(&rig, "eu").await)).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "FROZEN");
    send(&rig, &refund("shop", &payment(&rig, "shop").await)).await.unwrap();
}

#[tokio::test]
async fn nobody_freezes_an_account_by_a_right_at_another() {
    let rig = Rig::start_with(|config| {
        accounts(config);
        let text = "@id(\"some\") permit (principal == Caller::\"operator\", action, resource)\n\
                    when { resource == Account::\"default\" || resource == Account::\"eu\" };\n";
        let file = config.data.parent().unwrap().join("some.cedar");
        std::fs::write(&file, text).unwrap();
        config.policy_files = vec![file];
    })
    .await;
    let mut admin = AdminServiceClient::new(rig.operator());
    let mut freeze = async |account: &str| {
        let account = account.to_owned();
        let request = FreezeWritesRequest { account, reason: "to try".to_owned(), ..Default::default() };
        admin.freeze_writes(request).await.map(drop).map_err(|status| status.code())
    };
    assert_eq!((freeze("eu").await, freeze("").await), (Ok(()), Err(Code::PermissionDenied)));
    assert_eq!(freeze("shop").await, Err(Code::PermissionDenied));
}

#[tokio::test]
async fn nobody_settles_or_sees_what_an_account_left_open_by_a_right_at_another() {
    let rig = Rig::start_with(|config| {
        accounts(config);
        let text = "@id(\"rig\") permit (principal == Caller::\"rig\", action, resource);\n\
                    @id(\"some\") permit (principal == Caller::\"operator\", action, resource)\n\
                    when { resource == Account::\"default\" || resource == Account::\"shop\" };\n";
        let file = config.data.parent().unwrap().join("some.cedar");
        std::fs::write(&file, text).unwrap();
        config.policy_files = vec![file];
    })
    .await;
    let mut admin = AdminServiceClient::new(rig.operator());
    for (alias, id) in [("eu", EUROPE), ("shop", CONNECTED)] {
        let control = rig.control_of(id);
        control.add_fault(Fault::parse("drop_after:POST:/v1/refunds:times=1000").unwrap());
        send(&rig, &refund(alias, &payment(&rig, alias).await)).await.unwrap_err();
        let id = known(&rig, alias).await.unwrap().stamp;
        let seen = admin.inspect_operation(InspectOperationRequest { id: id.clone() }).await;
        let settle = SettleOperationRequest {
            id,
            reason: "to try".to_owned(),
            ruling: Some(Ruling::NotExecuted(true)),
        };
        let settled = admin.settle_operation(settle).await.map(drop).unwrap_err();
        let denied = Some(Code::PermissionDenied);
        assert_eq!(seen.err().map(|status| status.code()), denied.filter(|_| alias == "eu"), "{alias}");
        assert_eq!(settled.code() == Code::PermissionDenied, alias == "eu", "{settled:?}");
    }
    let listed = admin.list_operations(ListOperationsRequest::default()).await.unwrap().into_inner();
    let at: Vec<_> = listed.operations.into_iter().map(|entry| entry.operation.unwrap().account).collect();
    assert_eq!(at, [CONNECTED]);
}

#[tokio::test]
async fn a_secret_of_the_default_account_speaks_for_no_other() {
    let rig = rig().await;
    let body = format!(
        r#"{{"id":"evt_forged","object":"event","type":"refund.created","created":1,"livemode":false,
            "account":"{EUROPE}","data":{{"object":{{"id":"re_1","object":"refund"}}}}}}"#
    );
    let signed_s = rig.clock.wall().div_euclid(1_000);
    let signature = sign(&crate::rig::SECRET.into(), signed_s, body.as_bytes());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/webhooks/stripe", rig.gateway.webhook);
    let sent = client.post(url).header("stripe-signature", signature).body(body).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    let mut reader = EventServiceClient::new(rig.wire());
    let question = GetEventRequest { id: "evt_forged".to_owned(), account: String::new() };
    assert_eq!(reader.get_event(question).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_account_takes_new_keys_of_its_own_and_no_others() {
    let rig = rig().await;
    let with_key = |key: &str| {
        let mut config = config(rig.stripe_address(), &rig.data);
        accounts(&mut config);
        config.accounts[0].keys = vec![key.into(), EUROPE_KEY.into()];
        config
    };
    let refused = rig.gateway.reload(with_key(KEY)).await.unwrap_err();
    assert!(matches!(&refused, ReloadError::OtherAccount { alias, .. } if alias == "eu"), "{refused}");
    let refused = rig.gateway.reload(with_key("sk_test_nobody")).await.unwrap_err();
    assert!(matches!(&refused, ReloadError::Account { alias, .. } if alias == "eu"), "{refused}");
    send(&rig, &refund("eu", &payment(&rig, "eu").await)).await.unwrap();
}

#[tokio::test]
async fn every_key_is_asked_for_its_account_at_start() {
    let rig = Rig::start().await;
    let folder = tempfile::TempDir::new().unwrap();
    let start = async |keys: &[&str]| {
        let mut config = config(rig.stripe_address(), &folder);
        config.stripe.keys = keys.iter().map(|&key| key.into()).collect();
        server::start(config, rig.clock.clone()).await
    };
    let refused = start(&[KEY, EUROPE_KEY]).await.map(drop).unwrap_err();
    assert!(matches!(&refused, server::Error::OtherAccount { found, .. } if found == EUROPE), "{refused}");
    for keys in [[KEY, "sk_test_nobody"], ["sk_test_nobody", KEY]] {
        start(&keys).await.unwrap().stop().await;
    }
}

/// What operators are told over HTTP.
async fn readyz(rig: &Rig) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/readyz", rig.gateway.ops);
    client.get(url).send().await.unwrap().text().await.unwrap()
}

async fn make_a_customer(rig: &Rig, order: &str) -> Result<(), Status> {
    let request = CreateCustomerRequest { operation: operation(order, ""), ..Default::default() };
    CustomerServiceClient::new(rig.wire()).create_customer(request).await.map(drop)
}

#[tokio::test]
async fn a_key_that_was_silent_at_the_start_is_asked_until_it_tells() {
    let rig = Rig::start().await;
    rig.control().add_fault(Fault::parse("drop_before:GET:/v1/account").unwrap());
    let rig = rig.restart().await;
    let said = until(async || Some(readyz(&rig).await).filter(|said| said.contains("key of default"))).await;
    assert!(said.starts_with("ready\n") && said.contains("the pinned account is believed"), "{said}");
    make_a_customer(&rig, "meanwhile").await.unwrap();
    rig.control().clear_faults();
    until(async || (readyz(&rig).await == "ready\n").then_some(())).await;
    make_a_customer(&rig, "afterwards").await.unwrap();
}

#[tokio::test]
async fn a_silent_key_of_another_account_is_out_of_use_once_it_tells() {
    let rig = Rig::start().await;
    rig.control_of(EUROPE).add_fault(Fault::parse("drop_before:GET:/v1/account").unwrap());
    let rig = rig.restart_with(|config| config.stripe.keys = vec![EUROPE_KEY.into()]).await;
    rig.control_of(EUROPE).clear_faults();
    until(async || readyz(&rig).await.contains("belongs to another account").then_some(())).await;
    make_a_customer(&rig, "elsewhere").await.unwrap_err();
    // The way out is a key of the account itself.
    let own = config(rig.stripe_address(), &rig.data);
    rig.gateway.reload(own).await.unwrap();
    assert_eq!(readyz(&rig).await, "ready\n");
    make_a_customer(&rig, "here").await.unwrap();
}

#[tokio::test]
async fn one_account_cannot_go_by_two_aliases() {
    let rig = Rig::start().await;
    let start = async |header: &str| {
        // A start that fails may hold its folder a little longer.
        let folder = tempfile::TempDir::new().unwrap();
        let mut config = config(rig.stripe_address(), &folder);
        accounts(&mut config);
        config.accounts[1].header = AccountHeader::StripeAccount(header.to_owned());
        server::start(config, rig.clock.clone()).await.map(drop).unwrap_err().to_string()
    };
    let own = rig.gateway.account.clone();
    assert_eq!(
        start(&own).await,
        format!("`shop` and `default` are both `{own}` in one mode; keep one of them")
    );
    assert!(
        start("acct_nobody").await.starts_with("the Stripe account of the key of `shop` could not be learnt")
    );
}
