//! What is known for sure of one workload: the state that its records make.
//!
//! **Invariant:** nothing changes here but by [`Ledger::apply`], live and in replay alike; so the state
//! after a restart is the state before it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_runbooks::Kind;
use serde::{Deserialize, Serialize};

use crate::condition::Gate;
use crate::machine::Phase;
use crate::names::{DatabaseName, Epoch, RegionName, RunId, StepName, SystemIdentifier, Timeline};
use crate::outcome::{Outcome, Output};
use crate::policy::WorkloadPolicy;
use crate::record::{Ending, Record, Trigger};
use crate::run::{Progress, Run};
use crate::status::Verdict;
use crate::time::Moment;

/// How many durations of each step are kept for the forecast.
const TIMINGS_KEPT: usize = 20;

/// How many ended runs are kept for cooldown and budget; more than any sensible budget.
const MOVES_KEPT: usize = 64;

/// The durable state of one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Where it lives.
    pub primary: RegionName,
    /// Its epoch.
    pub epoch: Epoch,
    /// The cluster of each database, as first seen.
    pub identities: BTreeMap<DatabaseName, SystemIdentifier>,
    /// How each region was last recorded to look.
    pub verdicts: BTreeMap<RegionName, Verdict>,
    /// The shut gate that was last recorded, while the primary is lost.
    pub declined: Option<Gate>,
    /// What is going on.
    pub phase: Phase,
    /// Whether automatic action is paused.
    pub pause: Option<Pause>,
    /// When the workload moved, and whether by itself; oldest first.
    pub moves: Vec<(Moment, bool)>,
    /// When a failover last ended without moving anything, and how many did so in a row.
    pub fruitless: Option<(Moment, u32)>,
    /// When a rejoin last failed, and how many did so in a row.
    pub rejoins_failed: Option<(Moment, u32)>,
    /// The timeline of each database since the workload last moved: a server on an older one has not rejoined.
    pub timelines: BTreeMap<DatabaseName, Timeline>,
    /// Since when a region was recorded to look healthy without a break.
    pub healthy_since: BTreeMap<RegionName, Moment>,
    /// Regions that were fenced when they returned, and wait for a person to make them standbys.
    pub kept_out: BTreeSet<RegionName>,
    /// Regions that a failover left behind and that have not rejoined since.
    pub left: BTreeSet<RegionName>,
    /// How long the newest attempts of each step took.
    pub timings: BTreeMap<StepName, Vec<Duration>>,
    /// The newest run that ended.
    pub last_run: Option<RunId>,
}

/// A pause of automatic action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who paused it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Moment,
}

impl Ledger {
    /// A workload of which nothing is on record.
    pub fn new(policy: &WorkloadPolicy) -> Self {
        Self {
            primary: policy.home.clone(),
            epoch: Epoch::default(),
            identities: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            declined: None,
            phase: Phase::Guarding,
            pause: None,
            moves: Vec::new(),
            fruitless: None,
            rejoins_failed: None,
            timelines: BTreeMap::new(),
            healthy_since: BTreeMap::new(),
            kept_out: BTreeSet::new(),
            left: BTreeSet::new(),
            timings: BTreeMap::new(),
            last_run: None,
        }
    }

    /// The region that the workload's names say.
    pub fn names_say(&self) -> &RegionName {
        let moving = self.phase.run().filter(|run| run.plan.kind != Kind::Rejoin && !run.switched());
        moving.map_or(&self.primary, |run| &run.plan.from)
    }

    /// Takes one record in.
    pub fn apply(&mut self, at: Moment, record: &Record) {
        match record {
            Record::AgentStarted { .. } | Record::Elected { .. } => {}
            Record::TookOver { epoch, .. } => {
                self.epoch = *epoch;
                if let Phase::Running(run) | Phase::Stranded(run, _) = &mut self.phase {
                    run.apply(at, record);
                }
            }
            Record::VerdictChanged { region, verdict, .. } => self.apply_verdict(at, region, *verdict),
            Record::IdentityLearned { database, system, .. } => {
                self.identities.insert(database.clone(), *system);
            }
            Record::Declined { gate, .. } => self.declined = Some(*gate),
            Record::RunOpened { plan, trigger, .. } => {
                self.epoch = plan.epoch;
                self.declined = None;
                self.phase = Phase::Running(Box::new(Run::open((**plan).clone(), trigger.clone(), at)));
            }
            Record::StepStarted { .. }
            | Record::StepEnded { .. }
            | Record::LossMeasured { .. }
            | Record::Asked { .. }
            | Record::Approved { .. }
            | Record::LossCounted { .. }
            | Record::Reopened { .. } => self.apply_to_run(at, record),
            Record::PrimaryMoved { region, .. } => self.apply_move(at, region),
            Record::Stranded { reason, .. } => self.swap_phase(|phase| match phase {
                Phase::Running(mut run) => {
                    // One that lapsed would strand it again whenever a person lets it go on.
                    run.question = None;
                    run.assents.clear();
                    Phase::Stranded(run, reason.clone())
                }
                other => other,
            }),
            Record::Continued { .. } | Record::Unwinding { .. } | Record::StepSkipped { .. } => {
                self.swap_phase(|phase| match phase {
                    Phase::Stranded(run, _) => Phase::Running(run),
                    other => other,
                });
                self.apply_to_run(at, record);
            }
            Record::RunEnded { run, ending, .. } => self.apply_end(at, run, *ending),
            Record::Paused { by, reason, until, .. } => {
                self.pause = Some(Pause { by: by.clone(), reason: reason.clone(), until: *until });
            }
            Record::Resumed { .. } => self.pause = None,
        }
    }

