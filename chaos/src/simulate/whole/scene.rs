//! The scene: two regions, the paths between three places, the names, and the judge who sees all of it.
//!
//! **Invariant:** everything that is true changes in [`Scene::change`] only, at one moment of the paused clock; the judge
//! looks before and after.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifeboat_core::head::Head;
use lifeboat_core::sighting::FailureKind;
use lifeboat_core::{Epoch, Evidence, Moment, Stamped};
use lifeboat_engine::Inbox;
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Ask, Call, Role};
use lifeboat_engine::pretend::Coordinator;

use super::ledger::Ledger;
use crate::simulate::chance::Chance;
use crate::simulate::digest::Digest;
use crate::simulate::network::Network;
use crate::simulate::oracle::{Facts, Oracle};
use crate::simulate::region::{Database, acknowledges, replicates};
use crate::simulate::setting::{Break, EPOCH, NAMES, Setting, WAKING};
use crate::simulate::world::NameServer;

/// What is so.
pub(super) struct State {
    pub(super) setting: Setting,
    pub(super) chance: Chance,
    /// Whether orders to the world are late, come twice, hang or lose their answers.
    pub(super) stormy: bool,
    /// Whether a dead host refuses connections, or says nothing.
    pub(super) dead_refuse: bool,
    pub(super) network: Network,
    pub(super) databases: [Database; 2],
    pub(super) names: NameServer,
    /// When the sentry beside each database stops it, unless its lease is renewed.
    pub(super) deadlines: [Option<u64>; 2],
    /// Whether each sentry runs.
    pub(super) sentries: [bool; 2],
    pub(super) lag: u64,
    pub(super) held_back: u8,
    /// When each host last woke, and since when it stood still before.
    pub(super) woke: [u64; 2],
    pub(super) stood: [(u64, u64); 2],
    /// Who runs, and how to give it an order.
    pub(super) inboxes: [Option<Inbox>; 3],
    /// Whether a line to the coordinator misbehaves beyond what the paths explain.
    pub(super) troubled: u32,
    pub(super) oracle: Oracle,
    pub(super) ledger: Ledger,
    pub(super) trace: Digest,
    read: usize,
}

/// The scene, which every port looks at and changes.
pub(super) struct Scene {
    state: Mutex<State>,
    pub(super) clock: Clock,
    pub(super) coordinator: Coordinator,
}

impl Scene {
    /// A quiet day: the workload lives in `east`.
    pub(super) fn quiet(
        setting: Setting,
        chance: Chance,
        clock: Clock,
        coordinator: Coordinator,
        trace: bool,
    ) -> Arc<Self> {
        let lag = u64::try_from(setting.setup.lag.as_millis()).unwrap_or_default();
        let state = State {
            oracle: Oracle::new(&setting),
            setting,
            chance,
            stormy: false,
            dead_refuse: false,
            network: Network::default(),
            databases: [Database::new(true), Database::new(false)],
            names: NameServer::default(),
            deadlines: [None; 2],
            sentries: [true; 2],
            lag,
            held_back: 0,
            woke: [0; 2],
            stood: [(0, 0); 2],
            inboxes: [None, None, None],
            troubled: 0,
            ledger: Ledger::default(),
            trace: Digest::new(trace),
            read: 0,
        };
        Arc::new(Self { state: Mutex::new(state), clock, coordinator })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long this world has lived, in milliseconds.
    pub(super) fn now(&self) -> u64 {
        self.clock.now().millis() - EPOCH
    }

    /// Something happens, at this moment.
    pub(super) fn change<T>(&self, act: impl FnOnce(&mut State, u64) -> T) -> T {
        let now = self.now();
        let mut state = self.state();
        let place = state.read;
        state.heed(now, self.coordinator.records_after(place));
        state.flow(now);
        let result = act(&mut state, now);
        state.flow(now);
        result
    }
}

impl State {
    /// What was written since is on record.
    fn heed(&mut self, now: u64, records: Vec<Stamped>) {
        for stamped in records {
            self.read += 1;
            self.trace.line(now, format_args!("#{} {} {:?}", stamped.sequence, stamped.at, stamped.record));
            let before = self.ledger.term;
            self.ledger.take(&stamped.record);
            if self.ledger.term != before {
                self.oracle.tally.takeovers += u64::from(before > 0);
                if self.ledger.term < before {
                    self.wrong(now, format!("tenure {} comes after {before}", self.ledger.term));
                }
            }
            let facts = self.facts(now);
            let (primary, term, epoch) = (self.oracle.book.primary, self.ledger.term, self.ledger.epoch);
            let holder = NAMES.regions[primary].clone();
            let head = Head { epoch, holder, closing: false, coming: None, tended: None };
            let one = std::slice::from_ref(&stamped);
            self.oracle.recorded(primary, term, one, Some(&head), &facts);
        }
    }

