//! Reasons as sentences: the only place where they become words.

use std::fmt;

use super::Reason;
use crate::time;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllAnswer { .. }
            | Self::NotSeen { .. }
            | Self::ProbeFailing { .. }
            | Self::ProbeSilent { .. }
            | Self::ProbeDown { .. }
            | Self::ProbeInconclusive { .. }
            | Self::NoProbes { .. }
            | Self::ProbeRecovering { .. } => self.write_health(f),
            Self::PrimaryLost { .. }
            | Self::OrderedBy { .. }
            | Self::Asking { .. }
            | Self::StepFailed { .. }
            | Self::PrimaryIsBack { .. }
            | Self::LossUnconfirmed { .. }
            | Self::GivenUp { .. }
            | Self::NotInConfiguration { .. }
            | Self::RegionNotInConfiguration { .. }
            | Self::QuestionLapsed { .. }
            | Self::Recovered { .. }
            | Self::UnprovenWaived { .. }
            | Self::StepUnbound { .. }
            | Self::Moved { .. }
            | Self::Readmitted { .. }
            | Self::KeptOut { .. }
            | Self::Returned { .. }
            | Self::Cancelled { .. }
            | Self::DeadlinePassed { .. }
            | Self::Lost { .. }
            | Self::UndoMoot { .. }
            | Self::Told { .. } => self.write_run(f),
            Self::UnknownWorkload { .. }
            | Self::UnknownRegion { .. }
            | Self::UnknownRun { .. }
            | Self::AlreadyThere { .. }
            | Self::PrimaryHealthy { .. }
            | Self::RunEnded { .. }
            | Self::NothingAsked { .. }
            | Self::NotAccepted { .. }
            | Self::WrongAcceptance { .. }
            | Self::NotPausedNow { .. }
            | Self::StepUnderWay { .. }
            | Self::TargetIsPrimary { .. }
            | Self::MayBePrimary { .. }
            | Self::StrandedElsewhere { .. }
            | Self::NotFollowing { .. }
            | Self::NotStreaming { .. }
            | Self::Outdated { .. }
            | Self::HeldDown { .. }
            | Self::PrimaryNotHealthy { .. }
            | Self::NoHost { .. }
            | Self::PastReturn { .. }
            | Self::NotSkippable { .. }
            | Self::AlreadyApproved { .. }
            | Self::FollowsAlready { .. }
            | Self::PauseInThePast { .. }
            | Self::NobodyDecides { .. }
            | Self::OrderUnclear { .. } => self.write_refusal(f),
            Self::Decides { .. }
            | Self::NotDeciding { .. }
            | Self::QuorumOutside { .. }
            | Self::VantageUnheard { .. }
            | Self::VantageLate { .. }
            | Self::VantageUnproven { .. }
            | Self::CoordinationLost { .. }
            | Self::LostWhileCut { .. }
            | Self::StoppedBySentry { .. } => self.write_council(f),
            _ => self.write_condition(f),
        }
    }
}

