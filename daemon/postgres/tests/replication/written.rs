//! A base backup, written out.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lifeboat_postgres::replication::{BaseBackup, End, Entry, Error, Item};

/// What came of a backup besides its files.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) end: Option<End>,
    pub(crate) bad_pages: Vec<(PathBuf, u32)>,
    pub(crate) warnings: Vec<String>,
    pub(crate) progress: Vec<u64>,
    pub(crate) entries: Vec<Entry>,
    /// The largest piece of contents that came.
    pub(crate) largest: usize,
}

/// Writes a backup to `folder`, its tablespaces to `tablespaces/OID`.
pub(crate) async fn write(
    backup: &mut BaseBackup,
    folder: &Path,
    tablespaces: &Path,
) -> Result<Written, Error> {
    fs::create_dir_all(folder).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    for tablespace in &backup.tablespaces {
        fs::create_dir_all(tablespaces.join(tablespace.oid.to_string())).unwrap();
    }
    let place = |entry: &Entry| match entry.tablespace {
        None => folder.join(&entry.path),
        Some(oid) => tablespaces.join(oid.to_string()).join(&entry.path),
    };
    let mut written = Written::default();
    let mut manifest = Vec::new();
    let mut file: Option<(fs::File, u64)> = None;
    while let Some(item) = backup.next().await? {
        assert_eq!(written.end, None, "something comes after the end: {item:?}");
        match item {
            Item::Directory(entry) => {
                assert!(file.is_none());
                fs::create_dir_all(place(&entry)).unwrap();
                fs::set_permissions(place(&entry), fs::Permissions::from_mode(entry.mode)).unwrap();
                written.entries.push(entry);
            }
            Item::File(entry) => {
                assert!(file.is_none());
                file = Some((fs::File::create_new(place(&entry)).unwrap(), entry.size));
                fs::set_permissions(place(&entry), fs::Permissions::from_mode(entry.mode)).unwrap();
                written.entries.push(entry);
            }
            Item::Symlink { entry, target } => {
                assert!(file.is_none());
                let oid = entry.path.file_name().unwrap();
                assert!(backup.tablespaces.iter().any(|tablespace| tablespace.location == target));
                symlink(tablespaces.join(oid), place(&entry)).unwrap();
                written.entries.push(entry);
            }
            Item::Data(bytes) => {
                let (file, left) = file.as_mut().unwrap();
                assert!(!bytes.is_empty());
                file.write_all(&bytes).unwrap();
                *left -= bytes.len() as u64;
                written.largest = written.largest.max(bytes.len());
            }
            Item::FileEnd => assert_eq!(file.take().unwrap().1, 0),
            Item::Manifest(bytes) => manifest.extend_from_slice(&bytes),
            Item::Progress { bytes } => written.progress.push(bytes),
            Item::Warning(text) => written.warnings.push(text),
            Item::BadPage { file, block } => written.bad_pages.push((file, block)),
            Item::End(end) => written.end = Some(end),
        }
    }
    assert!(file.is_none());
    if !manifest.is_empty() {
        fs::write(folder.join("backup_manifest"), manifest).unwrap();
    }
    Ok(written)
}
