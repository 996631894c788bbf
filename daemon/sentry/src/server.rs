//! What the PostgreSQL server of a data folder is doing, without asking it: from its own files and its processes.
//!
//! A server that hangs cannot be asked. `postmaster.pid` names its first process and says how far its start has come, the
//! control file says whether it is in recovery (it is changed to "in production" before the first write is taken in;
//! PostgreSQL 15, `StartupXLOG` in `xlog.c`).
//!
//! **Invariant:** nothing is written into the data folder.
//! **Invariant:** a running server is taken for a standby only by its own control file, or while it starts as one: a
//! `standby.signal` beside a server that takes writes does not protect it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lifeboat_core::head::Guarded;

use crate::boottime::Boottime;
use crate::process::{Inode, Process, all_postgres_in, postgres_in};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks between two searches for processes that have outlived their postmaster.
const LOOKS_PER_SEARCH: u32 = 10;

/// Where the state is in the control file, after the system identifier and two version numbers; the same since
/// PostgreSQL 8.1 (`ControlFileData` in `pg_control.h`).
const STATE_AT: usize = 16;

/// The states of the control file in which a server follows another one: shut down in recovery, in archive recovery.
const IN_RECOVERY: [i32; 2] = [2, 5];

/// What was seen at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What the server does.
    pub(crate) role: Guarded,
    /// Its first process.
    pub(crate) postmaster: Option<Process>,
    /// Its folder; none while there is none.
    pub(crate) folder: Option<Inode>,
    /// A server without clients that works on the folder, for a repair: not to be disturbed.
    pub(crate) alone: Option<i32>,
    /// When the look began.
    pub(crate) at: Boottime,
}

impl Seen {
    /// Whether there is no data folder, and no process that has worked in it.
    pub(crate) const fn is_nowhere(&self) -> bool {
        self.folder.is_none() && self.postmaster.is_none()
    }
}

/// The server of a data folder.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    data: PathBuf,
}

/// What `postmaster.pid` says (PostgreSQL's `miscadmin.h`, "LOCK_FILE_LINE").
struct LockFile {
    id: i32,
    ready: bool,
}

impl Server {
    /// Of that data folder.
    pub(crate) fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into() }
    }

    /// Looks once; `search` looks for processes without a postmaster as well.
    pub(crate) fn look(&self, search: bool) -> Seen {
        let at = Boottime::now();
        let stopped = Seen { role: Guarded::Stopped, postmaster: None, folder: None, alone: None, at };
        let Ok(folder) = Inode::of(&self.data) else { return stopped };
        let lock = lock_file(&self.data.join("postmaster.pid"));
        let alone = lock.as_ref().filter(|lock| lock.id < 0).map(|lock| -lock.id);
        let stopped = Seen { folder: Some(folder), alone, ..stopped };
        if let Some((lock, postmaster)) = lock
            .and_then(|lock| Some((postmaster(lock.id, folder)?, lock)))
            .map(|(process, lock)| (lock, process))
        {
            return Seen { role: self.role(lock.ready), postmaster: Some(postmaster), ..stopped };
        }
        let orphans = search && alone.is_none() && !all_postgres_in(folder).is_empty();
        // They write on, for as long as they are not asked to read from a client.
        if orphans { Seen { role: self.role(true), ..stopped } } else { stopped }
    }

    fn role(&self, ready: bool) -> Guarded {
        if state(&self.data).is_some_and(|state| IN_RECOVERY.contains(&state)) {
            return Guarded::Following;
        }
        // A copy of a running primary says "in production" until it has begun its own recovery.
        let signalled = || ["standby.signal", "recovery.signal"].iter().any(|f| self.data.join(f).exists());
        if !ready && signalled() { Guarded::Following } else { Guarded::Writing }
    }
}

/// The first process of the server: one that no other process of it has started.
fn postmaster(id: i32, folder: Inode) -> Option<Process> {
    let process = postgres_in(id, folder)?;
    postgres_in(process.parent, folder).is_none().then_some(process)
}

