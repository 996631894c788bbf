//! A pretend world: two regions, probes that look at intervals, steps that end as scripted, one clock.
//!
//! **Invariant:** the guardian is told of the world only by events, in the order in which they would come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use lifeboat_core::event::Witnessing;
use lifeboat_core::outcome::{
    Census, FenceProof, LogPosition, NameSwitched, Promotion, RejoinWay, Rejoined, Salvage, TargetPosition,
    Visit,
};
use lifeboat_core::plan::Action;
use lifeboat_core::sighting::{DatabaseSample, DatabaseState, FailureKind, StandbyPosition};
use lifeboat_core::status::{PhaseName, WorkloadStatus};
use lifeboat_core::{
    Answer, Command, Condition, Decision, Event, Evidence, Failure, Fault, FaultKind, Guardian, Look, Lsn,
    Moment, Notice, Order, Outcome, Output, Policy, ProbeName, Record, RegionName, Sighting, Stamped,
    SystemIdentifier, Timeline,
};

use crate::oracle::Oracle;
use crate::setting::{CLUSTER, agent, east, policy, runbook, seconds, shop, west, workload};

/// How long a look may take.
const TIMEOUT: Duration = seconds(10);

/// Time between two askings of the witnesses, and between two ticks.
const WITNESSING: Duration = seconds(5);
const TICK: Duration = seconds(1);

/// How a region answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Everything answers after this long.
    Answers(Duration),
    /// Everything refuses.
    Refuses,
    /// Nothing answers at all.
    Dark,
    /// Databases answer reads, and no write.
    CannotCommit,
}

/// One region.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) manner: Manner,
    pub(crate) primary: bool,
    /// The timeline of a primary; a standby follows the newest there is.
    pub(crate) timeline: u32,
    pub(crate) system: SystemIdentifier,
    /// When the newest heartbeat that is here was stamped.
    pub(crate) heartbeat: Option<Moment>,
}

/// How a step is to end, instead of well.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// With this fault, after 100 ms.
    Fault(FaultKind),
    /// With this outcome, after this long.
    After(Duration, Outcome),
    /// Well, after this long.
    Well(Duration),
    /// Never: nobody tells.
    Never,
}

/// What is due at a moment.
#[derive(Clone, Debug)]
enum Due {
    Look(ProbeName),
    Ask,
    Tick,
    Told(Box<Event>, u32),
}

/// The world.
pub(crate) struct World {
    pub(crate) guardian: Guardian,
    pub(crate) policy: Policy,
    pub(crate) now: Moment,
    pub(crate) records: Vec<Stamped>,
    /// How many records there were after each decision.
    pub(crate) batches: Vec<usize>,
    pub(crate) notices: Vec<(Moment, Notice)>,
    pub(crate) commands: Vec<(Moment, Command)>,
    pub(crate) places: BTreeMap<RegionName, Place>,
    /// Whether the agent's own network works.
    pub(crate) network: bool,
    /// Whether the shop in front of the primary's database fails, whatever the region does.
    pub(crate) shop_fails: bool,
    /// Whether the primary's log reaches the standby.
    pub(crate) replicating: bool,
    pub(crate) oracle: Oracle,
    script: BTreeMap<String, VecDeque<Script>>,
    due: BTreeMap<(Moment, u64), Due>,
    counter: u64,
    wake: Option<Moment>,
    /// Counts restarts: what an earlier life started does not answer to a later one.
    life: u32,
}

impl World {
    /// A quiet day with the default policy, half a minute after the start.
    pub(crate) fn quiet() -> Self {
        Self::quiet_with(policy([workload()]))
    }

    /// The same with another policy.
    pub(crate) fn quiet_with(policy: Policy) -> Self {
        let mut world = Self::new(policy);
        world.start();
        world.pass(seconds(30));
        assert_eq!(world.phase(), PhaseName::Guarding, "a quiet day begins quietly");
        world
    }

