//! What is said of several agents, as sentences.

use std::fmt;

use super::Reason;
use crate::time;

impl Reason {
    pub(super) fn write_council(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decides { agent } => write!(f, "{agent} decides"),
            Self::NotDeciding { decider: Some(decider) } => {
                write!(f, "this agent stands by; {decider} was the last to decide")
            }
            Self::NotDeciding { decider: None } => {
                f.write_str("this agent stands by, and no agent decides yet")
            }
            Self::QuorumOutside { region, outside, needed } => write!(
                f,
                "{outside} vantages outside {region} see it as lost and prove their own connectivity; {needed} needed"
            ),
            Self::VantageUnheard { vantage } => {
                write!(f, "{vantage} has said nothing since this agent decides, or woke")
            }
            Self::VantageLate { vantage, age, allowed } => write!(
                f,
                "what {vantage} says may be {} old; only {} are allowed",
                time::length(*age),
                time::length(*allowed)
            ),
            Self::VantageUnproven { vantage } => {
                write!(f, "{vantage} sees a loss, and cannot prove its own connectivity")
            }
            Self::CoordinationLost { since, what } => write!(
                f,
                "the coordinator is lost since {since}: automatic failover is suspended, nothing can be decided ({what})"
            ),
            Self::LostWhileCut { region, because, cut } => {
                write!(f, "{region} looks lost from here, and nothing is done about it: {because}; {cut}")
            }
            Self::StoppedBySentry { region } => {
                write!(f, "the sentry in {region} keeps its database stopped")
            }
            _ => Ok(()),
        }
    }
}
