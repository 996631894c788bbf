//! What the agents share, pretended: the tenure, the record, what vantages say, heads, write leases.
//!
//! **Invariant:** each call is one transaction on one state, whoever calls and whether or not the answer arrives.
//! **Invariant:** an append is taken in only from the holder of the tenure, and only directly after the newest record.

use std::rc::Rc;

use lifeboat_core::Stamped;
use lifeboat_core::head::{Guarded, Head};
use lifeboat_core::testimony::Beat;

use super::setting::{TENURE, TESTIMONY};

/// Who decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) term: u64,
    pub(crate) agent: usize,
    until: u64,
}

/// Why a write was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Somebody else decides, or nobody.
    Deposed,
    /// Somebody has written since.
    Behind,
}

/// The shared state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coordinator {
    /// The record.
    pub(crate) log: Vec<Rc<Stamped>>,
    /// Under which tenure each record was written.
    pub(crate) terms: Vec<u64>,
    held: Option<Held>,
    terms_given: u64,
    /// The newest sign of life.
    pub(crate) beat: Option<Beat>,
    /// Since when each vantage says its newest testimony, and the number of it. What it says goes to the one who decides.
    testimonies: [Option<(u64, u64)>; 3],
    /// What the sentries need to know.
    pub(crate) head: Option<Head>,
    /// Whether a sentry ever held the lease of each region, and when it was renewed last.
    pub(crate) leases: [Option<u64>; 2],
    /// What each sentry said last, and when.
    pub(crate) guarded: [Option<(u64, Guarded)>; 2],
}

impl Coordinator {
    /// Who decides now.
    pub(crate) fn tenure(&self, now: u64) -> Option<Held> {
        self.held.filter(|held| now < held.until)
    }

    /// Becomes the one who decides, if nobody is.
    pub(crate) fn campaign(&mut self, agent: usize, now: u64) -> Option<u64> {
        if self.tenure(now).is_some() {
            return None;
        }
        self.terms_given += 1;
        let term = self.terms_given;
        self.held = Some(Held { term, agent, until: now + TENURE });
        Some(term)
    }

    /// Keeps the tenure, with a sign of life.
    pub(crate) fn renew(&mut self, term: u64, beat: Beat, now: u64) -> bool {
        let mine = self.tenure(now).is_some_and(|held| held.term == term);
        if mine {
            self.held.iter_mut().for_each(|held| held.until = now + TENURE);
            self.beat = self.beat.max(Some(beat));
        }
        mine
    }

    /// The tenure is given back.
    pub(crate) fn resign(&mut self, term: u64) {
        if self.held.is_some_and(|held| held.term == term) {
            self.held = None;
        }
    }

    /// Appends records, and sets the head that follows from them.
    pub(crate) fn append(
        &mut self,
        term: u64,
        records: &[Rc<Stamped>],
        head: Option<Head>,
        now: u64,
    ) -> Result<(), Refusal> {
        if self.tenure(now).is_none_or(|held| held.term != term) {
            return Err(Refusal::Deposed);
        }
        let next = self.log.len() as u64 + 1;
        if records.first().is_none_or(|first| first.sequence != next) {
            return Err(Refusal::Behind);
        }
        self.log.extend_from_slice(records);
        self.terms.resize(self.log.len(), term);
        if head.is_some() {
            self.head = head;
        }
        Ok(())
    }

    /// What a vantage says is kept until it is too old; an older one does not replace a newer one.
    pub(crate) fn testify(&mut self, agent: usize, sequence: u64, now: u64) {
        let known = &mut self.testimonies[agent];
        if known.is_none_or(|(_, known)| known < sequence) {
            *known = Some((now, sequence));
        }
    }

    /// Whether a vantage has said anything in time.
    pub(crate) fn speaks(&self, agent: usize, now: u64) -> bool {
        self.testimonies[agent].is_some_and(|(at, _)| now - at <= TESTIMONY)
    }

    /// Renews a write lease, if the head says that the region may hold it.
    pub(crate) fn renew_lease(&mut self, region: usize, now: u64) -> Renewed {
        let Some(head) = &self.head else { return Renewed::Unknown };
        let coming = head.coming.as_ref().and_then(super::setting::region) == Some(region);
        if super::setting::region(&head.holder) == Some(region) && !head.closing {
            self.leases[region] = Some(now);
            return Renewed::Held;
        }
        if coming { Renewed::Coming } else { Renewed::NotOurs }
    }

    /// Whether the region's lease can be renewed no more.
    pub(crate) fn closed(&self, region: usize) -> bool {
        let head = self.head.as_ref();
        head.is_some_and(|head| head.closing || super::setting::region(&head.holder) != Some(region))
    }
}

/// What came of renewing a write lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    Held,
    /// Not yet: its database is being made the primary.
    Coming,
    NotOurs,
    /// There is no record of the workload.
    Unknown,
}
