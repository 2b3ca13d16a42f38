//! Which account a key belongs to, asked of Stripe once at start. It remembers nothing.

use tokio::time::Instant;

use super::answer::{Attempt, Sent, Trouble};
use super::client::Client;
use super::outgoing::{AccountHeader, Outgoing};

const PATH: &str = "/v1/account";

/// Why the account is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Stripe does not take the key.
    #[error("Stripe refused the key")]
    KeyRefused,
    /// A restricted key that may not read its account.
    #[error("the key may not read its own account; give it the right to read `/v1/account`")]
    NoPermission,
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
    /// The account that the header names, or else the key's own (docs.stripe.com/api/accounts/retrieve).
    ///
    /// # Errors
    /// When Stripe does not tell.
    pub async fn own_account(
        &self,
        header: &AccountHeader,
        deadline: Option<Instant>,
    ) -> Result<OwnAccount, AccountError> {
        let outgoing = Outgoing::read(PATH, String::new(), header.clone());
        account_of(&self.send(&outgoing, deadline).await)
    }
}

fn account_of(sent: &Sent) -> Result<OwnAccount, AccountError> {
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
    let account = answer.json().filter(|json| json.get("object").is_some_and(|object| object == "account"));
    let id = account.as_ref().and_then(|account| account.get("id")?.as_str());
    let id = id.filter(|id| id.starts_with("acct_")).ok_or(AccountError::Foreign)?;
    Ok(OwnAccount { id: id.to_owned(), date_s: answer.date_s })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stripe::Answer;

    #[test]
    fn only_an_account_is_taken_for_one() {
        let told = |status, body: &'static str| {
            let answer = Answer { status, body: body.into(), date_s: Some(7), ..Answer::default() };
            account_of(&Sent { attempts: vec![Attempt::Answered(answer)] })
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
        let sent = Sent { attempts: vec![Attempt::NotSent(Trouble::Dns)] };
        assert_eq!(account_of(&sent), Err(AccountError::NoAnswer(Trouble::Dns)));
    }
}
