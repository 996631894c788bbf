//! A base backup, as it is stored.
//!
//! The caller gives what there is, in any order: folders, links, files with their bytes. Each file is hashed whole; each block
//! of it is fingerprinted, and stored only when the previous backup does not have it in the same place.
//!
//! **Invariant:** a page is taken for unchanged because of its bytes, never because of what it says of itself.
//! **Invariant:** the manifest is written after everything it names is durable. Dropped, a backup leaves nothing that is one.

mod attest;
pub(crate) mod blocks;
mod previous;
mod progress;

use std::ops::Range;

use lifeboat_core::{Lsn, Moment, Timeline};
use serde::{Deserialize, Serialize};

use crate::archive::Archive;
use crate::manifest::tree::{
    Digest, Entry, Extent, FileEntry, FolderEntry, LinkEntry, TablespaceEntry, TreePath, join,
};
use crate::manifest::{BackupId, BadPage, MOST_BAD_PAGES, Manifest, Origin, Point, Sums, Used, whole};
use crate::stream::{FRAME, Lanes, PACK_FRAMES, Stream, StreamWriter, UNIT};
use crate::trouble::Trouble;
use attest::Attest;
use blocks::{BLOCK, Fingerprints, GROUP, PRINT};
use previous::{Previous, Prior};
use progress::{Dead, Progress};

/// A file in more parts than this is stored as it is from there on, so that its line stays readable.
const MOST_PARTS: usize = 400_000;

/// What is known of a file when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHeading {
    /// The tablespace it is in; none: in the data folder.
    pub tablespace: Option<u32>,
    /// Where.
    pub path: TreePath,
    /// Who may do what with it.
    pub mode: u32,
    /// When it was changed, in seconds since 1970.
    pub mtime: i64,
    /// Its length: so many bytes follow.
    pub size: u64,
}

/// What is known of a backup when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What replay must reach at least.
    pub end: Lsn,
    /// The timeline that is on.
    pub timeline: Timeline,
    /// When it ended.
    pub ended: Moment,
    /// Pages whose checksum is wrong: the first of them.
    pub bad_pages: Vec<BadPage>,
    /// How many there were.
    pub bad_page_count: u64,
    /// The server's own manifest, to compare what was stored with; it is stored as `backup_manifest`.
    pub server_manifest: Option<bytes::Bytes>,
}

/// What a backup came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub backup: BackupId,
    /// What it was compared with.
    pub previous: Option<BackupId>,
    /// Its sums.
    pub sums: Sums,
}

/// A backup that is being made.
pub struct Backup {
    archive: Archive,
    id: BackupId,
    point: Point,
    previous: Option<Previous>,
    /// Runs that died since.
    dead: Vec<Dead>,
    progress: Progress,
    prints: Fingerprints,
    origins: Origins,
    data_out: StreamWriter,
    prints_out: StreamWriter,
    list_out: StreamWriter,
    list_digest: Box<blake3::Hasher>,
    attest: Attest,
    sums: Sums,
    file: Option<Writing>,
    /// The links of the tablespaces that were told.
    tablespaces: Vec<TreePath>,
    lanes: Lanes,
}

/// Where a tablespace's link is.
pub(crate) fn tablespace_link(oid: u32) -> Result<TreePath, Trouble> {
    format!("pg_tblspc/{oid}").parse().map_err(|error| Trouble::Broken(format!("{error}")))
}

/// The file that is being stored.
struct Writing {
    heading: FileHeading,
    left: u64,
    digest: Box<blake3::Hasher>,
    crc: u32,
    data: Vec<Extent>,
    prints: Vec<Extent>,
    /// The fingerprints of the group of blocks that is not complete yet, and those it had.
    group: Vec<u8>,
    before: Vec<u8>,
    /// All fingerprints of the file until now.
    all: Vec<u8>,
    prior: Option<Prior>,
}

