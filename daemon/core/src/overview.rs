//! The whole picture, put together for `status`: nothing is decided here.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::gates::Gates;
use crate::guardian::{Guardian, Workload};
use crate::machine::Phase;
use crate::names::{AgentName, DatabaseName, RegionName};
use crate::reason::Reason;
use crate::run::Run;
use crate::sighting::{DatabaseSample, DatabaseState};
use crate::status::{
    ConnectivityStatus, CoordinationStatus, DatabaseStatus, DeciderStatus, ProbeState, ProbeStatus,
    RegionStatus, RunStatus, SeenStatus, SentryStatus, Status, VantageStatus, WorkloadStatus,
};
use crate::testimony::Seen;
use crate::time::Moment;

impl Guardian {
    /// All that is known now.
    pub fn status(&self, now: Moment) -> Status {
        let freshness =
            self.workloads.values().map(|w| w.policy.failover.freshness).min().unwrap_or_default();
        let proof = self.witnesses.proof(self.agent(), self.connectivity(), now, freshness, None);
        let connectivity = match proof {
            Ok(reason) => ConnectivityStatus { proven: true, reason },
            Err(reason) => ConnectivityStatus { proven: false, reason },
        };
        let workloads = self.workloads.iter().map(|(name, workload)| {
            let gates = self.gates(workload, now);
            (name.clone(), workload_status(&gates))
        });
        Status {
            agent: self.agent().clone(),
            at: now,
            decider: self.decider_status(),
            coordination: self.coordination_status(),
            vantages: self.vantages(now),
            connectivity,
            workloads: workloads.collect(),
        }
    }
}

impl Guardian {
    fn decider_status(&self) -> Option<DeciderStatus> {
        let (agent, term, since) = self.decider.clone()?;
        let here = agent == *self.agent() && self.decides();
        Some(DeciderStatus { agent, term, since, here })
    }

    fn coordination_status(&self) -> Option<CoordinationStatus> {
        let reason = self.coordination.as_ref().err();
        let reason =
            reason.map(|(since, what)| Reason::CoordinationLost { since: *since, what: what.clone() });
        (!self.agents.is_empty()).then(|| CoordinationStatus { reached: reason.is_none(), reason })
    }

    fn vantages(&self, now: Moment) -> BTreeMap<AgentName, VantageStatus> {
        let each =
            self.agents.iter().map(|(vantage, place)| (vantage.clone(), self.vantage(vantage, place, now)));
        each.collect()
    }

    fn vantage(&self, vantage: &AgentName, place: &RegionName, now: Moment) -> VantageStatus {
        let here = vantage == self.agent();
        let sees = self.workloads.iter().map(|(name, workload)| {
            let gates = self.gates(workload, now);
            let regions = workload.policy.regions();
            let regions =
                regions.filter_map(|region| Some((region.clone(), seen_by(&gates, vantage, region)?)));
            (name.clone(), regions.collect::<BTreeMap<_, _>>())
        });
        let sees = sees.collect();
        let (connected, heard, age) = if here {
            let connected = self.workloads.values().all(|w| self.gates(w, now).own_connectivity().is_ok());
            (Some(connected), Some(Duration::ZERO), Some(Duration::ZERO))
        } else {
            (self.council.connected(vantage), self.council.came(vantage, now), self.council.age(vantage, now))
        };
        VantageStatus { place: place.clone(), here, connected, heard, age, sees }
    }
}

/// What each vantage says of a region; nothing for an agent that is alone.
pub(crate) fn seen_by_all(gates: &Gates<'_>, region: &RegionName) -> BTreeMap<AgentName, SeenStatus> {
    let each = gates.agents.keys();
    each.filter_map(|vantage| Some((vantage.clone(), seen_by(gates, vantage, region)?))).collect()
}

fn seen_by(gates: &Gates<'_>, vantage: &AgentName, region: &RegionName) -> Option<SeenStatus> {
    let seen = if vantage == gates.agent {
        gates.seen_here(region)
    } else {
        gates.council.heard(vantage, &gates.workload.policy.name, region, gates.now)?.seen.clone()
    };
    let Seen { verdict, reason, proven, .. } = seen;
    Some(SeenStatus { verdict, reason, proven, abstains: gates.vote(vantage, region).err() })
}

fn sentries(gates: &Gates<'_>) -> BTreeMap<RegionName, SentryStatus> {
    let w = gates.workload;
    let each = w.policy.sentries.iter().map(|region| {
        let says = w.guarded.get(region);
        let since = says.map(|(_, at)| gates.now.since(*at));
        (region.clone(), SentryStatus { says: says.map(|(says, _)| *says), since })
    });
    each.collect()
}

