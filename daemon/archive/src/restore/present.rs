//! What is in the target already: is it a cluster, whose, and is it running?
//!
//! **Invariant:** nothing is removed from a folder that was not found to be a stopped cluster of the same system, or a restore
//! of one that was broken off.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use lifeboat_core::SystemIdentifier;
use serde::{Deserialize, Serialize};

use super::target::{Root, Walked};
use super::{CONTROL, MARKER};
use crate::manifest::BackupId;
use crate::manifest::tree::{Extent, TreePath};
use crate::trouble::Trouble;

/// What is in the marker.
#[derive(Serialize, Deserialize)]
struct Marker {
    system: SystemIdentifier,
    backup: BackupId,
}

fn path(text: &str) -> Result<TreePath, Trouble> {
    text.parse().map_err(|error| Trouble::Broken(format!("{error}")))
}

/// Whether something is there that a restore may go on from.
///
/// # Errors
/// Something is there that it may not, or that the caller did not say it may.
pub(super) fn look(root: &Root, system: SystemIdentifier, delta: bool) -> Result<bool, Trouble> {
    let shown = root.place().display();
    if names(root)?.is_empty() {
        return Ok(false);
    }
    running(root)?;
    let refused = |what: String| Err(Trouble::Refused(format!("{shown} is not empty: {what}")));
    let found = match (control(root)?, marker(root)?) {
        (Some(found), _) | (None, Some(found)) => found,
        (None, None) => {
            return refused("and it is no database cluster. Give a folder that is empty".to_owned());
        }
    };
    if found != system {
        return refused(format!("it is of system {found}, and the backup is of {system}"));
    }
    if !delta {
        return refused(
            "a stopped cluster of the same system. With --delta it is brought back to the backup, and what is not in it is removed"
                .to_owned(),
        );
    }
    Ok(true)
}

/// Refuses where a server runs, or may run.
fn running(root: &Root) -> Result<(), Trouble> {
    let Some(mut file) = root.present(&mut Walked::default(), &path("postmaster.pid")?)? else {
        return Ok(());
    };
    let shown = root.place().display();
    let mut text = Vec::new();
    let read = Read::by_ref(&mut file).take(4096).read_to_end(&mut text);
    read.map_err(|error| Trouble::file(root.place().join("postmaster.pid"), error))?;
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let number = std::str::from_utf8(first).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let pid = number.map(i32::abs).and_then(rustix::process::Pid::from_raw);
    // Whoever may not be asked lives as well.
    let gone = pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH));
    if gone {
        return Ok(());
    }
    let number = number.map_or("an unknown one".to_owned(), |number| number.to_string());
    Err(Trouble::Refused(format!(
        "a server runs in {shown}: its postmaster.pid names process {number}. Stop it first"
    )))
}

/// The system identifier in the control file: its first eight bytes, as the machine writes them (PostgreSQL's
/// `ControlFileData`).
fn control(root: &Root) -> Result<Option<SystemIdentifier>, Trouble> {
    let control = path(CONTROL)?;
    let Some(file) = root.present(&mut Walked::default(), &control)? else { return Ok(None) };
    let mut bytes = [0; 8];
    let read = read_at(&file, &mut bytes, 0).map_err(|error| Trouble::file(root.shown(&control), error))?;
    Ok((read == bytes.len()).then(|| SystemIdentifier::new(u64::from_ne_bytes(bytes))))
}

fn marker(root: &Root) -> Result<Option<SystemIdentifier>, Trouble> {
    let Some(file) = root.present(&mut Walked::default(), &path(MARKER)?)? else { return Ok(None) };
    let mut text = vec![0; 4096];
    let read =
        read_at(&file, &mut text, 0).map_err(|error| Trouble::file(root.place().join(MARKER), error))?;
    Ok(serde_json::from_slice::<Marker>(&text[..read]).ok().map(|marker| marker.system))
}

