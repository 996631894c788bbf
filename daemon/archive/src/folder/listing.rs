//! A folder read as a list of objects, in the order of their names.
//!
//! **Invariant:** one folder's names at most are in memory for each level, and what is read is a name of an object, or left
//! out: neither hidden files nor links, nor what a name could not say.

use std::os::fd::{AsFd, BorrowedFd};

use lifeboat_core::Moment;
use lifeboat_engine::ports::{Listed, ObjectName};
use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::Errno;

use super::FOLDER;

/// So many objects in one answer.
const PAGE: usize = 10_000;

/// The first objects under a name, after another one.
pub(super) fn page(
    root: BorrowedFd<'_>,
    under: &str,
    after: Option<&ObjectName>,
) -> Result<Vec<Listed>, Errno> {
    let mut walk = Walk { under, after: after.map_or("", ObjectName::as_str), found: Vec::new(), full: PAGE };
    walk.folder(root, "")?;
    Ok(walk.found)
}

struct Walk<'a> {
    under: &'a str,
    /// Empty when everything is wanted: no name is.
    after: &'a str,
    found: Vec<Listed>,
    full: usize,
}

impl Walk<'_> {
    /// Reads one folder; `path` is empty or ends with a slash.
    fn folder(&mut self, folder: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
        for (name, kind) in self.entries(folder, path)? {
            if self.found.len() == self.full {
                return Ok(());
            }
            let leaf = name.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
            if kind == FileType::Directory {
                match rustix::fs::openat(folder, leaf, FOLDER, Mode::empty()) {
                    Ok(inner) => self.folder(inner.as_fd(), &name)?,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(errno) => return Err(errno),
                }
                continue;
            }
            match rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => {
                    if let Ok(name) = name.parse() {
                        self.found.push(listed(name, &found));
                    }
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// What is wanted of a folder, in the order of the names of the objects: a folder's name ends with a slash, so that
    /// `a-b` comes before what is in `a`.
    fn entries(&self, folder: BorrowedFd<'_>, path: &str) -> Result<Vec<(String, FileType)>, Errno> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let Ok(leaf) = entry.file_name().to_str() else { continue };
            if leaf.parse::<ObjectName>().is_err() {
                continue;
            }
            let kind = match entry.file_type() {
                // Not every file system tells.
                FileType::Unknown => match rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(found) => FileType::from_raw_mode(found.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno),
                },
                kind => kind,
            };
            match kind {
                FileType::Directory => {
                    let name = format!("{path}{leaf}/");
                    let before = name.as_str() < self.after && !self.after.starts_with(&name);
                    if !before && (name.starts_with(self.under) || self.under.starts_with(&name)) {
                        entries.push((name, kind));
                    }
                }
                FileType::RegularFile => {
                    let name = format!("{path}{leaf}");
                    if name.as_str() > self.after && name.starts_with(self.under) {
                        entries.push((name, kind));
                    }
                }
                _ => {}
            }
        }
        entries.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(entries)
    }
}

fn listed(name: ObjectName, found: &rustix::fs::Stat) -> Listed {
    let seconds = u64::try_from(found.st_mtime).unwrap_or_default();
    let millis = found.st_mtime_nsec / 1_000_000;
    Listed {
        name,
        size: u64::try_from(found.st_size).unwrap_or_default(),
        written: Moment::from_millis(seconds.saturating_mul(1000).saturating_add(millis)),
    }
}
