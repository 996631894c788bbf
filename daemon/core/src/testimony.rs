//! What one vantage says of every region it looks at, for the one who decides.
//!
//! A testimony is made of a vantage's own sightings, judged on its own clock, with the proof of its own connectivity. It
//! carries the newest beat of the guardian that the vantage had seen: the guardian knows when it sent that beat, so
//! the age of a testimony is measured on the guardian's clock alone, whatever the vantage's clock says.
//!
//! **Invariant:** nothing in a testimony is a moment of the vantage's clock that the guardian compares with its own.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{AgentName, RegionName, WorkloadName};
use crate::reason::Reason;
use crate::status::Verdict;
use crate::time;

/// A guardian's sign of life: which tenure, and how many came before in it. Later is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Beat {
    /// The tenure; rises with each guardian.
    pub term: u64,
    /// Its number in the tenure, from 1.
    pub count: u64,
}

/// What one vantage says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// Who says it.
    pub vantage: AgentName,
    /// Rises with each testimony of this vantage, over its restarts too; an older one is not taken in after a newer one.
    pub sequence: u64,
    /// The newest beat that the vantage had seen when it made this; none when there was no guardian yet.
    pub echo: Option<Beat>,
    /// Whether its witnesses answer: a vantage that is not well connected should not decide.
    pub connected: bool,
    /// What it says of each region of each workload.
    pub regions: BTreeMap<WorkloadName, BTreeMap<RegionName, Seen>>,
}

/// What a vantage says of one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Whether its own connectivity was proven, for a verdict of lost: after the trouble began and before the look that
    /// last confirmed it.
    pub proven: bool,
    /// How old the oldest look is that the verdict rests on, in milliseconds; none when nothing was seen yet.
    #[serde(with = "time::millis_option")]
    pub age: Option<Duration>,
}
