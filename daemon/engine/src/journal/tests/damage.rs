//! What a damaged file may come to: the records up to somewhere, as they were, or a clear refusal. Never others.

use std::path::{Path, PathBuf};

use lifeboat_core::{Moment, Record, Stamped};

use crate::journal::{Journal, JournalError};

/// Records of a few sizes, in appends of a few sizes, as they lie on disk when the agent is killed: what is not yet
/// taken from the write-ahead file into the journal is still there.
struct Killed {
    folder: tempfile::TempDir,
    records: Vec<Stamped>,
    /// How many records there were after each append.
    appends: Vec<usize>,
}

const FILES: [&str; 2] = ["journal.db", "journal.db-wal"];

impl Killed {
    async fn after_appends() -> Self {
        let life = tempfile::tempdir().expect("a scratch folder");
        let (journal, _) = Journal::open(&life.path().join("journal.db")).expect("a journal");
        let mut appends = vec![0];
        for append in 0..12_usize {
            let records: Vec<Record> = (0..=append % 3)
                .map(|n| Record::AgentStarted {
                    agent: "bastion".into(),
                    version: format!("{append}.{n}{}", "x".repeat(append * 37)),
                })
                .collect();
            appends.push(appends[append] + records.len());
            journal.append(Moment::from_millis(append as u64), records).await.expect("it is written");
        }
        let records = journal.records(0).await.expect("it is read");
        let folder = tempfile::tempdir().expect("a scratch folder");
        for file in FILES {
            std::fs::copy(life.path().join(file), folder.path().join(file)).expect("the file is there");
        }
        Self { folder, records, appends }
    }

    fn bytes(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(file)).expect("the file is there")
    }

    /// What is read from a copy in which one file holds these bytes.
    fn with(&self, file: &str, bytes: &[u8]) -> Result<Vec<Stamped>, JournalError> {
        let place = tempfile::tempdir().expect("a scratch folder");
        for name in FILES {
            let from: PathBuf = self.folder.path().join(name);
            std::fs::copy(from, place.path().join(name)).expect("the file is there");
        }
        std::fs::write(place.path().join(file), bytes).expect("it can be written");
        read(place.path())
    }

    /// Whether these are the records up to the end of one append.
    fn is_beginning(&self, found: &[Stamped]) -> bool {
        self.appends.contains(&found.len()) && found == &self.records[..found.len()]
    }
}

fn read(folder: &Path) -> Result<Vec<Stamped>, JournalError> {
    Journal::open(&folder.join("journal.db")).map(|(_, records)| records)
}

#[tokio::test]
async fn a_torn_end_gives_the_appends_before_it() {
    let killed = Killed::after_appends().await;
    let whole = killed.bytes("journal.db-wal");
    let mut lengths = std::collections::BTreeSet::new();
    for length in (0..=whole.len()).step_by(211).chain([whole.len() - 1, whole.len()]) {
        let found = killed.with("journal.db-wal", &whole[..length]);
        let found = found.unwrap_or_else(|error| panic!("torn at {length}: {error}"));
        assert!(killed.is_beginning(&found), "torn at {length}: {} records", found.len());
        lengths.insert(found.len());
    }
    assert_eq!(lengths.last(), Some(&killed.records.len()), "nothing torn, nothing lost");
    assert!(lengths.len() > 6, "the tears fell between few appends: {lengths:?}");
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_refused_or_cuts_the_end_off() {
    let killed = Killed::after_appends().await;
    let (mut refused, mut cut, mut harmless) = (0, 0, 0);
    for file in FILES {
        let whole = killed.bytes(file);
        for place in (0..whole.len()).step_by(131) {
            let mut spoiled = whole.clone();
            spoiled[place] ^= 0x10;
            match killed.with(file, &spoiled) {
                Err(_) => refused += 1,
                Ok(found) => {
                    assert!(killed.is_beginning(&found), "{file} at {place}: {} other records", found.len());
                    if found.len() < killed.records.len() { cut += 1 } else { harmless += 1 }
                }
            }
        }
    }
    assert!(refused + cut > 50, "refused {refused}, cut {cut}, harmless {harmless}");
}

#[tokio::test]
async fn a_checkpointed_journal_with_a_flipped_bit_is_refused_or_whole() {
    let killed = Killed::after_appends().await;
    // Closed in order: everything is in the one file.
    drop(Journal::open(&killed.folder.path().join("journal.db")).expect("it opens"));
    let whole = killed.bytes("journal.db");
    let mut refused = 0;
    for place in (0..whole.len()).step_by(61) {
        let mut spoiled = whole.clone();
        spoiled[place] ^= 0x10;
        let folder = tempfile::tempdir().expect("a scratch folder");
        std::fs::write(folder.path().join("journal.db"), &spoiled).expect("it can be written");
        match read(folder.path()) {
            Err(_) => refused += 1,
            // In room that holds nothing.
            Ok(found) => assert_eq!(found, killed.records, "byte {place}"),
        }
    }
    assert!(refused > 50, "{refused} refusals");
}
