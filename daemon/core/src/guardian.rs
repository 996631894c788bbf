//! The one decider: given the moment and an event, what is to be done.
//!
//! **Invariant:** [`Guardian::decide`] is the only place where anything is decided.
//! **Invariant:** the same policy, records and events give the same decisions, byte for byte.

mod by_hand;
mod standing;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

pub use by_hand::ByHand;
use lifeboat_runbooks::{Kind, Runbook, Runbooks};
pub(crate) use standing::Standing;

use crate::alarm::Told;
use crate::condition::{Condition, Gate};
use crate::council::Council;
use crate::decision::{Decision, Notice, Severity};
use crate::event::{Event, Witnessing};
use crate::forecast::Forecast;
use crate::gates::Gates;
use crate::head::Guarded;
use crate::ledger::Ledger;
use crate::machine::{Happening, Phase, Reaction};
use crate::names::{AgentName, DatabaseName, Epoch, RegionName, RunId, SystemIdentifier, WorkloadName};
use crate::order::{Answer, Order};
use crate::plan::Plan;
use crate::plan::binding::Binding;
use crate::policy::{ConnectivityPolicy, Policy, WorkloadPolicy};
use crate::reason::Reason;
use crate::record::{Record, Stamped, Trigger};
use crate::sighting::{DatabaseState, Evidence, Failure, FailureKind, Sighting};
use crate::status::Verdict;
use crate::survey::{Survey, Witnesses};
use crate::testimony::Testimony;
use crate::time::Moment;

/// One workload as the guardian knows it.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) policy: WorkloadPolicy,
    pub(crate) ledger: Ledger,
    pub(crate) survey: Survey,
    /// The trouble that people were told of, so that they are told once.
    pub(crate) told: Told,
    /// What each sentry said last, and when it came.
    pub(crate) guarded: BTreeMap<RegionName, (Guarded, Moment)>,
}

/// Who decides.
#[derive(Clone, Debug)]
pub struct Guardian {
    agent: AgentName,
    version: String,
    connectivity: ConnectivityPolicy,
    runbooks: Arc<Runbooks>,
    pub(crate) workloads: BTreeMap<WorkloadName, Workload>,
    pub(crate) witnesses: Witnesses,
    started: Option<Moment>,
    /// When it was last asked anything.
    asked: Option<Moment>,
    pub(crate) standing: Standing,
    /// All agents and the place that each fails with; empty when this one is alone.
    pub(crate) agents: BTreeMap<AgentName, RegionName>,
    /// What the other vantages say.
    pub(crate) council: Council,
    /// Who was elected last, in which term, and when.
    pub(crate) decider: Option<(AgentName, u64, Moment)>,
    /// Whether what the agents share can be reached; since when it cannot, and what is wrong.
    pub(crate) coordination: Result<(), (Moment, String)>,
    /// Runs that are open on record, of workloads that are not in the policy.
    orphans: BTreeMap<WorkloadName, RunId>,
    /// How much later records of other agents count here than they say, by their places.
    late: BTreeMap<u64, Duration>,
}

/// What happens while one decision is made: where it comes from, and what it has come to so far.
pub(crate) struct Deciding<'a> {
    pub(crate) agent: &'a AgentName,
    pub(crate) connectivity: &'a ConnectivityPolicy,
    pub(crate) witnesses: &'a Witnesses,
    pub(crate) agents: &'a BTreeMap<AgentName, RegionName>,
    pub(crate) council: &'a Council,
    pub(crate) standing: Standing,
    pub(crate) decider: Option<&'a AgentName>,
    pub(crate) runbooks: &'a Runbooks,
    pub(crate) workload: &'a mut Workload,
    pub(crate) now: Moment,
    pub(crate) decision: Decision,
}

