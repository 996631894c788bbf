//! The sentries of the scene: each keeps the write lease for a primary, and stops one that may not have it.
//!
//! **Invariant:** a deadline is counted from before the renewal was sent; the switch goes on when the sentry does not, and
//! stands still only with its whole host.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::AgentName;
use lifeboat_core::head::{Guarded, Head};
use lifeboat_engine::ports::{CoordinationError, Renewal, WriteLeases};
use lifeboat_engine::pretend::Line;

use super::scene::{Scene, State};
use crate::simulate::setting::NAMES;

/// Time between two turns of a sentry.
const TURN: u64 = 1_900;

/// How long a renewal may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The name under which a sentry reaches the coordinator.
pub(super) fn name(r: usize) -> AgentName {
    AgentName::new(format!("sentry-{}", NAMES.regions[r]))
}

/// A sentry is at work as long as the world lives.
pub(super) async fn watch_for_ever(scene: Arc<Scene>, r: usize) {
    let line = scene.coordinator.line(&name(r));
    loop {
        if let Some(says) = scene.change(|state, _| state.sentry_says(r)) {
            turn(&scene, &line, r, says).await;
        }
        let pause = TURN + scene.change(|state, _| state.chance.below(60));
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn turn(scene: &Arc<Scene>, line: &Arc<Line>, r: usize, says: Guarded) {
    let sent = scene.now();
    let (lease, margin) = scene.change(|state, _| (state.setting.lease(), state.setting.margin()));
    let (workload, region) = (&NAMES.workload, &NAMES.regions[r]);
    let renewal = WriteLeases::renew(&**line, workload, region, Duration::from_millis(lease), says);
    let late = || Err(CoordinationError::Unclear("no answer in time".to_owned()));
    let renewed = tokio::time::timeout(LIMIT, renewal).await.unwrap_or_else(|_| late());
    let until = sent + lease - margin;
    let held = scene.change(|state, now| {
        if !state.sentries[r] || !state.network.awake(r) || now >= until {
            return false;
        }
        match renewed {
            Ok(Renewal::Held { .. }) => state.extend(now, r, until),
            Ok(Renewal::NotOurs(head)) => {
                state.heed_head(now, r, &head);
                false
            }
            Ok(Renewal::Unknown) | Err(_) => false,
        }
    });
    if held {
        let scene = scene.clone();
        drop(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(until.saturating_sub(scene.now()))).await;
            scene.change(|state, now| state.look_at_switch(now, r));
        }));
    }
}

impl State {
    /// What a sentry says, when it is there and has anything to do.
    fn sentry_says(&self, r: usize) -> Option<Guarded> {
        let runs = self.databases[r].running;
        let there = self.setting.setup.sentries && self.sentries[r] && self.network.awake(r);
        there.then(|| match (runs, self.databases[r].primary) {
            (true, true) => Guarded::Writing,
            (true, false) => Guarded::Following,
            (false, _) => Guarded::Stopped,
        })
    }

    /// The lease is held: a primary runs, and until then.
    fn extend(&mut self, now: u64, r: usize, until: u64) -> bool {
        let database = &self.databases[r];
        if !database.primary || database.closed || !(database.running || database.wants_start) {
            return false;
        }
        if self.databases[r].wants_start {
            self.databases[r].running = true;
            self.databases[r].wants_start = false;
            self.trace.line(now, format_args!("{} is started", NAMES.regions[r]));
        }
        self.deadlines[r] = Some(until);
        true
    }

    /// It may not hold the lease, under this head.
    fn heed_head(&mut self, now: u64, r: usize, head: &Head) {
        let region = &NAMES.regions[r];
        let left_alone = head.coming.as_ref() == Some(region) || head.tended.as_ref() == Some(region);
        let primary = self.databases[r].primary && !self.databases[r].closed;
        if primary && self.databases[r].running && !left_alone {
            self.stop(now, r, "its sentry");
        }
    }

    /// The dead-man switch looks at the time; on a host that stands still it looks when that wakes.
    pub(super) fn look_at_switch(&mut self, now: u64, r: usize) {
        let over = self.deadlines[r].is_some_and(|deadline| now >= deadline);
        if !over || !self.network.awake(r) {
            return;
        }
        self.deadlines[r] = None;
        if self.databases[r].primary {
            self.stop(now, r, "its dead-man switch");
        }
    }

    fn stop(&mut self, now: u64, r: usize, by: &str) {
        if std::mem::take(&mut self.databases[r].running) {
            self.trace.line(now, format_args!("{} is stopped by {by}", NAMES.regions[r]));
        }
        self.databases[r].frozen = false;
        self.databases[r].wants_start = false;
        self.deadlines[r] = None;
    }

    /// A database's host, or the database, is there again. Beside a sentry a primary waits for its lease.
    pub(super) fn boot(&mut self, now: u64, r: usize) {
        if self.databases[r].running {
            return;
        }
        if self.setting.setup.sentries && self.databases[r].primary {
            self.databases[r].wants_start = true;
        } else {
            self.databases[r].running = true;
            self.trace.line(now, format_args!("{} is started", NAMES.regions[r]));
        }
    }
}
