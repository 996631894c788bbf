//! An archive in a folder: a file for each object.
//!
//! What is being written is in `.new/`, under a name that no object can have, and locked by who writes it; when it is whole
//! it gets its own name, in one call that does not replace. What a process left there that is gone is removed when the
//! folder is opened. Empty folders stay.
//!
//! **Invariant:** no path of the store's own is trusted: names are walked part by part, and no symbolic link is followed.
//! **Invariant:** after a write that failed to reach the disk nothing is called durable any more, until it is opened anew:
//! the system tells of such a failure once, and forgets.

mod fault;
mod listing;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_engine::ports::{Abilities, Listed, ObjectName, Store, StoreError, Upload, examine};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use self::fault::{of, of_io};
use self::upload::Writing;

/// Where what is not whole yet is written.
const NEW: &str = ".new";

/// So many finished files are kept open until the next settling; the next ones are made durable at once.
const UNSETTLED: usize = 256;

/// So many files are made durable at a time.
const SETTLING: usize = 4;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);
const FOLDER_MODE: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP);

/// An archive in a folder.
pub struct Folder {
    inner: Arc<Inner>,
}

impl Folder {
    /// Opens the folder, makes it when only it itself is missing, and removes what dead processes left half written.
    ///
    /// # Errors
    /// It is no folder, cannot be made, or may not be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_path_buf();
        let shown = path.display().to_string();
        match rustix::fs::mkdir(&path, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(of(errno, &shown)),
        }
        // The folder itself may well be a link: the operator named it.
        let root = rustix::fs::openat(CWD, &path, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())
            .map_err(|errno| of(errno, &shown))?;
        let new = make_folder(&root, NEW).map_err(|errno| of(errno, &shown))?.0;
        let inner = Inner {
            path,
            root,
            new,
            count: AtomicU64::new(0),
            durable_folders: Mutex::default(),
            unsettled: Mutex::default(),
            settling: Mutex::default(),
        };
        inner.remove_leftovers()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        joined(tokio::task::spawn_blocking(move || work(&inner)).await)
    }
}

fn joined<T>(end: Result<Result<T, StoreError>, tokio::task::JoinError>) -> Result<T, StoreError> {
    end.unwrap_or_else(|error| Err(StoreError::Unusable(format!("writing ended by itself: {error}"))))
}

struct Inner {
    path: PathBuf,
    root: OwnedFd,
    new: OwnedFd,
    count: AtomicU64,
    /// Folders whose own names are known to be on the disk.
    durable_folders: Mutex<BTreeSet<String>>,
    unsettled: Mutex<Unsettled>,
    /// One settles at a time: who comes second must not come back before what the first took along is on the disk.
    settling: Mutex<()>,
}

/// What was finished and is not known to be on the disk.
#[derive(Default)]
struct Unsettled {
    files: Vec<File>,
    folders: BTreeMap<String, OwnedFd>,
    /// Something was finished and did not reach the disk.
    lost: Option<StoreError>,
}

/// A file in `.new/`, locked; removed when dropped.
struct Draft {
    inner: Arc<Inner>,
    name: String,
    file: Option<File>,
}

impl Inner {
    fn shown(&self, name: &ObjectName) -> String {
        format!("{}/{name}", self.path.display())
    }

