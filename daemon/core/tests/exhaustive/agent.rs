//! An agent of the model: the real `Guardian`, and the rules of the loop around it.
//!
//! The loop's rules: it steps down when its tenure is over by its own clock; what it decides is appended before anything
//! starts; an append that is refused, or whose fate it cannot learn, deposes it; what it started is let go when it steps
//! down, and may still come to an effect.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::event::Witnessing;
use lifeboat_core::head::Guarded;
use lifeboat_core::sighting::{DatabaseSample, DatabaseState, FailureKind, StandbyPosition};
use lifeboat_core::testimony::Beat;
use lifeboat_core::{
    Answer, Decision, Event, Evidence, Failure, Guardian, Look, Lsn, Moment, Sighting, Timeline,
};

use crate::page::{happening, transitions};
use crate::server::Condition;
use crate::setting::{CLUSTER, EXPIRY, Side, TTL, Variant, agent, policy, runbooks, shop};
use crate::world::{DAWN, Flight, World, plain};

/// Whether an agent's process is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Awake,
    Frozen(u64),
    Down(u64),
}

/// For how long a clock runs fast before it is set right again in its speed, though not in what it says.
const FAST: u64 = 60_000;

/// A clock, which may run a tenth faster than true time for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    since: (u64, u64),
    pub(crate) fast: bool,
}

impl Clock {
    pub(crate) fn own(&self, now: u64) -> u64 {
        let (truly, owned) = self.since;
        let passed = now - truly;
        owned + passed + if self.fast { passed.min(FAST) / 11 } else { 0 }
    }

    pub(crate) fn drift(&mut self, now: u64) {
        *self = Self { since: (now, self.own(now)), fast: !self.fast };
    }
}

/// One agent.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) guardian: Guardian,
    pub(crate) clock: Clock,
    pub(crate) presence: Presence,
    /// How many records it has read.
    pub(crate) taken: usize,
    /// The tenure it believes to hold, and until when by its own clock.
    pub(crate) held: Option<(u64, u64)>,
    /// Cut off from the coordinator, and from everything else, until then.
    pub(crate) cut: Option<u64>,
    pub(crate) blind: Option<u64>,
    /// The newest testimony it heard of each, and whether it was told of its end.
    heard: [(u64, bool); 3],
    says: [Option<Guarded>; 2],
    /// The newest renewal it saw of each lease, and when that is over by its own clock.
    pub(crate) leases: [Option<(u64, u64)>; 2],
    complained: bool,
    /// The answer to its next append is lost; whether the append was taken in.
    pub(crate) torn: Option<bool>,
}

impl Agent {
    pub(crate) fn new(place: usize, variant: Variant) -> Self {
        let mut guardian = Guardian::restore(policy(place, variant), runbooks(), "", &[]);
        guardian.stand_by();
        Self {
            guardian,
            clock: Clock { since: (DAWN, DAWN), fast: false },
            presence: Presence::Awake,
            taken: 0,
            held: None,
            cut: None,
            blind: None,
            heard: [(0, true); 3],
            says: [None, None],
            leases: [None, None],
            complained: false,
            torn: None,
        }
    }
}

impl World {
    pub(crate) fn agent(&mut self, place: usize) -> &mut Agent {
        Arc::make_mut(&mut self.agents[place])
    }

    /// The agent that decides, and can.
    pub(crate) fn decider(&self) -> Option<usize> {
        (0..2).find(|place| {
            let agent = &self.agents[*place];
            agent.guardian.decides() && agent.presence == Presence::Awake && agent.cut.is_none()
        })
    }

    /// Ends what was to end by now.
    pub(crate) fn wake_agent(&mut self, place: usize) {
        let (now, variant) = (self.now, self.variant);
        let ended = |until: Option<u64>| until.filter(|until| *until > now);
        let (cut, blind) = (ended(self.agents[place].cut), ended(self.agents[place].blind));
        if (cut, blind) != (self.agents[place].cut, self.agents[place].blind) {
            (self.agent(place).cut, self.agent(place).blind) = (cut, blind);
        }
        match self.agents[place].presence {
            Presence::Frozen(until) if until <= now => self.agent(place).presence = Presence::Awake,
            Presence::Down(until) if until <= now => {
                let (taken, clock) = (self.agents[place].taken, self.agents[place].clock);
                let records = self.read(taken);
                let mut guardian = Guardian::restore(policy(place, variant), runbooks(), "", &records);
                guardian.stand_by();
                *self.agent(place) =
                    Agent { guardian, clock, taken, cut, blind, ..Agent::new(place, variant) };
                self.decide(place, 0, Event::Started);
            }
            _ => {}
        }
    }

