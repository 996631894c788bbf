//! A folder that is written into, and nothing outside of it.
//!
//! **Invariant:** every path is walked from the folder down, part by part, by the system's own handles, and no symbolic link is
//! followed: whatever is in the folder, and whoever changes it meanwhile, nothing outside is touched.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::manifest::tree::TreePath;
use crate::trouble::Trouble;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a file that is written may be opened with.
const FILE: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// A folder, by its handle.
pub(super) struct Root {
    handle: OwnedFd,
    place: PathBuf,
}

/// A folder below it that was used last, so that it is not walked to for each file in it.
#[derive(Default)]
pub(super) struct Walked {
    last: Option<(usize, Vec<u8>, OwnedFd)>,
}

impl Root {
    /// Opens it; makes it, for its owner alone, when only it itself is missing.
    pub(super) fn open(place: &Path) -> Result<Self, Trouble> {
        let wrong = |errno: Errno| Trouble::file(place, errno.into());
        match rustix::fs::mkdir(place, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(wrong(errno)),
        }
        // The folder itself may be reached over a link: that is whoever named it who says so.
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let handle = rustix::fs::open(place, flags, Mode::empty()).map_err(wrong)?;
        Ok(Self { handle, place: place.to_owned() })
    }

    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    pub(super) fn shown(&self, path: &TreePath) -> PathBuf {
        self.place.join(path.as_path())
    }

    fn wrong(&self, path: &TreePath, errno: Errno) -> Trouble {
        Trouble::file(self.shown(path), errno.into())
    }

    /// Does something with the folder that a path is in, and the path's own name there.
    fn within<T>(
        &self,
        walked: &mut Walked,
        path: &TreePath,
        act: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let (Some(folder), own) = path.split() else {
            return act(self.handle.as_fd(), path.as_bytes());
        };
        // Two roots may have a folder of one name: the handle's address tells them apart while both are open.
        let root = std::ptr::from_ref(self) as usize;
        if let Some((of, have, handle)) = &walked.last
            && *of == root
            && have == folder
        {
            return act(handle.as_fd(), own);
        }
        let mut handle: Option<OwnedFd> = None;
        for part in folder.split(|byte| *byte == b'/') {
            let at = handle.as_ref().map_or(self.handle.as_fd(), AsFd::as_fd);
            handle = Some(rustix::fs::openat(at, part, FOLDER, Mode::empty())?);
        }
        let Some(handle) = handle else { return act(self.handle.as_fd(), own) };
        let (_, _, handle) = walked.last.insert((root, folder.to_vec(), handle));
        act(handle.as_fd(), own)
    }

    /// What is there: none when nothing is.
    pub(super) fn look(&self, walked: &mut Walked, path: &TreePath) -> Result<Option<Stat>, Trouble> {
        let seen =
            self.within(walked, path, |at, own| rustix::fs::statat(at, own, AtFlags::SYMLINK_NOFOLLOW));
        match seen {
            Ok(seen) => Ok(Some(seen)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.wrong(path, errno)),
        }
    }

    /// Makes a folder, or takes the one that is there when that may be; its owner can write into it.
    pub(super) fn folder(
        &self,
        walked: &mut Walked,
        path: &TreePath,
        mode: u32,
        taken: bool,
    ) -> Result<(), Trouble> {
        let mode = allowed(mode) | Mode::RWXU;
        let made = self.within(walked, path, |at, own| {
            match rustix::fs::mkdirat(at, own, mode) {
                Err(Errno::EXIST) if taken => {}
                made => made?,
            }
            let handle = rustix::fs::openat(at, own, FOLDER, Mode::empty())?;
            rustix::fs::fchmod(handle, mode)
        });
        made.map_err(|errno| self.wrong(path, errno))
    }

    /// What a folder's owner may do with it, in the end.
    pub(super) fn mode(&self, walked: &mut Walked, path: &TreePath, mode: u32) -> Result<(), Trouble> {
        let set = self.within(walked, path, |at, own| {
            rustix::fs::fchmod(rustix::fs::openat(at, own, FOLDER, Mode::empty())?, allowed(mode))
        });
        set.map_err(|errno| self.wrong(path, errno))
    }

