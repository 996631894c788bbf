//! What recovery from a backup will reach.
//!
//! Where the log is whole is known from names, and when its bytes were received from labels. At which byte a moment or a
//! named restore point is, only replay can tell; so a moment is compared with when the last byte was received, and a name is
//! never promised.

use std::fmt;

use lifeboat_core::{Lsn, Moment, SystemIdentifier, Timeline};
use lifeboat_engine::ports::StoreError;
use thiserror::Error;

use super::WalMap;
use crate::archive::Archive;
use crate::trouble::Trouble;
use crate::wal::history::Branch;
use crate::wal::names::{SegmentName, SegmentSize, piece_object, segment_object};
use crate::wal::objects::{WalLabel, label_of};
use crate::wal::prefix::pieces;
use crate::wal::ranges::Gap;

/// The backup that recovery begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The timeline it was made on.
    pub timeline: Timeline,
    /// From where on it needs WAL.
    pub start: Lsn,
    /// Up to where it needs WAL before it can be used at all.
    pub end: Lsn,
}

/// Up to where to recover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// As far as there is WAL.
    Latest,
    /// Everything committed up to then.
    Time(Moment),
    /// That byte.
    Lsn(Lsn),
    /// A named restore point.
    Name(String),
}

/// What will be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// On which timeline to recover.
    pub timeline: Timeline,
    /// There is WAL without a hole up to there.
    pub lsn: Lsn,
    /// When its last byte was received.
    pub received: Option<Moment>,
    /// Whether the target is certainly in it. A named restore point never is, and a moment only when the server's own clock
    /// was at it or after it.
    pub certain: bool,
}

/// Why it will not be reached.
#[derive(Debug, Error)]
pub enum ReachError {
    /// WAL is missing before the backup can be used.
    #[error("the backup cannot be used")]
    Unusable(#[source] Gap),
    /// WAL ends or is missing before the target.
    #[error("recovery would stop at {stop}, before {target}")]
    Short {
        /// Where, and when that was received.
        stop: Stop,
        /// What was wanted.
        target: String,
        /// What is missing there, if there is anything after it.
        #[source]
        gap: Option<Gap>,
    },
    /// The target is before the end of the backup.
    #[error("{target} is before {end}, the end of the backup: take an earlier one")]
    BeforeBackup {
        /// What was wanted.
        target: Lsn,
        /// The end of the backup.
        end: Lsn,
    },
    /// The timeline does not come from the one the backup was made on, or left it before the backup ended.
    #[error("timeline {timeline} does not lead on from the backup, which ends at {end} on timeline {base}")]
    DeadBranch {
        /// What was wanted.
        timeline: Timeline,
        /// The backup's.
        base: Timeline,
        /// The end of the backup.
        end: Lsn,
    },
    /// The archive could not be read.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

/// Where recovery would stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The first byte that is missing.
    pub lsn: Lsn,
    /// When the one before it was received, if it is known.
    pub received: Option<Moment>,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.received {
            Some(received) => write!(f, "{} (received {received})", self.lsn),
            None => write!(f, "{}", self.lsn),
        }
    }
}

/// How far one comes.
struct Way {
    timeline: Timeline,
    lsn: Lsn,
    gap: Option<Gap>,
}

impl WalMap {
    /// Whether all WAL from `start` to `end` is there for a server on `timeline`, through its ancestors.
    ///
    /// # Errors
    /// What is missing first.
    pub fn covers(&self, start: Lsn, timeline: Timeline, end: Lsn) -> Result<(), Gap> {
        let size = self.segment_size.unwrap_or(SegmentSize::DEFAULT);
        let mut at = start;
        let branches = self.history(timeline);
        let legs = branches.iter().map(|branch| (branch.parent, branch.at)).chain([(timeline, end)]);
        for (on, until) in legs {
            let until = until.min(end);
            if at < until {
                let reached = self.reached(on, at, size);
                if reached < until {
                    return Err(Gap::new(on, reached, until, size));
                }
                at = until;
            }
        }
        Ok(())
    }

