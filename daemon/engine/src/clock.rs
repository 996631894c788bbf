//! The only reader of clocks.
//!
//! **Invariant:** moments never run backwards while the process lives: the wall clock is read once, at
//! start, and the monotonic clock after that. A wall clock that steps changes nothing until a restart.

use std::time::{SystemTime, UNIX_EPOCH};

use lifeboat_core::Moment;
use tokio::time::Instant;

/// The agent's clock; cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    wall: Moment,
}

impl Clock {
    /// Starts at the wall clock's time.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(Moment::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Starts at the wall clock's time, or at `newest` when the wall clock was set back behind it: moments on
    /// record must not lie in the future.
    pub fn start_after(newest: Moment) -> Self {
        let clock = Self::start();
        Self { wall: clock.wall.max(newest), ..clock }
    }

    /// Starts at a given time; with tokio's paused time this makes a pretend clock.
    pub fn starting_at(wall: Moment) -> Self {
        Self { started: Instant::now(), wall }
    }

    /// The moment it is.
    pub fn now(&self) -> Moment {
        self.wall + self.started.elapsed()
    }

    /// Sleeps until `moment`; returns at once when it has passed.
    pub async fn sleep_until(&self, moment: Moment) {
        tokio::time::sleep_until(self.started + moment.since(self.wall)).await;
    }
}
