//! Files that `archive_command` hands over.
//!
//! What is stored already with the same content is well; with other content it is refused, and the server keeps the file
//! and tries again, so that somebody notices.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_core::{Lsn, SystemIdentifier, Timeline};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::ObjectName;
use serde::Serialize;

use super::history::{LONGEST_HISTORY, parse_history};
use super::names::{SegmentName, SegmentSize, folder, history_object, history_of, segment_object};
use super::objects::{Patience, Sealed, WalLabel, put_once};
use super::sealing::{Buffers, seal_segment};
use crate::archive::{Archive, name};
use crate::object::Kind;
use crate::trouble::Trouble;

/// What the first page of a segment says (`XLogLongPageHeaderData` in PostgreSQL's `access/xlog_internal.h`).
struct FirstPage {
    timeline: u32,
    start: u64,
    system: u64,
    segment_size: u32,
}

impl FirstPage {
    const LENGTH: usize = 40;
    /// The flag of a page that has all of it.
    const LONG: u8 = 0x02;

    fn read(bytes: &[u8]) -> Option<Self> {
        let page = bytes.first_chunk::<{ Self::LENGTH }>()?;
        let word = |at: usize| page[at..].first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
        let long = |at: usize| page[at..].first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        (page[2] & Self::LONG != 0).then_some(())?;
        Some(Self { timeline: word(4)?, start: long(8)?, system: long(24)?, segment_size: word(32)? })
    }
}

/// Whose data folder it is: the beginning of `global/pg_control`.
///
/// # Errors
/// It cannot be read.
pub fn system_of(data: &Path) -> Result<SystemIdentifier, Trouble> {
    use std::io::Read as _;
    let path = data.join("global/pg_control");
    let mut first = [0; 8];
    let read = std::fs::File::open(&path).and_then(|mut file| file.read_exact(&mut first));
    read.map_err(|source| Trouble::file(path, source))?;
    Ok(SystemIdentifier::new(u64::from_le_bytes(first)))
}

/// Stores whatever file `archive_command` hands over: a segment, a history, or what is beside them.
///
/// # Errors
/// As [`push_segment`].
pub async fn push_file(
    archive: &Archive,
    system: SystemIdentifier,
    path: &Path,
    patience: Duration,
) -> Result<(), Trouble> {
    let text = file_name(path)?;
    if SegmentName::parse(&text).is_some() {
        return push_segment(archive, Some(system), path, patience).await;
    }
    if history_of(&text).is_some() {
        return push_history(archive, system, path, patience).await;
    }
    let segment = text.get(..24).and_then(SegmentName::parse);
    let Some(segment) = segment.filter(|_| text.ends_with(".partial") || text.ends_with(".backup")) else {
        return Err(Trouble::Refused(format!("{} is no file of a WAL archive", path.display())));
    };
    let object = name(&format!("{}{text}", folder(system, segment.timeline())))?;
    if text.ends_with(".partial") {
        let (plain, size) = segment_file(path, segment, Some(system)).await?;
        return store_segment(archive, object, (system, segment, size), plain, patience).await;
    }
    store_text(archive, &object, (system, segment.timeline()), read(path, LONGEST_HISTORY).await?, patience)
        .await
}

/// Stores a whole segment.
///
/// # Errors
/// [`Trouble::Refused`]: it is no segment of that name and system. [`Trouble::Conflict`]: the archive has it with other
/// content. Or it cannot be read or stored.
pub async fn push_segment(
    archive: &Archive,
    system: Option<SystemIdentifier>,
    path: &Path,
    patience: Duration,
) -> Result<(), Trouble> {
    let text = file_name(path)?;
    let segment = SegmentName::parse(&text)
        .ok_or_else(|| Trouble::Refused(format!("{} is no WAL segment", path.display())))?;
    let (plain, size) = segment_file(path, segment, system).await?;
    let system = match (system, FirstPage::read(&plain)) {
        (Some(system), _) => system,
        (None, Some(page)) => SystemIdentifier::new(page.system),
        (None, None) => return Err(Trouble::Refused(format!("{} is no WAL segment", path.display()))),
    };
    let object = segment_object(system, segment)?;
    store_segment(archive, object, (system, segment, size), plain, patience).await
}

