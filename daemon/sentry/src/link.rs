//! The keeper's side of the switch: finds it, starts it, replaces one that hangs or is not ours.
//!
//! **Invariant:** a switch counts only when it has answered this very word.
//! **Invariant:** a new switch is started only when the old one has given up its lock, or has been ended.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::boottime::Boottime;
use crate::process::Process;
use crate::switch::{lock, socket};
use crate::wire::{Answer, Footing, LONGEST_LINE, Say, Word};

/// The part of a lease that a switch may take to answer one word, within these bounds; it looks 100 times a second.
const ANSWER_PART: u32 = 6;
const ANSWER_BOUNDS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// How long a switch that was started is waited for.
const START: Duration = Duration::from_secs(2);

/// Between two tries to reach one that was started.
const PAUSE: Duration = Duration::from_millis(10);

/// The way to the switch.
pub(crate) struct Link {
    state: PathBuf,
    /// How one is started.
    argv: Vec<OsString>,
    /// What ours says it is.
    mark: String,
    stream: Option<BufReader<UnixStream>>,
    /// The process that answered last.
    known: Option<Process>,
    child: Option<Child>,
    number: u64,
    /// How long an answer is waited for.
    limit: Duration,
    /// What a switch that was found here knew; kept when it could not be replaced at once.
    standing: Option<(Boottime, Footing)>,
}

/// A switch that answered, and how it came to.
pub(crate) struct Reached {
    /// What it said.
    pub(crate) answer: Answer,
    /// Whether it is a new one, started now: it knows nothing of the lease yet.
    pub(crate) fresh: bool,
}

impl Link {
    pub(crate) fn new(state: PathBuf, argv: Vec<OsString>, mark: String, length: Duration) -> Self {
        let (least, most) = ANSWER_BOUNDS;
        let limit = (length / ANSWER_PART).clamp(least, most);
        Self { state, argv, mark, stream: None, known: None, child: None, number: 0, limit, standing: None }
    }

    /// Says one word to the switch that is there, and has its answer.
    pub(crate) async fn say(&mut self, say: Say) -> Result<Answer, String> {
        let limit = self.limit;
        let asking = tokio::time::timeout(limit, self.exchange(say));
        match asking.await.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis()))) {
            Ok(answer) => Ok(answer),
            Err(why) => {
                self.stream = None;
                Err(why)
            }
        }
    }

    /// A switch that answers: the one that is there, or a new one in its place.
    pub(crate) async fn ensure(&mut self) -> Result<Reached, String> {
        let why = match self.say(Say::Ping).await {
            Ok(answer) if answer.mark == self.mark => {
                self.standing = answer.deadline.zip(answer.footing.clone());
                return Ok(Reached { answer, fresh: false });
            }
            Ok(answer) => {
                self.standing = answer.deadline.zip(answer.footing);
                // Left over from before an upgrade, or from other settings: it goes when it is told to.
                let _ = self.say(Say::Leave).await;
                format!("it is another one ({})", answer.mark)
            }
            Err(why) => why,
        };
        self.replace(&why).await?;
        let answer = self.say(Say::Ping).await.map_err(|why| format!("the new switch: {why}"))?;
        Ok(Reached { answer, fresh: true })
    }

    /// Until when the lease is good, and by what, as the switch had it that was found last: by the word of this keeper or of
    /// one before.
    pub(crate) const fn standing(&self) -> Option<&(Boottime, Footing)> {
        self.standing.as_ref()
    }

    /// The process of the switch, as far as it is known.
    pub(crate) fn process(&self) -> Option<u32> {
        self.known.and_then(|process| u32::try_from(process.id).ok())
    }

    async fn replace(&mut self, why: &str) -> Result<(), String> {
        self.stream = None;
        if let Some(old) = self.known.take().filter(Process::lives) {
            tracing::warn!(
                process = old.id,
                why,
                "the switch does not answer: it is ended, and a new one started"
            );
            old.signal(Signal::KILL);
        } else {
            tracing::info!(why, "a switch is started");
        }
        if let Some(mut child) = self.child.take() {
            // Ours: without this it would stay as a zombie.
            let _ = child.kill();
            let _ = child.wait();
        }
        let argv = self.argv.clone();
        let (program, arguments) = argv.split_first().ok_or("no program for the switch")?;
        let starting = async {
            // One that we do not know by its process may be on its way out.
            while !free(&self.state)? {
                tokio::time::sleep(PAUSE).await;
            }
            let child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                // Nobody may be left to read it: it has its own log.
                .stderr(Stdio::null())
                // Where what it writes is: so whoever looks for what runs in a folder finds it.
                .current_dir(&self.state)
                // What ends the keeper's group must not end it.
                .process_group(0)
                .spawn()
                .map_err(|error| format!("the switch cannot be started: {error}"))?;
            self.child = Some(child);
            while self.connect().await.is_err() {
                let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
                if let Some(status) = ended {
                    return Err(format!("the switch ended at once ({status})"));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        };
        let late = |_| Err(format!("no new switch within {} s", START.as_secs()));
        tokio::time::timeout(START, starting).await.unwrap_or_else(late)
    }

    async fn connect(&mut self) -> Result<(), String> {
        let stream = UnixStream::connect(socket(&self.state)).await.map_err(|error| error.to_string())?;
        // A switch that hangs takes connections all the same: whose they are is known before it answers.
        let peer = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(Process::of);
        self.known = peer;
        self.stream = Some(BufReader::new(stream));
        Ok(())
    }

    async fn exchange(&mut self, say: Say) -> Result<Answer, String> {
        if self.stream.is_none() {
            self.connect().await?;
        }
        let stream = self.stream.as_mut().ok_or("not connected")?;
        self.number += 1;
        let mut line = serde_json::to_vec(&Word { number: self.number, say }).map_err(|e| e.to_string())?;
        line.push(b'\n');
        stream.get_mut().write_all(&line).await.map_err(|error| error.to_string())?;
        loop {
            let mut answer = Vec::new();
            loop {
                let read = stream.fill_buf().await.map_err(|error| error.to_string())?;
                if read.is_empty() {
                    return Err("it hung up".to_owned());
                }
                let end = read.iter().position(|byte| *byte == b'\n');
                let length = end.map_or(read.len(), |end| end + 1);
                answer.extend_from_slice(&read[..length]);
                stream.consume(length);
                if end.is_some() {
                    break;
                }
                if answer.len() > LONGEST_LINE * 4 {
                    return Err("it says more than a switch can say".to_owned());
                }
            }
            let answer: Answer = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
            if answer.number == self.number {
                return Ok(answer);
            }
        }
    }
}

/// Whether no switch holds the lock; looked up without keeping it.
fn free(state: &std::path::Path) -> Result<bool, String> {
    lock(state, "switch.lock").map(|lock| lock.is_some()).map_err(|error| error.to_string())
}
