//! A scenario: what is broken when, and what must come of it. A plain value, for the pretend world and for the real lab.
//!
//! **Invariant:** nothing here knows a simulator or a lab: faults are things that both can do (kill, stop, cut a path,
//! hold a log back, break a promotion), at times after the beginning.
//! **Invariant:** a file that cannot be understood is refused with the line; no key is ignored.

mod part;
mod shipped;
mod written;

use std::collections::BTreeSet;
use std::time::Duration;

pub use part::{Part, Site};
use serde::Deserialize;
pub use shipped::{find, shipped};
pub use written::{Flaw, parse};

/// One scenario.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, which is also its file's.
    pub name: String,
    /// One sentence for `chaos list`.
    pub about: String,
    /// What the world is like before.
    #[serde(default)]
    pub setup: Setup,
    /// What happens, in the order of time.
    #[serde(default, rename = "at")]
    pub happenings: Vec<Happening>,
    /// What must come of it.
    pub expect: Expect,
    /// How it is run with real processes.
    #[serde(default)]
    pub real: Real,
}

/// What the world is like before anything happens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Setup {
    /// Whether the primary acknowledges nothing without the standby's word.
    pub sync: bool,
    /// Whether a sentry sits beside each database.
    pub sentries: bool,
    /// How much may be lost.
    #[serde(with = "written::length")]
    pub rpo: Duration,
    /// How long the standby's log is behind the primary's, all the time.
    #[serde(with = "written::length")]
    pub lag: Duration,
    /// How long nothing must be heard of a region until it counts as lost.
    #[serde(with = "written::length")]
    pub silence: Duration,
    /// How long a write lease lasts.
    #[serde(with = "written::length")]
    pub lease: Duration,
    /// Whether lifeboat acts by itself; otherwise it asks.
    pub automatic: bool,
    /// How long the scenario is watched after the last thing has happened.
    #[serde(with = "written::length")]
    pub watch: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            sync: false,
            sentries: true,
            rpo: Duration::from_secs(60),
            lag: Duration::ZERO,
            silence: Duration::from_secs(6),
            lease: Duration::from_secs(8),
            automatic: true,
            watch: Duration::from_secs(90),
        }
    }
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Happening {
    /// When, after the beginning.
    #[serde(rename = "t", with = "written::length")]
    pub at: Duration,
    /// For how long; for good when it is not said.
    #[serde(default, rename = "for", with = "written::length_option")]
    pub lasts: Option<Duration>,
    /// Again after each of these.
    #[serde(default, with = "written::length_option")]
    pub every: Option<Duration>,
    /// How often in all; 1 when it is not said.
    #[serde(default)]
    pub times: Option<u32>,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
}

impl Happening {
    /// Each time at which it begins, with the time at which it ends.
    pub fn occasions(&self) -> impl Iterator<Item = (Duration, Option<Duration>)> {
        let every = self.every.unwrap_or_default();
        (0..self.times.unwrap_or(1)).map(move |n| {
            let begins = self.at + every * n;
            (begins, self.lasts.map(|lasts| begins + lasts))
        })
    }
}

/// What can be broken. Each ends by itself when the happening says for how long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Fault {
    /// Its processes are killed (SIGKILL); when it ends, they are started again.
    Kill {
        /// What.
        what: Part,
    },
    /// Its processes stop where they are (SIGSTOP); when it ends, they go on.
    Freeze {
        /// What.
        what: Part,
    },
    /// Nothing passes from one place to another; the other way is another fault.
    Cut {
        /// From here.
        from: Site,
        /// To there.
        to: Site,
    },
    /// Nothing passes between two places, either way.
    Part {
        /// Here.
        between: Site,
        /// There.
        and: Site,
    },
    /// Nothing passes from or to a place, the rest of the world included. Inside, all is well.
    Isolate {
        /// Which.
        site: Site,
    },
    /// So many of a hundred messages between places are lost.
    Lose {
        /// How many.
        percent: u8,
    },
    /// The standby receives no log, though everything else works.
    StopReplication {},
    /// The standby is this far behind.
    Lag {
        /// How far.
        #[serde(with = "written::length")]
        by: Duration,
    },
    /// Commits hang; connections and reads work.
    HangWrites {
        /// Where.
        site: Site,
    },
    /// A standby that is told to become a primary fails.
    FailPromotion {
        /// Where.
        site: Site,
    },
    /// The name server takes no changes.
    FailNames {},
    /// A resolver keeps what it knew.
    StaleResolver {},
    /// An agent is restarted with a clock that is wrong by this: `+10m`, `-10m`.
    Clock {
        /// Which.
        agent: Site,
        /// By how much.
        #[serde(with = "written::signed")]
        step: i64,
    },
    /// An agent's clock runs too fast, or too slow when negative, by so many millionths.
    Drift {
        /// Which.
        agent: Site,
        /// By how many.
        millionths: i32,
    },
    /// An agent says that a region is lost, whatever it sees.
    Lie {
        /// Which agent.
        agent: Site,
        /// Which region.
        about: Site,
    },
    /// An agent's disk takes no more writes.
    FailDisk {
        /// Which.
        agent: Site,
    },
    /// A second agent of the same name is started beside the first, and both believe they decide.
    Twin {
        /// Which agent.
        agent: Site,
    },
    /// A person gives an order.
    Order {
        /// What.
        give: Wish,
    },
}

/// What a person may order in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Accept what is asked.
    Approve,
    /// A failover to the other region.
    Failover,
    /// A planned move to the other region.
    Switchover,
    /// Make the region that does not hold the writes a standby.
    Rejoin,
    /// No automatic action for half a minute.
    Pause,
    /// Give the open run up.
    Abandon,
    /// Take the open run back.
    Cancel,
}

/// What must come of it. Two writers never, in every scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Expect {
    /// Where the workload has moved to; it must not move when this is not said.
    pub moved: Option<Site>,
    /// How long after the first happening it is served there and the names say so, at most.
    #[serde(with = "written::length_option")]
    pub within: Option<Duration>,
    /// Kinds of reasons and questions that people must have been told.
    pub told: BTreeSet<String>,
    /// Kinds that they must not have been told.
    pub not_told: BTreeSet<String>,
    /// The most that acknowledged writes may be lost, in time; nothing when it is not said.
    #[serde(with = "written::length")]
    pub loss: Duration,
    /// Whether the run is stranded at the end.
    pub stranded: bool,
    /// Whether the region that is left follows again at the end.
    pub rejoined: bool,
}

/// How a scenario is run with real processes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Real {
    /// All times are multiplied by this, and the probes' with them.
    pub scale: f64,
}

impl Eq for Real {}

impl Default for Real {
    fn default() -> Self {
        Self { scale: 1.0 }
    }
}

#[cfg(test)]
mod tests;
