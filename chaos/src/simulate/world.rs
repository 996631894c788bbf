//! The pretend world: three places, what is in them, one queue of what is due, one stream of chance.
//!
//! **Invariant:** everything happens in the order of (time, place in the queue); nothing depends on anything else.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use lifeboat_core::sighting::FailureKind;
use lifeboat_core::{Event, Evidence, Failure, Sighting};

use super::actuator::Effect;
use super::agent::{Agent, Sent};
use super::chance::Chance;
use super::coordinator::Coordinator;
use super::digest::Digest;
use super::network::Network;
use super::oracle::{Facts, Oracle};
use super::region::{Database, Sentry, acknowledges, replicates};
use super::setting::{INTERVAL, NAMES, Setting, TIMEOUT, WAKING};
use crate::scenario::{Fault, Site};

/// How long a healthy look takes.
const SOON: u64 = 20;

/// What is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// An agent's turn, in that life of it.
    Turn(usize, u32),
    /// It asked to be woken.
    Wake(usize, u32),
    /// It looks at a region.
    Look(usize, u32, usize),
    /// It is told something.
    Told(usize, u32, Box<Event>),
    /// Its append comes to the coordinator.
    Arrive(usize, u32, u64, Box<Sent>),
    /// It waits for the answer no more.
    GiveUp(usize, u32, u64),
    /// It is started again.
    Start(usize),
    /// An effect comes to what it is to change.
    Effect(Box<Effect>),
    /// A sentry's turn.
    Sentry(usize),
    /// The dead-man switch of a region looks at the time.
    Switch(usize),
    /// A fault begins, or ends.
    Fault(usize, bool),
    /// A person looks at what is going on.
    Person,
}

#[derive(Debug)]
struct Item {
    at: u64,
    place: u64,
    due: Due,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    /// The earliest is the greatest: the queue gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.place).cmp(&(self.at, self.place))
    }
}

/// What the names of the workload say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NameServer {
    pub(crate) says: usize,
    /// What it said before, and when that ended.
    pub(crate) before: (usize, u64),
    pub(crate) epoch: u64,
    pub(crate) fails: bool,
    /// Whether a resolver keeps what it knew.
    pub(crate) stale: bool,
}

/// The world.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) setting: Setting,
    pub(crate) chance: Chance,
    /// Whether messages are late, come twice, or lose their answers.
    pub(crate) stormy: bool,
    pub(crate) network: Network,
    pub(crate) agents: [Agent; 3],
    pub(crate) coordinator: Coordinator,
    pub(crate) databases: [Database; 2],
    pub(crate) sentries: [Sentry; 2],
    pub(crate) names: NameServer,
    /// How far the standby is behind, and whether it receives nothing.
    pub(crate) lag: u64,
    pub(crate) held_back: u8,
    /// Whether a dead host refuses connections, or says nothing.
    pub(crate) dead_refuse: bool,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Digest,
    pub(crate) faults: Vec<Fault>,
    /// Whether persons do whatever is asked, and mend what they can.
    pub(crate) helpful: bool,
    pub(crate) persons: u64,
    /// Until when they begin anything new.
    pub(crate) patience: u64,
    /// When each region's host last woke.
    pub(crate) woke: [u64; 2],
    /// When it last stood still: nothing was written then.
    pub(crate) stood: [(u64, u64); 2],
    queue: BinaryHeap<Item>,
    placed: u64,
}

impl World {
    pub(crate) fn new(setting: Setting, chance: Chance, verbose: bool) -> Self {
        let agent = |site: Site| Agent::new(setting.policy(site), 0, 0);
        let lag = u64::try_from(setting.setup.lag.as_millis()).unwrap_or_default();
        Self {
            now: 0,
            agents: Site::ALL.map(agent),
            oracle: Oracle::new(&setting),
            setting,
            chance,
            stormy: false,
            network: Network::default(),
            coordinator: Coordinator::default(),
            databases: [Database::new(true), Database::new(false)],
            sentries: [Sentry::new(0), Sentry::new(0)],
            names: NameServer::default(),
            lag,
            held_back: 0,
            dead_refuse: true,
            trace: Digest::new(verbose),
            faults: Vec::new(),
            helpful: false,
            persons: 0,
            patience: u64::MAX,
            woke: [0; 2],
            stood: [(0, 0); 2],
            queue: BinaryHeap::with_capacity(64),
            placed: 0,
        }
    }

