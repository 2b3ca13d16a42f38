//! The API keys of one account while one replaces another: which to try first, and what follows when Stripe refuses it.
//! It sends nothing.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::key::Key;

/// The keys of one account, shared by everything that sends under them; a swap takes effect with the next attempt.
pub(super) struct Keyring(RwLock<Arc<[Key]>>);

impl fmt::Debug for Keyring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keyring").field("keys", &self.current().len()).finish()
    }
}

impl Keyring {
    /// The first is tried first.
    pub(super) fn new(keys: &[Key]) -> Self {
        Self(RwLock::new(keys.into()))
    }

    /// The keys as they stand, the one to try first at the front.
    pub(super) fn current(&self) -> Arc<[Key]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces all keys.
    pub(super) fn swap(&self, keys: &[Key]) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
    }

    /// Takes a key out, if it is among them.
    pub(super) fn remove(&self, key: &Key) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *keys = keys.iter().filter(|held| *held != key).cloned().collect();
    }

    /// Puts the key at `place` of `seen` to the front, since Stripe took it and refused those before it; unless the keys
    /// were swapped meanwhile. Tells whether it did.
    pub(super) fn prefer(&self, seen: &Arc<[Key]>, place: usize) -> bool {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let moved = Arc::ptr_eq(&keys, seen) && place < seen.len();
        if moved {
            let mut turned = seen.to_vec();
            turned.rotate_left(place);
            *keys = turned.into();
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Vec<Key> {
        names.iter().map(|name| Key::parse(format!("sk_test_{name}").into()).unwrap()).collect()
    }

    fn shown(ring: &Keyring) -> Vec<String> {
        ring.current().iter().map(|key| key.expose().to_owned()).collect()
    }

    #[test]
    fn the_key_that_stripe_took_is_tried_first_from_then_on() {
        let ring = Keyring::new(&keys(&["a", "b", "c"]));
        let seen = ring.current();
        assert!(ring.prefer(&seen, 1));
        assert_eq!(shown(&ring), ["sk_test_b", "sk_test_c", "sk_test_a"]);
        assert!(!ring.prefer(&seen, 2), "an older view of the keys decides nothing");
        assert_eq!(shown(&ring), ["sk_test_b", "sk_test_c", "sk_test_a"]);
    }

    #[test]
    fn a_key_that_is_taken_out_leaves_the_others() {
        let ring = Keyring::new(&keys(&["a", "b"]));
        ring.remove(&keys(&["a"])[0]);
        assert_eq!(shown(&ring), ["sk_test_b"]);
        ring.remove(&keys(&["b"])[0]);
        assert!(shown(&ring).is_empty());
    }

    #[test]
    fn a_swap_is_not_undone_by_what_was_under_way() {
        let ring = Keyring::new(&keys(&["a", "b"]));
        let seen = ring.current();
        ring.swap(&keys(&["d"]));
        assert!(!ring.prefer(&seen, 1));
        assert_eq!(shown(&ring), ["sk_test_d"]);
        assert!(!format!("{ring:?}").contains("sk_test"));
    }
}