impl Guardian {
    /// A guardian that has read its record.
    pub fn restore<'a>(
        policy: Policy,
        runbooks: impl Into<Arc<Runbooks>>,
        version: &str,
        records: impl IntoIterator<Item = &'a Stamped>,
    ) -> Self {
        let workloads = policy.workloads.into_iter().map(|(name, policy)| {
            let ledger = Ledger::new(&policy);
            (
                name,
                Workload {
                    policy,
                    ledger,
                    survey: Survey::default(),
                    told: Told::default(),
                    guarded: BTreeMap::new(),
                },
            )
        });
        let mut guardian = Self {
            agent: policy.agent,
            version: version.to_owned(),
            connectivity: policy.connectivity,
            runbooks: runbooks.into(),
            workloads: workloads.collect(),
            witnesses: Witnesses::default(),
            started: None,
            asked: None,
            standing: Standing::Alone,
            agents: policy.agents,
            council: Council::default(),
            decider: None,
            coordination: Ok(()),
            orphans: BTreeMap::new(),
            late: BTreeMap::new(),
        };
        records.into_iter().for_each(|stamped| guardian.take_in(stamped));
        guardian
    }

    /// What is to be done about an event, now. Moments must not run backwards.
    pub fn decide(&mut self, now: Moment, event: Event) -> Decision {
        self.note_turn(now);
        match event {
            Event::Elected { term } => self.elect(now, term),
            Event::Deposed => {
                self.stand_by();
                Decision::default()
            }
            Event::Recorded(stamped) => {
                self.follow(&stamped);
                Decision::default()
            }
            Event::Written(stamped) => {
                self.note_lateness(now, &stamped);
                self.take_in(&stamped);
                Decision::default()
            }
            Event::Coordinated(reached) => self.coordinate(now, reached),
            Event::Beaten(beat) => {
                self.council.beat(beat, now);
                Decision::default()
            }
            Event::Guarded { workload, region, says } => self.note_guarded(now, &workload, region, says),
            Event::Silenced(vantage) => {
                self.council.silence(&vantage);
                Decision::default()
            }
            Event::Testified(testimony) => self.testify(now, testimony),
            Event::Sighted(sighting) => self.sight(now, &sighting),
            Event::Witnessed(witnessing) => self.witness(now, witnessing),
            Event::Started | Event::Tick if !self.decides() => self.stand(now),
            Event::Ordered(order) if !self.decides() => self.refer(&order),
            Event::StepEnded { .. } if !self.decides() => Decision::default(),
            Event::Started => self.start(now),
            Event::Tick => self.every(now, Happening::Assessed),
            Event::Ordered(order) => self.order(now, order),
            Event::StepEnded { ended, outcome } => self.with(now, &ended.workload, |deciding| {
                if deciding.reaction(Happening::StepEnded) == Reaction::TakeOutcome {
                    deciding.take_outcome(&ended, outcome);
                }
            }),
        }
    }

    fn testify(&mut self, now: Moment, testimony: Testimony) -> Decision {
        if !self.agents.contains_key(&testimony.vantage) || testimony.vantage == self.agent {
            return Decision::default();
        }
        let news = self.council.note(testimony, now);
        if news && self.decides() { self.every(now, Happening::Assessed) } else { Decision::default() }
    }

    fn start(&mut self, now: Moment) -> Decision {
        self.started = Some(now);
        let record = Record::AgentStarted { agent: self.agent.clone(), version: self.version.clone() };
        let mut decision = Decision { records: vec![record], ..Decision::default() };
        decision.join(self.every(now, Happening::Started));
        decision.notices.extend(self.orphaned());
        decision
    }

    fn every(&mut self, now: Moment, happening: Happening) -> Decision {
        let mut decision = Decision::default();
        let mut next = self.workloads.keys().next().cloned();
        while let Some(name) = next {
            decision.join(self.assess(now, &name, happening));
            let after = (Bound::Excluded(&name), Bound::Unbounded);
            next = self.workloads.range(after).next().map(|(name, _)| name.clone());
        }
        decision
    }

    fn sight(&mut self, now: Moment, sighting: &Sighting) -> Decision {
        let Some(workload) = self.workloads.get_mut(&sighting.workload) else { return Decision::default() };
        let stranger = workload.stranger(sighting);
        let sighting = stranger.as_ref().unwrap_or(sighting);
        let changed = workload.survey.note(&workload.policy, sighting);
        let learned = workload.learned(sighting);
        if !self.decides() || (!changed && learned.is_empty()) {
            return Decision::default();
        }
        let name = sighting.workload.clone();
        let mut decision = self.with(now, &name, |deciding| {
            learned.into_iter().for_each(|record| deciding.write(record));
        });
        decision.join(self.assess(now, &name, Happening::Assessed));
        decision
    }

    fn witness(&mut self, now: Moment, witnessing: Witnessing) -> Decision {
        let vantage = witnessing.vantage.clone();
        if self.witnesses.note(witnessing, &self.connectivity, now) {
            self.workloads.values_mut().for_each(|workload| workload.survey.regain(&vantage, now));
        }
        // Only a workload whose primary is in trouble waits for a proof.
        let troubled =
            self.decides() && self.workloads.values().any(|w| !matches!(w.ledger.phase, Phase::Guarding));
        if troubled { self.every(now, Happening::Assessed) } else { Decision::default() }
    }

    fn order(&mut self, now: Moment, order: Order) -> Decision {
        let found = match &order {
            Order::Failover { workload, .. }
            | Order::Switchover { workload, .. }
            | Order::Failback { workload, .. }
            | Order::Rejoin { workload, .. }
            | Order::Pause { workload, .. }
            | Order::Resume { workload, .. } => {
                let known = self.workloads.keys().cloned().collect();
                let name = self.workloads.contains_key(workload).then(|| workload.clone());
                name.ok_or_else(|| Reason::UnknownWorkload { workload: workload.clone(), known })
            }
            Order::Approve { run, .. }
            | Order::Abandon { run, .. }
            | Order::Cancel { run, .. }
            | Order::Skip { run, .. } => {
                self.workload_of(run).ok_or_else(|| Reason::UnknownRun { run: run.clone() })
            }
        };
        match found {
            Ok(name) => self.with(now, &name, |deciding| deciding.obey(order)),
            Err(reason) => {
                Decision { answer: Some(Box::new(Answer::Refused { reason })), ..Decision::default() }
            }
        }
    }

    /// The workload whose open or newest run this is.
    fn workload_of(&self, run: &RunId) -> Option<WorkloadName> {
        let mut all = self.workloads.iter();
        let found = all.find(|(_, w)| {
            w.ledger.phase.run().is_some_and(|open| open.id() == run)
                || w.ledger.last_run.as_ref() == Some(run)
        });
        found.map(|(name, _)| name.clone())
    }

    fn assess(&mut self, now: Moment, name: &WorkloadName, happening: Happening) -> Decision {
        let started = self.started;
        self.with(now, name, |deciding| {
            deciding.note_verdicts(started);
            deciding.end_pause();
            match deciding.reaction(happening) {
                Reaction::Consider => deciding.consider(),
                Reaction::Advance => deciding.advance(),
                Reaction::Recover => deciding.recover(),
                Reaction::Remind => deciding.remind(),
                _ => {}
            }
        })
    }

    fn with(&mut self, now: Moment, name: &WorkloadName, act: impl FnOnce(&mut Deciding<'_>)) -> Decision {
        let Some(workload) = self.workloads.get_mut(name) else { return Decision::default() };
        let mut deciding = Deciding {
            agent: &self.agent,
            connectivity: &self.connectivity,
            witnesses: &self.witnesses,
            agents: &self.agents,
            council: &self.council,
            standing: self.standing,
            decider: self.decider.as_ref().map(|(agent, _, _)| agent),
            runbooks: &self.runbooks,
            workload,
            now,
            decision: Decision::default(),
        };
        act(&mut deciding);
        deciding.decision
    }

    /// Regions that the record speaks of and the policy does not know: with these, nothing can be guarded.
    pub fn misplaced(&self) -> Vec<Reason> {
        let each = self.workloads.iter().flat_map(|(name, w)| {
            let plan = w.ledger.phase.run().map(|run| &run.plan);
            let named =
                [Some(&w.ledger.primary), plan.map(|p| &p.from), plan.map(|p| &p.to)].into_iter().flatten();
            let unknown = named.filter(|region| !w.policy.regions().any(|known| known == *region));
            unknown.map(|region| Reason::RegionNotInConfiguration {
                workload: name.clone(),
                region: region.clone(),
            })
        });
        let mut all: Vec<Reason> = each.collect();
        all.dedup();
        all
    }

    /// Where a workload lives, and under which epoch.
    pub fn belief(&self, workload: &WorkloadName) -> Option<(&RegionName, Epoch)> {
        self.workloads.get(workload).map(|w| (&w.ledger.primary, w.ledger.epoch))
    }

    /// Where each workload lives, and under which epoch.
    pub fn beliefs(&self) -> BTreeMap<WorkloadName, (RegionName, Epoch)> {
        let all = self.workloads.iter();
        all.map(|(name, w)| (name.clone(), (w.ledger.primary.clone(), w.ledger.epoch))).collect()
    }

    /// The region that each workload's names say, as far as the record tells: the old one until the step
    /// that switches them has given its outcome. For a name server that starts.
    pub fn names_say(&self) -> BTreeMap<WorkloadName, (RegionName, Epoch)> {
        let all = self.workloads.iter();
        all.map(|(name, w)| (name.clone(), (w.ledger.names_say().clone(), w.ledger.epoch))).collect()
    }

    /// What an automatic failover of the workload would need, now.
    pub fn conditions(&self, workload: &WorkloadName, now: Moment) -> Option<Vec<Condition>> {
        self.workloads.get(workload).map(|w| self.gates(w, now).conditions())
    }

    pub(crate) fn gates<'a>(&'a self, workload: &'a Workload, now: Moment) -> Gates<'a> {
        Gates {
            agent: &self.agent,
            connectivity: &self.connectivity,
            witnesses: &self.witnesses,
            agents: &self.agents,
            council: &self.council,
            standing: self.standing,
            decider: self.decider.as_ref().map(|(agent, _, _)| agent),
            workload,
            now,
        }
    }

    /// The plan that a procedure would carry out now, and how long it would take. Touches nothing. `to` is the target;
    /// of a rejoin, the region that returns.
    ///
    /// # Errors
    /// The reason why there is no plan.
    pub fn plan(
        &self,
        kind: Kind,
        workload: &WorkloadName,
        to: Option<&RegionName>,
        now: Moment,
    ) -> Result<(Plan, Forecast), Reason> {
        let found = self.workloads.get(workload).ok_or_else(|| Reason::UnknownWorkload {
            workload: workload.clone(),
            known: self.workloads.keys().cloned().collect(),
        })?;
        let to = match (kind, to) {
            (Kind::Failback, None) => found.standby(&found.policy.home)?,
            (_, Some(region)) => found.standby(region)?,
            (_, None) => {
                self.gates(found, now).target().or_else(|reason| found.first_standby().ok_or(reason))?
            }
        };
        let plan = found.plan(self.runbooks.page(kind), to, kind == Kind::Failover)?;
        let forecast = Forecast::of(&plan, &found.policy, &found.ledger.timings);
        Ok((plan, forecast))
    }

    /// Who this is.
    pub const fn agent(&self) -> &AgentName {
        &self.agent
    }

    pub(crate) const fn connectivity(&self) -> &ConnectivityPolicy {
        &self.connectivity
    }
}

