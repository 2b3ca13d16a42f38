//! Starts and ends what works on the audit log beside the calls: the notary, and the task that looks after sums, keys and
//! old records.

use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Error;
use crate::audit::{Auditor, Notarized, Notary, Phase, Standing, Strangers};
use crate::config::Config;
use crate::domain::caller::Caller;
use crate::domain::drain::{Drain, Trigger};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// Name of the checkpoint file in the data folder.
const CHECKPOINT_FILE: &str = "audit-checkpoints";
/// Under which name the private key is kept in the store.
const SIGNING_KEY: &str = "audit_signing_key";
/// What stands for the method in the records of the gateway's own beginning and end.
const STARTED: &str = "tollgate/start";
const STOPPED: &str = "tollgate/stop";

/// What works on the audit log.
#[derive(Debug)]
pub(super) struct AuditLog {
    auditor: Auditor,
    trigger: Trigger,
    tasks: JoinSet<()>,
}

/// Starts it, and puts on record that the gateway begins.
///
/// # Errors
/// When the store cannot be read or written.
pub(super) async fn start(
    config: &Config,
    store: &Store,
    auditor: &Auditor,
    strangers: &Strangers,
    metrics: &Metrics,
) -> Result<(AuditLog, Notarized), Error> {
    let seed = match &config.audit.signing_key {
        Some(key) => *key.0.expose_secret(),
        None => store.secret(SIGNING_KEY).await?,
    };
    let file = config.audit.checkpoint_file.clone().unwrap_or_else(|| config.data.join(CHECKPOINT_FILE));
    let notary = Notary::open(store.clone(), &seed, file).await?;
    let notarized = notary.notarized();
    let (standing, head) = (notarized.standing.clone(), store.audit_head());
    metrics.audit_unsigned(move || head.borrow().saturating_sub(standing.borrow().signed));
    mark(auditor, STARTED).await?;
    let (trigger, end) = Drain::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(notary.run(end.clone()));
    let signed = signed(notarized.standing.clone());
    tasks.spawn(auditor.clone().look_after(strangers.clone(), signed, end));
    Ok((AuditLog { auditor: auditor.clone(), trigger, tasks }, notarized))
}

impl AuditLog {
    /// Puts on record that the gateway ends, and signs the log to its end. Nothing else may be recorded any more.
    pub(super) async fn stop(mut self) {
        // The record takes with it what nobody waited for.
        if let Err(error) = mark(&self.auditor, STOPPED).await {
            tracing::warn!(%error, "the end could not be put on record");
        }
        self.trigger.begin();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn signed(standing: watch::Receiver<Standing>) -> impl Fn() -> u64 + Send + 'static {
    move || standing.borrow().signed
}

async fn mark(auditor: &Auditor, what: &str) -> Result<(), Error> {
    let mut record = auditor.record(Phase::Admin, &Caller::own("", ""), what);
    record.conclude("succeeded");
    Ok(auditor.write(&record).await?)
}
