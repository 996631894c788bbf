//! What is done to the pretend world: each effect of a run, with the latency, the losses and the doubts of a network.
//!
//! **Invariant:** every actuator compares epochs, unless that is broken on purpose.
//! **Invariant:** what is not heard is `Unreachable` or `Unclear`, never done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_core::outcome::{
    Census, FenceProof, NameSwitched, Promotion, RejoinWay, Rejoined, Salvage, TargetPosition,
};
use lifeboat_core::plan::Action;
use lifeboat_core::{
    Command, DatabaseName, Epoch, Event, Fault, FaultKind, Lsn, Outcome, Output, RegionName, Timeline,
};

use super::setting::{Break, CLUSTER, NAMES, TIMEOUT, region};
use super::world::{Due, World};

/// Between two looks of an effect that waits.
const AGAIN: u64 = 400;

/// How long a name is remembered by those who asked.
const CACHED: u64 = 2_000;

/// An effect under way.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) agent: usize,
    pub(crate) life: u32,
    /// In which of its tenures.
    stint: u32,
    pub(crate) command: Command,
    pub(crate) epoch: Epoch,
    /// When it began.
    begun: u64,
    /// When its agent found, on its own clock, that the lease can be renewed no more.
    closed_at: Option<u64>,
    /// Whether it is on its way already, whatever becomes of its agent.
    pub(crate) flying: bool,
    /// Whether somebody waits for its outcome: not for that of a message that came twice.
    pub(crate) awaited: bool,
}

/// What came of looking at an effect once.
enum Found {
    Done(Output),
    Fault(FaultKind, &'static str),
    /// Not yet.
    Later(u64),
}

impl Effect {
    /// `when` is in which life of its agent, and in which of its tenures.
    pub(crate) const fn new(
        agent: usize,
        when: (u32, u32),
        command: Command,
        epoch: Epoch,
        begun: u64,
    ) -> Self {
        let (life, stint) = when;
        Self { agent, life, stint, command, epoch, begun, closed_at: None, flying: false, awaited: true }
    }
}

fn each<T: Clone>(database: &T) -> BTreeMap<DatabaseName, T> {
    BTreeMap::from([(NAMES.database.clone(), database.clone())])
}

impl World {
    /// An agent starts an effect: it is on its way.
    pub(crate) fn begin(&mut self, mut effect: Effect) {
        self.trace.line(
            self.now,
            format_args!("agent {} starts {} of {}", effect.agent, effect.command.step, effect.command.run),
        );
        self.oracle.begun(self.now, &effect.command);
        effect.flying = self.chance.percent(30);
        let mut delay = self.chance.between(1, 60);
        if self.stormy && self.chance.percent(6) {
            // It takes its time, and may come when another guardian is in charge.
            delay = self.chance.between(500, 12_000);
        }
        if self.stormy && self.chance.percent(4) {
            let twice = Effect { flying: true, awaited: false, ..effect.clone() };
            let later = delay + self.chance.between(50, 9_000);
            self.schedule(later, Due::Effect(Box::new(twice)));
        }
        self.schedule(delay, Due::Effect(Box::new(effect)));
    }

    /// An effect comes to what it is to change.
    pub(crate) fn affect(&mut self, mut effect: Box<Effect>) {
        let a = effect.agent;
        let agent = &self.agents[a];
        let gone = !agent.up || agent.life != effect.life || agent.stints != effect.stint;
        if gone && !effect.flying {
            return;
        }
        let found = self.carry_out(&mut effect);
        self.trace.word(effect.command.attempt.into());
        let outcome = match found {
            Found::Later(delay) if gone => return self.trace.word(delay),
            Found::Later(delay) => {
                if self.now + delay - effect.begun
                    < u64::try_from(effect.command.limit.as_millis()).unwrap_or(0)
                {
                    effect.flying = false;
                    return self.schedule(delay, Due::Effect(effect));
                }
                Outcome::Failed(Fault::new(FaultKind::Unclear, "not within its time"))
            }
            Found::Done(output) => Outcome::Succeeded(output),
            Found::Fault(kind, detail) => Outcome::Failed(Fault::new(kind, detail)),
        };
        if gone || !effect.awaited {
            return;
        }
        let silent = matches!(&outcome, Outcome::Failed(fault) if fault.kind == FaultKind::Unreachable);
        let unheard = self.stormy && self.chance.percent(3);
        let (delay, outcome) = match outcome {
            // Done, and nobody was told.
            Outcome::Succeeded(_) if unheard => {
                (TIMEOUT, Outcome::Failed(Fault::new(FaultKind::Unclear, "no answer in time")))
            }
            outcome if silent => (TIMEOUT, outcome),
            outcome => (1, outcome),
        };
        let event = Event::StepEnded { ended: effect.command.which(), outcome };
        self.schedule(delay, Due::Told(a, effect.life, Box::new(event)));
    }

