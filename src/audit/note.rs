//! Signed notes and the keys that sign and check them (C2SP signed-note; Ed25519, RFC 8032). What a note says is not its
//! business.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::domain::operation::hex;

/// The signature type of Ed25519 in key ids and keys.
const ED25519: u8 = 1;
/// Bytes of a key id.
const KEY_ID_BYTES: usize = 4;
/// How a signature line begins: an em dash and a space.
const SIGNATURE: &str = "\u{2014} ";

/// A text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not in the form of a verifier key.
    #[error("a public key of an audit log looks like `NAME+1234abcd+BASE64`")]
    Form,
    /// The id in it is not that of the key.
    #[error("the public key is damaged: its id does not fit")]
    Id,
}

/// The key that signs for a log.
#[derive(Clone)]
pub struct NoteSigner {
    name: String,
    key: SigningKey,
}

/// The key that checks what a log signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteVerifier {
    name: String,
    id: [u8; KEY_ID_BYTES],
    key: VerifyingKey,
}

impl NoteSigner {
    /// The signer of this name; `seed` is the private key of RFC 8032.
    #[must_use]
    pub fn new(name: impl Into<String>, seed: &[u8; 32]) -> Self {
        Self { name: name.into(), key: SigningKey::from_bytes(seed) }
    }

    /// What checks its signatures.
    #[must_use]
    pub fn verifier(&self) -> NoteVerifier {
        let key = self.key.verifying_key();
        NoteVerifier { name: self.name.clone(), id: key_id(&self.name, &key), key }
    }

    /// The note: the text, which must end in a line break, an empty line and the signature.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let id = key_id(&self.name, &self.key.verifying_key());
        let encoded = STANDARD.encode([id.as_slice(), &signature].concat());
        format!("{text}\n{SIGNATURE}{} {encoded}\n", self.name)
    }
}

/// The key is secret.
impl fmt::Debug for NoteSigner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("NoteSigner").field("name", &self.name).finish_non_exhaustive()
    }
}

impl NoteVerifier {
    /// Reads a verifier key, `NAME+ID+BASE64`.
    ///
    /// # Errors
    /// See [`BadKey`].
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(BadKey::Form);
        };
        let bytes = STANDARD.decode(key).map_err(|_| BadKey::Form)?;
        let key = match bytes.split_first() {
            Some((&ED25519, key)) => <[u8; 32]>::try_from(key).map_err(|_| BadKey::Form)?,
            _ => return Err(BadKey::Form),
        };
        let key = VerifyingKey::from_bytes(&key).map_err(|_| BadKey::Form)?;
        let expected = key_id(name, &key);
        if name.is_empty() || hex(&expected) != id {
            return Err(BadKey::Id);
        }
        Ok(Self { name: name.to_owned(), id: expected, key })
    }

    /// The log's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of a note, if this key signed it. Signatures of others, such as witnesses, may stand beside.
    #[must_use]
    pub fn open<'a>(&self, note: &'a str) -> Option<&'a str> {
        let (above, signatures) = note.rsplit_once("\n\n")?;
        let text = note.get(..above.len() + 1)?;
        let mut lines = signatures.strip_suffix('\n')?.split('\n');
        lines.any(|line| self.signed(text, line)).then_some(text)
    }

    fn signed(&self, text: &str, line: &str) -> bool {
        let Some((name, encoded)) = line.strip_prefix(SIGNATURE).and_then(|rest| rest.split_once(' ')) else {
            return false;
        };
        let Ok(bytes) = STANDARD.decode(encoded) else { return false };
        let Some((id, signature)) = bytes.split_first_chunk::<KEY_ID_BYTES>() else { return false };
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        name == self.name && *id == self.id && self.key.verify_strict(text.as_bytes(), &signature).is_ok()
    }
}

/// The key's published form.
impl fmt::Display for NoteVerifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519], self.key.as_bytes().as_slice()].concat());
        write!(out, "{}+{}+{key}", self.name, hex(&self.id))
    }
}

/// The first four bytes of SHA-256 over name, line break, signature type and public key.
fn key_id(name: &str, key: &VerifyingKey) -> [u8; KEY_ID_BYTES] {
    let digest = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', ED25519])
        .chain_update(key.as_bytes())
        .finalize();
    std::array::from_fn(|at| digest.get(at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Go's package `golang.org/x/mod/sumdb/note`, which the format comes from.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_the_reference_implementation_is_taken() {
        let peter = NoteVerifier::parse(PETER).unwrap();
        assert_eq!(peter.to_string(), PETER);
        assert!(peter.open(NOTE).unwrap().ends_with("problem is.\n"));
    }

    #[test]
    fn no_changed_note_is_taken() {
        let peter = NoteVerifier::parse(PETER).unwrap();
        for at in 0..NOTE.len() {
            let mut bytes = NOTE.as_bytes().to_vec();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert_eq!(peter.open(&changed), None, "{at}");
        }
        for end in 0..NOTE.len() {
            assert_eq!(NOTE.get(..end).and_then(|cut| peter.open(cut)), None, "{end}");
        }
    }

    #[test]
    fn what_is_signed_is_taken_by_its_own_key_alone() {
        let signer = NoteSigner::new("tollgate.00/audit", &[7; 32]);
        let note = signer.sign("one\ntwo\n");
        assert_eq!(signer.verifier().open(&note), Some("one\ntwo\n"));
        assert_eq!(NoteVerifier::parse(&signer.verifier().to_string()), Ok(signer.verifier()));
        for other in [NoteSigner::new("tollgate.00/audit", &[8; 32]), NoteSigner::new("else", &[7; 32])] {
            assert_eq!(other.verifier().open(&note), None);
        }
        let witnessed = format!("{note}\u{2014} witness AAAAAA==\n");
        assert_eq!(signer.verifier().open(&witnessed), Some("one\ntwo\n"));
        assert!(!format!("{signer:?}").contains("07"));
    }

    #[test]
    fn a_damaged_key_is_refused() {
        assert_eq!(NoteVerifier::parse("PeterNeumann"), Err(BadKey::Form));
        assert_eq!(NoteVerifier::parse(&PETER.replace("c74f", "c74e")), Err(BadKey::Id));
        assert_eq!(NoteVerifier::parse(&PETER.replace("Peter", "Paula")), Err(BadKey::Id));
        assert_eq!(NoteVerifier::parse(&PETER.replace("ARpc", "Appc")), Err(BadKey::Form));
    }
}