    fn swap_phase(&mut self, change: impl FnOnce(Phase) -> Phase) {
        let phase = std::mem::replace(&mut self.phase, Phase::Guarding);
        self.phase = change(phase);
    }

    fn apply_verdict(&mut self, at: Moment, region: &RegionName, verdict: Verdict) {
        self.verdicts.insert(region.clone(), verdict);
        if verdict == Verdict::Healthy {
            self.healthy_since.entry(region.clone()).or_insert(at);
            self.kept_out.remove(region);
        } else {
            self.healthy_since.remove(region);
        }
        if *region == self.primary {
            self.settle();
        }
    }

    /// Guarding or doubting, by how the primary was last recorded to look.
    fn settle(&mut self) {
        let verdict = self.verdicts.get(&self.primary).copied();
        if verdict != Some(Verdict::Lost) {
            self.declined = None;
        }
        if verdict == Some(Verdict::Healthy) {
            self.fruitless = None;
        }
        match self.phase {
            Phase::Guarding | Phase::Doubting => {
                let healthy = verdict.is_none_or(|v| v == Verdict::Healthy);
                self.phase = if healthy { Phase::Guarding } else { Phase::Doubting };
            }
            Phase::Running(_) | Phase::Stranded(..) => {}
        }
    }

    fn apply_to_run(&mut self, at: Moment, record: &Record) {
        let Phase::Running(run) = &mut self.phase else { return };
        run.apply(at, record);
        if let Record::StepEnded { outcome: Outcome::Succeeded(Output::Promoted { promotions }), .. } = record
        {
            for (database, promotion) in promotions {
                self.timelines.insert(database.clone(), promotion.timeline);
            }
        }
        if let Record::StepEnded { step, outcome: Outcome::Succeeded(_), undo: false, .. } = record {
            let index = run.plan.steps.iter().position(|s| s.name == *step);
            if let Some(Progress::Done { took }) = index.map(|i| &run.progress[i]) {
                let timings = self.timings.entry(step.clone()).or_default();
                timings.push(*took);
                let extra = timings.len().saturating_sub(TIMINGS_KEPT);
                timings.drain(..extra);
            }
        }
    }

    fn apply_move(&mut self, at: Moment, region: &RegionName) {
        let automatic = self.phase.run().is_some_and(|run| run.trigger == Trigger::Automatic);
        let behind = self.phase.run().filter(|run| run.plan.kind == Kind::Failover);
        if let Some(from) = behind.map(|run| run.plan.from.clone()) {
            self.left.insert(from);
        }
        self.left.remove(region);
        self.primary = region.clone();
        // A planned move lost nothing and left a standby: it is no reason to wait with a failover.
        let unplanned = self.phase.run().is_none_or(|run| run.plan.kind == Kind::Failover);
        if unplanned {
            self.moves.push((at, automatic));
        }
        let extra = self.moves.len().saturating_sub(MOVES_KEPT);
        self.moves.drain(..extra);
        self.declined = None;
    }

    fn apply_end(&mut self, at: Moment, run: &RunId, ending: Ending) {
        let ended = self.phase.run().map(|run| (run.plan.kind, run.plan.from.clone(), run.readmits()));
        self.last_run = Some(run.clone());
        self.phase = Phase::Guarding;
        let again = |known: Option<(Moment, u32)>| Some((at, known.map_or(0, |(_, times)| times) + 1));
        match (ended, ending) {
            (Some((Kind::Rejoin, region, readmits)), Ending::Done) => {
                self.rejoins_failed = None;
                self.left.remove(&region);
                if !readmits {
                    self.kept_out.insert(region);
                }
            }
            (Some((Kind::Rejoin, ..)), _) => self.rejoins_failed = again(self.rejoins_failed),
            (Some((Kind::Switchover | Kind::Failback, region, false)), Ending::Done) => {
                // Left closed: nobody can make it a standby but a person.
                self.kept_out.insert(region);
                self.fruitless = None;
            }
            (_, Ending::Done) => self.fruitless = None,
            // That a planned move came to nothing is no reason to wait with a failover.
            (Some((Kind::Switchover | Kind::Failback, ..)), _) => {}
            (Some((Kind::Failover, ..)) | None, _) => self.fruitless = again(self.fruitless),
        }
        self.settle();
    }
}
