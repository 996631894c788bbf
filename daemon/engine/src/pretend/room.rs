//! What the pretend coordinator holds, and how it changes: one write at a time.
//!
//! **Invariant:** a record is appended only by the holder of the tenure, directly after the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_core::head::{Guarded, Head};
use lifeboat_core::testimony::{Beat, Testimony};
use lifeboat_core::{AgentName, Answer, Moment, Order, RegionName, Stamped, WorkloadName};

use crate::ports::{Change, CoordinationError, Renewal, Tenure};

/// How long a testimony or a sentry's word lives without being said again.
pub(super) const WORD: Duration = Duration::from_secs(5);

/// Who holds the tenure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Who.
    pub agent: AgentName,
    /// Which.
    pub tenure: Tenure,
    /// Until when, unless it is renewed.
    pub until: Moment,
}

/// A write lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When it was last renewed; none when it never was held.
    pub renewed: Option<Moment>,
    /// Its length.
    pub length: Duration,
    /// What the sentry last said.
    pub says: Option<Guarded>,
    /// When it said so.
    pub at: Moment,
}

/// Everything.
#[derive(Clone, Default)]
pub(super) struct Room {
    pub(super) records: Vec<Stamped>,
    pub(super) heads: BTreeMap<WorkloadName, Head>,
    pub(super) seat: Option<Seat>,
    term: u64,
    beat: Option<Beat>,
    pub(super) testimonies: BTreeMap<AgentName, (Moment, Testimony)>,
    pub(super) leases: BTreeMap<(WorkloadName, RegionName), Lease>,
    pub(super) orders: BTreeMap<u64, (Order, Option<Answer>)>,
    next_order: u64,
    /// Everything that changed since the beginning, in order.
    pub(super) log: Vec<Change>,
    pub(super) guardians: Vec<AgentName>,
    pub(super) refused: BTreeMap<AgentName, u32>,
    pub(super) full: bool,
    /// How often it was restored.
    pub(super) restores: u32,
}

impl Room {
    /// Ends what is over.
    pub(super) fn expire(&mut self, now: Moment) {
        if self.seat.as_ref().is_some_and(|seat| seat.until <= now) {
            self.seat = None;
            self.log.push(Change::Guardian(None));
        }
        let silent = |(_, (at, _)): &(&AgentName, &(Moment, Testimony))| *at + WORD <= now;
        let silent: BTreeSet<AgentName> =
            self.testimonies.iter().filter(silent).map(|(name, _)| name.clone()).collect();
        for vantage in silent {
            self.testimonies.remove(&vantage);
            self.log.push(Change::Silent(vantage));
        }
        for ((workload, region), lease) in &mut self.leases {
            if lease.says.is_some() && lease.at + WORD <= now {
                lease.says = None;
                let (workload, region) = (workload.clone(), region.clone());
                self.log.push(Change::Sentry { workload, region, says: None });
            }
        }
    }

    /// When the next thing is over.
    pub(super) fn next_end(&self) -> Option<Moment> {
        let seat = self.seat.iter().map(|seat| seat.until);
        let words = self.testimonies.values().map(|(at, _)| *at + WORD);
        let sentries = self.leases.values().filter(|lease| lease.says.is_some()).map(|lease| lease.at + WORD);
        seat.chain(words).chain(sentries).min()
    }

    /// Everything there is, from the record after that one on.
    pub(super) fn told(&self, known: Option<&Stamped>) -> Result<Vec<Change>, CoordinationError> {
        let (found, known_place) = (self.records.len() as u64, known.map_or(0, |stamped| stamped.sequence));
        if known_place > found {
            return Err(CoordinationError::Rewound { known: known_place, found });
        }
        let place = usize::try_from(known_place).unwrap_or(usize::MAX);
        let there = place.checked_sub(1).map(|at| &self.records[at]);
        if known != there {
            let why = format!("record {known_place} is not the one that this agent has read before");
            return Err(CoordinationError::Damaged(why));
        }
        let records = self.records[place..].iter().cloned().map(Change::Record);
        let guardian = Change::Guardian(self.seat.as_ref().map(|seat| seat.agent.clone()));
        let testimonies = self.testimonies.values().map(|(_, words)| Change::Testimony(words.clone()));
        let sentries = self.leases.iter().map(|((workload, region), lease)| Change::Sentry {
            workload: workload.clone(),
            region: region.clone(),
            says: lease.says,
        });
        let open = self.orders.iter().filter(|(_, (_, answer))| answer.is_none());
        let orders = open.map(|(id, (order, _))| Change::Order { id: id.to_string(), order: order.clone() });
        let all = records.chain([guardian]).chain(self.beat.map(Change::Beat)).chain(testimonies);
        Ok(all.chain(sentries).chain(orders).chain([Change::CaughtUp]).collect())
    }