fn workload_status(gates: &Gates<'_>) -> WorkloadStatus {
    let Workload { policy, ledger, .. } = gates.workload;
    let regions = policy.regions().map(|region| (region.clone(), region_status(gates, region)));
    let pause = ledger.pause.as_ref().map(|pause| Reason::PausedUntil {
        until: pause.until,
        by: pause.by.clone(),
        why: pause.reason.clone(),
    });
    let watching = matches!(ledger.phase, Phase::Guarding | Phase::Doubting);
    let phase =
        if watching && pause.is_some() { crate::status::PhaseName::Paused } else { ledger.phase.name() };
    WorkloadStatus {
        phase,
        primary: ledger.primary.clone(),
        epoch: ledger.epoch,
        regions: regions.collect(),
        paused: pause,
        maintenance: policy.maintenance_until(gates.now).map(|until| Reason::MaintenanceUntil { until }),
        kept_out: ledger.kept_out.clone(),
        sentries: sentries(gates),
        run: run_status(&ledger.phase),
        conditions: gates.conditions(),
        rto: policy.objectives.rto,
        rpo: policy.objectives.rpo,
    }
}

fn run_status(phase: &Phase) -> Option<RunStatus> {
    let (run, stranded): (&Run, Option<&Reason>) = match phase {
        Phase::Guarding | Phase::Doubting => return None,
        Phase::Running(run) => (run, None),
        Phase::Stranded(run, reason) => (run, Some(reason)),
    };
    let question = run.question.as_ref().map(|(question, _)| question.clone());
    Some(RunStatus {
        run: run.id().clone(),
        kind: run.plan.kind,
        from: run.plan.from.clone(),
        to: run.plan.to.clone(),
        opened: run.opened,
        step: run.current().map(|(_, step, _)| step.name.clone()),
        answer: question.as_ref().map(|q| q.command(run.id())),
        question,
        stranded: stranded.cloned(),
        assents: run.assents.clone(),
        back: run.back.as_ref().map(|(_, reason)| reason.clone()),
        past_return: run.past_return,
    })
}

fn region_status(gates: &Gates<'_>, region: &RegionName) -> RegionStatus {
    let judged = gates.judged(region);
    let databases = gates.workload.policy.databases.keys();
    RegionStatus {
        primary: *region == gates.workload.ledger.primary,
        verdict: judged.verdict,
        reason: judged.reason,
        probes: probes(gates, region),
        databases: databases.filter_map(|d| Some((d.clone(), database_status(gates, region, d)?))).collect(),
    }
}

fn probes(gates: &Gates<'_>, region: &RegionName) -> BTreeMap<crate::names::ProbeName, ProbeStatus> {
    let Workload { policy, survey, .. } = gates.workload;
    let here = policy.probes.iter().filter(|(_, p)| p.region == *region);
    let each = here.map(|(name, _)| {
        let health = survey.probe(gates.agent, name).cloned().unwrap_or_default();
        let state = health.state(gates.now, policy.failover.freshness);
        let failure = health.last.as_ref().filter(|_| state != ProbeState::Up).map(ToString::to_string);
        let age = health.seen.map(|seen| gates.now.since(seen));
        (name.clone(), ProbeStatus { state, age, took: health.took, failure })
    });
    each.collect()
}

fn database_status(
    gates: &Gates<'_>,
    region: &RegionName,
    database: &DatabaseName,
) -> Option<DatabaseStatus> {
    let Workload { ledger, survey, .. } = gates.workload;
    let (at, sample) = survey.sample(region, database)?;
    let primary = survey.sample(&ledger.primary, database).filter(|_| *region != ledger.primary);
    let lag = primary.and_then(|(_, primary)| behind(primary, sample));
    Some(DatabaseStatus {
        sample: sample.clone(),
        age: gates.now.since(*at),
        lag_bytes: lag.map(|(bytes, _)| bytes),
        lag: lag.and_then(|(_, length)| length),
    })
}

/// How far a standby is behind its primary, in bytes and in heartbeats.
fn behind(primary: &DatabaseSample, standby: &DatabaseSample) -> Option<(u64, Option<std::time::Duration>)> {
    match (&primary.state, &standby.state) {
        (DatabaseState::Primary { written, heartbeat, .. }, DatabaseState::Standby(position)) => {
            let length = heartbeat.zip(position.heartbeat).map(|(newest, replayed)| newest.since(replayed));
            Some((written.ahead_of(position.received), length))
        }
        _ => None,
    }
}
