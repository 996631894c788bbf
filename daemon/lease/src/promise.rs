//! What this agent has promised to sentries while the coordinator was lost: that it counts no expiry before a moment.
//!
//! **Invariant:** a promise is never taken back or shortened.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use lifeboat_core::{Moment, RegionName, WorkloadName};

/// The newest promise for each write lease, on this agent's clock. One of it is shared by who gives promises and who counts
/// expiries. It is forgotten with the process: a new one counts an expiry only after it has watched for a whole lease,
/// so no promise may reach further than the length of the lease from when it is given.
#[derive(Debug, Default)]
pub struct Promises(Mutex<BTreeMap<(WorkloadName, RegionName), Moment>>);

impl Promises {
    /// Notes that no expiry of this lease is counted before `until`.
    pub fn note(&self, workload: &WorkloadName, region: &RegionName, until: Moment) {
        let mut promises = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = promises.entry((workload.clone(), region.clone())).or_default();
        *newest = until.max(*newest);
    }

    /// Until when no expiry of this lease is counted; none when nothing was promised.
    pub fn until(&self, workload: &WorkloadName, region: &RegionName) -> Option<Moment> {
        let promises = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        promises.get(&(workload.clone(), region.clone())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_never_shortened() {
        let (shop, east, west) = ("shop".into(), "east".into(), "west".into());
        let promises = Promises::default();
        assert_eq!(promises.until(&shop, &east), None);
        promises.note(&shop, &east, Moment::from_millis(20));
        promises.note(&shop, &east, Moment::from_millis(10));
        assert_eq!(promises.until(&shop, &east), Some(Moment::from_millis(20)));
        assert_eq!(promises.until(&shop, &west), None);
    }
}
