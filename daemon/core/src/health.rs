//! From sightings to a verdict: what one vantage makes of one region.
//!
//! Slow is not dead. A place that says no (refused, cannot commit) is down after a number of failures; a
//! place that says nothing is down only after a longer silence; and a failure that may be our own fault
//! (a password, a certificate) never makes a region lost.
//!
//! **Invariant:** any answer, even an inconclusive one, ends a silence.
//! **Invariant:** a probe that was down and has answered once makes nothing lost, though it is not up yet.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::names::{ProbeName, RegionName};
use crate::policy::ProbePolicy;
use crate::reason::Reason;
use crate::sighting::{Failure, Look, Weight};
use crate::status::{ProbeState, Verdict};
use crate::time::Moment;

/// What is known of one probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeHealth {
    /// Failures in a row.
    pub failures: u32,
    /// Hard failures in a row.
    hard: u32,
    /// Failures in a row that say something about the place.
    conclusive: u32,
    /// Answers in a row, counted up to what a recovery needs.
    answers: u32,
    /// When the failures in a row began.
    pub failing_since: Option<Moment>,
    /// When it last gave a sign of life.
    heard: Option<Moment>,
    /// When it last answered as expected.
    pub answered: Option<Moment>,
    /// When it was last looked at.
    pub seen: Option<Moment>,
    /// When the look began that failed last.
    pub confirmed: Option<Moment>,
    /// How long the last look took.
    pub took: Duration,
    /// How the last failure went.
    pub last: Option<Failure>,
    /// Whether it counts as down.
    pub down: bool,
}

impl ProbeHealth {
    /// A probe that is looked through anew: nothing before this moment counts.
    pub fn unseen_since(now: Moment) -> Self {
        Self { heard: Some(now), ..Self::default() }
    }

    /// Takes a sighting in; says whether the probe's part in the verdict may have changed.
    pub fn note(&mut self, policy: &ProbePolicy, at: Moment, took: Duration, look: &Look) -> bool {
        let (was_quiet, was_down) = (self.failures == 0 && self.seen.is_some(), self.down);
        self.seen = Some(at);
        self.took = took;
        match look {
            Ok(_) => self.note_answer(policy, at),
            Err(failure) => {
                self.confirmed = Some(at.before(took));
                self.note_failure(policy, at, failure);
            }
        }
        !(was_quiet && self.failures == 0) || was_down != self.down
    }

    fn note_answer(&mut self, policy: &ProbePolicy, at: Moment) {
        self.failures = 0;
        self.hard = 0;
        self.conclusive = 0;
        self.failing_since = None;
        self.heard = Some(at);
        self.answered = Some(at);
        self.answers = self.answers.saturating_add(1);
        if self.answers >= policy.recoveries {
            self.down = false;
        }
    }

    fn note_failure(&mut self, policy: &ProbePolicy, at: Moment, failure: &Failure) {
        self.answers = 0;
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(at);
        self.last = Some(failure.clone());
        match failure.kind.weight() {
            Weight::Hard => {
                self.hard = self.hard.saturating_add(1);
                self.conclusive = self.conclusive.saturating_add(1);
            }
            Weight::Silence => {
                self.hard = 0;
                self.conclusive = self.conclusive.saturating_add(1);
            }
            Weight::Inconclusive => {
                self.hard = 0;
                self.conclusive = 0;
                self.heard = Some(at);
                // It lives, whatever it was before: a loss has to be proven anew.
                self.down = false;
            }
        }
        let said_no = self.hard >= policy.failures;
        let long_silent = self.conclusive >= policy.failures && self.silent(at) >= policy.silence;
        self.down = self.down || said_no || long_silent;
    }

    /// How long nothing was heard of it.
    fn silent(&self, now: Moment) -> Duration {
        self.heard
            .max(self.failing_since.filter(|_| self.heard.is_none()))
            .map_or(Duration::ZERO, |m| now.since(m))
    }

    /// Whether the last look is too old to say anything.
    pub fn stale(&self, now: Moment, freshness: Duration) -> bool {
        self.seen.is_none_or(|seen| now.since(seen) > freshness)
    }

    /// The probe's state in one word.
    pub fn state(&self, now: Moment, freshness: Duration) -> ProbeState {
        if self.stale(now, freshness) {
            ProbeState::Unseen
        } else if self.down && self.failures > 0 {
            ProbeState::Down
        } else if self.down || self.failures > 0 {
            ProbeState::Failing
        } else {
            ProbeState::Up
        }
    }