    /// A world that nobody has looked at yet.
    pub(crate) fn new(policy: Policy) -> Self {
        let now = Moment::from_millis(1_795_252_486_000);
        let healthy = |primary| Place {
            manner: Manner::Answers(Duration::from_millis(20)),
            primary,
            timeline: 1,
            system: CLUSTER,
            heartbeat: None,
        };
        Self {
            guardian: Guardian::restore(policy.clone(), runbook(), "0.1.0", &[]),
            oracle: Oracle::new(&policy),
            policy,
            now,
            records: Vec::new(),
            batches: Vec::new(),
            notices: Vec::new(),
            commands: Vec::new(),
            places: [(east(), healthy(true)), (west(), healthy(false))].into(),
            network: true,
            shop_fails: false,
            replicating: true,
            script: BTreeMap::new(),
            due: BTreeMap::new(),
            counter: 0,
            wake: None,
            life: 0,
        }
    }

    /// The agent starts.
    pub(crate) fn start(&mut self) {
        self.due.retain(|_, due| matches!(due, Due::Told(..)));
        self.happen(Event::Started);
        let probes: Vec<ProbeName> =
            self.policy.workloads.values().flat_map(|w| w.probes.keys().cloned()).collect();
        for probe in probes {
            self.schedule(Duration::ZERO, Due::Look(probe));
        }
        self.schedule(Duration::ZERO, Due::Ask);
        self.schedule(TICK, Due::Tick);
    }

    /// The agent is killed, its record stays, and `down` later it starts again.
    pub(crate) fn crash(&mut self, down: Duration) {
        self.life += 1;
        self.due.clear();
        self.wake = None;
        self.now = self.now + down;
        self.guardian = Guardian::restore(self.policy.clone(), runbook(), "0.1.0", &self.records);
        self.oracle.restarted();
        self.start();
    }

    /// The next attempts of a step end so.
    pub(crate) fn script(&mut self, step: &str, ends: impl IntoIterator<Item = Script>) {
        self.script.entry(step.to_owned()).or_default().extend(ends);
    }

    /// A region answers differently from now on.
    pub(crate) fn becomes(&mut self, region: &RegionName, manner: Manner) {
        self.place(region).manner = manner;
    }

    /// A region, to be changed.
    pub(crate) fn place(&mut self, region: &RegionName) -> &mut Place {
        self.places.get_mut(region).expect("the pretend world has this region")
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(moment) = self.next_moment().filter(|moment| *moment <= end) {
            self.now = self.now.max(moment);
            self.turn();
        }
        self.now = end;
    }

    /// Time passes until this holds, `limit` at most; says how long it took.
    pub(crate) fn pass_until(&mut self, limit: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let begun = self.now;
        while !holds(self) {
            let moment = self.next_moment().expect("something is always due");
            assert!(moment <= begun + limit, "not within {limit:?}: {}", self.story());
            self.now = self.now.max(moment);
            self.turn();
        }
        self.now.since(begun)
    }

    fn next_moment(&self) -> Option<Moment> {
        let due = self.due.keys().next().map(|(moment, _)| *moment);
        [due, self.wake].into_iter().flatten().min()
    }

    fn turn(&mut self) {
        if self.wake.is_some_and(|wake| wake <= self.now) {
            self.wake = None;
            self.happen(Event::Tick);
            return;
        }
        let Some((_, due)) = self.due.pop_first() else { return };
        match due {
            Due::Look(probe) => self.look(probe),
            Due::Ask => self.ask(),
            Due::Tick => {
                self.schedule(TICK, Due::Tick);
                self.wake = None;
                self.happen(Event::Tick);
            }
            Due::Told(event, life) if life == self.life => self.happen(*event),
            Due::Told(..) => {}
        }
    }

    fn schedule(&mut self, after: Duration, due: Due) {
        self.counter += 1;
        self.due.insert((self.now + after, self.counter), due);
    }