    fn unsettled(&self) -> MutexGuard<'_, Unsettled> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn durable_folders(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.durable_folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes every file in `.new/` that nobody holds locked.
    fn remove_leftovers(&self) -> Result<(), StoreError> {
        let shown = self.path.join(NEW).display().to_string();
        for entry in rustix::fs::Dir::read_from(&self.new).map_err(|errno| of(errno, &shown))? {
            let entry = entry.map_err(|errno| of(errno, &shown))?;
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let Ok(file) = rustix::fs::openat(&self.new, entry.file_name(), flags, Mode::empty()) else {
                continue;
            };
            // Who made it and has not locked it yet will find that its name is gone, and make another one.
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = rustix::fs::unlinkat(&self.new, entry.file_name(), AtFlags::empty());
            }
        }
        Ok(())
    }

    fn draft(self: &Arc<Self>) -> Result<Draft, StoreError> {
        let shown = self.path.join(NEW).display().to_string();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let count = self.count.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{count}", std::process::id());
            let file = match rustix::fs::openat(&self.new, &name, flags, FILE_MODE) {
                Ok(file) => file,
                // Another process of that number, in another container or on another host.
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(of(errno, &shown)),
            };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Where files cannot be locked, what a dead process left stays.
                Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => {}
                // Somebody opens the folder just now and takes it for a leftover.
                Err(Errno::WOULDBLOCK) => continue,
                Err(errno) => {
                    let _ = rustix::fs::unlinkat(&self.new, &name, AtFlags::empty());
                    return Err(of(errno, &shown));
                }
            }
            if rustix::fs::fstat(&file).map_err(|errno| of(errno, &shown))?.st_nlink == 0 {
                continue;
            }
            return Ok(Draft { inner: self.clone(), name, file: Some(File::from(file)) });
        }
    }

    /// The folder an object of that name is in, and the last part of the name.
    fn folder_of<'n>(&self, name: &'n ObjectName) -> Result<(OwnedFd, &'n str), Errno> {
        let (folders, leaf) = split(name);
        let mut folder = rustix::io::fcntl_dupfd_cloexec(&self.root, 0)?;
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            folder = rustix::fs::openat(&folder, part, FOLDER, Mode::empty())?;
        }
        Ok((folder, leaf))
    }

    /// The same, made when it is missing, and its own name on the disk.
    fn make_folder_of<'n>(&self, name: &'n ObjectName) -> Result<(OwnedFd, &'n str), Errno> {
        let (folders, leaf) = split(name);
        let durable = self.durable_folders().contains(folders);
        let mut folder = rustix::io::fcntl_dupfd_cloexec(&self.root, 0)?;
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            let (next, made) = make_folder(&folder, part)?;
            if made || !durable {
                rustix::fs::fsync(&folder)?;
            }
            folder = next;
        }
        if !durable {
            self.durable_folders().insert(folders.to_owned());
        }
        Ok((folder, leaf))
    }

    fn open_object(&self, name: &ObjectName) -> Result<File, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = self
            .folder_of(name)
            .and_then(|(folder, leaf)| rustix::fs::openat(folder, leaf, flags, Mode::empty()));
        let file = File::from(opened.map_err(|errno| self.missing_or(errno, name))?);
        match file.metadata() {
            Ok(found) if found.is_file() => Ok(file),
            Ok(_) => Err(StoreError::Missing(name.clone())),
            Err(error) => Err(of_io(&error, &self.shown(name))),
        }
    }

    /// A symbolic link, or a file where a folder should be, is no object.
    fn missing_or(&self, errno: Errno, name: &ObjectName) -> StoreError {
        match errno {
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR => StoreError::Missing(name.clone()),
            errno => of(errno, &self.shown(name)),
        }
    }

    fn put(self: &Arc<Self>, name: &ObjectName, content: &[u8]) -> Result<(), StoreError> {
        let mut draft = self.draft()?;
        let failed = |error: std::io::Error| of_io(&error, &self.shown(name));
        let mut file = draft.file();
        file.write_all(content).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        let (folder, _) = draft.publish(name)?;
        rustix::fs::fsync(folder).map_err(|errno| of(errno, &self.shown(name)))
    }

    fn get(&self, name: &ObjectName, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let file = self.open_object(name)?;
        let failed = |error: std::io::Error| of_io(&error, &self.shown(name));
        let size = file.metadata().map_err(failed)?.len();
        let wanted = range.end.min(size).saturating_sub(range.start);
        let length = usize::try_from(wanted)
            .map_err(|_| StoreError::Unusable(format!("{wanted} bytes do not fit into memory")))?;
        let mut content = vec![0; length];
        let mut read = 0;
        while read < length {
            match file.read_at(&mut content[read..], range.start + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        content.truncate(read);
        Ok(content.into())
    }

    /// Remembers what is durable only after the next settling; what is too much is made durable at once.
    fn finished(&self, name: &ObjectName, file: File, folder: OwnedFd) -> Result<(), StoreError> {
        let spare = {
            let mut unsettled = self.unsettled();
            unsettled.folders.insert(split(name).0.to_owned(), folder);
            if unsettled.files.len() < UNSETTLED {
                unsettled.files.push(file);
                None
            } else {
                Some(file)
            }
        };
        let Some(file) = spare else { return Ok(()) };
        file.sync_data().map_err(|error| self.lose(of_io(&error, &self.shown(name))))
    }

    fn lose(&self, error: StoreError) -> StoreError {
        self.unsettled().lost.get_or_insert(error.clone());
        error
    }

    fn settle(&self) -> Result<(), StoreError> {
        let _settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let (files, folders) = {
            let mut unsettled = self.unsettled();
            if let Some(lost) = &unsettled.lost {
                return Err(StoreError::Unusable(format!("what was written is not on the disk: {lost}")));
            }
            (std::mem::take(&mut unsettled.files), std::mem::take(&mut unsettled.folders))
        };
        let shown = self.path.display().to_string();
        // Several at a time, so that the file system may take them into one of its own commits.
        let lanes = files.len().div_ceil(SETTLING).max(1);
        let ends = std::thread::scope(|scope| {
            let sync = |some: &[File]| some.iter().try_for_each(File::sync_data);
            let lanes: Vec<_> = files.chunks(lanes).map(|some| scope.spawn(move || sync(some))).collect();
            lanes
                .into_iter()
                .map(|lane| {
                    lane.join().unwrap_or_else(|_| Err(std::io::Error::other("settling ended by itself")))
                })
                .collect::<Vec<_>>()
        });
        for end in ends {
            end.map_err(|error| self.lose(of_io(&error, &shown)))?;
        }
        for folder in folders.into_values() {
            rustix::fs::fsync(folder).map_err(|errno| self.lose(of(errno, &shown)))?;
        }
        Ok(())
    }
}

impl Draft {
    fn file(&self) -> &File {
        self.file.as_ref().expect("a draft has its file until it is dropped")
    }

    /// Gives it the name of an object, unless there is one; answers with the folder, and the file.
    fn publish(&mut self, name: &ObjectName) -> Result<(OwnedFd, File), StoreError> {
        let inner = &self.inner;
        let shown = inner.shown(name);
        let named = inner.make_folder_of(name).and_then(|(folder, leaf)| {
            match rustix::fs::renameat_with(&inner.new, &self.name, &folder, leaf, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                // Some network file systems cannot: a link does not replace either.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    rustix::fs::linkat(&inner.new, &self.name, &folder, leaf, AtFlags::empty())?;
                    let _ = rustix::fs::unlinkat(&inner.new, &self.name, AtFlags::empty());
                }
                Err(errno) => return Err(errno),
            }
            Ok(folder)
        });
        match named {
            Ok(folder) => Ok((folder, self.file.take().expect("a draft is published once"))),
            Err(Errno::EXIST) => Err(StoreError::Exists(name.clone())),
            Err(errno) => Err(of(errno, &shown)),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = rustix::fs::unlinkat(&self.inner.new, &self.name, AtFlags::empty());
        }
    }
}

