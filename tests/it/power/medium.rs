//! What a disk holds for sure and what it was told since: a power cut keeps all of the first and any part of the second.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use super::trace::{Step, What};
use crate::crash::random::Random;

/// A disk writes so much at once or not at all.
const SECTOR_BYTES: u64 = 512;

/// What becomes of changes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// None of them reached the disk.
    Lost,
    /// All of them did.
    Kept,
    /// Each by chance.
    Subset,
    /// Each sector of each by chance.
    Torn,
}

impl Fate {
    pub(crate) const ALL: [Self; 4] = [Self::Lost, Self::Kept, Self::Subset, Self::Torn];
}

/// The files that a power cut leaves, and the folders.
#[derive(Debug, Default)]
pub(crate) struct Image {
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A disk with a cache that orders nothing.
#[derive(Default)]
pub(crate) struct Medium {
    files: Vec<Contents>,
    names: BTreeMap<PathBuf, Name>,
}

/// A file or folder, whatever its name.
#[derive(Default)]
struct Contents {
    folder: bool,
    /// What all changes that are certain have made of it, up to the first that is not.
    durable: Vec<u8>,
    changes: VecDeque<Change>,
}

struct Change {
    ended: usize,
    what: Edit,
    state: State,
}

/// What is known of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unsynced,
    Synced,
    /// Its sync failed: it may be on the disk or not, and no later sync changes that.
    Forsaken,
}

enum Edit {
    Write { at: u64, bytes: Vec<u8> },
    Resize(u64),
}

/// A name and what it stands for: an index of `files`, or nothing.
#[derive(Default)]
struct Name {
    durable: Option<usize>,
    unsynced: Vec<(usize, Option<usize>)>,
}

impl Name {
    fn now(&self) -> Option<usize> {
        self.unsynced.last().map_or(self.durable, |(_, file)| *file)
    }
}

impl Medium {
    /// Takes the next step of the trace; answers what was said in it.
    pub(crate) fn take<'a>(&mut self, step: &'a Step) -> Option<&'a str> {
        match &step.what {
            What::Write { file, at, bytes } => {
                self.edit(file, step.ended, Edit::Write { at: *at, bytes: bytes.clone() });
            }
            What::Resize { file, length } => self.edit(file, step.ended, Edit::Resize(*length)),
            What::Make { path, folder } => {
                let name = self.names.entry(path.clone()).or_default();
                if name.now().is_none() {
                    name.unsynced.push((step.ended, Some(self.files.len())));
                    self.files.push(Contents { folder: *folder, ..Contents::default() });
                }
            }
            What::Remove { path } => {
                let name = self.names.get_mut(path).expect("a removed file had a name");
                name.unsynced.push((step.ended, None));
            }
            What::Sync { path, failed } => self.sync(path, step.began, *failed),
            What::Say(line) => return Some(line),
        }
        None
    }

    fn edit(&mut self, path: &Path, ended: usize, what: Edit) {
        let file = self.names.get(path).and_then(Name::now).expect("a written file has a name");
        self.files[file].changes.push_back(Change { ended, what, state: State::Unsynced });
    }

    /// Only what ended before the sync began is covered by it.
    fn sync(&mut self, path: &Path, began: usize, failed: bool) {
        if let Some(file) = self.names.get(path).and_then(Name::now) {
            let Contents { durable, changes, .. } = &mut self.files[file];
            let covered = changes.iter_mut().filter(|change| change.ended < began);
            for change in covered.filter(|change| change.state == State::Unsynced) {
                change.state = if failed { State::Forsaken } else { State::Synced };
            }
            while let Some(change) = changes.pop_front_if(|change| change.state == State::Synced) {
                change.what.apply(durable, &mut |_| true);
            }
        }
        if failed {
            return;
        }
        for (name, entry) in &mut self.names {
            if name.parent() == Some(path) {
                let covered = entry.unsynced.iter().take_while(|(ended, _)| *ended < began).count();
                if let Some((_, file)) = entry.unsynced.drain(..covered).next_back() {
                    entry.durable = file;
                }
            }
        }
    }

    /// What the power cut leaves.
    pub(crate) fn cut(&self, fate: Fate, random: &mut Random) -> Image {
        let mut image = Image::default();
        // A cut that loses most and one that loses little show different faults.
        let kept_of_ten = 1 + random.below(9);
        for (path, name) in &self.names {
            let last = match fate {
                Fate::Lost => 0,
                Fate::Kept => name.unsynced.len(),
                // The names of one file change in order.
                Fate::Subset | Fate::Torn => {
                    usize::try_from(random.below(name.unsynced.len() as u64 + 1)).unwrap()
                }
            };
            let file = last.checked_sub(1).map_or(name.durable, |last| name.unsynced[last].1);
            let Some(contents) = file.map(|file| &self.files[file]) else { continue };
            let lost_with_folder = path.ancestors().skip(1).any(|above| {
                self.names.contains_key(above) && !image.folders.iter().any(|kept| kept == above)
            });
            if lost_with_folder {
                continue;
            }
            if contents.folder {
                image.folders.push(path.clone());
                continue;
            }
            let mut bytes = contents.durable.clone();
            let mut chance = || random.below(10) < kept_of_ten;
            for change in &contents.changes {
                match fate {
                    _ if change.state == State::Synced => change.what.apply(&mut bytes, &mut |_| true),
                    Fate::Lost => {}
                    Fate::Kept => change.what.apply(&mut bytes, &mut |_| true),
                    Fate::Subset => {
                        let kept = chance();
                        change.what.apply(&mut bytes, &mut |_| kept);
                    }
                    Fate::Torn => change.what.apply(&mut bytes, &mut |_| chance()),
                }
            }
            image.files.insert(path.clone(), bytes);
        }
        image
    }

    /// Changes that a cut now may lose.
    pub(crate) fn unsynced(&self) -> usize {
        let of = |file: &Contents| file.changes.iter().filter(|change| change.state != State::Synced).count();
        self.files.iter().map(of).sum()
    }
}

