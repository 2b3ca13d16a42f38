//! Which accounts are taken, and what of them cannot stand together.

use super::Setup;
use crate::config::Config;
use crate::domain::account::AccountHeader;
use crate::domain::operation::Mode;

const EU: &str = "[accounts.eu]\nkey = \"sk_test_eu1\"\nwebhook_secret = \"whsec_eu\"\n";
const CALLER: &str = "[callers.shop]\ntoken = \"0123456789abcdef\"\n";

fn faults(toml: &str) -> Vec<String> {
    let faults = Setup::sound().toml(toml).faults();
    faults.into_iter().map(|fault| fault.split(" (from").next().unwrap().to_owned()).collect()
}

fn loaded(toml: &str) -> Config {
    Setup::sound().toml(toml).load().unwrap()
}

#[test]
fn an_account_has_what_its_section_says_and_the_mode_of_the_gateway() {
    let config = loaded(&format!(
        "{EU}[accounts.shop]\nkey = [\"rk_test_a1\", \"rk_test_b1\"]\nwebhook_secret = \"whsec_a,whsec_b\"\n\
         stripe_account = \"acct_7\"\n[accounts.org]\nkey = \"sk_test_org1\"\nwebhook_secret = \"whsec_org\"\n\
         stripe_context = \"org_1/acct_9\"\n"
    ));
    let told: Vec<_> = config
        .accounts
        .iter()
        .map(|one| (one.alias.as_str(), one.mode, one.keys.len(), one.header.account()))
        .collect();
    let expected = [
        ("eu", Mode::Test, 1, None),
        ("org", Mode::Test, 1, Some("acct_9")),
        ("shop", Mode::Test, 2, Some("acct_7")),
    ];
    assert_eq!(told, expected);
    assert_eq!(config.accounts[1].header, AccountHeader::StripeContext("org_1/acct_9".to_owned()));
}

#[test]
fn what_an_account_lacks_or_says_wrongly_is_named() {
    let with = |more: &str| faults(&format!("{EU}{more}\n"));
    assert_eq!(
        faults("[accounts.eu]\nmode = \"test\"\n"),
        ["`accounts.eu.key`: is required", "`accounts.eu.webhook_secret`: is required"]
    );
    for (more, fault) in [
        (
            "stripe_account = \"7\"",
            "`accounts.eu.stripe_account`: `7` is not the id of an account, `acct_...`",
        ),
        (
            "stripe_context = \"acct_1/org_1\"",
            "`accounts.eu.stripe_context`: `acct_1/org_1` is not a path of ids that ends with an account, such as \
             `acct_1` or `acct_1/acct_2`",
        ),
        (
            "stripe_account = \"acct_7\"\nstripe_context = \"org_1/acct_7\"",
            "`accounts.eu.stripe_context`: and `stripe_account` are both set, and Stripe takes one of them at a time",
        ),
    ] {
        assert_eq!(with(more), [fault]);
    }
    let default = EU.replace("accounts.eu", "accounts.default");
    assert!(faults(&default)[0].starts_with("`accounts.default`: is the account of `stripe`"));
}

#[test]
fn no_account_goes_by_two_names_and_no_secret_opens_two_endpoints() {
    let twin = |key: &str, secret: &str, more: &str| {
        let twin = format!("[accounts.us]\nkey = \"{key}\"\nwebhook_secret = \"{secret}\"\n{more}\n");
        Setup::sound().toml(&format!("{EU}{twin}")).load().map(drop).map_err(|faults| faults.0.len())
    };
    assert_eq!(twin("sk_test_us1", "whsec_us", ""), Ok(()));
    assert_eq!(twin("sk_test_eu1", "whsec_us", ""), Err(1));
    assert_eq!(twin("sk_test_us1", "whsec_eu", ""), Err(1));
    assert_eq!(twin("sk_test_us1", "whsec_one", ""), Err(1), "the default account's");
    assert_eq!(twin("sk_test_eu1", "whsec_us", "stripe_account = \"acct_7\""), Ok(()), "a platform's key");
}

#[test]
fn a_key_is_of_the_mode_of_its_account() {
    let live = EU.replace("sk_test_", "sk_live_");
    assert_eq!(faults(&live), ["`accounts.eu.key`: is a live key, but `accounts.eu.mode` is `test`"]);
    let test = format!("{CALLER}{EU}mode = \"live\"\n");
    assert_eq!(faults(&test), ["`accounts.eu.key`: is a test key, but `accounts.eu.mode` is `live`"]);
    let both = format!("{CALLER}{live}mode = \"live\"\n");
    let config = loaded(&both);
    assert_eq!((config.mode, config.accounts[0].mode), (Mode::Test, Mode::Live));
}

#[test]
fn an_organisations_key_is_told_on_which_account_to_act() {
    let organisations = |more: &str| EU.replace("sk_test_", "sk_org_") + more;
    let fault =
        "is an organisation's key, which acts on the account that `stripe_context` names and on no other";
    for more in ["", "stripe_account = \"acct_7\"\n"] {
        assert_eq!(faults(&organisations(more)), [format!("`accounts.eu.key`: {fault}")]);
    }
    for (mode, expected) in [("test", Mode::Test), ("live", Mode::Live)] {
        let more = format!("stripe_context = \"acct_7\"\nmode = \"{mode}\"\n");
        let config = loaded(&format!("{CALLER}{}", organisations(&more)));
        assert_eq!(config.accounts[0].mode, expected, "its prefix need not tell");
        let live = organisations(&more).replace("sk_org_", "sk_org_live_");
        assert_eq!(Setup::sound().toml(&format!("{CALLER}{live}")).load().is_ok(), expected == Mode::Live);
    }
    let default = Setup::sound().set("TOLLGATE_STRIPE_KEY", "sk_org_1").faults();
    assert!(default[0].starts_with(&format!("`stripe.key`: {fault}")), "{default:?}");
}

#[test]
fn real_money_takes_callers_and_policies() {
    let live = || Setup::sound().set("TOLLGATE_MODE", "live").set("TOLLGATE_STRIPE_KEY", "rk_live_x1");
    let fault = &live().faults()[0];
    assert!(fault.starts_with("`mode`: `live` moves real money") && fault.contains("policy init"), "{fault}");
    assert_eq!(live().toml(CALLER).load().unwrap().mode, Mode::Live);
    let one_of_them = format!("{}mode = \"live\"\n", EU.replace("sk_test_", "sk_live_"));
    assert!(Setup::sound().toml(&one_of_them).faults()[0].starts_with("`mode`: `live` moves real money"));
}
