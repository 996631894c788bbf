//! What can happen next: the one thing that happens when all goes well, and everything that can go otherwise.
//!
//! **Invariant:** what happens when all goes well depends on the state alone; so following it from any state is the proof
//! that what is open there ends.

use std::sync::Arc;

use lifeboat_core::event::Attempt;
use lifeboat_core::machine::Phase;
use lifeboat_core::order::{Acceptance, Order};
use lifeboat_core::plan::Kind;
use lifeboat_core::run::Progress;
use lifeboat_core::{Event, Fault, FaultKind, Moment, Outcome};
use lifeboat_runbooks::Deed;

use crate::agent::Presence;
use crate::server::Condition;
use crate::setting::{PERSON, Side, shop};
use crate::world::World;

/// The lengths of a turn: below every threshold; above the tenure's and the silence; above the freshness.
const SHORT: u64 = 3_000;
const LONG: u64 = 12_000;
const LONGER: u64 = 23_000;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    /// Time passes, and everybody does what is due, the agents in this order.
    Turn(u64, [usize; 2]),
    /// A command is carried out, and its outcome told to whoever waits for it.
    Carry(usize),
    /// It is carried out, and nobody learns that.
    Unheard(usize),
    /// It is not, for this reason.
    Fail(usize, FaultKind),
    /// What a deposed, dead or frozen agent started is carried out after all.
    Late(usize),
    Freeze(usize),
    Crash(usize, u64),
    Cut(usize),
    Blind(usize),
    Drift(usize),
    /// The answer to the agent's next append is lost; whether the append was taken in.
    Tear(usize, bool),
    WitnessSilent,
    WitnessBlind,
    WitnessFreezes,
    Kill(Side),
    Halt(Side, u64),
    CutSentry(Side),
    Unlink,
    Return(Side),
    Order(Order),
}

/// How much of what can go wrong is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// What changes what can be decided.
    Narrow,
    /// All of it.
    Wide,
}

impl World {
    /// What happens when all goes well; nothing when all is over.
    pub(crate) fn course(&self) -> Option<Move> {
        let awake = |place: usize| self.agents[place].presence == Presence::Awake;
        let mut live = self.flights.iter().enumerate();
        let ready = live.find(|(_, flight)| flight.live && awake(flight.place) && !self.waits(flight));
        if let Some((index, _)) = ready {
            return Some(Move::Carry(index));
        }
        let calm = self.agents.iter().all(|agent| {
            agent.presence == Presence::Awake
                && agent.cut.is_none()
                && agent.blind.is_none()
                && agent.torn.is_none()
        });
        let thawed =
            self.servers.iter().all(|s| !matches!(s.condition, Condition::Frozen(_)) && s.cut.is_none());
        let run = self.shared.ledger.phase.run();
        let over = self.ran && (run.is_none() || self.stranded());
        let still = calm && thawed && self.flights.iter().all(|f| !f.live) && self.decider().is_some();
        (!(over && still)).then_some(Move::Turn(SHORT, [1, 0]))
    }

    /// Whether nobody can say yet what became of a command.
    fn waits(&self, flight: &crate::world::Flight) -> bool {
        // Tried in a copy: what it would do is what it will do.
        let fence = matches!(flight.command.action, lifeboat_core::plan::Action::Fence { expiry: true, .. });
        fence && {
            let mut copy = self.clone();
            let index = self.flights.iter().position(|other| Arc::ptr_eq(&other.command, &flight.command));
            index.is_some_and(|index| copy.carry_out(index).is_none())
        }
    }

    /// Everything that can go otherwise.
    pub(crate) fn deviations(&self, width: Width) -> Vec<Move> {
        let wide = width == Width::Wide;
        let mut all = vec![Move::Turn(LONG, [1, 0]), Move::Turn(LONGER, [1, 0])];
        if wide {
            all.push(Move::Turn(SHORT, [0, 1]));
        }
        for (index, flight) in self.flights.iter().enumerate() {
            let presence = self.agents[flight.place].presence;
            if flight.live && presence == Presence::Awake {
                all.push(Move::Unheard(index));
                all.push(Move::Fail(index, FaultKind::Refused));
                all.push(Move::Fail(index, FaultKind::Unclear));
                if wide {
                    all.push(Move::Fail(index, FaultKind::Unreachable));
                    all.push(Move::Carry(index));
                }
            } else {
                all.push(Move::Late(index));
            }
        }
        for place in 0..2 {
            let agent = &self.agents[place];
            if agent.presence != Presence::Awake {
                continue;
            }
            let decides = agent.guardian.decides();
            all.push(Move::Crash(place, 12_000));
            if decides {
                all.extend([Move::Crash(place, 1_000), Move::Freeze(place)]);
                all.extend([true, false].map(|taken| Move::Tear(place, taken)));
            }
            if agent.cut.is_none() {
                all.push(Move::Cut(place));
            }
            if agent.blind.is_none() {
                all.push(Move::Blind(place));
            }
            if wide || decides {
                all.push(Move::Drift(place));
            }
        }
        if self.witness.silent.is_none() {
            all.extend([Move::WitnessBlind, Move::WitnessFreezes]);
            if wide {
                all.push(Move::WitnessSilent);
            }
        }
        self.servers_go_wrong(wide, &mut all);
        if let Some(place) = self.decider() {
            all.extend(self.orders(place).into_iter().map(Move::Order));
        }
        all
    }

