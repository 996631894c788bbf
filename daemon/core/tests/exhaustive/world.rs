//! The whole state of the model: two agents with the real `Guardian`, a witness, the coordinator, two servers, the names,
//! and what is under way between them.
//!
//! **Invariant:** the coordinator is one register: an append compares the tenure and the newest record in one step, and
//! sets the head with it.

use std::sync::Arc;

use lifeboat_core::head::Head;
use lifeboat_core::ledger::Ledger;
use lifeboat_core::status::Verdict;
use lifeboat_core::testimony::{Beat, Seen, Testimony};
use lifeboat_core::{Command, Epoch, Moment, Reason, Record, Stamped};

use crate::agent::{Agent, Presence};
use crate::digest::Digest;
use crate::oracle::Book;
use crate::page::Chart;
use crate::server::{Condition, Server};
use crate::setting::{SILENCE, Side, TTL, Variant, agent, policy, shop};

/// When the model begins, on every clock.
pub(crate) const DAWN: u64 = 1_795_252_486_000;

/// How long what a deposed or dead guardian started may still come to an effect.
const LATEST: u64 = 30_000;

/// What the agents share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) records: Vec<Arc<Stamped>>,
    /// What a reader of all of it knows.
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) head: Option<Head>,
    pub(crate) term: u64,
    /// Who holds the tenure, and until when.
    pub(crate) tenure: Option<(usize, u64)>,
    pub(crate) beat: Option<Beat>,
    /// By place, with the moment each ends at.
    pub(crate) testimonies: [Option<(Arc<Testimony>, u64)>; 3],
}

/// A command that was started.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) command: Arc<Command>,
    pub(crate) epoch: Epoch,
    pub(crate) place: usize,
    pub(crate) started: u64,
    /// Whether somebody waits for its outcome.
    pub(crate) live: bool,
}

/// What one vantage truly saw of one region.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Eye {
    /// Failed looks in a row, up to four, and whether all said no.
    pub(crate) bad: u8,
    pub(crate) hard: bool,
    /// When it last saw it answer.
    pub(crate) heard: u64,
    /// When it last looked, and whether its own network worked then.
    pub(crate) last: u64,
    pub(crate) connected: bool,
}

impl Eye {
    pub(crate) fn note(&mut self, now: u64, failed: Option<bool>, connected: bool) {
        (self.last, self.connected) = (now, connected);
        let Some(hard) = failed else {
            (self.bad, self.hard, self.heard) = (0, true, now);
            return;
        };
        self.hard &= hard;
        self.bad = (self.bad + 1).min(4);
    }

    pub(crate) fn lost(&self) -> bool {
        self.bad >= 2 && (self.hard || self.last - self.heard >= SILENCE)
    }
}

/// The witness: it decides nothing, so all there is of it is what it says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness {
    pub(crate) silent: Option<u64>,
    pub(crate) blind: Option<u64>,
    /// What it was about to say when it froze: that is said first when it wakes.
    pub(crate) unsaid: Option<Arc<Testimony>>,
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) variant: Variant,
    pub(crate) now: u64,
    pub(crate) shared: Shared,
    pub(crate) agents: [Arc<Agent>; 2],
    pub(crate) witness: Witness,
    pub(crate) eyes: [[Eye; 2]; 3],
    pub(crate) servers: [Server; 2],
    /// What the names say, and the epoch that wrote it.
    pub(crate) names: (Side, Epoch),
    pub(crate) flights: Vec<Flight>,
    pub(crate) book: Arc<Book>,
    /// Whether a run was open since the scene began.
    pub(crate) ran: bool,
    pub(crate) flaw: Option<String>,
    /// What the last move showed of the machine.
    pub(crate) chart: Chart,
}

impl World {
    /// A world in which nothing has happened yet.
    pub(crate) fn new(variant: Variant) -> Self {
        let ledger = Ledger::new(&policy(0, variant).workloads[&shop()]);
        Self {
            variant,
            now: DAWN,
            shared: Shared {
                records: Vec::new(),
                ledger: Arc::new(ledger),
                head: None,
                term: 0,
                tenure: None,
                beat: None,
                testimonies: [None, None, None],
            },
            agents: [0, 1].map(|place| Arc::new(Agent::new(place, variant))),
            witness: Witness::default(),
            eyes: [[Eye::default(); 2]; 3],
            servers: Side::BOTH.map(|side| Server::new(side, DAWN)),
            names: (Side::East, Epoch::default()),
            flights: Vec::new(),
            book: Arc::new(Book::default()),
            ran: false,
            flaw: None,
            chart: Chart::default(),
        }
    }

    pub(crate) fn server(&mut self, side: Side) -> &mut Server {
        &mut self.servers[side as usize]
    }

    /// Something is not as it must be.
    pub(crate) fn blame(&mut self, flaw: impl FnOnce() -> String) {
        if self.flaw.is_none() {
            self.flaw = Some(flaw());
        }
    }

