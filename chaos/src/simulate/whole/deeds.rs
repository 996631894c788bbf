//! What an order does to the scene when it gets there, and what is said back.
//!
//! **Invariant:** every actuator compares epochs, unless that is broken on purpose.
//! **Invariant:** each deed is idempotent: a repeat finds its effect there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_core::outcome::{
    Census, FenceProof, LogPosition, NameSwitched, Promotion, RejoinWay, Rejoined, Salvage, TargetPosition,
    Visit,
};
use lifeboat_core::plan::NameChange;
use lifeboat_core::{Epoch, FaultKind, Lsn, Source, Timeline};

use super::scene::State;
use crate::simulate::setting::{Break, CLUSTER, NAMES};

/// How long a name is remembered by those who asked.
const CACHED: u64 = 2_000;

/// The address of the second region.
const WEST: &str = "198.51.100.80";

/// What came of looking at an order once.
pub(super) enum Found<T> {
    Done(T),
    Fault(FaultKind, &'static str),
    /// Not yet.
    Later,
}

use Found::{Done, Fault, Later};

const SILENT: (FaultKind, &str) = (FaultKind::Unreachable, "no answer");
const STALE: (FaultKind, &str) = (FaultKind::Stale, "it obeyed a newer epoch");

impl<T> From<(FaultKind, &'static str)> for Found<T> {
    fn from((kind, detail): (FaultKind, &'static str)) -> Self {
        Fault(kind, detail)
    }
}

impl State {
    /// Whether a server can be talked to; one that stands still answers when it wakes.
    fn answers<T>(&self, a: usize, r: usize) -> Option<Found<T>> {
        if !self.network.talk(a, r) || !self.network.alive(r) {
            return Some(SILENT.into());
        }
        if self.network.still(r) || self.databases[r].frozen {
            return Some(Later);
        }
        (!self.databases[r].running).then(|| SILENT.into())
    }

    pub(super) fn measure(&self, a: usize, r: usize) -> Found<TargetPosition> {
        if let Some(no) = self.answers(a, r) {
            return no;
        }
        if self.databases[r].primary {
            return Fault(FaultKind::Refused, "it is a primary");
        }
        let position = self.databases[r].position((a, r), self.replicates(r));
        Done(TargetPosition {
            system: CLUSTER,
            timeline: Timeline::new(self.databases[r].timeline),
            position,
        })
    }

    pub(super) fn fence(
        &mut self,
        now: u64,
        (a, r): (usize, usize),
        epoch: Epoch,
        planned: bool,
    ) -> Found<FenceProof> {
        if !self.network.talk(a, r) || !self.network.alive(r) {
            return SILENT.into();
        }
        if self.network.still(r) {
            return Later;
        }
        if self.stale(r, epoch) {
            return STALE.into();
        }
        if !self.databases[r].running {
            if !self.setting.hosts {
                return SILENT.into();
            }
            // The tool on the host says so, and keeps it from being started by anybody else.
            self.obey(now, r, epoch);
            self.databases[r].closed = true;
            self.databases[r].wants_start = false;
            return Done(FenceProof::Stopped);
        }
        if self.databases[r].frozen {
            return Later;
        }
        self.obey(now, r, epoch);
        self.databases[r].closed = true;
        let sqlstate = "25006".to_owned();
        Done(if planned {
            FenceProof::Closed { sqlstate, sessions_ended: 4, end: self.databases[r].place() }
        } else {
            FenceProof::WriteRefused { sqlstate, sessions_ended: 4 }
        })
    }

    pub(super) fn cut_off(&mut self, now: u64, a: usize, r: usize, epoch: Epoch) -> Found<FenceProof> {
        if let Some(no) = self.answers(a, r) {
            return no;
        }
        if !self.setting.setup.sync || self.databases[r].primary {
            return Fault(FaultKind::Refused, "nobody waits for its word");
        }
        if self.stale(r, epoch) {
            return STALE.into();
        }
        self.obey(now, r, epoch);
        self.databases[r].detached = true;
        let standby = NAMES.regions[r].as_str().to_owned();
        Done(FenceProof::CutOff { standby, end: self.databases[r].place() })
    }

    pub(super) fn promote(&mut self, now: u64, a: usize, r: usize, epoch: Epoch) -> Found<Promotion> {
        if let Some(no) = self.answers(a, r) {
            return no;
        }
        if self.stale(r, epoch) {
            return STALE.into();
        }
        let promotion = |timeline: u32, already| {
            Done(Promotion { timeline: Timeline::new(timeline), switched_at: None, already })
        };
        if self.databases[r].primary {
            if self.databases[r].closed {
                return Fault(FaultKind::Refused, "it is a closed primary");
            }
            self.obey(now, r, epoch);
            return promotion(self.databases[r].timeline, true);
        }
        if self.databases[r].fails_promotion {
            return Fault(FaultKind::Refused, "it crashed while it was promoted");
        }
        let timeline = self.databases.each_ref().map(|d| d.timeline).into_iter().max().unwrap_or(1) + 1;
        let left = 1 - r;
        let (from, to) = (self.databases[r].end, self.databases[left].end);
        let (still, woke) = self.stood[left];
        // A host that stood still in between wrote nothing meanwhile, and a moment when it woke.
        let idle = to.min(woke).saturating_sub(from.max(still));
        let lost = to.saturating_sub(from).saturating_sub(idle);
        self.oracle.promoted(now, r, epoch.get(), lost);
        self.trace
            .line(now, format_args!("{} is a primary under epoch {epoch}; {lost} ms lost", NAMES.regions[r]));
        self.obey(now, r, epoch);
        self.databases[r].promote(timeline, epoch.get());
        promotion(timeline, false)
    }

    pub(super) fn serves(&self, a: usize, r: usize) -> Found<Duration> {
        let serves = self.reaches(a, r) && self.acknowledges(r);
        if serves { Done(Duration::from_millis(30)) } else { Later }
    }

    pub(super) fn mark(&self, a: usize, r: usize) -> Found<LogPosition> {
        if self.reaches(a, r) && self.acknowledges(r) {
            Done(self.databases[r].place())
        } else {
            SILENT.into()
        }
    }

    pub(super) fn fit(&self, a: usize, r: usize) -> Found<()> {
        if let Some(no) = self.answers(a, r) {
            return no;
        }
        if self.databases[r].primary { Fault(FaultKind::Refused, "it is a primary") } else { Done(()) }
    }

    pub(super) fn reached(&self, a: usize, r: usize, goal: &LogPosition) -> Found<LogPosition> {
        let here = self.databases[r].place();
        let there = self.reaches(a, r) && self.databases[r].answers() && here.reaches(goal);
        if there { Done(here) } else { Later }
    }

    pub(super) fn drain(&self, a: usize, r: usize) -> Found<()> {
        self.answers(a, r).unwrap_or(Done(()))
    }

    pub(super) fn lift(&mut self, now: u64, a: usize, r: usize, epoch: Epoch) -> Found<()> {
        if !self.reaches(a, r) || self.databases[r].frozen {
            return SILENT.into();
        }
        if self.stale(r, epoch) {
            return STALE.into();
        }
        self.obey(now, r, epoch);
        self.databases[r].closed = false;
        if !self.databases[r].running {
            self.databases[r].wants_start = true;
        }
        if self.acknowledges(r) { Done(()) } else { Later }
    }

    pub(super) fn offer(&self, a: usize, r: usize) -> Found<Source> {
        if let Some(no) = self.answers(a, r) {
            return no;
        }
        if !self.databases[r].primary {
            return Fault(FaultKind::Refused, "it is no primary");
        }
        Done(Source {
            region: NAMES.regions[r].clone(),
            host: "192.0.2.1".to_owned(),
            port: 5432,
            system: CLUSTER,
            timeline: Timeline::new(self.databases[r].timeline),
            lineage: Vec::new(),
            slot: "lifeboat".to_owned(),
        })
    }

    pub(super) fn salvage(&self, a: usize, r: usize) -> Found<Salvage> {
        if !self.reaches(a, r) {
            return SILENT.into();
        }
        let end = Lsn::new(self.databases[r].end);
        Done(Salvage { diverged_at: None, end, rows: 0, unread: Vec::new(), folder: None })
    }

    pub(super) fn rejoin(&mut self, now: u64, a: usize, r: usize, epoch: Epoch) -> Found<Rejoined> {
        let source = 1 - r;
        if !self.reaches(a, r) || !self.network.talk(r, source) || !self.databases[source].answers() {
            return SILENT.into();
        }
        if self.stale(r, epoch) {
            return STALE.into();
        }
        if !self.databases[source].primary {
            return Fault(FaultKind::Refused, "the source is no primary");
        }
        let already = self.databases[r].follows && self.databases[r].answers();
        if !already {
            if self.databases[r].open() {
                return Fault(FaultKind::Refused, "it takes writes");
            }
            let frozen = self.databases[r].frozen;
            let [east, west] = &mut self.databases;
            if r == 0 {
                east.rejoin(west);
            } else {
                west.rejoin(east);
            }
            self.databases[r].frozen = frozen;
            self.trace.line(now, format_args!("{} follows", NAMES.regions[r]));
        }
        self.obey(now, r, epoch);
        Done(Rejoined { way: RejoinWay::Rewind, already, because: None })
    }

    pub(super) fn switch(
        &mut self,
        now: u64,
        a: usize,
        epoch: Epoch,
        change: &NameChange,
    ) -> Found<NameSwitched> {
        if !self.network.outside(a) || self.names.fails {
            return SILENT.into();
        }
        if self.names.epoch > epoch.get() && !self.setting.breaks(Break::Epoch) {
            return Fault(FaultKind::Stale, "the names have a newer epoch");
        }
        let r = usize::from(change.to.contains(WEST));
        let already = self.names.says == r;
        if !already {
            self.names.before = (self.names.says, now);
            let fenced = self.databases[r].closed || !self.databases[r].primary;
            self.oracle.switched(now, r, fenced, self.databases[r].epoch);
            self.trace.line(now, format_args!("the names say {}", NAMES.regions[r]));
        }
        self.names.says = r;
        self.names.epoch = self.names.epoch.max(epoch.get());
        self.oracle.obeyed(now, 2, epoch.get());
        Done(NameSwitched { values: change.to.clone(), already })
    }

    pub(super) fn census(&self, now: u64, a: usize, change: &NameChange) -> Found<Census> {
        if !self.network.outside(a) {
            return SILENT.into();
        }
        let mut census =
            Census { agree: BTreeSet::new(), disagree: BTreeMap::new(), silent: BTreeMap::new() };
        let wanted = usize::from(change.to.contains(WEST));
        let cached = now < self.names.before.1 + CACHED && self.names.before.1 > 0;
        let resolver = if cached || self.names.stale { self.names.before.0 } else { self.names.says };
        for (who, says) in [("ns", self.names.says), ("resolver", resolver)] {
            if says == wanted {
                census.agree.insert(who.to_owned());
            } else {
                census.disagree.insert(who.to_owned(), NAMES.regions[says].to_string());
            }
        }
        Done(census)
    }

    pub(super) fn visit(&self, a: usize) -> Found<Visit> {
        let r = self.names.says;
        if !self.network.outside(a) || !self.network.talk(a, r) || !self.acknowledges(r) {
            return SILENT.into();
        }
        let address = if r == 1 { WEST } else { "192.0.2.80" }.to_owned();
        Done(Visit { address, took: Duration::from_millis(4) })
    }
}
