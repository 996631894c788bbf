//! The gates of an automatic failover, each with its number: what `explain --why-not` prints.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// One gate, as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which gate.
    pub gate: Gate,
    /// Whether it is open.
    pub holds: bool,
    /// Why, with its numbers.
    pub reason: Reason,
}

/// The gates, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// This agent is the one who decides.
    Decides,
    /// The primary region is lost.
    PrimaryLost,
    /// This agent proves its own connectivity, since the trouble began.
    Connectivity,
    /// Enough vantages agree.
    Quorum,
    /// Automatic action is not paused.
    NotPaused,
    /// No run is open.
    NoRunOpen,
    /// A standby region answers.
    TargetAnswers,
    /// The cluster of each database is known, and the standby belongs to it.
    Identity,
    /// The last failover is long enough ago.
    Cooldown,
    /// There were not too many.
    Budget,
    /// The last run that came to nothing is long enough ago.
    HoldOff,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Decides => "decides",
            Self::PrimaryLost => "primary lost",
            Self::Connectivity => "own connectivity",
            Self::Quorum => "quorum",
            Self::NotPaused => "not paused",
            Self::NoRunOpen => "no run open",
            Self::TargetAnswers => "target answers",
            Self::Identity => "identity",
            Self::Cooldown => "cooldown",
            Self::Budget => "budget",
            Self::HoldOff => "hold-off",
        })
    }
}
