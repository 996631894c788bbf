//! The backup before this one: what its files are made of, and the fingerprints of their blocks.
//!
//! **Invariant:** in memory are sixteen bytes for each of its files, not the files' lines: those are read when they are asked
//! for, most often in the order in which they were written.
//! **Invariant:** what cannot be read of it is stored again; it never keeps a backup from being made.

use std::sync::Arc;

use lifeboat_core::SystemIdentifier;

use crate::archive::Archive;
use crate::manifest::listing::{Listing, entry_of, list_of};
use crate::manifest::tree::{Entry, Extent, FileEntry, TreePath};
use crate::manifest::{BackupId, Manifest, Origin};
use crate::pack::{Reader, Source, Tables};
use crate::stream::Stream;
use crate::trouble::Trouble;

pub(super) struct Previous {
    pub(super) manifest: Manifest,
    origins: Arc<Vec<Origin>>,
    /// The beginning of a digest of each file's place, and where its line is; in order.
    index: Vec<(u64, u64)>,
    lines: Reader,
    prints: Reader,
}

impl Previous {
    pub(super) async fn open(
        archive: &Archive,
        system: SystemIdentifier,
        backup: &BackupId,
    ) -> Result<Self, Trouble> {
        let manifest = Manifest::read(archive, system, backup).await?;
        let tables = Tables::new(archive, system);
        let mut index = Vec::new();
        let mut listing = Listing::new(&manifest, &tables);
        while let Some((place, entry)) = listing.next().await? {
            if let Entry::File(file) = entry {
                index.push((hash(file.tablespace, &file.path), place));
            }
        }
        drop(listing);
        index.sort_unstable();
        let origins = Arc::new(manifest.origins.clone());
        Ok(Self { lines: Reader::new(&tables), prints: Reader::new(&tables), manifest, origins, index })
    }

    /// What it has in that place.
    pub(super) async fn find(
        &mut self,
        tablespace: Option<u32>,
        path: &TreePath,
    ) -> Result<Option<Prior>, Trouble> {
        let wanted = hash(tablespace, path);
        let from = self.index.partition_point(|(hash, _)| *hash < wanted);
        let places: Vec<u64> =
            self.index[from..].iter().take_while(|(hash, _)| *hash == wanted).map(|(_, at)| *at).collect();
        for place in places {
            match self.line(place).await {
                Ok(Entry::File(file)) if file.tablespace == tablespace && file.path == *path => {
                    return Ok(Some(self.prior(file)));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, backup = %self.manifest.backup, "the previous backup"),
            }
        }
        Ok(None)
    }

    async fn line(&mut self, place: u64) -> Result<Entry, Trouble> {
        let line = self.lines.line(&list_of(&self.manifest), place).await?;
        entry_of(&self.manifest, &line)
    }

    fn prior(&self, file: FileEntry) -> Prior {
        let cursor = |extents| Cursor::new(self.origins.clone(), extents);
        Prior {
            data: cursor(file.data),
            groups: Some(cursor(file.prints.clone())),
            prints: Prints::Stored(cursor(file.prints)),
        }
    }

    /// The next fingerprints of a file, fewer at its end; none when they cannot be read.
    async fn prints(&mut self, prints: &mut Cursor, length: usize) -> Result<Vec<u8>, Trouble> {
        let mut parts = Vec::new();
        let length = (length as u64).min(prints.left);
        prints.take(length, |Extent(_, offset, length), of| {
            let source =
                Source { backup: of.backup.clone(), stream: Stream::Prints, length: of.prints.length };
            parts.push((source, offset, length));
        })?;
        let mut found = Vec::new();
        for (source, offset, length) in parts {
            let add = |piece: &[u8]| {
                found.extend_from_slice(piece);
                Ok(())
            };
            if let Err(error) = self.prints.read(&source, offset, length, add).await {
                tracing::warn!(%error, "blocks are stored again: what they were is not known");
                return Ok(Vec::new());
            }
        }
        Ok(found)
    }
}

/// The beginning of a digest of a file's place.
pub(super) fn hash(tablespace: Option<u32>, path: &TreePath) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tablespace.unwrap_or(0).to_le_bytes()).update(path.as_bytes());
    hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A file as it was before, read along with the new one.
pub(super) struct Prior {
    /// Where its bytes are.
    pub(super) data: Cursor,
    /// Where its fingerprints are, to be referenced.
    pub(super) groups: Option<Cursor>,
    prints: Prints,
}

/// Fingerprints to be read.
enum Prints {
    Stored(Cursor),
    Remembered(Vec<u8>, usize),
}

impl Prior {
    /// One whose fingerprints are at hand.
    pub(super) fn remembered(origins: Arc<Vec<Origin>>, data: Vec<Extent>, prints: Vec<u8>) -> Self {
        Self { data: Cursor::new(origins, data), groups: None, prints: Prints::Remembered(prints, 0) }
    }

    /// The next fingerprints, fewer at its end; none when they cannot be read.
    pub(super) async fn prints(
        &mut self,
        previous: Option<&mut Previous>,
        length: usize,
    ) -> Result<Vec<u8>, Trouble> {
        match (&mut self.prints, previous) {
            (Prints::Stored(cursor), Some(previous)) => previous.prints(cursor, length).await,
            (Prints::Stored(_), None) => Ok(Vec::new()),
            (Prints::Remembered(prints, at), _) => {
                let end = prints.len().min(*at + length);
                let next = prints[(*at).min(end)..end].to_vec();
                *at = end;
                Ok(next)
            }
        }
    }
}

/// A place in a file of the previous backup, that goes forward only.
pub(super) struct Cursor {
    origins: Arc<Vec<Origin>>,
    extents: Vec<Extent>,
    at: usize,
    used: u64,
    left: u64,
}

impl Cursor {
    fn new(origins: Arc<Vec<Origin>>, extents: Vec<Extent>) -> Self {
        let left = extents.iter().map(|extent| extent.2).sum();
        Self { origins, extents, at: 0, used: 0, left }
    }

    /// The next bytes are the ones in these parts.
    pub(super) fn take(&mut self, length: u64, mut see: impl FnMut(Extent, &Origin)) -> Result<(), Trouble> {
        let origins = self.origins.clone();
        let mut wrong = None;
        self.go(length, |extent| match origins.get(extent.0 as usize) {
            Some(origin) => see(extent, origin),
            None => wrong = Some(extent.0),
        });
        match wrong {
            Some(origin) => Err(Trouble::Broken(format!("the previous backup has no origin {origin}"))),
            None => Ok(()),
        }
    }

    pub(super) fn skip(&mut self, length: u64) {
        self.go(length, |_| {});
    }

    fn go(&mut self, mut length: u64, mut see: impl FnMut(Extent)) {
        while length > 0 {
            let Some(Extent(origin, offset, whole)) = self.extents.get(self.at).copied() else { return };
            let next = length.min(whole - self.used);
            see(Extent(origin, offset + self.used, next));
            self.used += next;
            self.left -= next;
            length -= next;
            if self.used == whole {
                self.at += 1;
                self.used = 0;
            }
        }
    }
}