    /// Why it is not up.
    fn reason(
        &self,
        name: &ProbeName,
        policy: &ProbePolicy,
        now: Moment,
        freshness: Duration,
    ) -> Option<Reason> {
        let state = self.state(now, freshness);
        if state == ProbeState::Up {
            return None;
        }
        let (region, probe) = (policy.region.clone(), name.clone());
        let last = self.last.clone();
        if self.down && self.failures == 0 && !self.stale(now, freshness) {
            return Some(Reason::ProbeRecovering {
                region,
                probe,
                answers: self.answers,
                needed: policy.recoveries,
            });
        }
        match (state, last) {
            (ProbeState::Up, _) => None,
            (ProbeState::Unseen, _) | (_, None) => Some(Reason::NotSeen { region, probe }),
            (ProbeState::Down, Some(last)) => {
                Some(Reason::ProbeDown { region, probe, failures: self.failures, last })
            }
            (ProbeState::Failing, Some(last)) => Some(match last.kind.weight() {
                Weight::Inconclusive => Reason::ProbeInconclusive { region, probe, last },
                Weight::Silence if self.failures >= policy.failures => Reason::ProbeSilent {
                    region,
                    probe,
                    silent: self.silent(now),
                    needed: policy.silence,
                    last,
                },
                Weight::Silence | Weight::Hard => Reason::ProbeFailing {
                    region,
                    probe,
                    failures: self.failures,
                    needed: policy.failures,
                    last,
                },
            }),
        }
    }
}

/// When the trouble with a region began, and when the look began that last confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The first failure in a row.
    pub since: Moment,
    /// The beginning of the last look that failed.
    pub confirmed: Moment,
}

/// What a vantage makes of a region, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// When the trouble began and was last confirmed, if there is any.
    pub trouble: Option<Trouble>,
}

/// How a region is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Judging<'a> {
    /// The region.
    pub region: &'a RegionName,
    /// Whether the workload lives there: elsewhere only vital probes count, because the rest of a standby
    /// region may rightly be asleep.
    pub primary: bool,
    /// It is now.
    pub now: Moment,
    /// A sighting older than this is no evidence.
    pub freshness: Duration,
}

/// What a vantage makes of a region, before it is put into words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    pub(crate) verdict: Verdict,
    pub(crate) trouble: Option<Trouble>,
}

/// The probe that looks worst.
#[derive(Clone, Copy)]
struct Worst<'a> {
    verdict: Verdict,
    name: &'a ProbeName,
    policy: &'a ProbePolicy,
    probe: &'a ProbeHealth,
}

const UNSEEN: &ProbeHealth = &ProbeHealth {
    failures: 0,
    hard: 0,
    conclusive: 0,
    answers: 0,
    failing_since: None,
    heard: None,
    answered: None,
    seen: None,
    confirmed: None,
    took: Duration::ZERO,
    last: None,
    down: false,
};

impl Worst<'_> {
    fn trouble(&self) -> Option<Trouble> {
        let trouble = self.probe.failing_since.zip(self.probe.confirmed);
        trouble.map(|(since, confirmed)| Trouble { since, confirmed })
    }
}

/// The worst of the probes that count, if any is not up; and how many count.
fn worst<'a>(
    judging: Judging<'_>,
    policies: &'a BTreeMap<ProbeName, ProbePolicy>,
    health: Option<&'a BTreeMap<ProbeName, ProbeHealth>>,
) -> (Option<Worst<'a>>, usize) {
    let mut probes = 0;
    let mut worst: Option<Worst<'a>> = None;
    for (name, policy) in policies.iter().filter(|(_, p)| p.region == *judging.region) {
        if !judging.primary && !policy.vital {
            continue;
        }
        probes += 1;
        let probe = health.and_then(|health| health.get(name)).unwrap_or(UNSEEN);
        let verdict = match probe.state(judging.now, judging.freshness) {
            ProbeState::Up => continue,
            ProbeState::Down if policy.vital => Verdict::Lost,
            ProbeState::Down | ProbeState::Failing | ProbeState::Unseen => Verdict::Doubtful,
        };
        if worst.is_none_or(|known| verdict > known.verdict) {
            worst = Some(Worst { verdict, name, policy, probe });
        }
    }
    (worst, probes)
}

/// Judges a region by its probes, without words: the same verdict as [`judge`] gives.
pub(crate) fn glance(
    judging: Judging<'_>,
    policies: &BTreeMap<ProbeName, ProbePolicy>,
    health: Option<&BTreeMap<ProbeName, ProbeHealth>>,
) -> Glance {
    match worst(judging, policies, health) {
        (Some(worst), _) => Glance { verdict: worst.verdict, trouble: worst.trouble() },
        (None, 0) => Glance { verdict: Verdict::Doubtful, trouble: None },
        (None, _) => Glance { verdict: Verdict::Healthy, trouble: None },
    }
}

