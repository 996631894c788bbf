//! What is seen now: the health of each region, the newest sample of each database, who can prove its own
//! connectivity. Lost at a restart, and rightly so: what was seen before is no evidence after.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::event::Witnessing;
use crate::health::{Glance, Judgement, Judging, ProbeHealth, Trouble, glance, judge};
use crate::loss::PrimarySample;
use crate::names::{AgentName, DatabaseName, Epoch, Lsn, ProbeName, RegionName};
use crate::policy::{ConnectivityPolicy, WorkloadPolicy};
use crate::reason::Reason;
use crate::sighting::{DatabaseSample, DatabaseState, Evidence, Sighting};
use crate::status::{ProbeState, Verdict};
use crate::time::Moment;

/// How many proofs of a vantage are kept: more than fit between two looks of any sensible probe.
const PROOFS_KEPT: usize = 64;

/// How many acknowledged heartbeats are kept: more than an hour of them at one a second.
const HEARTBEATS_KEPT: usize = 4096;

/// What the witnesses answered each vantage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witnesses {
    seen: BTreeMap<AgentName, Seen>,
}

/// What the witnesses answered one vantage.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// How many answered the last time, and when the asking began.
    newest: Option<(Moment, usize)>,
    /// When the askings began and ended that proved its connectivity, without one that failed since.
    proofs: VecDeque<(Moment, Moment)>,
}

impl Witnesses {
    /// Takes an asking in that ended now; says whether the vantage has just regained its connectivity.
    pub(crate) fn note(&mut self, witnessing: Witnessing, policy: &ConnectivityPolicy, now: Moment) -> bool {
        let seen = self.seen.entry(witnessing.vantage).or_default();
        let blind = seen.newest.is_some() && seen.proofs.is_empty();
        seen.newest = Some((witnessing.at, witnessing.answered));
        if witnessing.answered < policy.quorum || policy.quorum == 0 {
            seen.proofs.clear();
            return false;
        }
        if seen.proofs.len() == PROOFS_KEPT {
            seen.proofs.pop_front();
        }
        seen.proofs.push_back((witnessing.at, now));
        blind
    }

    /// Whether the vantage can prove its connectivity; and, when there is trouble, whether it proved it after
    /// the trouble began and before the look that last confirmed it. Without the latter, a network that has
    /// just healed would make the failures of its own outage count.
    pub(crate) fn proof(
        &self,
        vantage: &AgentName,
        policy: &ConnectivityPolicy,
        now: Moment,
        freshness: Duration,
        trouble: Option<Trouble>,
    ) -> Result<Reason, Reason> {
        let seen = self.seen.get(vantage);
        let newest = seen.and_then(|seen| seen.newest);
        let age = newest.map(|(at, _)| now.since(at));
        let fresh = age.is_some_and(|age| age <= freshness);
        let answered = newest.filter(|_| fresh).map_or(0, |(_, answered)| answered);
        let numbers = Reason::Connectivity {
            vantage: vantage.clone(),
            answered,
            witnesses: policy.witnesses,
            needed: policy.quorum,
            age,
        };
        if answered < policy.quorum || policy.quorum == 0 {
            return Err(numbers);
        }
        let Some(trouble) = trouble else { return Ok(numbers) };
        if seen.is_some_and(|seen| seen.proves(trouble)) {
            return Ok(numbers);
        }
        Err(Reason::ConnectivityUnconfirmed { vantage: vantage.clone(), since: trouble.since })
    }

    /// The same, without words.
    pub(crate) fn proves(
        &self,
        vantage: &AgentName,
        policy: &ConnectivityPolicy,
        now: Moment,
        freshness: Duration,
        trouble: Option<Trouble>,
    ) -> bool {
        let Some(seen) = self.seen.get(vantage) else { return false };
        let newest = seen.newest.filter(|(at, _)| now.since(*at) <= freshness);
        let enough = newest.is_some_and(|(_, answered)| answered >= policy.quorum && policy.quorum > 0);
        enough && trouble.is_none_or(|trouble| seen.proves(trouble))
    }
}

