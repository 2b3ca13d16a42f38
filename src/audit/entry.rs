//! One record as an export has it: a line of JSON from which its leaf can be computed anew. The line is exact, so that
//! no byte of it can change unnoticed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::tree::Hash;
use crate::domain::operation::hex;
use crate::store::StoredAudit;

/// One record of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place, contiguous from 1.
    pub sequence: u64,
    /// Its name, `aud_...`.
    pub id: String,
    /// Its leaf in the tree.
    pub leaf: Hash,
    /// Its bytes; empty where they are erased or not the reader's to see.
    pub record: Vec<u8>,
}

/// The form of a line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sequence: u64,
    id: String,
    leaf: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<Box<RawValue>>,
    /// In base64, where the bytes are no JSON, which no record ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

impl From<StoredAudit> for Entry {
    fn from(stored: StoredAudit) -> Self {
        let StoredAudit { sequence, row } = stored;
        Self { sequence, id: row.id, leaf: row.leaf, record: row.record }
    }
}

impl Entry {
    /// The line, without a line break. A record is written byte for byte.
    ///
    /// # Errors
    /// When the encoder reports a fault.
    pub fn line(&self) -> Result<String, serde_json::Error> {
        let text = std::str::from_utf8(&self.record).ok().filter(|text| !text.contains('\n'));
        let raw = text.and_then(|text| RawValue::from_string(text.to_owned()).ok());
        // Blanks around a value are no part of it, and would be lost.
        let record = raw.filter(|raw| raw.get().len() == self.record.len());
        let bytes = (record.is_none() && !self.record.is_empty()).then(|| STANDARD.encode(&self.record));
        let (id, leaf) = (self.id.clone(), hex(&self.leaf));
        serde_json::to_string(&Line { sequence: self.sequence, id, leaf, record, bytes })
    }

    /// Reads a line back; `None` unless it is, byte for byte, what [`Entry::line`] writes.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let read: Line = serde_json::from_str(line).ok()?;
        let record = match (read.record, read.bytes) {
            (Some(raw), None) => raw.get().as_bytes().to_vec(),
            (None, Some(bytes)) => STANDARD.decode(bytes).ok()?,
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => return None,
        };
        let entry = Self { sequence: read.sequence, id: read.id, leaf: unhex(&read.leaf)?, record };
        (entry.line().ok()? == line).then_some(entry)
    }
}

/// 32 bytes from 64 hexadecimal digits.
fn unhex(text: &str) -> Option<Hash> {
    let digits = text.as_bytes();
    let mut hash = Hash::default();
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::tree::leaf;

    fn entry(record: &[u8]) -> Entry {
        Entry { sequence: 7, id: "aud_1".into(), leaf: leaf(record), record: record.to_vec() }
    }

    #[test]
    fn a_record_stands_in_its_line_as_it_is() {
        let line = entry(br#"{"b": 1,"a":2.50}"#).line().unwrap();
        assert!(line.starts_with(r#"{"sequence":7,"id":"aud_1","leaf":"#), "{line}");
        assert!(line.ends_with(r#","record":{"b": 1,"a":2.50}}"#), "{line}");
        assert!(!entry(b"").line().unwrap().contains("record"));
    }

    #[test]
    fn a_line_that_says_the_same_in_another_way_is_refused() {
        let line = entry(b"{}").line().unwrap();
        assert_eq!(Entry::parse(&line), Some(entry(b"{}")));
        for other in [
            format!("{line} "),
            line.replacen(':', ": ", 1),
            line.to_uppercase(),
            line.replacen("7", "07", 1),
        ] {
            assert_eq!(Entry::parse(&other), None, "{other}");
        }
        assert_eq!(Entry::parse(&line.replacen("{}}", "{},\"x\":1}", 1)), None);
    }

    proptest! {
        #[test]
        fn whatever_a_record_holds_comes_back(record in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Entry::parse(&entry(&record).line().unwrap()), Some(entry(&record)));
        }

        #[test]
        fn json_comes_back_with_its_blanks(text in "[ \t\n]{0,2}\\{\"a\":[ \n]?1\\}[ \n]{0,2}") {
            prop_assert_eq!(Entry::parse(&entry(text.as_bytes()).line().unwrap()), Some(entry(text.as_bytes())));
        }
    }
}