/// Judges a region by its probes.
pub(crate) fn judge(
    judging: Judging<'_>,
    policies: &BTreeMap<ProbeName, ProbePolicy>,
    health: Option<&BTreeMap<ProbeName, ProbeHealth>>,
) -> Judgement {
    let (worst, probes) = worst(judging, policies, health);
    // Put into words only where it is the worst.
    let worded = worst.and_then(|worst| {
        let reason = worst.probe.reason(worst.name, worst.policy, judging.now, judging.freshness)?;
        Some(Judgement { verdict: worst.verdict, reason, trouble: worst.trouble() })
    });
    match worded {
        Some(judgement) => judgement,
        None if probes == 0 => {
            let reason = Reason::NoProbes { region: judging.region.clone() };
            Judgement { verdict: Verdict::Doubtful, reason, trouble: None }
        }
        None => {
            let reason = Reason::AllAnswer { region: judging.region.clone(), probes };
            Judgement { verdict: Verdict::Healthy, reason, trouble: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sighting::{Evidence, FailureKind};

    fn policy() -> ProbePolicy {
        ProbePolicy {
            region: "east".into(),
            database: None,
            vital: true,
            interval: Duration::from_secs(5),
            failures: 3,
            recoveries: 2,
            silence: Duration::from_secs(60),
        }
    }

    /// Notes a look every 5 s; `kinds` has one letter each: `.` answer, `r` refused, `s` silent, `i` wrong identity.
    fn after(kinds: &str) -> ProbeHealth {
        let mut health = ProbeHealth::default();
        for (n, kind) in (1..).zip(kinds.chars()) {
            let look = match kind {
                '.' => Ok(Evidence::Answered),
                'r' => Err(Failure::new(FailureKind::Refused, "")),
                's' => Err(Failure::new(FailureKind::Silent, "")),
                _ => Err(Failure::new(FailureKind::WrongIdentity, "")),
            };
            health.note(&policy(), Moment::from_millis(n * 5_000), Duration::ZERO, &look);
        }
        health
    }

    #[test]
    fn one_answer_is_enough_to_make_nothing_lost() {
        let (now, freshness) = (Moment::from_millis(25_000), Duration::from_secs(30));
        assert_eq!(after(".rrr.").state(now, freshness), ProbeState::Failing);
        assert_eq!(after(".rrr.r").state(now, freshness), ProbeState::Down);
    }

    #[test]
    fn what_makes_a_probe_down() {
        for (kinds, down) in [
            (".", false),
            (".rr", false),
            (".rrr", true),
            (".rrsr", false),
            (".rrr.", true),
            (".rrr..", false),
            (".rr.rr", false),
            (".ssssssss", false),
            (".sssssssssss", false),
            (".ssssssssssss", true),
            ("ssssssssssss", false),
            ("sssssssssssss", true),
            (".ssssssssssis", false),
            (".iiiiiiiiiiiiiiiiiiiiii", false),
            (".rriirr", false),
            (".rrri", false),
            (".rrrirrr", true),
        ] {
            assert_eq!(after(kinds).down, down, "{kinds}");
        }
    }

    #[test]
    fn only_what_may_change_the_verdict_is_reported_as_a_change() {
        let mut health = after("..");
        let (at, none) = (Moment::from_millis(99_000), Duration::ZERO);
        assert!(!health.note(&policy(), at, none, &Ok(Evidence::Answered)));
        assert!(health.note(&policy(), at, none, &Err(Failure::new(FailureKind::Refused, ""))));
        assert!(health.note(&policy(), at, none, &Ok(Evidence::Answered)));
        assert!(!health.note(&policy(), at, none, &Ok(Evidence::Answered)));
    }

    #[test]
    fn a_region_is_as_bad_as_its_worst_vital_probe() {
        let (app, db) = (ProbeName::new("app"), ProbeName::new("db"));
        let aside = ProbePolicy { vital: false, ..policy() };
        let policies = BTreeMap::from([(app.clone(), aside), (db.clone(), policy())]);
        let region = RegionName::new("east");
        let freshness = Duration::from_secs(30);
        let judged = |app_looks: &str, db_looks: &str, primary: bool, now: u64| {
            let health = BTreeMap::from([(app.clone(), after(app_looks)), (db.clone(), after(db_looks))]);
            let judging = Judging { region: &region, primary, now: Moment::from_millis(now), freshness };
            let judged = judge(judging, &policies, Some(&health));
            let glance = glance(judging, &policies, Some(&health));
            assert_eq!((glance.verdict, glance.trouble), (judged.verdict, judged.trouble));
            judged.verdict
        };
        assert_eq!(judged("....", "....", true, 20_000), Verdict::Healthy);
        assert_eq!(judged(".rrr", "....", true, 20_000), Verdict::Doubtful);
        assert_eq!(judged(".rrr", "....", false, 20_000), Verdict::Healthy);
        assert_eq!(judged("....", ".rrr", true, 20_000), Verdict::Lost);
        assert_eq!(judged("....", "...r", true, 20_000), Verdict::Doubtful);
        assert_eq!(judged("....", ".rrr", true, 60_000), Verdict::Doubtful, "old sightings are no evidence");
    }
}
