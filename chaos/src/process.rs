//! The processes of the lab: started so that they cannot outlive it, found and ended by process id.
//!
//! A process belongs to a folder when its working directory is inside it. PostgreSQL's children change into
//! the data folder like the postmaster does, so even those which were adopted by init are found, and a
//! process id that was used again by a stranger never is.
//!
//! **Invariant:** only processes inside the lab's own folder are ever signalled.
//! **Invariant:** every long-lived child dies with the lab, also when the lab itself is killed with -9: it is
//! started by one thread that lives as long as the lab, with that thread's death as its signal to die
//! (`setpriv --pdeathsig`, prctl(2) `PR_SET_PDEATHSIG`).

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// How long killed processes may take to be gone. Freeing memory takes milliseconds; a process in an
/// uninterruptible disk wait takes as long as the disk.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// A process could not be started, found or ended.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The processes of the machine could not be listed.
    #[error("cannot read the process list in /proc")]
    List(#[source] io::Error),
    /// A signal was refused.
    #[error("cannot send a signal to process {pid}")]
    Signal {
        /// The process.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Killed processes are still there, or stopped ones still run.
    #[error("processes {pids:?} are still there {} s after the signal", GONE_WITHIN.as_secs())]
    Survivors {
        /// Those left.
        pids: Vec<i32>,
    },
    /// A program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Its path.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The processes whose working directory is `folder` or inside it. Those that have ended but were not waited
/// for (zombies) have no working directory any more and are not counted.
///
/// # Errors
/// When `/proc` cannot be read. Processes of other users are silently not seen unless the caller is root.
pub fn within(folder: &Path) -> Result<Vec<i32>, ProcessError> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(ProcessError::List)? {
        let entry = entry.map_err(ProcessError::List)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process may end between the listing and this look; then it is not within any folder.
        if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// Sends one signal to each process; those already gone count as done.
///
/// # Errors
/// When the signal is not permitted.
pub fn signal(pids: &[i32], signal: Signal) -> Result<(), ProcessError> {
    for &pid in pids {
        let Some(target) = Pid::from_raw(pid) else { continue };
        match kill_process(target, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(ProcessError::Signal { pid, source: errno.into() }),
        }
    }
    Ok(())
}

/// Stops (SIGSTOP) every process within `folder`, those too that are started meanwhile; returns which once none of them
/// runs any more.
///
/// # Errors
/// When a signal is refused, or some still run after 20 s.
pub fn freeze_within(folder: &Path) -> Result<Vec<i32>, ProcessError> {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let pids = within(folder)?;
        // A signal is obeyed when the kernel next looks, which takes as long as a flush to disk.
        let running: Vec<i32> = pids.iter().copied().filter(|pid| !is_in(*pid, &['T', 'Z', 'X'])).collect();
        if running.is_empty() {
            return Ok(pids);
        }
        if Instant::now() > deadline {
            return Err(ProcessError::Survivors { pids: running });
        }
        signal(&running, Signal::STOP)?;
    }
}

/// Kills (kill -9) every process within `folder` and returns once none is left; says which were killed.
/// Repeating it finds nothing and succeeds.
///
/// # Errors
/// [`ProcessError::Survivors`] when some are still there after 20 s.
pub fn kill_within(folder: &Path) -> Result<Vec<i32>, ProcessError> {
    let deadline = Instant::now() + GONE_WITHIN;
    let mut killed = Vec::new();
    loop {
        let pids = within(folder)?;
        if pids.is_empty() {
            return Ok(killed);
        }
        if Instant::now() > deadline {
            return Err(ProcessError::Survivors { pids });
        }
        signal(&pids, Signal::KILL)?;
        killed.extend(pids.into_iter().filter(|pid| !killed.contains(pid)).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process still runs; a zombie does not.
#[must_use]
pub fn alive(pid: i32) -> bool {
    !is_in(pid, &['Z', 'X'])
}

/// Whether a process is in one of these states (proc(5)), or is gone.
fn is_in(pid: i32, states: &[char]) -> bool {
    // The state follows the command in brackets; the command itself may hold any character.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with(states)))
        .unwrap_or(true)
}

/// Who a program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user who runs the lab.
    Same,
    /// Another user: ids of user and group. Only root can do this.
    Other {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl Owner {
    /// Who PostgreSQL runs as: it refuses to run as root, so then it is the `postgres` user of Debian's package.
    ///
    /// # Errors
    /// When the lab runs as root and there is no such user.
    pub fn of_postgres() -> io::Result<Owner> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Owner::Same);
        }
        let users = std::fs::read_to_string("/etc/passwd")?;
        let user = users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&"postgres"))
                .then(|| {
                    Some(Owner::Other {
                        uid: fields.get(2)?.parse().ok()?,
                        gid: fields.get(3)?.parse().ok()?,
                    })
                })
                .flatten()
        });
        user.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no user postgres"))
    }

    /// Gives a file or folder to this owner.
    ///
    /// # Errors
    /// As chown(2).
    pub fn take(self, path: &Path) -> io::Result<()> {
        match self {
            Owner::Same => Ok(()),
            Owner::Other { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        }
    }
}

