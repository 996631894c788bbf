//! What the one who holds a workload's writes must know of the record: who may hold them, under which epoch.

use serde::{Deserialize, Serialize};

use crate::names::{Epoch, RegionName};

/// The newest state of one workload, as far as its sentries need it. It is changed in the same transaction as the records
/// that changed it, and a write lease is renewed only if it has not changed since it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The workload's epoch.
    pub epoch: Epoch,
    /// The region whose database may take writes.
    pub holder: RegionName,
    /// Whether that region is being fenced: its lease is not renewed any more, and its sentry stops the database.
    pub closing: bool,
    /// The region whose database is being made the primary, and will hold the lease next: a primary there that has no lease
    /// yet is as it should be, and its sentry leaves it alone.
    pub coming: Option<RegionName>,
    /// The region whose database a run has closed over sessions, and is moving away from or making a standby: what its server
    /// is now is the run's business, and its sentry neither stops it nor expects it to follow.
    pub tended: Option<RegionName>,
}

/// What a sentry says of the database beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarded {
    /// It takes writes, under the lease.
    Writing,
    /// It follows another server.
    Following,
    /// It does not run; the sentry has stopped it, or found it stopped.
    Stopped,
}
