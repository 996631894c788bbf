//! Segments fetched before they are asked for.
//!
//! `restore_command` is a process for each segment, and replay waits for it. So a process of its own fetches the next ones
//! into a folder beside, and the command only has to rename.
//!
//! What is fetched ahead is not brought to the disk: the server does that itself when it keeps a segment. So a spool is of
//! one boot of the host: what a power cut has spoiled is never looked at.
//!
//! **Invariant:** a file in the spool is whole, and of a segment that can no longer change.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use lifeboat_core::SystemIdentifier;
use rustix::fs::{FlockOperation, flock};

use super::names::SegmentName;
use crate::trouble::Trouble;

/// A folder for the segments that will be asked for next.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
    ahead: usize,
}

impl Spool {
    /// In a folder of its own below `parent`, for one archive, by where it is, and one system; best on the file system of the
    /// data folder, so that a file is renamed and not copied. At most `ahead` segments are in it.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(parent: &Path, place: &str, system: SystemIdentifier, ahead: usize) -> Result<Self, Trouble> {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let place = blake3::Hasher::new().update(place.as_bytes()).update(&boot).finalize().to_hex();
        let folder = parent.join(format!("lifeboat-{}-{:016x}", &place.as_str()[..16], system.get()));
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| Trouble::file(&folder, source))?;
        Ok(Self { folder, ahead })
    }

    /// How many segments are fetched ahead.
    #[must_use]
    pub fn ahead(&self) -> usize {
        self.ahead
    }

    pub(crate) fn path(&self, segment: SegmentName) -> PathBuf {
        self.folder.join(segment.to_string())
    }

    pub(crate) fn has(&self, segment: SegmentName) -> bool {
        self.path(segment).exists()
    }

    /// Moves the segment of that name to `target`, if it is here: the archive needs not even be opened for it.
    ///
    /// # Errors
    /// It is here and cannot be moved.
    pub fn take(&self, name: &str, target: &Path) -> Result<bool, Trouble> {
        let Some(segment) = SegmentName::parse(name) else { return Ok(false) };
        let path = self.path(segment);
        let failed = |source| Trouble::file(target, source);
        match std::fs::rename(&path, target) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound && !path.exists() => Ok(false),
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let plain = std::fs::read(&path).map_err(failed)?;
                write(target, &plain, plain.len()).map_err(failed)?;
                std::fs::remove_file(&path).map_err(failed)?;
                Ok(true)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether so few are left that it is time to fetch more ([`super::get_ahead`], best in a process of its own), and nobody
    /// is at it.
    #[must_use]
    pub fn hungry(&self) -> bool {
        self.segments().len() <= self.ahead / 2 && matches!(self.lock(), Ok(Some(_)))
    }

    /// What is here, in order.
    pub(crate) fn segments(&self) -> Vec<SegmentName> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let name = |entry: io::Result<std::fs::DirEntry>| {
            entry.ok().and_then(|entry| SegmentName::parse(entry.file_name().to_str()?))
        };
        let mut found: Vec<_> = entries.filter_map(name).collect();
        found.sort_unstable();
        found
    }

    /// Removes what will not be asked for any more.
    pub(crate) fn forget(&self, segment: SegmentName) {
        let _ = std::fs::remove_file(self.path(segment));
    }

    /// For one process at a time; none when another one is at it.
    pub(crate) fn lock(&self) -> Result<Option<File>, Trouble> {
        let path = self.folder.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|source| Trouble::file(&path, source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Trouble::file(&path, errno.into())),
        }
    }
}

/// A file that is there whole or not at all.
pub(crate) struct Draft {
    file: File,
    new: PathBuf,
    target: PathBuf,
    kept: bool,
}

impl Draft {
    pub(crate) fn new(target: &Path) -> io::Result<Self> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let new = target.with_file_name(name);
        Ok(Self { file: File::create(&new)?, new, target: target.to_owned(), kept: false })
    }

    pub(crate) fn write(&mut self, part: &[u8]) -> io::Result<()> {
        self.file.write_all(part)
    }

    /// Gives it its name; on the disk first, when it has to outlive a power cut.
    pub(crate) fn keep(mut self, on_disk: bool) -> io::Result<()> {
        if on_disk {
            self.file.sync_data()?;
        }
        std::fs::rename(&self.new, &self.target)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.new);
        }
    }
}

/// A new file of that length, zeros after `plain`.
pub(crate) fn write(target: &Path, plain: &[u8], length: usize) -> io::Result<()> {
    let mut draft = Draft::new(target)?;
    draft.write(plain)?;
    draft.file.set_len(length as u64)?;
    draft.keep(true)
}
