//! `tollgate webhook register`: an endpoint at Stripe whose events reach the gateway as events of the account that it was
//! registered for.

use std::fs;
use std::sync::Arc;

use serde_json::Value;
use tollgate::config::{self, Environment, Flags};
use tollgate::domain::clock::SystemClock;
use tollgate::sandbox::Further;
use tollgate::server;

use super::{SECRET_KEY, Stage, VERSION};
use crate::rig::{sample, until};

const DELIVERIES: &str = "tollgate_webhook_deliveries_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_endpoint_has_the_version_of_the_build_and_its_secret_verifies_events() {
    let stage = Stage::new().await;
    stage.no_endpoint().await;
    let flags = || Flags { config: Some(stage.path("tollgate.toml")), values: Vec::new() };
    drop(stage.command(&["doctor"]));
    let settings = config::load(&flags(), &Environment::default()).unwrap();
    let limits = settings.listen;
    let gateway = server::start(settings, Arc::new(SystemClock::new())).await.unwrap();
    let url = format!("http://{}/webhooks/stripe", gateway.webhook);
    let listen = config::Listen { grpc: gateway.grpc, webhook: gateway.webhook, ops: gateway.ops, ..limits };
    gateway.stop().await;

    fs::remove_file(stage.path("webhook_secret")).unwrap();
    let output = stage.command(&["webhook", "register", "-o", "json", "--url", &url]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let registered: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&registered["api_version"], &registered["url"]), (&VERSION.into(), &url.as_str().into()));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("whsec_"), "{output:?}");
    let secrets = fs::read_to_string(stage.path("webhook_secret")).unwrap();
    assert!(secrets.starts_with("whsec_"), "a first secret makes the file");

    let mut settings = config::load(&flags(), &Environment::default()).unwrap();
    settings.listen = listen;
    let gateway = server::start(settings, Arc::new(SystemClock::new())).await.unwrap();
    stage.stripe("POST", "/v1/customers", "name=Ada").await;
    let control = stage.sandbox.control();
    until(async || {
        let book = control.book();
        book["acknowledged"].as_array().is_some_and(|taken| !taken.is_empty()).then_some(())
    })
    .await;
    gateway.stop().await;

    let list = stage.command(&["webhook", "list", "-o", "jsonl"]).output().unwrap();
    assert!(String::from_utf8_lossy(&list.stdout).contains(registered["id"].as_str().unwrap()), "{list:?}");
    let id = registered["id"].as_str().unwrap();
    assert!(stage.command(&["webhook", "delete", id]).status().unwrap().success());
    assert_eq!(stage.stripe("GET", "/v1/webhook_endpoints", "").await["data"], serde_json::json!([]));
    let mut plain = stage.command(&["webhook", "register", "--url", "http://a.example/webhooks/stripe"]);
    assert_eq!(plain.output().unwrap().status.code(), Some(65), "Stripe delivers over TLS only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_registered_where_the_events_of_its_account_come_from() {
    const SHOP: &str = "acct_1Shop";
    const BRANCH: &str = "acct_1Branch";
    let connected = |id: &str| Further { account_id: id.to_owned(), secret_key: None };
    let mut stage = Stage::with_accounts(vec![connected(SHOP), connected(BRANCH)]).await;
    stage.no_endpoint().await;
    let account = |alias: &str, how: &str, id: &str| {
        stage.secret(alias, &format!("whsec_of_{alias}_to_begin_with"));
        let secret = stage.path(alias);
        format!(
            "[accounts.{alias}]\nkey = \"{SECRET_KEY}\"\nwebhook_secret_file = \"{}\"\n{how} = \"{id}\"\n",
            secret.display()
        )
    };
    let accounts = account("shop", "stripe_account", SHOP) + &account("branch", "stripe_context", BRANCH);
    stage.replace("[listen]", &format!("{accounts}[listen]"));
    drop(stage.command(&["doctor"]));
    let flags = Flags { config: Some(stage.path("tollgate.toml")), values: Vec::new() };
    let settings = || config::load(&flags, &Environment::default()).unwrap();
    let gateway = server::start(settings(), Arc::new(SystemClock::new())).await.unwrap();
    let (grpc, webhook, ops) = (gateway.grpc, gateway.webhook, gateway.ops);
    gateway.stop().await;

    let register = |alias: &str, more: &[&str]| {
        let url = format!("http://{webhook}/webhooks/stripe/{alias}");
        let arguments = ["webhook", "register", "--account", alias, "--url", &url];
        stage.command(&[&arguments, more].concat()).output().unwrap()
    };
    let refused = register("branch", &["--connected"]);
    assert_eq!(refused.status.code(), Some(65), "{refused:?}");
    for alias in ["shop", "branch"] {
        let output = register(alias, &[]);
        assert!(output.status.success(), "{output:?}");
    }
    let at_platform = stage.stripe("GET", "/v1/webhook_endpoints", "").await["data"].clone();
    assert_eq!(at_platform.as_array().unwrap().len(), 1, "{at_platform}");

    let mut settings = settings();
    settings.listen = config::Listen { grpc, webhook, ops, ..settings.listen };
    let gateway = server::start(settings, Arc::new(SystemClock::new())).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for account in [None, Some(SHOP), Some(BRANCH)] {
        let url = format!("http://{}/v1/customers", stage.sandbox.address());
        let request = client.post(url).bearer_auth(SECRET_KEY).body("name=Ada");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = account.into_iter().fold(request, |request, id| request.header("stripe-account", id));
        assert!(request.send().await.unwrap().status().is_success());
    }
    let told = until(async || {
        let answer = client.get(format!("http://{ops}/metrics")).send().await.unwrap();
        let page = answer.text().await.unwrap();
        (sample(&page, DELIVERIES, "") == Some(3.0)).then_some(page)
    })
    .await;
    // The platform's endpoint hears of both connected accounts, and of the platform itself nothing.
    for (result, count) in [("accepted", 2.0), ("wrong_account", 1.0)] {
        assert_eq!(sample(&told, DELIVERIES, result), Some(count), "{told}");
    }
    gateway.stop().await;
}
