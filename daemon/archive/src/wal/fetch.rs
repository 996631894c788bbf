//! What `restore_command` asks for.
//!
//! PostgreSQL takes every exit code from 1 to 125 as "there is no such file", and then *ends recovery*: what comes after is
//! lost without a word. Above 125 it stops and says so (`wait_result_is_any_signal` in PostgreSQL's `common/wait_error.c`,
//! called in `access/transam/xlogarchive.c`). So there are three ends here: found, not there, and trouble.
//!
//! Not there is said when the archive was read and has nothing of that name, nor anything after it that it would need. A
//! segment that is missing in the midst of others is trouble: it was there, or was never stored and the following ones were,
//! and either way a person must know. What was stored ahead of a hole while a writer died was never called durable; labels
//! tell the two apart ([`super::WalLabel::held`]).
//!
//! **Invariant:** an archive that cannot be read is never told as "not there".

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use lifeboat_core::{Lsn, SystemIdentifier, Timeline};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Listed, ObjectName, StoreError};

use super::history::{Branch, LONGEST_HISTORY, parse_history};
use super::names::{
    Entry, SegmentName, SegmentSize, entry, folder, history_object, history_of, segment_object,
};
use super::objects::{LONGEST, Patience, WalLabel, joined, label_of};
use super::prefix::{Prefix, assemble};
use super::ranges::Gap;
use super::spool::{Draft, Spool, write};
use crate::archive::{Archive, name};
use crate::keys::KeyRing;
use crate::object::{Kind, Opener};
use crate::trouble::Trouble;

/// What `restore_command` must exit with when it is neither found nor known not to be there: above 125, so that recovery
/// stops, and none of the codes that a shell has a meaning for.
pub const TROUBLE_EXIT: u8 = 200;

/// So many segments are fetched ahead at once: what a distant store takes to answer is hidden, memory is bounded.
const AT_ONCE: usize = 2;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// It is at the target.
    Found,
    /// The archive does not have it, and needs not.
    Missing,
}

impl Got {
    /// What `restore_command` exits with; for an error it is [`TROUBLE_EXIT`].
    #[must_use]
    pub fn exit(self) -> u8 {
        match self {
            Self::Found => 0,
            Self::Missing => 1,
        }
    }
}

/// Brings a file of that name to `target`: a whole segment; what there is of the last one, with zeros after it; a history.
///
/// # Errors
/// Whatever else happened: the caller must exit with [`TROUBLE_EXIT`]. [`Trouble::Gap`]: it is missing, and it should not be.
pub async fn get(
    archive: &Archive,
    system: SystemIdentifier,
    name: &str,
    target: &Path,
    spool: Option<&Spool>,
    patience: Duration,
) -> Result<Got, Trouble> {
    let mut patience = Patience::new(Clock::start(), patience);
    if let Some(spool) = spool
        && spool.take(name, target)?
    {
        return Ok(Got::Found);
    }
    loop {
        match once(archive, system, name, target).await {
            Err(trouble) if patience.once_more(&trouble).await => {}
            end => return end,
        }
    }
}

async fn once(
    archive: &Archive,
    system: SystemIdentifier,
    text: &str,
    target: &Path,
) -> Result<Got, Trouble> {
    if let Some(segment) = SegmentName::parse(text) {
        return segment_to(archive, system, segment, target).await;
    }
    let (object, kind) = match (history_of(text), text.get(..24).and_then(SegmentName::parse)) {
        (Some(timeline), _) => (history_object(system, timeline)?, Kind::History),
        (None, Some(segment)) if text.ends_with(".backup") || text.ends_with(".partial") => {
            let kind = if text.ends_with(".backup") { Kind::History } else { Kind::Segment };
            (name(&format!("{}{text}", folder(system, segment.timeline())))?, kind)
        }
        _ => return Ok(Got::Missing),
    };
    match archive.read::<serde_json::Value>(&object, kind, LONGEST).await {
        Err(Trouble::Store(StoreError::Missing(_))) => Ok(Got::Missing),
        Err(trouble) => Err(trouble),
        Ok((_, plain)) => {
            let length = plain.len();
            to_file(target.to_owned(), plain, length).await
        }
    }
}