impl Seen {
    /// Whether an asking proved the connectivity after the trouble began and before it was last confirmed.
    fn proves(&self, trouble: Trouble) -> bool {
        // The newest is the likeliest.
        let mut proofs = self.proofs.iter().rev();
        proofs.any(|(began, ended)| *began >= trouble.since && *ended <= trouble.confirmed)
    }
}

/// What is seen of one workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// By vantage, then by probe.
    health: BTreeMap<AgentName, BTreeMap<ProbeName, ProbeHealth>>,
    /// The newest sample of each database in each region.
    samples: BTreeMap<(RegionName, DatabaseName), (Moment, DatabaseSample)>,
    /// When the look began that last saw a database as a standby, unless one has seen it as a primary since.
    standbys: BTreeMap<(RegionName, DatabaseName), Moment>,
    /// Where a primary was last seen committing, by database.
    primaries: BTreeMap<DatabaseName, (RegionName, PrimarySample)>,
    /// When the newest heartbeats were stamped that a primary acknowledged, and where its log ended then, by region and
    /// database, oldest first.
    acknowledged: BTreeMap<(RegionName, DatabaseName), VecDeque<(Moment, Lsn)>>,
}

impl Survey {
    /// Takes a sighting in; says whether a verdict may have changed.
    pub(crate) fn note(&mut self, policy: &WorkloadPolicy, sighting: &Sighting) -> bool {
        let Some(probe) = policy.probes.get(&sighting.probe) else { return false };
        if probe.region != sighting.region {
            return false;
        }
        if let Ok(Evidence::Database(sample)) = &sighting.look {
            if probe.database.as_ref() != Some(&sample.database) {
                return false;
            }
            self.note_sample(&sighting.region, sighting.at, sample);
            self.note_standby(sighting, sample);
        }
        // Looked up before it is inserted: a name is copied once per probe, not once per look.
        if !self.health.contains_key(&sighting.vantage) {
            self.health.insert(sighting.vantage.clone(), BTreeMap::new());
        }
        let Some(seen) = self.health.get_mut(&sighting.vantage) else { return false };
        if let Some(health) = seen.get_mut(&sighting.probe) {
            return health.note(probe, sighting.at, sighting.took, &sighting.look);
        }
        let mut health = ProbeHealth::default();
        health.note(probe, sighting.at, sighting.took, &sighting.look);
        seen.insert(sighting.probe.clone(), health);
        true
    }

    fn note_sample(&mut self, region: &RegionName, at: Moment, sample: &DatabaseSample) {
        if let DatabaseState::Primary { written, synchronous, heartbeat: Some(stamped) } = &sample.state {
            let (synchronous, marks) = (synchronous.clone(), Vec::new());
            let seen = PrimarySample { at, written: *written, synchronous, continuous: true, marks };
            self.primaries.insert(sample.database.clone(), (region.clone(), seen));
            let place = (region.clone(), sample.database.clone());
            let kept = self.acknowledged.entry(place).or_default();
            if kept.len() == HEARTBEATS_KEPT {
                kept.pop_front();
            }
            kept.push_back((*stamped, *written));
        }
        self.samples.insert((region.clone(), sample.database.clone()), (at, sample.clone()));
    }

    fn note_standby(&mut self, sighting: &Sighting, sample: &DatabaseSample) {
        let place = (sighting.region.clone(), sample.database.clone());
        match sample.state {
            DatabaseState::Standby(_) => self.standbys.insert(place, sighting.at.before(sighting.took)),
            DatabaseState::Primary { .. } => self.standbys.remove(&place),
        };
    }

    /// Whether every database of a region was seen as a standby by a look that began after a moment, and by none as a primary
    /// since.
    pub(crate) fn follows_since(&self, policy: &WorkloadPolicy, region: &RegionName, moment: Moment) -> bool {
        let began = |database: &DatabaseName| self.standbys.get(&(region.clone(), database.clone()));
        policy.databases.keys().all(|database| began(database).is_some_and(|began| *began > moment))
    }

