//! Records, outputs and proofs as sentences: the log and `explain` print these.

use std::fmt;

use crate::outcome::{FenceProof, LogPosition, Outcome, Output, RejoinWay};
use crate::record::{Ending, Record};
use crate::time;

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentStarted { agent, version } => write!(f, "agent {agent} started (lifeboat {version})"),
            Self::Elected { agent, version, term } => {
                write!(f, "agent {agent} decides, in term {term} (lifeboat {version})")
            }
            Self::TookOver { run, epoch, .. } => {
                write!(f, "{run}: goes on under another agent, epoch {epoch}")
            }
            Self::VerdictChanged { workload, region, verdict, reason } => {
                write!(f, "{workload}: region {region} is {verdict}: {reason}")
            }
            Self::IdentityLearned { workload, database, system } => {
                write!(f, "{workload}: database {database} belongs to cluster {system}")
            }
            Self::Declined { workload, gate, reason } => {
                write!(f, "{workload}: no failover ({gate}): {reason}")
            }
            Self::RunOpened { run, plan, reason, .. } => {
                write!(
                    f,
                    "{run}: {} from {} to {}, epoch {}: {reason}",
                    plan.runbook, plan.from, plan.to, plan.epoch
                )
            }
            Self::StepStarted { run, step, attempt, undo: true, .. } => {
                write!(f, "{run}: taking {step} back, attempt {attempt}")
            }
            Self::StepEnded { run, step, outcome, undo: true, .. } => match outcome {
                Outcome::Succeeded(output) => write!(f, "{run}: {step} is taken back: {output}"),
                Outcome::Failed(fault) => write!(f, "{run}: {step} could not be taken back: {fault}"),
            },
            Self::StepStarted { run, step, attempt: 1, .. } => write!(f, "{run}: {step} started"),
            Self::StepStarted { run, step, attempt, .. } => {
                write!(f, "{run}: {step} started, attempt {attempt}")
            }
            Self::StepEnded { run, step, outcome: Outcome::Succeeded(output), .. } => {
                write!(f, "{run}: {step} succeeded: {output}")
            }
            Self::StepEnded { run, step, outcome: Outcome::Failed(fault), retry_at, .. } => {
                write!(f, "{run}: {step} failed: {fault}")?;
                if retry_at.is_some() { f.write_str("; trying again") } else { Ok(()) }
            }
            Self::LossMeasured { run, loss, .. } => write!(f, "{run}: a promotion now would lose {loss}"),
            Self::Asked { run, question, expires, .. } => {
                write!(
                    f,
                    "{run}: waits for a person until {expires}: {question}. To accept: {}",
                    question.command(run)
                )
            }
            Self::Approved { run, by, question, remaining: 1.., .. } => {
                write!(f, "{run}: {by} accepted that {question}; another person must, too")
            }
            Self::Unwinding { run, reason, .. } => {
                write!(f, "{run}: given up, what it did is taken back: {reason}")
            }
            Self::StepSkipped { run, step, by, why, .. } => write!(f, "{run}: {by} skipped {step}: {why}"),
            Self::LossCounted { run, manifest, .. } => write!(f, "{run}: lost by the promotion: {manifest}"),
            Self::Approved { run, by, question, .. } => write!(f, "{run}: {by} accepted that {question}"),
            Self::PrimaryMoved { workload, region, epoch } => {
                write!(f, "{workload}: the primary region is {region}, epoch {epoch}")
            }
            Self::Stranded { run, step, reason, .. } => {
                write!(f, "{run}: stranded at {step}, a person must look: {reason}")
            }
            Self::Continued { run, by, .. } => write!(f, "{run}: goes on, ordered by {by}"),
            Self::Reopened { run, step, .. } => write!(f, "{run}: {step} must be done and proven again"),
            Self::RunEnded { run, ending, reason, .. } => write!(f, "{run}: {ending}: {reason}"),
            Self::Paused { workload, by, reason, until } => {
                write!(f, "{workload}: automatic action paused until {until} by {by}: {reason}")
            }
            Self::Resumed { workload, by: Some(by) } => {
                write!(f, "{workload}: automatic action resumed by {by}")
            }
            Self::Resumed { workload, by: None } => write!(f, "{workload}: the pause is over"),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
            Self::Lapsed => "lapsed",
            Self::Undone => "undone",
        })
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Positions { positions } => parts(f, positions, |f, database, target| {
                write!(
                    f,
                    "{database} has received up to {} on timeline {}",
                    target.position.received, target.timeline
                )
            }),
            Self::Fenced { proofs } => {
                parts(f, proofs, |f, database, proof| write!(f, "{database}: {proof}"))
            }
            Self::Promoted { promotions } => parts(f, promotions, |f, database, promotion| {
                let how = if promotion.already { "was already" } else { "is" };
                write!(f, "{database} {how} a primary on timeline {}", promotion.timeline)
            }),
            Self::Serving { first_write } => write!(f, "the first write took {}", time::length(*first_write)),
            Self::Switched { names } => parts(f, names, |f, name, switched| {
                let values: Vec<&str> = switched.values.iter().map(String::as_str).collect();
                let how = if switched.already { "said already" } else { "says" };
                write!(f, "{name} {how} {}", values.join(" "))
            }),
            Self::Verified { censuses, canary } => {
                parts(f, censuses, |f, name, census| {
                    write!(f, "{} servers agree on {name}", census.agree.len())?;
                    let silent: Vec<&str> = census.silent.keys().map(String::as_str).collect();
                    if silent.is_empty() { Ok(()) } else { write!(f, " ({} silent)", silent.join(", ")) }
                })?;
                match canary {
                    Some(visit) => write!(f, "; the canary was served by {}", visit.address),
                    None => f.write_str("; there is no canary"),
                }
            }
            Self::Reported => f.write_str("the report is written"),
            Self::Ready { behind } => {
                write!(f, "a commit of the primary was replayed after {}", time::length(*behind))
            }
            Self::Drained => f.write_str("the primary has written its buffers out"),
            Self::Lifted => f.write_str("the primary accepts writes"),
            Self::CaughtUp { positions } | Self::Replicating { positions } => {
                parts(f, positions, |f, database, position| {
                    write!(f, "{database} has replayed all up to {position}")
                })
            }
            Self::Salvaged { salvages } => parts(f, salvages, |f, database, salvage| match &salvage.folder {
                None => write!(f, "{database} has nothing that the primary lacks"),
                Some(folder) => {
                    write!(f, "{database}: {} rows kept in {folder}", salvage.rows)?;
                    salvage.unread.iter().try_for_each(|what| write!(f, "; not exported: {what}"))
                }
            }),
            Self::Rejoined { rejoins } => parts(f, rejoins, |f, database, rejoined| {
                write!(f, "{database} follows the primary, by {}", rejoined.way)?;
                rejoined.because.as_ref().map_or(Ok(()), |because| write!(f, " ({because})"))
            }),
            Self::Did { said } if said.is_empty() => f.write_str("done"),
            Self::Did { said } => f.write_str(said),
        }
    }
}