/// From here on, what is there is not whole: it says so, and it does not start.
pub(super) fn mark(root: &Root, system: SystemIdentifier, backup: &BackupId) -> Result<(), Trouble> {
    let (marker, mut walked) = (path(MARKER)?, Walked::default());
    let text = serde_json::to_vec(&Marker { system, backup: backup.clone() });
    let text = text.map_err(|error| Trouble::Broken(format!("a marker cannot be written: {error}")))?;
    root.remove(&mut walked, &marker)?;
    let file = root.create(&mut walked, &marker)?;
    let failed = |error| Trouble::file(root.shown(&marker), error);
    file.write_all_at(&text, 0).and_then(|()| file.sync_all()).map_err(failed)?;
    // The marker is durable before what it stands for is gone.
    rustix::fs::fsync(root.handle()).map_err(|errno| failed(errno.into()))?;
    if root.look(&mut walked, &path("global")?)?.is_some() {
        root.remove(&mut walked, &path(CONTROL)?)?;
    }
    Ok(())
}

/// All but the control file is there.
pub(super) fn unmark(root: &Root) -> Result<(), Trouble> {
    root.remove(&mut Walked::default(), &path(MARKER)?)
}

/// What is in a folder.
pub(super) fn names(root: &Root) -> Result<Vec<Vec<u8>>, Trouble> {
    let failed = |error| Trouble::file(root.place(), error);
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(root.handle()).map_err(|errno| failed(errno.into()))? {
        let entry = entry.map_err(|errno| failed(errno.into()))?;
        let name = entry.file_name().to_bytes();
        // A new file system has a folder of its own.
        if ![&b"."[..], b"..", b"lost+found"].contains(&name) {
            found.push(name.to_vec());
        }
    }
    Ok(found)
}

/// Refuses when it cannot fit.
pub(super) fn space(root: &Root, bytes: u64) -> Result<(), Trouble> {
    let seen = rustix::fs::fstatvfs(root.handle());
    let seen = seen.map_err(|errno| Trouble::file(root.place(), errno.into()))?;
    let free = seen.f_bavail.saturating_mul(seen.f_frsize);
    if bytes <= free {
        return Ok(());
    }
    let shown = root.place().display();
    Err(Trouble::Refused(format!("the backup has {bytes} bytes, and {shown} has room for {free}")))
}

/// A thing in the backup, in short.
pub(super) fn key(tablespace: Option<u32>, path: &TreePath) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tablespace.unwrap_or(0).to_le_bytes()).update(path.as_bytes());
    hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Removes what is not in the backup; `listed` is in order.
pub(super) fn clear(root: &Root, tablespace: Option<u32>, listed: &[u64]) -> Result<(), Trouble> {
    let mut foreign = BTreeSet::new();
    root.walk(&mut |path, _| {
        let known =
            listed.binary_search(&key(tablespace, path)).is_ok() || path.as_bytes() == MARKER.as_bytes();
        if !known {
            foreign.insert(path.as_bytes().to_vec());
        }
        Ok(())
    })?;
    let below = |path: &TreePath| path.split().0.is_some_and(|folder| foreign.contains(folder));
    let foreign: Vec<TreePath> = foreign
        .iter()
        .filter_map(|path| TreePath::from_bytes(path).ok())
        .filter(|path| !below(path))
        .collect();
    let mut walked = Walked::default();
    for path in &foreign {
        tracing::info!(path = %root.shown(path).display(), "removed: it is not in the backup");
        root.remove(&mut walked, path)?;
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// A place in the parts of a file, that goes forward only.
#[derive(Default)]
pub(super) struct Place {
    at: usize,
    used: u64,
}

impl Place {
    pub(super) fn skip(&mut self, extents: &[Extent], length: u64) {
        let _ = self.take(extents, length);
    }

    /// The parts of the next bytes.
    pub(super) fn take(&mut self, extents: &[Extent], mut length: u64) -> Vec<Extent> {
        let mut found = Vec::new();
        while length > 0 {
            let Some(Extent(origin, offset, whole)) = extents.get(self.at).copied() else { break };
            let next = length.min(whole - self.used);
            found.push(Extent(origin, offset + self.used, next));
            self.used += next;
            length -= next;
            if self.used == whole {
                self.at += 1;
                self.used = 0;
            }
        }
        found
    }
}
