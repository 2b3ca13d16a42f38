//! Opens what a power cut left with the real store and compares it with what the writer began and what it was told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use tollgate::domain::operation::OperationHash;
use tollgate::store::{AuditRow, Batch, OperationRow, Store, StoredEvent};

use super::batches::{self, Plan};
use super::medium::Image;
use crate::crash::random::Random;

const ROWS_MAX: usize = 1_000_000;
/// The name of the store's database in its folder.
const DATABASE: &str = "tollgate.db";

/// What may not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Lost,
    Damaged,
    Half,
    Invented,
    Stuck,
}

impl Rule {
    pub(crate) fn says(self) -> &'static str {
        match self {
            Self::Lost => "acknowledged rows are lost",
            Self::Damaged => "the database is damaged",
            Self::Half => "a batch is there in part",
            Self::Invented => "there is what nobody wrote, or what was refused",
            Self::Stuck => "the store takes no more writes",
        }
    }
}

pub(crate) type Violations = BTreeMap<Rule, Vec<String>>;

/// What the writer had said up to the cut.
#[derive(Clone, Default)]
pub(crate) struct Word {
    pub(crate) begun: BTreeSet<u64>,
    /// Acknowledged batches, with the position of their event or 0.
    pub(crate) acked: BTreeMap<u64, u64>,
    /// Batches that are certainly not stored.
    refused: BTreeSet<u64>,
}

impl Word {
    pub(crate) fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        match words.next() {
            Some("begun") => self.begun.extend(words.map(|word| word.parse::<u64>().unwrap())),
            Some("refused") => self.refused.extend(words.map(|word| word.parse::<u64>().unwrap())),
            Some("acked") => {
                for word in words {
                    let (number, position) = word.split_once(':').unwrap();
                    let position = position.parse().unwrap();
                    let known = self.acked.entry(number.parse().unwrap()).or_insert(position);
                    *known = position.max(*known);
                }
            }
            _ => panic!("the writer said `{line}`"),
        }
    }
}

/// All that a writer may have written.
pub(crate) struct Written {
    batches: HashMap<u64, Batch>,
    lazy: HashMap<u64, AuditRow>,
    operations: HashMap<u64, OperationHash>,
    cursors: HashMap<u64, String>,
}

impl Written {
    pub(crate) fn new(plan: &Plan, begun: &BTreeSet<u64>) -> Self {
        let of = |number: &u64| (*number, plan.batch(*number));
        Self {
            batches: begun.iter().map(of).collect(),
            lazy: begun.iter().filter_map(|number| Some((*number, plan.lazy(*number)?))).collect(),
            operations: begun.iter().map(|number| (*number, plan.operation(*number))).collect(),
            cursors: begun.iter().map(|number| (*number, plan.cursor(*number))).collect(),
        }
    }
}

/// Puts the image below `to`, in which the folder `root` of the image lies.
pub(crate) fn lay(image: &Image, root: &Path, to: &Path) {
    let place = |path: &Path| to.join(path.strip_prefix(root).unwrap());
    image.folders.iter().for_each(|folder| fs::create_dir_all(place(folder)).unwrap());
    image.files.iter().for_each(|(file, bytes)| fs::write(place(file), bytes).unwrap());
}

/// What is wrong with the store in `data`.
pub(crate) async fn violations(
    data: &Path,
    word: &Word,
    written: &Written,
    random: &mut Random,
) -> Violations {
    let mut found = Found { violations: Violations::new() };
    let store = match Store::open(data, batches::terms()) {
        Ok(store) => store,
        Err(error) => {
            found.add(Rule::Damaged, format!("it does not open: {error}"));
            return found.violations;
        }
    };
    if let Err(error) = found.look(&store, word, written, random).await {
        found.add(Rule::Damaged, format!("it is not read: {error}"));
    }
    store.close().await;
    let checked = rusqlite::Connection::open(data.join(DATABASE))
        .and_then(|database| database.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)));
    match checked.as_deref() {
        Ok("ok") => {}
        other => found.add(Rule::Damaged, format!("SQLite's own check: {other:?}")),
    }
    found.violations
}

