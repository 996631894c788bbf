//! Standing by: an agent that shares its record follows it, looks, and decides nothing.
//!
//! **Invariant:** while it stands by, a guardian writes nothing and commands nothing; its record changes only by what
//! the one who decides has written.

use std::collections::BTreeMap;

use lifeboat_runbooks::Kind;

use super::{Guardian, Workload};
use crate::decision::{Decision, Notice, Severity};
use crate::event::{Event, Witnessing};
use crate::gates::Gates;
use crate::head::Head;
use crate::ledger::Ledger;
use crate::names::{AgentName, RegionName, WorkloadName};
use crate::order::Answer;
use crate::plan::Action;
use crate::reason::Reason;
use crate::record::{Record, Stamped};
use crate::run::{Progress, Run};
use crate::sighting::Sighting;
use crate::status::Verdict;
use crate::testimony::{Beat, Seen, Testimony};
use crate::time::Moment;

impl Guardian {
    /// Decides nothing until it is elected: for an agent that shares its record with others.
    pub fn stand_by(&mut self) {
        self.standing = true;
    }

    /// Whether this agent decides now.
    pub fn decides(&self) -> bool {
        !self.standing
    }

    /// All agents that share the record, each with the place that it fails with.
    pub fn agents(&self) -> &BTreeMap<AgentName, RegionName> {
        &self.agents
    }

    /// Makes the durable state anew from these records, keeps what was seen, and stands by.
    pub fn reread(&mut self, records: &[Stamped]) {
        for workload in self.workloads.values_mut() {
            workload.ledger = Ledger::new(&workload.policy);
        }
        self.orphans.clear();
        records.iter().for_each(|stamped| self.take_in(stamped));
        self.stand_by();
    }

    /// Takes one record of the past in.
    pub(super) fn take_in(&mut self, stamped: &Stamped) {
        let Some(name) = stamped.record.workload() else { return };
        match (self.workloads.get_mut(name), &stamped.record) {
            (Some(workload), record) => workload.ledger.apply(stamped.at, record),
            (None, Record::RunOpened { run, .. }) => {
                self.orphans.insert(name.clone(), run.clone());
            }
            (None, Record::RunEnded { .. }) => {
                self.orphans.remove(name);
            }
            (None, _) => {}
        }
    }

    /// What the sentries of each workload must know of the record.
    pub fn heads(&self) -> BTreeMap<WorkloadName, Head> {
        self.workloads.iter().map(|(name, workload)| (name.clone(), workload.head())).collect()
    }

    /// What this vantage says of every region, echoing the newest beat it has seen.
    pub fn testimony(&self, now: Moment, sequence: u64, echo: Option<Beat>) -> Testimony {
        let each = self.workloads.iter().map(|(name, workload)| {
            let gates = self.gates(workload, now);
            let regions = workload.policy.regions().map(|region| (region.clone(), self.seen(&gates, region)));
            (name.clone(), regions.collect())
        });
        Testimony { vantage: self.agent.clone(), sequence, echo, regions: each.collect() }
    }

    fn seen(&self, gates: &Gates<'_>, region: &RegionName) -> Seen {
        let judged = gates.judged(region);
        let freshness = gates.workload.policy.failover.freshness;
        let proof =
            self.witnesses.proof(&self.agent, &self.connectivity, gates.now, freshness, judged.trouble);
        let proven = judged.verdict == Verdict::Lost && proof.is_ok();
        Seen { verdict: judged.verdict, reason: judged.reason, proven, age: None }
    }

    /// What happens while it stands by.
    pub(super) fn stand(&mut self, now: Moment, event: Event) -> Decision {
        match event {
            Event::Started => self.started = Some(now),
            Event::Sighted(sighting) => self.see(&sighting),
            Event::Witnessed(witnessing) => self.hear(now, witnessing),
            Event::Recorded(stamped) => self.take_in(&stamped),
            Event::Elected { .. } => {
                self.standing = false;
                return self.start(now);
            }
            Event::Coordinated(Err(text)) => {
                let told = self.workloads.keys().map(|workload| Notice {
                    workload: workload.clone(),
                    severity: Severity::Critical,
                    run: None,
                    reason: Reason::Told { text: text.clone() },
                    loss: None,
                });
                return Decision { notices: told.collect(), ..Decision::default() };
            }
            Event::Ordered(_) => {
                let reason = Reason::NobodyDecides { because: "this agent stands by".to_owned() };
                return Decision { answer: Some(Answer::Refused { reason }), ..Decision::default() };
            }
            Event::Tick
            | Event::Testified(_)
            | Event::Silenced(_)
            | Event::Deposed
            | Event::Beaten(_)
            | Event::Coordinated(Ok(()))
            | Event::Guarded { .. }
            | Event::StepEnded { .. } => {}
        }
        Decision::default()
    }

    fn see(&mut self, sighting: &Sighting) {
        let Some(workload) = self.workloads.get_mut(&sighting.workload) else { return };
        let stranger = workload.stranger(sighting);
        workload.survey.note(&workload.policy, stranger.as_ref().unwrap_or(sighting));
    }

    fn hear(&mut self, now: Moment, witnessing: Witnessing) {
        let vantage = witnessing.vantage.clone();
        if self.witnesses.note(witnessing, &self.connectivity, now) {
            self.workloads.values_mut().for_each(|workload| workload.survey.regain(&vantage, now));
        }
    }
}

impl Workload {
    fn head(&self) -> Head {
        let moving = self.ledger.phase.run().filter(|run| run.plan.kind != Kind::Rejoin && !run.promoted());
        let closing = moving.is_some_and(|run| run.back.is_none() && fence_begun(run));
        Head {
            epoch: self.ledger.epoch,
            holder: self.ledger.primary.clone(),
            closing,
            coming: moving.filter(|run| run.past_return).map(|run| run.plan.to.clone()),
        }
    }
}

fn fence_begun(run: &Run) -> bool {
    let mut steps = run.plan.steps.iter().zip(&run.progress);
    steps.any(|(step, progress)| {
        matches!(step.action, Action::Fence { .. }) && !matches!(progress, Progress::Waiting)
    })
}
