//! What the archive has of a system's WAL: from a listing, and one label for each timeline.
//!
//! **Invariant:** nothing is said to be reached across a hole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use lifeboat_core::{Lsn, Moment, SystemIdentifier, Timeline};
use lifeboat_engine::ports::ObjectName;

use super::fetch::branches_of;
use super::history::Branch;
use super::names::{Entry, SegmentName, SegmentSize, entry, segment_object, system_folder};
use super::objects::label_of;
use super::ranges::{Gap, Stretch, extent, join};
use crate::archive::Archive;
use crate::trouble::Trouble;

mod reach;

pub use reach::{Base, Reach, ReachError, Stop, Target};

/// What there is of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineMap {
    /// Which.
    pub timeline: Timeline,
    /// Its ancestors, oldest first; none when its history is not in the archive, as for a first timeline.
    pub history: Option<Vec<Branch>>,
    /// What is there, in order.
    pub stretches: Vec<Stretch>,
    /// What was there once, or should be.
    pub gaps: Vec<Gap>,
    /// Holes before what was stored ahead of time and never called durable: a writer is at it, or died at it.
    pub in_flight: Vec<Gap>,
    /// The newest objects that are damaged; what they hold is not counted as there.
    pub damaged: Vec<ObjectName>,
    /// The last byte without a hole before it that is no [`Self::gaps`], if there is anything.
    pub newest: Option<Newest>,
}

/// The newest bytes of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// The first byte after them.
    pub lsn: Lsn,
    /// When they were received, on the receiver's clock.
    pub received: Moment,
    /// What the server's clock said then, as far as it is known.
    pub sent: Option<Moment>,
}

/// What there is of a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalMap {
    /// Which.
    pub system: SystemIdentifier,
    /// How long its segments are; none when there are none.
    pub segment_size: Option<SegmentSize>,
    /// Its timelines.
    pub timelines: BTreeMap<Timeline, TimelineMap>,
}

impl WalMap {
    /// Everything that is missing and should not be.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.timelines.values().flat_map(|timeline| &timeline.gaps)
    }

    /// The last timeline that anything is known of.
    #[must_use]
    pub fn newest_timeline(&self) -> Option<&TimelineMap> {
        self.timelines.values().next_back()
    }
}

/// Lists a system's WAL, and reads one label and the history of each timeline.
///
/// # Errors
/// The archive cannot be read, or the newest object of a timeline or a history is damaged.
pub async fn survey(archive: &Archive, system: SystemIdentifier) -> Result<WalMap, Trouble> {
    let map = WalMap { system, segment_size: None, timelines: BTreeMap::new() };
    map.read_on(archive, None).await
}

/// From where on the newest timeline is listed again.
struct From {
    timeline: Timeline,
    lsn: Lsn,
    after: ObjectName,
}

impl WalMap {
    /// The same, later: only what can be new is listed, after the last whole segment without a hole before it. What was
    /// removed before that, by retention or by accident, only [`survey`] finds.
    ///
    /// # Errors
    /// As [`survey`].
    pub async fn refresh(&self, archive: &Archive) -> Result<Self, Trouble> {
        match self.clone().read_on(archive, self.grows_from()?).await {
            // What was whole before it is not listed: all is looked at.
            Err(Trouble::Damaged { .. }) => survey(archive, self.system).await,
            map => map,
        }
    }

    fn grows_from(&self) -> Result<Option<From>, Trouble> {
        let newest = self.timelines.values().rev().find(|found| !found.stretches.is_empty());
        let (Some(newest), Some(size)) = (newest, self.segment_size) else { return Ok(None) };
        let end = newest.stretches.last().map(|last| last.to).unwrap_or_default();
        let hole = newest.in_flight.first().map(|hole| hole.from);
        let lsn = size.floor(hole.map_or(end, |hole| hole.min(end)));
        let Some(before) = lsn.get().checked_sub(1) else { return Ok(None) };
        let segment = SegmentName::of(newest.timeline, Lsn::new(before), size);
        let after = segment_object(self.system, segment)?;
        Ok(Some(From { timeline: newest.timeline, lsn, after }))
    }

