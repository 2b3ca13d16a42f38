//! Which account a key belongs to, asked of Stripe once at start, and of which mode it is where its prefix is no proof. It
//! remembers nothing.

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::answer::{Attempt, Sent, Trouble};
use super::client::Client;
use super::outgoing::{AccountHeader, Outgoing};
use super::traffic::Sender;
use crate::domain::operation::Mode;

const PATH: &str = "/v1/account";
/// It tells the mode, which an account does not (docs.stripe.com/api/balance).
const BALANCE_PATH: &str = "/v1/balance";

/// Why the account is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Stripe does not take the key.
    #[error("Stripe refused the key")]
    KeyRefused,
    /// A restricted key that may not read its account.
    #[error("the key may not read its own account; give it the right to read `/v1/account`")]
    NoPermission,
    /// An organisation's key that may not read what tells its mode.
    #[error(
        "the key may not read `/v1/balance`, which alone tells whether it is of test or live mode; give it the right to"
    )]
    ModeHidden,
    /// It acts on the other side of the account than is meant.
    #[error("the key is of {} mode, and its account is configured for the other", .0.as_str())]
    OtherMode(Mode),
    /// Stripe was not reached or broke off.
    #[error("no answer from Stripe: {0}")]
    NoAnswer(Trouble),
    /// Another status than success.
    #[error("Stripe answered with status {0}")]
    Status(u16),
    /// A success that is no account: something else answers at the address.
    #[error("the answer is not a Stripe account")]
    Foreign,
}

/// What Stripe tells of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAccount {
    /// The account's id, `acct_...`.
    pub id: String,
    /// When it was told, by Stripe's clock, in seconds since the Unix epoch.
    pub date_s: Option<i64>,
}

impl Client {
    /// The account that the header names, or else the key's own (docs.stripe.com/api/accounts/retrieve). An organisation's
    /// key is also asked for its mode. At the deadline it ends, also in the middle of an attempt: nothing hangs on a read.
    ///
    /// # Errors
    /// When Stripe does not tell, or tells another mode than the client's.
    pub async fn own_account(
        &self,
        header: &AccountHeader,
        deadline: Instant,
    ) -> Result<OwnAccount, AccountError> {
        let told = timeout_at(deadline, self.ask_for_account(header, deadline)).await;
        told.unwrap_or(Err(AccountError::NoAnswer(Trouble::Timeout)))
    }

    async fn ask_for_account(
        &self,
        header: &AccountHeader,
        deadline: Instant,
    ) -> Result<OwnAccount, AccountError> {
        let ask = async |path: &'static str| {
            let outgoing = Outgoing::read(path, String::new(), header.clone());
            self.send(&outgoing, &Sender::Gateway, Some(deadline)).await
        };
        let own = account_of(&ask(PATH).await)?;
        if self.is_organisation() {
            let mode = mode_of(&ask(BALANCE_PATH).await)?;
            if mode != self.mode() {
                return Err(AccountError::OtherMode(mode));
            }
        }
        Ok(own)
    }
}

fn account_of(sent: &Sent) -> Result<OwnAccount, AccountError> {
    let (account, date_s) = object_of(sent, "account")?;
    let id = account.get("id").and_then(Value::as_str).filter(|id| id.starts_with("acct_"));
    Ok(OwnAccount { id: id.ok_or(AccountError::Foreign)?.to_owned(), date_s })
}

fn mode_of(sent: &Sent) -> Result<Mode, AccountError> {
    let balance = match object_of(sent, "balance") {
        Err(AccountError::NoPermission) => return Err(AccountError::ModeHidden),
        found => found?.0,
    };
    match balance.get("livemode").and_then(Value::as_bool) {
        Some(true) => Ok(Mode::Live),
        Some(false) => Ok(Mode::Test),
        None => Err(AccountError::Foreign),
    }
}