    /// Everything starts.
    pub(crate) fn begin_all(&mut self) {
        (0..3).for_each(|a| self.start(a));
        if self.setting.setup.sentries {
            (0..2).for_each(|r| self.schedule(200 + 700 * r as u64, Due::Sentry(r)));
        }
    }

    pub(crate) fn schedule(&mut self, after: u64, due: Due) {
        self.placed += 1;
        self.queue.push(Item { at: self.now + after, place: self.placed, due });
    }

    /// Whether a message is lost.
    pub(crate) fn lost(&mut self) -> bool {
        self.network.lose > 0 && self.chance.percent(self.network.lose)
    }

    /// Time passes, until then.
    pub(crate) fn pass(&mut self, until: u64) {
        while self.queue.peek().is_some_and(|item| item.at <= until) {
            let Some(Item { at, due, .. }) = self.queue.pop() else { break };
            self.advance(at);
            self.happen(due);
            self.judge_writers();
        }
        self.advance(until);
    }

    /// Clients have written all the time since, wherever writes were acknowledged; the log went where it could.
    fn advance(&mut self, at: u64) {
        if at == self.now {
            return;
        }
        for r in 0..2 {
            if self.acknowledges(r) {
                self.databases[r].end = at;
                self.databases[r].acknowledged = Some(at);
            }
        }
        self.now = at;
        for r in 0..2 {
            if self.replicates(r) {
                let [east, west] = &mut self.databases;
                let until = if self.setting.setup.sync { at } else { at.saturating_sub(self.lag) };
                let (standby, primary) = if r == 0 { (east, west) } else { (west, east) };
                standby.receive(primary, until);
                // From now on its word is waited for.
                primary.solo = false;
            }
        }
    }

    /// Whether the log of the other region comes to a standby.
    pub(crate) fn replicates(&self, r: usize) -> bool {
        replicates(&self.databases, &self.network, self.held_back, r)
    }

    /// Whether a database acknowledges writes now.
    pub(crate) fn acknowledges(&self, r: usize) -> bool {
        acknowledges(&self.databases, &self.network, self.held_back, self.setting.setup.sync, r)
    }

    fn judge_writers(&mut self) {
        let writes = [self.acknowledges(0), self.acknowledges(1)];
        if writes == [false, false] {
            return;
        }
        let epochs = [self.databases[0].epoch, self.databases[1].epoch];
        let alone = |r: usize| !self.setting.setup.sync || self.databases[r].solo;
        let woken = [0, 1].map(|r| alone(r).then_some(self.woke[r] + WAKING));
        self.oracle.writers(self.now, writes, epochs, woken);
    }

    fn happen(&mut self, due: Due) {
        let owner = match &due {
            Due::Turn(a, life)
            | Due::Wake(a, life)
            | Due::Look(a, life, _)
            | Due::Told(a, life, _)
            | Due::GiveUp(a, life, _) => Some((*a, *life)),
            Due::Effect(effect) if !effect.flying => Some((effect.agent, effect.life)),
            _ => None,
        };
        if let Some((a, life)) = owner {
            if self.agents[a].life != life {
                return;
            }
            if self.agents[a].frozen > 0 || self.network.still(a) {
                return self.agents[a].deferred.push(due);
            }
        }
        match due {
            Due::Turn(a, _) => {
                self.turn(a);
                let facts = self.facts();
                self.oracle.watch(&facts);
            }
            Due::Wake(a, _) => self.tell(a, Event::Tick),
            Due::Look(a, life, r) => self.look(a, life, r),
            Due::Told(a, _, event) => self.tell(a, *event),
            Due::Arrive(a, life, serial, sent) => self.arrive(a, life, serial, &sent),
            Due::GiveUp(a, _, serial) => self.give_up(a, serial),
            Due::Start(a) => {
                let free = self.agents[a].killed == 0 && self.network.alive(a) && !self.agents[a].up;
                if free {
                    self.start(a);
                }
            }
            Due::Effect(effect) => self.affect(effect),
            Due::Sentry(r) => self.sentry(r),
            Due::Switch(r) => self.switch_looks(r),
            Due::Fault(index, begins) => self.strike(index, begins),
            Due::Person => self.person(),
        }
    }