    /// Time has passed: clients have written, the standby has received, the judge looks who acknowledges.
    fn flow(&mut self, now: u64) {
        let writes = [self.acknowledges(0), self.acknowledges(1)];
        for (database, _) in self.databases.iter_mut().zip(writes).filter(|(_, writes)| *writes) {
            database.end = now;
            database.acknowledged = Some(now);
        }
        for r in 0..2 {
            if self.replicates(r) {
                let [east, west] = &mut self.databases;
                let (standby, primary) = if r == 0 { (east, west) } else { (west, east) };
                standby.receive(primary, now.saturating_sub(self.lag));
                primary.solo = false;
            }
        }
        let epochs = [self.databases[0].epoch, self.databases[1].epoch];
        let alone = |r: usize| !self.setting.setup.sync || self.databases[r].solo;
        let woken = [0, 1].map(|r| alone(r).then_some(self.woke[r] + WAKING));
        self.oracle.writers(now, writes, epochs, woken);
    }

    /// Whether a database receives what the other one writes.
    pub(super) fn replicates(&self, r: usize) -> bool {
        replicates(&self.databases, &self.network, self.held_back, r)
    }

    /// Whether a database acknowledges writes now.
    pub(super) fn acknowledges(&self, r: usize) -> bool {
        acknowledges(&self.databases, &self.network, self.held_back, self.setting.setup.sync, r)
    }

    /// Whether an agent is heard by the machines of a region, and hears them.
    pub(super) const fn reaches(&self, a: usize, r: usize) -> bool {
        self.network.talk(a, r) && self.network.awake(r)
    }

    /// Whether an order under this epoch comes too late.
    pub(super) fn stale(&self, r: usize, epoch: Epoch) -> bool {
        self.databases[r].outranks(epoch) && !self.setting.breaks(Break::Epoch)
    }

    /// A database or its host does as an order says.
    pub(super) fn obey(&mut self, now: u64, r: usize, epoch: Epoch) {
        self.oracle.obeyed(now, r, epoch.get());
        self.databases[r].obey(epoch);
    }

    pub(super) fn wrong(&mut self, now: u64, what: String) {
        self.oracle.violation(now, what);
    }

    /// A call begins: its step must be on record.
    pub(super) fn begun(&mut self, now: u64, kind: &str, a: usize, call: &Call) {
        let (run, epoch) = (&call.run, call.epoch);
        self.trace.line(now, format_args!("agent {a} begins {kind} of {run} under epoch {epoch}"));
        if !self.ledger.allows(run, kind) {
            self.wrong(now, format!("{kind} of {run} begins without a step on record"));
        }
        if epoch > self.ledger.epoch {
            self.wrong(now, format!("{kind} of {run} under epoch {epoch}, which is not on record"));
        }
    }

    /// One look of an agent at a region.
    pub(super) fn look(&mut self, now: u64, a: usize, r: usize, ask: &Ask) -> Result<Evidence, FailureKind> {
        let found = self.found(now, a, r, ask);
        self.oracle.looked(now, a, r, found.as_ref().err().copied());
        let word = found.as_ref().err().map_or(0, |kind| *kind as u64 + 1);
        self.trace.word(now ^ (word << 8) ^ ((a * 2 + r) as u64));
        found
    }

    fn found(&mut self, now: u64, a: usize, r: usize, ask: &Ask) -> Result<Evidence, FailureKind> {
        if !self.network.talk(a, r) || self.network.still(r) {
            return Err(FailureKind::Silent);
        }
        if !self.network.alive(r) {
            return Err(if self.dead_refuse { FailureKind::Refused } else { FailureKind::Silent });
        }
        let streaming = self.replicates(r);
        let sync = self.setting.setup.sync && !self.databases[r].solo && self.replicates(1 - r);
        let database = &self.databases[r];
        if !database.running {
            return Err(FailureKind::Refused);
        }
        if database.frozen {
            return Err(FailureKind::Silent);
        }
        if ask.expect == Role::Standby {
            return Ok(Evidence::Database(database.sample((a, r), streaming, None, sync)));
        }
        if !database.primary || database.rows_epoch() > ask.epoch.get() {
            return Err(FailureKind::WrongRole);
        }
        if database.closed {
            return Err(FailureKind::CannotCommit);
        }
        if !self.acknowledges(r) {
            return Err(FailureKind::CommitSilent);
        }
        let database = &mut self.databases[r];
        database.beat(a, now, ask.epoch.get(), ask.at.millis());
        let stamp = Some(Moment::from_millis(ask.at.millis()));
        Ok(Evidence::Database(database.sample((a, r), streaming, stamp, sync)))
    }

    /// What is true now, for the oracles.
    pub(super) fn facts(&self, now: u64) -> Facts {
        let up = |a: usize| self.inboxes[a].is_some() && self.network.awake(a);
        let sees = |a: usize, r: usize| self.reaches(a, r) && self.databases[r].answers();
        let sites = [0, 1, 2];
        Facts {
            now,
            up: sites.map(up),
            outside: sites.map(|a| self.network.outside(a)),
            coordinated: sites.map(|a| self.network.coordinated(a)),
            lies: [None; 3],
            failing: self.stormy || self.troubled > 0,
            skewed: false,
            sees: sites.map(|a| [0, 1].map(|r| sees(a, r))),
            serves: [self.acknowledges(0), self.acknowledges(1)],
            primaries: [0, 1].map(|r| self.databases[r].primary),
            current: self.databases[0].timeline == self.databases[1].timeline,
        }
    }
}