    /// All that an agent does in one turn.
    pub(crate) fn round(&mut self, place: usize) {
        let own = self.agents[place].clock.own(self.now);
        if self.agents[place].held.is_some_and(|(_, until)| own >= until) {
            self.step_down(place);
        }
        if self.agents[place].cut.is_none() {
            self.attend_coordinator(place, own);
        } else if !std::mem::replace(&mut self.agent(place).complained, true) {
            self.decide(place, 0, Event::Coordinated(Err("no answer".to_owned())));
        }
        let connected = self.agents[place].blind.is_none();
        let asked = Moment::from_millis(own - 1);
        let answered = usize::from(connected);
        self.decide(place, 0, Event::Witnessed(Witnessing { vantage: agent(place), at: asked, answered }));
        for side in Side::BOTH {
            let look = self.look(place, side, own + 2);
            let failed = look.as_ref().err().map(|failure| {
                failure.kind == FailureKind::Refused || failure.kind == FailureKind::CannotCommit
            });
            self.eyes[place][side as usize].note(self.now, failed, connected);
            let sighting = Sighting {
                workload: shop(),
                region: side.name(),
                probe: side.name().as_str().into(),
                vantage: agent(place),
                at: Moment::from_millis(own + 2),
                took: Duration::from_millis(1),
                look,
            };
            self.decide(place, 2, Event::Sighted(sighting));
        }
        self.decide(place, 2, Event::Tick);
        if self.agents[place].cut.is_none() {
            self.testify(place, own + 2);
            if self.agents[place].guardian.better_elsewhere(Moment::from_millis(own + 2)) {
                self.step_down(place);
            }
        }
    }

    fn attend_coordinator(&mut self, place: usize, own: u64) {
        if std::mem::replace(&mut self.agent(place).complained, false) {
            self.decide(place, 0, Event::Coordinated(Ok(())));
        }
        let mine = self.shared.tenure.is_some_and(|(holder, _)| holder == place);
        match self.agents[place].held {
            Some((term, _)) if mine && term == self.shared.term => self.renew(place, own),
            Some(_) => self.step_down(place),
            None => {}
        }
        self.take_news(place, own);
        if self.agents[place].held.is_none() && self.shared.tenure.is_none() {
            self.shared.term += 1;
            let term = self.shared.term;
            self.shared.tenure = Some((place, self.now + TTL));
            self.agent(place).held = Some((term, own + TTL));
            self.decide(place, 0, Event::Elected { term });
            if self.agents[place].held.is_some() {
                self.renew(place, own);
            }
        }
    }

    fn renew(&mut self, place: usize, own: u64) {
        let Some((term, _)) = self.agents[place].held else { return };
        self.shared.tenure = Some((place, self.now + TTL));
        self.agent(place).held = Some((term, own + TTL));
        // Beats are numbered by the clock: later is greater, and nothing in a state counts turns.
        let beat = Beat { term, count: own };
        self.shared.beat = Some(beat);
        self.decide(place, 0, Event::Beaten(beat));
    }

    /// The records, testimonies and leases that it has not seen.
    fn take_news(&mut self, place: usize, own: u64) {
        for index in self.agents[place].taken..self.shared.records.len() {
            let stamped = (*self.shared.records[index]).clone();
            self.decide(place, 0, Event::Recorded(stamped));
            self.agent(place).taken = index + 1;
        }
        for (vantage, told) in self.shared.testimonies.clone().into_iter().enumerate() {
            let Some((testimony, until)) = told.filter(|_| vantage != place) else { continue };
            let (newest, silenced) = self.agents[place].heard[vantage];
            if until > self.now && testimony.sequence > newest {
                self.agent(place).heard[vantage] = (testimony.sequence, false);
                self.decide(place, 0, Event::Testified((*testimony).clone()));
            } else if until <= self.now && !silenced {
                self.agent(place).heard[vantage].1 = true;
                self.decide(place, 0, Event::Silenced(agent(vantage)));
            }
        }
        let guarded: &[Side] = if self.variant.sentries { &Side::BOTH } else { &[] };
        for side in guarded.iter().copied() {
            let (says, renewed) = (self.servers[side as usize].says(), self.servers[side as usize].renewed);
            let known = self.agents[place].leases[side as usize];
            if let Some(renewed) = renewed.filter(|renewed| known.is_none_or(|(known, _)| known != *renewed))
            {
                self.agent(place).leases[side as usize] = Some((renewed, own + EXPIRY));
            }
            if self.agents[place].says[side as usize] != says {
                self.agent(place).says[side as usize] = says;
                self.decide(place, 0, Event::Guarded { workload: shop(), region: side.name(), says });
            }
        }
    }

    fn testify(&mut self, place: usize, own: u64) {
        let echo = self.shared.beat;
        let mut testimony = self.agents[place].guardian.testimony(Moment::from_millis(own), self.now, echo);
        for regions in testimony.regions.values_mut() {
            regions.values_mut().for_each(|seen| seen.reason = plain(Side::East));
        }
        self.shared.testimonies[place] = Some((Arc::new(testimony), self.now + TTL));
    }