    /// A new file, for its owner alone until it is finished.
    pub(super) fn create(&self, walked: &mut Walked, path: &TreePath) -> Result<File, Trouble> {
        let flags = FILE | OFlags::CREATE | OFlags::EXCL;
        let made =
            self.within(walked, path, |at, own| rustix::fs::openat(at, own, flags, Mode::RUSR | Mode::WUSR));
        made.map(File::from).map_err(|errno| match errno {
            Errno::EXIST => Trouble::Refused(format!("{} is listed twice", self.shown(path).display())),
            errno => self.wrong(path, errno),
        })
    }

    /// The file that is there, to be read and changed; none when there is none that is a file of one name.
    pub(super) fn present(&self, walked: &mut Walked, path: &TreePath) -> Result<Option<File>, Trouble> {
        let Some(seen) = self.look(walked, path)? else { return Ok(None) };
        if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile || seen.st_nlink != 1 {
            return Ok(None);
        }
        match self.within(walked, path, |at, own| rustix::fs::openat(at, own, FILE, Mode::empty())) {
            Ok(handle) => Ok(Some(File::from(handle))),
            Err(Errno::LOOP | Errno::NOENT | Errno::ACCESS) => Ok(None),
            Err(errno) => Err(self.wrong(path, errno)),
        }
    }

    /// A symbolic link.
    pub(super) fn link(&self, walked: &mut Walked, path: &TreePath, to: &Path) -> Result<(), Trouble> {
        let made = self.within(walked, path, |at, own| rustix::fs::symlinkat(to, at, own));
        made.map_err(|errno| self.wrong(path, errno))
    }

    /// Removes what is there, with everything in it.
    pub(super) fn remove(&self, walked: &mut Walked, path: &TreePath) -> Result<(), Trouble> {
        // What is walked to may be what is removed.
        walked.last = None;
        let gone = self.within(walked, path, remove_all);
        match gone {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.wrong(path, errno)),
        }
    }

    /// Everything below, folders before what is in them: each path, and whether it is a folder.
    pub(super) fn walk(
        &self,
        see: &mut dyn FnMut(&TreePath, bool) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let mut folders: Vec<Option<TreePath>> = vec![None];
        let mut walked = Walked::default();
        while let Some(folder) = folders.pop() {
            let names = match &folder {
                None => names(self.handle.as_fd(), c".".to_bytes()),
                Some(path) => self.within(&mut walked, path, names),
            };
            let shown = || folder.as_ref().map_or(self.place.clone(), |path| self.shown(path));
            for (own, is_folder) in names.map_err(|errno| Trouble::file(shown(), errno.into()))? {
                let mut bytes = folder.as_ref().map_or(Vec::new(), |path| path.as_bytes().to_vec());
                if !bytes.is_empty() {
                    bytes.push(b'/');
                }
                bytes.extend_from_slice(&own);
                let path =
                    TreePath::from_bytes(&bytes).map_err(|error| Trouble::Refused(error.to_string()))?;
                see(&path, is_folder)?;
                if is_folder {
                    folders.push(Some(path));
                }
            }
        }
        Ok(())
    }

    /// All that was written on this file system is on the disk when this returns.
    pub(super) fn settle(&self) -> Result<(), Trouble> {
        rustix::fs::syncfs(&self.handle).map_err(|errno| Trouble::file(&self.place, errno.into()))
    }
}

fn names(at: BorrowedFd<'_>, own: &[u8]) -> Result<Vec<(Vec<u8>, bool)>, Errno> {
    let handle = rustix::fs::openat(at, own, FOLDER, Mode::empty())?;
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::new(handle)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let seen = rustix::fs::statat(at, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(seen.st_mode)
                }
                kind => kind,
            };
            found.push((name.to_vec(), kind == FileType::Directory));
        }
    }
    Ok(found)
}

fn remove_all(at: BorrowedFd<'_>, own: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(at, own, AtFlags::empty()) {
        // Linux says EISDIR, POSIX EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return done,
    }
    let handle = rustix::fs::openat(at, own, FOLDER, Mode::empty())?;
    for (name, _) in names(at, own)? {
        remove_all(handle.as_fd(), &name)?;
    }
    rustix::fs::unlinkat(at, own, AtFlags::REMOVEDIR)
}

/// Nothing but who may read, write and enter: no set-user-id, nothing sticky.
fn allowed(mode: u32) -> Mode {
    Mode::from_raw_mode(mode as RawMode & 0o777)
}

/// A file is as it was: its mode, its time.
pub(super) fn dress(file: &File, mode: u32, mtime: i64) -> io::Result<()> {
    rustix::fs::fchmod(file, allowed(mode))?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 },
    };
    Ok(rustix::fs::futimens(file, &times)?)
}
