//! `lifeboat wal push` and `lifeboat wal get`

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use lifeboat_archive::wal::{self, Got, Spool, TROUBLE_EXIT};
use lifeboat_core::SystemIdentifier;

use crate::archives::{Which, failed, work};
use crate::cli::Place;
use crate::failure::{Exit, Failure};

/// What `restore_command` exits with for anything but "found" and "not there": PostgreSQL takes a lower code for the end of
/// the log, and ends recovery as if all was well.
pub(crate) const ENDS_RECOVERY: u8 = TROUBLE_EXIT;

/// How long a store that does not answer is tried.
const PATIENCE: Duration = Duration::from_mins(1);

/// How many segments are fetched ahead.
const AHEAD: usize = 8;

/// Store one file of the log: for archive_command = 'lifeboat wal push %p'.
///
/// Stored already with the same content is well; with other content it is refused, and the server keeps the file. Run in the
/// data folder, as PostgreSQL runs it.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The file, as %p gives it.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    #[command(flatten)]
    which: Which,
    /// The data folder whose file it is.
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,
}

impl Push {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        let wrong = |error: &lifeboat_archive::Trouble| {
            failed(format!("{} was not stored in {}", self.path.display(), found.name), error)
        };
        work(async {
            let archive = found.open().await?;
            let system = wal::system_of(&self.data).map_err(|error| wrong(&error))?;
            wal::push_file(&archive, system, &self.path, PATIENCE).await.map_err(|error| wrong(&error))
        })?;
        Ok(Exit::Done)
    }
}

/// Bring one file of the log: for restore_command = 'lifeboat wal get %f %p'.
///
/// Exit 0: it is there. Exit 1: the archive has no such file, and needs not to. Anything else is exit 200: PostgreSQL then
/// stops, instead of ending recovery as if there was no more. A segment that should be there and is not is such a case.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The file, as %f gives it.
    #[arg(value_name = "NAME")]
    name: String,
    /// Where to put it, as %p gives it.
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    #[command(flatten)]
    which: Which,
    /// The system identifier of the cluster [default: that of the data folder].
    #[arg(long, value_name = "NUMBER")]
    system: Option<u64>,
    /// The data folder that recovers.
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,
    /// Fetch the segments that will be asked for next into this folder.
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Say "not there" of what should be there and is not: a person has accepted that the log ends so early.
    #[arg(long)]
    end_at_gap: bool,
    /// Only fetch what comes after it.
    #[arg(long, hide = true)]
    ahead: bool,
}

impl Get {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        self.get(place).map_err(|failure| Failure { exit: Exit::EndsRecovery, ..failure })
    }

    fn get(&self, config: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(config, None)?;
        let wrong = |error: &lifeboat_archive::Trouble| {
            failed(format!("{} was not brought from {}", self.name, found.name), error)
        };
        let system = match self.system {
            Some(system) => SystemIdentifier::new(system),
            None => wal::system_of(&self.data).map_err(|error| wrong(&error))?,
        };
        let place = found.wiring.place.to_string();
        let spool = self.spool.as_deref().map(|folder| Spool::open(folder, &place, system, AHEAD));
        let spool = spool.transpose().map_err(|error| wrong(&error))?;
        // What was fetched ahead needs no archive.
        if let Some(spool) = spool.as_ref().filter(|_| !self.ahead)
            && spool.take(&self.name, &self.target).map_err(|error| wrong(&error))?
        {
            self.fetch_ahead(config, &found.name);
            return Ok(Exit::Done);
        }
        let got = work(async {
            let archive = found.open().await?;
            if self.ahead {
                if let Some(spool) = &spool {
                    wal::get_ahead(&archive, system, &self.name, spool)
                        .await
                        .map_err(|error| wrong(&error))?;
                }
                return Ok(Got::Found);
            }
            let got = wal::get(&archive, system, &self.name, &self.target, spool.as_ref(), PATIENCE).await;
            match got {
                Err(lifeboat_archive::Trouble::Gap(_)) if self.end_at_gap => Ok(Got::Missing),
                got => got.map_err(|error| wrong(&error)),
            }
        })?;
        if got == Got::Found && self.spool.is_some() && !self.ahead {
            self.fetch_ahead(config, &found.name);
        }
        Ok(if got == Got::Found { Exit::Done } else { Exit::Failed })
    }

    /// Fetches what comes next in a process of its own: the server goes on meanwhile.
    fn fetch_ahead(&self, place: &Place, archive: &str) {
        let Ok(program) = std::env::current_exe() else { return };
        let mut command = std::process::Command::new(program);
        command
            .args(["wal", "get", "--ahead", &self.name])
            .arg(&self.target)
            .args(self.which.words(place, archive));
        let path = |flag: &str, path: &Path| [flag.to_owned(), path.display().to_string()];
        command.args(path("--data", &self.data));
        command.args(self.spool.iter().flat_map(|spool| path("--spool", spool)));
        command.args(self.system.iter().flat_map(|system| ["--system".to_owned(), system.to_string()]));
        use std::process::Stdio;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It is no loss when it does not work: the next one is fetched when it is asked for.
        let _ = command.spawn();
    }
}
