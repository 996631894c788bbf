//! A database server of the model and the sentry beside it: what outlives every agent.
//!
//! **Invariant:** nothing here knows the guardian's code; a server refuses by what was written to it.
//! The sentry acts before the server does when a machine wakes: what the real one needs for that (10 ms turns, the margin
//! of the lease) is its own tests' business.

use lifeboat_core::head::{Guarded, Head};
use lifeboat_core::{Epoch, Moment};

use crate::setting::{LEASE, Side};

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It answers.
    Up,
    /// The machine stands still, until then.
    Frozen(u64),
    /// The machine runs, the server does not.
    Stopped,
    /// The machine is gone.
    Dead,
}

/// One server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) side: Side,
    pub(crate) condition: Condition,
    pub(crate) primary: bool,
    pub(crate) timeline: u32,
    /// Read only, under the epoch of whoever made it so.
    pub(crate) fenced: Option<Epoch>,
    /// The newest epoch of a heartbeat it has.
    pub(crate) epoch: Epoch,
    /// When the newest heartbeat it has was stamped, on the clock of whoever stamped it.
    pub(crate) heartbeat: Option<Moment>,
    /// Up to which true moment it has what was ever acknowledged in its line.
    pub(crate) has: u64,
    /// Whether its log reaches the standby.
    pub(crate) linked: bool,
    /// Until when its sentry holds the write lease; none when it never had one.
    pub(crate) lease: Option<u64>,
    /// When the coordinator last took a renewal in.
    pub(crate) renewed: Option<u64>,
    /// The sentry cannot reach the coordinator, until then.
    pub(crate) cut: Option<u64>,
    /// The head as its sentry last read it.
    pub(crate) told: Option<Head>,
    /// The newest epoch that the tool on its host obeyed.
    pub(crate) host: Epoch,
}

impl Server {
    pub(crate) fn new(side: Side, now: u64) -> Self {
        Self {
            side,
            condition: Condition::Up,
            primary: side == Side::East,
            timeline: 1,
            fenced: None,
            epoch: Epoch::default(),
            heartbeat: None,
            has: now,
            linked: true,
            lease: None,
            renewed: None,
            cut: None,
            told: None,
            host: Epoch::default(),
        }
    }

    /// Whether a client that reaches it gets a write acknowledged.
    pub(crate) fn acknowledges(&self) -> bool {
        self.condition == Condition::Up && self.primary && self.fenced.is_none()
    }

    /// Whether its machine runs.
    pub(crate) const fn runs(&self) -> bool {
        matches!(self.condition, Condition::Up | Condition::Stopped)
    }

    /// What its sentry says of it, while it can.
    pub(crate) fn says(&self) -> Option<Guarded> {
        if !self.runs() || self.cut.is_some() {
            return None;
        }
        Some(match (self.condition, self.primary) {
            (Condition::Up, true) => Guarded::Writing,
            (Condition::Up, false) => Guarded::Following,
            _ => Guarded::Stopped,
        })
    }

    /// The time up to `now` has passed: it acknowledged writes, or its sentry ended that.
    pub(crate) fn pass(&mut self, now: u64, head: Option<&Head>, sentries: bool) {
        if self.cut.is_some_and(|until| until <= now) {
            self.cut = None;
        }
        let woken = matches!(self.condition, Condition::Frozen(until) if until <= now);
        if woken {
            self.condition = Condition::Up;
        }
        if sentries && self.runs() {
            if woken {
                // It looks at the clock before it can have asked anybody.
                self.attend(now, false);
            }
            if self.cut.is_none() {
                self.told = head.cloned();
            }
            self.attend(now, self.cut.is_none());
        }
        if self.acknowledges() {
            self.has = now;
        }
    }

    /// The sentry's turn: without a lease the server is stopped in time; then the lease is renewed while that is allowed.
    fn attend(&mut self, now: u64, reaches: bool) {
        if !self.primary {
            self.lease = None;
            return;
        }
        let (here, head) = (self.side.name(), self.told.as_ref());
        let holds = head.is_some_and(|head| head.holder == here && !head.closing);
        let coming = head.is_none_or(|head| head.coming.as_ref() == Some(&here));
        let tended = head.is_some_and(|head| head.tended.as_ref() == Some(&here));
        let renews = holds && reaches;
        let lapsed = self.lease.map_or(!coming && !renews, |until| until <= now);
        if self.condition == Condition::Up && lapsed && !tended {
            if self.acknowledges() {
                self.has = self.lease.unwrap_or(self.has).clamp(self.has, now);
            }
            self.condition = Condition::Stopped;
        }
        if renews {
            self.lease = Some(now + LEASE);
            self.renewed = Some(now);
        }
    }
}
