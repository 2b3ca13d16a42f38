//! What the notary signs, what it refuses to sign, and what it finds at its start.

use std::path::Path;

use super::*;
use crate::audit::checkpoint;
use crate::audit::entry::Entry;
use crate::audit::note::NoteVerifier;
use crate::audit::verify::{Flaw, Verified, Verifier};
use crate::store::{AuditRow, Terms};

const SEED: [u8; 32] = [5; 32];

fn open(folder: &Path) -> Store {
    Store::open(folder, Terms::default()).unwrap()
}

async fn record(store: &Store, range: std::ops::RangeInclusive<u64>) {
    let row = |number: u64| {
        let id = format!("aud_{number}");
        let record = format!(r#"{{"id":"{id}"}}"#).into_bytes();
        AuditRow { id, leaf: leaf(&record), record }
    };
    store.commit(Batch { audit: range.map(row).collect(), ..Batch::default() }).await.unwrap();
}

async fn notary(store: &Store, file: &Path) -> Notary {
    Notary::open(store.clone(), &SEED, file.to_owned()).await.unwrap()
}

/// What an outsider finds who has the export, the file and the key.
async fn verified(store: &Store, file: &Path, key: &str) -> Result<Verified, Flaw> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let notes: Vec<String> = checkpoint::notes(&text).collect();
    let key = NoteVerifier::parse(key).unwrap();
    let mut verifier = Verifier::new(notes.iter().map(String::as_str), &[key])?;
    for stored in store.audit_after(0, usize::MAX).await.unwrap() {
        verifier.line(&Entry::from(stored).line().unwrap())?;
    }
    verifier.finish()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

#[tokio::test]
async fn every_record_is_signed_and_no_checkpoint_adds_more_than_256() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoints");
    let store = open(&folder.path().join("data"));
    let mut signing = notary(&store, &file).await;
    let (trigger, drain) = Drain::channel();
    let asked = signing.notarized();
    record(&store, 1..=600).await;
    signing.sign().await;
    let sizes: Vec<String> =
        asked.standing.borrow().notes.iter().map(|note| note.lines().nth(1).unwrap().to_owned()).collect();
    assert_eq!(sizes, ["256", "512", "600"]);
    record(&store, 601..=601).await;
    trigger.begin();
    signing.run(drain).await;
    let proved = verified(&store, &file, &asked.verifier_key).await.unwrap();
    assert_eq!((proved.records, proved.proved, proved.checkpoints), (601, 601, 4));
    store.close().await;
}

#[tokio::test]
async fn a_new_start_goes_on_with_the_same_tree() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("checkpoints"));
    for round in 0..5 {
        let store = open(&data);
        let mut signing = notary(&store, &file).await;
        assert_eq!(signing.notarized().standing.borrow().refusal, None);
        record(&store, round * 100 + 1..=round * 100 + 100).await;
        signing.sign().await;
        let key = signing.notarized().verifier_key;
        assert_eq!(verified(&store, &file, &key).await.unwrap().proved, round * 100 + 100);
        store.close().await;
    }
}

#[tokio::test]
async fn a_crash_between_store_and_file_leaves_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoints");
    let store = open(&folder.path().join("data"));
    let mut signing = notary(&store, &file).await;
    record(&store, 1..=3).await;
    signing.sign().await;
    let before = std::fs::read(&file).unwrap();
    record(&store, 4..=5).await;
    signing.sign().await;
    std::fs::write(&file, before).unwrap();
    let mut again = notary(&store, &file).await;
    again.sign().await;
    assert_eq!(verified(&store, &file, &again.notarized().verifier_key).await.unwrap().proved, 5);
    store.close().await;
}