    /// Whether an agent reaches the machines of a region.
    fn reaches(&mut self, a: usize, r: usize) -> bool {
        self.network.talk(a, r) && self.network.awake(r) && !self.lost()
    }

    fn stale(&self, r: usize, epoch: Epoch) -> bool {
        self.databases[r].outranks(epoch) && !self.setting.breaks(Break::Epoch)
    }

    /// A database or its host does as an order says.
    fn obey(&mut self, r: usize, epoch: Epoch) {
        self.oracle.obeyed(self.now, r, epoch.get());
        self.databases[r].obey(epoch);
    }

    fn carry_out(&mut self, effect: &mut Effect) -> Found {
        let (a, epoch) = (effect.agent, effect.epoch);
        let place = |name: &RegionName| region(name).unwrap_or_default();
        match effect.command.action.clone() {
            Action::MeasureLoss { region, .. } => self.measure(a, place(&region)),
            Action::Fence { region, planned, .. } => self.fence(effect, place(&region), planned),
            Action::Promote { region, .. } => self.promote(a, place(&region), epoch),
            Action::AwaitServing { region, .. } => {
                let r = place(&region);
                if self.reaches(a, r) && self.acknowledges(r) {
                    return Found::Done(Output::Serving { first_write: Duration::from_millis(30) });
                }
                Found::Later(AGAIN)
            }
            Action::SwitchDns { changes } => self.switch(a, epoch, &changes),
            Action::Verify { changes, .. } => self.verify(&changes),
            Action::Report => Found::Done(Output::Reported),
            Action::CheckStandby { primary, standby, .. } => {
                let (p, s) = (place(&primary), place(&standby));
                if self.reaches(a, p) && self.reaches(a, s) && self.acknowledges(p) && self.replicates(s) {
                    return Found::Done(Output::Ready { behind: Duration::from_millis(4) });
                }
                Found::Fault(FaultKind::Unreachable, "it does not follow")
            }
            Action::Drain { region, .. } => {
                let r = place(&region);
                if self.reaches(a, r) && self.databases[r].answers() {
                    return Found::Done(Output::Drained);
                }
                Found::Fault(FaultKind::Unreachable, "no answer")
            }
            Action::Lift { region, .. } => self.lift(a, place(&region), epoch),
            Action::CatchUp { region, goals } => {
                let r = place(&region);
                if !self.reaches(a, r) || !self.databases[r].answers() {
                    return Found::Later(AGAIN);
                }
                let here = self.databases[r].place();
                if goals.values().all(|goal| here.reaches(goal)) {
                    return Found::Done(Output::CaughtUp { positions: each(&here) });
                }
                Found::Later(AGAIN)
            }
            Action::Salvage { region, .. } => {
                let r = place(&region);
                if !self.reaches(a, r) {
                    return Found::Fault(FaultKind::Unreachable, "no answer");
                }
                let end = Lsn::new(self.databases[r].end);
                let salvage = Salvage { diverged_at: None, end, rows: 0, unread: Vec::new(), folder: None };
                Found::Done(Output::Salvaged { salvages: each(&salvage) })
            }
            Action::Rejoin { region, source, .. } => self.rejoin(a, place(&region), place(&source), epoch),
            Action::AwaitReplication { standby, .. } => {
                let r = place(&standby);
                if self.reaches(a, r) && self.replicates(r) {
                    return Found::Done(Output::Replicating { positions: each(&self.databases[r].place()) });
                }
                Found::Later(AGAIN)
            }
            Action::Run { .. }
            | Action::Http { .. }
            | Action::Sql { .. }
            | Action::Wait { .. }
            | Action::Notify { .. }
            | Action::Approve => Found::Done(Output::Did { said: String::new() }),
        }
    }

    fn measure(&mut self, a: usize, r: usize) -> Found {
        if !self.reaches(a, r) || !self.databases[r].answers() {
            return Found::Fault(FaultKind::Unreachable, "no answer");
        }
        if self.databases[r].primary {
            return Found::Fault(FaultKind::Refused, "it is a primary");
        }
        let position = self.databases[r].position((a, r), self.replicates(r));
        let timeline = Timeline::new(self.databases[r].timeline);
        Found::Done(Output::Positions {
            positions: each(&TargetPosition { system: CLUSTER, timeline, position }),
        })
    }