    /// What tells this state from others.
    pub(crate) fn digest(&self) -> u64 {
        let Shared { ledger, head, term, tenure, beat, testimonies, records } = &self.shared;
        let behind = self.agents.each_ref().map(|agent| records.len() - agent.taken);
        let flights: Vec<_> = self
            .flights
            .iter()
            .map(|f| {
                (&f.command.step, f.command.attempt, f.command.undo, f.epoch, f.place, f.started, f.live)
            })
            .collect();
        let world = (ledger, head, term, tenure, beat, testimonies, behind);
        let rest = (&self.witness, &self.eyes, &self.servers, &self.names, flights, &self.book, self.ran);
        let mut digest = Digest::of(&(world, rest), self.now);
        for agent in &self.agents {
            // What is before its ledger (pages, policy) is the same in every state of a scene.
            let text = format!("{agent:?}");
            let varies = text.find("ledger: Ledger {").unwrap_or_default();
            digest = digest.rotate_left(17) ^ Digest::of_text(&text[varies..], agent.clock.own(self.now));
        }
        digest
    }

    /// Time passes, and everybody who can does what is due.
    pub(crate) fn turn(&mut self, length: u64, order: [usize; 2]) {
        self.now += length;
        let now = self.now;
        self.shared.tenure = self.shared.tenure.filter(|(_, until)| *until > now);
        self.flights.retain(|flight| flight.live || now - flight.started <= LATEST);
        for server in &mut self.servers {
            server.pass(now, self.shared.head.as_ref(), self.variant.sentries);
        }
        self.replicate();
        self.witness_round();
        for place in order {
            self.wake_agent(place);
            if self.agents[place].presence == Presence::Awake {
                self.round(place);
            }
        }
    }

    /// What a standby that is reached has received.
    pub(crate) fn replicate(&mut self) {
        let [east, west] = &mut self.servers;
        let (from, to) = match (east.primary, west.primary) {
            (true, false) => (east, west),
            (false, true) => (west, east),
            _ => return,
        };
        let both = from.condition == Condition::Up && to.condition == Condition::Up;
        if both && from.linked && to.linked && to.timeline <= from.timeline {
            to.has = from.has;
            (to.heartbeat, to.epoch, to.timeline) = (from.heartbeat, from.epoch, from.timeline);
        }
    }

    fn witness_round(&mut self) {
        let now = self.now;
        let over = |until: Option<u64>| until.filter(|until| *until > now);
        (self.witness.silent, self.witness.blind) = (over(self.witness.silent), over(self.witness.blind));
        if self.witness.silent.is_some() {
            return;
        }
        let until = now + TTL;
        if let Some(unsaid) = self.witness.unsaid.take() {
            self.shared.testimonies[2] = Some((unsaid, until));
            return;
        }
        let connected = self.witness.blind.is_none();
        for side in Side::BOTH {
            let failed = match self.servers[side as usize].condition {
                _ if !connected => Some(false),
                Condition::Up => {
                    let server = &self.servers[side as usize];
                    (server.primary && server.fenced.is_some()).then_some(true)
                }
                Condition::Frozen(_) => Some(false),
                Condition::Stopped | Condition::Dead => Some(true),
            };
            self.eyes[2][side as usize].note(now, failed, connected);
        }
        let testimony = self.witness_says();
        self.shared.testimonies[2] = Some((Arc::new(testimony), until));
    }

    /// What the witness would say now.
    pub(crate) fn witness_says(&self) -> Testimony {
        let each = Side::BOTH.map(|side| {
            let eye = &self.eyes[2][side as usize];
            let verdict = match eye {
                eye if eye.lost() => Verdict::Lost,
                Eye { bad: 0, .. } => Verdict::Healthy,
                _ => Verdict::Doubtful,
            };
            let seen =
                Seen { verdict, reason: plain(side), proven: eye.connected, age: Some(Default::default()) };
            (side.name(), seen)
        });
        Testimony {
            vantage: agent(2),
            sequence: self.now,
            echo: self.shared.beat,
            connected: self.witness.blind.is_none(),
            regions: [(shop(), each.into())].into(),
        }
    }

    /// The record as it is read from its beginning.
    pub(crate) fn read(&self, until: usize) -> Vec<Stamped> {
        self.shared.records[..until].iter().map(|stamped| (**stamped).clone()).collect()
    }

    /// The record as a person reads it, for a trace.
    pub(crate) fn story(&self) -> String {
        let line = |s: &Arc<Stamped>| format!("\n  {:>7} {}", s.at.millis().saturating_sub(DAWN), s.record);
        self.shared.records.iter().map(line).collect()
    }

    /// Whether the newest record that anybody wrote says that a person knows.
    pub(crate) fn stranded(&self) -> bool {
        matches!(self.shared.ledger.phase, lifeboat_core::machine::Phase::Stranded(..))
    }

    /// Appends to the record what an agent decided: all of it or nothing.
    pub(crate) fn append(&mut self, place: usize, at: Moment, records: &[Record], head: Head) -> bool {
        let newest = self.agents[place].taken == self.shared.records.len();
        let holds = self.agents[place].held.is_some_and(|(term, _)| term == self.shared.term)
            && self.shared.tenure.is_some_and(|(holder, _)| holder == place);
        if !newest || !holds {
            return false;
        }
        let ledger = Arc::make_mut(&mut self.shared.ledger);
        for record in records {
            let sequence = self.shared.records.len() as u64 + 1;
            ledger.apply(at, record);
            self.shared.records.push(Arc::new(Stamped { sequence, at, record: record.clone() }));
        }
        self.shared.head = Some(head);
        true
    }
}

/// A reason that says nothing: in a testimony it is for people only.
pub(crate) fn plain(side: Side) -> Reason {
    Reason::NoProbes { region: side.name() }
}
