//! What keeper and switch say to each other: lines of JSON over a socket in the state folder.
//!
//! **Invariant:** each line of the keeper's is answered by one line of the switch's, which bears its number.

use std::time::Duration;

use lifeboat_core::head::Guarded;
use lifeboat_core::time;
use serde::{Deserialize, Serialize};

use crate::boottime::Boottime;
use crate::guard::Deed;
use crate::status::Basis;

/// The longest line, in bytes; what is longer is not ours.
pub(crate) const LONGEST_LINE: usize = 8 << 10;

/// What the keeper says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Word {
    /// Its number, rising.
    pub(crate) number: u64,
    /// What it says.
    pub(crate) say: Say,
}

/// What the keeper says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Say {
    /// Are you there?
    Ping,
    /// The lease is good until then, by a renewal sent then.
    Until {
        /// The deadline.
        deadline: Boottime,
        /// When the renewal was sent.
        sent: Boottime,
        /// What the deadline stands on, for a keeper that comes after this one.
        footing: Footing,
    },
    /// The database must not go on.
    Stop {
        /// Why.
        why: String,
    },
    /// Another one takes your place: go.
    Leave,
}

/// What a deadline stands on. The switch keeps it for the next keeper, and makes nothing of it itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Footing {
    /// What.
    pub(crate) basis: Basis,
    /// For how long it was granted.
    #[serde(with = "time::millis")]
    pub(crate) length: Duration,
}

/// What the switch answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The number of what it answers.
    pub(crate) number: u64,
    /// What it was made for; another one must be replaced.
    pub(crate) mark: String,
    /// Its process.
    pub(crate) process: u32,
    /// Until when the lease is good, as far as it knows.
    pub(crate) deadline: Option<Boottime>,
    /// What the newest deadline stands on, or stood on.
    pub(crate) footing: Option<Footing>,
    /// Whether it wants a renewal sent from now on.
    pub(crate) doubts: bool,
    /// What the server does.
    pub(crate) role: Guarded,
    /// What it has done since the last answer.
    pub(crate) deeds: Vec<Deed>,
}

/// What tells one switch from another: its build, its data folder, its orders.
pub(crate) fn mark(data: &std::path::Path, stop: &[String]) -> String {
    format!("2 {} {} {stop:?}", env!("CARGO_PKG_VERSION"), data.display())
}