    fn fence(&mut self, effect: &mut Effect, r: usize, planned: bool) -> Found {
        let (a, epoch) = (effect.agent, effect.epoch);
        if self.reaches(a, r) {
            if self.stale(r, epoch) {
                return Found::Fault(FaultKind::Stale, "it obeyed a newer epoch");
            }
            if self.databases[r].answers() {
                return self.close(r, epoch, planned);
            }
            if !self.databases[r].running && self.setting.hosts {
                // The tool on the host says so, and keeps it from being started by anybody else.
                self.obey(r, epoch);
                self.databases[r].closed = true;
                self.databases[r].wants_start = false;
                return Found::Done(Output::Fenced { proofs: each(&FenceProof::Stopped) });
            }
        }
        let Action::Fence { expiry, cut_off, .. } = &effect.command.action else {
            return Found::Fault(FaultKind::Refused, "not a fence");
        };
        let target = cut_off.as_ref().and_then(region);
        if let Some(t) = target.filter(|t| self.setting.setup.sync && self.reaches(a, *t)) {
            // The only standby whose word it needs receives no more: nothing after this can be acknowledged.
            if self.databases[t].answers() && !self.databases[t].primary && !self.stale(t, epoch) {
                self.databases[t].detached = true;
                self.obey(t, epoch);
                let (standby, end) = (NAMES.regions[t].as_str().to_owned(), self.databases[t].place());
                return Found::Done(Output::Fenced { proofs: each(&FenceProof::CutOff { standby, end }) });
            }
        }
        if *expiry { self.expire(effect, r) } else { Found::Fault(FaultKind::Unreachable, "no answer") }
    }

    fn close(&mut self, r: usize, epoch: Epoch, planned: bool) -> Found {
        self.obey(r, epoch);
        self.databases[r].closed = true;
        let sqlstate = "25006".to_owned();
        let proof = if planned {
            FenceProof::Closed { sqlstate, sessions_ended: 4, end: self.databases[r].place() }
        } else {
            FenceProof::WriteRefused { sqlstate, sessions_ended: 4 }
        };
        Found::Done(Output::Fenced { proofs: each(&proof) })
    }

    /// Waits until the write lease is over for sure, by this agent's clock.
    fn expire(&mut self, effect: &mut Effect, r: usize) -> Found {
        let a = effect.agent;
        if !self.network.coordinated(a) || self.lost() {
            return Found::Later(AGAIN);
        }
        if self.coordinator.leases[r].is_none() {
            return Found::Fault(FaultKind::Refused, "no sentry has ever held a lease there");
        }
        let own = self.agents[a].clock(self.now);
        let (lease, margin) = (self.setting.lease(), self.setting.margin());
        let proof = |waited: u64| {
            let (lease, waited) = (Duration::from_millis(lease), Duration::from_millis(waited));
            Found::Done(Output::Fenced { proofs: each(&FenceProof::Expired { lease, waited }) })
        };
        if self.setting.breaks(Break::FenceWait) {
            return proof(lease);
        }
        if !self.coordinator.closed(r) {
            effect.closed_at = None;
            return Found::Later(AGAIN);
        }
        let since = *effect.closed_at.get_or_insert(own);
        let due = (since + lease + margin).max(self.agents[a].promised + margin);
        if own >= due { proof(own - since) } else { Found::Later((due - own).min(AGAIN)) }
    }

    fn promote(&mut self, a: usize, r: usize, epoch: Epoch) -> Found {
        if !self.reaches(a, r) || !self.databases[r].answers() {
            return Found::Fault(FaultKind::Unreachable, "no answer");
        }
        if self.stale(r, epoch) {
            return Found::Fault(FaultKind::Stale, "it obeyed a newer epoch");
        }
        let promotion = |timeline: u32, already| {
            let switched_at = None;
            let promotion = Promotion { timeline: Timeline::new(timeline), switched_at, already };
            Found::Done(Output::Promoted { promotions: each(&promotion) })
        };
        if self.databases[r].primary {
            if self.databases[r].closed {
                return Found::Fault(FaultKind::Refused, "it is a closed primary");
            }
            self.obey(r, epoch);
            return promotion(self.databases[r].timeline, true);
        }
        if self.databases[r].fails_promotion {
            return Found::Fault(FaultKind::Refused, "it crashed while it was promoted");
        }
        let timeline = self.databases.each_ref().map(|d| d.timeline).into_iter().max().unwrap_or(1) + 1;
        let left = 1 - r;
        let (from, to) = (self.databases[r].end, self.databases[left].end);
        let (still, woke) = self.stood[left];
        // A host that stood still in between wrote nothing meanwhile, and a moment when it woke.
        let idle = to.min(woke).saturating_sub(from.max(still));
        let lost = to.saturating_sub(from).saturating_sub(idle);
        let now = self.now;
        self.oracle.promoted(now, r, epoch.get(), lost);
        self.trace
            .line(now, format_args!("{} is a primary under epoch {epoch}; {lost} ms lost", NAMES.regions[r]));
        self.obey(r, epoch);
        self.databases[r].promote(timeline, epoch.get());
        promotion(timeline, false)
    }

