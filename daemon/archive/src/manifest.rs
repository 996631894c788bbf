//! What says what a backup is, and which objects it is made of.
//!
//! The manifest is one small object, written last: a line of JSON, and a line with a signature over it. What the backup holds,
//! file by file, is in the backup's `list` stream, whose digest the manifest has: so neither grows with the other, and both are
//! written and read in bounded memory.
//!
//! **Invariant:** a backup whose manifest cannot be seen is none; all that a manifest names was durable before it was written.
//! **Invariant:** a manifest that was read is the one of that name, of that system, signed with a key of this archive.

pub mod catalog;
pub(crate) mod listing;
pub mod tree;

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use lifeboat_core::{AgentName, DatabaseName, Epoch, Lsn, Moment, SystemIdentifier, Timeline, WorkloadName};
use lifeboat_engine::ports::ObjectName;
use serde::{Deserialize, Serialize};

use crate::archive::{Archive, name};
use crate::keys::random;
use crate::object::Kind;
use crate::stream::{FRAME, PACK_FRAMES, Stream};
use crate::trouble::Trouble;
use tree::{Digest, Extent};

/// The longest manifest.
const LONGEST_MANIFEST: usize = 16 << 20;

/// The most packs that a backup may need: 128 TiB of data that does not compress.
const MOST_PACKS: u64 = 8 << 20;

/// The most bad pages that are named; how many there were is told all the same.
pub const MOST_BAD_PAGES: usize = 10_000;

/// The name of a backup: when it was begun, and six random digits. In the order of time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

impl BackupId {
    /// A new one.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn make(begun: Moment) -> Result<Self, Trouble> {
        // `2026-11-21T09:14:46.123Z`, without what makes it readable.
        let text = begun.to_string();
        let time: String = text.chars().take(19).filter(|letter| !"-:".contains(*letter)).collect();
        let made = format!("{time}Z-{}", HEXLOWER.encode(&random::<3>()?));
        made.parse().map_err(|_| Trouble::Broken(format!("`{made}` is no name of a backup")))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text that is no name of a backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a backup, which looks like 20261121T091446Z-0a1b2c")]
pub struct NoBackupId(String);

impl FromStr for BackupId {
    type Err = NoBackupId;

    fn from_str(text: &str) -> Result<Self, NoBackupId> {
        let good = text.len() == 23
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 => byte == b'T',
                15 => byte == b'Z',
                16 => byte == b'-',
                0..16 => byte.is_ascii_digit(),
                _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            });
        if good { Ok(Self(text.to_owned())) } else { Err(NoBackupId(text.chars().take(80).collect())) }
    }
}

impl TryFrom<String> for BackupId {
    type Error = NoBackupId;

    fn try_from(text: String) -> Result<Self, NoBackupId> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folder of a system's backups, with a slash at its end.
#[must_use]
pub fn system_folder(system: SystemIdentifier) -> String {
    format!("backups/{:016x}/", system.get())
}

/// The name of an object of a backup.
pub(crate) fn object_name(
    system: SystemIdentifier,
    backup: &BackupId,
    last: &str,
) -> Result<ObjectName, Trouble> {
    name(&format!("{}{backup}/{last}", system_folder(system)))
}

/// What is known of a backup when it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Whose database it is.
    pub workload: WorkloadName,
    /// Which.
    pub database: DatabaseName,
    /// Its system identifier.
    pub system: SystemIdentifier,
    /// The timeline it is on.
    pub timeline: Timeline,
    /// Where replay begins.
    pub start: Lsn,
    /// When the backup began.
    pub begun: Moment,
    /// The server's version as it says it itself: 150006.
    pub server_version: u32,
    /// How long a WAL segment is.
    pub segment_size: u64,
    /// Who makes it.
    pub agent: AgentName,
    /// In which epoch of the workload.
    pub epoch: Epoch,
}

/// A page whose checksum is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadPage {
    /// In which tablespace; none: in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// In which file.
    pub path: tree::TreePath,
    /// Which block of it.
    pub block: u64,
}

/// What the label of a manifest says: enough for a catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointLabel {
    /// Its name.
    pub backup: BackupId,
    /// Whose database it is.
    pub workload: WorkloadName,
    /// Which.
    pub database: DatabaseName,
    /// Its system identifier.
    pub system: SystemIdentifier,
    /// The timeline replay begins on.
    pub timeline: Timeline,
    /// Where replay begins.
    pub start: Lsn,
    /// The timeline it ended on.
    pub end_timeline: Timeline,
    /// What replay must reach at least.
    pub end: Lsn,
    /// When it began.
    pub begun: Moment,
    /// When it ended.
    pub ended: Moment,
    /// How long a WAL segment is.
    pub segment_size: u64,
    /// How long its files are, together.
    pub source: u64,
    /// How much was stored for it.
    pub stored: u64,
    /// How many pages have a wrong checksum.
    pub bad_pages: u64,
    /// What it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<BackupId>,
}