impl Workload {
    /// The cluster that a database must belong to: as the operator named it, else as it was first seen.
    pub(crate) fn cluster_of(&self, database: &DatabaseName) -> Option<SystemIdentifier> {
        let pinned = self.policy.databases.get(database).copied().flatten();
        pinned.or_else(|| self.ledger.identities.get(database).copied())
    }

    /// What was seen, when it was another cluster that answered in the primary's place: no sign of its health.
    fn stranger(&self, sighting: &Sighting) -> Option<Sighting> {
        let Ok(Evidence::Database(sample)) = &sighting.look else { return None };
        if sighting.region != self.ledger.primary {
            return None;
        }
        let wanted = self.cluster_of(&sample.database).filter(|wanted| *wanted != sample.system)?;
        let detail = format!("cluster {} answered, not {wanted}", sample.system);
        let look = Err(Failure::new(FailureKind::WrongIdentity, detail));
        Some(Sighting { look, ..sighting.clone() })
    }

    /// The cluster of a primary that is seen for the first time.
    fn learned(&self, sighting: &Sighting) -> Vec<Record> {
        let Ok(Evidence::Database(sample)) = &sighting.look else { return Vec::new() };
        let primary =
            matches!(sample.state, DatabaseState::Primary { .. }) && sighting.region == self.ledger.primary;
        if !primary || self.ledger.identities.contains_key(&sample.database) {
            return Vec::new();
        }
        let probe = self.policy.probes.get(&sighting.probe);
        if probe.is_none_or(|p| p.region != sighting.region || p.database.as_ref() != Some(&sample.database))
        {
            return Vec::new();
        }
        let pinned = self.policy.databases.get(&sample.database).copied().flatten();
        if pinned.is_some_and(|pinned| pinned != sample.system) {
            return Vec::new();
        }
        let (workload, database) = (self.policy.name.clone(), sample.database.clone());
        vec![Record::IdentityLearned { workload, database, system: sample.system }]
    }

