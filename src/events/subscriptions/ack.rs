//! Names of deliveries, in the opaque form in which consumers give them back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const VERSION: u8 = 2;
const BYTES: usize = 1 + 8 + 8 + 4 + 4 + 4 + 8;

/// One delivery of one event by one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckId {
    /// Which subscription: one that was made anew under an old name is another.
    pub subscription: u64,
    /// In which log, and in which run of a gateway over it, the event came, as a cursor tells it.
    pub log: u64,
    /// How often the subscription had been moved.
    pub generation: u32,
    /// Which replay the event was part of; 0 when its turn had come.
    pub replay: u32,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// Position of the event.
    pub position: u64,
}

/// The text names no delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an ack id; send one exactly as it was received")]
pub struct BadAckId;

impl AckId {
    /// The name as consumers see it.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(VERSION);
        bytes.extend(self.subscription.to_be_bytes());
        bytes.extend(self.log.to_be_bytes());
        bytes.extend(self.generation.to_be_bytes());
        bytes.extend(self.replay.to_be_bytes());
        bytes.extend(self.attempt.to_be_bytes());
        bytes.extend(self.position.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a name back.
    ///
    /// # Errors
    /// When the text was not made by [`AckId::encode`].
    pub fn decode(text: &str) -> Result<Self, BadAckId> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadAckId)?;
        let rest = bytes.strip_prefix(&[VERSION]).ok_or(BadAckId)?;
        let (subscription, rest) = split(rest, u64::from_be_bytes)?;
        let (log, rest) = split(rest, u64::from_be_bytes)?;
        let (generation, rest) = split(rest, u32::from_be_bytes)?;
        let (replay, rest) = split(rest, u32::from_be_bytes)?;
        let (attempt, rest) = split(rest, u32::from_be_bytes)?;
        let (position, rest) = split(rest, u64::from_be_bytes)?;
        let id = Self { subscription, log, generation, replay, attempt, position };
        if rest.is_empty() { Ok(id) } else { Err(BadAckId) }
    }
}

/// The first `N` bytes as a number, and what follows them.
fn split<const N: usize, T>(bytes: &[u8], read: impl FnOnce([u8; N]) -> T) -> Result<(T, &[u8]), BadAckId> {
    let (first, rest) = bytes.split_first_chunk().ok_or(BadAckId)?;
    Ok((read(*first), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_ack_id_reads_back_as_itself(
            subscription: u64, log: u64, generation: u32, replay: u32, attempt: u32, position: u64,
        ) {
            let id = AckId { subscription, log, generation, replay, attempt, position };
            prop_assert_eq!(AckId::decode(&id.encode()), Ok(id));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            if let Ok(id) = AckId::decode(&text) {
                prop_assert_eq!(id.encode(), text);
            }
        }
    }
}