    fn switch(&mut self, a: usize, epoch: Epoch, changes: &[lifeboat_core::plan::NameChange]) -> Found {
        if !self.network.outside(a) || self.names.fails || self.lost() {
            return Found::Fault(FaultKind::Unreachable, "no answer");
        }
        if self.names.epoch > epoch.get() && !self.setting.breaks(Break::Epoch) {
            return Found::Fault(FaultKind::Stale, "the names have a newer epoch");
        }
        let mut names = BTreeMap::new();
        for change in changes {
            let r = usize::from(change.to.contains("198.51.100.80"));
            let already = self.names.says == r;
            if !already {
                self.names.before = (self.names.says, self.now);
                let fenced = self.databases[r].closed || !self.databases[r].primary;
                self.oracle.switched(self.now, r, fenced, self.databases[r].epoch);
                self.trace.line(self.now, format_args!("the names say {}", NAMES.regions[r]));
            }
            self.names.says = r;
            names.insert(change.name.clone(), NameSwitched { values: change.to.clone(), already });
        }
        self.names.epoch = self.names.epoch.max(epoch.get());
        self.oracle.obeyed(self.now, 2, epoch.get());
        Found::Done(Output::Switched { names })
    }

    fn verify(&self, changes: &[lifeboat_core::plan::NameChange]) -> Found {
        let cached = self.now < self.names.before.1 + CACHED || self.names.stale;
        if cached {
            return Found::Later(AGAIN);
        }
        let mut censuses = BTreeMap::new();
        for change in changes {
            let census = Census {
                agree: BTreeSet::from(["ns".to_owned()]),
                disagree: BTreeMap::new(),
                silent: BTreeMap::new(),
            };
            let r = usize::from(change.to.contains("198.51.100.80"));
            if r != self.names.says {
                return Found::Later(AGAIN);
            }
            censuses.insert(change.name.clone(), census);
        }
        Found::Done(Output::Verified { censuses, canary: None })
    }

    fn lift(&mut self, a: usize, r: usize, epoch: Epoch) -> Found {
        if !self.reaches(a, r) || self.databases[r].frozen {
            return Found::Fault(FaultKind::Unreachable, "no answer");
        }
        if self.stale(r, epoch) {
            return Found::Fault(FaultKind::Stale, "it obeyed a newer epoch");
        }
        self.obey(r, epoch);
        self.databases[r].closed = false;
        if !self.databases[r].running {
            self.databases[r].wants_start = true;
        }
        if self.acknowledges(r) { Found::Done(Output::Lifted) } else { Found::Later(AGAIN) }
    }

    fn rejoin(&mut self, a: usize, r: usize, source: usize, epoch: Epoch) -> Found {
        if !self.reaches(a, r) || !self.network.talk(r, source) || !self.databases[source].answers() {
            return Found::Fault(FaultKind::Unreachable, "no answer");
        }
        if self.stale(r, epoch) {
            return Found::Fault(FaultKind::Stale, "it obeyed a newer epoch");
        }
        if !self.databases[source].primary {
            return Found::Fault(FaultKind::Refused, "the source is no primary");
        }
        let already = self.databases[r].follows && self.databases[r].answers();
        if !already {
            if self.databases[r].open() {
                return Found::Fault(FaultKind::Refused, "it takes writes");
            }
            let frozen = self.databases[r].frozen;
            let [east, west] = &mut self.databases;
            if r == 0 {
                east.rejoin(west)
            } else {
                west.rejoin(east)
            }
            self.databases[r].frozen = frozen;
            self.trace.line(self.now, format_args!("{} follows", NAMES.regions[r]));
        }
        self.obey(r, epoch);
        let rejoined = Rejoined { way: RejoinWay::Rewind, already, because: None };
        Found::Done(Output::Rejoined { rejoins: each(&rejoined) })
    }
}
