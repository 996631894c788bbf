//! How far a rejoin has come, on disk.
//!
//! **Invariant:** it is written before what it names is begun, and removed only when the server streams.

use lifeboat_core::outcome::RejoinWay;
use lifeboat_core::{Epoch, RunId, SystemIdentifier};
use serde::{Deserialize, Serialize};

/// A rejoin that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) epoch: Epoch,
    pub(super) run: RunId,
    pub(super) system: SystemIdentifier,
    pub(super) stage: Stage,
    /// Why not by a cheaper way.
    pub(super) because: Option<String>,
}

/// What was begun last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// The server is being stopped; the data folder is as it was.
    Stopping,
    /// `pg_rewind` may have changed a part of the data folder: nothing but a copy makes it whole.
    Rewinding,
    /// A copy is being made beside the data folder, which is not to be used again.
    Copying,
    /// The copy is whole, and is taking the place of the data folder.
    Swapping,
    /// The data folder is whole, and says whom to follow.
    Starting(RejoinWay),
}

/// A rejoin that ended, so that a repeat can say how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) run: RunId,
    pub(super) way: RejoinWay,
    pub(super) because: Option<String>,
}
