//! Small files that a crash must not halve.
//!
//! **Invariant:** a file is written beside, flushed, renamed, and its folder flushed: after a crash it is the old
//! one or the new one.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use lifeboat_core::{Fault, FaultKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An act on a path that failed: whether it happened is for a look to say.
pub(super) fn fault(act: &str, path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(FaultKind::Unclear, format!("cannot {act} {}: {error}", path.display()))
}

/// Puts `bytes` in place of the file, with the permissions of the one that is there.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lifeboat-partial");
    let beside = path.with_file_name(name);
    let put = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        let mode = match fs::metadata(path) {
            Ok(there) => there.permissions(),
            Err(_) => std::os::unix::fs::PermissionsExt::from_mode(0o600),
        };
        file.set_permissions(mode)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    put().map_err(|error| fault("write", path, &error))?;
    sync_parent(path)
}

/// Flushes the folder that a path is in: a rename or a removal is durable after it, not before.
pub(super) fn sync_parent(path: &Path) -> Result<(), Fault> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|error| fault("flush", parent, &error))
}

/// The value in a file; none when there is no file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Fault> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault("read", path, &error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let detail = format!("{} is damaged: {error}; look at it, and remove it", path.display());
        Fault::new(FaultKind::Refused, detail)
    })
}

/// Writes a value to a file.
pub(super) fn record<T: Serialize>(path: &Path, value: &T) -> Result<(), Fault> {
    let bytes = serde_json::to_vec_pretty(value).map_err(std::io::Error::other);
    write(path, &bytes.map_err(|error| fault("write", path, &error))?)
}

/// Removes a file or a folder with all that is in it; one that is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), Fault> {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fault("remove", path, &error)),
    }
}

/// Renames a file or a folder.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), Fault> {
    fs::rename(from, to).map_err(|error| fault(&format!("rename to {}", to.display()), from, &error))?;
    sync_parent(to)
}

/// Flushes every file of a folder, and it.
pub(super) fn sync_tree(folder: &Path) -> Result<(), Fault> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    let entries = fs::read_dir(folder).map_err(|error| fault("read", folder, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| fault("read", folder, &error))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            sync(&path).map_err(|error| fault("flush", &path, &error))?;
        }
    }
    sync(folder).map_err(|error| fault("flush", folder, &error))
}
