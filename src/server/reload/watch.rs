//! Notices that settings changed: looks at every file that has a say, and listens for the word to read again. What follows
//! from it is not its business.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Reloader;
use super::Supervisor;
use crate::config::{Loaded, Loader};
use crate::domain::drain::Drain;

/// How often files are looked at. A change is taken once two looks in a row see the same, so that nobody's half-written
/// file is read.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long settings that could not be taken wait for another try without any change of theirs: what they depend on may be
/// back.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What tells one state of a file from another without reading it: which file it is (a rename and a change of a link
/// give another one), when it was written, and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    length: u64,
}

impl From<Metadata> for Stamp {
    fn from(found: Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            length: found.size(),
        }
    }
}

/// How files stood at one look.
type Look = Vec<(PathBuf, Option<Stamp>)>;

/// Links are followed: where a volume is exchanged by a link, as Kubernetes does, the file behind it is another one. Of a
/// folder, what lies in it counts too.
fn look(files: &BTreeSet<PathBuf>) -> Look {
    let stamp = |path: &Path| fs::metadata(path).ok();
    let mut seen = Look::new();
    for path in files {
        let found = stamp(path);
        if found.as_ref().is_some_and(Metadata::is_dir) {
            let mut inside: Vec<PathBuf> =
                fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            inside.sort();
            seen.extend(inside.into_iter().map(|path| (path.clone(), stamp(&path).map(Stamp::from))));
        }
        seen.push((path.clone(), found.map(Stamp::from)));
    }
    seen
}

/// Takes new settings whenever a file changes or `again` is notified, until the drain begins.
pub(in crate::server) async fn watch(
    reloader: Reloader,
    loader: Loader,
    (again, supervisor): (Arc<Notify>, Supervisor),
    drain: Drain,
) {
    let mut files = BTreeSet::new();
    let Some((mut taken, first)) = read(&loader, &mut files).await else { return };
    // What changed since the start read it is taken like any other change.
    let mut failed = take(&reloader, first).await;
    let mut last = taken.clone();
    loop {
        let is_asked = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => false,
            () = again.notified() => true,
            () = drain.begun() => return,
        };
        let seen = look(&files);
        let is_changed = seen != taken && seen == last;
        let is_due = failed.is_some_and(|at| at.elapsed() >= TRY_AGAIN_AFTER);
        last = seen;
        if !is_asked && !is_changed && !is_due {
            continue;
        }
        let Some((seen, loaded)) = read(&loader, &mut files).await else { continue };
        (taken, last) = (seen.clone(), seen);
        if is_asked {
            supervisor.reloading();
        }
        failed = take(&reloader, loaded).await;
        supervisor.ready(failed.is_none());
    }
}

/// Reads the settings, and how their files stood right before. A file that is named for the first time is looked at before
/// it is read too, so that no change of it is missed.
async fn read(loader: &Loader, files: &mut BTreeSet<PathBuf>) -> Option<(Look, Loaded)> {
    loop {
        let seen = look(files);
        let loader = loader.clone();
        let loaded = tokio::task::spawn_blocking(move || loader.load()).await.ok()?;
        let known = files.len();
        files.extend(loaded.files.iter().cloned());
        if files.len() == known {
            return Some((seen, loaded));
        }
    }
}

/// When the settings could not be taken, if so.
async fn take(reloader: &Reloader, loaded: Loaded) -> Option<Instant> {
    reloader.reload(loaded.config, loaded.roll).await.is_err().then(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_exchange_a_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("first")).unwrap();
        fs::create_dir(at("second")).unwrap();
        fs::write(at("first/key"), "one").unwrap();
        fs::write(at("second/key"), "two").unwrap();
        std::os::unix::fs::symlink("first", at("data")).unwrap();
        fs::create_dir(at("rules")).unwrap();
        let files = BTreeSet::from([at("data/key"), at("rules"), at("absent")]);
        let mut seen = look(&files);
        assert_eq!(look(&files), seen);
        let mut is_noticed = |what: &str| {
            let now = look(&files);
            assert_ne!(now, seen, "{what}");
            seen = now;
        };
        fs::write(at("first/key"), "longer").unwrap();
        is_noticed("another length");
        fs::write(at("new"), "longer").unwrap();
        fs::rename(at("new"), at("first/key")).unwrap();
        is_noticed("a rename");
        std::os::unix::fs::symlink("second", at("new")).unwrap();
        fs::rename(at("new"), at("data")).unwrap();
        is_noticed("a link that shows elsewhere");
        fs::write(at("rules/a.cedar"), "permit").unwrap();
        is_noticed("a new file in a folder");
        fs::remove_file(at("rules/a.cedar")).unwrap();
        is_noticed("one that is gone");
        fs::write(at("absent"), "").unwrap();
        is_noticed("one that was missing");
    }
}
