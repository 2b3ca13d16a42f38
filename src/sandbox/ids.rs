//! Object ids and chance from one seeded generator, so that the same seed and calls give the same ids. It must not read
//! the machine's randomness.

use serde::{Deserialize, Serialize};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A SplitMix64 generator; its whole state is one number and survives a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ids {
    state: u64,
}

impl Ids {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A fresh id with Stripe's usual length for the prefix (given without its underscore).
    pub(super) fn next(&mut self, prefix: &str) -> String {
        let length = match prefix {
            "cus" | "req" => 14,
            "acct" => 16,
            _ => 24,
        };
        format!("{prefix}_{}", self.alphanumeric(length))
    }

    /// Where the generator stands; moves with every draw.
    pub(super) fn position(&self) -> u64 {
        self.state
    }

    /// `length` random letters and digits.
    pub(super) fn alphanumeric(&mut self, length: usize) -> String {
        (0..length)
            .map(|_| {
                let at = usize::try_from(self.draw() % 62).unwrap_or_default();
                char::from(ALPHABET.get(at).copied().unwrap_or(b'0'))
            })
            .collect()
    }

    /// True with the given probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        let draw = u32::try_from(self.draw() >> 32).unwrap_or_default();
        f64::from(draw) / (f64::from(u32::MAX) + 1.0) < probability
    }

    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::Ids;

    #[test]
    fn one_seed_gives_one_sequence_with_stripes_lengths() {
        let (mut a, mut b) = (Ids::new(7), Ids::new(7));
        assert_eq!(a.next("re"), b.next("re"));
        assert_ne!(a.next("re"), a.next("re"));
        assert_eq!(a.next("re").len(), "re_".len() + 24);
        assert_eq!(a.next("cus").len(), "cus_".len() + 14);
        assert_eq!(a.next("acct").len(), "acct_".len() + 16);
    }
}