    async fn read_on(mut self, archive: &Archive, from: Option<From>) -> Result<Self, Trouble> {
        let after = from.as_ref().map(|from| from.after.clone());
        if after.is_none() {
            self.timelines.clear();
        }
        let listed = list(archive, self.system, after).await?;
        let with_history: BTreeSet<Timeline> = listed.histories.into_iter().collect();
        let timelines: BTreeSet<Timeline> =
            with_history.iter().chain(listed.objects.keys()).copied().collect();
        for timeline in timelines {
            let known = self.timelines.remove(&timeline);
            let (history, stretches) =
                known.map(|known| (known.history, known.stretches)).unwrap_or_default();
            // One that came late is before what is listed.
            let late = from.as_ref().is_some_and(|from| from.timeline == timeline) && history.is_none();
            let history = match history {
                None if late || with_history.contains(&timeline) => {
                    branches_of(archive, self.system, timeline).await?
                }
                history => history,
            };
            let mut found = TimelineMap {
                timeline,
                history,
                stretches: below(stretches, from.as_ref().map(|from| from.lsn)),
                gaps: Vec::new(),
                in_flight: Vec::new(),
                damaged: Vec::new(),
                newest: None,
            };
            if let Some(objects) = listed.objects.get(&timeline) {
                let parent = found.history.as_ref().and_then(|branches| branches.last()).copied();
                let parent = parent.and_then(|branch| Some((branch, self.timelines.get(&branch.parent)?)));
                let ends = parent.and_then(|(branch, parent)| Some((branch.at, parent.stretches.last()?.to)));
                let size = found.read(archive, self.system, objects, ends).await?;
                self.segment_size = Some(size);
            }
            self.timelines.insert(timeline, found);
        }
        Ok(self)
    }
}

/// What is there before that byte.
fn below(stretches: Vec<Stretch>, end: Option<Lsn>) -> Vec<Stretch> {
    let cut = |stretch: Stretch| Some(Stretch { to: stretch.to.min(end?), ..stretch });
    stretches.into_iter().filter_map(cut).filter(|stretch| stretch.from < stretch.to).collect()
}

#[derive(Default)]
struct Objects {
    entries: Vec<Entry>,
    /// The last ones, as listed.
    last: VecDeque<(ObjectName, u64)>,
}

/// So many of the newest objects are tried until one is whole.
const TRIED: usize = 8;

#[derive(Default)]
struct Listing {
    histories: Vec<Timeline>,
    objects: BTreeMap<Timeline, Objects>,
}

async fn list(
    archive: &Archive,
    system: SystemIdentifier,
    mut after: Option<ObjectName>,
) -> Result<Listing, Trouble> {
    let (under, mut found) = (system_folder(system), Listing::default());
    loop {
        let page = archive.store().list(&under, after.as_ref()).await?;
        let Some(end) = page.last() else { return Ok(found) };
        after = Some(end.name.clone());
        for listed in page {
            let last = (listed.name, listed.size);
            match entry(&last.0) {
                Some(Entry::History(timeline)) => found.histories.push(timeline),
                Some(entry @ (Entry::Segment(segment) | Entry::Piece { segment, .. })) => {
                    let objects = found.objects.entry(segment.timeline()).or_default();
                    objects.entries.push(entry);
                    if objects.last.len() == TRIED {
                        objects.last.pop_front();
                    }
                    objects.last.push_back(last);
                }
                None => {}
            }
        }
    }
}

impl TimelineMap {
    async fn read(
        &mut self,
        archive: &Archive,
        system: SystemIdentifier,
        objects: &Objects,
        parent: Option<(Lsn, Lsn)>,
    ) -> Result<SegmentSize, Trouble> {
        let mut tried = objects.last.iter().rev();
        let (last, name) = loop {
            let Some((name, length)) = tried.next() else {
                let name = self.damaged.first().cloned();
                return Err(name.map_or_else(
                    || Trouble::Broken("a timeline without objects".to_owned()),
                    |name| Trouble::damaged(&name, "and so are those before it"),
                ));
            };
            match label_of(archive, name, Some(*length)).await {
                Err(Trouble::Damaged { name, .. }) => self.damaged.push(name),
                label => break (label?, name),
            }
        };
        let size = SegmentSize::new(last.segment_size)
            .ok_or_else(|| Trouble::damaged(name, format!("segments of {} bytes", last.segment_size)))?;
        for entry in &objects.entries[..objects.entries.len() - self.damaged.len()] {
            if let Some(found) = extent(entry, size) {
                join(&mut self.stretches, found);
            }
        }
        // Where it branched off it has to begin, unless what is before that is gone as well: expired.
        let begins = parent.filter(|(at, parent_ends)| *parent_ends >= size.floor(*at)).map(|(at, _)| at);
        let before = begins.map(|at| Stretch { from: at, to: at });
        let mut ends = before.into_iter().chain(self.stretches.iter().copied());
        let mut end = ends.next().map_or_else(Lsn::default, |first| first.to);
        for next in ends {
            if next.from > end {
                let gap = Gap::new(self.timeline, end, next.from, size);
                if last.held > gap.from { &mut self.gaps } else { &mut self.in_flight }.push(gap);
            }
            end = end.max(next.to);
        }
        let reached = match self.in_flight.first() {
            Some(hole) => hole.from,
            None => end,
        };
        let label = if reached == last.end {
            Some(last)
        } else {
            reach::label_before(archive, system, self.timeline, reached, size).await?
        };
        self.newest = label.map(|label| Newest { lsn: reached, received: label.received, sent: label.sent });
        Ok(size)
    }
}

impl fmt::Display for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, received {}", self.lsn, self.received)
    }
}
