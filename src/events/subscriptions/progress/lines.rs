//! The order among events of one object: those that wait stand in line, and only the first may go out, alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// All lines. An event without an object stands alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    of_objects: HashMap<Arc<str>, Line>,
    /// Those that may go out: the first of each line from which nothing is out.
    heads: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default)]
struct Line {
    /// Everything in line, what is out included.
    positions: BTreeSet<u64>,
    out: Option<u64>,
}

impl Lines {
    /// Those that may go out, the earliest first.
    pub(super) fn heads(&self) -> impl Iterator<Item = u64> {
        self.heads.iter().copied()
    }

    /// An event gets in line.
    pub(super) fn join(&mut self, position: u64, object: &Arc<str>) {
        self.change(position, object, |line| {
            line.positions.insert(position);
        });
    }

    /// An event goes out.
    pub(super) fn go_out(&mut self, position: u64, object: &Arc<str>) {
        self.change(position, object, |line| line.out = Some(position));
        self.heads.remove(&position);
    }

    /// An event comes back to its place in line.
    pub(super) fn come_back(&mut self, position: u64, object: &Arc<str>) {
        self.change(position, object, |line| line.out = None);
    }

    /// An event leaves for good.
    pub(super) fn leave(&mut self, position: u64, object: &Arc<str>) {
        self.change(position, object, |line| {
            line.positions.remove(&position);
            line.out.take_if(|out| *out == position);
        });
        self.heads.remove(&position);
    }

    /// Changes a line, and what may go out from it.
    fn change(&mut self, position: u64, object: &Arc<str>, change: impl FnOnce(&mut Line)) {
        if object.is_empty() {
            // A line of its own, which needs no keeping.
            self.heads.insert(position);
            return;
        }
        let line = self.of_objects.entry(Arc::clone(object)).or_default();
        line.positions.first().map(|first| self.heads.remove(first));
        change(line);
        match line.positions.first() {
            Some(first) if line.out.is_none() => _ = self.heads.insert(*first),
            Some(_) => {}
            None => drop(self.of_objects.remove(object)),
        }
    }
}