    /// An agent looks at a region.
    fn look(&mut self, a: usize, life: u32, r: usize) {
        let found = self.found(a, r);
        let silent = matches!(found, Err(FailureKind::Silent | FailureKind::CommitSilent));
        let took = if silent { TIMEOUT } else { SOON };
        self.oracle.looked(self.now, a, r, found.as_ref().err().copied());
        let event = |world: &Self, look| {
            let at = world.moment(a) + Duration::from_millis(if silent { TIMEOUT } else { 0 });
            Event::Sighted(Sighting {
                workload: NAMES.workload.clone(),
                region: NAMES.regions[r].clone(),
                probe: NAMES.probes[r].clone(),
                vantage: NAMES.agents[a].clone(),
                at,
                took: Duration::from_millis(took),
                look,
            })
        };
        let pause = INTERVAL + self.chance.below(40);
        self.schedule(pause, Due::Look(a, life, r));
        match found {
            Ok(evidence) => {
                let event = event(self, Ok(evidence));
                self.tell(a, event);
            }
            Err(kind) => {
                let event = event(self, Err(Failure::new(kind, "pretended")));
                if silent {
                    self.schedule(TIMEOUT, Due::Told(a, life, Box::new(event)));
                } else {
                    self.tell(a, event);
                }
            }
        }
    }

    fn found(&mut self, a: usize, r: usize) -> Result<Evidence, FailureKind> {
        if !self.network.talk(a, r) || self.network.still(r) || self.lost() {
            return Err(FailureKind::Silent);
        }
        if !self.network.alive(r) {
            return Err(if self.dead_refuse { FailureKind::Refused } else { FailureKind::Silent });
        }
        let (home, epoch) = self.agents[a].believes;
        let database = &self.databases[r];
        if !database.running {
            return Err(FailureKind::Refused);
        }
        if database.frozen {
            return Err(FailureKind::Silent);
        }
        let streaming = self.replicates(r);
        let sync = self.setting.setup.sync && database.primary && !database.solo && self.replicates(1 - r);
        if home != r {
            return Ok(Evidence::Database(database.sample((a, r), streaming, None, sync)));
        }
        if !database.primary {
            return Err(FailureKind::WrongRole);
        }
        if database.closed {
            return Err(FailureKind::CannotCommit);
        }
        if database.rows_epoch() > epoch {
            return Err(FailureKind::WrongRole);
        }
        if !self.acknowledges(r) {
            return Err(FailureKind::CommitSilent);
        }
        let stamp = self.agents[a].clock(self.now);
        let now = self.now;
        let database = &mut self.databases[r];
        database.beat(a, now, epoch, stamp);
        database.end = now;
        let stamp = Some(lifeboat_core::Moment::from_millis(stamp));
        Ok(Evidence::Database(database.sample((a, r), streaming, stamp, sync)))
    }

    /// What is true now, for the oracles.
    pub(crate) fn facts(&self) -> Facts {
        let agent = |a: usize| self.agents[a].up && self.agents[a].frozen == 0 && self.network.awake(a);
        let sees = |a: usize, r: usize| {
            self.network.talk(a, r) && self.network.awake(r) && self.databases[r].answers()
        };
        let sites = [0, 1, 2];
        Facts {
            now: self.now,
            up: sites.map(agent),
            outside: sites.map(|a| self.network.outside(a)),
            coordinated: sites.map(|a| self.network.coordinated(a)),
            lies: sites.map(|a| self.agents[a].lies),
            failing: sites.iter().any(|a| self.agents[*a].disk_fails) || self.network.lose > 0,
            skewed: sites.iter().any(|a| self.agents[*a].skew.abs() > 500 || self.agents[*a].drift != 0),
            sees: sites.map(|a| [0, 1].map(|r| sees(a, r))),
            serves: [0, 1].map(|r| self.acknowledges(r)),
            primaries: [0, 1].map(|r| self.databases[r].primary),
            current: self.databases[0].timeline == self.databases[1].timeline,
        }
    }
}
