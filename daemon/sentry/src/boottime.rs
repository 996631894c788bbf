//! The clock of a lease: nanoseconds since the machine was started, suspended time included.
//!
//! A deadline must not stand still while the machine sleeps, and must not move when somebody sets the time; so it is told
//! by `CLOCK_BOOTTIME` (Linux manual, `clock_gettime(2)`), which every process of the machine reads alike.
//!
//! **Invariant:** this is the only place of the sentry that reads a clock.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment, in nanoseconds since the machine was started. Means nothing on another machine, or after a restart of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boottime(u64);

impl Boottime {
    /// Now.
    pub fn now() -> Self {
        Self(nanos(clock_gettime(ClockId::Boottime)))
    }

    /// A moment that was told by another process of this machine.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// That much later.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// How long the machine has slept since it was started: what the boot clock has counted and the monotonic one has not.
pub fn slept() -> Duration {
    let awake = nanos(clock_gettime(ClockId::Monotonic));
    // In this order, what passes between the two readings is not taken for sleep of less than nothing.
    Duration::from_nanos(nanos(clock_gettime(ClockId::Boottime)).saturating_sub(awake))
}

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_is_the_kernels_own() {
        let before = Boottime::now();
        let after = Boottime::now();
        assert!(after >= before);
        // /proc/uptime counts since the same start, in hundredths of a second.
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = text.split(' ').next().unwrap().parse().unwrap();
        let off = Duration::from_secs_f64(uptime).abs_diff(after.since(Boottime::default()));
        assert!(off < Duration::from_secs(5), "{off:?}");
        assert_eq!(before.plus(Duration::from_secs(2)).since(before), Duration::from_secs(2));
        assert_eq!(before.since(after.plus(Duration::from_secs(1))), Duration::ZERO);
    }
}
