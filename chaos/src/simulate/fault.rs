//! Faults begin and end in the pretend world.

use super::agent::RESTART;
use super::setting::WAKING;
use super::world::{Due, World};
use crate::scenario::{Fault, Part};

impl World {
    /// A fault begins, or ends.
    pub(crate) fn strike(&mut self, index: usize, begins: bool) {
        let fault = self.faults[index].clone();
        let word = if begins { "begins" } else { "ends" };
        self.trace.line(self.now, format_args!("** {fault:?} {word}"));
        match fault {
            Fault::Kill { what } => self.kill(what, begins),
            Fault::Freeze { what } => self.freeze(what, begins),
            Fault::Cut { from, to } => self.network.cut(from, to, begins),
            Fault::Part { between, and } => {
                self.network.cut(between, and, begins);
                self.network.cut(and, between, begins);
            }
            Fault::Isolate { site } => self.network.isolate(site, begins),
            Fault::Lose { percent } => self.network.lose = if begins { percent.into() } else { 0 },
            Fault::StopReplication {} => self.held_back = u8::from(begins),
            Fault::Lag { by } => {
                self.lag = if begins { u64::try_from(by.as_millis()).unwrap_or_default() } else { 0 };
            }
            Fault::HangWrites { site } => self.databases[site.index()].hangs = begins,
            Fault::FailPromotion { site } => self.databases[site.index()].fails_promotion = begins,
            Fault::FailNames {} => self.names.fails = begins,
            Fault::StaleResolver {} => self.names.stale = begins,
            Fault::Clock { agent, step } => {
                if begins {
                    self.agents[agent.index()].skew += step;
                    self.crash(agent.index());
                    self.schedule(RESTART, Due::Start(agent.index()));
                }
            }
            Fault::Drift { agent, millionths } => {
                let drift = if begins { millionths } else { 0 };
                self.agents[agent.index()].drift_by(self.now, drift);
            }
            Fault::Lie { agent, about } => {
                self.agents[agent.index()].lies = begins.then_some(about.index());
            }
            Fault::FailDisk { agent } => self.agents[agent.index()].disk_fails = begins,
            Fault::Twin { agent } => {
                if begins {
                    self.twin(agent.index());
                }
            }
            Fault::Order { give } => {
                if begins {
                    self.wish(give);
                }
            }
        }
    }

    fn kill(&mut self, what: Part, begins: bool) {
        self.network.kill(what, begins);
        let site = match what {
            Part::Site(site) | Part::Agent(site) | Part::Database(site) | Part::Sentry(site) => site.index(),
            Part::Member(_) | Part::Coordinator => return,
        };
        let all = matches!(what, Part::Site(_));
        if all || matches!(what, Part::Agent(_)) {
            let killed = &mut self.agents[site].killed;
            *killed = if begins { *killed + 1 } else { killed.saturating_sub(1) };
            if begins {
                self.crash(site);
            } else {
                self.schedule(RESTART, Due::Start(site));
            }
        }
        if site < 2 && (all || matches!(what, Part::Database(_))) {
            if begins {
                self.databases[site].running = false;
                self.databases[site].wants_start = false;
            } else {
                self.boot(site);
            }
        }
        if site < 2 && (all || matches!(what, Part::Sentry(_))) {
            self.sentries[site].up = !begins;
        }
    }

    fn freeze(&mut self, what: Part, begins: bool) {
        self.network.freeze(what, begins);
        let site = match what {
            Part::Site(site) | Part::Agent(site) | Part::Database(site) | Part::Sentry(site) => site.index(),
            Part::Member(_) | Part::Coordinator => return,
        };
        match what {
            Part::Database(_) => self.databases[site].frozen = begins && self.databases[site].running,
            Part::Sentry(_) => self.sentries[site].frozen = begins,
            Part::Agent(_) => {
                let frozen = &mut self.agents[site].frozen;
                *frozen = if begins { *frozen + 1 } else { frozen.saturating_sub(1) };
            }
            Part::Site(_) | Part::Member(_) | Part::Coordinator => {}
        }
        if begins && site < 2 && matches!(what, Part::Site(_)) {
            self.stood[site] = (self.now, u64::MAX);
        }
        if begins || self.network.still(site) {
            return;
        }
        if matches!(what, Part::Site(_)) && site < 2 {
            self.woke[site] = self.now;
            self.stood[site].1 = self.now;
            // The switch sees the time soon after its host wakes, and not before.
            let soon = self.chance.below(WAKING);
            self.schedule(soon, Due::Switch(site));
        }
        if self.agents[site].frozen == 0 {
            for due in std::mem::take(&mut self.agents[site].deferred) {
                self.schedule(0, due);
            }
        }
    }
}