impl Reason {
    fn write_health(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllAnswer { region, probes: 1 } => write!(f, "the one probe of {region} is answered"),
            Self::AllAnswer { region, probes } => write!(f, "all {probes} probes of {region} are answered"),
            Self::NoProbes { region } => write!(f, "no probe that counts looks at {region}"),
            Self::NotSeen { region, probe } => write!(f, "{probe} has no fresh sighting of {region}"),
            Self::ProbeFailing { region, probe, failures, needed, last } => {
                write!(
                    f,
                    "{probe} failed {failures} of the {needed} times that would make {region} lost ({last})"
                )
            }
            Self::ProbeSilent { region, probe, silent, needed, last } => write!(
                f,
                "{probe} has heard nothing from {region} for {} of the {} that would make it lost ({last})",
                time::length(*silent),
                time::length(*needed)
            ),
            Self::ProbeDown { region, probe, failures, last } => {
                write!(f, "{probe} of {region} is down after {failures} failures ({last})")
            }
            Self::ProbeInconclusive { region, probe, last } => {
                write!(f, "{probe} of {region} fails in a way that does not prove a loss ({last})")
            }
            Self::ProbeRecovering { region, probe, answers, needed } => {
                write!(f, "{probe} of {region} was down and answers again, {answers} of {needed} times")
            }
            _ => Ok(()),
        }
    }

    fn write_condition(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrimaryVerdict { region, verdict, because } => {
                write!(f, "the primary region {region} is {verdict}: {because}")
            }
            Self::Quorum { region, lost, needed } => {
                write!(
                    f,
                    "{lost} vantages see {region} as lost and prove their own connectivity; {needed} needed"
                )
            }
            Self::Connectivity { vantage, answered, witnesses, needed, age } => {
                write!(f, "{answered} of {witnesses} witnesses answered {vantage}; {needed} needed")?;
                age.map_or(Ok(()), |age| write!(f, " ({} ago)", time::length(age)))
            }
            Self::ConnectivityUnconfirmed { vantage, since } => write!(
                f,
                "{vantage} has not yet looked again since it last proved its connectivity (the trouble began at {since})"
            ),
            Self::Automatic => f.write_str("the workload's mode is automatic"),
            Self::Supervised => f.write_str("the workload is supervised: a run measures, then asks a person"),
            Self::NotPaused => f.write_str("automatic action is not paused"),
            Self::MaintenanceUntil { until } => {
                write!(f, "a maintenance window is open until {until}: nothing is done by itself")
            }
            Self::PausedUntil { until, by, why } => write!(f, "paused until {until} by {by}: {why}"),
            Self::NoRunOpen => f.write_str("no run is open"),
            Self::RunOpen { run } => write!(f, "run {run} is open"),
            Self::TargetAnswers { region } => write!(f, "the standby region {region} answers"),
            Self::TargetDown { region, because } => {
                write!(f, "the standby region {region} cannot take over: {because}")
            }
            Self::NoTarget => f.write_str("no standby region can take over"),
            Self::IdentityKnown { database, system } => write!(f, "{database} belongs to cluster {system}"),
            Self::IdentityUnknown { database } => write!(
                f,
                "this agent has never seen the primary of {database}, so it cannot tell its standby from a stranger"
            ),
            Self::WrongCluster { database, region, found, wanted } => {
                write!(f, "{database} in {region} belongs to cluster {found}, not {wanted}")
            }
            Self::NewerEpoch { region, found, known } => write!(
                f,
                "{region} holds a heartbeat of epoch {found}, this agent's record knows {known}: another agent, or another record, is in charge"
            ),
            Self::TwoPrimaries { database, region } => {
                write!(f, "{database} in {region} is a primary too, though the workload does not live there")
            }
            Self::NoDatabases => f.write_str("the workload has no databases to confuse"),
            Self::NothingFruitless => f.write_str("no run came to nothing lately"),
            Self::CooledDown => f.write_str("no failover ended within the cooldown"),
            Self::Cooling { left } => {
                write!(f, "cooling down after the last failover for another {}", time::length(*left))
            }
            Self::BudgetLeft { used, budget } => write!(f, "{used} of {budget} automatic failovers used"),
            Self::BudgetSpent { used, budget, window } => {
                write!(
                    f,
                    "{used} automatic failovers within {}; the budget is {budget}",
                    time::length(*window)
                )
            }
            Self::HeldOff { left } => {
                write!(
                    f,
                    "the last run ended without moving anything; trying again in {}",
                    time::length(*left)
                )
            }
            _ => Ok(()),
        }
    }

    fn write_run(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrimaryLost { region, because } => {
                write!(f, "the primary region {region} is lost: {because}")
            }
            Self::OrderedBy { person } => write!(f, "ordered by {person}"),
            Self::Asking { question, run } => {
                write!(f, "a person must decide: {question}. To accept: {}", question.command(run))
            }
            Self::StepFailed { step, attempts: 1, fault } => write!(f, "{step} failed ({fault})"),
            Self::StepFailed { step, attempts, fault } => {
                write!(f, "{step} failed {attempts} times ({fault})")
            }
            Self::PrimaryIsBack { region } => {
                write!(f, "the primary region {region} is back, and nothing was promoted")
            }
            Self::LossUnconfirmed { region } => write!(
                f,
                "the loss of the primary region {region} could not be confirmed again, and nothing was promoted"
            ),
            Self::GivenUp { person, why, vouched: None } => write!(f, "{person} gave it up: {why}"),
            Self::GivenUp { person, why, vouched: Some(region) } => {
                write!(f, "{person} gave it up, and says that {region} is no primary: {why}")
            }
            Self::RegionNotInConfiguration { workload, region } => {
                write!(
                    f,
                    "on record {workload} lives in, or moves to or from, {region}, which is none of its regions in the configuration"
                )
            }
            Self::NotInConfiguration { run } => {
                write!(
                    f,
                    "run {run} is open on record, and its workload is not in the configuration any more"
                )
            }
            Self::QuestionLapsed { question } => write!(f, "nobody answered in time: {question}"),
            Self::Recovered { to, loss, took } => {
                write!(f, "the workload is served from {to} after {}", time::length(*took))?;
                loss.as_ref().map_or(Ok(()), |loss| write!(f, "; lost: {loss}"))
            }
            Self::UnprovenWaived { region, person } => {
                write!(f, "{person} accepted that {region} may still be taking writes")
            }
            Self::StepUnbound { step, databases } => {
                write!(f, "step {step} must name one of the workload's databases: {}", list(databases))
            }
            Self::Moved { procedure, to, took } => {
                write!(f, "the workload is served from {to}; the {procedure} took {}", time::length(*took))
            }
            Self::Readmitted { region, took } => {
                write!(f, "{region} follows the primary again, after {}", time::length(*took))
            }
            Self::KeptOut { region } => write!(
                f,
                "{region} is fenced and stays out until a person makes it a standby: no command for its database host is configured"
            ),
            Self::Returned { region, because } => {
                write!(f, "{region} has returned and is not a standby: {because}")
            }
            Self::Cancelled { person, why } => write!(f, "{person} cancelled it: {why}"),
            Self::DeadlinePassed { deadline } => {
                write!(f, "nothing was promoted within {}", time::length(*deadline))
            }
            Self::Lost { manifest } => write!(f, "lost by the promotion: {manifest}"),
            Self::UndoMoot { step, region, fault } => {
                write!(f, "{step} could not be taken back ({fault}), and {region} is lost")
            }
            Self::Told { text } => f.write_str(text),
            _ => Ok(()),
        }
    }

    fn write_refusal(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownWorkload { workload, known } => {
                write!(f, "no workload {workload} here; there is {}", list(known))
            }
            Self::UnknownRegion { workload, region, known } => {
                write!(f, "{workload} has no standby region {region}; it has {}", list(known))
            }
            Self::UnknownRun { run } => write!(f, "no run {run} is open or on record"),
            Self::AlreadyThere { workload, region } => write!(f, "{workload} lives in {region} already"),
            Self::PrimaryHealthy { workload, region } => {
                write!(f, "{workload} is healthy in {region}; a failover would lose writes for nothing")
            }
            Self::RunEnded { run } => write!(f, "run {run} has ended"),
            Self::NothingAsked { run } => write!(f, "run {run} has asked nothing"),
            Self::NotAccepted { run, question } => {
                write!(f, "{question}. To accept: {}", question.command(run))
            }
            Self::WrongAcceptance { run, given, question } => {
                write!(
                    f,
                    "\"{given}\" is not what is asked: {question}. To accept: {}",
                    question.command(run)
                )
            }
            Self::StepUnderWay { run, step } => {
                let step = step.as_ref().map_or("a step", |step| step.as_str());
                write!(
                    f,
                    "run {run} is at {step}; only a run that waits for a person or is stranded can be given up"
                )
            }
            Self::TargetIsPrimary { run, region } => write!(
                f,
                "{region} is a primary: the promotion of run {run} has worked, and giving it up would make two. It can go on: lifeboat failover"
            ),
            Self::MayBePrimary { run, region, since } => write!(
                f,
                "{region} may have become a primary: the promotion of run {run} was begun, and {region} was not seen as a standby in a look that began after {since}. If you have made sure that it is none, and never will be: lifeboat abandon {run} --accept-unfenced \"{region}\""
            ),
            Self::NotPausedNow { workload } => write!(f, "{workload} is not paused"),
            Self::StrandedElsewhere { run, to } => {
                write!(f, "run {run} is stranded on its way to {to}; it can only go on there")
            }
            Self::NotFollowing { region, because } => {
                write!(f, "{region} does not follow the primary yet, so nothing can move there: {because}")
            }
            Self::NotStreaming { database, region } => {
                write!(f, "{database} in {region} does not stream from the primary")
            }
            Self::Outdated { database, region, found, wanted } => write!(
                f,
                "{database} in {region} is on timeline {found}, and the workload's is {wanted}: it has not rejoined since the last move"
            ),
            Self::HeldDown { region, left } => write!(
                f,
                "{region} is held down for another {}: a region that has just come back must prove itself",
                time::length(*left)
            ),
            Self::PrimaryNotHealthy { workload, region, verdict } => write!(
                f,
                "{workload} is {verdict} in {region}; a planned move needs a healthy primary. If it is lost: lifeboat failover"
            ),
            Self::NoHost { region } => {
                write!(
                    f,
                    "no command for the database hosts of {region} is configured (workload.database.host)"
                )
            }
            Self::PastReturn { run } => {
                write!(f, "run {run} is past its point of no return; the only way is forward")
            }
            Self::NotSkippable { run, step, because } => {
                write!(f, "{step} of run {run} cannot be skipped: {because}")
            }
            Self::AlreadyApproved { run, person } => {
                write!(f, "{person} has approved run {run} already; another person must, too")
            }
            Self::FollowsAlready { region } => write!(f, "{region} follows the primary already"),
            Self::PauseInThePast { until, now } => write!(f, "{until} has passed (it is {now})"),
            Self::NobodyDecides { because } => write!(
                f,
                "no agent decides now, and nothing was started: {because}. Give the order again when one does: lifeboat status"
            ),
            Self::OrderUnclear { because } => write!(
                f,
                "it is not known whether the agent that decides took the order ({because}). Look before it is given again: lifeboat history"
            ),
            _ => Ok(()),
        }
    }
}

fn list<T: fmt::Display>(names: &[T]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
