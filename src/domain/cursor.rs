//! A place in one event log, in the opaque form that subscribers keep.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const VERSION: u8 = 1;
const BYTES: usize = 1 + 8 + 8;

/// Everything up to and including `position` of the log `log` has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// In which log, and in which run of a gateway over it, that event came: a cursor of another log, or of what this one was
    /// before it was restored from a copy, must not be taken for a place in this one.
    pub log: u64,
    /// Position of the last event seen; 0 before the first.
    pub position: u64,
}

/// The text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor of this feed; send one exactly as it was received")]
pub struct BadCursor;

impl Cursor {
    /// The cursor as subscribers see it.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(VERSION);
        bytes.extend(self.log.to_be_bytes());
        bytes.extend(self.position.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor back.
    ///
    /// # Errors
    /// When the text was not made by [`Cursor::encode`].
    pub fn decode(text: &str) -> Result<Self, BadCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadCursor)?;
        let rest = bytes.strip_prefix(&[VERSION]).ok_or(BadCursor)?;
        let (log, position) = rest.split_at_checked(8).ok_or(BadCursor)?;
        let number = |part: &[u8]| part.try_into().map(u64::from_be_bytes).map_err(|_| BadCursor);
        Ok(Self { log: number(log)?, position: number(position)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back_as_itself(log: u64, position: u64) {
            let cursor = Cursor { log, position };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            if let Ok(cursor) = Cursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }
    }
}
