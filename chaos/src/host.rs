//! The host of a region's database: what systemd and sshd of that machine would be.
//!
//! `chaos host serve` is one process per region. It starts and stops the region's PostgreSQL on request (over a
//! socket in the region's folder, for `chaos host start` and `stop`) and runs programs for `chaos host exec`,
//! the lab's ssh, which reaches it over the agent's path to the region and so has that path's faults.
//!
//! **Invariant:** the host's working directory is the region's folder: it is lost, frozen and powered off with it.
//! **Invariant:** what the host started dies with the host. It is never tethered to whoever asked for it: an agent
//! that is killed leaves the program it had started running, as ssh does.
//! **Invariant:** a program is run only for those who can read the lab's secret ([`Directory`]).

mod exec;
mod remote;
mod supervisor;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

pub use exec::{NO_CONNECTION, run as exec};
pub use supervisor::serve;

use crate::postgres::PostgresError;
use crate::power;
use crate::process::ProcessError;
use crate::region::{Region, Site};

/// How long an order may take before whoever gave it stops waiting: longer than the supervisor's own limits,
/// so that its reason arrives.
const ORDER_LIMIT: Duration = Duration::from_secs(90);
/// The longest line either side sends; a refusal carries the last lines of PostgreSQL's log.
const LINE_LIMIT: u64 = 256 * 1024;

/// A host could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The region is off.
    #[error("refused: {region} is powered off (epoch {epoch})")]
    PoweredOff {
        /// Which.
        region: Region,
        /// Under which epoch.
        epoch: u64,
    },
    /// Nothing answers at its socket.
    #[error("the host of {region} is not up")]
    NotUp {
        /// Which.
        region: Region,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not answer in time, or hung up.
    #[error("the host of {region} gave no answer to {order:?}: it may have been carried out")]
    Silent {
        /// Which.
        region: Region,
        /// What it was asked.
        order: Order,
    },
    /// It tried and failed.
    #[error("the host of {region}: {reason}")]
    Failed {
        /// Which.
        region: Region,
        /// In its words.
        reason: String,
    },
    /// A folder, a file or an address could not be had.
    #[error("cannot {act}")]
    Io {
        /// What was attempted.
        act: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// PostgreSQL is not on this machine.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A process could not be started or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

fn io(act: impl Into<String>) -> impl FnOnce(io::Error) -> HostError {
    let act = act.into();
    move |source| HostError::Io { act, source }
}

/// What a host is asked over the socket in its region's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Start PostgreSQL and answer once it takes connections; one that runs is left as it is.
    Start,
    /// Stop PostgreSQL fast and answer once it is gone; one that does not run is no error.
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// Done; the id of the server's process while it runs.
    Done(Option<i32>),
    Failed(String),
}

fn socket(lab: &Path, region: Region) -> PathBuf {
    region.folder(lab).join("host.sock")
}

/// Gives an order to a region's host and returns when it is carried out: the id of PostgreSQL's process after
/// [`Order::Start`], none after [`Order::Stop`]. Can be repeated.
///
/// # Errors
/// [`HostError::PoweredOff`] and [`HostError::NotUp`] with nothing touched; [`HostError::Failed`] with its reason.
pub async fn order(lab: &Path, region: Region, order: Order) -> Result<Option<i32>, HostError> {
    if let Some(off) = power::state(lab, region) {
        return Err(HostError::PoweredOff { region, epoch: off.epoch });
    }
    let up = UnixStream::connect(socket(lab, region)).await;
    let mut stream = up.map_err(|source| HostError::NotUp { region, source })?;
    let silent = || HostError::Silent { region, order };
    let asked = async {
        stream.write_all(&line(&order)?).await?;
        let mut answer = String::new();
        BufReader::new(stream.take(LINE_LIMIT)).read_line(&mut answer).await?;
        Ok::<Answer, io::Error>(serde_json::from_str(&answer)?)
    };
    let answer = tokio::time::timeout(ORDER_LIMIT, asked).await;
    match answer.map_err(|_| silent())?.map_err(|_| silent())? {
        Answer::Done(pid) => Ok(pid),
        Answer::Failed(reason) => Err(HostError::Failed { region, reason }),
    }
}

/// Whether a region's host takes orders.
pub async fn is_up(lab: &Path, region: Region) -> bool {
    UnixStream::connect(socket(lab, region)).await.is_ok()
}

fn line(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Where the hosts are, as the agent reaches them, and the secret they ask for: the lab's `known_hosts` and key.
#[derive(Clone, Serialize, Deserialize)]
pub struct Directory {
    /// Whoever knows it may run programs as the database's user.
    pub secret: String,
    /// Where each path begins.
    pub paths: BTreeMap<Region, SocketAddr>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Directory {
    fn file(lab: &Path, from: Option<Site>) -> PathBuf {
        from.map_or_else(|| lab.to_owned(), |site| site.folder(lab)).join("agent/hosts.json")
    }

    /// Writes it for the agent's user alone; that of a site says how its agent reaches the hosts.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, lab: &Path, from: Option<Site>) -> io::Result<()> {
        crate::postgres::write_secret(&Directory::file(lab, from), &serde_json::to_string(self)?)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When there is no lab in that folder, or it is another user's.
    pub fn read(lab: &Path, from: Option<Site>) -> io::Result<Directory> {
        Ok(serde_json::from_slice(&std::fs::read(Directory::file(lab, from))?)?)
    }
}

/// What `chaos host exec` sends first, as one line; after it come the bytes of its standard input.
#[derive(Serialize, Deserialize)]
struct Call {
    secret: String,
    argv: Vec<String>,
}

/// What a frame of the answer carries: its first byte. Four bytes of length (big endian) and the content follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Output = 1,
    Errors = 2,
    /// The exit code, four bytes, big endian: the last frame.
    Exit = 3,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        [Kind::Output, Kind::Errors, Kind::Exit].into_iter().find(|kind| *kind as u8 == byte)
    }
}
