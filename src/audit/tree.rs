//! The Merkle tree over the records (RFC 6962, section 2.1; RFC 9162 has the same tree), kept as the few hashes that are
//! needed to go on. It knows hashes and counts, and neither records nor signatures.

use sha2::{Digest as _, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;
/// Most hashes of a frontier: one for each bit of its size.
const PEAKS_MAX: usize = 64;

/// The hash of a leaf: SHA-256 over a zero byte and the record's bytes.
#[must_use]
pub fn leaf(record: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(record).finalize().into()
}

/// The hash of a node: SHA-256 over a one byte and its two children.
#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The right edge of a tree: the roots of its complete subtrees, the largest first. It stands for the whole tree, and
/// grows by one leaf at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// How many leaves the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    pub fn append(&mut self, leaf: Hash) {
        // Each trailing one of the size is a subtree as large as what is being added.
        let merged = (0..self.size.trailing_ones()).fold(leaf, |right, _| match self.peaks.pop() {
            Some(left) => node(&left, &right),
            None => right,
        });
        self.peaks.push(merged);
        self.size = self.size.saturating_add(1);
    }

    /// The root; that of the empty tree is the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            Some(last) => peaks.fold(*last, |right, left| node(left, &right)),
            None => Sha256::digest([]).into(),
        }
    }

    /// The stored form: the size in 8 bytes, big-endian, then the hashes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        bytes.extend(self.peaks.iter().flatten());
        bytes
    }

    /// Reads the stored form; `None` for bytes that are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let size = u64::from_be_bytes(*size);
        let (peaks, left_over) = rest.as_chunks::<HASH_BYTES>();
        let whole = left_over.is_empty() && peaks.len() <= PEAKS_MAX;
        let fits = usize::try_from(size.count_ones()).is_ok_and(|count| count == peaks.len());
        (whole && fits).then(|| Self { size, peaks: peaks.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::operation::hex;

    /// The records of the test trees of RFC 6962's reference implementation.
    const RECORDS: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    /// The roots of the first 1 to 8 of them.
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    /// The tree hash as RFC 6962 defines it, by halves.
    fn defined(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => *one,
            _ => {
                let half = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(half);
                node(&defined(left), &defined(right))
            }
        }
    }

    #[test]
    fn the_roots_are_those_of_certificate_transparency() {
        let mut frontier = Frontier::default();
        assert_eq!(hex(&frontier.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (record, root) in RECORDS.iter().zip(ROOTS) {
            frontier.append(leaf(record));
            assert_eq!(hex(&frontier.root()), root, "{}", frontier.size());
        }
    }

    #[test]
    fn bytes_that_are_no_frontier_are_not_read_as_one() {
        let mut frontier = Frontier::default();
        frontier.append([1; 32]);
        let bytes = frontier.to_bytes();
        assert_eq!(Frontier::from_bytes(&bytes), Some(frontier));
        for wrong in [&bytes[..39], &bytes[..8], &[bytes.as_slice(), &[0]].concat(), &[]] {
            assert_eq!(Frontier::from_bytes(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn a_frontier_has_the_root_of_the_definition(count in 0usize..300, stop in 0usize..300) {
            let leaves: Vec<Hash> = (0..count).map(|number| leaf(&number.to_be_bytes())).collect();
            let mut frontier = Frontier::default();
            for (at, leaf) in leaves.iter().enumerate() {
                if at == stop {
                    // As after a restart.
                    frontier = Frontier::from_bytes(&frontier.to_bytes()).unwrap();
                }
                frontier.append(*leaf);
            }
            prop_assert_eq!(frontier.size(), u64::try_from(count).unwrap());
            prop_assert_eq!(frontier.root(), defined(&leaves));
        }
    }
}