struct Found {
    violations: Violations,
}

impl Found {
    fn add(&mut self, rule: Rule, what: String) {
        self.violations.entry(rule).or_default().push(what);
    }

    async fn look(
        &mut self,
        store: &Store,
        word: &Word,
        written: &Written,
        random: &mut Random,
    ) -> Result<(), tollgate::store::Error> {
        let present = self.audit(store, word, written).await?;
        for number in word.acked.keys().filter(|number| !present.contains(number)) {
            self.add(Rule::Lost, format!("batch {number}"));
        }
        for number in present.iter().filter(|number| word.refused.contains(number)) {
            self.add(Rule::Invented, format!("batch {number}, which was refused for certain"));
        }
        self.events(store, word, written, &present).await?;
        self.operations(store, word, written, &present).await?;
        self.settings(store, word, written, &present).await?;
        self.terms(store, written, &present, random).await?;
        self.goes_on(store, word, written, random).await;
        Ok(())
    }

    /// The audit log is whole; answers the batches that are there, in its order.
    async fn audit(
        &mut self,
        store: &Store,
        word: &Word,
        written: &Written,
    ) -> Result<Vec<u64>, tollgate::store::Error> {
        let mut present = Vec::new();
        let mut ids = BTreeSet::new();
        for (at, stored) in store.audit_after(0, ROWS_MAX).await?.into_iter().enumerate() {
            let id = &stored.row.id;
            if stored.sequence != at as u64 + 1 || !ids.insert(id.clone()) {
                self.add(
                    Rule::Damaged,
                    format!("audit row {} with id {id} at place {}", stored.sequence, at + 1),
                );
            }
            let (kind, number) = id.split_once('_').unwrap_or_default();
            let number = number.parse::<u64>().ok().filter(|number| word.begun.contains(number));
            let expected = number.and_then(|number| match kind {
                "aud" => written.batches.get(&number).and_then(|batch| batch.audit.first()),
                _ => written.lazy.get(&number),
            });
            if expected != Some(&stored.row) {
                self.add(Rule::Invented, format!("audit row {id}"));
            }
            present.extend(number.filter(|_| kind == "aud"));
        }
        Ok(present)
    }

    async fn events(
        &mut self,
        store: &Store,
        word: &Word,
        written: &Written,
        present: &[u64],
    ) -> Result<(), tollgate::store::Error> {
        let stored = store.events_after(0, ROWS_MAX, usize::MAX).await?;
        let mut by_id: BTreeMap<&str, &StoredEvent> = BTreeMap::new();
        for (at, event) in stored.iter().enumerate() {
            let twice = by_id.insert(&event.event.id, event).is_some();
            if event.position != at as u64 + 1 || twice {
                self.add(Rule::Damaged, format!("event {} at {}", event.event.id, event.position));
            }
        }
        for number in present {
            let Some(batch) = written.batches.get(number) else { continue };
            for (at, event) in batch.events.iter().enumerate() {
                let position = word.acked.get(number).filter(|position| at == 0 && **position > 0);
                let found = by_id.get(event.id.as_str());
                let right = found.is_some_and(|found| {
                    found.event == *event && position.is_none_or(|position| *position == found.position)
                });
                if !right {
                    self.add(Rule::Half, format!("batch {number} without its event at {position:?}"));
                }
            }
        }
        let owned: BTreeSet<&str> = present
            .iter()
            .filter_map(|number| written.batches.get(number))
            .flat_map(|batch| batch.events.iter().map(|event| event.id.as_str()))
            .collect();
        for id in by_id.keys().filter(|id| !owned.contains(*id)) {
            self.add(Rule::Half, format!("event {id} without its batch"));
        }
        Ok(())
    }

