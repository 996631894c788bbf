//! How long a plan would take, from how long its steps took before.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::StepName;
use crate::plan::Plan;
use crate::policy::WorkloadPolicy;
use crate::time;

/// How long a plan would take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// From the loss to the opening of the run when the region refuses, by policy, at most.
    #[serde(with = "time::millis")]
    pub detect_refusing: Duration,
    /// The same when it is silent.
    #[serde(with = "time::millis")]
    pub detect_silent: Duration,
    /// Each step: the median of its last runs, in milliseconds; none when it never ran here.
    pub steps: Vec<StepForecast>,
}

/// How long a step would take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepForecast {
    /// The step.
    pub step: StepName,
    /// The median of its last runs, in milliseconds.
    #[serde(with = "time::millis_option")]
    pub median: Option<Duration>,
    /// Over how many runs.
    pub runs: usize,
}

impl Forecast {
    /// Forecasts a plan from the timings on record.
    pub fn of(plan: &Plan, policy: &WorkloadPolicy, timings: &BTreeMap<StepName, Vec<Duration>>) -> Self {
        let vital = || policy.probes.values().filter(|p| p.vital && p.region == plan.from);
        let detect_refusing = vital().map(|p| p.interval * p.failures).max().unwrap_or_default();
        let detect_silent = vital().map(|p| (p.interval * p.failures).max(p.silence + p.interval)).max();
        let steps = plan.steps.iter().map(|step| {
            let known = timings.get(&step.name).map_or(&[][..], Vec::as_slice);
            StepForecast { step: step.name.clone(), median: median(known), runs: known.len() }
        });
        Self { detect_refusing, detect_silent: detect_silent.unwrap_or_default(), steps: steps.collect() }
    }
}

fn median(lengths: &[Duration]) -> Option<Duration> {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_what_was_measured() {
        let seconds =
            |list: &[u64]| median(&list.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>());
        assert_eq!(seconds(&[]), None);
        assert_eq!(seconds(&[9, 1, 3]), Some(Duration::from_secs(3)));
    }
}