    fn ask(&mut self) {
        let answered = if self.network { 3 } else { 0 };
        let event = Event::Witnessed(Witnessing { vantage: agent(), at: self.now, answered });
        self.schedule(Duration::from_millis(30), Due::Told(Box::new(event), self.life));
        self.schedule(WITNESSING, Due::Ask);
    }

    fn look(&mut self, name: ProbeName) {
        let found = self.policy.workloads.values().find_map(|w| Some((w, w.probes.get(&name)?)));
        let (workload, probe) = found.expect("a probe of a workload");
        let (region, database, interval) = (probe.region.clone(), probe.database.clone(), probe.interval);
        let workload = workload.name.clone();
        let (took, look) = self.seen(&region, database.is_some());
        let sighting = Sighting {
            workload,
            region,
            probe: name.clone(),
            vantage: agent(),
            at: self.now + took,
            took,
            look,
        };
        self.schedule(took, Due::Told(Box::new(Event::Sighted(sighting)), self.life));
        self.schedule(took.max(interval), Due::Look(name));
    }

    fn seen(&mut self, region: &RegionName, database: bool) -> (Duration, Look) {
        let soon = Duration::from_millis(20);
        // The agent sits in `west`: its own region it sees without the network.
        let manner = if self.network || *region == west() { self.place(region).manner } else { Manner::Dark };
        let fails = |took, kind| (took, Err(Failure::new(kind, "pretended")));
        if self.shop_fails && !database && *region == east() {
            return fails(soon, FailureKind::WrongAnswer);
        }
        match manner {
            Manner::Answers(took) if took < TIMEOUT => {
                let look = if database {
                    Ok(Evidence::Database(self.sample(region)))
                } else {
                    Ok(Evidence::Answered)
                };
                (took, look)
            }
            Manner::Answers(_) | Manner::Dark => fails(TIMEOUT, FailureKind::Silent),
            Manner::Refuses => fails(soon, FailureKind::Refused),
            Manner::CannotCommit if database => fails(soon, FailureKind::CannotCommit),
            Manner::CannotCommit => (soon, Ok(Evidence::Answered)),
        }
    }

    fn sample(&mut self, region: &RegionName) -> DatabaseSample {
        let now = self.now;
        let lives_here = self.status().primary == *region;
        let place = self.place(region);
        let (primary, system, own) = (place.primary, place.system, place.timeline);
        let timeline = if primary { own } else { self.newest_timeline() };
        // A heartbeat is written only where the workload is believed to live.
        let written = (primary && lives_here).then_some(now);
        if let Some(stamp) = written {
            let replicating = self.replicating;
            for (name, place) in &mut self.places {
                if name == region || (replicating && !place.primary) {
                    place.heartbeat = Some(stamp);
                }
            }
        }
        let state = if primary {
            let (written, heartbeat) = (Lsn::new(now.millis()), written);
            DatabaseState::Primary { written, heartbeat, synchronous: BTreeSet::new() }
        } else {
            DatabaseState::Standby(self.position(region))
        };
        DatabaseSample { database: "orders".into(), system, timeline: Timeline::new(timeline), state }
    }

    fn position(&self, region: &RegionName) -> StandbyPosition {
        let heartbeat = self.places[region].heartbeat;
        let end = Lsn::new(heartbeat.map_or(0, Moment::millis));
        StandbyPosition {
            received: end,
            replayed: end,
            heartbeat,
            epoch: None,
            streaming: self.replicating,
            name: region.as_str().to_owned(),
        }
    }

    /// Something happens to the guardian; its decision is judged, written down and begun.
    pub(crate) fn happen(&mut self, event: Event) {
        let _ = self.decide(event);
    }

    /// A person gives an order.
    pub(crate) fn order(&mut self, order: Order) -> Answer {
        self.decide(Event::Ordered(order)).expect("an order is answered")
    }

