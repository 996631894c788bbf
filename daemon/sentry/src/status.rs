//! What a sentry shows: `status.json` in its state folder, and the newest epoch it has held a lease under.
//!
//! **Invariant:** whoever keeps the lease never waits for a disk: the files are written by a thread of its own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use lifeboat_core::head::Guarded;
use lifeboat_core::{Epoch, RegionName, WorkloadName};
use serde::{Deserialize, Serialize};

use crate::guard::Deed;

/// Words that wait to be written: the newest one counts, and the next one comes soon.
const WAITING: usize = 4;

/// What the keeper stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Basis {
    /// The coordinator.
    Lease {
        /// Under this epoch.
        epoch: Epoch,
    },
    /// The word of all agents, while the coordinator is lost.
    Failsafe {
        /// Under the epoch of the lease.
        epoch: Epoch,
    },
    /// The head names this region as the one that comes: a fresh primary without a lease is as it should be.
    Coming,
    /// The head names this region as one that a run has closed over sessions: what becomes of its server is the run's business.
    Tended,
    /// No record of the workload was ever seen.
    NoRecord,
}

/// What is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The workload.
    pub workload: WorkloadName,
    /// The region.
    pub region: RegionName,
    /// What the database does.
    pub database: Guarded,
    /// What its writes stand on; none when they stand on nothing.
    pub basis: Option<Basis>,
    /// How long that is good, in milliseconds.
    pub left_ms: Option<u64>,
    /// What came of the last turn.
    pub condition: String,
    /// The process of the keeper.
    pub keeper: u32,
    /// The process of the switch.
    pub switch: Option<u32>,
    /// What was done last, newest last.
    pub deeds: Vec<Done>,
}

/// A deed, and whose.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// "switch" or "keeper".
    pub by: &'static str,
    /// What.
    #[serde(flatten)]
    pub deed: Deed,
}

enum Word {
    Status(Box<Status>),
    Epoch(Epoch),
}

/// Who writes it down.
pub(crate) struct Scribe {
    words: SyncSender<Word>,
}

impl Scribe {
    pub(crate) fn start(state: PathBuf) -> io::Result<Self> {
        let (words, heard) = sync_channel(WAITING);
        thread::Builder::new().name("scribe".to_owned()).spawn(move || {
            for word in heard {
                let written = match word {
                    Word::Status(status) => serde_json::to_vec_pretty(&status)
                        .map_err(io::Error::from)
                        .and_then(|text| replace(&state, "status.json", &text, false)),
                    Word::Epoch(epoch) => replace(&state, "epoch", epoch.to_string().as_bytes(), true),
                };
                if let Err(error) = written {
                    tracing::warn!(%error, state = %state.display(), "the state folder cannot be written to");
                }
            }
        })?;
        Ok(Self { words })
    }

    pub(crate) fn show(&self, status: Status) {
        self.say(Word::Status(Box::new(status)));
    }

    pub(crate) fn remember(&self, epoch: Epoch) {
        self.say(Word::Epoch(epoch));
    }

    fn say(&self, word: Word) {
        match self.words.try_send(word) {
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => {
                tracing::error!("the thread that writes the status has ended")
            }
        }
    }
}

/// The newest epoch that a lease was held under; none when none ever was.
pub(crate) fn remembered(state: &Path) -> Option<Epoch> {
    fs::read_to_string(state.join("epoch")).ok()?.trim().parse().ok().map(Epoch::new)
}

fn replace(state: &Path, name: &str, text: &[u8], durably: bool) -> io::Result<()> {
    let beside = state.join(format!(".{name}"));
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    if durably {
        file.sync_all()?;
    }
    fs::rename(beside, state.join(name))
}
