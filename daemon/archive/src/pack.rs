//! Reading streams: from an offset to the pack, the frame, the bytes.
//!
//! **Invariant:** what a pack says of itself is compared with what its stream must be before a byte of it is believed.
//! **Invariant:** what is in memory is bounded: a few frames as they are stored, and a few as they open.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lifeboat_core::SystemIdentifier;
use lifeboat_engine::ports::{ObjectName, StoreError};

use crate::archive::Archive;
use crate::keys::KeyRing;
use crate::manifest::listing::LONGEST_LINE;
use crate::manifest::{BackupId, object_name};
use crate::object::{FRAME_HEAD, Kind, LONGEST_SEALED, Opener, TAIL, Trailer};
use crate::stream::{FRAME, PACK_FRAMES, PackLabel, Stream};
use crate::trouble::Trouble;

/// How much is fetched at once where frames are read one after the other.
const AHEAD: u64 = 4 << 20;

/// How many frames are kept as they open.
const KEPT: usize = 3;

/// How many packs' tables are kept: a table is some hundred bytes.
const TABLES: usize = 20_000;

/// A stream of a backup.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) backup: BackupId,
    pub(crate) stream: Stream,
    /// How long it is.
    pub(crate) length: u64,
}

impl Source {
    fn frame_length(&self, frame: u64) -> u64 {
        self.length.saturating_sub(frame * FRAME as u64).min(FRAME as u64)
    }
}

/// Where the frames of a pack are.
pub(crate) struct Table {
    pub(crate) name: ObjectName,
    pub(crate) opener: Opener,
    /// Where each begins, and where the last one ends.
    pub(crate) starts: Vec<u64>,
}

/// The tables of packs, shared by all who read.
#[derive(Clone)]
pub(crate) struct Tables {
    archive: Archive,
    system: SystemIdentifier,
    known: Arc<Mutex<BTreeMap<ObjectName, Arc<Table>>>>,
}

impl Tables {
    pub(crate) fn new(archive: &Archive, system: SystemIdentifier) -> Self {
        Self { archive: archive.clone(), system, known: Arc::default() }
    }

    /// The table of a pack, read at its end and at its beginning.
    pub(crate) async fn of(
        &self,
        backup: &BackupId,
        stream: Stream,
        pack: u32,
    ) -> Result<Arc<Table>, Trouble> {
        let name = object_name(self.system, backup, &stream.pack(pack))?;
        if let Some(table) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(table.clone());
        }
        let table = Arc::new(self.read(name.clone(), backup, stream, pack).await?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TABLES {
            known.clear();
        }
        known.insert(name, table.clone());
        Ok(table)
    }

    async fn read(
        &self,
        name: ObjectName,
        backup: &BackupId,
        stream: Stream,
        pack: u32,
    ) -> Result<Table, Trouble> {
        let store = self.archive.store();
        let size = store.size(&name).await?.ok_or_else(|| StoreError::Missing(name.clone()))?;
        let first = store.get(&name, 0..Opener::PROLOGUE as u64).await?;
        let opener = opener_of(self.archive.keys(), &name, backup, stream, pack, &first)?;
        let tail = store.get(&name, size.saturating_sub(TAIL)..size).await?;
        let (trailer, from_end) = opener.end(&tail)?;
        table_of(name, opener, &trailer, from_end, size)
    }
}

/// What opens a pack, when it is the one of that name.
fn opener_of(
    keys: &KeyRing,
    name: &ObjectName,
    backup: &BackupId,
    stream: Stream,
    pack: u32,
    first: &[u8],
) -> Result<Opener, Trouble> {
    let opener = Opener::begin(keys, name, first)?;
    if opener.kind() != Kind::Pack {
        return Err(Trouble::damaged(name, "it is of another kind"));
    }
    let label: PackLabel = opener.label()?;
    if label == (PackLabel { backup: backup.clone(), stream, pack }) {
        Ok(opener)
    } else {
        Err(Trouble::damaged(name, "it is another object: its label has another backup, stream or number"))
    }
}