/// The folders of a name, and its last part.
fn split(name: &ObjectName) -> (&str, &str) {
    name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()))
}

/// The folder of that name, and whether it was made.
fn make_folder(parent: &OwnedFd, name: &str) -> Result<(OwnedFd, bool), Errno> {
    match rustix::fs::openat(parent, name, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => {}
        opened => return opened.map(|folder| (folder, false)),
    }
    let made = match rustix::fs::mkdirat(parent, name, FOLDER_MODE) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno),
    };
    rustix::fs::openat(parent, name, FOLDER, Mode::empty()).map(|folder| (folder, made))
}

#[async_trait]
impl Store for Folder {
    fn place(&self) -> String {
        self.inner.path.display().to_string()
    }

    async fn examine(&self) -> Result<Abilities, StoreError> {
        examine(self).await
    }

    async fn put(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        let (inner, name) = (self.inner.clone(), name.clone());
        joined(tokio::task::spawn_blocking(move || inner.put(&name, &content)).await)
    }

    async fn begin(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        if self.size(name).await?.is_some() {
            return Err(StoreError::Exists(name.clone()));
        }
        let inner = self.inner.clone();
        let draft = joined(tokio::task::spawn_blocking(move || inner.draft()).await)?;
        Ok(Box::new(Writing::new(name.clone(), draft)))
    }

    async fn get(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let name = name.clone();
        self.blocking(move |inner| inner.get(&name, &range)).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        let name = name.clone();
        self.blocking(move |inner| match inner.open_object(&name) {
            Ok(file) => {
                file.metadata().map(|found| Some(found.len())).map_err(|e| of_io(&e, &inner.shown(&name)))
            }
            Err(StoreError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn list(&self, under: &str, after: Option<&ObjectName>) -> Result<Vec<Listed>, StoreError> {
        let (under, after) = (under.to_owned(), after.cloned());
        self.blocking(move |inner| {
            listing::page(inner.root.as_fd(), &under, after.as_ref())
                .map_err(|errno| of(errno, &inner.path.display().to_string()))
        })
        .await
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        let name = name.clone();
        self.blocking(move |inner| {
            let removed = inner
                .folder_of(&name)
                .and_then(|(folder, leaf)| rustix::fs::unlinkat(folder, leaf, AtFlags::empty()));
            match removed {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) => Ok(()),
                Err(errno) => Err(of(errno, &inner.shown(&name))),
            }
        })
        .await
    }

    async fn settle(&self) -> Result<(), StoreError> {
        self.blocking(Inner::settle).await
    }
}
