//! Deliberate faults and deaths, with which the proofs show that they would notice a real one. It must not exist in a
//! shipped build, where everything here is empty.

#[cfg(test)]
pub use made::{Planted, plant};
#[cfg(any(test, feature = "planted"))]
pub use made::{active, point};

/// Whether the fault `name` is to be made; never without the feature `planted`.
#[cfg(not(any(test, feature = "planted")))]
#[must_use]
pub const fn active(name: &str) -> bool {
    _ = name;
    false
}

/// A place where a process may be told to die; nothing without the feature `planted`.
#[cfg(not(any(test, feature = "planted")))]
pub const fn point(name: &str) {
    _ = name;
}

#[cfg(any(test, feature = "planted"))]
mod made {
    use std::cell::RefCell;

    #[cfg(feature = "planted")]
    use super::deaths;

    thread_local! {
        /// The faults that a test makes on its own thread.
        static HERE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Makes a fault on this thread until it is dropped.
    #[cfg(test)]
    #[derive(Debug)]
    pub struct Planted(());

    /// Makes the fault `name` on this thread as long as the answer lives.
    #[cfg(test)]
    #[must_use]
    pub fn plant(name: &str) -> Planted {
        HERE.with_borrow_mut(|here| here.push(name.to_owned()));
        Planted(())
    }

    #[cfg(test)]
    impl Drop for Planted {
        fn drop(&mut self) {
            HERE.with_borrow_mut(Vec::pop);
        }
    }

    /// Whether the fault `name` is to be made: the process or a test on this thread asks for it.
    #[must_use]
    pub fn active(name: &str) -> bool {
        #[cfg(feature = "planted")]
        if deaths::fault_of_process(name) {
            return true;
        }
        HERE.with_borrow(|here| here.iter().any(|one| one == name))
    }

    /// A place where the process dies if it is told so.
    pub fn point(name: &str) {
        #[cfg(feature = "planted")]
        deaths::pass(name);
        _ = name;
    }
}

/// What a process built with the feature `planted` is told from outside.
#[cfg(feature = "planted")]
mod deaths {
    use std::sync::Mutex;

    use rustix::process::{Signal, getpid, kill_process};

    /// The environment variable that names the faults to make, with commas between them. It is no setting, so it does
    /// not begin like one: a `TOLLGATE_` variable that is no setting is refused.
    const FAULTS: &str = "PLANTED_FAULT";
    /// The environment variable that names a file. As long as its first line says `NAME N`, the process dies at the N-th
    /// passage of the point NAME, counted from when the file came to be as it is; the name `any` stands for every point.
    /// A file rather than a variable, so that a process in the middle of its life can be told.
    const ORDERS: &str = "KILL_POINTS";

    /// The order that is in force, and how many passages it has seen.
    static SEEN: Mutex<(String, u64)> = Mutex::new((String::new(), 0));

    pub(super) fn fault_of_process(name: &str) -> bool {
        variable(FAULTS).is_some_and(|faults| faults.split(',').any(|one| one == name))
    }

    pub(super) fn pass(name: &str) {
        let Some(file) = variable(ORDERS) else { return };
        let order = std::fs::read_to_string(file).unwrap_or_default();
        let mut seen = SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.0 != order {
            *seen = (order.clone(), 0);
        }
        let line = order.lines().next().unwrap_or_default();
        let Some((wanted, nth)) = line.split_once(' ') else { return };
        if wanted != name && wanted != "any" {
            return;
        }
        seen.1 += 1;
        if nth.parse() == Ok(seen.1) {
            // Nobody can be told why it failed, and a process that lives on shows it.
            _ = kill_process(getpid(), Signal::KILL);
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "what is planted is no configuration and exists in no shipped build"
    )]
    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{active, plant};

    #[test]
    fn a_fault_is_made_on_its_thread_while_it_is_held() {
        assert!(!active("a"));
        let held = plant("a");
        assert!(active("a") && !active("b"));
        assert!(std::thread::spawn(|| !active("a")).join().unwrap());
        drop(held);
        assert!(!active("a"));
    }
}