fn table_of(
    name: ObjectName,
    opener: Opener,
    trailer: &Trailer,
    from_end: usize,
    size: u64,
) -> Result<Table, Trouble> {
    let wrong = |why: &str| Trouble::damaged(&name, why);
    let mut starts = vec![opener.prologue() as u64];
    for length in &trailer.frames {
        let last = starts.last().copied().unwrap_or_default();
        starts.push(last + u64::from(*length));
    }
    let ends = starts.last().copied().unwrap_or_default();
    let frames = trailer.frames.len() as u64;
    let long = trailer.frames.iter().any(|length| *length as usize > LONGEST_SEALED + FRAME_HEAD);
    if frames == 0 || frames > PACK_FRAMES || long || ends + from_end as u64 != size {
        return Err(wrong("it does not hold what its trailer says"));
    }
    if trailer.plain > frames * FRAME as u64 || trailer.plain <= (frames - 1) * FRAME as u64 {
        return Err(wrong("its frames do not have the length of frames"));
    }
    Ok(Table { name, opener, starts })
}

/// The longest a pack can be.
pub(crate) const LONGEST_PACK: u64 = PACK_FRAMES * (FRAME as u64 + 64) + Opener::PROLOGUE as u64 + TAIL;

/// Opens every frame of a pack.
///
/// # Errors
/// It is not the one of that name, is not whole, or is not as long as its place in its stream asks for.
pub(crate) fn pack_whole(
    keys: &KeyRing,
    name: &ObjectName,
    source: &Source,
    pack: u32,
    object: &[u8],
) -> Result<(), Trouble> {
    let opener = opener_of(keys, name, &source.backup, source.stream, pack, object)?;
    let (trailer, from_end) = opener.end(object)?;
    let table = table_of(name.clone(), opener, &trailer, from_end, object.len() as u64)?;
    let first = u64::from(pack.saturating_sub(1)) * PACK_FRAMES;
    let mut plain = Vec::with_capacity(FRAME);
    let mut places = 0_u32;
    for ends in table.starts.windows(2) {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(object.len());
        table.opener.frame_into(places, &object[place(ends[0])..place(ends[1])], &mut plain)?;
        if plain.len() as u64 != source.frame_length(first + u64::from(places)) {
            return Err(Trouble::damaged(name, format!("frame {places} does not have its length")));
        }
        places += 1;
    }
    if places < PACK_FRAMES as u32 && source.frame_length(first + u64::from(places)) > 0 {
        return Err(Trouble::damaged(name, "frames are missing at its end"));
    }
    Ok(())
}

/// Reads streams of one system's backups, at any place; fast where the places follow each other.
pub(crate) struct Reader {
    tables: Tables,
    kept: Vec<(Source, u64, Arc<Vec<u8>>)>,
    fetched: Option<Fetched>,
}

/// A part of a pack, as it is stored.
struct Fetched {
    name: ObjectName,
    from: u64,
    bytes: Bytes,
}

