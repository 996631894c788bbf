//! Each gate of an automatic failover, looked at with the numbers of this moment.

use std::collections::BTreeMap;

use crate::condition::{Condition, Gate};
use crate::council::Council;
use crate::guardian::{Standing, Workload};
use crate::head::Guarded;
use crate::health::{Glance, Judgement, Trouble};
use crate::names::{AgentName, RegionName};
use crate::policy::ConnectivityPolicy;
use crate::reason::Reason;
use crate::sighting::DatabaseState;
use crate::status::Verdict;
use crate::survey::Witnesses;
use crate::testimony::Seen;
use crate::time::Moment;

/// The longest wait after runs that came to nothing.
const LONGEST_HOLD_OFF: std::time::Duration = std::time::Duration::from_secs(3600);

/// Everything that the gates are looked at with.
#[derive(Clone, Copy)]
pub(crate) struct Gates<'a> {
    pub(crate) agent: &'a AgentName,
    pub(crate) connectivity: &'a ConnectivityPolicy,
    pub(crate) witnesses: &'a Witnesses,
    pub(crate) agents: &'a BTreeMap<AgentName, RegionName>,
    pub(crate) council: &'a Council,
    pub(crate) standing: Standing,
    pub(crate) decider: Option<&'a AgentName>,
    pub(crate) workload: &'a Workload,
    pub(crate) now: Moment,
}

/// Looks at one gate.
type Look<'a> = fn(&Gates<'a>, &Judgement) -> Result<Reason, Reason>;

