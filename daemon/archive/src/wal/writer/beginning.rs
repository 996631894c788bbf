//! Where a writer begins: where the archive ends.

use lifeboat_core::{Lsn, Moment, SystemIdentifier, Timeline};
use lifeboat_engine::ports::{ObjectName, StoreError};

use super::{Held, WalOptions};
use crate::archive::Archive;
use crate::trouble::Trouble;
use crate::wal::fetch::{branch_of, whole};
use crate::wal::names::{SegmentName, SegmentSize, entry, folder, segment_object};
use crate::wal::objects::{WalLabel, label_of};
use crate::wal::prefix::assemble;
use crate::wal::ranges::{Stretch, extent, join, resume};

/// Without a word of what the server has, holes so many segments before the end are taken for what was in flight.
const WINDOW: u64 = 16;

/// Where to begin.
pub(super) struct Beginning {
    /// The first byte of the segment.
    pub(super) start: Lsn,
    /// What of it is known.
    pub(super) there: Vec<u8>,
    /// How much of that is stored.
    pub(super) cut: usize,
    pub(super) held: Held,
}

/// Reads the archive.
pub(super) async fn find(
    archive: &Archive,
    system: SystemIdentifier,
    timeline: Timeline,
    size: SegmentSize,
    options: &WalOptions,
) -> Result<Beginning, Trouble> {
    let now = options.clock.now();
    let held = |lsn| Held { lsn, received: now, durable: now };
    let (mut stretches, last) = stretches(archive, system, timeline, size).await?;
    if let Some((name, length)) = last {
        match label_of(archive, &name, Some(length)).await {
            Ok(label) if label.segment_size != size.bytes() => {
                return Err(Trouble::Refused(format!(
                    "{name} is of segments of {} bytes, and the server has segments of {}",
                    label.segment_size,
                    size.bytes()
                )));
            }
            // Durable was what is before that, and between there and the first byte that is here something was in flight.
            Ok(label) if stretches.first().is_some_and(|first| label.held < first.from) => {
                stretches.insert(0, Stretch { from: label.held, to: label.held });
            }
            Ok(_) => {}
            Err(Trouble::Damaged { name, why }) => tracing::warn!(%name, why, "the newest WAL is damaged"),
            Err(trouble) => return Err(trouble),
        }
    } else if let Some(branched) = branch(archive, system, timeline, size).await? {
        let held = held(Lsn::new(branched.0.get() + branched.1.len() as u64));
        return Ok(Beginning { start: branched.0, there: branched.1, cut: 0, held });
    }
    let Some(next) = resume(&stretches, options.oldest, size, WINDOW * size.bytes()) else {
        return Err(Trouble::Refused(format!(
            "the archive has no WAL of timeline {timeline} of system {system}: it has to be said where to begin"
        )));
    };
    let start = size.floor(next);
    let whole = Beginning { start, there: Vec::new(), cut: 0, held: held(start) };
    if next == start {
        let received = received_before(archive, system, timeline, start, size).await?;
        return Ok(Beginning { held: Held { received: received.unwrap_or(now), ..whole.held }, ..whole });
    }
    let prefix = match assemble(archive, system, SegmentName::of(timeline, next, size), size).await {
        // It is asked for again from its beginning on, and stored under other names.
        Err(Trouble::Damaged { name, why }) => {
            tracing::warn!(%name, why, "a piece is damaged; its segment is received again");
            return Ok(whole);
        }
        prefix => prefix?,
    };
    let lsn = Lsn::new(start.get() + prefix.bytes.len() as u64);
    let received = prefix.label.map_or(now, |label| label.received);
    let cut = prefix.bytes.len();
    Ok(Beginning { start, there: prefix.bytes, cut, held: Held { lsn, received, durable: now } })
}

/// When the last byte before a segment was received, if the segment before it is there.
async fn received_before(
    archive: &Archive,
    system: SystemIdentifier,
    timeline: Timeline,
    start: Lsn,
    size: SegmentSize,
) -> Result<Option<Moment>, Trouble> {
    let Some(before) = start.get().checked_sub(size.bytes()) else { return Ok(None) };
    let name = segment_object(system, SegmentName::of(timeline, Lsn::new(before), size))?;
    match label_of(archive, &name, None).await {
        Ok(WalLabel { received, .. }) => Ok(Some(received)),
        Err(Trouble::Store(StoreError::Missing(_)) | Trouble::Damaged { .. }) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// The last object of a listing, and how long it is.
pub(crate) type Last = Option<(ObjectName, u64)>;

/// What there is of a timeline.
pub(crate) async fn stretches(
    archive: &Archive,
    system: SystemIdentifier,
    timeline: Timeline,
    size: SegmentSize,
) -> Result<(Vec<Stretch>, Last), Trouble> {
    let under = folder(system, timeline);
    let (mut stretches, mut last, mut after) = (Vec::new(), None, None::<ObjectName>);
    loop {
        let page = archive.store().list(&under, after.as_ref()).await?;
        let Some(end) = page.last() else { return Ok((stretches, last)) };
        after = Some(end.name.clone());
        for listed in page {
            if let Some(found) = entry(&listed.name).and_then(|entry| extent(&entry, size)) {
                join(&mut stretches, found);
                last = Some((listed.name, listed.size));
            }
        }
    }
}

/// Where a timeline branched off, if its history is here and so is what its parent has of that segment: the first byte of
/// the segment, and what it has before the branch.
async fn branch(
    archive: &Archive,
    system: SystemIdentifier,
    timeline: Timeline,
    size: SegmentSize,
) -> Result<Option<(Lsn, Vec<u8>)>, Trouble> {
    let Some(last) = branch_of(archive, system, timeline).await? else { return Ok(None) };
    let (start, length) = (size.floor(last.at), size.offset(last.at));
    if length == 0 {
        return Ok(Some((start, Vec::new())));
    }
    let segment = SegmentName::of(last.parent, last.at, size);
    let mut there = match whole(archive, system, segment).await? {
        Some((whole, _)) => whole,
        None => assemble(archive, system, segment, size).await?.bytes,
    };
    // What the parent has not is asked of the server, from the beginning of the segment on.
    there.truncate(length);
    Ok(Some((start, if there.len() == length { there } else { Vec::new() })))
}
