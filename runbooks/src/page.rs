//! The page as written: prose, then steps.
//!
//! **Invariant:** the grammar is closed. A step does one [`Deed`], with the operands of that deed and no others, and
//! unknown keys are errors.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use crate::check::{Flaw, FlawKind};
use crate::with::With;

/// A procedure, by roles.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
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
    #[serde(default, deserialize_with = "maybe_length")]
    pub deadline: Option<Duration>,
    /// What is done.
    #[serde(rename = "step")]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
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

/// A step as it stands on the page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    title: String,
    #[serde(rename = "do")]
    deed: Deed,
    with: Option<toml::Table>,
    #[serde(default)]
    needs: BTreeSet<Fact>,
    #[serde(default)]
    gives: BTreeSet<Fact>,
    after: Option<BTreeSet<String>>,
    parallel: Option<String>,
    #[serde(deserialize_with = "length")]
    timeout: Duration,
    retry: Option<Retry>,
    #[serde(default)]
    when: BTreeSet<When>,
    undo: Option<WrittenUndo>,
    approve: Option<String>,
    #[serde(default)]
    point_of_no_return: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    attempts: u32,
    #[serde(deserialize_with = "length")]
    pause: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUndo {
    #[serde(rename = "do")]
    deed: Deed,
    with: Option<toml::Table>,
}

impl TryFrom<Written> for Step {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let undo = written
            .undo
            .map(|undo| With::of(undo.deed, undo.with).map(|with| Undo { deed: undo.deed, with }));
        let retry = written.retry.unwrap_or(Retry { attempts: 1, pause: Duration::ZERO });
        Ok(Self {
            with: With::of(written.deed, written.with)?,
            undo: undo.transpose()?,
            name: written.name,
            title: written.title,
            deed: written.deed,
            needs: written.needs,
            gives: written.gives,
            after: written.after,
            parallel: written.parallel,
            timeout: written.timeout,
            attempts: retry.attempts,
            pause: retry.pause,
            when: written.when,
            approve: written.approve,
            point_of_no_return: written.point_of_no_return,
        })
    }
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

/// Reads the page, without judging its order.
pub(crate) fn parse(text: &str) -> Result<Runbook, Flaw> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        Flaw { line, kind: FlawKind::Unreadable { problem: error.message().to_owned() } }
    })
}

/// The line, from 1, on which the byte stands.
pub(crate) fn line_of(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|b| *b == b'\n').count() + 1
}

/// `250ms`, `5s` or `2m`.
pub(crate) fn length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| D::Error::custom(format!("{text:?} does not begin with a number")))?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(D::Error::custom(format!("{text:?} needs a unit: \"ms\", \"s\", \"m\" or \"h\""))),
    };
    millis.map(Duration::from_millis).ok_or_else(|| D::Error::custom(format!("{text:?} is too long")))
}

fn maybe_length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    length(deserializer).map(Some)
}
