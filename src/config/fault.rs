//! What is wrong with the settings, said so that it can be fixed; it never shows a secret's value.

use std::fmt;

/// What is wrong with a name that means nothing.
const NO_SUCH: &str = "there is no such setting";

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key or variable, as the operator wrote it.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
    /// Where it was set; empty where it was not.
    pub origin: String,
    /// The name that was probably meant.
    pub meant: Option<String>,
}

impl Fault {
    /// Whether the name means nothing, so that nobody knows what was meant.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.what == NO_SUCH
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.what)?;
        if !self.origin.is_empty() {
            write!(f, " (from {})", self.origin)?;
        }
        match &self.meant {
            Some(meant) => write!(f, "; did you mean `{meant}`?"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, one a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault(s)", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Faults {
    pub(super) fn add(&mut self, key: &str, what: impl Into<String>, origin: &str) {
        self.0.push(Fault { key: key.to_owned(), what: what.into(), origin: origin.to_owned(), meant: None });
    }

    pub(super) fn unknown<'a>(&mut self, key: &str, origin: &str, known: impl IntoIterator<Item = &'a str>) {
        let meant = nearest(key, known).map(str::to_owned);
        self.0.push(Fault { key: key.to_owned(), what: NO_SUCH.into(), origin: origin.to_owned(), meant });
    }
}

/// The known name that is most like `name`, if any is like it at all: at most a third of it differs.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|known| (distance(name, known), known)).min()?;
    (near.0 * 3 <= name.chars().count()).then_some(near.1)
}

/// Levenshtein distance: characters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (cb, above) in b.iter().zip(row.windows(2)) {
            let &[diagonal, up] = above else { continue };
            left = (diagonal + usize::from(ca != *cb)).min(up + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("same", "same", 0)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn only_a_similar_name_is_suggested() {
        assert_eq!(nearest("listen.grcp", ["listen.grpc", "data"]), Some("listen.grpc"));
        assert_eq!(nearest("colour", ["listen.grpc", "data"]), None);
    }
}