async fn segment_to(
    archive: &Archive,
    system: SystemIdentifier,
    segment: SegmentName,
    target: &Path,
) -> Result<Got, Trouble> {
    let damaged = match whole_to(archive, system, segment, target, true).await {
        Ok(Got::Found) => return Ok(Got::Found),
        Ok(Got::Missing) => None,
        Err(damaged @ Trouble::Damaged { .. }) => Some(damaged),
        Err(trouble) => return Err(trouble),
    };
    let after = segment_object(system, segment)?;
    let following = archive.store().list(&folder(system, segment.timeline()), Some(&after)).await?;
    let piece = |listed: &&Listed| matches!(entry(&listed.name), Some(Entry::Piece { segment: of, .. }) if of == segment);
    let known = following.iter().find_map(|listed| entry(&listed.name).map(|_| listed));
    let Some(known) = known else {
        return damaged.map_or(Ok(Got::Missing), Err);
    };
    let size = size_of(&label_of(archive, &known.name, Some(known.size)).await?, &known.name)?;
    let prefix = if following.iter().any(|listed| piece(&listed)) {
        match assemble(archive, system, segment, size).await {
            // Tidied away meanwhile: its segment is whole by now.
            Err(Trouble::Store(StoreError::Missing(_))) => Prefix { whole: true, ..Prefix::default() },
            prefix => prefix?,
        }
    } else {
        Prefix::default()
    };
    if prefix.bytes.len() == size.length() {
        return to_file(target.to_owned(), prefix.bytes, size.length()).await;
    }
    if let Some(damaged) = damaged {
        return Err(damaged);
    }
    if prefix.whole {
        let plain = whole(archive, system, segment).await?;
        let (plain, size) =
            plain.ok_or_else(|| StoreError::Unreachable(format!("{after} comes and goes")))?;
        return to_file(target.to_owned(), plain, size.length()).await;
    }
    let start = segment.start(size).ok_or_else(|| Trouble::Refused(format!("{segment} is no name")))?;
    let reached = Lsn::new(start.get() + prefix.bytes.len() as u64);
    refuse_gap(archive, system, segment, reached, size).await?;
    if prefix.bytes.is_empty() {
        return Ok(Got::Missing);
    }
    to_file(target.to_owned(), prefix.bytes, size.length()).await
}

/// An error when what is missing from `reached` on was there once.
async fn refuse_gap(
    archive: &Archive,
    system: SystemIdentifier,
    segment: SegmentName,
    reached: Lsn,
    size: SegmentSize,
) -> Result<(), Trouble> {
    let under = folder(system, segment.timeline());
    let begins = match branch_of(archive, system, segment.timeline()).await? {
        Some(branch) => Some(branch.at),
        None => first(archive, &under, size).await?,
    };
    // Before its first byte a timeline has nothing that could be missing.
    if begins.is_none_or(|begins| size.floor(reached) < size.floor(begins)) {
        return Ok(());
    }
    let (mut after, mut last) = (segment_object(system, segment)?, None);
    loop {
        let page = archive.store().list(&under, Some(&after)).await?;
        let Some(end) = page.last() else { break };
        after = end.name.clone();
        last = page.into_iter().rfind(|listed| entry(&listed.name).is_some()).or(last);
    }
    let Some(last) = last else { return Ok(()) };
    let label = label_of(archive, &last.name, Some(last.size)).await?;
    if label.held > reached {
        return Err(Gap::new(segment.timeline(), reached, label.held, size).into());
    }
    Ok(())
}

/// The first byte that the archive has of a timeline.
async fn first(archive: &Archive, under: &str, size: SegmentSize) -> Result<Option<Lsn>, Trouble> {
    let mut after = None::<ObjectName>;
    loop {
        let page = archive.store().list(under, after.as_ref()).await?;
        let Some(end) = page.last() else { return Ok(None) };
        let found = page.iter().find_map(|listed| super::ranges::extent(&entry(&listed.name)?, size));
        if let Some(found) = found {
            return Ok(Some(found.from));
        }
        after = Some(end.name.clone());
    }
}

/// Where a timeline left its parent, if its history is here.
pub(crate) async fn branch_of(
    archive: &Archive,
    system: SystemIdentifier,
    timeline: Timeline,
) -> Result<Option<Branch>, Trouble> {
    Ok(branches_of(archive, system, timeline).await?.and_then(|branches| branches.last().copied()))
}

/// The history of a timeline, if it is here.
pub(crate) async fn branches_of(
    archive: &Archive,
    system: SystemIdentifier,
    timeline: Timeline,
) -> Result<Option<Vec<Branch>>, Trouble> {
    let name = history_object(system, timeline)?;
    match archive.read::<serde_json::Value>(&name, Kind::History, LONGEST_HISTORY).await {
        Err(Trouble::Store(StoreError::Missing(_))) => Ok(None),
        Err(trouble) => Err(trouble),
        Ok((_, text)) => match parse_history(&text) {
            Some(branches) => Ok(Some(branches)),
            None => Err(Trouble::damaged(&name, "it is no history")),
        },
    }
}

pub(crate) fn size_of(label: &WalLabel, name: &ObjectName) -> Result<SegmentSize, Trouble> {
    SegmentSize::new(label.segment_size)
        .ok_or_else(|| Trouble::damaged(name, format!("segments of {} bytes", label.segment_size)))
}

/// A segment's object.
async fn object_of(
    archive: &Archive,
    system: SystemIdentifier,
    segment: SegmentName,
) -> Result<Option<(ObjectName, Bytes)>, Trouble> {
    let name = segment_object(system, segment)?;
    match archive.store().get(&name, 0..(LONGEST as u64 + (LONGEST as u64 >> 5))).await {
        Err(StoreError::Missing(_)) => Ok(None),
        object => Ok(Some((name, object?))),
    }
}

