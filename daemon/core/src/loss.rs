//! How much would be lost, as numbers, before anything is promoted.
//!
//! lifeboat writes heartbeats through the primary's own commit path. What a standby has replayed holds
//! every commit up to its newest heartbeat, so the loss is at most the time since that heartbeat was
//! stamped. When the primary acknowledged nothing without the standby's word, nothing is lost.
//!
//! **Invariant:** what is not known is `None`, and is never taken as zero.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{DatabaseName, Lsn};
use crate::outcome::{Promotion, TargetPosition};
use crate::time::{self, Moment};

/// The loss that a promotion now would mean, over all databases of the workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Writes acknowledged in at most this long are lost. None: unknown.
    #[serde(with = "time::millis_option")]
    pub at_most: Option<Duration>,
    /// Bytes of log that the primary was seen to have and the target lacks. None: unknown.
    pub bytes: Option<u64>,
    /// How old the newest sample of the primary is, at the moment of the measurement. None: there is none.
    #[serde(with = "time::millis_option")]
    pub sample_age: Option<Duration>,
    /// When the newest heartbeat on the target was stamped. None: it holds none.
    pub newest_heartbeat: Option<Moment>,
    /// What the bound rests on.
    pub basis: Basis,
}

/// What the bound rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The newest heartbeat that the target has replayed.
    Heartbeat,
    /// The primary was seen to acknowledge nothing without the target's word.
    Synchronous,
    /// The workload has no database.
    NoDatabase,
}

/// What was last seen of a primary database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimarySample {
    /// When.
    pub at: Moment,
    /// Where its log ended.
    pub written: Lsn,
    /// Whether it acknowledged nothing without the word of the standby with this name.
    pub synchronous: std::collections::BTreeSet<String>,
    /// Whether this was the last thing seen before the trouble began, and not long before it.
    pub continuous: bool,
    /// What this agent itself saw of its log since it started, oldest first: when a look began, on this agent's clock, and
    /// where the log ended in it.
    pub marks: Vec<(Moment, Lsn)>,
}

/// By whose clock the heartbeats on a target may be stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamps {
    /// By that of the agent who measures: there is no other.
    Own,
    /// By another agent's; or by that of the one who measures before it restarted, and nobody knows by how much its clock was
    /// set meanwhile. They are not compared with this clock: what this agent saw of the log since it started is.
    Several,
}

impl PrimarySample {
    /// The newest moment of this agent's own clock from before which the target has everything; none when it lacks all that
    /// this agent saw.
    fn mark(&self, received: Lsn) -> Option<Moment> {
        self.marks.iter().rev().find(|(_, written)| *written <= received).map(|(at, _)| *at)
    }
}

impl Loss {
    /// Measures the loss over all databases: the worst of each number.
    pub fn measure(
        now: Moment,
        positions: &BTreeMap<DatabaseName, TargetPosition>,
        samples: &BTreeMap<DatabaseName, PrimarySample>,
        stamps: Stamps,
    ) -> Self {
        let each = positions
            .iter()
            .map(|(database, target)| Self::of_one(now, target, samples.get(database), stamps));
        each.reduce(Self::worst).unwrap_or(Self {
            at_most: Some(Duration::ZERO),
            bytes: Some(0),
            sample_age: Some(Duration::ZERO),
            newest_heartbeat: None,
            basis: Basis::NoDatabase,
        })
    }

    /// A loss of which nothing is known.
    pub const fn unknown() -> Self {
        Self { at_most: None, bytes: None, sample_age: None, newest_heartbeat: None, basis: Basis::Heartbeat }
    }

    /// The loss when the old primary may have taken writes until `end`.
    #[must_use]
    pub fn until(&self, end: Moment) -> Self {
        let mut loss = self.clone();
        if let (Basis::Heartbeat, Some(known), Some(stamped)) =
            (self.basis, self.at_most, self.newest_heartbeat)
        {
            loss.at_most = Some(known.max(end.since(stamped)));
        }
        loss
    }

    fn of_one(now: Moment, target: &TargetPosition, sample: Option<&PrimarySample>, stamps: Stamps) -> Self {
        let position = &target.position;
        let synchronous = sample.is_some_and(|s| s.continuous && s.synchronous.contains(&position.name));
        // A clock that is ahead, or was, would hide a loss.
        let heartbeat = match stamps {
            Stamps::Own => position.heartbeat,
            Stamps::Several => sample.and_then(|sample| sample.mark(position.received)),
        };
        // Stamped later than now: the clock stepped back in between, and the difference says nothing.
        let behind = heartbeat.filter(|stamped| *stamped <= now).map(|stamped| now.since(stamped));
        Self {
            at_most: if synchronous { Some(Duration::ZERO) } else { behind },
            bytes: sample.map(|s| s.written.ahead_of(position.received)),
            sample_age: sample.map(|s| now.since(s.at)),
            newest_heartbeat: heartbeat,
            basis: if synchronous { Basis::Synchronous } else { Basis::Heartbeat },
        }
    }

