//! Signs the log as it grows: a checkpoint every second or 256 records and one at the end, kept in the store and in a
//! file that can lie elsewhere. It never signs a tree that contradicts what was signed before, and it makes no records.

mod file;
mod outside;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use self::file::CheckpointFile;
use super::Error;
use super::checkpoint::Checkpoint;
use super::note::NoteSigner;
use super::tree::{Frontier, leaf};
use crate::domain::drain::Drain;
use crate::domain::limits::{CHECKPOINT_RECORDS_MAX, CHECKPOINTS_LISTED_MAX};
use crate::domain::planted;
use crate::store::{Batch, Setting, Store, StoredAudit};

/// Longest that a record waits for its checkpoint, if all is well.
const PAUSE: Duration = Duration::from_secs(1);
/// Checkpoints that become durable together.
const STEP_CHECKPOINTS_MAX: usize = 64;
/// Checkpoints that wait for a file that cannot be written; older ones are then only in the store's tree.
const UNWRITTEN_MAX: usize = 1_000;
/// Records read at once to compute the tree anew.
const READ_RECORDS: usize = 1_024;
/// Under which names the store keeps the tree's frontier and the last checkpoint.
const FRONTIER: &str = "audit_frontier";
const LAST: &str = "audit_checkpoint";

/// Why nothing is signed any more; only a person can tell what happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The file belongs to another log.
    #[error("the checkpoint file is of the log `{0}`")]
    OtherLog(String),
    /// The log is shorter than a checkpoint says.
    #[error(
        "the log has {size} records, and a checkpoint of {signed} was signed: it was cut or restored from a copy"
    )]
    Shorter {
        /// Records that there are.
        size: u64,
        /// Records that were signed.
        signed: u64,
    },
    /// The log is not the one that was signed.
    #[error("the first {0} records are not those that were signed")]
    Different(u64),
    /// A record is missing, or not what its leaf says.
    #[error("record {0} is missing, or was changed before it was signed")]
    Broken(u64),
}

impl Refusal {
    /// Whether the log lost what had been signed, so that the whole data folder is an older copy or another one.
    #[must_use]
    pub fn forgot(&self) -> bool {
        match self {
            Self::OtherLog(_) | Self::Shorter { .. } | Self::Different(_) => true,
            Self::Broken(_) => false,
        }
    }
}

/// What can be said of the notary at any time.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Records that are signed.
    pub signed: u64,
    /// The newest notes, the latest last.
    pub notes: VecDeque<String>,
    /// Why nothing is signed any more.
    pub refusal: Option<Refusal>,
}

/// A way to ask the notary; cheap to clone.
#[derive(Clone, Debug)]
pub struct Notarized {
    /// The log's name.
    pub origin: Arc<str>,
    /// The public key, as it is published.
    pub verifier_key: Arc<str>,
    /// How it stands.
    pub standing: watch::Receiver<Standing>,
}

/// The task that signs.
#[derive(Debug)]
pub struct Notary {
    store: Store,
    signer: NoteSigner,
    origin: String,
    file: CheckpointFile,
    frontier: Frontier,
    unwritten: VecDeque<String>,
    standing: watch::Sender<Standing>,
}

/// A step that did not succeed.
enum Failed {
    /// For good.
    Refused(Refusal),
    /// For now.
    Store(crate::store::Error),
}

impl From<crate::store::Error> for Failed {
    fn from(error: crate::store::Error) -> Self {
        Self::Store(error)
    }
}

