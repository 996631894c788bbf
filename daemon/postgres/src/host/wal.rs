//! Reading the log of a data folder with `pg_waldump`, line by line.
//!
//! Its text is the interface: fixed for a major version, and the server's own reading of its log. A line is read by
//! its fixed parts (`rmgr`, `tx`, `lsn`, `desc`, `rel`); what is needed and cannot be read is counted, never guessed.
//!
//! **Invariant:** memory does not grow with the length of the log.

use std::collections::BTreeMap;

use lifeboat_core::{Fault, FaultKind, Lsn, Timeline};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::host::config::Server;
use crate::host::control::Control;
use crate::host::{Host, program};

/// The most bytes a record may take as text: a commit names all its subtransactions.
const LONGEST_LINE: u64 = 64 << 20;

/// Where a relation is: tablespace, database, file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Relation {
    pub(super) tablespace: u32,
    pub(super) database: u32,
    pub(super) file: u32,
}

/// One record of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) manager: &'a str,
    /// Bytes of the whole record, without headers of pages.
    pub(super) length: u64,
    pub(super) transaction: u32,
    pub(super) lsn: Lsn,
    pub(super) description: &'a str,
    /// The relations whose blocks it changes.
    pub(super) relations: Vec<Relation>,
}

impl<'a> Entry<'a> {
    /// Reads a line; none when it is not a record as it is known.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let rest = line.strip_prefix("rmgr:")?;
        let (manager, rest) = rest.split_once("len (rec/tot):")?;
        let (lengths, rest) = rest.split_once(", tx:")?;
        let (transaction, rest) = rest.split_once(", lsn:")?;
        let (lsn, rest) = rest.split_once(", prev ")?;
        let (_, rest) = rest.split_once(", desc:")?;
        let (description, blocks) = match rest.find(", blkref #") {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let relations = blocks.split(", blkref #").skip(1).map(block).collect::<Option<Vec<_>>>()?;
        Some(Self {
            manager: manager.trim(),
            length: lengths.split_once('/')?.1.trim().parse().ok()?,
            transaction: transaction.trim().parse().ok()?,
            lsn: Lsn::parse(lsn.trim())?,
            description: description.trim(),
            relations,
        })
    }

    /// The transactions that this record commits: itself, or a prepared one, and their subtransactions. None when it
    /// commits nothing; `Some(Err)` when it commits and cannot be read.
    pub(super) fn commits(&self) -> Option<Result<Vec<u32>, ()>> {
        if self.manager != "Transaction" {
            return None;
        }
        let (first, rest) = if let Some(rest) = self.description.strip_prefix("COMMIT_PREPARED ") {
            (rest.split_once(':').and_then(|(id, _)| id.trim().parse().ok()), rest)
        } else if let Some(rest) = self.description.strip_prefix("COMMIT ") {
            (Some(self.transaction), rest)
        } else {
            return None;
        };
        let subs = rest.split(';').map(str::trim).find_map(|part| part.strip_prefix("subxacts: "));
        let subs = subs.unwrap_or_default().split_whitespace().map(|id| id.parse().ok());
        Some(std::iter::once(first).chain(subs).collect::<Option<Vec<u32>>>().ok_or(()))
    }
}

/// `0: rel 1663/5/16384 blk 0 FPW`, or with a fork: `0: rel 1663/5/16384 fork vm blk 0`.
fn block(text: &str) -> Option<Relation> {
    let (_, rest) = text.split_once("rel ")?;
    let mut parts = rest.split(' ').next()?.trim_end_matches([',', ';']).split('/').map(str::parse::<u32>);
    let mut next = || parts.next()?.ok();
    Some(Relation { tablespace: next()?, database: next()?, file: next()? })
}

/// Where a record ends that begins at `lsn`: its bytes, and the headers of the pages that it goes on over.
fn end_of(entry: &Entry<'_>, control: &Control) -> Lsn {
    // Sizes of the long header of a file's first page, and of the short one of every other.
    const LONG: u64 = 40;
    const SHORT: u64 = 24;
    let (mut at, mut left) = (entry.lsn.get(), entry.length);
    if entry.manager == "XLOG" && entry.description.starts_with("SWITCH") {
        // The rest of the file is unused.
        return Lsn::new((at / control.segment + 1) * control.segment);
    }
    loop {
        let room = control.page - at % control.page;
        if left <= room {
            return Lsn::new((at + left).next_multiple_of(8));
        }
        left -= room;
        at += room;
        at += if at % control.segment == 0 { LONG } else { SHORT };
    }
}

/// The name of the file that holds a byte of the log.
pub(super) fn file_of(timeline: Timeline, lsn: Lsn, segment: u64) -> String {
    let (number, per_id) = (lsn.get() / segment, (1 << 32) / segment);
    format!("{:08X}{:08X}{:08X}", timeline.get(), number / per_id, number % per_id)
}

