//! What the writer writes: batch `n` is the same whenever it is made, so that a reader can tell what should be there.

use sha2::{Digest as _, Sha256};
use tollgate::domain::operation::OperationHash;
use tollgate::store::{AuditRow, Batch, NewEvent, OperationRow, Setting, Terms};

/// Steps of one caller in one life, at most: the number of a batch is its step and, times this, its caller and life.
pub(crate) const STEPS_MAX: u64 = 1_000;
/// Records of one operation: it begins and it settles.
const RECORDS: u64 = 2;
/// Every so many batches of a caller one brings an event, which a later one brings again.
const EVENT_EVERY: u64 = 4;
const SETTING_EVERY: u64 = 7;
const LAZY_EVERY: u64 = 3;
/// Every so many seeds some records are so long that the write-ahead log is copied back inside a commit.
const HEAVY_EVERY: u64 = 7;
const HEAVY_BYTES: u64 = 900_000;

/// Audit rows and events are found by the number of their batch.
pub(crate) fn terms() -> Terms {
    Terms { version: 1, audit: |record| vec![term(record)], event: |event| vec![event.id.clone()] }
}

/// The term of an audit record.
pub(crate) fn term(record: &[u8]) -> String {
    format!("{:?}", record.get(..16))
}

/// All batches of one seed.
pub(crate) struct Plan {
    seed: u64,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    pub(crate) fn batch(&self, number: u64) -> Batch {
        let listed = number.is_multiple_of(RECORDS);
        let hash = self.operation(number);
        let operations = vec![OperationRow { hash, record: self.record(number), listed }];
        let audit = vec![self.audit("aud", number)];
        let step = number % STEPS_MAX;
        let mut events = Vec::new();
        if step % EVENT_EVERY == 1 {
            events.push(self.event(number));
            if step > EVENT_EVERY {
                events.push(self.event(number - EVENT_EVERY));
            }
        }
        let settings = (step % SETTING_EVERY == SETTING_EVERY - 1).then(|| self.setting(number));
        let state = vec![Setting { name: self.cursor(number), value: number.to_be_bytes().to_vec() }];
        Batch {
            operations,
            audit,
            events,
            settings: settings.into_iter().collect(),
            state,
            ..Batch::default()
        }
    }

    /// A row that nobody waits for.
    pub(crate) fn lazy(&self, number: u64) -> Option<AuditRow> {
        number.is_multiple_of(LAZY_EVERY).then(|| self.audit("lazy", number))
    }

    /// The name of what a caller writes over with each batch.
    pub(crate) fn cursor(&self, number: u64) -> String {
        format!("cursor.{}.{}", self.seed, number / STEPS_MAX)
    }

    fn audit(&self, kind: &str, number: u64) -> AuditRow {
        let record = self.bytes(kind, number, 500);
        let leaf = Sha256::new().chain_update([0]).chain_update(&record).finalize().into();
        AuditRow { id: format!("{kind}_{number}"), leaf, record }
    }

    /// The operation that a batch is of; a later batch of the same caller may be of it too.
    pub(crate) fn operation(&self, number: u64) -> OperationHash {
        OperationHash(self.digest("operation", number / RECORDS))
    }

    fn record(&self, number: u64) -> Vec<u8> {
        let [size, by, ..] = self.digest("size", number);
        let by = u64::from(by);
        let heavy = self.seed.is_multiple_of(HEAVY_EVERY);
        let length = match size {
            0..200 => 100 + by * 5,
            200..245 => 4_000 + by * 60,
            _ if heavy => HEAVY_BYTES + by,
            _ => 60_000 + by * 200,
        };
        self.bytes("record", number, length)
    }

    fn event(&self, number: u64) -> NewEvent {
        NewEvent {
            id: format!("evt_{number}"),
            kind: "refund.created".to_owned(),
            created_s: 1_790_000_000,
            received_ms: 1_790_000_000_000,
            account: "acct_1".to_owned(),
            livemode: false,
            api_version: "2026-10-28.endive".to_owned(),
            source: 1,
            json: format!(r#"{{"id":"evt_{number}","filler":"{}"}}"#, "x".repeat(1_500)),
            cause: Vec::new(),
        }
    }

    fn setting(&self, number: u64) -> Setting {
        Setting { name: format!("setting.{number}"), value: self.bytes("setting", number, 32) }
    }

    /// Bytes that begin with the number and look like nothing else.
    fn bytes(&self, what: &str, number: u64, length: u64) -> Vec<u8> {
        let digest = self.digest(what, number);
        let mut word = digest.iter().take(8).fold(0, |word: u64, byte| word << 8 | u64::from(*byte));
        let words = (0..length / 8).flat_map(|_| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.to_be_bytes()
        });
        number.to_be_bytes().into_iter().chain(words).collect()
    }

    fn digest(&self, what: &str, number: u64) -> [u8; 32] {
        Sha256::digest(format!("{} {what} {number}", self.seed)).into()
    }
}
