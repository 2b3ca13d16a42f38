//! Form decoding as Stripe reads it: `a[b][c]=v`, `a[0]=v` and `a[]=v`. It must not judge what the parameters mean.

use serde_json::Value;

use super::error::Error;
use super::object::Object;

/// Most parameters in one request.
const PAIRS_MAX: usize = 2_000;

/// Deepest nesting of brackets in one name.
const DEPTH_MAX: usize = 12;

/// Splits a query or body into decoded pairs, in the order sent.
pub(super) fn pairs(encoded: &str) -> Result<Vec<(String, String)>, Error> {
    let parts = encoded.split('&').filter(|part| !part.is_empty());
    let pairs: Vec<_> = parts
        .take(PAIRS_MAX + 1)
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((unescape(name)?, unescape(value)?))
        })
        .collect::<Result<_, Error>>()?;
    if pairs.len() > PAIRS_MAX {
        return Err(Error::invalid(format!("Too many parameters: at most {PAIRS_MAX} are read.")));
    }
    Ok(pairs)
}

/// Builds the tree the names describe. Leaves are strings; a list is an object with the keys `0`, `1`, ... until the
/// endpoint's shape says that it is one.
pub(super) fn tree(pairs: &[(String, String)]) -> Result<Object, Error> {
    let mut root = Object::new();
    for (name, value) in pairs {
        insert(&mut root, name, &path(name)?, value)?;
    }
    Ok(root)
}

fn path(name: &str) -> Result<Vec<&str>, Error> {
    let malformed = || Error::invalid(format!("Invalid parameter name: {name}")).param(name);
    let (head, mut rest) = name.find('[').map_or((name, ""), |at| name.split_at(at));
    if head.is_empty() {
        return Err(malformed());
    }
    let mut segments = vec![head];
    while !rest.is_empty() {
        let (segment, after) =
            rest.strip_prefix('[').and_then(|inner| inner.split_once(']')).ok_or_else(malformed)?;
        segments.push(segment);
        rest = after;
    }
    if segments.len() > DEPTH_MAX { Err(malformed()) } else { Ok(segments) }
}

fn insert(object: &mut Object, name: &str, path: &[&str], value: &str) -> Result<(), Error> {
    let Some((head, rest)) = path.split_first() else { return Ok(()) };
    let key = if head.is_empty() { next_index(object, rest) } else { (*head).to_owned() };
    if rest.is_empty() {
        object.insert(key, Value::String(value.to_owned()));
        return Ok(());
    }
    let child = object.entry(key).or_insert_with(|| Value::Object(Object::new()));
    match child {
        Value::Object(child) => insert(child, name, rest, value),
        _ => Err(Error::invalid(format!("Invalid parameter name: {name}")).param(name)),
    }
}

/// Where `[]` puts its value: a new element, or the last one while it lacks the field that follows.
fn next_index(object: &Object, rest: &[&str]) -> String {
    let last = object.len().checked_sub(1).map(|last| last.to_string());
    match (last, rest.first()) {
        (Some(last), Some(field)) => {
            let element = object.get(&last).and_then(Value::as_object);
            let open = element.is_some_and(|element| !element.contains_key(*field));
            if open { last } else { object.len().to_string() }
        }
        _ => object.len().to_string(),
    }
}

fn unescape(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [rest.next(), rest.next()].map(|digit| digit.map(char::from));
                match hex.map(|digit| digit.and_then(|digit| digit.to_digit(16))) {
                    [Some(high), Some(low)] => u8::try_from(high * 16 + low).unwrap_or_default(),
                    _ => return Err(Error::invalid("Invalid percent-encoding in the request.")),
                }
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| Error::invalid("Invalid UTF-8 in the request."))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{Object, pairs, tree};

    fn parse(encoded: &str) -> Value {
        Value::Object(tree(&pairs(encoded).unwrap()).unwrap())
    }

    fn encode(prefix: &str, value: &Value, out: &mut String) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}[{key}]") };
                    encode(&name, value, out);
                }
            }
            Value::String(text) => {
                let escape = |text: &str| {
                    text.bytes().fold(String::new(), |mut out, byte| {
                        write!(out, "%{byte:02X}").unwrap();
                        out
                    })
                };
                write!(out, "&{}={}", escape(prefix), escape(text)).unwrap();
            }
            other => panic!("not a form value: {other}"),
        }
    }

    fn a_tree() -> impl Strategy<Value = Object> {
        let leaf = any::<String>().prop_map(Value::String);
        let node = leaf.prop_recursive(3, 20, 4, |inner| {
            prop::collection::btree_map("[a-z0-9_]{1,6}", inner, 1..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        });
        prop::collection::btree_map("[a-z_]{1,6}", node, 0..4).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(tree in a_tree()) {
            let mut encoded = String::new();
            let tree = Value::Object(tree);
            encode("", &tree, &mut encoded);
            prop_assert_eq!(parse(&encoded), tree);
        }

        #[test]
        fn no_input_panics(text in any::<String>()) {
            drop(pairs(&text).and_then(|pairs| tree(&pairs)));
        }
    }

    #[test]
    fn brackets_nest_and_lists_come_in_both_spellings() {
        assert_eq!(
            parse("a[b][c]=1&l[]=x&l[]=y&m[0][k]=p+q&m[0][j]=%26&n[][k]=1&n[][j]=2&n[][k]=3"),
            json!({
                "a": {"b": {"c": "1"}}, "l": {"0": "x", "1": "y"}, "m": {"0": {"k": "p q", "j": "&"}},
                "n": {"0": {"k": "1", "j": "2"}, "1": {"k": "3"}},
            })
        );
    }

    #[test]
    fn malformed_names_and_escapes_are_refused() {
        for bad in ["a[b=1", "a[b]c=1", "[a]=1", "a=1&a[b]=2", "a=%zz", "a=%f", "a=%ff"] {
            let error = pairs(bad).and_then(|pairs| tree(&pairs)).unwrap_err();
            assert_eq!(error.status, 400, "{bad}");
        }
    }
}