    fn servers_go_wrong(&self, wide: bool, all: &mut Vec<Move>) {
        for server in &self.servers {
            match server.condition {
                Condition::Up => {
                    all.extend([Move::Kill(server.side), Move::Halt(server.side, 30_000)]);
                    if wide {
                        all.push(Move::Halt(server.side, 8_000));
                    }
                }
                // While a run's tool works on its host, nobody else starts it.
                Condition::Stopped | Condition::Dead if self.tended(server.side) => {}
                Condition::Stopped | Condition::Dead => all.push(Move::Return(server.side)),
                Condition::Frozen(_) => {}
            }
            if wide && self.variant.sentries && server.cut.is_none() && server.runs() {
                all.push(Move::CutSentry(server.side));
            }
        }
        if self.servers.iter().all(|server| server.linked) {
            all.push(Move::Unlink);
        }
    }

    /// Whether a run's tool has begun to make the server of that region a standby.
    fn tended(&self, side: Side) -> bool {
        let Some(run) = self.shared.ledger.phase.run().filter(|run| run.plan.from == side.name()) else {
            return false;
        };
        let mut steps = run.plan.steps.iter().zip(&run.attempts);
        steps.any(|(step, attempts)| matches!(step.deed, Deed::Salvage | Deed::Rejoin) && *attempts > 0)
    }

    /// What a sensible person may order now.
    pub(crate) fn orders(&self, place: usize) -> Vec<Order> {
        let ledger = &self.shared.ledger;
        let (workload, by) = (shop(), PERSON.to_owned());
        let other = Side::of(&ledger.primary).other().name();
        let now = Moment::from_millis(self.agents[place].clock.own(self.now));
        let mut all = Vec::new();
        match (&ledger.phase, ledger.phase.run()) {
            (phase, Some(run)) => {
                let (id, why) = (run.id().clone(), String::new());
                if let Some((question, _)) = &run.question {
                    all.push(Order::Approve {
                        run: id.clone(),
                        accept: Some(question.acceptance()),
                        by: by.clone(),
                    });
                }
                all.push(Order::Cancel { run: id.clone(), reason: why.clone(), by: by.clone() });
                if run.question.is_some() || matches!(phase, Phase::Stranded(..)) {
                    all.push(Order::Abandon {
                        run: id.clone(),
                        reason: why.clone(),
                        accept: None,
                        by: by.clone(),
                    });
                }
                if matches!(phase, Phase::Stranded(..)) {
                    all.push(self.go_on(run));
                    let failed = run.plan.steps.iter().zip(&run.progress);
                    let failed = failed.filter(|(_, progress)| matches!(progress, Progress::Failed { .. }));
                    all.extend(failed.map(|(step, _)| Order::Skip {
                        run: id.clone(),
                        step: step.name.clone(),
                        reason: why.clone(),
                        by: by.clone(),
                    }));
                }
            }
            (_, None) => {
                all.push(Order::Failover { workload: workload.clone(), to: other.clone(), by: by.clone() });
                all.push(Order::Switchover { workload: workload.clone(), to: other, by: by.clone() });
            }
        }
        if ledger.pause.is_none() {
            let until = now + std::time::Duration::from_secs(15);
            all.push(Order::Pause { workload, reason: String::new(), until, by });
        } else {
            all.push(Order::Resume { workload, by });
        }
        all
    }

    fn go_on(&self, run: &lifeboat_core::run::Run) -> Order {
        let (workload, by) = (shop(), PERSON.to_owned());
        match run.plan.kind {
            Kind::Failover => Order::Failover { workload, to: run.plan.to.clone(), by },
            Kind::Switchover => Order::Switchover { workload, to: run.plan.to.clone(), by },
            Kind::Failback => Order::Failback { workload, by },
            Kind::Rejoin => Order::Rejoin { workload, region: run.plan.from.clone(), by },
        }
    }

    /// One of each kind of order, right or wrong, for the table.
    pub(crate) fn every_order(&self, place: usize) -> Vec<Order> {
        let mut all = self.orders(place);
        let (workload, by, why) = (shop(), PERSON.to_owned(), String::new());
        let ledger = &self.shared.ledger;
        let run = ledger.phase.run().map(|run| run.id().clone()).or_else(|| ledger.last_run.clone());
        let other = Side::of(&ledger.primary).other().name();
        all.push(Order::Failover { workload: workload.clone(), to: other.clone(), by: by.clone() });
        all.push(Order::Switchover { workload: workload.clone(), to: other.clone(), by: by.clone() });
        all.push(Order::Failback { workload: workload.clone(), by: by.clone() });
        all.push(Order::Rejoin { workload: workload.clone(), region: other, by: by.clone() });
        all.push(Order::Resume { workload, by: by.clone() });
        if let Some(run) = run {
            let step = "report".into();
            let accept = Some(Acceptance::Loss("0s".to_owned()));
            all.push(Order::Approve { run: run.clone(), accept, by: by.clone() });
            all.push(Order::Cancel { run: run.clone(), reason: why.clone(), by: by.clone() });
            all.push(Order::Abandon { run: run.clone(), reason: why.clone(), accept: None, by: by.clone() });
            all.push(Order::Skip { run, step, reason: why, by });
        }
        all
    }

