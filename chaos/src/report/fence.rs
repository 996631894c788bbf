//! What old primaries acknowledged after a new one had taken its first write: none may.
//!
//! **Invariant:** a run in which nothing was promoted is ok only where nothing had to be.

use std::collections::BTreeMap;

use serde::Serialize;

/// What happens to the site of the primary, while a client keeps its session with the database there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// All of it hangs, and wakes after the failover.
    HostFrozen,
    /// Its agent and its sentry hang, and wake later; the database goes on. Nothing has to move.
    AgentFrozen,
    /// It is cut off from the other sites; all of it runs.
    CutOff,
}

impl Case {
    /// All of them.
    pub const ALL: [Case; 3] = [Case::HostFrozen, Case::AgentFrozen, Case::CutOff];

    /// As people read it, and as it is chosen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Case::HostFrozen => "host-frozen",
            Case::AgentFrozen => "agent-frozen",
            Case::CutOff => "cut-off",
        }
    }
}

/// One run. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FenceRun {
    /// What happened.
    pub case: Case,
    /// Whether commits waited for the standby.
    pub sync: bool,
    /// Whether a command could power the old primary off.
    pub stonith: bool,
    /// Writes that the old primary acknowledged before the trouble, a second.
    pub writes_a_second: u64,
    /// From the trouble to the first write that the new primary took, when it was sent; none: it took none.
    pub taken_over_ms: Option<u64>,
    /// What proved the fence.
    pub proof: Option<String>,
    /// Which agent decided.
    pub decided_by: Option<String>,
    /// Writes that the old primary acknowledged after that first write.
    pub writes_after_fence: u64,
    /// From that first write to the last of them.
    pub for_ms: Option<u64>,
    /// From the trouble to the end of the client's session; none: it lasts.
    pub session_ended_ms: Option<u64>,
    /// What lifeboat says stood in its way.
    pub stuck: Option<String>,
}

impl FenceRun {
    /// Whether the promise was held.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.writes_after_fence == 0 && (self.taken_over_ms.is_some() || self.case == Case::AgentFrozen)
    }
}

/// Several runs of one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// What happened.
    pub case: Case,
    /// Whether commits waited for the standby.
    pub sync: bool,
    /// How many runs.
    pub runs: usize,
    /// In how many of them the old primary acknowledged a write after the new one had taken its first.
    pub with_writes_after_fence: usize,
    /// How many such writes the worst of them had.
    pub worst_writes_after_fence: u64,
    /// In how many of them something was promoted.
    pub taken_over: usize,
    /// The middle one of their times.
    pub median_taken_over_ms: Option<u64>,
    /// What proved the fences, and how often.
    pub proofs: BTreeMap<String, usize>,
}

/// What each case held, in the order of the cases.
#[must_use]
pub fn summaries(runs: &[FenceRun]) -> Vec<Summary> {
    let mut groups: BTreeMap<(Case, bool), Vec<&FenceRun>> = BTreeMap::new();
    for run in runs {
        groups.entry((run.case, run.sync)).or_default().push(run);
    }
    let summary = |((case, sync), runs): ((Case, bool), Vec<&FenceRun>)| {
        let mut times: Vec<u64> = runs.iter().filter_map(|run| run.taken_over_ms).collect();
        times.sort_unstable();
        let mut proofs = BTreeMap::new();
        for proof in runs.iter().filter_map(|run| run.proof.clone()) {
            *proofs.entry(proof).or_insert(0) += 1;
        }
        Summary {
            case,
            sync,
            runs: runs.len(),
            with_writes_after_fence: runs.iter().filter(|run| run.writes_after_fence > 0).count(),
            worst_writes_after_fence: runs.iter().map(|run| run.writes_after_fence).max().unwrap_or(0),
            taken_over: times.len(),
            median_taken_over_ms: times.get(times.len().saturating_sub(1) / 2).copied(),
            proofs,
        }
    };
    groups.into_iter().map(summary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(taken_over_ms: Option<u64>, writes_after_fence: u64) -> FenceRun {
        FenceRun {
            case: Case::HostFrozen,
            sync: false,
            stonith: true,
            writes_a_second: 500,
            taken_over_ms,
            proof: taken_over_ms.map(|_| "expired".to_owned()),
            decided_by: None,
            writes_after_fence,
            for_ms: None,
            session_ended_ms: None,
            stuck: None,
        }
    }

    #[test]
    fn one_write_too_many_breaks_the_promise_and_so_does_standing_still_when_the_host_is_gone() {
        assert!(run(Some(4000), 0).ok());
        assert!(!run(Some(4000), 1).ok() && !run(None, 0).ok());
        assert!(FenceRun { case: Case::AgentFrozen, ..run(None, 0) }.ok());
    }

    #[test]
    fn runs_are_summed_up_by_case_and_the_worst_is_said() {
        let sync = FenceRun { sync: true, ..run(Some(9000), 0) };
        let runs = [run(Some(5000), 0), run(Some(3000), 7), run(None, 0), run(Some(4000), 2), sync];
        let summaries = summaries(&runs);
        let said: Vec<_> = summaries
            .iter()
            .map(|s| (s.runs, s.with_writes_after_fence, s.worst_writes_after_fence, s.median_taken_over_ms))
            .collect();
        assert_eq!(said, [(4, 2, 7, Some(4000)), (1, 0, 0, Some(9000))]);
        assert_eq!(summaries[0].proofs["expired"], 3);
    }
}