/// What a backup came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// How many files.
    pub files: u64,
    /// How long they are, together.
    pub source: u64,
    /// How much of that was written into the `data` stream, before compression.
    pub new: u64,
    /// How much of that is in earlier backups.
    pub referenced: u64,
    /// How many bytes the objects have that were written, without the manifest.
    pub stored: u64,
    /// How many they are.
    pub objects: u64,
}

/// A stream of a backup, as far as this one needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// How long the whole stream is.
    pub length: u64,
    /// Which of its packs are needed: from, to, both included, counted from 1; in order, apart.
    pub packs: Vec<(u32, u32)>,
}

impl Used {
    /// Whether that pack is needed.
    pub(crate) fn has(&self, pack: u32) -> bool {
        let at = self.packs.partition_point(|(_, last)| *last < pack);
        self.packs.get(at).is_some_and(|(first, _)| *first <= pack)
    }

    /// How many packs are needed.
    fn count(&self) -> u64 {
        self.packs.iter().map(|(first, last)| u64::from(last.saturating_sub(*first)) + 1).sum()
    }

    /// In order, apart, and none beyond the stream.
    fn sound(&self) -> bool {
        let most = packs_of(self.length);
        let mut before = 0;
        self.packs.iter().all(|(first, last)| {
            let good = *first > before && first <= last && u64::from(*last) <= most;
            before = *last;
            good
        })
    }
}

/// How many packs a stream of that length has.
pub(crate) fn packs_of(length: u64) -> u64 {
    length.div_ceil(FRAME as u64 * PACK_FRAMES)
}

/// A backup whose objects are needed: this one, which is the first, or an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Which.
    pub backup: BackupId,
    /// The bytes of files.
    pub data: Used,
    /// The fingerprints of blocks.
    pub prints: Used,
}

impl Origin {
    pub(crate) fn used(&self, stream: Stream) -> &Used {
        if stream == Stream::Prints { &self.prints } else { &self.data }
    }
}

/// What a backup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name.
    pub backup: BackupId,
    /// What it is a backup of.
    pub point: Point,
    /// What replay must reach at least.
    pub end: Lsn,
    /// The timeline that is on.
    pub end_timeline: Timeline,
    /// When it ended.
    pub ended: Moment,
    /// What it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<BackupId>,
    /// What it came to.
    pub sums: Sums,
    /// The data key whose secret the fingerprints were taken with.
    pub prints_key: String,
    /// What it is made of. The first is this backup itself.
    pub origins: Vec<Origin>,
    /// How long the `list` stream is.
    pub list: u64,
    /// Its digest.
    pub list_digest: Digest,
    /// The first pages whose checksum was wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_pages: Vec<BadPage>,
    /// How many there were.
    pub bad_page_count: u64,
}

impl Manifest {
    /// What a catalog needs of it.
    #[must_use]
    pub fn label(&self) -> PointLabel {
        let point = &self.point;
        PointLabel {
            backup: self.backup.clone(),
            workload: point.workload.clone(),
            database: point.database.clone(),
            system: point.system,
            timeline: point.timeline,
            start: point.start,
            end_timeline: self.end_timeline,
            end: self.end,
            begun: point.begun,
            ended: self.ended,
            segment_size: point.segment_size,
            source: self.sums.source,
            stored: self.sums.stored,
            bad_pages: self.bad_page_count,
            previous: self.previous.clone(),
        }
    }

    /// The object it is in.
    pub(crate) fn object(system: SystemIdentifier, backup: &BackupId) -> Result<ObjectName, Trouble> {
        object_name(system, backup, "manifest")
    }

    /// Every object that this backup needs, its manifest last.
    ///
    /// # Errors
    /// A name of an object cannot be made.
    pub fn objects(&self) -> Result<Vec<ObjectName>, Trouble> {
        let mut found = Vec::new();
        self.each_pack(|name, _, _, _| found.push(name))?;
        found.push(Self::object(self.point.system, &self.backup)?);
        Ok(found)
    }

    /// Each pack that is needed: its name, whose it is, of which stream, its number.
    pub(crate) fn each_pack(
        &self,
        mut see: impl FnMut(ObjectName, &BackupId, Stream, u32),
    ) -> Result<(), Trouble> {
        let system = self.point.system;
        let list = Used { length: self.list, packs: whole(self.list) };
        let lists = self.origins.first().map(|own| (&own.backup, Stream::List, &list));
        let others = self.origins.iter().flat_map(|origin| {
            [Stream::Data, Stream::Prints].map(|stream| (&origin.backup, stream, origin.used(stream)))
        });
        for (backup, stream, used) in others.chain(lists) {
            for pack in used.packs.iter().flat_map(|(first, last)| *first..=*last) {
                see(object_name(system, backup, &stream.pack(pack))?, backup, stream, pack);
            }
        }
        Ok(())
    }

