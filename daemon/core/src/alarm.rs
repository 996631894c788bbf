//! What people are told of what is seen, and when: once per trouble, and of nothing that a run explains.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_runbooks::Kind;

use crate::condition::Gate;
use crate::decision::Severity;
use crate::guardian::Deciding;
use crate::health::Judgement;
use crate::names::RegionName;
use crate::reason::Reason;
use crate::record::Record;
use crate::status::Verdict;
use crate::survey::troubled;
use crate::time::Moment;

/// A primary that is doubtful for this long is worth waking someone, well before it is lost.
/// With the probes' own time-outs this keeps "alert within 30 s" (DESIGN.md).
const DOUBT_WORTH_A_NOTICE: Duration = Duration::from_secs(12);

/// What people were told since this agent started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) doubt_since: Option<Moment>,
    pub(crate) doubt: bool,
    /// The gates that kept a lost primary from being failed over.
    pub(crate) shut: BTreeSet<Gate>,
    pub(crate) second_primary: Option<Reason>,
    pub(crate) blind: bool,
    /// That the coordinator is lost; and whether the primary was lost then, too.
    pub(crate) cut: Option<bool>,
}

impl Deciding<'_> {
    /// Records each region that looks different than it was last recorded.
    pub(crate) fn note_verdicts(&mut self, started: Option<Moment>) {
        let freshness = self.workload.policy.failover.freshness;
        let young = started.is_none_or(|at| self.now.since(at) < freshness);
        for place in 0..self.workload.policy.regions().count() {
            let Some(region) = self.workload.policy.regions().nth(place) else { break };
            // Just after the start nothing has been seen yet, and that is no reason to doubt.
            if young && !self.workload.survey.complete(&self.workload.policy, self.agent, region) {
                continue;
            }
            // Put into words only where that is news.
            let verdict = self.gates().verdict(region);
            let primary = *region == self.workload.ledger.primary;
            if self.workload.ledger.verdicts.get(region) != Some(&verdict) {
                self.note_verdict(region.clone());
            }
            if primary {
                self.note_doubt(verdict);
            }
        }
        self.note_second_primary();
        if !young {
            self.note_blindness();
        }
    }

    fn note_verdict(&mut self, region: RegionName) {
        let Judgement { verdict, reason, .. } = self.gates().judged(&region);
        let known = self.workload.ledger.verdicts.get(&region).copied();
        let primary = region == self.workload.ledger.primary;
        // That the region which a run leaves is lost has been told when the run began.
        let left = self.workload.ledger.phase.run().is_some_and(|run| run.plan.from == region);
        let expected = self.expected(&region);
        let workload = self.name();
        self.write(Record::VerdictChanged { workload, region, verdict, reason: reason.clone() });
        if !expected && (primary || !left) {
            self.tell_verdict(primary, known, verdict, reason);
        }
    }

    /// Whether a planned run makes a region look unwell for a while.
    fn expected(&self, region: &RegionName) -> bool {
        let planned = self.workload.ledger.phase.run().filter(|run| run.plan.kind != Kind::Failover);
        planned.is_some_and(|run| run.plan.from == *region || run.plan.to == *region)
    }

    /// Tells people once when this agent cannot prove its own connectivity: while it cannot, nothing is done
    /// by itself, and that should be known before the day it matters.
    fn note_blindness(&mut self) {
        let blind = !self.gates().connected();
        let known = std::mem::replace(&mut self.workload.told.blind, blind);
        if blind
            && !known
            && let Err(reason) = self.gates().own_connectivity()
        {
            self.tell(Severity::Warning, reason);
        }
    }

    fn tell_verdict(&mut self, primary: bool, before: Option<Verdict>, verdict: Verdict, reason: Reason) {
        match (primary, verdict) {
            (true, Verdict::Lost) => self.tell(Severity::Critical, reason),
            (false, Verdict::Lost) => self.tell(Severity::Warning, reason),
            (true, Verdict::Healthy) if before == Some(Verdict::Lost) || self.workload.told.doubt => {
                self.tell(Severity::Info, reason);
            }
            _ => {}
        }
    }

    /// Tells people once of a primary that stays doubtful.
    fn note_doubt(&mut self, verdict: Verdict) {
        let (now, told) = (self.now, &mut self.workload.told);
        if !troubled(verdict) {
            *told = Told {
                second_primary: told.second_primary.take(),
                blind: told.blind,
                cut: told.cut,
                ..Told::default()
            };
            return;
        }
        let since = *told.doubt_since.get_or_insert(now);
        let due = since + DOUBT_WORTH_A_NOTICE;
        if verdict != Verdict::Doubtful || told.doubt {
            return;
        }
        if now >= due {
            told.doubt = true;
            let judged = self.gates().judged(&self.workload.ledger.primary);
            self.tell(Severity::Warning, judged.reason);
        } else {
            self.decision.wake_at(due);
        }
    }

    fn note_second_primary(&mut self) {
        let w = &self.workload;
        let open = w.ledger.phase.run().is_some();
        if w.told.second_primary.is_none() && open {
            return;
        }
        let second = w.survey.second_primary(&w.policy, &w.ledger.primary, self.now).filter(|_| !open);
        if second != self.workload.told.second_primary {
            self.workload.told.second_primary.clone_from(&second);
            if let Some(reason) = second {
                self.tell(Severity::Critical, reason);
            }
        }
    }

    pub(crate) fn end_pause(&mut self) {
        let until = self.workload.ledger.pause.as_ref().map(|pause| pause.until);
        match until {
            Some(until) if self.now >= until => {
                let workload = self.name();
                self.write(Record::Resumed { workload, by: None });
            }
            Some(until) => self.decision.wake_at(until),
            None => {}
        }
    }
}