/// The object that was answered with, which is to be of this kind, and when that was by Stripe's clock.
fn object_of(sent: &Sent, kind: &str) -> Result<(Value, Option<i64>), AccountError> {
    let answer = match sent.last() {
        Some(Attempt::Answered(answer)) => answer,
        Some(Attempt::NotSent(trouble) | Attempt::Broken(trouble)) => {
            return Err(AccountError::NoAnswer(*trouble));
        }
        None => return Err(AccountError::NoAnswer(Trouble::Deadline)),
    };
    match answer.status {
        200 => {}
        401 => return Err(AccountError::KeyRefused),
        403 => return Err(AccountError::NoPermission),
        status => return Err(AccountError::Status(status)),
    }
    let object = answer.json().filter(|json| json.get("object").is_some_and(|object| object == kind));
    Ok((object.ok_or(AccountError::Foreign)?, answer.date_s))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stripe::script::{Reply, Script, reply};
    use crate::stripe::{Answer, Client, Key, Options};

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn only_an_account_is_taken_for_one() {
        let told = |status, body: &'static str| {
            let answer = Answer { status, body: body.into(), date_s: Some(7), ..Answer::default() };
            account_of(&Sent { attempts: vec![Attempt::Answered(answer)], queued: Duration::ZERO })
        };
        let own = OwnAccount { id: "acct_1".to_owned(), date_s: Some(7) };
        assert_eq!(told(200, r#"{"id":"acct_1","object":"account"}"#), Ok(own));
        for foreign in
            ["<html>", "{}", r#"{"id":"re_1","object":"refund"}"#, r#"{"id":1,"object":"account"}"#]
        {
            assert_eq!(told(200, foreign), Err(AccountError::Foreign), "{foreign}");
        }
        assert_eq!(told(401, "{}"), Err(AccountError::KeyRefused));
        assert_eq!(told(403, "{}"), Err(AccountError::NoPermission));
        assert_eq!(told(503, "{}"), Err(AccountError::Status(503)));
        let sent = Sent { attempts: vec![Attempt::NotSent(Trouble::Dns)], queued: Duration::ZERO };
        assert_eq!(account_of(&sent), Err(AccountError::NoAnswer(Trouble::Dns)));
    }

    #[tokio::test]
    async fn an_organisations_key_is_taken_for_no_mode_but_that_which_stripe_tells() {
        let account = reply(200, "", r#"{"id":"acct_1","object":"account"}"#);
        let balance = |livemode| reply(200, "", &format!(r#"{{"object":"balance","livemode":{livemode}}}"#));
        let told = async |key: &str, replies| {
            let script = Script::start(replies).await;
            let options = Options { keys: vec![Key::parse(key.into()).unwrap()], ..script.options("http") };
            let header = AccountHeader::StripeContext("acct_1".to_owned());
            let deadline = Instant::now() + PATIENCE;
            let told = Client::new(&options).unwrap().own_account(&header, deadline).await;
            (told.map(|own| own.id), script.requests().await)
        };
        let id = || Ok("acct_1".to_owned());
        for key in ["sk_org_a", "sk_org_test_a"] {
            let (own, requests) = told(key, vec![account.clone(), balance(false)]).await;
            assert_eq!(own, id());
            for (request, path) in requests.iter().zip([PATH, BALANCE_PATH]) {
                let request = request.to_ascii_lowercase();
                assert!(request.starts_with(&format!("get {path} ")), "{request}");
                assert!(request.contains("stripe-context: acct_1\r\n"), "{request}");
                assert!(request.contains("stripe-version: "), "{request}");
            }
            let (own, _) = told(key, vec![account.clone(), balance(true)]).await;
            assert_eq!(own, Err(AccountError::OtherMode(Mode::Live)));
            let (own, _) = told(key, vec![account.clone(), reply(403, "", "{}")]).await;
            assert_eq!(own, Err(AccountError::ModeHidden));
            let (own, _) = told(key, vec![account.clone(), account.clone()]).await;
            assert_eq!(own, Err(AccountError::Foreign));
        }
        assert_eq!(told("sk_test_a", vec![account]).await.0, id(), "its prefix is proof");
    }

    #[tokio::test]
    async fn an_attempt_that_stripe_does_not_answer_ends_at_the_deadline() {
        // The second keeps the script from its end, at which the connection would break.
        let script = Script::start(vec![Reply::Silence, Reply::Silence]).await;
        let client = script.client();
        let deadline = Instant::now() + Duration::from_secs(1);
        let asking = client.own_account(&AccountHeader::None, deadline);
        let told = tokio::time::timeout(PATIENCE, asking).await;
        assert_eq!(told, Ok(Err(AccountError::NoAnswer(Trouble::Timeout))));
    }
}
