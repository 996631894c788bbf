//! A vantage that says what it does not see.

use std::time::Duration;

use lifeboat_core::reason::Reason;
use lifeboat_core::sighting::{Failure, FailureKind};
use lifeboat_core::status::Verdict;
use lifeboat_core::testimony::{Seen, Testimony};

use super::setting::NAMES;

/// Makes a testimony say that a region is lost, with all the proof that words can give, and that the other is well.
pub(crate) fn twist(testimony: &mut Testimony, lost: usize) {
    let Some(regions) = testimony.regions.get_mut(&NAMES.workload) else { return };
    for (r, name) in NAMES.regions.iter().enumerate() {
        let (region, probe) = (name.clone(), NAMES.probes[r].clone());
        let last = Failure::new(FailureKind::Refused, "a lie");
        let (verdict, reason) = if r == lost {
            (Verdict::Lost, Reason::ProbeDown { region, probe, failures: 3, last })
        } else {
            (Verdict::Healthy, Reason::AllAnswer { region, probes: 1 })
        };
        let proven = verdict == Verdict::Lost;
        regions.insert(name.clone(), Seen { verdict, reason, proven, age: Some(Duration::from_millis(100)) });
    }
}
