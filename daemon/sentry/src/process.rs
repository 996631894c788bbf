//! Processes of this machine, told apart for good: a process id is given away again, an id with its start time is not.
//!
//! **Invariant:** a signal goes only to the process that was looked at, never to one that has its id since.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A file or folder, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    /// Of what `path` leads to.
    pub(crate) fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), number: metadata.ino() })
    }
}

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) id: i32,
    /// When it began, in clock ticks since the machine was started.
    pub(crate) started: u64,
    /// Who started it, or has adopted it.
    pub(crate) parent: i32,
    /// Whether it ignores SIGQUIT, as the process does that writes PostgreSQL's log until all others are gone.
    pub(crate) ignores_quit: bool,
}

/// What `/proc/ID/stat` says (Linux manual, `proc_pid_stat(5)`).
struct Stat {
    process: Process,
    name: String,
    ended: bool,
}

impl Process {
    /// The process of that id, if it lives.
    pub(crate) fn of(id: i32) -> Option<Self> {
        stat(id).filter(|stat| !stat.ended).map(|stat| stat.process)
    }

    /// Whether it still lives.
    pub(crate) fn lives(&self) -> bool {
        Self::of(self.id).is_some_and(|now| now.started == self.started)
    }

    /// Sends it a signal; whether it was there to take it.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let Some(id) = Pid::from_raw(self.id).filter(|_| self.id > 1) else { return false };
        match pidfd_open(id, PidfdFlags::empty()) {
            // The handle is held to one process; that it is ours is looked up after it was taken.
            Ok(handle) => self.lives() && pidfd_send_signal(handle, signal).is_ok(),
            // A kernel before 5.3: between the look and the signal there are microseconds.
            Err(Errno::NOSYS) => self.lives() && rustix::process::kill_process(id, signal).is_ok(),
            Err(_) => false,
        }
    }
}

/// The PostgreSQL process of that id that works in `folder`, if it is one.
pub(crate) fn postgres_in(id: i32, folder: Inode) -> Option<Process> {
    let stat = stat(id).filter(|stat| !stat.ended)?;
    // Every process of a server has its data folder as working directory, and keeps it for life.
    let server = stat.name.contains("postgres") || stat.name == "postmaster";
    (server && Inode::of(Path::new(&format!("/proc/{id}/cwd"))).ok()? == folder).then_some(stat.process)
}

/// All PostgreSQL processes that work in `folder`.
pub(crate) fn all_postgres_in(folder: Inode) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id| postgres_in(id, folder)).collect()
}

fn stat(id: i32) -> Option<Stat> {
    parse(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

fn parse(id: i32, text: &str) -> Option<Stat> {
    // The name is in parentheses and may hold anything, parentheses too.
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ignored = number(30)?;
    let quit = 1 << (Signal::QUIT.as_raw() - 1);
    let process = Process {
        id,
        started: number(19)?,
        parent: fields.get(1)?.parse().ok()?,
        ignores_quit: ignored & quit != 0,
    };
    Some(Stat { process, name, ended: matches!(*fields.first()?, "Z" | "X") })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 1313086 0 0 0 0 0 0 0 0 0 0 4 0 0 0";
        let stat = parse(42, text).unwrap();
        assert_eq!(stat.name, "a) b (c");
        assert_eq!((stat.process.parent, stat.process.started), (7, 1_313_086));
        assert!(stat.process.ignores_quit);
        assert!(parse(42, "42 (x) S 7").is_none());
    }

    #[test]
    fn a_process_that_has_the_id_since_is_not_signalled() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        let real = Process::of(id).unwrap();
        let recycled = Process { started: real.started - 1, ..real };
        assert!(!recycled.lives() && !recycled.signal(Signal::KILL));
        assert!(child.try_wait().unwrap().is_none(), "it must live on");
        assert!(real.signal(Signal::KILL));
        child.wait().unwrap();
        assert!(!real.lives() && !real.signal(Signal::KILL));
    }

    #[test]
    fn only_a_server_that_works_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let inode = Inode::of(folder.path()).unwrap();
        // What is in the data folder is not yet a server: a shell of the operator's, say.
        let mut shell = Command::new("sleep").arg("600").current_dir(folder.path()).spawn().unwrap();
        assert!(all_postgres_in(inode).is_empty());
        let id = i32::try_from(shell.id()).unwrap();
        assert!(postgres_in(id, inode).is_none());
        shell.kill().unwrap();
        shell.wait().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let program = elsewhere.path().join("postgres");
        fs::copy("/bin/sleep", &program).unwrap();
        let mut server = Command::new(&program).arg("600").current_dir(folder.path()).spawn().unwrap();
        let found = all_postgres_in(inode);
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(found.iter().map(|p| p.id).collect::<Vec<_>>(), [i32::try_from(server.id()).unwrap()]);
        assert!(all_postgres_in(Inode::of(elsewhere.path()).unwrap()).is_empty());
    }
}