    /// How a vantage judges a region.
    pub(crate) fn judge(
        &self,
        policy: &WorkloadPolicy,
        vantage: &AgentName,
        region: &RegionName,
        primary: &RegionName,
        now: Moment,
    ) -> Judgement {
        let judging =
            Judging { region, primary: region == primary, now, freshness: policy.failover.freshness };
        judge(judging, &policy.probes, self.health.get(vantage))
    }

    /// The same, without words.
    pub(crate) fn glance(
        &self,
        policy: &WorkloadPolicy,
        vantage: &AgentName,
        region: &RegionName,
        primary: &RegionName,
        now: Moment,
    ) -> Glance {
        let judging =
            Judging { region, primary: region == primary, now, freshness: policy.failover.freshness };
        glance(judging, &policy.probes, self.health.get(vantage))
    }

    /// How old the oldest newest look is of the probes that count for a region; none when one has not looked yet.
    pub(crate) fn oldest(
        &self,
        policy: &WorkloadPolicy,
        vantage: &AgentName,
        region: &RegionName,
        now: Moment,
    ) -> Option<Duration> {
        let seen = self.health.get(vantage)?;
        let counted = policy.probes.iter().filter(|(_, p)| p.vital && p.region == *region);
        let mut ages = counted.map(|(name, _)| Some(now.since(seen.get(name)?.seen?)));
        let first = ages.next()??;
        ages.try_fold(first, |oldest, age| Some(oldest.max(age?)))
    }

    /// Whether each probe that counts for the region has looked at least once.
    pub(crate) fn complete(&self, policy: &WorkloadPolicy, vantage: &AgentName, region: &RegionName) -> bool {
        let seen = self.health.get(vantage);
        let mut probes = policy.probes.iter().filter(|(_, p)| p.region == *region);
        probes.all(|(name, _)| seen.is_some_and(|s| s.contains_key(name)))
    }

    /// The vantages that have looked at anything.
    pub(crate) fn vantages(&self) -> impl Iterator<Item = &AgentName> {
        self.health.keys()
    }

    /// What one vantage knows of one probe.
    pub(crate) fn probe(&self, vantage: &AgentName, probe: &ProbeName) -> Option<&ProbeHealth> {
        self.health.get(vantage)?.get(probe)
    }

    /// When the newest heartbeats were stamped that a primary in the region acknowledged, oldest first.
    pub(crate) fn acknowledged(&self, region: &RegionName, database: &DatabaseName) -> Vec<Moment> {
        let kept = self.acknowledged.get(&(region.clone(), database.clone()));
        kept.into_iter().flatten().map(|(stamped, _)| *stamped).collect()
    }

    /// The same, each with where the log ended then.
    pub(crate) fn marks(&self, region: &RegionName, database: &DatabaseName) -> Vec<(Moment, Lsn)> {
        let kept = self.acknowledged.get(&(region.clone(), database.clone()));
        kept.into_iter().flatten().copied().collect()
    }

    /// Whether every database of a region was last seen as a standby that streams, and when the oldest of these
    /// sightings was.
    pub(crate) fn streams(
        &self,
        policy: &WorkloadPolicy,
        region: &RegionName,
        now: Moment,
    ) -> Result<(), Reason> {
        for database in policy.databases.keys() {
            let fresh =
                self.sample(region, database).filter(|(at, _)| now.since(*at) <= policy.failover.freshness);
            let streaming = fresh.is_some_and(
                |(_, sample)| matches!(&sample.state, DatabaseState::Standby(position) if position.streaming),
            );
            if !streaming {
                return Err(Reason::NotStreaming { database: database.clone(), region: region.clone() });
            }
        }
        Ok(())
    }

    /// The newest sample of a database.
    pub(crate) fn sample(
        &self,
        region: &RegionName,
        database: &DatabaseName,
    ) -> Option<&(Moment, DatabaseSample)> {
        self.samples.get(&(region.clone(), database.clone()))
    }

