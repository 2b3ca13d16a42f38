//! Checkpoints: how large a log was and which root it had (C2SP tlog-checkpoint). Who vouches for one is the note's
//! business.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::note::{NoteSigner, NoteVerifier};
use super::tree::Hash;

/// What a log was at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many records it had.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The text: origin, size and root, a line each.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// The text with its signature.
    #[must_use]
    pub fn sign(&self, signer: &NoteSigner) -> String {
        signer.sign(&self.text())
    }

    /// Reads the text of a checkpoint. Lines after the third are extensions and mean nothing here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let plain = size.bytes().all(|byte| byte.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = size.parse().ok().filter(|_| plain)?;
        let root = STANDARD.decode(root).ok()?.try_into().ok()?;
        (!origin.is_empty()).then(|| Self { origin: origin.to_owned(), size, root })
    }

    /// Reads a note that one of the keys signed in the log's own name.
    #[must_use]
    pub fn open(note: &str, keys: &[NoteVerifier]) -> Option<Self> {
        keys.iter().find_map(|key| {
            let checkpoint = Self::parse(key.open(note)?)?;
            (checkpoint.origin == key.name()).then_some(checkpoint)
        })
    }
}

/// The notes of a checkpoint file: one after the other, with an empty line between text and signatures of each and
/// behind each. What is no note comes out as it stands, for the reader to refuse.
pub fn notes(file: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = file;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let text = rest.find("\n\n").map_or(rest.len(), |at| at + 2);
        let signatures = rest.get(text..).and_then(|rest| rest.find("\n\n")).map(|at| text + at);
        // The last byte is the empty line behind the note.
        let split = signatures.and_then(|end| Some((rest.get(..=end)?, rest.get(end + 2..)?)));
        let (note, behind) = split.unwrap_or((rest, ""));
        rest = behind;
        Some(note.to_owned())
    })
}

/// A note as it stands in a checkpoint file.
#[must_use]
pub fn entry(note: &str) -> String {
    format!("{note}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(size: u64) -> Checkpoint {
        Checkpoint { origin: "tollgate.00/audit".into(), size, root: [9; 32] }
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was_signed() {
        let signer = NoteSigner::new("tollgate.00/audit", &[7; 32]);
        let note = checkpoint(20).sign(&signer);
        assert!(note.starts_with("tollgate.00/audit\n20\nCQkJ"), "{note}");
        assert_eq!(Checkpoint::open(&note, &[signer.verifier()]), Some(checkpoint(20)));
        assert_eq!(Checkpoint::open(&note, &[]), None);
    }

    #[test]
    fn a_key_speaks_for_its_own_log_only() {
        let signer = NoteSigner::new("tollgate.11/audit", &[7; 32]);
        assert_eq!(Checkpoint::open(&checkpoint(20).sign(&signer), &[signer.verifier()]), None);
    }

    #[test]
    fn what_is_no_checkpoint_is_not_read_as_one() {
        let good = checkpoint(20).text();
        assert_eq!(Checkpoint::parse(&good), Some(checkpoint(20)));
        assert_eq!(Checkpoint::parse(&format!("{good}extension\n")), Some(checkpoint(20)));
        for bad in [
            String::new(),
            good.replacen("20", "020", 1),
            good.replacen("20", "+20", 1),
            good.replacen("20", "", 1),
            good.replacen("CQkJ", "CQk", 1),
            good.trim_end().to_owned(),
            good.replacen("tollgate.00/audit", "", 1),
        ] {
            assert_eq!(Checkpoint::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_gives_back_every_note() {
        let signer = NoteSigner::new("tollgate.00/audit", &[7; 32]);
        let signed: Vec<String> = [1, 5, 9].map(|size| checkpoint(size).sign(&signer)).to_vec();
        let file: String = signed.iter().map(|note| entry(note)).collect();
        assert_eq!(notes(&file).collect::<Vec<_>>(), signed);
        let torn: Vec<String> = notes(&file[..file.len() - 30]).collect();
        assert_eq!((torn.len(), &torn[..2]), (3, &signed[..2]), "a torn note is still there to be refused");
        assert_eq!(Checkpoint::open(&torn[2], &[signer.verifier()]), None);
        assert_eq!(notes("").count(), 0);
    }
}