    fn worst(self, other: Self) -> Self {
        let both = |a: Option<Duration>, b: Option<Duration>| Some(a?.max(b?));
        Self {
            at_most: both(self.at_most, other.at_most),
            bytes: self.bytes.zip(other.bytes).map(|(a, b)| a.saturating_add(b)),
            sample_age: both(self.sample_age, other.sample_age),
            newest_heartbeat: self.newest_heartbeat.min(other.newest_heartbeat),
            basis: if self.basis == other.basis { self.basis } else { Basis::Heartbeat },
        }
    }

    /// The number that a person accepts, in whole seconds rounded up, or `unknown`.
    pub fn token(&self) -> String {
        self.at_most
            .map_or_else(|| "unknown".to_owned(), |length| format!("{}s", length.as_millis().div_ceil(1000)))
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.at_most, self.basis) {
            (None, _) => f.write_str("an unknown amount of writes")?,
            (Some(_), Basis::NoDatabase) => return f.write_str("nothing, because it has no database"),
            (Some(_), Basis::Synchronous) => f.write_str("nothing, because the standby is synchronous")?,
            (Some(length), Basis::Heartbeat) => write!(f, "the writes of at most {}", time::length(length))?,
        }
        match self.bytes {
            Some(bytes) => write!(f, "; {bytes} bytes of log seen on the primary are missing")?,
            None => f.write_str("; missing bytes unknown")?,
        }
        match self.sample_age {
            Some(age) => write!(f, " (sample {} old)", time::length(age)),
            None => f.write_str(" (the primary was not sampled since this agent started)"),
        }
    }
}

/// What a promotion lost, as exactly as it can be said once it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossManifest {
    /// Each database.
    pub databases: BTreeMap<DatabaseName, DatabaseLoss>,
}

/// What one database lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseLoss {
    /// The first byte of the old primary's log that the new one does not have. None: the new primary did not say.
    pub from: Option<Lsn>,
    /// Where the old primary's log was last seen to end; it may have gone on. None: it was not seen.
    pub to: Option<Lsn>,
    /// At least this much time of acknowledged writes is lost: from the newest heartbeat that the new primary has to
    /// the last one that the old primary acknowledged.
    #[serde(with = "time::millis")]
    pub at_least: Duration,
    /// At most this much, as measured before the promotion. None: unknown.
    #[serde(with = "time::millis_option")]
    pub at_most: Option<Duration>,
    /// How many heartbeats the old primary acknowledged to this agent and the new one lacks. None: this agent has not
    /// seen the old primary since it started.
    pub heartbeats_missing: Option<u64>,
    /// The first of them.
    pub first_missing: Option<Moment>,
    /// The last of them.
    pub last_missing: Option<Moment>,
    /// Whether the old primary acknowledged nothing without the new one's word: then nothing acknowledged is lost.
    pub synchronous: bool,
}

impl DatabaseLoss {
    /// Counts what one database lost: `acknowledged` are the heartbeats that the old primary acknowledged to this
    /// agent, oldest first.
    pub fn count(
        target: Option<&TargetPosition>,
        promotion: &Promotion,
        sample: Option<&PrimarySample>,
        acknowledged: &[Moment],
        measured: &Loss,
    ) -> Self {
        let kept = target.and_then(|target| target.position.heartbeat);
        let missing: Vec<Moment> =
            acknowledged.iter().copied().filter(|at| kept.is_none_or(|kept| *at > kept)).collect();
        let (first, last) = (missing.first().copied(), missing.last().copied());
        let synchronous = measured.basis == Basis::Synchronous;
        let at_least = last.zip(kept.or(first)).map_or(Duration::ZERO, |(last, kept)| last.since(kept));
        Self {
            from: promotion.switched_at.or_else(|| target.map(|target| target.position.received)),
            to: sample.map(|sample| sample.written),
            at_least,
            // What was acknowledged after the proof of the fence counts, too, however that came about.
            at_most: measured.at_most.map(|most| most.max(at_least)),
            heartbeats_missing: (!acknowledged.is_empty()).then_some(missing.len() as u64),
            first_missing: first,
            last_missing: last,
            synchronous,
        }
    }
}

