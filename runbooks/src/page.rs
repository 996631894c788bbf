//! The page as written: prose, then steps.
//!
//! **Invariant:** the grammar is closed. A step does one [`Deed`], with the operands of that deed and no others, and
//! unknown keys are errors.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::with::With;

/// A procedure, by roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runbook {
    /// Its name, as in `lifeboat runbook show failover`.
    pub name: String,
    /// What it is a procedure for.
    pub kind: Kind,
    /// One line that says when it is for.
    pub title: String,
    /// When to use it, what it costs, when not to.
    pub prose: String,
    /// How long a run may take until its point of no return; past that it is undone. None: as long as its steps.
    pub deadline: Option<Duration>,
    /// What is done.
    pub steps: Vec<Step>,
}

/// What a procedure is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The primary region is lost.
    Failover,
    /// A planned move that loses nothing.
    Switchover,
    /// A planned move home.
    Failback,
    /// An old primary comes back and becomes a standby; nothing moves.
    Rejoin,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Failover, Self::Switchover, Self::Failback, Self::Rejoin];

    /// Whether the region that is left is expected to take part.
    pub const fn planned(self) -> bool {
        matches!(self, Self::Switchover | Self::Failback)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Failover => "failover",
            Self::Switchover => "switchover",
            Self::Failback => "failback",
            Self::Rejoin => "rejoin",
        })
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name, unique on the page.
    pub name: String,
    /// What it does, for a person.
    pub title: String,
    /// What it does.
    pub deed: Deed,
    /// To what, for the deeds that leave it to the page.
    pub with: With,
    /// What must have been given by the steps before it.
    pub needs: BTreeSet<Fact>,
    /// What it gives when it succeeded.
    pub gives: BTreeSet<Fact>,
    /// The steps it follows; none: the step (or the parallel group) before it on the page.
    pub after: Option<BTreeSet<String>>,
    /// Steps next to each other with the same group are under way at the same time.
    pub parallel: Option<String>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many attempts are made, 1 or more.
    pub attempts: u32,
    /// How long to wait between two attempts.
    pub pause: Duration,
    /// All of these must hold, or the step is left out of the plan.
    pub when: BTreeSet<When>,
    /// What takes its effect back, when the run is given up before its point of no return.
    pub undo: Option<Undo>,
    /// What a person is asked before it starts.
    pub approve: Option<String>,
    /// From the moment this step starts, the only way is forward.
    pub point_of_no_return: bool,
}

/// What takes a step back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    /// What it does.
    pub deed: Deed,
    /// To what.
    pub with: With,
}

/// What a step can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// Measure how much the target lacks.
    MeasureLoss,
    /// See that the target follows the primary, could take over, and that the names say what they should.
    CheckStandby,
    /// Let the primary write its buffers out, so that what follows is short.
    Drain,
    /// Make the old primary accept no more writes, and prove it.
    Fence,
    /// Take a fence back, and prove that the primary commits.
    Lift,
    /// Wait until the target has replayed everything that the fenced primary ever wrote.
    CatchUp,
    /// Make the target a primary.
    Promote,
    /// Wait until the target commits and its region answers.
    AwaitServing,
    /// Point the workload's names at the target's region.
    SwitchDns,
    /// Ask every name server and a real client.
    Verify,
    /// Keep what only the old primary has.
    Salvage,
    /// Make the old primary a standby of the new one.
    Rejoin,
    /// See that the new standby replays what the primary commits.
    AwaitReplication,
    /// Put the result on record.
    Report,
    /// Run a command on the agent's host.
    Run,
    /// Send a request and expect a status.
    Http,
    /// Ask a database, or change something in it.
    Sql,
    /// Wait.
    Wait,
    /// Tell people.
    Notify,
    /// Ask a person.
    Approve,
}

impl Deed {
    /// Every deed, in the order in which they are documented.
    pub const ALL: [Self; 20] = [
        Self::MeasureLoss,
        Self::CheckStandby,
        Self::Drain,
        Self::Fence,
        Self::Lift,
        Self::CatchUp,
        Self::Promote,
        Self::AwaitServing,
        Self::SwitchDns,
        Self::Verify,
        Self::Salvage,
        Self::Rejoin,
        Self::AwaitReplication,
        Self::Report,
        Self::Run,
        Self::Http,
        Self::Sql,
        Self::Wait,
        Self::Notify,
        Self::Approve,
    ];
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MeasureLoss => "measure-loss",
            Self::CheckStandby => "check-standby",
            Self::Drain => "drain",
            Self::Fence => "fence",
            Self::Lift => "lift",
            Self::CatchUp => "catch-up",
            Self::Promote => "promote",
            Self::AwaitServing => "await-serving",
            Self::SwitchDns => "switch-dns",
            Self::Verify => "verify",
            Self::Salvage => "salvage",
            Self::Rejoin => "rejoin",
            Self::AwaitReplication => "await-replication",
            Self::Report => "report",
            Self::Run => "run",
            Self::Http => "http",
            Self::Sql => "sql",
            Self::Wait => "wait",
            Self::Notify => "notify",
            Self::Approve => "approve",
        })
    }
}

/// What a step can give to those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// The loss is measured.
    Loss,
    /// The target follows, and could take over.
    Ready,
    /// The old primary is proven to take no more writes.
    Fenced,
    /// The target has replayed all that the old primary wrote.
    CaughtUp,
    /// The target is a primary.
    Primary,
    /// The target's region serves.
    Serving,
    /// The names point at the target.
    Names,
    /// Clients were seen there.
    Verified,
    /// What only the old primary had is kept.
    Salvaged,
    /// The old primary is a standby.
    Rejoined,
    /// The standby replays what the primary commits.
    Replicating,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::Ready => "ready",
            Self::Fenced => "fenced",
            Self::CaughtUp => "caught-up",
            Self::Primary => "primary",
            Self::Serving => "serving",
            Self::Names => "names",
            Self::Verified => "verified",
            Self::Salvaged => "salvaged",
            Self::Rejoined => "rejoined",
            Self::Replicating => "replicating",
        })
    }
}

/// A condition of a step; known when the plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// lifeboat opened the run by itself.
    Automatic,
    /// A person ordered it.
    Ordered,
    /// The workload has a canary.
    Canary,
    /// Commands can be run on the database host of the region that is left, or that returns.
    Host,
}

impl Runbook {
    /// For each step the steps it follows, by index. A name that no step has is left out: the check finds it.
    pub fn predecessors(&self) -> Vec<BTreeSet<usize>> {
        let mut all: Vec<BTreeSet<usize>> = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| (before, &self.steps[before]));
            let follows = match (&step.after, before) {
                (Some(names), _) => {
                    let named = self.steps.iter().enumerate().filter(|(_, s)| names.contains(&s.name));
                    named.map(|(place, _)| place).collect()
                }
                (None, None) => BTreeSet::new(),
                (None, Some((before, neighbour)))
                    if step.parallel.is_some() && neighbour.parallel == step.parallel =>
                {
                    all[before].clone()
                }
                (None, Some((before, neighbour))) => match &neighbour.parallel {
                    None => BTreeSet::from([before]),
                    Some(group) => {
                        let members = self.steps[..index].iter().rev();
                        let size = members.take_while(|s| s.parallel.as_ref() == Some(group)).count();
                        (index - size..index).collect()
                    }
                },
            };
            all.push(follows);
        }
        all
    }
}