impl Backup {
    /// Begins one; compared with `previous`, when it is given and can be read.
    ///
    /// # Errors
    /// The previous one cannot be read, or there are no random numbers.
    pub async fn begin(archive: &Archive, point: Point, previous: Option<BackupId>) -> Result<Self, Trouble> {
        let id = BackupId::make(point.begun)?;
        let previous = match previous {
            Some(previous) => Some(Box::pin(Previous::open(archive, point.system, &previous)).await?),
            None => None,
        };
        let prints = Fingerprints::new(archive, previous.as_ref().map(|previous| &previous.manifest))?;
        let previous = previous.filter(|previous| previous.manifest.prints_key == prints.key());
        let last = previous.as_ref().map(|previous| &previous.manifest.backup);
        let dead = Box::pin(progress::dead(archive, point.system, last, prints.key())).await?;
        let lanes = Lanes::new();
        let stream = |stream| StreamWriter::new(archive, point.system, &id, stream, &lanes);
        Ok(Self {
            origins: Origins::new(&id),
            data_out: stream(Stream::Data),
            prints_out: stream(Stream::Prints),
            list_out: stream(Stream::List),
            archive: archive.clone(),
            id,
            point,
            previous,
            dead,
            progress: Progress::default(),
            prints,
            list_digest: Box::default(),
            attest: Attest::default(),
            sums: Sums::default(),
            file: None,
            tablespaces: Vec::new(),
            lanes,
        })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &BackupId {
        &self.id
    }

    /// How far it is: what was read and what was stored until now.
    #[must_use]
    pub fn sums(&self) -> Sums {
        Sums { new: self.data_out.position(), ..self.sums }
    }

    /// A folder.
    ///
    /// # Errors
    /// The store cannot be used, or a file has not ended.
    pub async fn folder(
        &mut self,
        tablespace: Option<u32>,
        path: TreePath,
        mode: u32,
    ) -> Result<(), Trouble> {
        self.line(&Entry::Folder(FolderEntry { tablespace, path, mode })).await
    }

    /// A symbolic link. That of a tablespace which was told is left out: the tablespace makes it, wherever it goes.
    ///
    /// # Errors
    /// The store cannot be used, or a file has not ended.
    pub async fn link(&mut self, tablespace: Option<u32>, path: TreePath, to: String) -> Result<(), Trouble> {
        if tablespace.is_none() && self.tablespaces.contains(&path) {
            return Ok(());
        }
        self.line(&Entry::Link(LinkEntry { tablespace, path, to })).await
    }

    /// A tablespace, and where it was, before any link. Its link under `pg_tblspc` is made by it.
    ///
    /// # Errors
    /// The store cannot be used, or a file has not ended.
    pub async fn tablespace(&mut self, oid: u32, location: String) -> Result<(), Trouble> {
        self.tablespaces.push(tablespace_link(oid)?);
        self.line(&Entry::Tablespace(TablespaceEntry { oid, location })).await
    }

    /// A file begins.
    ///
    /// # Errors
    /// The one before has not ended.
    pub async fn file(&mut self, heading: FileHeading) -> Result<(), Trouble> {
        self.no_file()?;
        let mut prior = None;
        for dead in &mut self.dead {
            prior = dead.find(heading.tablespace, &heading.path).await;
            if prior.is_some() {
                break;
            }
        }
        if let (None, Some(previous)) = (&prior, &mut self.previous) {
            prior = previous.find(heading.tablespace, &heading.path).await?;
        }
        self.file = Some(Writing {
            left: heading.size,
            heading,
            digest: Box::default(),
            crc: 0,
            data: Vec::new(),
            prints: Vec::new(),
            group: Vec::new(),
            before: Vec::new(),
            all: Vec::new(),
            prior,
        });
        Ok(())
    }

    /// The next bytes of the file.
    ///
    /// # Errors
    /// They are more than was said, or the store cannot be used.
    pub async fn data(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        let file = self.file.as_mut().ok_or_else(|| Trouble::Broken("bytes without a file".to_owned()))?;
        file.left = file.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            Trouble::Broken(format!("{}: more bytes than its {}", file.heading.path, file.heading.size))
        })?;
        while !bytes.is_empty() {
            let room = UNIT - self.data_out.offered().len();
            let (next, rest) = bytes.split_at(room.min(bytes.len()));
            self.data_out.offer(next);
            if self.data_out.offered().len() == UNIT {
                self.unit().await?;
            }
            bytes = rest;
        }
        Ok(())
    }

    /// The file ends.
    ///
    /// # Errors
    /// Bytes are missing, or the store cannot be used.
    pub async fn file_end(&mut self) -> Result<(), Trouble> {
        if !self.data_out.offered().is_empty() {
            self.unit().await?;
        }
        self.group().await?;
        let file = self.file.take().ok_or_else(|| Trouble::Broken("no file to end".to_owned()))?;
        if file.left > 0 {
            return Err(Trouble::Broken(format!("{}: {} bytes are missing", file.heading.path, file.left)));
        }
        let FileHeading { tablespace, path, mode, mtime, size } = file.heading;
        self.attest.stored(tablespace, &path, size, file.crc);
        self.sums.files += 1;
        self.sums.source += size;
        for Extent(origin, offset, length) in &file.data {
            self.origins.need(*origin, Stream::Data, *offset, *length);
        }
        for Extent(origin, offset, length) in &file.prints {
            self.origins.need(*origin, Stream::Prints, *offset, *length);
        }
        let digest = Digest::from(file.digest.finalize());
        let (data, prints) = (file.data, file.prints);
        let entry = FileEntry { tablespace, path, mode, mtime, size, digest, data, prints };
        self.progress.done(&entry, &file.all);
        let (of, packs) = ((self.point.system, &self.id), self.data_out.whole_packs());
        self.progress.save(&self.archive, of, self.prints.key(), &self.origins.all, packs);
        self.line(&Entry::File(entry)).await
    }

    /// Some blocks are complete, or the file's last ones: which of them are new?
    async fn unit(&mut self) -> Result<(), Trouble> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let bytes = self.data_out.offered();
        file.digest.update(bytes);
        file.crc = crc32c::crc32c_append(file.crc, bytes);
        let from = file.group.len();
        self.prints.take(bytes, &mut file.group)?;
        let group = file.group.len();
        if from == 0 {
            file.before = match &mut file.prior {
                Some(prior) => prior.prints(self.previous.as_mut(), GROUP * PRINT).await?,
                None => Vec::new(),
            };
        }
        let same = |at: usize| file.before.get(at..at + PRINT) == Some(&file.group[at..at + PRINT]);
        let blocks = (from..group).step_by(PRINT);
        let unchanged = blocks.clone().filter(|at| same(*at)).count();
        let mut keep: Vec<Range<usize>> = Vec::new();
        let position = self.data_out.position();
        let mut stored = 0;
        // Where three quarters are new, the rest is not worth a part of its own.
        let apart = unchanged * 4 > blocks.len() && file.data.len() < MOST_PARTS;
        for (number, at) in blocks.enumerate() {
            let start = number * BLOCK;
            let end = (start + BLOCK).min(bytes.len());
            let length = (end - start) as u64;
            match file.prior.as_mut().map(|prior| &mut prior.data) {
                Some(prior) if apart && same(at) => {
                    let origins = &mut self.origins;
                    prior.take(length, |extent, of| join(&mut file.data, origins.refer(extent, of)))?;
                    self.sums.referenced += length;
                }
                prior => {
                    if let Some(prior) = prior {
                        prior.skip(length);
                    }
                    join(&mut file.data, Extent(0, position + stored, length));
                    stored += length;
                    match keep.last_mut() {
                        Some(last) if last.end == start => last.end = end,
                        _ => keep.push(start..end),
                    }
                }
            }
        }
        self.data_out.judge(&keep).await?;
        if group == GROUP * PRINT { self.group().await } else { Ok(()) }
    }

    /// A group of fingerprints is complete: it is that of the previous backup, or a new one.
    async fn group(&mut self) -> Result<(), Trouble> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if file.group.is_empty() {
            return Ok(());
        }
        let (group, before) = (std::mem::take(&mut file.group), std::mem::take(&mut file.before));
        let length = group.len() as u64;
        file.all.extend_from_slice(&group);
        match file.prior.as_mut().and_then(|prior| prior.groups.as_mut()) {
            Some(prior) if group == before && file.prints.len() < MOST_PARTS => {
                let origins = &mut self.origins;
                prior.take(length, |extent, of| join(&mut file.prints, origins.refer(extent, of)))?;
            }
            prior => {
                if let Some(prior) = prior {
                    prior.skip(length);
                }
                join(&mut file.prints, Extent(0, self.prints_out.position(), length));
                self.prints_out.push(&group).await?;
            }
        }
        if let Some(file) = &mut self.file {
            file.group = group;
            file.group.clear();
        }
        Ok(())
    }

    fn no_file(&self) -> Result<(), Trouble> {
        match &self.file {
            Some(file) => Err(Trouble::Broken(format!("{} has not ended", file.heading.path))),
            None => Ok(()),
        }
    }

    async fn line(&mut self, entry: &Entry) -> Result<(), Trouble> {
        self.no_file()?;
        let line = serde_json::to_vec(entry);
        let mut line = line.map_err(|error| Trouble::Broken(format!("a line cannot be written: {error}")))?;
        line.push(b'\n');
        self.list_digest.update(&line);
        self.list_out.push(&line).await
    }

    /// The backup is whole: durable, and visible from here on.
    ///
    /// # Errors
    /// What was stored is not what the server says it sent, or the store cannot be used. It is no backup then.
    pub async fn finish(mut self, ending: Ending) -> Result<Summary, Trouble> {
        self.no_file()?;
        if let Some(text) = &ending.server_manifest {
            self.attest.compare(text)?;
            let heading = FileHeading {
                tablespace: None,
                path: TreePath::from_bytes(b"backup_manifest")
                    .map_err(|error| Trouble::Broken(error.to_string()))?,
                mode: 0o600,
                mtime: i64::try_from(ending.ended.millis() / 1000).unwrap_or_default(),
                size: text.len() as u64,
            };
            self.file(heading).await?;
            self.data(text).await?;
            self.file_end().await?;
        }
        drop((self.lanes, self.progress));
        let data = self.data_out.finish().await?;
        let prints = self.prints_out.finish().await?;
        let list = self.list_out.finish().await?;
        let mut sums = Sums { new: data.length, ..self.sums };
        for written in [data, prints, list] {
            sums.stored += written.stored;
            sums.objects += written.objects;
        }
        let mut bad_pages = ending.bad_pages;
        bad_pages.truncate(MOST_BAD_PAGES);
        let previous = self.previous.as_ref().map(|previous| previous.manifest.backup.clone());
        let manifest = Manifest {
            backup: self.id.clone(),
            point: self.point,
            end: ending.end,
            end_timeline: ending.timeline,
            ended: ending.ended,
            previous: previous.clone(),
            sums,
            prints_key: self.prints.key().to_owned(),
            origins: self.origins.close(data.length, prints.length),
            list: list.length,
            list_digest: self.list_digest.finalize().into(),
            bad_pages,
            bad_page_count: ending.bad_page_count,
        };
        self.archive.store().settle().await?;
        manifest.write(&self.archive).await?;
        Ok(Summary { backup: self.id, previous, sums })
    }
}