fn lock_file(path: &Path) -> Option<LockFile> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let id = lines.next()?.trim().parse().ok()?;
    // Line 8; the status comes last, and is missing until the server has said it once.
    let status = lines.nth(6).unwrap_or_default().trim();
    Some(LockFile { id, ready: status == "ready" })
}

fn state(data: &Path) -> Option<i32> {
    let mut beginning = [0; STATE_AT + 4];
    fs::File::open(data.join("global/pg_control")).ok()?.read_exact(&mut beginning).ok()?;
    Some(i32::from_ne_bytes(beginning[STATE_AT..].try_into().ok()?))
}

/// Looks again and again in a thread of its own: a disk that hangs must not keep anybody from stopping the server.
#[derive(Clone, Debug)]
pub(crate) struct Lookout {
    seen: Arc<Mutex<Seen>>,
}

impl Lookout {
    /// Looks once, and goes on looking for as long as anybody asks.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(server: Server) -> std::io::Result<Self> {
        let lookout = Self { seen: Arc::new(Mutex::new(server.look(true))) };
        let seen = Arc::downgrade(&lookout.seen);
        thread::Builder::new().name("lookout".to_owned()).spawn(move || {
            let mut looks: u32 = 0;
            while let Some(seen) = seen.upgrade() {
                looks = looks.wrapping_add(1);
                let last = *seen.lock().unwrap_or_else(PoisonError::into_inner);
                // Right after the postmaster has gone, and then now and then.
                let search = last.postmaster.is_some() || looks.is_multiple_of(LOOKS_PER_SEARCH);
                let orphaned = last.postmaster.is_none() && last.role != Guarded::Stopped;
                let look = server.look(search || orphaned);
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = look;
                drop(seen);
                thread::sleep(PAUSE);
            }
        })?;
        Ok(lookout)
    }

    /// What was seen last.
    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(state: i32, lock: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("global")).unwrap();
        let mut control = vec![7; STATE_AT];
        control.extend(state.to_ne_bytes());
        control.extend([9; 100]);
        fs::write(folder.path().join("global/pg_control"), control).unwrap();
        fs::write(folder.path().join("postmaster.pid"), lock).unwrap();
        folder
    }

    #[test]
    fn the_control_file_says_what_a_server_is() {
        for (state, ready, signal, role) in [
            (6, true, false, Guarded::Writing),
            (6, true, true, Guarded::Writing),
            (6, false, false, Guarded::Writing),
            (6, false, true, Guarded::Following),
            (5, true, true, Guarded::Following),
            (5, true, false, Guarded::Following),
            (2, false, true, Guarded::Following),
            (4, false, false, Guarded::Writing),
            (1, false, true, Guarded::Following),
        ] {
            let folder = folder(state, "");
            if signal {
                fs::write(folder.path().join("standby.signal"), "").unwrap();
            }
            let found = Server::new(folder.path()).role(ready);
            assert_eq!(found, role, "state {state}, ready {ready}, signal {signal}");
        }
    }

    #[test]
    fn a_lock_file_of_a_process_that_is_no_server_is_one_of_a_stopped_server() {
        // The id belongs to this test, which is nobody's server.
        let lock = format!("{}\n/data\n1700000000\n5432\n\n127.0.0.1\n 1 2\nready   \n", std::process::id());
        let folder = folder(6, &lock);
        assert!(lock_file(&folder.path().join("postmaster.pid")).unwrap().ready);
        let seen = Server::new(folder.path()).look(true);
        assert_eq!((seen.role, seen.postmaster, seen.alone), (Guarded::Stopped, None, None));
        fs::write(folder.path().join("postmaster.pid"), "-77\n/data\n").unwrap();
        assert_eq!(Server::new(folder.path()).look(true).alone, Some(77));
        assert_eq!(Server::new(folder.path().join("absent")).look(true).folder, None);
    }
}