    /// What recovery from `base` to `target` will reach, as far as it can be known before; on `timeline`, or on the latest
    /// one that leads on from the backup.
    ///
    /// # Errors
    /// Why it will not be reached, with where it would stop.
    pub async fn reach(
        &self,
        archive: &Archive,
        base: Base,
        target: &Target,
        timeline: Option<Timeline>,
    ) -> Result<Reach, ReachError> {
        let size = self.segment_size.unwrap_or(SegmentSize::DEFAULT);
        self.covers(base.start, base.timeline, base.end).map_err(ReachError::Unusable)?;
        let leads_on = |timeline: &Timeline| {
            *timeline == base.timeline
                || self.history(*timeline).iter().any(|b| b.parent == base.timeline && b.at >= base.end)
        };
        let timeline = match timeline {
            Some(timeline) => timeline,
            None => self.timelines.keys().rev().copied().find(leads_on).unwrap_or(base.timeline),
        };
        if !leads_on(&timeline) {
            return Err(ReachError::DeadBranch { timeline, base: base.timeline, end: base.end });
        }
        let way = self.way(base, timeline, size);
        let label = label_before(archive, self.system, way.timeline, way.lsn, size).await?;
        let received = label.as_ref().map(|label| label.received);
        let short = |target: String| {
            let stop = Stop { lsn: way.lsn, received };
            Err(ReachError::Short { stop, target, gap: way.gap })
        };
        let certain = match target {
            Target::Latest if way.gap.is_some() => return short("the end of what is there".to_owned()),
            Target::Latest => true,
            Target::Lsn(lsn) if *lsn < base.end => {
                return Err(ReachError::BeforeBackup { target: *lsn, end: base.end });
            }
            Target::Lsn(lsn) if *lsn > way.lsn => return short(lsn.to_string()),
            Target::Lsn(_) => true,
            Target::Time(moment) => match &label {
                Some(label) if label.sent.is_some_and(|sent| sent >= *moment) => true,
                Some(label) if label.received >= *moment => false,
                _ => return short(moment.to_string()),
            },
            Target::Name(_) => false,
        };
        Ok(Reach { timeline, lsn: way.lsn, received, certain })
    }

    fn history(&self, timeline: Timeline) -> &[Branch] {
        self.timelines.get(&timeline).and_then(|found| found.history.as_deref()).unwrap_or_default()
    }

    /// Up to where there is WAL of a timeline without a hole from that byte on. What it has of the segment in which it was
    /// left, its child has as well.
    fn reached(&self, timeline: Timeline, from: Lsn, size: SegmentSize) -> Lsn {
        let on = |timeline: Timeline, from: Lsn| {
            let stretches = &self.timelines.get(&timeline)?.stretches;
            stretches.iter().find(|stretch| stretch.from <= from && from < stretch.to).map(|found| found.to)
        };
        let reached = on(timeline, from).unwrap_or(from);
        let children = self.timelines.values().filter_map(|child| {
            let branch = child.history.as_ref()?.last().filter(|branch| branch.parent == timeline)?;
            (size.floor(branch.at) <= reached && reached < branch.at).then_some(())?;
            Some(on(child.timeline, reached)?.min(branch.at))
        });
        children.max().unwrap_or(reached).max(reached)
    }

    /// How far one comes from the backup on the way to that timeline.
    fn way(&self, base: Base, timeline: Timeline, size: SegmentSize) -> Way {
        let mut at = base.start;
        let branches = self.history(timeline).iter().skip_while(|branch| branch.parent != base.timeline);
        for branch in branches {
            let reached = self.reached(branch.parent, at, size);
            if reached < branch.at {
                let gap = Some(Gap::new(branch.parent, reached, branch.at, size));
                return Way { timeline: branch.parent, lsn: reached, gap };
            }
            at = branch.at;
        }
        let lsn = self.reached(timeline, at, size);
        let gaps = self.timelines.get(&timeline).map(|found| &found.gaps[..]).unwrap_or_default();
        Way { timeline, lsn, gap: gaps.iter().find(|gap| gap.from >= lsn).copied() }
    }
}

/// What the object that ends at that byte says of itself.
pub(super) async fn label_before(
    archive: &Archive,
    system: SystemIdentifier,
    timeline: Timeline,
    lsn: Lsn,
    size: SegmentSize,
) -> Result<Option<WalLabel>, Trouble> {
    let Some(last) = lsn.get().checked_sub(1) else { return Ok(None) };
    let segment = SegmentName::of(timeline, Lsn::new(last), size);
    let (pieces, whole) = pieces(archive, system, segment).await?;
    let end = size.offset(Lsn::new(last)) + 1;
    let name = match pieces.iter().find(|(_, to)| *to as usize == end) {
        Some((from, to)) => piece_object(system, segment, &(*from as usize..*to as usize))?,
        None if whole => segment_object(system, segment)?,
        None => return Ok(None),
    };
    match label_of(archive, &name, None).await {
        Err(Trouble::Store(StoreError::Missing(_))) => Ok(None),
        label => Ok(Some(label?)),
    }
}