impl Notary {
    /// The notary of a log, which goes on where the last one stopped; `seed` is the private key of RFC 8032. What it
    /// finds wrong with the log it says in its standing, since a gateway that cannot sign still records.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(store: Store, seed: &[u8; 32], file: PathBuf) -> Result<Self, Error> {
        let origin = format!("tollgate.{:016x}/audit", store.log_id());
        let frontier = match store.setting(FRONTIER).await? {
            Some(bytes) => Frontier::from_bytes(&bytes).ok_or(Error::Frontier)?,
            None => Frontier::default(),
        };
        let last = store.setting(LAST).await?.and_then(|note| String::from_utf8(note).ok());
        let signer = NoteSigner::new(origin.clone(), seed);
        let (standing, _) = watch::channel(Standing { signed: frontier.size(), ..Standing::default() });
        let (file, found) = CheckpointFile::open(file).await;
        let mut notary = Self { store, signer, origin, file, frontier, unwritten: VecDeque::new(), standing };
        // A crash between the store and the file leaves the file one checkpoint behind.
        let missing = last.filter(|last| found.back() != Some(last));
        let outside = found.back().and_then(|note| {
            Checkpoint::parse(note.split("\n\n").next().map(|text| format!("{text}\n"))?.as_str())
        });
        notary.standing.send_modify(|standing| standing.notes = found);
        match notary.agrees_with(outside).await {
            Ok(()) => notary.unwritten.extend(missing),
            Err(Failed::Refused(refusal)) => notary.refuse(refusal),
            Err(Failed::Store(error)) => return Err(error.into()),
        }
        Ok(notary)
    }

    /// How to ask it.
    #[must_use]
    pub fn notarized(&self) -> Notarized {
        Notarized {
            origin: self.origin.as_str().into(),
            verifier_key: self.signer.verifier().to_string().into(),
            standing: self.standing.subscribe(),
        }
    }

    /// Signs until the end has begun, then signs what there is.
    pub async fn run(mut self, end: Drain) {
        let mut head = self.store.audit_head();
        let mut tick = interval(PAUSE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let full = self.frontier.size().saturating_add(CHECKPOINT_RECORDS_MAX);
            let refused = self.standing.borrow().refusal.is_some();
            tokio::select! {
                () = end.begun() => break,
                _ = tick.tick(), if !refused => {}
                _ = head.wait_for(|head| *head >= full), if !refused => {}
            }
            self.sign().await;
        }
        self.sign().await;
    }

    /// Signs everything that is durable and not signed yet.
    pub async fn sign(&mut self) {
        if self.standing.borrow().refusal.is_some() {
            return;
        }
        match self.catch_up().await {
            Ok(()) => {}
            Err(Failed::Refused(refusal)) => self.refuse(refusal),
            Err(Failed::Store(error)) => tracing::warn!(%error, "a checkpoint is late: the store failed"),
        }
        self.write_out().await;
    }

    async fn catch_up(&mut self) -> Result<(), Failed> {
        let head = *self.store.audit_head().borrow();
        while self.frontier.size() < head {
            let (mut frontier, mut notes) = (self.frontier.clone(), Vec::new());
            while frontier.size() < head && notes.len() < STEP_CHECKPOINTS_MAX {
                let room = CHECKPOINT_RECORDS_MAX - frontier.size() % CHECKPOINT_RECORDS_MAX;
                let count = room.min(head - frontier.size());
                self.extend(&mut frontier, count).await?;
                notes.push(self.checkpoint(&frontier).sign(&self.signer));
            }
            self.keep(&frontier, notes.last()).await?;
            self.frontier = frontier;
            self.unwritten.extend(notes.iter().cloned());
            let signed = self.frontier.size();
            self.standing.send_modify(|standing| {
                standing.signed = signed;
                standing.notes.extend(notes);
                let surplus = standing.notes.len().saturating_sub(CHECKPOINTS_LISTED_MAX);
                standing.notes.drain(..surplus);
            });
        }
        Ok(())
    }

    fn checkpoint(&self, frontier: &Frontier) -> Checkpoint {
        Checkpoint { origin: self.origin.clone(), size: frontier.size(), root: frontier.root() }
    }

    /// Adds the next `count` records to a frontier.
    async fn extend(&self, frontier: &mut Frontier, count: u64) -> Result<(), Failed> {
        let end = frontier.size().saturating_add(count);
        while frontier.size() < end {
            let wanted = usize::try_from(end - frontier.size()).unwrap_or(READ_RECORDS).min(READ_RECORDS);
            let rows = self.store.audit_after(frontier.size(), wanted).await?;
            if rows.is_empty() {
                return Err(Failed::Refused(Refusal::Broken(frontier.size().saturating_add(1))));
            }
            for row in &rows {
                add(frontier, row).map_err(Failed::Refused)?;
            }
        }
        Ok(())
    }

    /// A checkpoint is durable before anybody outside sees it.
    async fn keep(&self, frontier: &Frontier, note: Option<&String>) -> Result<(), crate::store::Error> {
        let setting = |name: &str, value| Setting { name: name.to_owned(), value };
        let mut state = vec![setting(FRONTIER, frontier.to_bytes())];
        state.extend(note.map(|note| setting(LAST, note.clone().into_bytes())));
        self.store.commit(Batch { state, ..Batch::default() }).await?;
        Ok(())
    }

    async fn write_out(&mut self) {
        let surplus = self.unwritten.len().saturating_sub(UNWRITTEN_MAX);
        self.unwritten.drain(..surplus);
        if self.unwritten.is_empty() {
            return;
        }
        match self.file.append(&self.unwritten).await {
            Ok(()) => self.unwritten.clear(),
            Err(error) => tracing::error!(%error, "checkpoints cannot be written to their file"),
        }
    }

    fn refuse(&self, refusal: Refusal) {
        tracing::error!(%refusal, "the audit log is not signed any more: see docs/audit.md");
        self.standing.send_modify(|standing| standing.refusal = Some(refusal));
    }
}

/// The fault of a notary that signs leaves and does not look at the records.
const PLANTED_UNCHECKED: &str = "audit-leaf-unchecked";

/// Adds one record to a frontier, if it is the next one and what its leaf says.
fn add(frontier: &mut Frontier, row: &StoredAudit) -> Result<(), Refusal> {
    let place = frontier.size().saturating_add(1);
    let erased = row.row.record.is_empty() || planted::active(PLANTED_UNCHECKED);
    if row.sequence != place || !erased && leaf(&row.row.record) != row.row.leaf {
        return Err(Refusal::Broken(place));
    }
    frontier.append(row.row.leaf);
    Ok(())
}

#[cfg(test)]
mod tests;