/// Stores the history of a timeline.
///
/// # Errors
/// As [`push_segment`].
pub async fn push_history(
    archive: &Archive,
    system: SystemIdentifier,
    path: &Path,
    patience: Duration,
) -> Result<(), Trouble> {
    let timeline = history_of(&file_name(path)?)
        .ok_or_else(|| Trouble::Refused(format!("{} is no timeline history", path.display())))?;
    put_history(archive, system, timeline, read(path, LONGEST_HISTORY).await?, patience).await
}

/// Stores the history of a timeline, as the server gave it.
///
/// # Errors
/// As [`push_segment`].
pub async fn put_history(
    archive: &Archive,
    system: SystemIdentifier,
    timeline: Timeline,
    text: Bytes,
    patience: Duration,
) -> Result<(), Trouble> {
    let fits = parse_history(&text)
        .is_some_and(|branches| branches.last().is_some_and(|last| last.parent < timeline));
    if !fits {
        return Err(Trouble::Refused(format!(
            "what was given as the history of timeline {timeline} is none"
        )));
    }
    store_text(archive, &history_object(system, timeline)?, (system, timeline), text, patience).await
}

#[derive(Serialize)]
struct TextLabel {
    system: SystemIdentifier,
    timeline: Timeline,
}

async fn store_text(
    archive: &Archive,
    object: &ObjectName,
    (system, timeline): (SystemIdentifier, Timeline),
    text: Bytes,
    patience: Duration,
) -> Result<(), Trouble> {
    let sealed = Sealed {
        object: archive.seal(object, Kind::History, &TextLabel { system, timeline }, &text)?,
        digest: blake3::hash(&text).to_hex().to_string(),
    };
    let patience = Patience::new(Clock::start(), patience);
    put_once(archive, object, Kind::History, &sealed, patience, |_| {}).await
}

async fn store_segment(
    archive: &Archive,
    object: ObjectName,
    (system, segment, size): (SystemIdentifier, SegmentName, SegmentSize),
    plain: Bytes,
    patience: Duration,
) -> Result<(), Trouble> {
    let clock = Clock::start();
    let start = segment.start(size).unwrap_or_default();
    let label = WalLabel {
        system,
        timeline: segment.timeline(),
        segment_size: size.bytes(),
        start,
        end: Lsn::new(start.get() + size.bytes()),
        received: clock.now(),
        sent: None,
        // The server hands over a segment only after the one before it.
        held: start,
        before: None,
    };
    let sealed = seal_segment(archive, &object, label, plain, &Buffers::default()).await?;
    put_once(archive, &object, Kind::Segment, &sealed, Patience::new(clock, patience), |_| {}).await
}

/// A segment's file, if it is what its name says.
async fn segment_file(
    path: &Path,
    segment: SegmentName,
    system: Option<SystemIdentifier>,
) -> Result<(Bytes, SegmentSize), Trouble> {
    let plain = read(path, 1 << 30).await?;
    let wrong = |why: String| Trouble::Refused(format!("{} is not segment {segment}: {why}", path.display()));
    let page = FirstPage::read(&plain).ok_or_else(|| wrong("it does not begin like one".to_owned()))?;
    let size = SegmentSize::new(u64::from(page.segment_size))
        .filter(|size| size.length() == plain.len())
        .ok_or_else(|| wrong(format!("{} bytes, and it says {}", plain.len(), page.segment_size)))?;
    if segment.start(size) != Some(Lsn::new(page.start)) {
        return Err(wrong(format!("it begins at {}", Lsn::new(page.start))));
    }
    if page.timeline > segment.timeline().get() {
        return Err(wrong(format!("it is of timeline {}", page.timeline)));
    }
    if let Some(system) = system.filter(|system| system.get() != page.system) {
        return Err(wrong(format!("it is of system {}, not of {system}", page.system)));
    }
    Ok((plain, size))
}

fn file_name(path: &Path) -> Result<String, Trouble> {
    let text = path.file_name().and_then(|text| text.to_str());
    text.map(str::to_owned).ok_or_else(|| Trouble::Refused(format!("{} has no name", path.display())))
}

async fn read(path: &Path, most: usize) -> Result<Bytes, Trouble> {
    let failed = |source| Trouble::file(path, source);
    let length = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if length > most as u64 {
        return Err(Trouble::Refused(format!("{} has {length} bytes, more than {most}", path.display())));
    }
    Ok(tokio::fs::read(path).await.map_err(failed)?.into())
}