/// Reads the records from `start` on, up to `end` when there is one; how it ended, for people.
///
/// Lines that are no record are counted by `None`.
pub(super) async fn read(
    server: &Server,
    timeline: Timeline,
    (start, end): (Lsn, Option<Lsn>),
    mut each: impl FnMut(Option<Entry<'_>>),
) -> Result<bool, Fault> {
    let mut command = program::command(server.programs.join("pg_waldump"));
    command.arg("-p").arg(server.data.join("pg_wal")).args(["-t", &timeline.to_string()]);
    command.args(["-s", &start.to_string()]);
    if let Some(end) = end {
        command.args(["-e", &end.to_string()]);
    }
    command.stderr(std::process::Stdio::null());
    let mut child = program::start(&mut command)?;
    let unclear =
        |error: std::io::Error| Fault::new(FaultKind::Unclear, format!("pg_waldump cannot be read: {error}"));
    if let Some(out) = child.stdout.take() {
        let mut reader = BufReader::with_capacity(1 << 16, out);
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await.map_err(unclear)? == 0 {
                break;
            }
            let text = std::str::from_utf8(&line).unwrap_or_default().trim_end();
            // What it says when `start` is no beginning of a record.
            if !text.is_empty() && !text.starts_with("first record is after") {
                each(Entry::parse(text));
            }
        }
    }
    Ok(child.wait().await.map_err(unclear)?.success())
}

impl Host<'_> {
    /// Where the log of the stopped server ends; none when it cannot be read.
    pub(super) async fn end_of_log(&self, control: &Control) -> Result<Option<Lsn>, Fault> {
        let from = if control.state.is_clean() { control.checkpoint.min(control.redo) } else { control.redo };
        let mut end = None;
        // It ends with an error by nature: the record after the last one is none.
        read(self.server, control.timeline, (from, None), |entry| {
            end = entry.map(|entry| end_of(&entry, control)).or(end);
        })
        .await?;
        Ok(end)
    }
}

/// Counts by relation.
pub(super) type Counts = BTreeMap<Relation, u64>;

#[cfg(test)]
mod tests {
    use super::*;

    const INSERT: &str = "rmgr: Heap        len (rec/tot):     54/   146, tx:        741, lsn: 0/01512A80, prev 0/01512A48, desc: INSERT off 1 flags 0x00, blkref #0: rel 1663/5/16384 blk 0 FPW";
    const UPDATE: &str = "rmgr: Heap        len (rec/tot):     79/    79, tx:        741, lsn: 0/01512B80, prev 0/01512A48, desc: UPDATE off 1 xmax 741 flags 0x00 ; new off 4 xmax 0, blkref #0: rel 1663/5/16384 blk 1, blkref #1: rel 1663/5/16384 blk 0";
    const COMMIT: &str = "rmgr: Transaction len (rec/tot):     34/    34, tx:        741, lsn: 0/01512C80, prev 0/01512A48, desc: COMMIT 2026-11-21 12:00:00.000000 UTC; subxacts: 742 743; inval msgs: catcache 50";

    #[test]
    fn records_are_read_in_full_or_not_at_all() {
        let insert = Entry::parse(INSERT).unwrap();
        assert_eq!((insert.manager, insert.transaction, insert.length), ("Heap", 741, 146));
        assert_eq!(insert.relations, [Relation { tablespace: 1663, database: 5, file: 16384 }]);
        assert_eq!(Entry::parse(UPDATE).unwrap().relations.len(), 2);
        assert_eq!(insert.commits(), None);
        assert_eq!(Entry::parse(COMMIT).unwrap().commits(), Some(Ok(vec![741, 742, 743])));
        let prepared = COMMIT.replace("COMMIT 2026", "COMMIT_PREPARED 740: 2026");
        assert_eq!(Entry::parse(&prepared).unwrap().commits(), Some(Ok(vec![740, 742, 743])));
        let torn = COMMIT.replace("742 743", "742 x");
        assert_eq!(Entry::parse(&torn).unwrap().commits(), Some(Err(())));
        assert!(Entry::parse(&INSERT[..60]).is_none());
        assert!(Entry::parse(&INSERT.replace("16384", "x")).is_none());
    }

    #[test]
    fn files_of_the_log_are_named_as_postgresql_does() {
        let lsn = Lsn::parse("1/02000000").unwrap();
        assert_eq!(file_of(Timeline::new(3), lsn, 16 << 20), "000000030000000100000002");
        assert_eq!(file_of(Timeline::new(3), lsn, 1 << 20), "000000030000000100000020");
    }
}
