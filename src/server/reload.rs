//! Takes new settings while the gateway runs: all of what changed or nothing, save that callers and credentials that are
//! taken away go even where nothing else can be taken. What cannot change before the next start is named and left alone.

mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex, watch as latest};

pub(super) use watch::watch;

use super::accounts::{Question, concern_of, endpoints, keys, weights, whose};
use super::policies;
use super::supervisor::Supervisor;
use super::tls::{self, Tls};
use crate::audit::{self, Auditor, Phase};
use crate::config::{Budget, Changes, Config, Faults, Roll};
use crate::domain::caller::Caller;
use crate::domain::clock::Clock;
use crate::domain::drain::Drain;
use crate::gateway::{Account, Accounts};
use crate::identity::{self, Registry};
use crate::ledger::Budgets;
use crate::ops::Readiness;
use crate::policy::{self, Policies, PolicySet};
use crate::stripe::{self, AccountError, Client, Key, OwnAccount};
use crate::telemetry::metrics::Metrics;
use crate::webhook::Endpoints;

/// What stands for the method in the record of a reload.
const RELOADED: &str = "tollgate/reload";

/// Why new settings are not taken; the older ones stay in use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They cannot be read or make no sense.
    #[error(transparent)]
    Settings(#[from] Faults),
    /// The keys of an issuer cannot be read.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The rules cannot be read or make no sense.
    #[error("`policy.files`: {0}")]
    Policy(#[from] policy::Faults),
    /// TLS cannot be spoken with the files as they are.
    #[error("`tls`: {0}")]
    Tls(#[from] tls::Error),
    /// Every port would have to be opened anew.
    #[error("`tls`: TLS is switched on and off by a restart only")]
    TlsSwitched,
    /// Whoever reaches the ports would be let in, and they were opened for callers that are known.
    #[error("`callers`: none is left; to serve everybody on the loopback address takes a restart")]
    NoCallers,
    /// A key cannot be used.
    #[error("a Stripe key cannot be used: {0}")]
    Key(#[from] stripe::KeyError),
    /// The keys cannot be used together.
    #[error("the Stripe keys of an account cannot be used: {0}")]
    Keys(#[from] stripe::SetupError),
    /// Stripe does not tell whose key it is.
    #[error("the account of the new key of `{alias}` could not be learnt: {source}")]
    Account {
        /// The account's alias.
        alias: String,
        /// Why.
        source: AccountError,
    },
    /// A key of another account would act on the wrong money.
    #[error("the new key of `{alias}` belongs to `{found}`, but the account is `{own}`")]
    OtherAccount {
        /// The account's alias.
        alias: String,
        /// The key's account.
        found: String,
        /// The gateway's account.
        own: String,
    },
    /// The gateway goes, and does not wait any more for what Stripe says of a key.
    #[error("the gateway is stopping")]
    Stopping,
    /// Without a record nothing is changed.
    #[error("the change could not be put on record: {0}")]
    Audit(#[from] audit::Error),
}

impl Error {
    /// The settings at fault, by name: what may be told to everybody.
    fn keys(&self) -> String {
        match self {
            Self::Settings(faults) => {
                let keys: Vec<&str> = faults.0.iter().map(|fault| fault.key.as_str()).collect();
                keys.join(", ")
            }
            Self::Key(_) | Self::Keys(_) => "a Stripe key".into(),
            Self::Account { alias, .. } | Self::OtherAccount { alias, .. } => format!("the key of {alias}"),
            Self::Identity(_) => "issuers".into(),
            Self::NoCallers => "callers".into(),
            Self::Tls(_) | Self::TlsSwitched => "tls".into(),
            Self::Policy(_) => "policy.files".into(),
            Self::Stopping => "the gateway is stopping".into(),
            Self::Audit(_) => "the audit log".into(),
        }
    }
}

/// What a concern of `/readyz` about settings that are not in use goes by.
const SETTINGS: &str = "settings";

/// What takes new settings; clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Reloader(Arc<Parts>);

/// What can be exchanged, and what it takes to do so.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) settings: Mutex<Config>,
    pub(super) accounts: Accounts,
    pub(super) endpoints: latest::Sender<Endpoints>,
    pub(super) registry: Registry,
    pub(super) policies: Policies,
    pub(super) budgets: Budgets,
    pub(super) tls: Option<Tls>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) auditor: Auditor,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) drain: Drain,
}

/// Everything new, built and checked; to put it in place cannot fail.
struct Prepared {
    /// The ways to Stripe under new keys, with the accounts that get them.
    clients: Vec<(Arc<Account>, Client)>,
    endpoints: Endpoints,
    identity: identity::Settings,
    policies: PolicySet,
    budgets: Vec<Budget>,
    weights: HashMap<String, u32>,
    tls: Option<tls::Material>,
}

impl Reloader {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Takes what was read, as a whole, and tells operators when it cannot.
    ///
    /// # Errors
    /// See [`Error`]; nothing has changed then but that callers and credentials have gone that are not on the roll.
    pub(super) async fn reload(
        &self,
        read: Result<Config, Faults>,
        roll: Option<Roll>,
    ) -> Result<Changes, Error> {
        let mut settings = self.0.settings.lock().await;
        let taken = match read {
            Ok(config) => self.take(config, &mut settings).await,
            Err(faults) => Err(faults.into()),
        };
        self.0.metrics.config_reload(taken.is_ok());
        match &taken {
            Ok(changes) => {
                self.0.readiness.set_concern(SETTINGS, None);
                told(changes);
            }
            Err(error) => {
                tracing::error!(%error, "the new settings are not taken; the older ones stay in use");
                let mut concern = format!("older settings are in use; not taken: {}", error.keys());
                // What is wrong elsewhere must not keep in who was shown the door.
                if let Some(roll) = roll {
                    concern += &self.let_go(&roll, &settings, error).await;
                }
                self.0.readiness.set_concern(SETTINGS, Some(concern));
            }
        }
        taken
    }

    /// Lets go of callers and credentials that are not on the roll, and says what there is to say of it beside the fault.
    /// Another namespace or other groups wait: rules may forbid as well as permit, so there is no telling which are less.
    async fn let_go(&self, roll: &Roll, before: &Config, error: &Error) -> String {
        let named =
            |names: Vec<String>| names.iter().map(|name| format!("callers.{name}")).collect::<Vec<_>>();
        let moved = named(roll.moved_since(before)).join(", ");
        let wait = match moved.is_empty() {
            true => String::new(),
            false => format!("; still in their older namespace and groups: {moved}"),
        };
        let lost = named(roll.lost_since(before)).join(", ");
        if lost.is_empty() {
            return wait;
        }
        if self.0.registry.let_go(roll) {
            tracing::warn!(lost, "callers or credentials that were taken away are refused already");
            let note = format!("taken away: {lost}; not taken: {}", error.keys());
            if let Err(error) = self.write(note).await {
                tracing::error!(%error, "it could not be put on record that callers or credentials have gone");
            }
        }
        format!("; taken away already: {lost}{wait}")
    }

    async fn take(&self, config: Config, settings: &mut Config) -> Result<Changes, Error> {
        let mut changes = config.source.changes_since(&settings.source);
        self.put_off_new_accounts(&mut changes);
        let prepared = self.prepare(&config, settings).await?;
        if !changes.applied.is_empty() {
            self.record(&changes, &prepared).await?;
        }
        self.put_in_place(prepared);
        *settings = config;
        Ok(changes)
    }

    /// An account that does not run yet takes none of its settings before the next start.
    fn put_off_new_accounts(&self, changes: &mut Changes) {
        let runs = |path: &String| {
            let of_account = path.strip_prefix("accounts.").and_then(|rest| rest.split_once('.'));
            of_account.is_none_or(|(alias, _)| self.0.accounts.resolve(alias).is_some())
        };
        let (applied, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut changes.applied).into_iter().partition(runs);
        changes.applied = applied;
        changes.awaiting_restart.extend(later);
    }

    /// Builds all that can be wrong before anything is exchanged.
    async fn prepare(&self, config: &Config, before: &Config) -> Result<Prepared, Error> {
        if config.callers.is_empty() && !before.callers.is_empty() {
            return Err(Error::NoCallers);
        }
        let identity = identity::Settings::read(config)?;
        let (policies, tls) = (policies(config)?, self.new_tls(config, before)?);
        // Last, since Stripe may be slow to answer: what is wrong here is known before, and a stop does not wait for it.
        let clients = tokio::select! {
            biased;
            clients = self.under_new_keys(config, before) => clients?,
            () = self.0.drain.begun() => return Err(Error::Stopping),
        };
        Ok(Prepared {
            clients,
            endpoints: endpoints(config, &self.0.accounts),
            identity,
            policies,
            budgets: config.budgets.clone(),
            weights: weights(config),
            tls,
        })
    }

    /// What TLS is spoken with, where that changed: what has run out since is not a fault of anything that is new.
    fn new_tls(&self, config: &Config, before: &Config) -> Result<Option<tls::Material>, Error> {
        match (&config.tls, &self.0.tls) {
            (Some(_), Some(_)) if config.source.is_unchanged(&before.source, "tls.") => Ok(None),
            (Some(settings), Some(_)) => Ok(Some(tls::load(settings, &self.0.clock)?)),
            (None, None) => Ok(None),
            (Some(_), None) | (None, Some(_)) => Err(Error::TlsSwitched),
        }
    }

    /// The clients of the accounts whose keys changed; each key that is not in use is asked for its account first. An
    /// account that is not configured any more keeps its keys until the next start, for what it has under way.
    async fn under_new_keys(
        &self,
        config: &Config,
        before: &Config,
    ) -> Result<Vec<(Arc<Account>, Client)>, Error> {
        let (mut changed, mut questions) = (Vec::new(), Vec::new());
        for account in self.0.accounts.all() {
            let old = keys(before, &account.alias)?.unwrap_or_default();
            let is_news = |new: &Vec<Key>| *new != old || !new.iter().all(|key| account.stripe.holds(key));
            let Some(new) = keys(config, &account.alias)?.filter(is_news) else { continue };
            let mut keys = Vec::new();
            for key in new {
                let is_asked = !account.stripe.holds(&key);
                if is_asked {
                    let client = account.stripe.with_keys(std::slice::from_ref(&key))?;
                    questions.push(Question { client, header: account.header.clone() });
                }
                keys.push((key, is_asked));
            }
            changed.push((account, old, keys));
        }
        let mut told = whose(questions).await.into_iter();
        let mut clients = Vec::new();
        for (account, old, keys) in changed {
            let mut taken = Vec::new();
            for (key, is_asked) in keys {
                let told = if is_asked { told.next() } else { None };
                match told.map_or(Ok(()), |told| belongs(account, told)) {
                    Ok(()) => taken.push(key),
                    // One that told nothing before holds nothing up by telling nothing again.
                    Err(Error::Account { alias, source }) if old.contains(&key) => {
                        tracing::warn!(error = %source, alias, "a key is not used, since it did not tell its account");
                    }
                    Err(error) => return Err(error),
                }
            }
            clients.push((Arc::clone(account), account.stripe.with_keys(&taken)?));
        }
        Ok(clients)
    }

    fn put_in_place(&self, prepared: Prepared) {
        for (account, client) in prepared.clients {
            account.stripe.take_keys_of(&client);
            self.0.readiness.set_concern(&concern_of(&account.alias), None);
        }
        for account in self.0.accounts.all() {
            account.stripe.traffic().weigh(prepared.weights.clone());
        }
        self.0.endpoints.send_replace(prepared.endpoints);
        self.0.registry.replace(prepared.identity);
        self.0.policies.replace(prepared.policies);
        self.0.budgets.replace(prepared.budgets);
        if let (Some(tls), Some(material)) = (&self.0.tls, prepared.tls) {
            tls.replace(material);
        }
    }

    /// Puts on record which settings change, by name and never by value.
    async fn record(&self, changes: &Changes, prepared: &Prepared) -> Result<(), Error> {
        let changed = changes.applied.join(", ");
        self.write(format!("changed: {changed}; policy {}", prepared.policies.hash())).await
    }

    async fn write(&self, note: String) -> Result<(), Error> {
        let mut record = self.0.auditor.record(Phase::Admin, &Caller::own("", ""), RELOADED);
        record.note = Some(note);
        record.conclude("succeeded");
        Ok(self.0.auditor.write(&record).await?)
    }
}

/// Whether what a key told is the account that it is meant for.
fn belongs(account: &Account, told: Result<OwnAccount, AccountError>) -> Result<(), Error> {
    let alias = account.alias.clone();
    match told {
        Ok(found) if found.id == account.id => Ok(()),
        Ok(found) => Err(Error::OtherAccount { alias, found: found.id, own: account.id.clone() }),
        Err(source) => Err(Error::Account { alias, source }),
    }
}

/// Tells the log what became of new settings.
fn told(changes: &Changes) {
    if !changes.applied.is_empty() {
        tracing::info!(changed = changes.applied.join(", "), "new settings are in use");
    }
    if !changes.awaiting_restart.is_empty() {
        let changed = changes.awaiting_restart.join(", ");
        tracing::warn!(changed, "some changed settings take effect at the next start only");
    }
}