impl Fetched {
    fn part(&self, name: &ObjectName, range: &Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.from)?).ok()?;
        let to = usize::try_from(range.end - self.from).ok()?;
        (self.name == *name && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

impl Reader {
    pub(crate) fn new(tables: &Tables) -> Self {
        Self { tables: tables.clone(), kept: Vec::new(), fetched: None }
    }

    /// What a frame of a stream opens to.
    pub(crate) async fn frame(&mut self, source: &Source, frame: u64) -> Result<Arc<Vec<u8>>, Trouble> {
        if let Some(at) = self.kept.iter().position(|(have, number, _)| have == source && *number == frame) {
            let last = self.kept.len() - 1;
            // The one used last is the last one to go.
            self.kept[at..].rotate_left(1);
            return Ok(self.kept[last].2.clone());
        }
        let pack = u32::try_from(frame / PACK_FRAMES + 1)
            .map_err(|_| Trouble::Refused("a stream has too many packs".to_owned()))?;
        let place = frame % PACK_FRAMES;
        let table = self.tables.of(&source.backup, source.stream, pack).await?;
        let index = usize::try_from(place).unwrap_or(usize::MAX);
        let (Some(start), Some(end)) = (table.starts.get(index), table.starts.get(index + 1)) else {
            return Err(Trouble::damaged(&table.name, format!("frame {place} is not in it")));
        };
        let range = *start..*end;
        let stored = match self.fetched.as_ref().and_then(|have| have.part(&table.name, &range)) {
            Some(stored) => stored,
            None => self.fetch(source, frame, &table, range).await?,
        };
        let mut plain = self.room();
        table.opener.frame_into(u32::try_from(place).unwrap_or(u32::MAX), &stored, &mut plain)?;
        if plain.len() as u64 != source.frame_length(frame) {
            return Err(Trouble::damaged(&table.name, format!("frame {place} does not have its length")));
        }
        let plain = Arc::new(plain);
        self.kept.push((source.clone(), frame, plain.clone()));
        Ok(plain)
    }

    /// A buffer for one more frame: that of the one that was not used for longest, when there are enough.
    fn room(&mut self) -> Vec<u8> {
        if self.kept.len() < KEPT {
            return Vec::with_capacity(FRAME);
        }
        let (_, _, oldest) = self.kept.remove(0);
        Arc::try_unwrap(oldest).unwrap_or_else(|_| Vec::with_capacity(FRAME))
    }

    async fn fetch(
        &mut self,
        source: &Source,
        frame: u64,
        table: &Table,
        range: Range<u64>,
    ) -> Result<Bytes, Trouble> {
        // Behind the frame before it, or at the beginning of a pack: it will go on.
        let follows = frame.is_multiple_of(PACK_FRAMES)
            || self.kept.iter().any(|(have, number, _)| have == source && *number + 1 == frame);
        let ends = table.starts.last().copied().unwrap_or(range.end);
        let to = if follows { (range.start + AHEAD).min(ends).max(range.end) } else { range.end };
        let bytes = self.tables.archive.store().get(&table.name, range.start..to).await?;
        let fetched = Fetched { name: table.name.clone(), from: range.start, bytes };
        let part = fetched.part(&table.name, &range);
        self.fetched = Some(fetched);
        part.ok_or_else(|| Trouble::damaged(&table.name, "it is cut off"))
    }

    /// The bytes at that place, in pieces, in order.
    pub(crate) async fn read(
        &mut self,
        source: &Source,
        offset: u64,
        length: u64,
        mut see: impl FnMut(&[u8]) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let (mut at, end) = (offset, offset.saturating_add(length));
        if end > source.length {
            return Err(Trouble::Refused(format!("{} has no byte {end}", source.backup)));
        }
        while at < end {
            let frame = self.frame(source, at / FRAME as u64).await?;
            let from = usize::try_from(at % FRAME as u64).unwrap_or_default();
            let most = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = &frame[from..frame.len().min(from.saturating_add(most))];
            see(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// The bytes from that place to the end of the line.
    pub(crate) async fn line(&mut self, source: &Source, place: u64) -> Result<Vec<u8>, Trouble> {
        let mut line = Vec::new();
        let mut at = place;
        while at < source.length && line.len() <= LONGEST_LINE {
            let end = ((at / FRAME as u64 + 1) * FRAME as u64).min(source.length);
            let mut whole = false;
            let add = |piece: &[u8]| {
                let length = piece.iter().position(|byte| *byte == b'\n');
                whole = length.is_some();
                line.extend_from_slice(&piece[..length.unwrap_or(piece.len())]);
                Ok(())
            };
            self.read(source, at, end - at, add).await?;
            if whole {
                break;
            }
            at = end;
        }
        Ok(line)
    }
}
