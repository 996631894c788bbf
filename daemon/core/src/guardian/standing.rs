//! Deciding, or standing by: one guardian in each agent, and one of them at a time decides.
//!
//! **Invariant:** a guardian that stands by writes no record and starts no command; what it knows it was told, by
//! records of the one who decides.
//! **Invariant:** whoever takes over a run raises its epoch first, so that what the one before has still under way is
//! stale to every actuator.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_runbooks::Kind;

use super::{Deciding, Guardian, Workload};
use crate::decision::{Decision, Notice, Severity};
use crate::head::{Guarded, Head};
use crate::ledger::Ledger;
use crate::machine::{Happening, Phase};
use crate::names::{AgentName, RegionName, WorkloadName};
use crate::order::{Answer, Order};
use crate::reason::Reason;
use crate::record::{Record, Stamped};
use crate::run::Run;
use crate::status::Verdict;
use crate::testimony::{Beat, Testimony};
use crate::time::Moment;

/// A record that seems older than this when it is told was not on its way for so long: its writer's clock is behind.
const LATE: Duration = Duration::from_secs(1);

/// An agent that was not asked anything for so long stood still: it asks its guardian each second (`Event::Tick`).
const ASLEEP: Duration = Duration::from_secs(3);

/// For how many of the newest records that is kept; more than any cooldown or pause has to look back at.
const LATE_KEPT: usize = 4096;

/// Whether this guardian decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the only one.
    Alone,
    /// Another one decides, or none.
    By,
    /// It holds the tenure.
    Deciding {
        /// Its number.
        term: u64,
        /// Since when.
        since: Moment,
    },
}

impl Guardian {
    /// This guardian shares its record with others, and does not decide until it is elected.
    pub fn stand_by(&mut self) {
        self.standing = Standing::By;
        self.council.forget_beats();
    }

    /// Whether it decides now.
    pub const fn decides(&self) -> bool {
        !matches!(self.standing, Standing::By)
    }

    /// All agents that share the record, each with the place that it fails with; empty when this one is alone.
    pub const fn agents(&self) -> &BTreeMap<AgentName, RegionName> {
        &self.agents
    }

    /// Takes in a record that another agent wrote at some time: what [`Event::Recorded`] means, without a copy.
    ///
    /// [`Event::Recorded`]: crate::Event::Recorded
    pub fn follow(&mut self, stamped: &Stamped) {
        self.take_in(stamped);
    }

