//! Segments that only pieces hold are made whole, and pieces of whole segments are removed.
//!
//! **Invariant:** a piece is removed only when its bytes were found in its segment.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_core::{Lsn, Moment, SystemIdentifier};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Listed, ObjectName, StoreError};

use super::fetch::{size_of, whole};
use super::names::{Entry, SegmentName, entry, segment_object, system_folder};
use super::objects::{Patience, WalLabel, label_of, put_once};
use super::prefix::assemble;
use super::sealing::{Buffers, seal_segment};
use crate::archive::Archive;
use crate::object::Kind;
use crate::trouble::Trouble;

/// What was done.
#[derive(Debug, Default)]
pub struct Tidied {
    /// So many pieces were removed.
    pub removed: usize,
    /// So many segments were put together: a writer ended between its last piece and the segment.
    pub made_whole: usize,
    /// Those that hold something else than their segment, or are damaged: they are left for a person to look at.
    pub kept: Vec<Trouble>,
}

/// What is listed of a segment that has pieces.
#[derive(Default)]
struct Found {
    /// When its object was written.
    whole: Option<Moment>,
    pieces: Vec<(Listed, u32, u32)>,
}

/// Removes the pieces of every segment that is whole for `grace` or longer: whoever is just reading them has that long. Of a
/// segment that only has pieces, the last of them as old as that, but all of them, the segment is made.
///
/// # Errors
/// The archive cannot be read or written, or a segment is damaged.
pub async fn tidy(
    archive: &Archive,
    system: SystemIdentifier,
    grace: Duration,
    now: Moment,
) -> Result<Tidied, Trouble> {
    let mut tidied = Tidied::default();
    for (segment, found) in with_pieces(archive, system).await? {
        let newest = found.pieces.iter().map(|(listed, ..)| listed.written).max();
        match found.whole {
            Some(written) if now.since(written) >= grace => {
                remove(archive, system, segment, &found, &mut tidied).await?;
            }
            None if newest.is_some_and(|written| now.since(written) >= grace) => {
                tidied.made_whole +=
                    usize::from(make_whole(archive, system, segment, &found, &mut tidied).await?);
            }
            _ => {}
        }
    }
    Ok(tidied)
}

/// The segments that have pieces.
async fn with_pieces(
    archive: &Archive,
    system: SystemIdentifier,
) -> Result<BTreeMap<SegmentName, Found>, Trouble> {
    let (under, mut after) = (system_folder(system), None::<ObjectName>);
    let (mut found, mut last) = (BTreeMap::<_, Found>::new(), None);
    loop {
        let page = archive.store().list(&under, after.as_ref()).await?;
        let Some(end) = page.last() else { return Ok(found) };
        after = Some(end.name.clone());
        for listed in page {
            match entry(&listed.name) {
                // Its pieces come next, if it has any.
                Some(Entry::Segment(segment)) => last = Some((segment, listed.written)),
                Some(Entry::Piece { segment, from, to }) => {
                    let of = found.entry(segment).or_default();
                    of.whole = last.filter(|(have, _)| *have == segment).map(|(_, written)| written);
                    of.pieces.push((listed, from, to));
                }
                _ => {}
            }
        }
    }
}

async fn remove(
    archive: &Archive,
    system: SystemIdentifier,
    segment: SegmentName,
    found: &Found,
    tidied: &mut Tidied,
) -> Result<(), Trouble> {
    let Some((bytes, _)) = whole(archive, system, segment).await? else { return Ok(()) };
    for (listed, from, to) in &found.pieces {
        match compare(archive, &listed.name, bytes.get(*from as usize..*to as usize)).await {
            Ok(()) => {
                archive.store().remove(&listed.name).await?;
                tidied.removed += 1;
            }
            Err(Trouble::Store(StoreError::Missing(_))) => {}
            Err(trouble @ (Trouble::Damaged { .. } | Trouble::Conflict { .. })) => tidied.kept.push(trouble),
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(())
}

async fn compare(archive: &Archive, name: &ObjectName, part: Option<&[u8]>) -> Result<(), Trouble> {
    let conflict = |what: &str| Trouble::Conflict { name: name.clone(), what: what.to_owned() };
    let part = part.ok_or_else(|| conflict("it reaches beyond its segment"))?;
    let (_, plain) = archive.read::<WalLabel>(name, Kind::Piece, part.len()).await?;
    if plain == part { Ok(()) } else { Err(conflict("its segment has other bytes there")) }
}

/// Whether its pieces were all there.
async fn make_whole(
    archive: &Archive,
    system: SystemIdentifier,
    segment: SegmentName,
    found: &Found,
    tidied: &mut Tidied,
) -> Result<bool, Trouble> {
    let Some((last, ..)) = found.pieces.iter().max_by_key(|(.., to)| *to) else { return Ok(false) };
    let size = match label_of(archive, &last.name, Some(last.size)).await {
        Ok(label) => size_of(&label, &last.name)?,
        Err(trouble) => return passed_over(trouble, tidied),
    };
    if found.pieces.iter().all(|(.., to)| u64::from(*to) < size.bytes()) {
        return Ok(false);
    }
    let prefix = match assemble(archive, system, segment, size).await {
        Ok(prefix) => prefix,
        Err(trouble) => return passed_over(trouble, tidied),
    };
    let (Some(label), true) = (prefix.label, prefix.bytes.len() == size.length()) else { return Ok(false) };
    let start = segment.start(size).unwrap_or_default();
    let end = Lsn::new(start.get() + size.bytes());
    let label = WalLabel { start, end, held: label.held.min(start), before: None, ..label };
    let object = segment_object(system, segment)?;
    let sealed = seal_segment(archive, &object, label, prefix.bytes.into(), &Buffers::default()).await?;
    let patience = Patience::new(Clock::start(), Duration::ZERO);
    put_once(archive, &object, Kind::Segment, &sealed, patience, |_| {}).await?;
    Ok(true)
}

fn passed_over(trouble: Trouble, tidied: &mut Tidied) -> Result<bool, Trouble> {
    match trouble {
        Trouble::Store(StoreError::Missing(_)) => Ok(false),
        Trouble::Damaged { .. } | Trouble::Conflict { .. } => {
            tidied.kept.push(trouble);
            Ok(false)
        }
        trouble => Err(trouble),
    }
}