    fn decide(&mut self, event: Event) -> Option<Answer> {
        let decision = self.guardian.decide(self.now, event.clone());
        self.oracle.judge(self.now, &event, &decision, &self.guardian);
        let Decision { records, commands, notices, answer, wake } = decision;
        let changed = !records.is_empty();
        for record in records {
            let sequence = self.records.len() as u64 + 1;
            self.records.push(Stamped { sequence, at: self.now, record });
        }
        self.batches.push(self.records.len());
        // Without a record nothing durable may have changed either: looked at now and then, because it is slow.
        if changed || self.batches.len().is_multiple_of(16) {
            self.oracle.replayed(self.now, &self.policy, &self.records, &self.guardian);
        }
        self.wake = [self.wake, wake].into_iter().flatten().min();
        self.notices.extend(notices.into_iter().map(|notice| (self.now, notice)));
        for command in commands {
            self.begin(&command);
            self.commands.push((self.now, command));
        }
        answer.map(|answer| *answer)
    }

    fn begin(&mut self, command: &Command) {
        let script = self.script.get_mut(command.step.as_str()).and_then(VecDeque::pop_front);
        let soon = Duration::from_millis(100);
        let (after, outcome) = match script.unwrap_or(Script::Well(soon)) {
            Script::Never => return,
            Script::Fault(kind) => (soon, Outcome::Failed(Fault::new(kind, "pretended"))),
            Script::After(after, outcome) => (after, outcome),
            Script::Well(after) => (after, Outcome::Succeeded(self.carry_out(&command.action))),
        };
        let event = Event::StepEnded { ended: command.which(), outcome };
        self.schedule(after, Due::Told(Box::new(event), self.life));
    }

    /// Does what an action says to the pretend world, and gives what an adapter would.
    pub(crate) fn carry_out(&mut self, action: &Action) -> Output {
        if let Action::Promote { region, .. } = action {
            let timeline = self.newest_timeline() + 1;
            let place = self.place(region);
            if !std::mem::replace(&mut place.primary, true) {
                place.timeline = timeline;
            }
        }
        let standing = |region: &RegionName| TargetPosition {
            system: self.places[region].system,
            timeline: Timeline::new(1),
            position: self.position(region),
        };
        let mut output = well(action, standing);
        if let (Action::Promote { region, .. }, Output::Promoted { promotions }) = (action, &mut output) {
            let timeline = Timeline::new(self.places[region].timeline);
            promotions.values_mut().for_each(|promotion| promotion.timeline = timeline);
        }
        output
    }

    fn newest_timeline(&self) -> u32 {
        self.places.values().map(|place| place.timeline).max().unwrap_or(1)
    }

    /// What is known of the workload.
    pub(crate) fn status(&self) -> WorkloadStatus {
        let mut status = self.guardian.status(self.now);
        status.workloads.remove(&shop()).expect("the workload is known")
    }

    /// What is going on.
    pub(crate) fn phase(&self) -> PhaseName {
        self.status().phase
    }

    /// A condition of an automatic failover, now.
    pub(crate) fn condition(&self, gate: lifeboat_core::condition::Gate) -> Condition {
        let all = self.guardian.conditions(&shop(), self.now).expect("the workload is known");
        all.into_iter().find(|c| c.gate == gate).expect("every gate is listed")
    }

    /// The records of one kind.
    pub(crate) fn recorded<T>(&self, pick: impl Fn(&Record) -> Option<T>) -> Vec<T> {
        self.records.iter().filter_map(|stamped| pick(&stamped.record)).collect()
    }

    /// The runs that were opened.
    pub(crate) fn runs(&self) -> usize {
        self.recorded(|r| matches!(r, Record::RunOpened { .. }).then_some(())).len()
    }

    /// The steps that were started, in order.
    pub(crate) fn steps(&self) -> Vec<String> {
        self.commands.iter().map(|(_, command)| command.step.as_str().to_owned()).collect()
    }

