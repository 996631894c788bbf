//! The switch: a process so small that it has little to go wrong, which stops the database when its time is over.
//!
//! It knows one deadline. The keeper moves it; when nobody does, it acts. It outlives the keeper: a new keeper finds it by
//! its socket. It writes nothing and waits for nothing before it has acted: a log that nobody reads, or a disk that hangs,
//! must not keep it.
//!
//! It goes when its keeper sends it away, or when there has been neither a keeper nor a data folder for a minute.
//!
//! **Invariant:** one switch for a state folder: the second one finds the lock taken and goes.
//! **Invariant:** each turn looks at the clock before it reads anything from anybody.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::boottime::Boottime;
use crate::guard::{Deed, Guard, TURN};
use crate::settings::Settings;
use crate::trouble::Trouble;
use crate::wire::{Answer, Footing, LONGEST_LINE, Say, Word, mark};

/// Deeds that are kept for a keeper who is not there.
const MOST_DEEDS: usize = 32;

/// How long there must have been neither a keeper nor a data folder before the switch goes: nobody needs it any more. Long
/// enough for a folder that is moved, or a disk that is mounted again; a keeper that comes later starts another switch.
const FORSAKEN: Duration = Duration::from_secs(60);

/// Where the switch of a state folder listens.
pub(crate) fn socket(state: &Path) -> PathBuf {
    state.join("switch.sock")
}

/// Takes the lock of that name, for as long as the file is open; none when somebody has it.
pub(crate) fn lock(state: &Path, name: &str) -> io::Result<Option<File>> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(state.join(name))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Runs the switch until its keeper sends it away, or nothing is left that it could be for.
///
/// # Errors
/// It could not take up its post. Once it has, it does not give it up.
pub fn run(settings: &Settings) -> Result<(), Trouble> {
    let lock = lock(&settings.state, "switch.lock").map_err(|e| Trouble::at(&settings.state, e))?;
    let Some(_lock) = lock else { return Err(Trouble::Taken(settings.state.clone())) };
    let path = socket(&settings.state);
    // Left by one that was killed; the lock says that it is gone.
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(|e| Trouble::at(&path, e))?;
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&path, private).map_err(|e| Trouble::at(&path, e))?;
    listener.set_nonblocking(true).map_err(|e| Trouble::at(&path, e))?;
    let guard = Guard::start(&settings.orders()).map_err(|e| Trouble::at(&settings.data, e))?;
    let log = fs::OpenOptions::new().create(true).append(true).open(settings.state.join("switch.log")).ok();
    let mark = mark(&settings.data, &settings.stop);
    let (keeper, footing, forsaken) = (None, None, Forsaken::default());
    Switch { guard, listener, keeper, footing, forsaken, deeds: Vec::new(), mark, log }.stand();
    Ok(())
}

struct Switch {
    guard: Guard,
    listener: UnixListener,
    keeper: Option<Keeper>,
    footing: Option<Footing>,
    forsaken: Forsaken,
    deeds: Vec<Deed>,
    mark: String,
    log: Option<File>,
}

/// The one who speaks; the newest one who came.
struct Keeper {
    stream: UnixStream,
    read: Vec<u8>,
}

/// Since when there has been neither a keeper nor a data folder.
#[derive(Debug, Default)]
struct Forsaken(Option<Boottime>);

impl Forsaken {
    /// Whether that has been so for long enough to go.
    fn turn(&mut self, nothing: bool, now: Boottime) -> bool {
        if !nothing {
            self.0 = None;
            return false;
        }
        now.since(*self.0.get_or_insert(now)) >= FORSAKEN
    }
}

impl Switch {
    fn stand(mut self) {
        loop {
            let deeds = self.guard.turn();
            for deed in deeds {
                self.write_down(&deed);
                if self.deeds.len() < MOST_DEEDS {
                    self.deeds.push(deed);
                }
            }
            if let Ok((stream, _)) = self.listener.accept()
                && stream.set_nonblocking(true).is_ok()
            {
                self.keeper = Some(Keeper { stream, read: Vec::new() });
            }
            if !self.listen() {
                return;
            }
            let nothing = self.keeper.is_none() && self.guard.seen().is_nowhere();
            if self.forsaken.turn(nothing, Boottime::now()) {
                return;
            }
            thread::sleep(TURN);
        }
    }

    /// Takes in what the keeper has said; false when it sends the switch away.
    fn listen(&mut self) -> bool {
        let Some(mut keeper) = self.keeper.take() else { return true };
        let mut chunk = [0; 1024];
        loop {
            match keeper.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(length) => keeper.read.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return true,
            }
            if keeper.read.len() > LONGEST_LINE {
                return true;
            }
        }
        while let Some(end) = keeper.read.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = keeper.read.drain(..=end).collect();
            let Ok(word) = serde_json::from_slice::<Word>(&line) else { return true };
            let stays = !matches!(word.say, Say::Leave);
            self.take_in(word.say);
            let answer = self.answer(word.number);
            // One that does not read its answers has gone, or hangs: it is hung up on, never waited for.
            if keeper.stream.write_all(&answer).is_err() || !stays {
                return stays;
            }
        }
        self.keeper = Some(keeper);
        true
    }

    fn take_in(&mut self, say: Say) {
        match say {
            Say::Ping | Say::Leave => {}
            Say::Until { deadline, sent, footing } => {
                // Whether it was taken in is told by the deadline in the answer.
                if self.guard.post().until(deadline, sent, Boottime::now()) {
                    self.footing = Some(footing);
                }
            }
            Say::Stop { why } => self.guard.post().order(why),
        }
    }

    fn answer(&mut self, number: u64) -> Vec<u8> {
        let role = self.guard.seen().role;
        let post = self.guard.post();
        let answer = Answer {
            number,
            mark: self.mark.clone(),
            process: std::process::id(),
            deadline: post.deadline(),
            footing: self.footing.clone(),
            doubts: post.doubts(),
            role,
            deeds: std::mem::take(&mut self.deeds),
        };
        let mut line = serde_json::to_vec(&answer).unwrap_or_default();
        line.push(b'\n');
        line
    }

    fn write_down(&mut self, deed: &Deed) {
        if let Some(log) = &mut self.log
            && let Ok(mut line) = serde_json::to_string(deed)
        {
            line.push('\n');
            // The keeper is told as well; a full disk is no reason to leave the post.
            let _ = log.write_all(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_without_keeper_and_data_folder_goes_after_a_while_and_not_before() {
        let at =
            |millis: u128| Boottime::default().plus(Duration::from_millis(u64::try_from(millis).unwrap()));
        let while_ = FORSAKEN.as_millis();
        let mut forsaken = Forsaken::default();
        assert!(!forsaken.turn(true, at(5)));
        assert!(!forsaken.turn(true, at(while_)));
        assert!(!forsaken.turn(false, at(while_ + 4)), "the folder is there again");
        assert!(!forsaken.turn(true, at(while_ + 5)));
        assert!(!forsaken.turn(true, at(2 * while_ + 4)));
        assert!(forsaken.turn(true, at(2 * while_ + 5)));
    }
}
