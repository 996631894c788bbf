//! The sentries of the pretend world: each keeps the write lease for a primary, and stops one that may not have it.
//!
//! **Invariant:** a deadline is counted from before the renewal was sent, on the sentry's own clock.
//! **Invariant:** the switch goes on when the sentry does not; it stands still only with its whole host.

use lifeboat_core::RegionName;
use lifeboat_core::head::Guarded;

use super::coordinator::Renewed;
use super::setting::NAMES;
use super::world::{Due, World};

/// Turns in the time of one lease, and the pause below which there are not so many: as the real one does it.
const TURNS: u64 = 12;
const CLOSEST: u64 = 1_000;

/// The pause after a turn that was no good one.
const HASTE: u64 = 500;

impl World {
    /// A sentry's turn: keep the lease for a primary, stop one that may not have it. The next one comes sooner after one that
    /// failed: when the coordinator is back, that is to be noticed at once.
    pub(crate) fn sentry(&mut self, r: usize) {
        let good = self.take_turn(r);
        let calm = (self.setting.lease() / TURNS).max(CLOSEST);
        let pause = if good { calm } else { HASTE } + self.chance.below(60);
        self.schedule(pause, Due::Sentry(r));
    }

    /// Whether it was a good one: the coordinator answered, or all agents granted more time.
    fn take_turn(&mut self, r: usize) -> bool {
        if !self.sentries[r].up || self.sentries[r].frozen || !self.network.awake(r) {
            return true;
        }
        let runs = self.databases[r].running;
        let primary = self.databases[r].primary && !self.databases[r].closed;
        let wants = self.databases[r].wants_start && self.databases[r].primary;
        if !self.network.coordinated(r) || self.lost() {
            return runs && primary && self.failsafe(r);
        }
        let says = match (runs, self.databases[r].primary) {
            (true, true) => Guarded::Writing,
            (true, false) => Guarded::Following,
            (false, _) => Guarded::Stopped,
        };
        self.coordinator.guarded[r] = Some((self.now, says));
        if !primary || !(runs || wants) {
            return true;
        }
        match self.coordinator.renew_lease(r, self.now) {
            Renewed::Held => {
                // The answer may be lost: then the lease is longer than its holder knows.
                if self.lost() {
                    return false;
                }
                self.extend(r);
                if wants {
                    self.run(r);
                }
            }
            Renewed::NotOurs => self.stop(r, "its sentry"),
            Renewed::Coming | Renewed::Unknown => {}
        }
        true
    }

    fn extend(&mut self, r: usize) {
        let until = self.now + self.sentries[r].truly(self.setting.lease() - self.setting.margin());
        let sentry = &mut self.sentries[r];
        sentry.deadline = Some(until);
        if !std::mem::replace(&mut sentry.armed, true) {
            self.schedule(until - self.now, Due::Switch(r));
        }
    }

    /// The coordinator is lost: every other agent that cannot reach it either, and is asked directly, promises to count no
    /// lease as over for a while. Only when all do, the primary goes on.
    fn failsafe(&mut self, r: usize) -> bool {
        let others = (0..3).filter(|a| *a != r);
        let granted = others.clone().all(|a| {
            self.network.talk(a, r)
                && self.network.awake(a)
                && self.agents[a].up
                && self.agents[a].frozen == 0
                && !self.network.coordinated(a)
                && self.would_grant(a, r)
        });
        // A lease that ran out is made good by nothing but a new one.
        let lasts = self.sentries[r].deadline.is_some_and(|deadline| self.now < deadline);
        if !granted || !lasts {
            return false;
        }
        for a in 0..3 {
            let promised = self.agents[a].clock(self.now) + self.setting.lease();
            self.agents[a].promised = self.agents[a].promised.max(promised);
        }
        self.extend(r);
        true
    }

    /// Whether an agent knows of nothing that speaks against it: no fence, and no other region that may take writes.
    fn would_grant(&self, a: usize, r: usize) -> bool {
        let heads = self.agents[a].guardian.heads();
        let Some(head) = heads.get(&NAMES.workload) else { return false };
        let here = |name: &RegionName| *name == NAMES.regions[r];
        here(&head.holder) && head.coming.as_ref().is_none_or(here) && !head.closing
    }

    pub(crate) fn switch_looks(&mut self, r: usize) {
        self.sentries[r].armed = false;
        let Some(deadline) = self.sentries[r].deadline else { return };
        if !self.network.awake(r) {
            // It stands still with its host, and looks when that wakes.
            return;
        }
        if self.now < deadline {
            self.sentries[r].armed = true;
            return self.schedule(deadline - self.now, Due::Switch(r));
        }
        self.sentries[r].deadline = None;
        if self.databases[r].primary {
            self.stop(r, "its dead-man switch");
        }
    }

    fn stop(&mut self, r: usize, by: &str) {
        if std::mem::take(&mut self.databases[r].running) {
            self.trace.line(self.now, format_args!("{} is stopped by {by}", NAMES.regions[r]));
        }
        self.databases[r].frozen = false;
        self.databases[r].wants_start = false;
        self.sentries[r].deadline = None;
    }

    fn run(&mut self, r: usize) {
        let database = &mut self.databases[r];
        database.running = true;
        database.wants_start = false;
        self.trace.line(self.now, format_args!("{} is started", NAMES.regions[r]));
    }

    /// A database's host, or the database, is there again. Beside a sentry a primary waits for its lease.
    pub(crate) fn boot(&mut self, r: usize) {
        if self.databases[r].running {
            return;
        }
        if self.setting.setup.sentries && self.databases[r].primary {
            self.databases[r].wants_start = true;
        } else {
            self.run(r);
        }
    }
}