impl Gates<'_> {
    /// All gates, in order.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        let judged = self.judged(&self.workload.ledger.primary);
        let each = self.looks().map(|(gate, look)| match look(self, &judged) {
            Ok(reason) => Condition { gate, holds: true, reason },
            Err(reason) => Condition { gate, holds: false, reason },
        });
        each.collect()
    }

    /// The first gate that is shut; those behind it are not looked at.
    pub(crate) fn shut(&self) -> Option<Condition> {
        let judged = self.judged(&self.workload.ledger.primary);
        self.looks().find_map(|(gate, look)| {
            let reason = look(self, &judged).err()?;
            Some(Condition { gate, holds: false, reason })
        })
    }

    fn looks(&self) -> impl Iterator<Item = (Gate, Look<'_>)> {
        let decides: Option<(Gate, Look<'_>)> =
            (!self.agents.is_empty()).then_some((Gate::Decides, |gates, _| gates.decides()));
        let looks: [(Gate, Look<'_>); 10] = [
            (Gate::PrimaryLost, |gates, judged| gates.primary_lost(judged)),
            (Gate::Connectivity, |gates, judged| gates.connectivity(judged)),
            (Gate::Quorum, |gates, _| gates.quorum()),
            (Gate::NotPaused, |gates, _| gates.not_paused()),
            (Gate::NoRunOpen, |gates, _| gates.no_run_open()),
            (Gate::TargetAnswers, |gates, _| gates.target().map(|region| Reason::TargetAnswers { region })),
            (Gate::Identity, |gates, _| gates.identity()),
            (Gate::Cooldown, |gates, _| gates.cooldown()),
            (Gate::Budget, |gates, _| gates.budget()),
            (Gate::HoldOff, |gates, _| gates.hold_off()),
        ];
        decides.into_iter().chain(looks)
    }

    /// How a region is judged: by this agent when it is alone, else lost when a quorum says so, and only then.
    pub(crate) fn judged(&self, region: &RegionName) -> Judgement {
        if self.judges_alone() {
            return self.judged_here(region);
        }
        let own = self.glance_here(region);
        let quorum = self.quorum_of_agents(region, own);
        match (own.verdict, quorum) {
            (Verdict::Lost, Err(reason)) => {
                Judgement { verdict: Verdict::Doubtful, reason, trouble: own.trouble }
            }
            (Verdict::Lost, Ok(_)) | (_, Err(_)) => self.judged_here(region),
            (_, Ok(reason)) => Judgement { verdict: Verdict::Lost, reason, trouble: None },
        }
    }

    /// The same verdict, without words.
    pub(crate) fn verdict(&self, region: &RegionName) -> Verdict {
        let own = self.glance_here(region);
        if self.judges_alone() {
            return own.verdict;
        }
        match (own.verdict, self.quorate(region, own)) {
            (_, true) => Verdict::Lost,
            (Verdict::Lost, false) => Verdict::Doubtful,
            (verdict, false) => verdict,
        }
    }

    /// Without beats of its own an agent that stands by cannot date what the others say; it shows what it sees.
    fn judges_alone(&self) -> bool {
        self.agents.is_empty() || self.standing == Standing::By
    }

    /// What this vantage says of a region to the others.
    pub(crate) fn seen_here(&self, region: &RegionName) -> Seen {
        let w = self.workload;
        let judged = self.judged_here(region);
        let trouble = judged.trouble.filter(|_| judged.verdict == Verdict::Lost);
        let freshness = w.policy.failover.freshness;
        let proven = self.witnesses.proves(self.agent, self.connectivity, self.now, freshness, trouble);
        let age = w.survey.oldest(&w.policy, self.agent, region, self.now);
        Seen { verdict: judged.verdict, reason: judged.reason, proven, age }
    }

    /// How this agent judges a region by what it sees itself.
    pub(crate) fn judged_here(&self, region: &RegionName) -> Judgement {
        let w = self.workload;
        let judged = w.survey.judge(&w.policy, self.agent, region, &w.ledger.primary, self.now);
        if *region == w.ledger.primary || judged.verdict != Verdict::Healthy {
            return judged;
        }
        // A standby region that answers as a primary answers, and is anything but healthy.
        let second = w.survey.second_primary(&w.policy, &w.ledger.primary, self.now);
        match second.filter(|reason| reason.is_about(region)) {
            Some(reason) => Judgement { verdict: Verdict::Doubtful, reason, trouble: None },
            None => judged,
        }
    }

    /// The same, without words.
    fn glance_here(&self, region: &RegionName) -> Glance {
        let (w, now) = (self.workload, self.now);
        let glance = w.survey.glance(&w.policy, self.agent, region, &w.ledger.primary, now);
        if *region == w.ledger.primary || glance.verdict != Verdict::Healthy {
            return glance;
        }
        match w.survey.second_primary_at(&w.policy, &w.ledger.primary, now) {
            Some((second, _)) if second == region => Glance { verdict: Verdict::Doubtful, trouble: None },
            _ => glance,
        }
    }

    /// Whether this agent can prove its own connectivity, trouble or none.
    pub(crate) fn connected(&self) -> bool {
        let freshness = self.workload.policy.failover.freshness;
        self.witnesses.proves(self.agent, self.connectivity, self.now, freshness, None)
    }

    /// The same, with the numbers.
    pub(crate) fn own_connectivity(&self) -> Result<Reason, Reason> {
        let freshness = self.workload.policy.failover.freshness;
        self.witnesses.proof(self.agent, self.connectivity, self.now, freshness, None)
    }

    /// How the old primary of a run looks: lost only while the quorum says so.
    pub(crate) fn confirmed(&self, region: &RegionName) -> Verdict {
        match self.verdict(region) {
            // With others, it is lost only if the quorum says so.
            Verdict::Lost if self.judges_alone() && self.quorum_about(region).is_err() => Verdict::Doubtful,
            verdict => verdict,
        }
    }

    fn primary_lost(&self, judged: &Judgement) -> Result<Reason, Reason> {
        let reason = Reason::PrimaryVerdict {
            region: self.workload.ledger.primary.clone(),
            verdict: judged.verdict,
            because: Box::new(judged.reason.clone()),
        };
        if judged.verdict == Verdict::Lost { Ok(reason) } else { Err(reason) }
    }

    fn connectivity(&self, judged: &Judgement) -> Result<Reason, Reason> {
        let freshness = self.workload.policy.failover.freshness;
        // With others, the trouble is theirs to prove as well; here it matters that this agent can act.
        let alone = self.agents.is_empty();
        let trouble = judged.trouble.filter(|_| judged.verdict == Verdict::Lost && alone);
        self.witnesses.proof(self.agent, self.connectivity, self.now, freshness, trouble)
    }

    /// Whether this agent is the one who decides.
    fn decides(&self) -> Result<Reason, Reason> {
        match self.standing {
            Standing::Alone | Standing::Deciding { .. } => Ok(Reason::Decides { agent: self.agent.clone() }),
            Standing::By => Err(Reason::NotDeciding { decider: self.decider.cloned() }),
        }
    }

    fn quorum(&self) -> Result<Reason, Reason> {
        self.quorum_about(&self.workload.ledger.primary)
    }

    fn quorum_about(&self, region: &RegionName) -> Result<Reason, Reason> {
        if !self.agents.is_empty() {
            return self.quorum_of_agents(region, self.glance_here(region));
        }
        let (w, needed) = (self.workload, self.workload.policy.failover.quorum);
        let votes = w.survey.vantages().filter(|vantage| {
            let judged = w.survey.judge(&w.policy, vantage, region, &w.ledger.primary, self.now);
            let freshness = w.policy.failover.freshness;
            let proof =
                || self.witnesses.proof(vantage, self.connectivity, self.now, freshness, judged.trouble);
            judged.verdict == Verdict::Lost && proof().is_ok()
        });
        let lost = votes.count();
        let reason = Reason::Quorum { region: region.clone(), lost, needed };
        if lost >= needed && needed > 0 { Ok(reason) } else { Err(reason) }
    }

    /// Whether enough of the agents, and enough of those outside the region, see it as lost and can prove that it is not
    /// their own network.
    fn quorum_of_agents(&self, region: &RegionName, own: Glance) -> Result<Reason, Reason> {
        let policy = &self.workload.policy.failover;
        let (lost, outside) = self.count_votes(region, own);
        let (needed, region) = (policy.quorum, region.clone());
        if lost < needed || needed == 0 {
            return Err(Reason::Quorum { region, lost, needed });
        }
        if outside < policy.outside {
            return Err(Reason::QuorumOutside { region, outside, needed: policy.outside });
        }
        Ok(Reason::Quorum { region, lost, needed })
    }

    /// The same, without words.
    fn quorate(&self, region: &RegionName, own: Glance) -> bool {
        let policy = &self.workload.policy.failover;
        let (lost, outside) = self.count_votes(region, own);
        lost >= policy.quorum && policy.quorum > 0 && outside >= policy.outside
    }

    /// How many agents see the region as lost, as votes; and how many of them are outside it.
    fn count_votes(&self, region: &RegionName, own: Glance) -> (usize, usize) {
        let (workload, freshness) = (&self.workload.policy.name, self.workload.policy.failover.freshness);
        let voters = self.agents.iter().filter(|(vantage, _)| {
            if *vantage == self.agent {
                return own.verdict == Verdict::Lost && self.looked_since(own.trouble) && {
                    let (agent, policy) = (self.agent, self.connectivity);
                    self.witnesses.proves(agent, policy, self.now, freshness, own.trouble)
                };
            }
            self.council.votes(vantage, workload, region, self.now, freshness)
        });
        voters.fold((0, 0), |(lost, outside), (_, place)| (lost + 1, outside + usize::from(place != region)))
    }

    /// Whether it looked at the trouble after it last stood still: what was under way meanwhile failed for no other reason.
    fn looked_since(&self, trouble: Option<Trouble>) -> bool {
        trouble.is_none_or(|trouble| self.council.awake_since(trouble.confirmed))
    }

    /// Whether an agent's word that a region is lost counts; else why it does not.
    pub(crate) fn vote(&self, vantage: &AgentName, region: &RegionName) -> Result<(), Reason> {
        let w = self.workload;
        if vantage != self.agent {
            return self.council.vote(vantage, &w.policy.name, region, self.now, w.policy.failover.freshness);
        }
        self.own_vote(&self.judged_here(region))
    }

    fn own_vote(&self, judged: &Judgement) -> Result<(), Reason> {
        if judged.verdict != Verdict::Lost {
            return Err(judged.reason.clone());
        }
        if !self.looked_since(judged.trouble) {
            return Err(Reason::VantageUnproven { vantage: self.agent.clone() });
        }
        let freshness = self.workload.policy.failover.freshness;
        self.witnesses.proof(self.agent, self.connectivity, self.now, freshness, judged.trouble).map(drop)
    }

    fn not_paused(&self) -> Result<Reason, Reason> {
        match &self.workload.ledger.pause {
            Some(pause) if self.now < pause.until => Err(Reason::PausedUntil {
                until: pause.until,
                by: pause.by.clone(),
                why: pause.reason.clone(),
            }),
            _ => {
                let open = self.workload.policy.maintenance_until(self.now);
                open.map_or(Ok(Reason::NotPaused), |until| Err(Reason::MaintenanceUntil { until }))
            }
        }
    }

    fn no_run_open(&self) -> Result<Reason, Reason> {
        let run = self.workload.ledger.phase.run();
        run.map_or(Ok(Reason::NoRunOpen), |run| Err(Reason::RunOpen { run: run.id().clone() }))
    }

    /// The region that would take over: the first in the operator's order that answers.
    pub(crate) fn target(&self) -> Result<RegionName, Reason> {
        let w = self.workload;
        let mut shut = None;
        for region in w.policy.regions().filter(|r| **r != w.ledger.primary) {
            match self.target_answers(region) {
                Ok(()) => return Ok(region.clone()),
                Err(reason) => shut = shut.or(Some(reason)),
            }
        }
        Err(shut.unwrap_or(Reason::NoTarget))
    }

    /// Whether a region could take over.
    pub(crate) fn target_answers(&self, region: &RegionName) -> Result<(), Reason> {
        let w = self.workload;
        let answers = w.survey.answers(&w.policy, self.agent, region, self.now);
        answers
            .and_then(|()| self.up_to_date(region))
            .map_err(|because| Reason::TargetDown { region: region.clone(), because: Box::new(because) })
    }

    /// Whether the region's databases have followed the workload's last move: one that was left, and has not
    /// rejoined, must not be moved to.
    fn up_to_date(&self, region: &RegionName) -> Result<(), Reason> {
        let w = self.workload;
        for (database, wanted) in &w.ledger.timelines {
            let Some((_, sample)) = w.survey.sample(region, database) else { continue };
            if sample.timeline < *wanted {
                let (database, region) = (database.clone(), region.clone());
                return Err(Reason::Outdated { database, region, found: sample.timeline, wanted: *wanted });
            }
        }
        Ok(())
    }

    /// Whether a planned move to the region would lose nothing: its databases stream from the primary.
    pub(crate) fn follows(&self, region: &RegionName) -> Result<(), Reason> {
        let w = self.workload;
        let follows =
            self.target_answers(region).and_then(|()| w.survey.streams(&w.policy, region, self.now));
        follows.map_err(|because| Reason::NotFollowing { region: region.clone(), because: Box::new(because) })
    }

    /// Whether a region that was away has been back for long enough.
    pub(crate) fn held_down(&self, region: &RegionName) -> Result<(), Reason> {
        let w = self.workload;
        let since = w.ledger.healthy_since.get(region).copied().unwrap_or(self.now);
        let ends = since + w.policy.failover.hold_down;
        if self.now >= ends {
            return Ok(());
        }
        Err(Reason::HeldDown { region: region.clone(), left: ends.since(self.now) })
    }

    /// An old primary that has returned, still believes it is one, and may be made a standby without asking.
    pub(crate) fn returned(&self) -> Option<(RegionName, Reason)> {
        self.stopped_behind().or_else(|| self.returned_writing())
    }

    /// A region that was left by a failover, whose database its sentry keeps stopped.
    fn stopped_behind(&self) -> Option<(RegionName, Reason)> {
        let w = self.workload;
        let stopped = |region: &&RegionName| {
            let says = w.guarded.get(*region).map(|(says, _)| *says);
            says == Some(Guarded::Stopped) && w.policy.hosts.contains(*region)
        };
        let region = w.ledger.left.iter().filter(|region| **region != w.ledger.primary).find(stopped)?;
        let wanted = w.policy.failover.rejoin && !w.ledger.kept_out.contains(region);
        let primary = wanted && self.verdict(&w.ledger.primary) == Verdict::Healthy;
        let ready = primary && self.not_paused().is_ok() && self.rejoin_hold_off();
        let because = Box::new(Reason::StoppedBySentry { region: region.clone() });
        ready.then(|| (region.clone(), Reason::Returned { region: region.clone(), because }))
    }

    fn returned_writing(&self) -> Option<(RegionName, Reason)> {
        let w = self.workload;
        let second = w.survey.second_primary(&w.policy, &w.ledger.primary, self.now)?;
        let Reason::TwoPrimaries { region, .. } = second.clone() else { return None };
        let older = w.policy.databases.keys().all(|database| {
            let here = w.survey.sample(&w.ledger.primary, database);
            let there = w.survey.sample(&region, database);
            // Promoted later than ours, or another cluster: then it is this agent's record that is old.
            here.zip(there).is_some_and(|((_, here), (_, there))| {
                there.timeline < here.timeline && there.system == here.system
            })
        });
        let primary = self.verdict(&w.ledger.primary) == Verdict::Healthy;
        let wanted = w.policy.failover.rejoin && !w.ledger.kept_out.contains(&region);
        let ready = older && primary && wanted && self.not_paused().is_ok() && self.rejoin_hold_off();
        ready.then(|| (region.clone(), Reason::Returned { region, because: Box::new(second) }))
    }

    /// Whether no database of the region is a primary on our timeline or a later one: then it is this agent's record
    /// that is old, and closing it would close the right one.
    pub(crate) fn left_behind(&self, region: &RegionName) -> Result<(), Reason> {
        let w = self.workload;
        for database in w.policy.databases.keys() {
            let here = w.survey.sample(&w.ledger.primary, database);
            let there = w.survey.sample(region, database);
            let Some(((_, here), (_, there))) = here.zip(there) else { continue };
            if matches!(there.state, DatabaseState::Primary { .. }) && there.timeline >= here.timeline {
                return Err(Reason::TwoPrimaries { database: database.clone(), region: region.clone() });
            }
        }
        Ok(())
    }

    /// A rejoin that failed is tried again later and later.
    fn rejoin_hold_off(&self) -> bool {
        let w = self.workload;
        w.ledger.rejoins_failed.is_none_or(|(at, times)| self.now >= at + self.longer_each_time(times))
    }

    fn longer_each_time(&self, times: u32) -> std::time::Duration {
        let wait = self.workload.policy.failover.freshness * 2u32.pow(times.clamp(1, 8) - 1);
        wait.min(LONGEST_HOLD_OFF)
    }

    /// Whether each database's cluster is known, and the target's standby belongs to it.
    fn identity(&self) -> Result<Reason, Reason> {
        let target = self.target().ok();
        self.identity_of(target.as_ref())
    }

    /// The same, for a target that a person chose.
    pub(crate) fn identity_of(&self, target: Option<&RegionName>) -> Result<Reason, Reason> {
        let w = self.workload;
        // Whichever region it is in: with a second primary nobody knows whose writes count.
        if let Some(second) = w.survey.second_primary(&w.policy, &w.ledger.primary, self.now) {
            return Err(second);
        }
        if let Some((region, found)) = w.survey.newest_epoch().filter(|(_, epoch)| *epoch > w.ledger.epoch) {
            return Err(Reason::NewerEpoch { region, found, known: w.ledger.epoch });
        }
        let mut known = Reason::NoDatabases;
        for database in w.policy.databases.keys() {
            let wanted = w.cluster_of(database);
            let wanted = wanted.ok_or_else(|| Reason::IdentityUnknown { database: database.clone() })?;
            known = Reason::IdentityKnown { database: database.clone(), system: wanted };
            let Some(region) = target else { continue };
            let Some((_, sample)) = w.survey.sample(region, database) else { continue };
            let (database, region) = (database.clone(), region.clone());
            if sample.system != wanted {
                return Err(Reason::WrongCluster { database, region, found: sample.system, wanted });
            }
            if matches!(sample.state, DatabaseState::Primary { .. }) {
                return Err(Reason::TwoPrimaries { database, region });
            }
        }
        Ok(known)
    }

    /// Whether a database of a region was lately seen as a primary.
    pub(crate) fn target_is_primary(&self, region: &RegionName) -> bool {
        let (w, freshness) = (self.workload, self.workload.policy.failover.freshness);
        let mut databases = w.policy.databases.keys();
        databases.any(|database| {
            let seen = w.survey.sample(region, database).filter(|(at, _)| self.now.since(*at) <= freshness);
            seen.is_some_and(|(_, sample)| matches!(sample.state, DatabaseState::Primary { .. }))
        })
    }

    fn cooldown(&self) -> Result<Reason, Reason> {
        let w = self.workload;
        let ends = w.ledger.moves.last().map(|(at, _)| *at + w.policy.failover.cooldown);
        match ends {
            Some(ends) if self.now < ends => Err(Reason::Cooling { left: ends.since(self.now) }),
            _ => Ok(Reason::CooledDown),
        }
    }

    fn budget(&self) -> Result<Reason, Reason> {
        let (moves, policy) = (&self.workload.ledger.moves, &self.workload.policy.failover);
        let recent =
            moves.iter().filter(|(at, automatic)| *automatic && self.now.since(*at) < policy.budget_window);
        let (used, budget, window) = (recent.count(), policy.budget, policy.budget_window);
        if used < budget {
            Ok(Reason::BudgetLeft { used, budget })
        } else {
            Err(Reason::BudgetSpent { used, budget, window })
        }
    }

    fn hold_off(&self) -> Result<Reason, Reason> {
        let w = self.workload;
        // Each run that comes to nothing doubles the wait, up to an hour: a person was told of the first.
        let ends = w.ledger.fruitless.map(|(at, times)| at + self.longer_each_time(times));
        match ends {
            Some(ends) if self.now < ends => Err(Reason::HeldOff { left: ends.since(self.now) }),
            _ => Ok(Reason::NothingFruitless),
        }
    }
}