    async fn operations(
        &mut self,
        store: &Store,
        word: &Word,
        written: &Written,
        present: &[u64],
    ) -> Result<(), tollgate::store::Error> {
        // The newest batch of an operation is the last in the audit log.
        let newest: HashMap<&OperationHash, u64> =
            present.iter().filter_map(|number| Some((written.operations.get(number)?, *number))).collect();
        let listed: BTreeSet<_> =
            store.listed(None, ROWS_MAX).await?.into_iter().map(|operation| operation.hash).collect();
        let begun = word.begun.iter().filter_map(|number| written.operations.get(number));
        for operation in begun.collect::<BTreeSet<_>>() {
            let stored = store.operation(operation).await?;
            let number = newest.get(operation);
            let row = number
                .and_then(|number| written.batches.get(number))
                .and_then(|batch| batch.operations.first());
            let right = stored.as_ref() == row.map(|row| &row.record)
                && listed.contains(operation) == row.is_some_and(|row| row.listed);
            if !right {
                let shown = stored.map(|record| record.len());
                self.add(
                    Rule::Half,
                    format!("the operation of batch {number:?} has a record of {shown:?} bytes"),
                );
            }
        }
        Ok(())
    }

    async fn settings(
        &mut self,
        store: &Store,
        word: &Word,
        written: &Written,
        present: &[u64],
    ) -> Result<(), tollgate::store::Error> {
        let cursors: HashMap<&String, u64> =
            present.iter().filter_map(|number| Some((written.cursors.get(number)?, *number))).collect();
        for (name, number) in cursors {
            let stored = store.setting(name).await?;
            if stored != Some(number.to_be_bytes().to_vec()) {
                self.add(Rule::Half, format!("the cursor of batch {number}: {stored:?}"));
            }
        }
        let present: BTreeSet<&u64> = present.iter().collect();
        for number in &word.begun {
            for setting in &written.batches[number].settings {
                let stored = store.setting(&setting.name).await?;
                let expected = present.contains(number).then_some(&setting.value);
                if stored.as_ref() != expected {
                    self.add(Rule::Half, format!("setting of batch {number}: {}", stored.is_some()));
                }
            }
        }
        Ok(())
    }

    /// The index of terms finds what is there.
    async fn terms(
        &mut self,
        store: &Store,
        written: &Written,
        present: &[u64],
        random: &mut Random,
    ) -> Result<(), tollgate::store::Error> {
        let known: Vec<&u64> = present.iter().filter(|number| written.batches.contains_key(number)).collect();
        if known.is_empty() {
            return Ok(());
        }
        let batch = &written.batches[*random.pick(&known)];
        let rows = store.audit_with(&batches::term(&batch.audit[0].record), 0, ROWS_MAX, usize::MAX).await?;
        if rows.iter().map(|found| &found.row).ne(&batch.audit) {
            self.add(Rule::Half, format!("{} is found {} times", batch.audit[0].id, rows.len()));
        }
        for event in &batch.events {
            let events = store.events_with(&event.id, 0, ROWS_MAX, usize::MAX).await?;
            if events.iter().map(|found| &found.event).ne([event]) {
                self.add(Rule::Half, format!("{} is found {} times", event.id, events.len()));
            }
        }
        Ok(())
    }

    /// It takes writes, and still knows an event that it acknowledged.
    async fn goes_on(&mut self, store: &Store, word: &Word, written: &Written, random: &mut Random) {
        let known: Vec<_> = word.acked.iter().filter(|(_, position)| **position > 0).collect();
        let again = (!known.is_empty()).then(|| *random.pick(&known));
        let events = again.and_then(|(number, _)| written.batches[number].events.first().cloned());
        let row =
            OperationRow { hash: OperationHash([7; 32]), record: b"after the cut".to_vec(), listed: true };
        let batch =
            Batch { operations: vec![row.clone()], events: events.into_iter().collect(), ..Batch::default() };
        match store.commit(batch).await {
            Err(error) => self.add(Rule::Stuck, error.to_string()),
            Ok(receipt) => {
                let appended = receipt.events.first();
                let position = again.map(|(_, position)| position);
                if appended.map(|event| (event.duplicate, &event.position)) != position.map(|at| (true, at)) {
                    self.add(Rule::Lost, format!("the mark of the event at {position:?}: {appended:?}"));
                }
            }
        }
        if store.operation(&row.hash).await != Ok(Some(row.record)) {
            self.add(Rule::Stuck, "a new record is not read".to_owned());
        }
    }
}
