//! The file that checkpoints are appended to. It may lie on another disk or machine, so a failure here is said and
//! survived. What the notes mean is not its business.

use std::collections::VecDeque;
use std::io::{self, SeekFrom};
use std::path::PathBuf;

use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::audit::checkpoint::entry;
use crate::domain::limits::CHECKPOINTS_LISTED_MAX;

/// Bytes read from the file's end; some 300 notes.
const TAIL_BYTES: u64 = 64 * 1024;
/// More bytes than any note has.
const NOTE_BYTES_MAX: usize = 1024;
/// How the name of every log begins.
const LOG_NAME: &[u8] = b"tollgate.";
/// How a line with a signature begins.
const SIGNATURE: &str = "\u{2014} ";

/// A checkpoint file.
#[derive(Debug)]
pub(super) struct CheckpointFile {
    path: PathBuf,
    /// Why nothing may be appended: it is some other file.
    unfit: Option<String>,
    /// The last append failed, so that its end may be torn.
    torn: bool,
}

impl CheckpointFile {
    /// The file and its newest notes, the latest last. A note that a crash tore at the end is cut off.
    pub(super) async fn open(path: PathBuf) -> (Self, VecDeque<String>) {
        let mut file = Self { path, unfit: None, torn: false };
        let notes = file.recover().await.unwrap_or_else(|error| {
            let path = file.path.display();
            tracing::error!(%error, %path, "the checkpoint file cannot be read");
            file.unfit = (error.kind() == io::ErrorKind::InvalidData).then(|| error.to_string());
            VecDeque::new()
        });
        (file, notes)
    }

    /// Makes notes durable at the file's end. After a failure some of them may be there: the same notes again do no harm.
    pub(super) async fn append(&mut self, notes: &VecDeque<String>) -> io::Result<()> {
        if let Some(unfit) = &self.unfit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, unfit.clone()));
        }
        if self.torn {
            self.recover().await?;
        }
        self.torn = true;
        let text: String = notes.iter().map(|note| entry(note)).collect();
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path).await?;
        file.write_all(text.as_bytes()).await?;
        file.flush().await?;
        file.sync_data().await?;
        self.torn = false;
        Ok(())
    }

    async fn recover(&self) -> io::Result<VecDeque<String>> {
        let mut file = match File::open(&self.path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
            opened => opened?,
        };
        let length = file.metadata().await?.len();
        let start = length.saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(start)).await?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).await?;
        let (notes, whole) = whole_notes(&tail, start == 0);
        let torn = tail.get(whole..).unwrap_or_default();
        if !torn.is_empty() {
            if torn.len() > NOTE_BYTES_MAX || whole == 0 && !begins_a_note(torn) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it ends in something else than a checkpoint",
                ));
            }
            let end = length.saturating_sub(u64::try_from(torn.len()).unwrap_or_default());
            OpenOptions::new().write(true).open(&self.path).await?.set_len(end).await?;
            tracing::warn!(bytes = torn.len(), "a torn note was cut off the checkpoint file");
        }
        Ok(notes)
    }
}

fn begins_a_note(torn: &[u8]) -> bool {
    torn.iter().zip(LOG_NAME).all(|(found, expected)| found == expected)
}

/// The whole notes of a file's tail and where the last one ends; `from_start` when the tail is the whole file, so that
/// its first note is whole.
fn whole_notes(tail: &[u8], from_start: bool) -> (VecDeque<String>, usize) {
    let (mut notes, mut begin, mut end) = (VecDeque::new(), from_start.then_some(0), 0);
    for (at, _) in tail.windows(2).enumerate().filter(|(_, pair)| *pair == b"\n\n") {
        let before = tail.get(..at).unwrap_or_default();
        let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        if !line.starts_with(SIGNATURE.as_bytes()) {
            continue;
        }
        let note = begin.and_then(|begin| std::str::from_utf8(tail.get(begin..=at)?).ok());
        notes.extend(note.map(str::to_owned));
        end = at + 2;
        begin = Some(end);
    }
    let surplus = notes.len().saturating_sub(CHECKPOINTS_LISTED_MAX);
    notes.drain(..surplus);
    (notes, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(number: u32) -> String {
        format!("tollgate.1/audit\n{number}\nroot\n\n\u{2014} tollgate.1/audit signature{number}\n")
    }

    #[tokio::test]
    async fn notes_come_back_and_a_torn_one_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints");
        let (mut file, found) = CheckpointFile::open(path.clone()).await;
        assert!(found.is_empty());
        file.append(&VecDeque::from([note(1), note(2)])).await.unwrap();
        let whole = std::fs::read(&path).unwrap();
        let torn = entry(&note(3));
        for length in 0..torn.len() {
            std::fs::write(&path, [whole.as_slice(), &torn.as_bytes()[..length]].concat()).unwrap();
            let (mut file, found) = CheckpointFile::open(path.clone()).await;
            assert_eq!(found, [note(1), note(2)], "{length}");
            file.append(&VecDeque::from([note(3)])).await.unwrap();
            let (_, found) = CheckpointFile::open(path.clone()).await;
            assert_eq!(found, [note(1), note(2), note(3)], "{length}");
        }
    }

    #[tokio::test]
    async fn some_other_file_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        std::fs::write(&path, "root:x:0:0\n").unwrap();
        let (mut file, found) = CheckpointFile::open(path.clone()).await;
        assert!(found.is_empty());
        assert!(file.append(&VecDeque::from([note(1)])).await.is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "root:x:0:0\n");
    }

    #[tokio::test]
    async fn of_a_long_file_the_newest_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints");
        let (mut file, _) = CheckpointFile::open(path.clone()).await;
        file.append(&(0..5_000).map(note).collect()).await.unwrap();
        let (_, found) = CheckpointFile::open(path).await;
        assert_eq!((found.len(), found.back()), (CHECKPOINTS_LISTED_MAX, Some(&note(4_999))));
    }
}
