//! What an automatic failover must rest on, counted apart from the code that decides.
//!
//! **Invariant:** only what the agent itself saw since it started counts.

use std::collections::BTreeMap;

use lifeboat_core::policy::WorkloadPolicy;
use lifeboat_core::sighting::{FailureKind, Look};
use lifeboat_core::{Event, Moment, Plan, Policy, ProbeName, WorkloadName};

use crate::setting::agent;

/// What was seen through one probe: every look, oldest first.
type Looks = Vec<(Moment, Option<FailureKind>)>;

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    looks: BTreeMap<(WorkloadName, ProbeName), Looks>,
    witnessed: Option<(Moment, usize)>,
}

impl Evidence {
    /// Takes an event in.
    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::Sighted(s) if s.vantage == agent() => {
                let kind = match &s.look as &Look {
                    Ok(_) => None,
                    Err(failure) => Some(failure.kind),
                };
                self.looks.entry((s.workload.clone(), s.probe.clone())).or_default().push((s.at, kind));
            }
            Event::Witnessed(w) if w.vantage == agent() => self.witnessed = Some((w.at, w.answered)),
            _ => {}
        }
    }

    /// Fails unless the primary was seen to be lost, by an agent with a network, and the target answers.
    pub(crate) fn justifies(&self, now: Moment, policy: &Policy, workload: &WorkloadPolicy, plan: &Plan) {
        let (asked, answered) = self.witnessed.expect("no witness was ever asked");
        assert!(answered >= policy.connectivity.quorum && policy.connectivity.quorum > 0, "no connectivity");
        let freshness = workload.failover.freshness;
        assert!(now.since(asked) <= freshness, "connectivity proven too long ago");
        let vital = |region| {
            let probes = workload.probes.iter().filter(move |(_, p)| p.vital && p.region == region);
            probes.map(|(name, p)| (p, self.looks.get(&(workload.name.clone(), name.clone()))))
        };
        let lost = vital(plan.from.clone()).any(|(probe, looks)| {
            let Some(looks) = looks else { return false };
            let fresh = looks.last().is_some_and(|(at, _)| now.since(*at) <= freshness);
            fresh && down(looks, probe.failures, probe.recoveries, probe.silence)
        });
        assert!(lost, "{}: the primary was not lost", plan.run);
        for (_, looks) in vital(plan.to.clone()) {
            let newest = looks.and_then(|l| l.last()).expect("the target was never seen");
            assert!(newest.1.is_none() && now.since(newest.0) <= freshness, "{}: the target fails", plan.run);
        }
    }
}

/// Whether a probe was down at the end: at some moment enough failures in a row, and not enough answers after.
fn down(
    looks: &[(Moment, Option<FailureKind>)],
    failures: u32,
    recoveries: u32,
    silence: std::time::Duration,
) -> bool {
    let mut down = false;
    // A row of failures that is longer than this was long enough before.
    let looks = &looks[looks.len().saturating_sub(300)..];
    for end in 1..=looks.len() {
        let row: Vec<_> = looks[..end].iter().rev().take_while(|(_, kind)| kind.is_some()).collect();
        let answers = looks[..end].iter().rev().take_while(|(_, kind)| kind.is_none()).count();
        down &= answers < recoveries as usize;
        let kinds = || row.iter().filter_map(|(_, kind)| *kind);
        let hard = kinds().take_while(|kind| said_no(*kind)).count();
        let telling = kinds().take_while(|kind| said_no(*kind) || said_nothing(*kind)).count();
        let heard =
            looks[..end].iter().rev().find(|(_, kind)| kind.is_none_or(|k| !said_no(k) && !said_nothing(k)));
        let since = heard.or(row.last().copied()).map(|(at, _)| *at);
        let silent = since.map(|since| looks[end - 1].0.since(since)).unwrap_or_default();
        down |= hard >= failures as usize || (telling >= failures as usize && silent >= silence);
    }
    down
}

/// The place itself said that it does not serve.
fn said_no(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Refused | FailureKind::CannotCommit | FailureKind::WrongAnswer)
}

/// Nothing was heard, or "not yet".
fn said_nothing(kind: FailureKind) -> bool {
    use FailureKind::{CommitSilent, NotReady, Silent, Unreachable};
    matches!(kind, Silent | Unreachable | CommitSilent | NotReady)
}