/// The gateway is restored from a copy and goes on, as if the records since then had never been.
#[tokio::test]
async fn a_log_that_was_restored_from_a_copy_is_not_signed_on() {
    let folder = tempfile::tempdir().unwrap();
    let (data, old, file) =
        (folder.path().join("data"), folder.path().join("old"), folder.path().join("checkpoints"));
    let store = open(&data);
    let mut signing = notary(&store, &file).await;
    record(&store, 1..=300).await;
    signing.sign().await;
    store.close().await;
    copy(&data, &old);
    let store = open(&data);
    let mut signing = notary(&store, &file).await;
    record(&store, 301..=310).await;
    signing.sign().await;
    store.close().await;

    let restored = open(&old);
    let asked = notary(&restored, &file).await.notarized();
    assert_eq!(asked.standing.borrow().refusal, Some(Refusal::Shorter { size: 300, signed: 310 }));
    record(&restored, 400..=420).await;
    let signed = std::fs::read(&file).unwrap();
    let mut signing = notary(&restored, &file).await;
    signing.sign().await;
    assert_eq!(signing.notarized().standing.borrow().refusal, Some(Refusal::Different(310)));
    assert_eq!(std::fs::read(&file).unwrap(), signed, "no second history was signed");
    restored.close().await;
}

/// The same with the check left out: two histories are signed, and whoever has both checkpoints sees it.
#[tokio::test]
async fn a_notary_that_trusts_the_store_alone_is_caught() {
    let _planted = planted::plant("audit-fork-signed");
    let folder = tempfile::tempdir().unwrap();
    let (data, old, file) =
        (folder.path().join("data"), folder.path().join("old"), folder.path().join("checkpoints"));
    let store = open(&data);
    store.close().await;
    copy(&data, &old);
    for (data, first) in [(&data, 1), (&old, 100)] {
        let store = open(data);
        let mut signing = notary(&store, &file).await;
        record(&store, first..=first + 9).await;
        signing.sign().await;
        store.close().await;
    }
    let store = open(&old);
    let key = notary(&store, &file).await.notarized().verifier_key;
    assert_eq!(verified(&store, &file, &key).await, Err(Flaw::Forked { position: 10 }));
    store.close().await;
}

#[tokio::test]
async fn a_record_that_is_not_what_its_leaf_says_is_not_signed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoints");
    let store = open(&folder.path().join("data"));
    record(&store, 1..=3).await;
    let row = AuditRow { id: "aud_4".into(), leaf: [0; 32], record: b"{}".to_vec() };
    store.commit(Batch { audit: vec![row], ..Batch::default() }).await.unwrap();
    let mut signing = notary(&store, &file).await;
    signing.sign().await;
    assert_eq!(signing.notarized().standing.borrow().refusal, Some(Refusal::Broken(4)));
    store.close().await;
}

#[tokio::test]
async fn a_notary_that_does_not_look_at_the_records_is_caught() {
    let _planted = planted::plant("audit-leaf-unchecked");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoints");
    let store = open(&folder.path().join("data"));
    let row = AuditRow { id: "aud_1".into(), leaf: [0; 32], record: br#"{"id":"aud_1"}"#.to_vec() };
    store.commit(Batch { audit: vec![row], ..Batch::default() }).await.unwrap();
    let mut signing = notary(&store, &file).await;
    signing.sign().await;
    let found = verified(&store, &file, &signing.notarized().verifier_key).await;
    assert_eq!(found, Err(Flaw::Changed { position: 1, id: "aud_1".into() }));
    store.close().await;
}

#[tokio::test]
async fn a_file_of_another_log_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoints");
    for data in ["one", "two"] {
        let store = open(&folder.path().join(data));
        let mut signing = notary(&store, &file).await;
        record(&store, 1..=3).await;
        signing.sign().await;
        let refusal = signing.notarized().standing.borrow().refusal.clone();
        assert_eq!(matches!(refusal, Some(Refusal::OtherLog(_))), data == "two", "{refusal:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_does_not_stop_the_signing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("missing").join("checkpoints");
    let store = open(&folder.path().join("data"));
    let mut signing = notary(&store, &file).await;
    record(&store, 1..=3).await;
    signing.sign().await;
    assert_eq!(signing.notarized().standing.borrow().signed, 3);
    std::fs::create_dir(folder.path().join("missing")).unwrap();
    signing.sign().await;
    assert_eq!(verified(&store, &file, &signing.notarized().verifier_key).await.unwrap().proved, 3);
    store.close().await;
}