impl Edit {
    /// Carries out the sectors that `kept` names; a change of length is one sector.
    fn apply(&self, file: &mut Vec<u8>, kept: &mut dyn FnMut(u64) -> bool) {
        match self {
            Self::Resize(length) => {
                if kept(0) {
                    file.resize(usize::try_from(*length).unwrap(), 0);
                }
            }
            Self::Write { at, bytes } => {
                let end = at + bytes.len() as u64;
                let mut from = *at;
                while from < end {
                    let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                    if kept(from / SECTOR_BYTES) {
                        let place = |byte: u64| usize::try_from(byte).unwrap();
                        file.resize(file.len().max(place(to)), 0);
                        file[place(from)..place(to)]
                            .copy_from_slice(&bytes[place(from - at)..place(to - at)]);
                    }
                    from = to;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(line: usize, what: What) -> Step {
        Step { what, began: line, ended: line }
    }

    fn sync(path: &str) -> What {
        What::Sync { path: PathBuf::from(path), failed: false }
    }

    /// A file whose first sector is synced, and a second file in a folder that was not synced.
    fn medium() -> Medium {
        let mut medium = Medium::default();
        let file = || PathBuf::from("/d/a");
        let steps = [
            What::Make { path: PathBuf::from("/d"), folder: true },
            sync("/"),
            What::Make { path: file(), folder: false },
            What::Write { file: file(), at: 0, bytes: vec![1; 1024] },
            sync("/d/a"),
            sync("/d"),
            What::Write { file: file(), at: 512, bytes: vec![2; 1024] },
            What::Make { path: PathBuf::from("/d/b"), folder: false },
        ];
        for (line, what) in steps.into_iter().enumerate() {
            assert_eq!(medium.take(&step(line, what)), None);
        }
        medium
    }

    #[test]
    fn a_cut_keeps_what_was_synced_and_any_part_of_the_rest() {
        let medium = medium();
        let file = Path::new("/d/a");
        let mut random = Random::new(1);
        assert_eq!(medium.unsynced(), 1);
        let lost = medium.cut(Fate::Lost, &mut random);
        assert_eq!((lost.files.len(), &lost.files[file]), (1, &vec![1; 1024]));
        let kept = medium.cut(Fate::Kept, &mut random);
        let all: Vec<u8> = [[1; 512], [2; 512], [2; 512]].concat();
        assert_eq!((kept.files.len(), &kept.files[file]), (2, &all));
        let mut torn: Vec<Vec<u8>> =
            (0..100).map(|_| medium.cut(Fate::Torn, &mut random).files[file].clone()).collect();
        torn.sort();
        torn.dedup();
        // Both sectors, either, none.
        assert_eq!(torn.len(), 4);
    }

    #[test]
    fn a_sync_covers_only_what_ended_before_it_began() {
        let mut medium = medium();
        let late = What::Write { file: PathBuf::from("/d/a"), at: 0, bytes: vec![3; 512] };
        medium.take(&Step { what: late, began: 10, ended: 13 });
        medium.take(&Step { what: sync("/d/a"), began: 12, ended: 14 });
        assert_eq!(medium.unsynced(), 1);
        let image = medium.cut(Fate::Lost, &mut Random::new(1));
        assert_eq!(image.files[Path::new("/d/a")], [[1; 512], [2; 512], [2; 512]].concat());
    }

    #[test]
    fn what_a_failed_sync_was_to_write_is_never_certain_and_never_covers_what_came_later() {
        let mut medium = medium();
        let path = || PathBuf::from("/d/a");
        let steps = [
            What::Sync { path: path(), failed: true },
            sync("/d/a"),
            What::Write { file: path(), at: 1024, bytes: vec![4; 512] },
            sync("/d/a"),
        ];
        for (line, what) in steps.into_iter().enumerate() {
            medium.take(&step(20 + line, what));
        }
        let lost = medium.cut(Fate::Lost, &mut Random::new(1));
        assert_eq!(lost.files[&path()], [[1; 512], [1; 512], [4; 512]].concat());
        let kept = medium.cut(Fate::Kept, &mut Random::new(1));
        assert_eq!(kept.files[&path()], [[1; 512], [2; 512], [4; 512]].concat());
    }
}