    /// What its probe sees of a region; a look at the primary commits a heartbeat.
    fn look(&mut self, place: usize, side: Side, own: u64) -> Look {
        let beliefs = self.agents[place].guardian.beliefs();
        let (primary, epoch) = &beliefs[&shop()];
        let (expected, blind) = (*primary == side.name(), self.agents[place].blind.is_some());
        let server = self.server(side);
        let fails = |kind| Err(Failure::new(kind, ""));
        match server.condition {
            _ if blind => return fails(FailureKind::Silent),
            Condition::Frozen(_) => return fails(FailureKind::Silent),
            Condition::Stopped | Condition::Dead => return fails(FailureKind::Refused),
            Condition::Up => {}
        }
        let mut heartbeat = None;
        if expected {
            if !server.primary {
                return fails(FailureKind::WrongRole);
            }
            if server.fenced.is_some() {
                return fails(FailureKind::CannotCommit);
            }
            if server.epoch <= *epoch {
                heartbeat = Some(Moment::from_millis(own));
                (server.epoch, server.heartbeat) = (*epoch, heartbeat);
            }
        }
        let (timeline, system) = (Timeline::new(server.timeline), CLUSTER);
        let state = if server.primary {
            DatabaseState::Primary {
                written: Lsn::new(server.has),
                heartbeat,
                synchronous: Default::default(),
            }
        } else {
            DatabaseState::Standby(self.position(side))
        };
        self.replicate();
        Ok(Evidence::Database(DatabaseSample { database: "orders".into(), system, timeline, state }))
    }

    pub(crate) fn position(&self, side: Side) -> StandbyPosition {
        let [here, there] = [&self.servers[side as usize], &self.servers[side.other() as usize]];
        let reached = there.condition == Condition::Up && there.primary && here.linked && there.linked;
        StandbyPosition {
            received: Lsn::new(here.has),
            replayed: Lsn::new(here.has),
            heartbeat: here.heartbeat,
            epoch: Some(here.epoch),
            streaming: reached && here.timeline == there.timeline,
            name: String::new(),
        }
    }

    /// Gives the tenure up: what is under way is let go, what is not on record never was.
    pub(crate) fn step_down(&mut self, place: usize) {
        let mine = self.shared.tenure.is_some_and(|(holder, _)| holder == place);
        let held = self.agent(place).held.take().is_some_and(|(term, _)| term == self.shared.term);
        if mine && held && self.agents[place].cut.is_none() {
            self.shared.tenure = None;
        }
        for flight in self.flights.iter_mut().filter(|flight| flight.place == place) {
            flight.live = false;
        }
        self.decide(place, 0, Event::Deposed);
        let records = self.read(self.agents[place].taken);
        self.agent(place).guardian.reread(&records);
    }

    /// The loop: decide, append, start. `later` is how far into its turn the agent is.
    pub(crate) fn decide(&mut self, place: usize, later: u64, event: Event) -> Option<Answer> {
        let at = Moment::from_millis(self.agents[place].clock.own(self.now) + later);
        let happening = happening(&event);
        let decision = self.agent(place).guardian.decide(at, event);
        let guardian = &self.agents[place].guardian;
        if guardian.decides() {
            let phase = &self.shared.ledger.phase;
            self.chart.reactions.insert((phase.name(), happening), phase.react(happening));
        }
        if !guardian.decides() {
            if !decision.records.is_empty() || !decision.commands.is_empty() {
                self.blame(|| format!("{} stands by, and decided {:?}", agent(place), decision.records));
            }
            return decision.answer.map(|answer| *answer);
        }
        let (head, epoch) = (guardian.heads()[&shop()].clone(), guardian.beliefs()[&shop()].1);
        if !decision.records.is_empty() {
            let before = self.shared.ledger.clone();
            let (cut, torn) = (self.agents[place].cut.is_some(), self.agent(place).torn.take());
            let appended = !cut && torn != Some(false) && self.append(place, at, &decision.records, head);
            if appended {
                let taken = self.shared.records.len();
                self.agent(place).taken = taken;
                self.chart.transitions.extend(transitions(&before, at, happening, &decision.records));
                self.judge((place, at), &decision, epoch, torn.is_some());
            }
            if !appended || torn.is_some() {
                self.step_down(place);
                return None;
            }
        } else if !decision.commands.is_empty() {
            self.blame(|| format!("started, and not on record: {:?}", decision.commands));
        }
        self.start(place, decision, epoch)
    }

    fn start(&mut self, place: usize, decision: Decision, epoch: lifeboat_core::Epoch) -> Option<Answer> {
        let started = self.now;
        let flights = decision.commands.into_iter().map(|command| Flight {
            command: Arc::new(command),
            epoch,
            place,
            started,
            live: true,
        });
        self.flights.extend(flights);
        self.ran |= self.shared.ledger.phase.run().is_some();
        decision.answer.map(|answer| *answer)
    }
}