    /// Makes it happen.
    pub(crate) fn happen(&mut self, what: &Move) {
        self.chart = crate::page::Chart::default();
        let now = self.now;
        match what {
            Move::Turn(length, order) => self.turn(*length, *order),
            Move::Carry(index) => {
                if let Some(outcome) = self.carry_out(*index) {
                    self.tell(*index, outcome);
                }
            }
            Move::Unheard(index) => {
                self.carry_out(*index);
                self.tell(*index, Outcome::Failed(Fault::new(FaultKind::Unclear, "")));
            }
            Move::Fail(index, kind) => self.tell(*index, Outcome::Failed(Fault::new(*kind, ""))),
            Move::Late(index) => {
                self.carry_out(*index);
                self.flights.remove(*index);
            }
            Move::Freeze(place) => self.agent(*place).presence = Presence::Frozen(now + 14_000),
            Move::Crash(place, length) => {
                self.agent(*place).presence = Presence::Down(now + length);
                self.agent(*place).held = None;
                self.agent(*place).guardian.stand_by();
                for flight in self.flights.iter_mut().filter(|flight| flight.place == *place) {
                    flight.live = false;
                }
            }
            Move::Cut(place) => self.agent(*place).cut = Some(now + 14_000),
            Move::Blind(place) => self.agent(*place).blind = Some(now + 11_000),
            Move::Drift(place) => self.agent(*place).clock.drift(now),
            Move::Tear(place, taken) => self.agent(*place).torn = Some(*taken),
            Move::WitnessSilent => self.witness.silent = Some(now + 14_000),
            Move::WitnessBlind => self.witness.blind = Some(now + 14_000),
            Move::WitnessFreezes => {
                self.witness.unsaid = Some(Arc::new(self.witness_says()));
                self.witness.silent = Some(now + 29_000);
            }
            Move::Kill(side) => self.server(*side).condition = Condition::Dead,
            Move::Halt(side, length) => self.server(*side).condition = Condition::Frozen(now + length),
            Move::CutSentry(side) => self.server(*side).cut = Some(now + 14_000),
            Move::Unlink => self.server(Side::East).linked = false,
            Move::Return(side) => {
                let (head, sentries) = (self.shared.head.clone(), self.variant.sentries);
                self.server(*side).condition = Condition::Up;
                self.server(*side).pass(now, head.as_ref(), sentries);
            }
            Move::Order(order) => {
                if let Some(place) = self.decider() {
                    self.decide(place, 2, Event::Ordered(order.clone()));
                }
            }
        }
        self.look_around();
    }

    /// Tells the outcome of a command to whoever waits for it.
    fn tell(&mut self, index: usize, outcome: Outcome) {
        let flight = self.flights.remove(index);
        if flight.live {
            self.decide(flight.place, 2, Event::StepEnded { ended: flight.command.which(), outcome });
        }
    }
}

impl World {
    /// Whether deviations from here on are of interest.
    pub(crate) fn eventful(&self) -> bool {
        !self.ran || self.shared.ledger.phase.run().is_some()
    }

    /// What the answer to an order may depend on.
    pub(crate) fn posture(&self) -> String {
        let ledger = &self.shared.ledger;
        let run = ledger
            .phase
            .run()
            .map(|run| (run.plan.kind, run.question.is_some(), run.past_return, run.back.is_some()));
        let decider = self.decider().is_some();
        format!("{} {run:?} {} {:?} {decider}", ledger.phase.name(), ledger.pause.is_some(), ledger.verdicts)
    }

    /// An event of every kind, for the one who decides.
    pub(crate) fn probes(&self) -> Vec<(lifeboat_core::machine::Happening, usize, Event)> {
        let Some(place) = self.decider() else { return Vec::new() };
        let mut events: Vec<Event> = self.every_order(place).into_iter().map(Event::Ordered).collect();
        let ledger = &self.shared.ledger;
        let run = ledger.phase.run().map(|run| run.id()).or(ledger.last_run.as_ref());
        if let Some(run) = run.cloned() {
            // An attempt that is not under way: its outcome is nobody's.
            let ended = Attempt { workload: shop(), run, step: "report".into(), attempt: 99, undo: false };
            let outcome = Outcome::Failed(Fault::new(FaultKind::Unclear, ""));
            events.push(Event::StepEnded { ended, outcome });
        }
        events.into_iter().map(|event| (crate::page::happening(&event), place, event)).collect()
    }
}
