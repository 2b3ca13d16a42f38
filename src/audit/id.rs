//! Names for audit records: they sort by time, and nobody can guess the next.

use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::domain::clock::UnixMillis;

/// What every id begins with.
const PREFIX: &str = "aud_";
/// Crockford's alphabet: it sorts as its numbers do, and has no letters that are mistaken for others.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters behind the prefix, 5 bits each.
const CHARS: u32 = 26;
/// Bits of an id that are random; above them stand the milliseconds.
const RANDOM_BITS: u32 = 80;

/// A source of ids.
pub(super) struct Ids {
    seed: [u8; 32],
    given: AtomicU64,
}

impl Ids {
    /// A source that starts at a place of its own.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self { seed, given: AtomicU64::new(0) })
    }

    /// An id that was never given before.
    pub(super) fn next(&self, at_ms: UnixMillis) -> String {
        let count = self.given.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let digest = Sha256::new().chain_update(self.seed).chain_update(count).finalize();
        let random = digest.iter().take(10).fold(0u128, |sum, byte| (sum << 8) | u128::from(*byte));
        let millis = u128::from(at_ms.max(0).unsigned_abs()) & ((1 << 48) - 1);
        spell((millis << RANDOM_BITS) | random)
    }
}

/// The seed would give every id away.
impl std::fmt::Debug for Ids {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Ids")
    }
}

fn spell(number: u128) -> String {
    let digit = |place: u32| {
        let digit = (number >> (5 * place)) & 31;
        let letter = usize::try_from(digit).ok().and_then(|digit| ALPHABET.get(digit));
        letter.map_or('0', |letter| char::from(*letter))
    };
    PREFIX.chars().chain((0..CHARS).rev().map(digit)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_sort_by_time_and_never_repeat() {
        let ids = Ids::new().unwrap();
        let given: Vec<String> = (0..2000).map(|ms| ids.next(1_800_000_000_000 + ms)).collect();
        assert!(given.is_sorted());
        let same_time: BTreeSet<String> = (0..2000).map(|_| ids.next(1_800_000_000_000)).collect();
        assert_eq!(same_time.len(), 2000);
        assert!(given.iter().all(|id| id.len() == 30 && id.starts_with("aud_01")));
    }

    #[test]
    fn spells_like_crockford() {
        assert_eq!(spell(0), format!("aud_{}", "0".repeat(26)));
        assert_eq!(spell(u128::MAX), format!("aud_7{}", "Z".repeat(25)));
        assert_eq!(spell(32 * 31 + 18), format!("aud_{}ZJ", "0".repeat(24)));
    }
}
