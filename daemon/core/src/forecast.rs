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
    /// What 95 in 100 of them kept to, in milliseconds; the longest when there are fewer than 20.
    #[serde(default, with = "time::millis_option")]
    pub p95: Option<Duration>,
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
            StepForecast {
                step: step.name.clone(),
                median: part(known, 50),
                p95: part(known, 95),
                runs: known.len(),
            }
        });
        Self { detect_refusing, detect_silent: detect_silent.unwrap_or_default(), steps: steps.collect() }
    }
}

/// What `percent` in 100 of the lengths do not exceed.
fn part(lengths: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    sorted.get((sorted.len() * percent / 100).min(last)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_of_what_was_measured() {
        let seconds =
            |list: &[u64], p| part(&list.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>(), p);
        assert_eq!(seconds(&[], 50), None);
        assert_eq!(seconds(&[9, 1, 3], 50), Some(Duration::from_secs(3)));
        assert_eq!(seconds(&[9, 1, 3], 95), Some(Duration::from_secs(9)));
        assert_eq!(seconds(&(1..=20).collect::<Vec<_>>(), 95), Some(Duration::from_secs(20)));
        assert_eq!(seconds(&(1..=40).collect::<Vec<_>>(), 95), Some(Duration::from_secs(39)));
    }
}
