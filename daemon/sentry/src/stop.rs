//! Stopping the server for good: its sessions first, then all of it.
//!
//! The postmaster is told to shut down at once (SIGQUIT, PostgreSQL's manual, "Shutting Down the Server"), so that it
//! lets nobody in any more and starts nothing anew. Its children, which answer clients, are not left to hear it from the
//! postmaster: they are ended in the same instant (SIGKILL). What is there after a second is ended by SIGKILL.
//!
//! Of four ways, on PostgreSQL 15 with eight clients and a busy machine, five times each, the most writes acknowledged after
//! the first signal, and when the last one was: this way 8 (22 ms); children first 110 (95 ms), because the postmaster
//! lets others in meanwhile; the postmaster alone 152 (68 ms); SIGQUIT to all 36 (10 ms).
//!
//! **Invariant:** stopped means: no process of the server is left. It is looked up, not believed.
//! **Invariant:** one pass never waits: whoever stops has a deadline to keep.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::boottime::Boottime;
use crate::process::{Process, all_postgres_in};
use crate::server::Seen;

/// How long the postmaster is given to end by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// A command of the operator's that stops the server, under a supervisor that would start it again.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// How long it is given before the server is stopped by signals all the same.
    pub(crate) limit: Duration,
}

/// What came of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// So many processes are left.
    Left(usize),
    /// None is left; it took so long.
    Gone(Duration),
}

/// A stop under way.
#[derive(Debug)]
pub(crate) struct Stop {
    begun: Boottime,
    order: Option<(Child, Duration)>,
    told: bool,
    /// What the operator's command came to grief over.
    pub(crate) trouble: Option<String>,
}

impl Stop {
    /// Begins one, by the operator's command if there is one.
    pub(crate) fn begin(order: Option<&Order>, now: Boottime) -> Self {
        let mut stop = Self { begun: now, order: None, told: false, trouble: None };
        if let Some(order) = order {
            match start(order) {
                Ok(child) => stop.order = Some((child, order.limit)),
                Err(error) => stop.trouble = Some(format!("{:?} cannot be started: {error}", order.argv)),
            }
        }
        stop
    }

    /// Goes over all processes once.
    pub(crate) fn pass(&mut self, seen: &Seen, now: Boottime) -> Pass {
        let long = now.since(self.begun);
        let waits = self.waits_for_order(long);
        if !waits && !self.told {
            // Before anybody is looked for: from here on nobody is let in.
            self.told = true;
            if let Some(postmaster) = &seen.postmaster {
                postmaster.signal(Signal::QUIT);
            }
        }
        let left = processes(seen);
        if left.is_empty() {
            return Pass::Gone(long);
        }
        if !waits {
            for process in &left {
                let first = seen.postmaster.is_some_and(|postmaster| postmaster.id == process.id);
                // The one that writes the server's log ends when all others have; what it has to say is the server's last word.
                if long >= PATIENCE || !(first || process.ignores_quit) {
                    process.signal(Signal::KILL);
                }
            }
        }
        Pass::Left(left.len())
    }

    /// Whether the operator's command is still given time.
    fn waits_for_order(&mut self, long: Duration) -> bool {
        let Some((child, limit)) = &mut self.order else { return false };
        let ended = match child.try_wait() {
            Ok(None) if long < *limit => return true,
            Ok(None) => format!("did not end within {} ms", limit.as_millis()),
            Ok(Some(status)) if status.success() => "said done, and the server was there".to_owned(),
            Ok(Some(status)) => format!("failed ({status})"),
            Err(error) => format!("was not seen to end: {error}"),
        };
        self.trouble = Some(format!("the stop command {ended}"));
        lifeboat_engine::program::kill_group(Some(child.id()));
        if let Some((mut child, _)) = self.order.take() {
            // Killed or ended: this waits for a moment at most, in a thread of its own.
            let _ = std::thread::Builder::new().name("stop-command".to_owned()).spawn(move || child.wait());
        }
        false
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.order.take() {
            // It may end in its own time; without a thread it would stay as a zombie, with one nobody waits.
            let _ = std::thread::Builder::new().name("stop-command".to_owned()).spawn(move || child.wait());
        }
    }
}

fn processes(seen: &Seen) -> Vec<Process> {
    let mut left = seen.folder.map(all_postgres_in).unwrap_or_default();
    left.retain(|process| Some(process.id) != seen.alone);
    // Its folder may have been moved from under it.
    if let Some(postmaster) = seen.postmaster.filter(Process::lives)
        && !left.iter().any(|process| process.id == postmaster.id)
    {
        left.push(postmaster);
    }
    left
}

fn start(order: &Order) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let (program, arguments) =
        order.argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program"))?;
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", lifeboat_engine::program::PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}
