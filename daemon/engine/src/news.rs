//! What the tasks that deal with the coordinator tell the loop.
//!
//! **Invariant:** a task tells what it was answered, with the moment before it asked; only the loop acts on it.

use lifeboat_core::testimony::Beat;
use lifeboat_core::{Moment, Stamped};

use crate::ports::{Change, CoordinationError, Tenure};

/// News of what several agents share.
#[derive(Debug)]
pub(crate) enum News {
    /// The watch has seen something.
    Changed(Box<Change>),
    /// The watch broke off; it begins again by itself.
    Unwatched(CoordinationError),
    /// The campaign is over.
    Campaigned {
        /// The moment before it began.
        sent: Moment,
        /// The tenure, when it was won.
        result: Result<Option<Tenure>, CoordinationError>,
    },
    /// The records that this agent had not read when it won.
    Missing {
        /// Under which tenure they were read.
        tenure: Tenure,
        /// They; none when nothing is missing any more.
        records: Vec<Stamped>,
    },
    /// The tenure was renewed.
    Kept {
        /// Which.
        tenure: Tenure,
        /// The sign of life that went with it.
        beat: Beat,
        /// The moment before it was sent.
        sent: Moment,
    },
    /// The tenure cannot be renewed any more.
    Lost {
        /// Which.
        tenure: Tenure,
        /// Why.
        error: CoordinationError,
    },
}
