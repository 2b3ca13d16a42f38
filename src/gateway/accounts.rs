//! The Stripe accounts behind the gateway: which one an alias means, and which one an operation on record belongs to. It
//! sends nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::{Code, Fault, Reason, Retry};
use super::intake::Belongs;
use crate::domain::operation::{DEFAULT_ALIAS, Mode, Operation};
use crate::stripe::{AccountHeader, Client};

/// One Stripe account in one mode, with the way to it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Name in requests and in the configuration; [`DEFAULT_ALIAS`] for the one that an empty alias means.
    pub alias: String,
    /// The account's id, `acct_...`: of the connected account where `header` names one.
    pub id: String,
    /// Test or live.
    pub mode: Mode,
    /// Which header, if any, names it to Stripe.
    pub header: AccountHeader,
    /// The way to Stripe under this account's key.
    pub stripe: Client,
}

impl Account {
    /// The alias as the event log has it: empty for the default.
    #[must_use]
    pub fn log_alias(&self) -> &str {
        if self.alias == DEFAULT_ALIAS { "" } else { &self.alias }
    }
}

/// All accounts; cheap to clone.
#[derive(Clone, Debug)]
pub struct Accounts {
    default: Arc<Account>,
    others: Arc<BTreeMap<String, Arc<Account>>>,
}

impl Accounts {
    /// The default account and those that go by an alias of their own. No two may be the same account in the same mode,
    /// or an operation would have two homes; the configuration and the start see to that.
    #[must_use]
    pub fn new(default: Account, others: impl IntoIterator<Item = Account>) -> Self {
        let others = others.into_iter().map(|account| (account.alias.clone(), Arc::new(account)));
        Self { default: Arc::new(default), others: Arc::new(others.collect()) }
    }

    /// The account that an empty alias means.
    #[must_use]
    pub fn default_account(&self) -> &Arc<Account> {
        &self.default
    }

    /// The account that a request's alias means.
    #[must_use]
    pub fn resolve(&self, alias: &str) -> Option<&Arc<Account>> {
        if alias.is_empty() || alias == self.default.alias {
            return Some(&self.default);
        }
        self.others.get(alias)
    }

    /// The account under which an operation was filed; `None` once it is not configured any more.
    #[must_use]
    pub fn of_operation(&self, operation: &Operation) -> Option<&Arc<Account>> {
        self.all().find(|account| account.id == operation.account && account.mode == operation.mode)
    }

    /// All of them, the default first and the others by alias.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Account>> {
        std::iter::once(&self.default).chain(self.others.values())
    }

    /// Which events belong under an account's alias. No key and no secret speaks for another account that is configured.
    #[must_use]
    pub fn belonging_to(&self, own: &Account) -> Belongs {
        let others = self.all().filter(|other| other.mode == own.mode && other.id != own.id);
        // The events of a connected account name it. One that is reached by its context has endpoints of its own, whose
        // events need not.
        let only = match &own.header {
            AccountHeader::None => None,
            AccountHeader::StripeAccount(id) => Some([id.clone()].into()),
            AccountHeader::StripeContext(_) => Some([own.id.clone(), String::new()].into()),
        };
        Belongs {
            account: own.id.clone(),
            livemode: own.mode == Mode::Live,
            only,
            elsewhere: others.map(|other| other.id.clone()).collect(),
        }
    }

    /// The account that a request's alias means.
    ///
    /// # Errors
    /// NOT_FOUND / `ACCOUNT_UNKNOWN`.
    pub(super) fn named(&self, alias: &str) -> Result<&Arc<Account>, Fault> {
        self.resolve(alias).ok_or_else(|| {
            let message = format!(
                "no Stripe account goes by the alias `{alias}`; leave `account` empty for the default"
            );
            Fault::new(Code::NotFound, Reason::AccountUnknown, message).retry(Retry::Never)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stripe::{Key, Options};

    fn account(alias: &str, id: &str) -> Account {
        let key = Key::parse("sk_test_accounts".into()).unwrap();
        let local = "http://127.0.0.1:1".to_owned();
        let options = Options { api_base: local.clone(), files_base: local, ..Options::new(Mode::Test, key) };
        let stripe = Client::new(&options).unwrap();
        Account { alias: alias.into(), id: id.into(), mode: Mode::Test, header: AccountHeader::None, stripe }
    }

    fn operation(account: &str, mode: Mode) -> Operation {
        let [namespace, rpc, order_id, operation_id] = ["n", "r", "1", ""].map(str::to_owned);
        Operation { namespace, account: account.to_owned(), mode, rpc, order_id, operation_id }
    }

    #[test]
    fn an_alias_means_its_account_and_no_alias_the_default() {
        let accounts = Accounts::new(account(DEFAULT_ALIAS, "acct_1"), [account("eu", "acct_2")]);
        let id = |alias| accounts.resolve(alias).map(|account| account.id.as_str());
        assert_eq!((id(""), id("default"), id("eu")), (Some("acct_1"), Some("acct_1"), Some("acct_2")));
        for unknown in ["EU", "eu ", "acct_2"] {
            assert_eq!(id(unknown), None, "{unknown}");
            assert_eq!(accounts.named(unknown).unwrap_err().reason, Reason::AccountUnknown);
        }
        let log: Vec<_> = accounts.all().map(|account| account.log_alias()).collect();
        assert_eq!(log, ["", "eu"]);
    }

    #[test]
    fn an_operation_belongs_to_its_own_account_and_mode() {
        let accounts = Accounts::new(account(DEFAULT_ALIAS, "acct_1"), [account("eu", "acct_2")]);
        let alias = |id, mode| accounts.of_operation(&operation(id, mode)).map(|found| found.alias.as_str());
        assert_eq!(alias("acct_2", Mode::Test), Some("eu"));
        assert_eq!(alias("acct_2", Mode::Live), None);
        assert_eq!(alias("acct_3", Mode::Test), None);
    }
}