    /// The journal as `history` prints it, for messages of failed tests.
    pub(crate) fn story(&self) -> String {
        self.records.iter().map(|s| format!("\n{} {}", s.at, s.record)).collect()
    }
}

/// What an adapter gives when an action went well.
pub(crate) fn well(action: &Action, standing: impl Fn(&RegionName) -> TargetPosition) -> Output {
    match action {
        Action::MeasureLoss { region, databases } => {
            Output::Positions { positions: databases.iter().map(|d| (d.clone(), standing(region))).collect() }
        }
        Action::Fence { region, databases, planned, .. } => {
            let TargetPosition { system, timeline, position } = standing(region);
            let end = LogPosition { system, timeline, lsn: position.received };
            let sqlstate = "25006".to_owned();
            let proof = if *planned {
                FenceProof::Closed { sqlstate, sessions_ended: 4, end }
            } else {
                FenceProof::WriteRefused { sqlstate, sessions_ended: 4 }
            };
            Output::Fenced { proofs: databases.iter().map(|d| (d.clone(), proof.clone())).collect() }
        }
        Action::Promote { databases, .. } => {
            let promotion = Promotion {
                timeline: Timeline::new(2),
                switched_at: Some(Lsn::new(0x16_B374_D848)),
                already: false,
            };
            let promotions = databases.keys().map(|d| (d.clone(), promotion.clone()));
            Output::Promoted { promotions: promotions.collect() }
        }
        Action::AwaitServing { .. } => Output::Serving { first_write: Duration::from_millis(35) },
        Action::SwitchDns { changes } => {
            let names = changes
                .iter()
                .map(|c| (c.name.clone(), NameSwitched { values: c.to.clone(), already: false }));
            Output::Switched { names: names.collect() }
        }
        Action::Verify { changes, canary } => {
            let census = Census {
                agree: BTreeSet::from(["ns-west".to_owned()]),
                disagree: BTreeMap::new(),
                silent: BTreeMap::new(),
            };
            let visit = Visit { address: "198.51.100.80".to_owned(), took: Duration::from_millis(12) };
            Output::Verified {
                censuses: changes.iter().map(|c| (c.name.clone(), census.clone())).collect(),
                canary: canary.then_some(visit),
            }
        }
        Action::Report => Output::Reported,
        Action::CheckStandby { .. } => Output::Ready { behind: Duration::from_millis(4) },
        Action::Drain { .. } => Output::Drained,
        Action::Lift { .. } => Output::Lifted,
        Action::CatchUp { goals, .. } => Output::CaughtUp { positions: goals.clone() },
        Action::Salvage { databases, .. } => {
            let salvage = Salvage {
                diverged_at: None,
                end: Lsn::new(0x16_B374_D848),
                rows: 0,
                unread: Vec::new(),
                folder: None,
            };
            Output::Salvaged { salvages: databases.keys().map(|d| (d.clone(), salvage.clone())).collect() }
        }
        Action::Rejoin { databases, .. } => {
            let rejoined = Rejoined { way: RejoinWay::Rewind, already: false, because: None };
            Output::Rejoined { rejoins: databases.keys().map(|d| (d.clone(), rejoined.clone())).collect() }
        }
        Action::AwaitReplication { standby, databases, .. } => {
            let TargetPosition { system, position, .. } = standing(standby);
            let reached = LogPosition { system, timeline: Timeline::new(2), lsn: position.replayed };
            let positions = databases.iter().map(|d| (d.clone(), reached.clone()));
            Output::Replicating { positions: positions.collect() }
        }
        Action::Run { .. }
        | Action::Http { .. }
        | Action::Sql { .. }
        | Action::Wait { .. }
        | Action::Notify { .. }
        | Action::Approve => Output::Did { said: "as pretended".to_owned() },
    }
}
