//! The store against a model that keeps everything in plain lists: whatever is indexed, erased, reopened, reindexed for
//! other terms or in doubt in between, the answers are the same.

use std::collections::BTreeMap;

use super::*;
use crate::store::commit::write;

const OPERATIONS: u8 = 6;
const WORDS: u8 = 5;

/// What may happen to a store.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Write>),
    /// A commit that fails as if its outcome were unknown, although it did or did not happen.
    Doubt {
        writes: Vec<Write>,
        landed: bool,
    },
    Index {
        rows: usize,
    },
    IndexTerms {
        rows: usize,
    },
    Erase {
        up_to: u64,
    },
    Reopen {
        version: u32,
    },
}

/// One row of a batch.
#[derive(Clone, Debug)]
enum Write {
    Operation { number: u8, value: u16, listed: bool },
    Audit { words: [u8; 2] },
    Event { words: [u8; 2] },
    State { name: u8, value: u16 },
    Entry { kind: u8, id: u8, value: Option<u16> },
    Movement { group: u8, at_ms: i8 },
}

fn write_of() -> impl Strategy<Value = Write> {
    prop_oneof![
        (0..OPERATIONS, any::<u16>(), any::<bool>()).prop_map(|(number, value, listed)| Write::Operation {
            number,
            value,
            listed
        }),
        prop::array::uniform2(0..WORDS).prop_map(|words| Write::Audit { words }),
        prop::array::uniform2(0..WORDS).prop_map(|words| Write::Event { words }),
        (0..2u8, any::<u16>()).prop_map(|(name, value)| Write::State { name, value }),
        (0..2u8, 0..3u8, any::<Option<u16>>()).prop_map(|(kind, id, value)| Write::Entry { kind, id, value }),
        (0..3u8, any::<i8>()).prop_map(|(group, at_ms)| Write::Movement { group, at_ms }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let writes = || prop::collection::vec(write_of(), 1..8);
    prop_oneof![
        8 => writes().prop_map(Step::Commit),
        1 => (writes(), any::<bool>()).prop_map(|(writes, landed)| Step::Doubt { writes, landed }),
        3 => (1..6usize).prop_map(|rows| Step::Index { rows }),
        3 => (1..12usize).prop_map(|rows| Step::IndexTerms { rows }),
        1 => (0..12u64).prop_map(|up_to| Step::Erase { up_to }),
        2 => (0..4u32).prop_map(|version| Step::Reopen { version }),
    ]
}

/// Rows are found by their words, and from version 2 on by the words with a mark as well.
fn terms_of(version: u32) -> Terms {
    fn marked(text: &str) -> Vec<String> {
        words(text).into_iter().flat_map(|word| [format!("{word}!"), word]).collect()
    }
    match version {
        0 => Terms::default(),
        1 => Terms { version, ..terms() },
        _ => Terms {
            version,
            audit: |record| marked(&String::from_utf8_lossy(record)),
            event: |event| marked(&event.json),
        },
    }
}

const KINDS: [&str; 2] = ["one", "other"];

/// What the store should hold.
#[derive(Debug, Default)]
struct Model {
    operations: BTreeMap<u8, (u16, bool)>,
    /// Operations by their last write, the latest last.
    order: Vec<u8>,
    audit: Vec<AuditRow>,
    erased: usize,
    events: Vec<NewEvent>,
    state: BTreeMap<u8, u16>,
    entries: BTreeMap<(u8, u8), u16>,
    movements: Vec<Movement>,
    terms: u32,
}

impl Model {
    /// The batch of these writes, as the next one of this store.
    fn batch(&self, writes: &[Write]) -> Batch {
        let mut batch = Batch::default();
        let text = |words: &[u8; 2]| format!("w{} w{}", words[0], words[1]);
        for one in writes {
            match one {
                Write::Operation { number, value, listed } => batch.operations.push(OperationRow {
                    hash: hash(*number),
                    record: value.to_be_bytes().to_vec(),
                    listed: *listed,
                }),
                Write::Audit { words } => {
                    let id = format!("aud_{}", self.audit.len() + batch.audit.len());
                    batch.audit.push(audit(&id, &text(words)));
                }
                Write::Event { words } => {
                    let id = format!("evt_{}", self.events.len() + batch.events.len());
                    batch.events.push(NewEvent { json: text(words), ..event(&id, 1) });
                }
                Write::State { name, value } => batch
                    .state
                    .push(Setting { name: format!("state-{name}"), value: value.to_be_bytes().to_vec() }),
                Write::Entry { kind, id, value } => batch.entries.push(Entry {
                    kind: KINDS[usize::from(*kind)],
                    id: id.to_string(),
                    body: value.map(|value| value.to_be_bytes().to_vec()),
                }),
                Write::Movement { group, at_ms } => {
                    let body = (self.movements.len() + batch.movements.len()).to_be_bytes().to_vec();
                    let at_ms = i64::from(*at_ms);
                    batch.movements.push(Movement { at_ms, group: [*group; 32], body });
                }
            }
        }
        batch
    }

    fn apply(&mut self, writes: &[Write], batch: Batch) {
        for one in writes {
            match one {
                Write::Operation { number, value, listed } => {
                    self.operations.insert(*number, (*value, *listed));
                    self.order.retain(|before| before != number);
                    self.order.push(*number);
                }
                Write::State { name, value } => {
                    self.state.insert(*name, *value);
                }
                Write::Entry { kind, id, value: Some(value) } => {
                    self.entries.insert((*kind, *id), *value);
                }
                Write::Entry { kind, id, value: None } => {
                    self.entries.remove(&(*kind, *id));
                }
                Write::Audit { .. } | Write::Event { .. } | Write::Movement { .. } => {}
            }
        }
        self.audit.extend(batch.audit);
        self.events.extend(batch.events);
        self.movements.extend(batch.movements);
    }

    fn erase(&mut self, up_to: usize) {
        self.erased = self.erased.max(up_to.min(self.audit.len()));
        for row in &mut self.audit[..self.erased] {
            row.record.clear();
        }
    }

    /// Sequences of the rows with this term after `after`, at most `count_max`.
    fn with<T>(
        rows: &[T],
        terms: impl Fn(&T) -> Vec<String>,
        term: &str,
        after: u64,
        count_max: usize,
    ) -> Vec<u64> {
        (1..)
            .zip(rows)
            .filter(|(seq, row)| *seq > after && terms(row).iter().any(|found| found == term))
            .map(|(seq, _)| seq)
            .take(count_max)
            .collect()
    }

    async fn compare(&self, store: &Store) {
        for number in 0..OPERATIONS {
            let expected = self.operations.get(&number).map(|(value, _)| value.to_be_bytes().to_vec());
            assert_eq!(store.operation(&hash(number)).await, Ok(expected));
        }
        for name in 0..2 {
            let expected = self.state.get(&name).map(|value| value.to_be_bytes().to_vec());
            assert_eq!(store.setting(&format!("state-{name}")).await, Ok(expected));
        }
        self.compare_listed(store).await;
        self.compare_entries(store).await;
        self.compare_movements(store).await;
        let stored: Vec<_> =
            store.audit_after(0, 1000).await.unwrap().into_iter().map(|stored| stored.row).collect();
        assert_eq!(stored, self.audit);
        assert_eq!(*store.audit_head().borrow(), u64::try_from(self.audit.len()).unwrap());
        assert_eq!(*store.events_head().borrow(), u64::try_from(self.events.len()).unwrap());
        let mut latest: Vec<_> = store.audit_before(u64::MAX, 1000).await.unwrap();
        latest.reverse();
        assert_eq!(latest, store.audit_after(0, 1000).await.unwrap());
        for word in 0..=WORDS {
            for term in [format!("w{word}"), format!("w{word}!")] {
                for (after, count_max) in [(0, 1000), (3, 2), (9, 0), (u64::MAX, 9)] {
                    self.compare_found(store, &term, after, count_max).await;
                }
            }
        }
    }

    async fn compare_listed(&self, store: &Store) {
        let expected: Vec<_> = self
            .operations
            .iter()
            .filter(|(_, (_, listed))| *listed)
            .map(|(number, (value, _))| StoredOperation {
                hash: hash(*number),
                record: value.to_be_bytes().to_vec(),
            })
            .collect();
        assert_eq!(store.listed(None, 100).await.unwrap(), expected);
        let mut paged = Vec::new();
        while let [found, ..] =
            &store.listed(paged.last().map(|row: &StoredOperation| row.hash), 1).await.unwrap()[..]
        {
            paged.push(found.clone());
        }
        assert_eq!(paged, expected);
    }

    async fn compare_entries(&self, store: &Store) {
        for (number, kind) in (0..).zip(KINDS) {
            let of_kind = self.entries.iter().filter(|((of, _), _)| *of == number);
            let expected: Vec<_> =
                of_kind.map(|((_, id), value)| (id.to_string(), value.to_be_bytes().to_vec())).collect();
            assert_eq!(store.entries(kind).await, Ok(expected));
        }
    }

    async fn compare_movements(&self, store: &Store) {
        for group in 0..3 {
            let found = store.movements_of([group; 32]).await.unwrap();
            let found: Vec<_> = found.into_iter().map(|stored| stored.movement).collect();
            let expected = self.movements.iter().filter(|movement| movement.group == [group; 32]);
            assert_eq!(found, expected.cloned().collect::<Vec<_>>());
        }
        let mut expected: Vec<_> = self.movements.iter().filter(|movement| movement.at_ms >= 0).collect();
        expected.sort_by_key(|movement| movement.at_ms);
        let (mut found, mut after) = (Vec::new(), (0, 0));
        while let [.., last] = &store.movements_after(after, 2).await.unwrap()[..] {
            let page = store.movements_after(after, 2).await.unwrap();
            after = (last.movement.at_ms, last.sequence);
            found.extend(page.into_iter().map(|stored| stored.movement));
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }

    async fn compare_found(&self, store: &Store, term: &str, after: u64, count_max: usize) {
        let terms = terms_of(self.terms);
        let of_audit =
            |row: &AuditRow| if row.record.is_empty() { Vec::new() } else { (terms.audit)(&row.record) };
        let audit = store.audit_with(term, after, count_max, usize::MAX).await.unwrap();
        let found: Vec<_> = audit.iter().map(|stored| stored.sequence).collect();
        assert_eq!(found, Self::with(&self.audit, of_audit, term, after, count_max), "audit with {term}");
        let events = store.events_with(term, after, count_max, usize::MAX).await.unwrap();
        let found: Vec<_> = events.iter().map(|stored| stored.position).collect();
        assert_eq!(
            found,
            Self::with(&self.events, terms.event, term, after, count_max),
            "events with {term}"
        );
        let back = store.events_with_before(term, after, count_max, usize::MAX).await.unwrap();
        let back: Vec<_> = back.iter().map(|stored| stored.position).collect();
        let mut expected = Self::with(&self.events, terms.event, term, 0, usize::MAX);
        expected.retain(|position| *position < after);
        expected.reverse();
        expected.truncate(count_max);
        assert_eq!(back, expected, "events with {term} before {after}");
    }
}

async fn take(step: Step, dir: &tempfile::TempDir, store: &mut Store, model: &mut Model) {
    match step {
        Step::Commit(writes) => {
            let batch = model.batch(&writes);
            store.commit(batch.clone()).await.unwrap();
            model.apply(&writes, batch);
        }
        Step::Doubt { writes, landed } => {
            let batch = model.batch(&writes);
            let doubtful = batch.clone();
            on_writer(store, move |writer| {
                if landed {
                    let (connection, last) = writer.connected().unwrap();
                    write(connection, last, std::slice::from_ref(&doubtful), &[]).unwrap();
                }
                writer.doubt(&[doubtful], Vec::new());
                writer.disconnect(Error::Io("the answer was lost".to_owned()));
                writer.connected().unwrap();
            })
            .await;
            if landed {
                model.apply(&writes, batch);
            }
        }
        Step::Index { rows } => on_writer(store, move |writer| writer.index(rows)).await,
        Step::IndexTerms { rows } => on_writer(store, move |writer| writer.index_terms(rows)).await,
        Step::Erase { up_to } => {
            store.erase_audit(up_to).await.unwrap();
            model.erase(usize::try_from(up_to).unwrap());
        }
        Step::Reopen { version } => {
            store.close().await;
            *store = Store::open(dir.path(), terms_of(version)).unwrap();
            model.terms = version;
        }
    }
}

/// Once all is indexed, the rows that are not listed come in the order of their last writes, and nothing is kept
/// that stands for nothing.
async fn compare_unlisted(store: &Store, model: &Model) {
    let listed = model.operations.values().filter(|(_, listed)| *listed).count();
    let expected = [("journal", model.operations.len()), ("listed_operations", listed)];
    on_writer(store, move |writer| {
        writer.index(usize::MAX);
        let (connection, _) = writer.connected().unwrap();
        for (table, rows) in expected {
            let sql = format!("SELECT count(*) FROM {table}");
            let stored: i64 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(usize::try_from(stored), Ok(rows), "{table}");
        }
    })
    .await;
    let mut numbers = Vec::new();
    let mut after = 0;
    while let [row, ..] = &store.unlisted_after(after, 1).await.unwrap()[..] {
        assert!(row.sequence > after);
        after = row.sequence;
        numbers.push(row.hash);
    }
    let expected: Vec<_> =
        model.order.iter().filter(|number| !model.operations[number].1).map(|number| hash(*number)).collect();
    assert_eq!(numbers, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_answer_is_that_of_a_plain_list(steps in prop::collection::vec(step(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut store = Store::open(dir.path(), terms_of(1)).unwrap();
            let mut model = Model { terms: 1, ..Model::default() };
            for step in steps {
                take(step, &dir, &mut store, &mut model).await;
                model.compare(&store).await;
            }
            compare_unlisted(&store, &model).await;
            store.close().await;
        });
    }
}
