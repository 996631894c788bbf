//! What the other vantages say, and which of it is a vote.
//!
//! **Invariant:** a testimony counts only while its age, measured by the echo of a beat that this guardian sent itself, is
//! within the freshness the operator asks for. Without an echo of ours it may be of any age.
//! **Invariant:** an older testimony never replaces a newer one of the same vantage.
//! **Invariant:** after this agent stood still, only what answers a beat that was sent since counts: what came meanwhile waits
//! in a line, the oldest first, and the word that takes an older one back stands behind it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::names::{AgentName, RegionName, WorkloadName};
use crate::reason::Reason;
use crate::status::Verdict;
use crate::testimony::{Beat, Seen, Testimony};
use crate::time::Moment;

/// How many beats are remembered: with one a second, more than any sensible freshness.
const BEATS_KEPT: usize = 256;

/// What the other vantages say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Council {
    said: BTreeMap<AgentName, Said>,
    /// The beats that this guardian sent, and when, oldest first.
    beats: VecDeque<(Beat, Moment)>,
    /// When this agent woke, if it ever stood still.
    woke: Option<Moment>,
}

/// The newest testimony of a vantage.
#[derive(Clone, Debug)]
struct Said {
    testimony: Testimony,
    /// When it came in: for people only.
    came: Moment,
    /// Whether it is still renewed.
    silent: bool,
}

/// What a vantage says of a region, or why it does not count.
pub(crate) struct Heard<'a> {
    pub(crate) seen: &'a Seen,
    /// How old it is at most, by our own clock; none when it echoes no beat of ours.
    pub(crate) age: Option<Duration>,
}

impl Council {
    /// Takes a testimony in; says whether any verdict in it is news.
    pub(crate) fn note(&mut self, testimony: Testimony, now: Moment) -> bool {
        let known = self.said.get(&testimony.vantage);
        if known.is_some_and(|known| known.testimony.sequence > testimony.sequence) {
            return false;
        }
        fn verdicts(said: &Testimony) -> impl Iterator<Item = (Verdict, bool)> {
            let seen = said.regions.values().flat_map(BTreeMap::values);
            seen.map(|seen| (seen.verdict, seen.proven))
        }
        let troubled = testimony.regions.values().flat_map(BTreeMap::values);
        let troubled = troubled.into_iter().any(|seen| seen.verdict != Verdict::Healthy);
        let news =
            known.is_none_or(|known| known.silent || verdicts(&known.testimony).ne(verdicts(&testimony)));
        let vantage = testimony.vantage.clone();
        self.said.insert(vantage, Said { testimony, came: now, silent: false });
        // While there is trouble, a fresher word may be the one that makes it count.
        news || troubled
    }

    /// A vantage has stopped saying anything.
    pub(crate) fn silence(&mut self, vantage: &AgentName) {
        if let Some(said) = self.said.get_mut(vantage) {
            said.silent = true;
        }
    }

    /// This agent stood still until now: nothing that was said or seen before is news.
    pub(crate) fn wake(&mut self, now: Moment) {
        self.woke = Some(now);
        self.forget_beats();
    }

    /// Whether a look that began then was made after this agent last stood still.
    pub(crate) fn awake_since(&self, began: Moment) -> bool {
        self.woke.is_none_or(|woke| began >= woke)
    }

    /// A beat of ours was sent. One that was sent before we stood still, and is told only now, proves nothing.
    pub(crate) fn beat(&mut self, beat: Beat, at: Moment) {
        if !self.awake_since(at) {
            return;
        }
        if self.beats.len() == BEATS_KEPT {
            self.beats.pop_front();
        }
        self.beats.push_back((beat, at));
    }

    /// A new tenure begins, or ours has ended: what echoes older beats proves nothing.
    pub(crate) fn forget_beats(&mut self) {
        self.beats.clear();
    }

    /// What a vantage says of a region.
    pub(crate) fn heard(
        &self,
        vantage: &AgentName,
        workload: &WorkloadName,
        region: &RegionName,
        now: Moment,
    ) -> Option<Heard<'_>> {
        let said = self.said.get(vantage).filter(|said| !said.silent)?;
        let seen = said.testimony.regions.get(workload)?.get(region)?;
        Some(Heard { seen, age: self.age_of(said, seen, now) })
    }

    fn age_of(&self, said: &Said, seen: &Seen, now: Moment) -> Option<Duration> {
        self.sent(said).zip(seen.age).map(|(at, looked)| now.since(at) + looked)
    }

    /// When the beat was sent that it echoes.
    fn sent(&self, said: &Said) -> Option<Moment> {
        let echo = said.testimony.echo?;
        // They rise: what is not found before an older one is not there.
        let found = self.beats.iter().rev().find(|(beat, _)| *beat <= echo);
        found.filter(|(beat, _)| *beat == echo).map(|(_, at)| *at)
    }

    /// Whether a vantage says that it is well connected.
    pub(crate) fn connected(&self, vantage: &AgentName) -> Option<bool> {
        self.said.get(vantage).map(|said| said.testimony.connected)
    }

    /// How long ago its newest testimony came in.
    pub(crate) fn came(&self, vantage: &AgentName, now: Moment) -> Option<Duration> {
        self.said.get(vantage).map(|said| now.since(said.came))
    }

    /// How old it is at most, by our own clock.
    pub(crate) fn age(&self, vantage: &AgentName, now: Moment) -> Option<Duration> {
        self.sent(self.said.get(vantage)?).map(|at| now.since(at))
    }

    /// Whether a vantage sees a region as lost, as a vote: the same as [`Self::vote`], without words.
    pub(crate) fn votes(
        &self,
        vantage: &AgentName,
        workload: &WorkloadName,
        region: &RegionName,
        now: Moment,
        freshness: Duration,
    ) -> bool {
        let Some(said) = self.said.get(vantage).filter(|said| !said.silent) else { return false };
        let seen = said.testimony.regions.get(workload).and_then(|regions| regions.get(region));
        // Cheap first, and mostly not so.
        let lost = seen.filter(|seen| seen.verdict == Verdict::Lost && seen.proven);
        lost.is_some_and(|seen| self.age_of(said, seen, now).is_some_and(|age| age <= freshness))
    }

    /// Whether a vantage sees a region as lost, as a vote; else why it is none.
    pub(crate) fn vote(
        &self,
        vantage: &AgentName,
        workload: &WorkloadName,
        region: &RegionName,
        now: Moment,
        freshness: Duration,
    ) -> Result<(), Reason> {
        let unheard = || Reason::VantageUnheard { vantage: vantage.clone() };
        let heard = self.heard(vantage, workload, region, now).ok_or_else(unheard)?;
        match heard.age {
            None => return Err(unheard()),
            Some(age) if age > freshness => {
                return Err(Reason::VantageLate { vantage: vantage.clone(), age, allowed: freshness });
            }
            Some(_) => {}
        }
        if heard.seen.verdict != Verdict::Lost {
            return Err(heard.seen.reason.clone());
        }
        if !heard.seen.proven {
            return Err(Reason::VantageUnproven { vantage: vantage.clone() });
        }
        Ok(())
    }

    /// Whether a vantage was heard of lately, at all, and says that it is well connected: a sign that it could decide.
    pub(crate) fn well(&self, vantage: &AgentName, now: Moment, freshness: Duration) -> bool {
        self.said
            .get(vantage)
            .is_some_and(|said| !said.silent && now.since(said.came) <= freshness && said.testimony.connected)
    }
}