impl fmt::Display for FenceProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteRefused { sqlstate, sessions_ended } => {
                write!(
                    f,
                    "a write over a session opened before was refused ({sqlstate}), {sessions_ended} sessions ended"
                )
            }
            Self::Isolated { command, session } => {
                write!(f, "isolated by {}; the session opened before {session}", command.join(" "))
            }
            Self::Closed { sqlstate, sessions_ended, end } => write!(
                f,
                "closed: a write over a session opened before was refused ({sqlstate}), {sessions_ended} sessions ended, its log ends at {end}"
            ),
            Self::Stopped => f.write_str("the server is stopped"),
            Self::Expired { lease, waited } => write!(
                f,
                "its write lease of {} ran out {} after it could last be renewed; the sentry beside it has stopped the database by then",
                time::length(*lease),
                time::length(*waited)
            ),
            Self::CutOff { standby, end } => write!(
                f,
                "{standby}, without whose word it acknowledged nothing when it was last seen, has stopped receiving from it at {end}"
            ),
        }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of timeline {}", self.lsn, self.timeline)
    }
}

impl fmt::Display for RejoinWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Follow => "following cleanly",
            Self::Rewind => "pg_rewind",
            Self::Rebuild => "a fresh copy",
        })
    }
}

fn parts<K, V>(
    f: &mut fmt::Formatter<'_>,
    items: &std::collections::BTreeMap<K, V>,
    part: impl Fn(&mut fmt::Formatter<'_>, &K, &V) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return f.write_str("nothing to do");
    }
    for (n, (key, value)) in items.iter().enumerate() {
        if n > 0 {
            f.write_str("; ")?;
        }
        part(f, key, value)?;
    }
    Ok(())
}
