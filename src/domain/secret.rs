//! A secret in memory: in pages of its own that are locked in RAM and wiped at the end, shown to nobody by accident. It
//! does not know where secrets come from.

use std::fmt;
use std::sync::Arc;

use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroize as _;
use subtle::ConstantTimeEq as _;

/// A secret text. Clones share the one copy.
///
/// The pages belong to this secret alone, so that locking them (mlock(2)) covers nothing else and is undone by nobody
/// else. Where the system grants no lock, the secret is kept all the same; see [`Secret::is_locked`].
#[derive(Clone)]
pub struct Secret(Arc<Pages>);

struct Pages {
    // Dropped before the memory that it locks.
    lock: Option<region::LockGuard>,
    memory: Box<[u8]>,
    start: usize,
    length: usize,
}

impl Secret {
    /// Takes a copy of the bytes.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let page = region::page::size();
        let whole = bytes.len().max(1).next_multiple_of(page);
        // One page more, so that whole pages fit wherever the memory begins.
        let mut memory = vec![0; whole + page].into_boxed_slice();
        let start = memory.as_ptr().align_offset(page);
        let place = memory.get_mut(start..start + whole).unwrap_or_default();
        let lock = region::lock(place.as_ptr(), whole).ok();
        for (to, from) in place.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self(Arc::new(Pages { lock, memory, start, length: bytes.len() }))
    }

    /// The bytes.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8] {
        self.0.memory.get(self.0.start..self.0.start + self.0.length).unwrap_or_default()
    }

    /// Whether the system keeps it in RAM and out of swap. When not, the limit of locked memory is used up or nought
    /// (`ulimit -l`, `LimitMEMLOCK=` of systemd).
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.lock.is_some()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.memory.zeroize();
    }
}

impl ExposeSecret<str> for Secret {
    /// The text; empty where it is not UTF-8.
    fn expose_secret(&self) -> &str {
        std::str::from_utf8(self.expose_bytes()).unwrap_or_default()
    }
}

impl PartialEq for Secret {
    /// Takes the same time wherever two secrets of one length differ.
    fn eq(&self, other: &Self) -> bool {
        self.expose_bytes().ct_eq(other.expose_bytes()).into()
    }
}

impl Eq for Secret {}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::copy_of(text.as_bytes())
    }
}

impl From<String> for Secret {
    /// Takes the text over; the memory that it stood in is wiped.
    fn from(mut text: String) -> Self {
        let secret = Self::copy_of(text.as_bytes());
        text.zeroize();
        secret
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_shown_only_when_asked_for() {
        let secret = Secret::from("whsec_hidden".to_owned());
        assert_eq!(secret.expose_secret(), "whsec_hidden");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)).matches("hidden").count(), 0);
    }

    #[test]
    fn its_pages_are_its_own() {
        let page = region::page::size();
        for length in [1, page - 1, page, page + 1] {
            let secret = Secret::copy_of(&vec![7; length]);
            assert_eq!(secret.expose_bytes().as_ptr().align_offset(page), 0);
            assert!(secret.0.start + length.next_multiple_of(page) <= secret.0.memory.len());
        }
    }

    /// Linux tells of each mapping how much of it is locked.
    #[test]
    #[cfg(target_os = "linux")]
    fn its_pages_are_locked_where_that_is_granted() {
        let secret = Secret::from("sk_test_locked");
        assert!(secret.is_locked(), "`ulimit -l` is too low for this test");
        let at = secret.expose_bytes().as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let range = |line: &str| {
            let (from, to) = line.split_once(' ')?.0.split_once('-')?;
            Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
        };
        let of_it = maps.lines().skip_while(|line| !range(line).is_some_and(|range| range.contains(&at)));
        let flags = of_it.skip(1).find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.split(' ').any(|flag| flag == "lo"), "{flags}");
    }

    proptest! {
        #[test]
        fn it_is_what_was_given(text: String) {
            let (copied, taken) = (Secret::from(text.as_str()), Secret::from(text.clone()));
            prop_assert_eq!(copied.expose_secret(), &text);
            prop_assert_eq!(taken.expose_secret(), text);
        }
    }
}