    pub(crate) fn standby(&self, region: &RegionName) -> Result<RegionName, Reason> {
        let workload = self.policy.name.clone();
        if *region == self.ledger.primary {
            return Err(Reason::AlreadyThere { workload, region: region.clone() });
        }
        if !self.policy.regions().any(|r| r == region) {
            let known = self.policy.regions().filter(|r| **r != self.ledger.primary).cloned().collect();
            return Err(Reason::UnknownRegion { workload, region: region.clone(), known });
        }
        Ok(region.clone())
    }

    fn first_standby(&self) -> Option<RegionName> {
        self.policy.regions().find(|r| **r != self.ledger.primary).cloned()
    }

    /// Binds a runbook to a move to `region`, or to its return, under the next epoch.
    pub(crate) fn plan(
        &self,
        runbook: &Runbook,
        region: RegionName,
        automatic: bool,
    ) -> Result<Plan, Reason> {
        let primary = self.ledger.primary.clone();
        let (from, to) = if runbook.kind == Kind::Rejoin { (region, primary) } else { (primary, region) };
        let known = self.policy.databases.keys();
        let clusters = known.filter_map(|d| Some((d.clone(), self.cluster_of(d)?))).collect();
        let epoch = self.ledger.epoch.next();
        Binding { policy: &self.policy, clusters, from, to, epoch, automatic }.plan(runbook)
    }
}