    pub(super) fn campaign(
        &mut self,
        agent: &AgentName,
        until: Moment,
    ) -> Result<Option<Tenure>, CoordinationError> {
        self.writable()?;
        if self.seat.is_some() {
            return Ok(None);
        }
        self.term += 1;
        let tenure = Tenure { term: self.term };
        self.seat = Some(Seat { agent: agent.clone(), tenure, until });
        self.guardians.push(agent.clone());
        self.log.push(Change::Guardian(Some(agent.clone())));
        Ok(Some(tenure))
    }

    pub(super) fn renew(
        &mut self,
        tenure: Tenure,
        beat: Beat,
        until: Moment,
    ) -> Result<(), CoordinationError> {
        self.held(tenure)?;
        self.writable()?;
        if let Some(seat) = &mut self.seat {
            seat.until = until;
        }
        self.beat = Some(beat);
        self.log.push(Change::Beat(beat));
        Ok(())
    }

    pub(super) fn resign(&mut self, tenure: Tenure) {
        if self.held(tenure).is_ok() {
            self.seat = None;
            self.log.push(Change::Guardian(None));
        }
    }

    /// An append of an agent; refusals are counted.
    pub(super) fn take_in_from(
        &mut self,
        agent: &AgentName,
        tenure: Tenure,
        records: &[Stamped],
        heads: &BTreeMap<WorkloadName, Head>,
    ) -> Result<(), CoordinationError> {
        let taken = self.take_in(tenure, records, heads);
        if let Err(CoordinationError::Deposed(_)) = taken {
            *self.refused.entry(agent.clone()).or_default() += 1;
        }
        taken
    }

    fn take_in(
        &mut self,
        tenure: Tenure,
        records: &[Stamped],
        heads: &BTreeMap<WorkloadName, Head>,
    ) -> Result<(), CoordinationError> {
        self.held(tenure)?;
        self.writable()?;
        let next = self.records.len() as u64 + 1;
        if records.iter().zip(next..).any(|(stamped, place)| stamped.sequence != place) {
            return Err(CoordinationError::Deposed(format!("the next record there is {next}")));
        }
        self.records.extend(records.iter().cloned());
        self.heads.extend(heads.iter().map(|(name, head)| (name.clone(), head.clone())));
        self.log.extend(records.iter().cloned().map(Change::Record));
        Ok(())
    }

    pub(super) fn testify(&mut self, testimony: &Testimony, now: Moment) -> Result<(), CoordinationError> {
        self.writable()?;
        self.testimonies.insert(testimony.vantage.clone(), (now, testimony.clone()));
        self.log.push(Change::Testimony(testimony.clone()));
        Ok(())
    }

    pub(super) fn order(&mut self, order: &Order) -> Result<u64, CoordinationError> {
        self.writable()?;
        self.next_order += 1;
        self.orders.insert(self.next_order, (order.clone(), None));
        self.log.push(Change::Order { id: self.next_order.to_string(), order: order.clone() });
        Ok(self.next_order)
    }

    pub(super) fn answer(
        &mut self,
        tenure: Tenure,
        id: &str,
        answer: &Answer,
    ) -> Result<(), CoordinationError> {
        self.held(tenure)?;
        self.writable()?;
        let number: u64 = id.parse().unwrap_or_default();
        if let Some((_, given)) = self.orders.get_mut(&number) {
            *given = Some(answer.clone());
        }
        Ok(())
    }

    pub(super) fn renew_lease(
        &mut self,
        (workload, region): (&WorkloadName, &RegionName),
        length: Duration,
        says: Guarded,
        now: Moment,
    ) -> Result<Renewal, CoordinationError> {
        self.writable()?;
        let (workload, region) = (workload.clone(), region.clone());
        let empty = Lease { renewed: None, length, says: None, at: now };
        let lease = self.leases.entry((workload.clone(), region.clone())).or_insert(empty);
        lease.at = now;
        if lease.says.replace(says) != Some(says) {
            let (workload, region) = (workload.clone(), region.clone());
            self.log.push(Change::Sentry { workload, region, says: Some(says) });
        }
        match self.heads.get(&workload) {
            None => Ok(Renewal::Unknown),
            Some(head) if head.holder != region || head.closing => Ok(Renewal::NotOurs(head.clone())),
            Some(head) => {
                lease.renewed = Some(now);
                lease.length = length;
                Ok(Renewal::Held { epoch: head.epoch })
            }
        }
    }

    fn held(&self, tenure: Tenure) -> Result<(), CoordinationError> {
        match &self.seat {
            Some(seat) if seat.tenure == tenure => Ok(()),
            Some(seat) => Err(CoordinationError::Deposed(format!("{} decides", seat.agent))),
            None => Err(CoordinationError::Deposed("the tenure is over".to_owned())),
        }
    }

    fn writable(&self) -> Result<(), CoordinationError> {
        if self.full { Err(CoordinationError::Full("as pretended".to_owned())) } else { Ok(()) }
    }
}
