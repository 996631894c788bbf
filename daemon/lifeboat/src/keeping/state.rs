//! What runs say of themselves in the state folder, and what is shown of it.

use std::path::Path;
use std::time::Duration;

use lifeboat_core::time::length;
use lifeboat_core::{DatabaseName, Lsn, Moment, RegionName, WorkloadName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A backup that ended, as `lifeboat backup run` writes it.
#[derive(Debug, Deserialize)]
pub(super) struct Finished {
    pub(super) begun: Moment,
    pub(super) ended: Option<Moment>,
    pub(super) done: Option<Done>,
    pub(super) failed: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Done {
    pub(super) backup: Option<String>,
}

/// How far a receiver is, as `lifeboat wal receive` writes it.
#[derive(Debug, Deserialize)]
pub(super) struct Receiving {
    at: Moment,
    received: Option<Received>,
    rpo_held_ms: Option<u64>,
    pub(super) held_back: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Received {
    durable: Lsn,
    #[serde(default)]
    left_out: Vec<(Lsn, Lsn)>,
}

impl Receiving {
    pub(super) fn holes(&self) -> usize {
        self.received.as_ref().map_or(0, |received| received.left_out.len())
    }

    pub(super) fn durable(&self) -> Option<String> {
        self.received.as_ref().map(|received| received.durable.to_string())
    }

    /// What would be lost now: what it was when it was said, and the time since.
    pub(super) fn rpo_held(&self, now: Moment) -> Option<Duration> {
        Some(Duration::from_millis(self.rpo_held_ms?) + now.since(self.at))
    }
}

/// Reads what a run wrote; none when it wrote nothing yet.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// How the backups of a database to an archive are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackupStatus {
    /// Whose.
    pub(crate) workload: WorkloadName,
    /// Which.
    pub(crate) database: DatabaseName,
    /// Where to.
    pub(crate) archive: String,
    /// The newest good one that this agent made.
    pub(crate) backup: Option<String>,
    /// When it ended.
    pub(crate) ended: Option<Moment>,
    /// When the next one is due, or since when it is.
    pub(crate) next: Option<Moment>,
    /// Whether one is being made.
    pub(crate) under_way: bool,
    /// Whether it is due for too long.
    pub(crate) overdue: bool,
    /// Why the last one failed, if it did.
    pub(crate) failed: Option<String>,
    /// The region whose log is received here.
    pub(crate) receiving: Option<RegionName>,
    /// Up to where the log is durable in the archive.
    pub(crate) received: Option<String>,
    /// What would be lost if the primary was lost now.
    pub(crate) rpo_held_ms: Option<u64>,
    /// What the slot holds back at the server, in bytes.
    pub(crate) held_back: Option<u64>,
    /// How many holes the receiver had to leave.
    pub(crate) holes: usize,
}

impl BackupStatus {
    /// One line for people.
    pub(crate) fn line(&self, now: Moment) -> String {
        let newest = match (&self.backup, self.ended) {
            (Some(backup), Some(ended)) => format!("newest {backup}, {} ago", length(now.since(ended))),
            _ => "no backup of this agent yet".to_owned(),
        };
        let state = match (self.under_way, self.overdue, &self.failed) {
            (true, ..) => ", one under way",
            (false, true, _) => ", overdue",
            (false, false, Some(_)) => ", the last one failed",
            (false, false, None) => "",
        };
        let log = match (&self.receiving, self.rpo_held_ms) {
            (Some(region), Some(held)) => {
                format!("; log from {region}, RPO held {}", length(Duration::from_millis(held)))
            }
            (Some(region), None) => format!("; log from {region}, nothing received yet"),
            (None, _) => String::new(),
        };
        let holes = if self.holes > 0 { "; log is missing" } else { "" };
        format!("{}/{} in {}: {newest}{state}{log}{holes}", self.workload, self.database, self.archive)
    }
}
