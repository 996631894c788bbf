//! What the journal keeps, and what it refuses.

mod damage;

use super::*;

fn started(version: &str) -> Record {
    Record::AgentStarted { agent: "bastion".into(), version: version.into() }
}

/// A journal of three records, closed.
async fn written(folder: &Path) -> PathBuf {
    let path = folder.join("journal.db");
    let (journal, before) = Journal::open(&path).unwrap();
    assert!(before.is_empty());
    journal.append(Moment::from_millis(1), vec![started("1"), started("2")]).await.unwrap();
    journal.append(Moment::from_millis(2), vec![started("3")]).await.unwrap();
    path
}

fn spoil(path: &Path, sql: &str) {
    assert_eq!(Connection::open(path).unwrap().execute(sql, []).unwrap(), 1);
}

#[tokio::test]
async fn what_was_appended_is_read_back_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, records) = Journal::open(&written(folder.path()).await).unwrap();
    let versions: Vec<_> = records.iter().map(|r| (r.sequence, r.at.millis(), r.record.clone())).collect();
    assert_eq!(versions, [(1, 1, started("1")), (2, 1, started("2")), (3, 2, started("3"))]);
    assert_eq!(journal.records(2).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_flipped_byte_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path()).await;
    spoil(&path, "UPDATE record SET body = replace(body, 'bastion', 'bastioN') WHERE sequence = 2");
    let error = Journal::open(&path).unwrap_err().to_string();
    assert!(error.starts_with("record 2 of the journal is damaged"), "{error}");
}

#[tokio::test]
async fn a_missing_record_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path()).await;
    spoil(&path, "DELETE FROM record WHERE sequence = 2");
    assert_eq!(
        Journal::open(&path).unwrap_err().to_string(),
        "record 2 of the journal is missing; the next is 3"
    );
}

#[tokio::test]
async fn a_record_of_a_newer_lifeboat_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path()).await;
    let body = serde_json::to_string(&started("3")).unwrap();
    let sum = sum(3, Moment::from_millis(2), VERSION + 1, &body);
    spoil(&path, &format!("UPDATE record SET version = {}, sum = {sum} WHERE sequence = 3", VERSION + 1));
    let error = Journal::open(&path).unwrap_err().to_string();
    assert!(error.contains("record 3") && error.contains("newer"), "{error}");
}

#[tokio::test]
async fn a_second_agent_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path()).await;
    let first = Journal::open(&path).unwrap();
    assert!(matches!(Journal::open(&path), Err(JournalError::Held { .. })));
    assert!(matches!(Journal::look(&path), Err(JournalError::Held { .. })));
    drop(first);
    assert_eq!(Journal::look(&path).unwrap().len(), 3);
}

#[tokio::test]
async fn a_journal_that_was_removed_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path()).await;
    let (journal, _) = Journal::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let gone = journal.append(Moment::from_millis(3), vec![started("4")]).await;
    assert!(matches!(gone, Err(JournalError::Gone { .. })), "{gone:?}");
    std::fs::write(&path, b"another").unwrap();
    let replaced = journal.append(Moment::from_millis(3), vec![started("4")]).await;
    assert!(matches!(replaced, Err(JournalError::Gone { .. })), "{replaced:?}");
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path()).await;
    let (journal, _) = Journal::open(&path).unwrap();
    let pages: u32 = journal.locked().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    journal.locked().pragma_update(None, "max_page_count", pages).unwrap();
    let many = vec![started(&"x".repeat(3_000)); 20];
    assert!(matches!(journal.append(Moment::from_millis(3), many).await, Err(JournalError::Append(_))));
    drop(journal);
    assert_eq!(Journal::open(&path).unwrap().1.len(), 3);
}
