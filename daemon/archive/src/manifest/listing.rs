//! The `list` stream of a backup, line by line.
//!
//! **Invariant:** a thing that a listing gives fits its manifest: its parts are in streams and packs that the manifest names,
//! and are together as long as they must be.
//! **Invariant:** a listing ends well only when the digest of all of it is the one in the manifest.

use crate::backup::blocks::{BLOCK, PRINT};
use crate::manifest::Manifest;
use crate::manifest::tree::{Digest, Entry, Extent, FileEntry};
use crate::pack::{Reader, Source, Tables};
use crate::stream::{FRAME, Stream};
use crate::trouble::Trouble;

/// The longest line: a file in four hundred thousand parts.
pub(crate) const LONGEST_LINE: usize = 24 << 20;

/// Reads a listing from its beginning to its end.
pub(crate) struct Listing<'m> {
    manifest: &'m Manifest,
    source: Source,
    reader: Reader,
    digest: Box<blake3::Hasher>,
    buffer: Vec<u8>,
    /// Where in the buffer the next line begins, and where in the stream that is.
    at: usize,
    place: u64,
    /// The next frame.
    next: u64,
    /// How much of the streams of data the files may still use.
    left: u128,
}

/// The `list` stream of that backup.
pub(crate) fn list_of(manifest: &Manifest) -> Source {
    Source { backup: manifest.backup.clone(), stream: Stream::List, length: manifest.list }
}

impl<'m> Listing<'m> {
    pub(crate) fn new(manifest: &'m Manifest, tables: &Tables) -> Self {
        // No byte of a stream is in two files of one backup; so files are no longer than the streams they come from.
        let left = manifest.origins.iter().map(|origin| u128::from(origin.data.length)).sum();
        Self {
            manifest,
            source: list_of(manifest),
            reader: Reader::new(tables),
            digest: Box::default(),
            buffer: Vec::new(),
            at: 0,
            place: 0,
            next: 0,
            left,
        }
    }

    /// The next thing and the place of its line, none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, Entry)>, Trouble> {
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let entry = entry_of(self.manifest, &rest[..length])?;
                if let Entry::File(file) = &entry {
                    let left = self.left.checked_sub(u128::from(file.size));
                    self.left = left
                        .ok_or_else(|| wrong(self.manifest, "files are longer than what they are made of"))?;
                }
                let place = self.place;
                self.at += length + 1;
                self.place += length as u64 + 1;
                return Ok(Some((place, entry)));
            }
            if self.next * FRAME as u64 >= self.source.length {
                return self.end().map(|()| None);
            }
            if rest.len() > LONGEST_LINE {
                return Err(wrong(self.manifest, "a line is too long"));
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            let frame = self.reader.frame(&self.source, self.next).await?;
            self.digest.update(&frame);
            self.buffer.extend_from_slice(&frame);
            self.next += 1;
        }
    }

    fn end(&self) -> Result<(), Trouble> {
        if self.at < self.buffer.len() {
            return Err(wrong(self.manifest, "its last line is cut off"));
        }
        if Digest::from(self.digest.finalize()) != self.manifest.list_digest {
            return Err(wrong(self.manifest, "its digest is another one"));
        }
        Ok(())
    }
}

fn wrong(manifest: &Manifest, why: &str) -> Trouble {
    match Manifest::object(manifest.point.system, &manifest.backup) {
        Ok(object) => Trouble::damaged(&object, format!("what it lists: {why}")),
        Err(error) => error,
    }
}

/// What one line says, compared with the manifest.
pub(crate) fn entry_of(manifest: &Manifest, line: &[u8]) -> Result<Entry, Trouble> {
    let entry: Entry =
        serde_json::from_slice(line).map_err(|error| wrong(manifest, &format!("a line: {error}")))?;
    match &entry {
        Entry::File(file) if !fits(manifest, file) => {
            Err(wrong(manifest, &format!("{}: its parts are not where they can be", file.path)))
        }
        _ => Ok(entry),
    }
}

fn fits(manifest: &Manifest, file: &FileEntry) -> bool {
    let sum = |extents: &[Extent]| {
        extents.iter().try_fold(0_u64, |sum, Extent(_, _, length)| sum.checked_add(*length))
    };
    let prints = file.size.div_ceil(BLOCK as u64).checked_mul(PRINT as u64);
    sum(&file.data) == Some(file.size)
        && prints.is_some()
        && sum(&file.prints) == prints
        && manifest.holds(&file.data, Stream::Data)
        && manifest.holds(&file.prints, Stream::Prints)
}