impl fmt::Display for LossManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (database, loss)) in self.databases.iter().enumerate() {
            let separator = if n > 0 { "; " } else { "" };
            write!(f, "{separator}{database}: ")?;
            if loss.synchronous {
                f.write_str("nothing, the standby was synchronous")?;
                continue;
            }
            match (loss.from, loss.to) {
                (Some(from), Some(to)) if to > from => write!(f, "log from {from} to {to} or further, ")?,
                (Some(from), _) => write!(f, "log after {from}, ")?,
                (None, _) => f.write_str("an unknown range of log, ")?,
            }
            let most = loss.at_most.map_or_else(|| "an unknown time".to_owned(), time::length);
            write!(f, "{} to {most} of writes, ", time::length(loss.at_least))?;
            match loss.heartbeats_missing {
                Some(count) => write!(f, "{count} acknowledged heartbeats")?,
                None => f.write_str("heartbeats not counted")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::names::{SystemIdentifier, Timeline};
    use crate::sighting::StandbyPosition;

    fn target(received: u64, heartbeat: Option<u64>) -> TargetPosition {
        TargetPosition {
            system: SystemIdentifier::new(7),
            timeline: Timeline::new(1),
            position: StandbyPosition {
                received: Lsn::new(received),
                replayed: Lsn::new(received),
                heartbeat: heartbeat.map(Moment::from_millis),
                epoch: None,
                streaming: false,
                name: "west".into(),
            },
        }
    }

    fn sample(at: u64, written: u64, synchronous: &[&str]) -> PrimarySample {
        PrimarySample {
            at: Moment::from_millis(at),
            written: Lsn::new(written),
            synchronous: synchronous.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>(),
            continuous: true,
            marks: Vec::new(),
        }
    }

    fn measured(target: TargetPosition, sample: Option<PrimarySample>) -> Loss {
        measured_by(Stamps::Own, target, sample)
    }

    fn measured_by(stamps: Stamps, target: TargetPosition, sample: Option<PrimarySample>) -> Loss {
        let database = DatabaseName::new("orders");
        let samples = sample.map(|s| (database.clone(), s)).into_iter().collect();
        Loss::measure(Moment::from_millis(10_000), &[(database, target)].into(), &samples, stamps)
    }

    #[test]
    fn the_newest_heartbeat_on_the_target_bounds_the_loss() {
        let loss = measured(target(900, Some(7_500)), Some(sample(8_000, 1_000, &[])));
        assert_eq!(loss.at_most, Some(Duration::from_millis(2_500)));
        assert_eq!(loss.bytes, Some(100));
        assert_eq!(loss.sample_age, Some(Duration::from_millis(2_000)));
        assert_eq!(loss.token(), "3s");
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let loss = measured(target(900, None), None);
        assert_eq!((loss.at_most, loss.bytes, loss.sample_age), (None, None, None));
        assert_eq!(loss.token(), "unknown");
    }

    #[test]
    fn a_workload_without_databases_loses_nothing_and_nobody_is_said_to_have_sampled_it() {
        let loss =
            Loss::measure(Moment::from_millis(10_000), &BTreeMap::new(), &BTreeMap::new(), Stamps::Own);
        assert_eq!((loss.at_most, loss.basis), (Some(Duration::ZERO), Basis::NoDatabase));
        assert_eq!(loss.to_string(), "nothing, because it has no database");
    }

    #[test]
    fn a_synchronous_standby_loses_nothing() {
        let loss = measured(target(900, Some(1)), Some(sample(8_000, 900, &["west"])));
        assert_eq!((loss.at_most, loss.basis), (Some(Duration::ZERO), Basis::Synchronous));
        let other = measured(target(900, Some(1)), Some(sample(8_000, 900, &["north"])));
        assert_eq!((other.at_most, other.basis), (Some(Duration::from_millis(9_999)), Basis::Heartbeat));
    }

    #[test]
    fn an_old_sample_of_a_synchronous_standby_proves_nothing() {
        let mut old = sample(8_000, 900, &["west"]);
        old.continuous = false;
        assert_eq!(measured(target(900, Some(4_000)), Some(old)).basis, Basis::Heartbeat);
    }

    #[test]
    fn the_clock_of_another_agent_hides_no_loss() {
        // The newest heartbeat on the target was stamped by an agent whose clock is ahead.
        let ahead = target(500, Some(9_900));
        let mut seen = sample(8_000, 900, &[]);
        assert_eq!(measured(ahead.clone(), Some(seen.clone())).at_most, Some(Duration::from_millis(100)));
        let at = Moment::from_millis;
        seen.marks = vec![(at(2_000), Lsn::new(400)), (at(3_000), Lsn::new(500)), (at(4_000), Lsn::new(501))];
        let loss = measured_by(Stamps::Several, ahead.clone(), Some(seen.clone()));
        assert_eq!(loss.at_most, Some(Duration::from_millis(7_000)));
        assert_eq!(loss.until(at(11_000)).at_most, Some(Duration::from_millis(8_000)));
        // It lacks all that this agent saw: nothing is known, and nothing is taken as zero.
        let lacking = target(399, Some(9_900));
        assert_eq!(measured_by(Stamps::Several, lacking, Some(seen)).at_most, None);
    }

    #[test]
    fn a_heartbeat_from_before_a_restart_is_no_measurement_where_clocks_are_compared() {
        // Its clock was set back while it was away: the stamp is no longer in the future, and the difference says nothing.
        let before = target(900, Some(8_500));
        assert_eq!(measured_by(Stamps::Several, before, None).at_most, None);
    }

    #[test]
    fn the_worst_database_counts() {
        let (a, b) = (DatabaseName::new("a"), DatabaseName::new("b"));
        let positions = [(a.clone(), target(900, Some(9_000))), (b, target(500, None))].into();
        let loss = Loss::measure(
            Moment::from_millis(10_000),
            &positions,
            &[(a, sample(1, 1, &[]))].into(),
            Stamps::Own,
        );
        assert_eq!((loss.at_most, loss.bytes, loss.newest_heartbeat), (None, None, None));
    }
}