    /// Reads the record again, after a decision that could not be put on record: it never was. What was seen stays.
    pub fn reread<'a>(&mut self, records: impl IntoIterator<Item = &'a Stamped>) {
        for workload in self.workloads.values_mut() {
            workload.ledger = Ledger::new(&workload.policy);
        }
        self.orphans.clear();
        self.decider = None;
        records.into_iter().for_each(|stamped| self.take_in(stamped));
        self.stand_by();
    }

    /// It is asked something. After a long while without, it has just woken, and begins with what waited the longest.
    pub(super) fn note_turn(&mut self, now: Moment) {
        let asked = self.asked.replace(self.asked.map_or(now, |asked| asked.max(now)));
        if asked.is_some_and(|asked| now.since(asked) >= ASLEEP) {
            self.council.wake(now);
        }
    }

    /// A record that another agent wrote just now bears a moment of its clock. Where that is behind ours, the record would
    /// look old: a cooldown, a hold-down or a pause would be over too early here. It counts from when it was told.
    /// Where that clock is ahead, they are over later, by the difference.
    pub(super) fn note_lateness(&mut self, now: Moment, stamped: &Stamped) {
        let late = now.since(stamped.at);
        if late >= LATE {
            self.late.insert(stamped.sequence, late);
        }
        while self.late.len() > LATE_KEPT {
            self.late.pop_first();
        }
    }

    /// Takes one record in.
    pub(crate) fn take_in(&mut self, stamped: &Stamped) {
        let late = self.late.get(&stamped.sequence).copied().unwrap_or_default();
        if let Record::Elected { agent, term, .. } = &stamped.record {
            self.decider = Some((agent.clone(), *term, stamped.at));
        }
        let Some(name) = stamped.record.workload() else { return };
        match (self.workloads.get_mut(name), &stamped.record) {
            (Some(workload), record) => workload.ledger.apply(stamped.at + late, &record.later(late)),
            (None, Record::RunOpened { run, .. }) => {
                self.orphans.insert(name.clone(), run.clone());
            }
            (None, Record::RunEnded { .. }) => {
                self.orphans.remove(name);
            }
            (None, _) => {}
        }
    }

    /// Decides from now on: takes over whatever is open.
    pub(crate) fn elect(&mut self, now: Moment, term: u64) -> Decision {
        self.standing = Standing::Deciding { term, since: now };
        self.council.forget_beats();
        self.decider = Some((self.agent.clone(), term, now));
        let (agent, version) = (self.agent.clone(), self.version.clone());
        let mut decision =
            Decision { records: vec![Record::Elected { agent, version, term }], ..Decision::default() };
        let names: Vec<WorkloadName> = self.workloads.keys().cloned().collect();
        for name in names {
            decision.join(self.with(now, &name, |deciding| deciding.take_over()));
        }
        decision.join(self.every(now, Happening::Started));
        decision.notices.extend(self.orphaned());
        decision
    }

    /// What an event means to a guardian that stands by.
    pub(super) fn stand(&mut self, now: Moment) -> Decision {
        self.started.get_or_insert(now);
        let mut decision = Decision::default();
        let Err((since, what)) = &self.coordination else { return decision };
        let names: Vec<WorkloadName> = self.workloads.keys().cloned().collect();
        let cut = Reason::CoordinationLost { since: *since, what: what.clone() };
        for name in names {
            let cut = cut.clone();
            decision.join(self.with(now, &name, |deciding| deciding.stand_cut_off(cut)));
        }
        decision
    }

    /// An order that came to the wrong agent.
    pub(super) fn refer(&self, _order: &Order) -> Decision {
        let decider = self.decider.as_ref().map(|(agent, _, _)| agent.clone());
        let reason = Reason::NotDeciding { decider };
        Decision { answer: Some(Box::new(Answer::Refused { reason })), ..Decision::default() }
    }

    /// Whether what the agents share can be reached.
    pub(super) fn coordinate(&mut self, now: Moment, reached: Result<(), String>) -> Decision {
        match reached {
            Ok(()) => {
                self.coordination = Ok(());
                self.workloads.values_mut().for_each(|w| w.told.cut = None);
                Decision::default()
            }
            Err(what) => {
                let since = self.coordination.as_ref().err().map_or(now, |(since, _)| *since);
                self.coordination = Err((since, what));
                if self.decides() { Decision::default() } else { self.stand(now) }
            }
        }
    }

    /// What a sentry says.
    pub(super) fn note_guarded(
        &mut self,
        now: Moment,
        name: &WorkloadName,
        region: RegionName,
        says: Option<Guarded>,
    ) -> Decision {
        let Some(workload) = self.workloads.get_mut(name) else { return Decision::default() };
        let known = match says {
            Some(says) => {
                let known = workload.guarded.get(&region).copied();
                let since = known.filter(|(known, _)| *known == says).map_or(now, |(_, since)| since);
                workload.guarded.insert(region, (says, since));
                known.map(|(known, _)| known)
            }
            None => workload.guarded.remove(&region).map(|(known, _)| known),
        };
        if known == says || !self.decides() {
            return Decision::default();
        }
        self.assess(now, name, Happening::Assessed)
    }

    /// What this vantage says of every region. `sequence` must rise; `echo` is the newest beat it has seen.
    pub fn testimony(&self, now: Moment, sequence: u64, echo: Option<Beat>) -> Testimony {
        // Inserted one by one: to collect them makes a list first, and this is said each second or so.
        let mut regions = BTreeMap::new();
        for (name, workload) in &self.workloads {
            let (gates, mut seen) = (self.gates(workload, now), BTreeMap::new());
            for region in workload.policy.regions() {
                seen.insert(region.clone(), gates.seen_here(region));
            }
            regions.insert(name.clone(), seen);
        }
        let connected = self.workloads.values().all(|w| self.gates(w, now).connected());
        Testimony { vantage: self.agent.clone(), sequence, echo, connected, regions }
    }

    /// What the sentries must know of each workload.
    pub fn heads(&self) -> BTreeMap<WorkloadName, Head> {
        self.workloads.iter().map(|(name, workload)| (name.clone(), workload.head())).collect()
    }

    /// Whether another agent had better decide: this one cannot prove its own connectivity, or fails with the region that a
    /// workload lives in; nothing is open, and another agent, outside that region, was heard lately and is well connected.
    pub fn better_elsewhere(&self, now: Moment) -> bool {
        if !matches!(self.standing, Standing::Deciding { .. }) || self.agents.is_empty() {
            return false;
        }
        let open = self.workloads.values().any(|w| w.ledger.phase.run().is_some());
        let troubled = |w: &Workload| !matches!(w.ledger.phase, Phase::Guarding);
        let blind = self.workloads.values().any(|w| !self.gates(w, now).connected());
        let beside = self.workloads.values().any(|w| self.agents.get(&self.agent) == Some(&w.ledger.primary));
        if open || !(blind || (beside && !self.workloads.values().any(troubled))) {
            return false;
        }
        let freshness =
            self.workloads.values().map(|w| w.policy.failover.freshness).min().unwrap_or_default();
        self.agents.iter().any(|(agent, place)| {
            let outside = self.workloads.values().all(|w| w.ledger.primary != *place);
            *agent != self.agent && (outside || blind) && self.council.well(agent, now, freshness)
        })
    }

    /// The place of this agent among those that may decide: those outside every primary region first, in the order of their
    /// names. From 0.
    pub fn rank(&self) -> usize {
        let beside = |place: &RegionName| self.workloads.values().any(|w| w.ledger.primary == *place);
        let mut all: Vec<(bool, &AgentName)> =
            self.agents.iter().map(|(agent, place)| (beside(place), agent)).collect();
        all.sort();
        all.iter().position(|(_, agent)| **agent == self.agent).unwrap_or_default()
    }

    pub(super) fn orphaned(&self) -> impl Iterator<Item = Notice> {
        self.orphans.iter().map(|(workload, run)| Notice {
            workload: workload.clone(),
            severity: Severity::Critical,
            run: Some(run.clone()),
            reason: Reason::NotInConfiguration { run: run.clone() },
            loss: None,
        })
    }
}

