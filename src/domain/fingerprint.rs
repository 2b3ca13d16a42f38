//! What a change asked for, kept as keyed hashes: two requests can be compared field by field, and no value can be read
//! back. It knows names and values only, not where they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::limits::METADATA_STAMP;
use super::operation::hex;

/// Version of the scheme below; stored, so that a later one can tell what it reads.
const VERSION: u8 = 1;
/// Bytes kept of each hash: by chance, two values have the same one time in 2^96.
const HASH_BYTES: usize = 12;
/// The name under which a path is compared that does not fit its template.
const WHOLE_PATH: &str = "path";

/// The secret behind keyed hashes: values that are hashed with it can be compared, and found out by nobody without it.
#[derive(Clone)]
pub struct HashKey(Hmac<Sha256>);

impl HashKey {
    /// A key made of 32 secret random bytes, which must live as long as what is hashed with it.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        // HMAC pads a key with zeros to the size of a block (RFC 2104, section 2).
        let mut block = [0; 64];
        block.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Self(<Hmac<Sha256>>::new(&block.into()))
    }

    /// HMAC-SHA256 over the parts, cut to 12 bytes, in hexadecimal. Every part goes in behind its length, so that
    /// no two lists spell the same bytes.
    #[must_use]
    pub fn hash<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> String {
        let mac = parts.into_iter().fold(self.0.clone(), |mac, part| {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            mac.chain_update(length.to_be_bytes()).chain_update(part.as_bytes())
        });
        let digest = mac.finalize().into_bytes();
        hex(digest.get(..HASH_BYTES).unwrap_or(&digest))
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("HashKey")
    }
}

/// One keyed hash for each top-level field of a request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fingerprint {
    version: u8,
    fields: BTreeMap<String, String>,
}

impl Fingerprint {
    /// The fingerprint of a request: the values in its path, and its parameters as (name on the wire, value).
    ///
    /// `template` is the path with `{field}` where a value stands. Everything below one top-level name is one field,
    /// and the order of parameters does not count, since Stripe reads a form as a set of names. The operation's own
    /// stamp in the metadata is left out.
    #[must_use]
    pub fn of<'a>(
        key: &HashKey,
        template: &'a str,
        path: &'a str,
        params: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let stamp = format!("metadata[{METADATA_STAMP}]");
        let params = params.into_iter().filter(|(name, _)| *name != stamp);
        let mut fields: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
        for (name, value) in path_values(template, path).into_iter().chain(params) {
            fields.entry(top_level(name)).or_default().insert((name, value));
        }
        let hashed = |(name, pairs): (&str, BTreeSet<(&'a str, &'a str)>)| {
            let parts = pairs.iter().flat_map(|(name, value)| [*name, *value]);
            (name.to_owned(), key.hash(std::iter::once(name).chain(parts)))
        };
        Self { version: VERSION, fields: fields.into_iter().map(hashed).collect() }
    }

    /// Names of the fields in which the two differ, sorted; none when they ask for the same.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<_> = self.fields.keys().chain(other.fields.keys()).collect();
        // Hashes of different schemes cannot be compared, so nothing can be called equal.
        let comparable = self.version == other.version;
        let differs = |name: &&&String| !comparable || self.fields.get(**name) != other.fields.get(**name);
        names.iter().filter(differs).map(|name| (*name).clone()).collect()
    }
}

/// `evidence` of `evidence[customer_name]`.
fn top_level(name: &str) -> &str {
    name.split_once('[').map_or(name, |(top, _)| top)
}

/// The fields that stand in the path, by the template's segments: names and values.
#[must_use]
pub fn path_values<'a>(template: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    if template.split('/').count() != path.split('/').count() {
        return vec![(WHOLE_PATH, path)];
    }
    let field = |segment: &'a str| segment.strip_prefix('{')?.strip_suffix('}');
    template
        .split('/')
        .zip(path.split('/'))
        .filter(|(segment, value)| segment != value)
        .map(|(segment, value)| (field(segment).unwrap_or(WHOLE_PATH), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEMPLATE: &str = "/v1/customers/{customer}";

    fn of(path: &str, params: &[(&str, &str)]) -> Fingerprint {
        Fingerprint::of(&HashKey::new([7; 32]), TEMPLATE, path, params.iter().copied())
    }

    #[test]
    fn names_the_top_level_fields_that_differ() {
        let first = of("/v1/customers/cus_1", &[("name", "A"), ("address[city]", "Bonn"), ("phone", "1")]);
        let second = of("/v1/customers/cus_2", &[("name", "B"), ("address[city]", "Köln"), ("email", "e")]);
        assert_eq!(first.differing(&second), ["address", "customer", "email", "name", "phone"]);
        assert_eq!(second.differing(&first), first.differing(&second));
    }

    #[test]
    fn neither_order_nor_the_stamp_counts() {
        let first = of("/v1/customers/cus_1", &[("name", "A"), ("metadata[a]", "1"), ("metadata[b]", "2")]);
        let second = of(
            "/v1/customers/cus_1",
            &[
                ("metadata[b]", "2"),
                ("metadata[tollgate_operation]", "00"),
                ("metadata[a]", "1"),
                ("name", "A"),
            ],
        );
        assert_eq!(first.differing(&second), Vec::<String>::new());
    }

    #[test]
    fn a_path_that_left_its_template_is_compared_whole() {
        assert_eq!(of("/v1/customers/cus_1", &[]).differing(&of("/v2/customers/cus_1", &[])), ["path"]);
        assert_eq!(of("/v1/customers/cus_1", &[]).differing(&of("/v1/cus_1", &[])), ["customer", "path"]);
    }

    #[test]
    fn is_stable_across_builds_and_different_for_every_key() {
        let stored = serde_json::to_string(&of("/v1/customers/cus_1", &[("name", "A")])).unwrap();
        assert_eq!(
            stored,
            r#"{"version":1,"fields":{"customer":"d9b08d42bdc328d778fea956","name":"5ad3143b5c3eac3b13af14d8"}}"#
        );
        let other = Fingerprint::of(&HashKey::new([8; 32]), TEMPLATE, "/v1/customers/cus_1", [("name", "A")]);
        assert_eq!(other.differing(&of("/v1/customers/cus_1", &[("name", "A")])), ["customer", "name"]);
    }

    proptest! {
        #[test]
        fn differing_names_exactly_the_changed_fields(
            before in proptest::collection::btree_map("[a-e](\\[[a-c]\\])?", "[xy]{0,2}", 0..6),
            after in proptest::collection::btree_map("[a-e](\\[[a-c]\\])?", "[xy]{0,2}", 0..6),
        ) {
            let pairs = |map: &BTreeMap<String, String>| -> Vec<(String, String)> { map.clone().into_iter().collect() };
            let print = |pairs: &[(String, String)]| {
                of("/v1/customers/c", &pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>())
            };
            let under = |map: &BTreeMap<String, String>, top: &str| -> Vec<(String, String)> {
                pairs(map).into_iter().filter(|(name, _)| top_level(name) == top).collect()
            };
            let expected: Vec<String> =
                ["a", "b", "c", "d", "e"].iter().filter(|top| under(&before, top) != under(&after, top)).map(|top| (*top).to_owned()).collect();
            prop_assert_eq!(print(&pairs(&before)).differing(&print(&pairs(&after))), expected);
        }
    }
}