    /// What was last seen of each primary database in the region, for the measurement of a loss.
    pub(crate) fn primary_samples(
        &self,
        policy: &WorkloadPolicy,
        vantage: &AgentName,
        region: &RegionName,
    ) -> BTreeMap<DatabaseName, PrimarySample> {
        let here = self.primaries.iter().filter(|(_, (seen_in, _))| seen_in == region);
        let samples = here.map(|(database, (_, sample))| {
            let mut sample = sample.clone();
            let mut probes = policy.probes.iter().filter(|(_, p)| p.region == *region);
            let probe = probes.find(|(_, p)| p.database.as_ref() == Some(database)).map(|(name, _)| name);
            let failing = probe.and_then(|name| self.probe(vantage, name)?.failing_since);
            sample.continuous =
                failing.is_none_or(|since| since.since(sample.at) <= policy.failover.freshness);
            (database.clone(), sample)
        });
        samples.collect()
    }

    /// Whether every vital probe of the region is answered, by a vantage.
    pub(crate) fn answers(
        &self,
        policy: &WorkloadPolicy,
        vantage: &AgentName,
        region: &RegionName,
        now: Moment,
    ) -> Result<(), Reason> {
        let mut vital = policy.probes.iter().filter(|(_, p)| p.vital && p.region == *region).peekable();
        let freshness = policy.failover.freshness;
        let up = |name| self.probe(vantage, name).is_some_and(|h| h.state(now, freshness) == ProbeState::Up);
        // A region that nobody looks at answers nobody.
        if vital.peek().is_some() && vital.all(|(name, _)| up(name)) {
            return Ok(());
        }
        // Judged as a standby: only the vital probes count, so the reason is one of theirs.
        let judging = Judging { region, primary: false, now, freshness };
        Err(judge(judging, &policy.probes, self.health.get(vantage)).reason)
    }

    /// A vantage has regained its own connectivity: what it failed to see meanwhile is no evidence.
    pub(crate) fn regain(&mut self, vantage: &AgentName, now: Moment) {
        for health in self.health.get_mut(vantage).into_iter().flat_map(BTreeMap::values_mut) {
            if health.failures > 0 || health.down {
                *health = ProbeHealth::unseen_since(now);
            }
        }
    }

    /// Forgets how the probes of a region looked, because its role has changed.
    pub(crate) fn forget(&mut self, policy: &WorkloadPolicy, region: &RegionName) {
        self.samples.retain(|(seen_in, _), _| seen_in != region);
        self.acknowledged.retain(|(seen_in, _), _| seen_in != region);
        self.standbys.retain(|(seen_in, _), _| seen_in != region);
        for seen in self.health.values_mut() {
            seen.retain(|name, _| policy.probes.get(name).is_none_or(|p| p.region != *region));
        }
    }

    /// The newest epoch that a standby has replayed, and where.
    pub(crate) fn newest_epoch(&self) -> Option<(RegionName, Epoch)> {
        let standbys = self.samples.iter().filter_map(|((region, _), (_, sample))| match &sample.state {
            DatabaseState::Standby(position) => position.epoch.map(|epoch| (region.clone(), epoch)),
            DatabaseState::Primary { .. } => None,
        });
        standbys.max_by_key(|(_, epoch)| *epoch)
    }

    /// A region that is a primary though the workload does not live there.
    pub(crate) fn second_primary(
        &self,
        policy: &WorkloadPolicy,
        primary: &RegionName,
        now: Moment,
    ) -> Option<Reason> {
        let (region, database) = self.second_primary_at(policy, primary, now)?;
        Some(Reason::TwoPrimaries { database: database.clone(), region: region.clone() })
    }

    /// Where it is, and of which database.
    pub(crate) fn second_primary_at(
        &self,
        policy: &WorkloadPolicy,
        primary: &RegionName,
        now: Moment,
    ) -> Option<(&RegionName, &DatabaseName)> {
        let mut primaries = self.samples.iter().filter(|((region, _), (at, sample))| {
            matches!(sample.state, DatabaseState::Primary { .. })
                && region != primary
                && now.since(*at) <= policy.failover.freshness
        });
        primaries.next().map(|((region, database), _)| (region, database))
    }
}

/// Whether a verdict is worse than healthy.
pub(crate) fn troubled(verdict: Verdict) -> bool {
    verdict != Verdict::Healthy
}