/// The backups that this one is made of.
struct Origins {
    all: Vec<Origin>,
    /// Which packs of each are needed, of `data` and of `prints`.
    packs: Vec<[std::collections::BTreeSet<u32>; 2]>,
}

impl Origins {
    fn new(own: &BackupId) -> Self {
        let own = Origin { backup: own.clone(), data: Used::default(), prints: Used::default() };
        Self { all: vec![own], packs: vec![Default::default()] }
    }

    /// A part of an earlier backup, by its place here.
    fn refer(&mut self, extent: Extent, of: &Origin) -> Extent {
        // The origins are few, and the one used last is the likely one; but a search by name is cheap as well.
        let at = self.all.iter().position(|have| have.backup == of.backup).unwrap_or_else(|| {
            let used = |used: &Used| Used { length: used.length, packs: Vec::new() };
            let (data, prints) = (used(&of.data), used(&of.prints));
            self.all.push(Origin { backup: of.backup.clone(), data, prints });
            self.packs.push(Default::default());
            self.all.len() - 1
        });
        // What is known of a run that died grows from progress to progress.
        let have = &mut self.all[at].data.length;
        *have = of.data.length.max(*have);
        Extent(u32::try_from(at).unwrap_or(u32::MAX), extent.1, extent.2)
    }

    fn need(&mut self, origin: u32, stream: Stream, offset: u64, length: u64) {
        let pack = FRAME as u64 * PACK_FRAMES;
        let packs = &mut self.packs[origin as usize][usize::from(stream == Stream::Prints)];
        for at in offset / pack..=(offset + length.max(1) - 1) / pack {
            packs.insert(u32::try_from(at + 1).unwrap_or(u32::MAX));
        }
    }

    fn close(mut self, data: u64, prints: u64) -> Vec<Origin> {
        for (origin, [data, prints]) in self.all.iter_mut().zip(&self.packs) {
            origin.data.packs = ranges(data);
            origin.prints.packs = ranges(prints);
        }
        if let Some(own) = self.all.first_mut() {
            own.data = Used { length: data, packs: whole(data) };
            own.prints = Used { length: prints, packs: whole(prints) };
        }
        self.all
    }
}

/// Numbers, as ranges.
fn ranges(numbers: &std::collections::BTreeSet<u32>) -> Vec<(u32, u32)> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match found.last_mut() {
            Some(last) if last.1 + 1 == *number => last.1 = *number,
            _ => found.push((*number, *number)),
        }
    }
    found
}