impl Deciding<'_> {
    pub(crate) fn reaction(&self, happening: Happening) -> Reaction {
        self.workload.ledger.phase.react(happening)
    }

    /// Writes a record down and takes it in: the one way durable state changes.
    pub(crate) fn write(&mut self, record: Record) {
        self.workload.ledger.apply(self.now, &record);
        self.decision.records.push(record);
    }

    pub(crate) fn tell(&mut self, severity: Severity, reason: Reason) {
        let run = self.workload.ledger.phase.run();
        let notice = Notice {
            workload: self.workload.policy.name.clone(),
            severity,
            run: run.map(|r| r.id().clone()),
            loss: run.and_then(|r| r.loss.clone()),
            reason,
        };
        self.decision.notices.push(notice);
    }

    pub(crate) fn gates(&self) -> Gates<'_> {
        Gates {
            agent: self.agent,
            connectivity: self.connectivity,
            witnesses: self.witnesses,
            agents: self.agents,
            council: self.council,
            standing: self.standing,
            decider: self.decider,
            workload: self.workload,
            now: self.now,
        }
    }

    pub(crate) fn name(&self) -> WorkloadName {
        self.workload.policy.name.clone()
    }

    /// Opens a run when every gate is open; otherwise, while the primary is lost, says which is shut.
    fn consider(&mut self) {
        // Health first, and cheaply: all other gates matter only when the primary is lost.
        if self.workload.ledger.verdicts.get(&self.workload.ledger.primary) != Some(&Verdict::Lost) {
            return self.consider_return();
        }
        match self.gates().shut() {
            Some(shut) => self.decline(shut),
            None => {
                let target = self.gates().target();
                target.into_iter().for_each(|to| self.open_automatic(to));
            }
        }
    }

    /// Opens a rejoin when an old primary has come back and believes it is one.
    fn consider_return(&mut self) {
        let Some((region, reason)) = self.gates().returned() else { return };
        if let Err(reason) = self.open(Kind::Rejoin, region, Trigger::Automatic, reason) {
            self.tell(Severity::Critical, reason);
        }
    }

    fn open_automatic(&mut self, to: RegionName) {
        let region = self.workload.ledger.primary.clone();
        let because = Box::new(self.gates().judged(&region).reason);
        let reason = Reason::PrimaryLost { region, because };
        if let Err(reason) = self.open(Kind::Failover, to, Trigger::Automatic, reason) {
            self.decline(Condition { gate: Gate::Identity, holds: false, reason });
        }
    }

    fn decline(&mut self, shut: Condition) {
        // Each gate is told once in one trouble, however often it opens and shuts.
        if self.workload.ledger.declined == Some(shut.gate) || !self.workload.told.shut.insert(shut.gate) {
            return;
        }
        let workload = self.name();
        self.write(Record::Declined { workload, gate: shut.gate, reason: shut.reason.clone() });
        self.tell(Severity::Critical, shut.reason);
    }
}

impl Decision {
    /// Adds what another decision of the same moment came to.
    fn join(&mut self, other: Self) {
        // Mostly there is nothing yet to add to.
        fn add<T>(all: &mut Vec<T>, more: Vec<T>) {
            if all.is_empty() {
                *all = more;
            } else {
                all.extend(more);
            }
        }
        add(&mut self.records, other.records);
        add(&mut self.commands, other.commands);
        add(&mut self.notices, other.notices);
        self.answer = self.answer.take().or(other.answer);
        if let Some(wake) = other.wake {
            self.wake_at(wake);
        }
    }

    /// Asks to be asked again at this moment at the latest.
    pub(crate) fn wake_at(&mut self, moment: Moment) {
        self.wake = Some(self.wake.map_or(moment, |known| known.min(moment)));
    }
}