/// Gives what a segment's object opens to, frame by frame, and says how long segments are; all of it was right only when it
/// has returned.
fn open_whole(
    keys: &KeyRing,
    name: &ObjectName,
    object: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<(), Trouble>,
) -> Result<SegmentSize, Trouble> {
    let wrong = |why: &str| Trouble::damaged(name, why);
    let opener = Opener::begin(keys, name, object)?;
    if opener.kind() != Kind::Segment {
        return Err(wrong("it is of another kind"));
    }
    let (trailer, from_end) = opener.end(object)?;
    let size = size_of(&opener.label()?, name)?;
    if trailer.plain != size.bytes() {
        return Err(wrong("it does not hold a whole segment"));
    }
    let mut frames = object
        .get(opener.prologue()..object.len() - from_end)
        .ok_or_else(|| wrong("it is shorter than its parts"))?;
    let (mut digest, mut length) = (blake3::Hasher::new(), 0);
    for (place, stored) in (0_u32..).zip(&trailer.frames) {
        let split = frames.split_at_checked(*stored as usize);
        let (frame, rest) = split.ok_or_else(|| wrong("a frame is missing"))?;
        let plain = opener.frame(place, frame)?;
        digest.update(&plain);
        length += plain.len() as u64;
        if length > size.bytes() {
            return Err(wrong("it holds more than its trailer says"));
        }
        each(&plain)?;
        frames = rest;
    }
    let fits = trailer.digest.is_none_or(|said| said == digest.finalize().to_hex().as_str());
    if !frames.is_empty() || length != size.bytes() || !fits {
        return Err(wrong("it does not hold what its trailer says"));
    }
    Ok(size)
}

/// A segment that is there as one object, and how long segments are.
pub(crate) async fn whole(
    archive: &Archive,
    system: SystemIdentifier,
    segment: SegmentName,
) -> Result<Option<(Vec<u8>, SegmentSize)>, Trouble> {
    let Some((name, object)) = object_of(archive, system, segment).await? else { return Ok(None) };
    let keys = archive.keys().clone();
    let open = move || {
        let mut plain = Vec::new();
        let size = open_whole(&keys, &name, &object, |part| {
            plain.extend_from_slice(part);
            Ok(())
        })?;
        Ok(Some((plain, size)))
    };
    joined(tokio::task::spawn_blocking(open).await)
}

/// The same into a file, a frame in memory at a time.
async fn whole_to(
    archive: &Archive,
    system: SystemIdentifier,
    segment: SegmentName,
    target: &Path,
    on_disk: bool,
) -> Result<Got, Trouble> {
    let Some((name, object)) = object_of(archive, system, segment).await? else { return Ok(Got::Missing) };
    let (keys, target) = (archive.keys().clone(), target.to_owned());
    let open = move || {
        let failed = |source| Trouble::file(&target, source);
        let mut draft = Draft::new(&target).map_err(failed)?;
        open_whole(&keys, &name, &object, |part| draft.write(part).map_err(failed))?;
        draft.keep(on_disk).map_err(failed)?;
        Ok(Got::Found)
    };
    joined(tokio::task::spawn_blocking(open).await)
}

async fn to_file(target: PathBuf, plain: Vec<u8>, length: usize) -> Result<Got, Trouble> {
    let write = move || match write(&target, &plain, length) {
        Ok(()) => Ok(Got::Found),
        Err(source) => Err(Trouble::file(target, source)),
    };
    joined(tokio::task::spawn_blocking(write).await)
}

/// Fetches the segments after that one into the spool, as many as it holds, and removes those that will not be asked for
/// any more. Returns at once when another process is at it. Answers how many it has fetched.
///
/// # Errors
/// The archive or the spool cannot be used; nothing is lost by that.
pub async fn get_ahead(
    archive: &Archive,
    system: SystemIdentifier,
    name: &str,
    spool: &Spool,
) -> Result<usize, Trouble> {
    let Some(asked) = SegmentName::parse(name) else { return Ok(0) };
    let Some(_lock) = spool.lock()? else { return Ok(0) };
    // Its label says how long segments are; a segment that is not whole is the last one.
    let object = segment_object(system, asked)?;
    let size = match label_of(archive, &object, None).await {
        Err(Trouble::Store(StoreError::Missing(_))) => return Ok(0),
        label => size_of(&label?, &object)?,
    };
    for old in spool.segments().into_iter().filter(|have| *have <= asked) {
        spool.forget(old);
    }
    let wanted = std::iter::successors(asked.next(size), |last| last.next(size));
    let missing: Vec<_> = wanted.take(spool.ahead()).filter(|segment| !spool.has(*segment)).collect();
    let fetched = futures::stream::iter(missing.into_iter().map(|segment| async move {
        let got = whole_to(archive, system, segment, &spool.path(segment), false).await?;
        Ok::<_, Trouble>(got == Got::Found)
    }));
    let mut fetched = fetched.buffered(AT_ONCE);
    let mut count = 0;
    while let Some(true) = fetched.try_next().await? {
        count += 1;
    }
    Ok(count)
}
