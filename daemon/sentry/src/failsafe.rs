//! When the coordinator is lost for everybody: the sentry asks each agent directly for some more time.
//!
//! An agent grants it only if it cannot reach the coordinator either and knows of nothing that speaks against it, and
//! promises to count no expiry of that lease meanwhile. When all have, nobody can take the expired lease for a fence, and
//! the primary goes on. An agent that can reach the coordinator could see another one decide; one that is not heard could
//! be it: so one refusal, or one silence, is enough for no. Each also looks whether all agents that it knows itself are asked.
//!
//! The agent speaks first, with a word that it never says twice; the sentry seals its question together with that word, and
//! with one of its own, which the answer bears. So nothing that was said before can be said again by somebody else.
//!
//! **Invariant:** an agent remembers its promise before it answers.
//! **Invariant:** only what bears a known seal, and is meant for this agent and this conversation, is answered.

mod ask;
mod frame;
mod listener;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_core::head::Head;
use lifeboat_core::{AgentName, Epoch, RegionName, WorkloadName};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use ask::{Request, ask};
pub use listener::{Listener, Station};

/// What an agent knows that a grant depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Whether this agent can reach the coordinator. While it does not know yet, it must say yes.
    pub reachable: bool,
    /// The newest head of each workload that it knows.
    pub heads: BTreeMap<WorkloadName, Head>,
}

/// Where an agent keeps what it has promised.
pub trait Promises: Send + Sync {
    /// Counts no expiry of that write lease for `length` from now on; whatever was promised before stays.
    fn promise(&self, workload: &WorkloadName, region: &RegionName, length: Duration);

    /// The length of that write lease as it was last seen renewed; none when it was not seen. A promise is never longer:
    /// an agent that was started again has forgotten it, and waits for as long as the lease says.
    fn length(&self, workload: &WorkloadName, region: &RegionName) -> Option<Duration>;
}

/// Which sentry may ask for what, by the name it signs with.
pub type Sentries = BTreeMap<AgentName, BTreeSet<(WorkloadName, RegionName)>>;

/// Why an agent grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(tag = "refusal", rename_all = "kebab-case")]
pub enum Refusal {
    /// The sentry must ask the coordinator.
    #[error("it can reach the coordinator")]
    Reachable,
    /// It has no record of that workload.
    #[error("it has no record of the workload")]
    Unknown,
    /// That region is being fenced.
    #[error("it has a fence of {region} on record, under epoch {epoch}", epoch = .epoch.get())]
    Closing {
        /// The region.
        region: RegionName,
        /// Under this epoch.
        epoch: Epoch,
    },
    /// Another region may take the writes.
    #[error("it has {holder} on record as the one that may take writes, under epoch {epoch}", epoch = .epoch.get())]
    Elsewhere {
        /// The region.
        holder: RegionName,
        /// Under this epoch.
        epoch: Epoch,
    },
    /// It knows of a newer epoch than the lease's.
    #[error("it knows of epoch {known}, and the lease is of epoch {lease}", known = .known.get(), lease = .lease.get())]
    Newer {
        /// The newest it knows.
        known: Epoch,
        /// The lease's.
        lease: Epoch,
    },
    /// An agent that it knows is not asked, and may decide.
    #[error("{agent} is an agent too, and is not asked: list it in sentry.toml")]
    NotAsked {
        /// The agent.
        agent: AgentName,
    },
    /// More time than it can promise.
    #[error("it promises {most_ms} ms at most")]
    TooLong {
        /// The most, in milliseconds.
        most_ms: u64,
    },
}

/// Whether an agent that knows `outlook` may grant what is asked.
pub(crate) fn judge(
    outlook: &Outlook,
    workload: &WorkloadName,
    region: &RegionName,
    lease: Epoch,
) -> Result<(), Refusal> {
    if outlook.reachable {
        return Err(Refusal::Reachable);
    }
    let head = outlook.heads.get(workload).ok_or(Refusal::Unknown)?;
    let epoch = head.epoch;
    if head.holder != *region {
        return Err(Refusal::Elsewhere { holder: head.holder.clone(), epoch });
    }
    if let Some(coming) = head.coming.as_ref().filter(|coming| *coming != region) {
        return Err(Refusal::Elsewhere { holder: coming.clone(), epoch });
    }
    if head.closing {
        return Err(Refusal::Closing { region: region.clone(), epoch });
    }
    if epoch > lease {
        return Err(Refusal::Newer { known: epoch, lease });
    }
    Ok(())
}

/// What the agent says first.
#[derive(Debug, Serialize, Deserialize)]
struct Challenge {
    word: String,
}

/// What a sentry asks, under its seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Question {
    /// What the agent said first.
    word: String,
    /// What the answer must bear.
    own_word: String,
    /// Who is asked.
    agent: AgentName,
    /// All that are asked.
    asked: BTreeSet<AgentName>,
    workload: WorkloadName,
    region: RegionName,
    epoch: Epoch,
    length_ms: u64,
}

/// What an agent answers, under its seal.
#[derive(Debug, Serialize, Deserialize)]
struct Grant {
    own_word: String,
    workload: WorkloadName,
    region: RegionName,
    refused: Option<Refusal>,
    length_ms: u64,
}

#[cfg(test)]
mod tests;