impl Workload {
    fn head(&self) -> Head {
        let open = self.ledger.phase.run();
        let moving = open.filter(|run| run.plan.kind != Kind::Rejoin);
        let moving = moving.filter(|run| self.ledger.primary == run.plan.from);
        Head {
            epoch: self.ledger.epoch,
            holder: self.ledger.primary.clone(),
            closing: moving.is_some_and(|run| run.plan.kind == Kind::Failover && run.fencing()),
            tended: open.filter(|run| run.tends()).map(|run| run.plan.from.clone()),
            coming: moving.filter(|run| run.past_return).map(|run| run.plan.to.clone()),
        }
    }
}

impl Deciding<'_> {
    /// Raises the epoch of a run that another agent opened, before anything of it is done.
    fn take_over(&mut self) {
        let Some(run) = self.workload.ledger.phase.run().map(|run| run.id().clone()) else { return };
        let (workload, epoch) = (self.name(), self.workload.ledger.epoch.next());
        self.write(Record::TookOver { workload: workload.clone(), run: run.clone(), epoch });
        // What the one before measured is told in moments of its clock; nothing here may be compared with them.
        let step = self.workload.ledger.phase.run().and_then(Run::loss_to_measure_anew).cloned();
        if let Some(step) = step {
            self.write(Record::Reopened { workload, run, step });
        }
    }

    /// Tells people once that nothing can be decided; and again when the primary looks lost meanwhile.
    fn stand_cut_off(&mut self, cut: Reason) {
        let primary = self.workload.ledger.primary.clone();
        let judged = self.gates().judged_here(&primary);
        let lost = judged.verdict == Verdict::Lost;
        let known = self.workload.told.cut;
        if known == Some(true) || (known == Some(false) && !lost) {
            return;
        }
        self.workload.told.cut = Some(lost);
        if lost {
            let because = Box::new(judged.reason);
            self.tell(
                Severity::Critical,
                Reason::LostWhileCut { region: primary, because, cut: Box::new(cut) },
            );
        } else {
            self.tell(Severity::Warning, cut);
        }
    }
}
