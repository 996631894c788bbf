//! What the log says from where it parted: which transactions committed, and what they touched.
//!
//! A transaction that commits after the parting may have written before it. The relations are therefore read from an
//! earlier place: one where a record of the running transactions says that none of these had begun.
//!
//! **Invariant:** a commit that cannot be read is counted and said.

use std::collections::BTreeSet;

use lifeboat_core::{Fault, Lsn, Timeline};

use crate::host::config::Server;
use crate::host::control::Control;
use crate::host::wal::{self, Counts, Entry, Relation};

/// The most transactions that rows are looked for by.
const MOST: usize = 5_000_000;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Parted {
    /// The transactions that committed in the range, with their subtransactions.
    pub(super) committed: BTreeSet<u32>,
    /// Records of rows that they inserted, changed or deleted.
    pub(super) touched: Counts,
    /// Rows that they deleted.
    pub(super) deleted: Counts,
    /// Files of relations that were removed by them: dropped, truncated or rewritten tables.
    removed_files: BTreeSet<String>,
    unreadable: u64,
    too_many: bool,
    /// Whether the log goes back far enough for all that they touched.
    reaches_back: bool,
    whole: bool,
}

impl Parted {
    /// Reads the range, in two passes: commits, and then what was touched.
    pub(super) async fn read(
        server: &Server,
        control: &Control,
        timeline: Timeline,
        (from, to): (Lsn, Lsn),
    ) -> Result<Self, Fault> {
        let mut parted = Self::default();
        parted.whole = wal::read(server, timeline, (from, Some(to)), |entry| parted.commit(entry)).await?;
        let mut back = 1;
        loop {
            let first =
                Lsn::new((from.get() / control.segment).saturating_sub(back).max(1) * control.segment);
            let name = wal::file_of(timeline, first, control.segment);
            let there = server.data.join("pg_wal").join(name).exists();
            let start = if there { first } else { from };
            parted.touched.clear();
            parted.deleted.clear();
            let mut began_after = parted.committed.is_empty();
            let oldest = parted.committed.first().copied().unwrap_or_default();
            wal::read(server, timeline, (start, Some(to)), |entry| {
                if let Some(entry) = entry {
                    began_after |=
                        entry.lsn <= from && next_transaction(&entry).is_some_and(|next| next <= oldest);
                    parted.touch(&entry);
                }
            })
            .await?;
            parted.reaches_back = began_after;
            if began_after || !there || first.get() <= control.segment {
                return Ok(parted);
            }
            back *= 4;
        }
    }

    fn commit(&mut self, entry: Option<Entry<'_>>) {
        let Some(entry) = entry else {
            self.unreadable += 1;
            return;
        };
        match entry.commits() {
            None => {}
            Some(Err(())) => self.unreadable += 1,
            // A commit without a transaction of its own changes no row.
            Some(Ok(ids)) if self.committed.len() + ids.len() <= MOST => {
                self.committed.extend(ids.into_iter().filter(|&id| id != 0));
                let parts = entry.description.split(';').map(str::trim);
                let files = parts.filter_map(|part| part.strip_prefix("rels: "));
                let files = files.flat_map(str::split_whitespace).map(str::to_owned);
                self.removed_files.extend(files.take(1000));
            }
            Some(Ok(_)) => self.too_many = true,
        }
    }

    fn touch(&mut self, entry: &Entry<'_>) {
        if !self.committed.contains(&entry.transaction) {
            return;
        }
        let act = entry.description.split([' ', '+']).next().unwrap_or_default();
        let changes = match entry.manager {
            "Heap" => matches!(act, "INSERT" | "UPDATE" | "HOT_UPDATE" | "DELETE" | "TRUNCATE"),
            "Heap2" => act == "MULTI_INSERT",
            _ => false,
        };
        let relations: BTreeSet<Relation> = entry.relations.iter().copied().collect();
        for relation in relations.into_iter().filter(|_| changes) {
            *self.touched.entry(relation).or_default() += 1;
            if act == "DELETE" {
                *self.deleted.entry(relation).or_default() += 1;
            }
        }
    }

    /// What could not be read of the log, in sentences.
    pub(super) fn unread(&self) -> Vec<String> {
        let mut unread = Vec::new();
        if !self.whole {
            unread.push(
                "the log could not be read to its end: rows of later transactions may be missing".to_owned(),
            );
        }
        if self.unreadable > 0 {
            unread.push(format!("{} records of the log could not be read", self.unreadable));
        }
        if self.too_many {
            unread.push(format!("more than {MOST} transactions committed: only the first are looked for"));
        }
        if !self.reaches_back {
            let what = "the log does not go back to before the first of them began: tables that they touched only then \
                        may be missing";
            unread.push(what.to_owned());
        }
        if !self.removed_files.is_empty() {
            let files: Vec<&str> = self.removed_files.iter().take(20).map(String::as_str).collect();
            unread.push(format!(
                "{} files of tables or indexes were dropped, truncated or rewritten; what was in them is gone: {}",
                self.removed_files.len(),
                files.join(", ")
            ));
        }
        unread
    }
}

/// The next transaction's number, in a record of the running ones.
fn next_transaction(entry: &Entry<'_>) -> Option<u32> {
    if entry.manager != "Standby" {
        return None;
    }
    entry.description.strip_prefix("RUNNING_XACTS nextXid ")?.split(' ').next()?.parse().ok()
}