/// A command that runs `program` as `owner`, dies with the thread that starts it, and has its own process
/// group, so that Ctrl-C on the terminal reaches the lab only.
#[must_use]
pub fn tethered(program: &Path, owner: Owner) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Owner::Other { uid, gid } = owner {
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
    }
    command.arg("--").arg(program).process_group(0).stdin(std::process::Stdio::null());
    command
}

struct Order {
    command: Command,
    answer: SyncSender<io::Result<i32>>,
}

/// Starts and reaps the long-lived children of a lab.
#[derive(Debug)]
pub struct Nursery {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Nursery {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn open() -> io::Result<Nursery> {
        // One order at a time: whoever starts a process waits for it.
        let (orders, inbox) = sync_channel(1);
        let thread =
            std::thread::Builder::new().name("lab nursery".to_owned()).spawn(move || tend(&inbox))?;
        Ok(Nursery { orders: Some(orders), thread: Some(thread) })
    }

    /// Starts a command made by [`tethered`] and returns its process id.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub fn start(&self, command: Command) -> Result<i32, ProcessError> {
        let program = format!("{command:?}");
        let (answer, reply) = sync_channel(1);
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the lab is being taken down");
        let result = match &self.orders {
            Some(orders) if orders.send(Order { command, answer }).is_ok() => {
                reply.recv().unwrap_or_else(|_| Err(gone()))
            }
            _ => Err(gone()),
        };
        result.map_err(|source| ProcessError::Start { program, source })
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was already printed; its children died with it.
            let _ = thread.join();
        }
    }
}

fn tend(inbox: &Receiver<Order>) {
    let mut children: Vec<Child> = Vec::new();
    loop {
        match inbox.recv_timeout(Duration::from_millis(100)) {
            Ok(Order { mut command, answer }) => {
                let started = command.spawn().map(|child| {
                    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
                    children.push(child);
                    pid
                });
                // Whoever ordered it may have been cancelled; the child is tended all the same.
                let _ = answer.send(started);
            }
            Err(RecvTimeoutError::Timeout) => {
                children.retain_mut(|child| matches!(child.try_wait(), Ok(None)))
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for child in &mut children {
        // An error means that it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Command {
        let mut command = tethered(Path::new("sleep"), Owner::Same);
        command.arg("600").current_dir(folder);
        command
    }

    #[test]
    fn processes_are_found_by_their_folder_and_killed() {
        let lab = tempfile::tempdir().unwrap();
        let (here, there) = (lab.path().join("here"), lab.path().join("there"));
        std::fs::create_dir(&here).unwrap();
        std::fs::create_dir(&there).unwrap();
        let nursery = Nursery::open().unwrap();
        let doomed = nursery.start(sleeper(&here)).unwrap();
        let bystander = nursery.start(sleeper(&there)).unwrap();
        assert_eq!(within(&here).unwrap(), vec![doomed]);
        assert_eq!(kill_within(&here).unwrap(), vec![doomed]);
        assert!(!alive(doomed));
        assert!(alive(bystander));
        assert_eq!(kill_within(&here).unwrap(), Vec::<i32>::new());
        drop(nursery);
        assert!(!alive(bystander));
    }

    #[test]
    fn a_frozen_process_is_killed_too() {
        let lab = tempfile::tempdir().unwrap();
        let nursery = Nursery::open().unwrap();
        let pid = nursery.start(sleeper(lab.path())).unwrap();
        signal(&[pid], Signal::STOP).unwrap();
        assert_eq!(kill_within(lab.path()).unwrap(), vec![pid]);
        assert!(!alive(pid));
    }
}