    /// Whether these parts are in streams, and in packs, that the manifest names.
    pub(crate) fn holds(&self, extents: &[Extent], stream: Stream) -> bool {
        let pack = FRAME as u64 * PACK_FRAMES;
        extents.iter().all(|Extent(origin, offset, length)| {
            let Some(used) = self.origins.get(*origin as usize).map(|origin| origin.used(stream)) else {
                return false;
            };
            let within = offset.checked_add(*length).is_some_and(|end| *length > 0 && end <= used.length);
            within
                && (offset / pack..=(offset + length - 1) / pack)
                    .all(|at| u32::try_from(at + 1).is_ok_and(|pack| used.has(pack)))
        })
    }

    /// Writes it: durable when this returns.
    pub(crate) async fn write(&self, archive: &Archive) -> Result<(), Trouble> {
        let mut text = serde_json::to_vec(self)
            .map_err(|error| Trouble::Broken(format!("a manifest cannot be written: {error}")))?;
        let signature = archive.keys().newest().sign(blake3::hash(&text).as_bytes());
        text.push(b'\n');
        text.extend_from_slice(BASE64.encode(&signature).as_bytes());
        text.push(b'\n');
        if text.len() > LONGEST_MANIFEST {
            return Err(Trouble::Broken(format!("a manifest of {} bytes", text.len())));
        }
        let object = Self::object(self.point.system, &self.backup)?;
        archive.write(&object, Kind::Manifest, &self.label(), &text).await
    }

    /// Reads the one of that backup.
    ///
    /// # Errors
    /// There is none, or it is not what it says.
    pub async fn read(
        archive: &Archive,
        system: SystemIdentifier,
        backup: &BackupId,
    ) -> Result<Self, Trouble> {
        let object = Self::object(system, backup)?;
        let (label, text) = archive.read::<PointLabel>(&object, Kind::Manifest, LONGEST_MANIFEST).await?;
        let manifest = Self::signed(archive, &object, &text)?;
        let wrong = |why: &str| Err(Trouble::damaged(&object, why));
        if manifest.backup != *backup || manifest.point.system != system {
            return wrong("it is the manifest of another backup");
        }
        if manifest.label() != label {
            return wrong("its label says something else");
        }
        let own = manifest.origins.first().is_some_and(|own| own.backup == *backup);
        let sound = |origin: &Origin| origin.data.sound() && origin.prints.sound();
        let packs =
            manifest.origins.iter().map(|origin| origin.data.count() + origin.prints.count()).sum::<u64>();
        let bounded = packs <= MOST_PACKS && packs_of(manifest.list) <= MOST_PACKS;
        if !own || !bounded || !manifest.origins.iter().all(sound) {
            return wrong("what it says it is made of cannot be");
        }
        Ok(manifest)
    }

    fn signed(archive: &Archive, object: &ObjectName, text: &[u8]) -> Result<Self, Trouble> {
        let wrong = |why: String| Trouble::damaged(object, why);
        let mut lines = text.split(|byte| *byte == b'\n');
        let (body, signature) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let signature = BASE64.decode(signature).map_err(|error| wrong(format!("its signature: {error}")))?;
        let digest = blake3::hash(body);
        if !archive.keys().iter().any(|key| key.signed(digest.as_bytes(), &signature)) {
            return Err(wrong("its signature is not of this archive".to_owned()));
        }
        serde_json::from_slice(body).map_err(|error| wrong(format!("it is no manifest: {error}")))
    }
}

/// All packs of a stream of that length.
pub(crate) fn whole(length: u64) -> Vec<(u32, u32)> {
    let last = u32::try_from(packs_of(length)).unwrap_or(u32::MAX);
    if last == 0 { Vec::new() } else { vec![(1, last)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_named_after_its_time() {
        let id = BackupId::make(Moment::from_millis(1_795_252_486_123)).unwrap();
        assert!(id.as_str().starts_with("20261121T091446Z-"), "{id}");
        assert_eq!(id.as_str().parse::<BackupId>().unwrap(), id);
        for wrong in [
            "",
            "20261121T091446Z",
            "20261121T091446Z-0A1B2C",
            "20261121T091446Z-0a1b2/",
            "../../1121T091446Z-0a1b2c",
        ] {
            assert!(wrong.parse::<BackupId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_part_is_held_only_where_stream_and_pack_are_named() {
        let pack = FRAME as u64 * PACK_FRAMES;
        let used = Used { length: 5 * pack, packs: vec![(1, 2), (4, 5)] };
        assert!(used.sound() && used.has(1) && used.has(5) && !used.has(3) && !used.has(6));
        for wrong in [vec![(0, 1)], vec![(2, 1)], vec![(1, 2), (2, 3)], vec![(4, 5), (1, 1)], vec![(5, 6)]] {
            assert!(!Used { length: 5 * pack, packs: wrong.clone() }.sound(), "{wrong:?}");
        }
    }
}
