//! Folders as backups: stored as a server would send them, and compared byte by byte.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_archive::manifest::tree::TreePath;
use lifeboat_archive::{Archive, Backup, BackupId, Ending, FileHeading, Point, Summary, Trouble};
use lifeboat_core::{AgentName, DatabaseName, Epoch, Lsn, Moment, SystemIdentifier, Timeline, WorkloadName};

/// A point of that system, at that moment.
pub(crate) fn point(system: SystemIdentifier, begun: Moment) -> Point {
    Point {
        workload: WorkloadName::new("shop"),
        database: DatabaseName::new("main"),
        system,
        timeline: Timeline::new(1),
        start: Lsn::new(0x200_0028),
        begun,
        server_version: 150_006,
        segment_size: 16 << 20,
        agent: AgentName::new("east"),
        epoch: Epoch::new(1),
    }
}

/// An ending after that.
pub(crate) fn ending(ended: Moment) -> Ending {
    Ending {
        end: Lsn::new(0x200_0100),
        timeline: Timeline::new(1),
        ended,
        bad_pages: Vec::new(),
        bad_page_count: 0,
        server_manifest: None,
    }
}

/// Everything in a folder, in the order of names; what is in `pg_wal` left out, as a server does.
pub(crate) fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    names.sort();
    for path in names {
        let kind = path.symlink_metadata().expect("metadata").file_type();
        found.push(path.clone());
        if kind.is_dir() && !path.ends_with("pg_wal") {
            found.extend(everything(&path));
        }
    }
    found
}

/// Gives a whole folder to a backup that has begun.
pub(crate) async fn give(backup: &mut Backup, folder: &Path) -> Result<(), Trouble> {
    // What one message of a server holds.
    let mut buffer = vec![0; 32 << 10];
    for path in everything(folder) {
        let seen = path.symlink_metadata().expect("metadata");
        let below = path.strip_prefix(folder).expect("below");
        let name = TreePath::from_bytes(below.as_os_str().as_bytes()).expect("a path");
        if seen.is_dir() {
            backup.folder(None, name, seen.mode()).await?;
        } else if seen.is_symlink() {
            let to = std::fs::read_link(&path).expect("a link").to_string_lossy().into_owned();
            backup.link(None, name, to).await?;
        } else {
            let (mode, mtime, size) = (seen.mode(), seen.mtime(), seen.len());
            backup.file(FileHeading { tablespace: None, path: name, mode, mtime, size }).await?;
            let mut file = File::open(&path).expect("a file");
            loop {
                let read = file.read(&mut buffer).expect("bytes");
                if read == 0 {
                    break;
                }
                backup.data(&buffer[..read]).await?;
            }
            backup.file_end().await?;
        }
    }
    Ok(())
}

/// A backup of a folder.
pub(crate) async fn store(
    archive: &Archive,
    folder: &Path,
    system: SystemIdentifier,
    now: Moment,
    previous: Option<&BackupId>,
) -> Result<Summary, Trouble> {
    let mut backup = Backup::begin(archive, point(system, now), previous.cloned()).await?;
    give(&mut backup, folder).await?;
    backup.finish(ending(now)).await
}
