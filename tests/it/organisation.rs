//! A key of an organisation: it acts on the account that its alias names, and only in the mode that is configured.

use tollgate::config::{AccountConfig, Config};
use tollgate::domain::account::AccountHeader;
use tollgate::domain::operation::Mode;
use tollgate::proto::v1::CreateCustomerRequest;
use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::sandbox::{Control, Fault};
use tollgate::server::{self, ReloadError};
use tollgate::stripe::AccountError;
use tonic::Status;

use crate::rig::{CONNECTED, EUROPE, EUROPE_KEY, KEY, ORGANISATION_KEY, Rig, config, operation};

/// An account `books` that is reached by these keys.
fn books(config: &mut Config, keys: &[&str], context: &str) {
    config.accounts = vec![AccountConfig {
        alias: "books".to_owned(),
        mode: Mode::Test,
        keys: keys.iter().map(|&key| key.into()).collect(),
        webhook_secrets: vec!["whsec_rig_books_for_tests".into()],
        header: AccountHeader::StripeContext(context.to_owned()),
    }];
}

async fn make_a_customer(rig: &Rig, order: &str) -> Result<(), Status> {
    let request = CreateCustomerRequest {
        account: "books".to_owned(),
        operation: operation(order, ""),
        ..Default::default()
    };
    CustomerServiceClient::new(rig.wire()).create_customer(request).await.map(drop)
}

fn made(control: &Control) -> usize {
    control.book()["effects"].as_array().unwrap().len()
}

#[tokio::test]
async fn an_organisations_key_acts_on_the_account_that_its_alias_names() {
    for (context, account) in [(EUROPE.to_owned(), EUROPE), (format!("{EUROPE}/{CONNECTED}"), CONNECTED)] {
        let rig = Rig::start_with(|config| books(config, &[ORGANISATION_KEY], &context)).await;
        make_a_customer(&rig, "one").await.unwrap();
        for id in [rig.gateway.account.as_str(), EUROPE, CONNECTED] {
            assert_eq!(made(&rig.control_of(id)), usize::from(id == account), "{id} for {context}");
        }
    }
}

#[tokio::test]
async fn a_request_under_an_organisations_key_needs_its_headers() {
    let rig = Rig::start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |key: &str, headers: &[(&str, &str)]| {
        let request = client.get(format!("http://{}/v1/account", rig.stripe_address())).bearer_auth(key);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.send().await.unwrap().status().as_u16()
    };
    let (context, version) = (("stripe-context", EUROPE), ("stripe-version", "2026-10-28.endive"));
    assert_eq!(status(ORGANISATION_KEY, &[context, version]).await, 200);
    assert_eq!(status(ORGANISATION_KEY, &[version]).await, 400);
    assert_eq!(status(ORGANISATION_KEY, &[context]).await, 400);
    assert_eq!(status(KEY, &[context, version]).await, 403, "another's account");
}

#[tokio::test]
async fn an_organisations_key_of_the_other_mode_is_never_used() {
    let rig = Rig::start_with(|config| books(config, &[ORGANISATION_KEY], EUROPE)).await;
    let folder = tempfile::TempDir::new().unwrap();
    let mut live = config(rig.stripe_address(), &folder);
    books(&mut live, &[ORGANISATION_KEY], EUROPE);
    live.accounts[0].mode = Mode::Live;
    let refused = server::start(live, rig.clock.clone()).await.map(drop).unwrap_err();
    assert!(
        matches!(&refused, server::Error::Account { source: AccountError::OtherMode(Mode::Test), .. }),
        "{refused}"
    );
    make_a_customer(&rig, "still").await.unwrap();
}

#[tokio::test]
async fn an_organisations_key_is_not_used_before_stripe_tells_its_mode() {
    let rig = Rig::start_with(|config| books(config, &[EUROPE_KEY], EUROPE)).await;
    let (address, clock, control) = (rig.stripe_address(), rig.clock.clone(), rig.control_of(EUROPE));
    let settings = || {
        let mut config = config(address, &rig.data);
        books(&mut config, &[ORGANISATION_KEY], EUROPE);
        config
    };
    for (fault, source) in [
        ("status:GET:/v1/balance:status=403", Some(AccountError::ModeHidden)),
        ("drop_before:GET:/v1/balance", None),
    ] {
        control.clear_faults();
        control.add_fault(Fault::parse(fault).unwrap());
        let refused = rig.gateway.reload(settings()).await.unwrap_err();
        let ReloadError::Account { source: found, .. } = refused else { panic!("{refused}") };
        assert!(source.is_none_or(|source| source == found), "{found}");
    }
    make_a_customer(&rig, "meanwhile").await.unwrap();
    // The account is pinned by now, and its mode is not.
    rig.gateway.stop().await;
    let silent = server::start(settings(), clock.clone()).await.map(drop).unwrap_err();
    assert!(matches!(silent, server::Error::Account { .. }), "{silent}");
    control.clear_faults();
    server::start(settings(), clock).await.unwrap().stop().await;
}
