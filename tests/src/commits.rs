//! What an agent commits to its journal, watched from outside while it runs.
//!
//! The journal is SQLite's and held by the agent alone, so nobody else can ask it. But each commit is a frame in
//! its write-ahead log that says so (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>), and a process
//! that is killed when that frame is seen has committed exactly that much.
//!
//! **Invariant:** nothing is written, nothing is locked, and the agent does not know.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lifeboat_chaos::process::{self, Signal};

/// Bytes of the log's header and of a frame's.
const HEADER: u64 = 32;
const FRAME: u64 = 24;
/// A commit is followed by an effect that takes a millisecond at least.
const LOOK: Duration = Duration::from_micros(50);

/// The frames of a write-ahead log, counted as they come.
#[derive(Debug)]
struct Commits {
    file: File,
    salts: [u8; 8],
    page: u64,
    next: u64,
    seen: u64,
}

impl Commits {
    /// The log of the journal at `journal`, from now on.
    fn from_now(journal: &Path) -> io::Result<Commits> {
        let mut path = journal.as_os_str().to_owned();
        path.push("-wal");
        let file = File::open(path)?;
        let mut commits = Commits { file, salts: [0; 8], page: 0, next: HEADER, seen: 0 };
        commits.look()?;
        commits.seen = 0;
        Ok(commits)
    }

    /// How many there have been.
    fn look(&mut self) -> io::Result<u64> {
        let mut header = [0; HEADER as usize];
        if self.file.read_at(&mut header, 0)? < header.len() {
            return Ok(self.seen);
        }
        if header[16..24] != self.salts {
            // The log was copied into the database and begins again.
            self.salts.copy_from_slice(&header[16..24]);
            self.page = u64::from(u32::from_be_bytes([header[8], header[9], header[10], header[11]]));
            self.next = HEADER;
        }
        let mut frame = [0; FRAME as usize];
        while self.file.read_at(&mut frame, self.next)? == frame.len() && frame[8..16] == self.salts {
            // The size of the database after the commit; zero in frames that are none.
            self.seen += u64::from(frame[4..8] != [0; 4]);
            self.next += FRAME + self.page;
        }
        Ok(self.seen)
    }
}

/// Kills a process with -9 as soon as it has committed so much.
#[derive(Debug)]
pub struct Sniper {
    called_off: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<bool>>,
}

impl Sniper {
    /// Lies in wait for the `nth` commit from now on, of the agent `pid` with that journal.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn wait_for(journal: &Path, nth: u64, pid: i32) -> io::Result<Sniper> {
        let mut commits = Commits::from_now(journal)?;
        let called_off = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&called_off);
        let thread = std::thread::Builder::new().name("sniper".to_owned()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if commits.look()? >= nth {
                    process::signal(&[pid], Signal::KILL).map_err(io::Error::other)?;
                    return Ok(true);
                }
                std::thread::sleep(LOOK);
            }
            Ok(false)
        })?;
        Ok(Sniper { called_off, thread })
    }

    /// Whether the shot was fired.
    #[must_use]
    pub fn fired(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits no longer; says whether the process was killed.
    ///
    /// # Errors
    /// When the log could not be read, or the signal was refused.
    pub fn call_off(self) -> io::Result<bool> {
        self.called_off.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the thread panicked"))?
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn frames_that_commit_are_counted_also_when_the_log_begins_again() {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create_new(folder.path().join("journal-wal")).unwrap();
        let header = |salt: u8| {
            let mut header = [0; 32];
            header[8..12].copy_from_slice(&512u32.to_be_bytes());
            header[16..24].copy_from_slice(&[salt; 8]);
            log.write_all_at(&header, 0).unwrap();
        };
        let frame = |place: u64, salt: u8, commit: u32| {
            let mut frame = [0; 24 + 512];
            frame[4..8].copy_from_slice(&commit.to_be_bytes());
            frame[8..16].copy_from_slice(&[salt; 8]);
            log.write_all_at(&frame, 32 + place * (24 + 512)).unwrap();
        };
        header(1);
        frame(0, 1, 3);
        let mut commits = Commits::from_now(&folder.path().join("journal")).unwrap();
        assert_eq!(commits.look().unwrap(), 0, "what was there before does not count");
        frame(1, 1, 0);
        frame(2, 1, 5);
        assert_eq!(commits.look().unwrap(), 1);
        header(2);
        frame(0, 2, 5);
        assert_eq!(
            (commits.look().unwrap(), commits.look().unwrap()),
            (2, 2),
            "frames of before are not read again"
        );
    }
}
