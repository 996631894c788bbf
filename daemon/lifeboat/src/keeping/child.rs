//! A process of the agent's: the same binary with another verb.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use lifeboat_core::{Moment, RegionName};
use tokio::process::{ChildStdin, Command};

/// How long one that was told to end may take: it stores what it has.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A child. It ends by itself when its standard input does, and is killed when this is dropped.
pub(super) struct Child {
    process: tokio::process::Child,
    tether: Option<ChildStdin>,
    pub(super) region: Option<RegionName>,
    pub(super) begun: Moment,
}

impl Child {
    pub(super) fn start(
        words: &[&str],
        config: &Path,
        archive: &str,
        region: Option<RegionName>,
        begun: Moment,
    ) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).arg("--config").arg(config).args(["--archive", archive, "--tethered"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let tether = process.stdin.take();
        Ok(Self { process, tether, region, begun })
    }

    /// The code it ended with, if it has.
    pub(super) fn ended(&mut self) -> Option<i32> {
        match self.process.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.code().unwrap_or(-1)),
            Err(_) => Some(-1),
        }
    }

    /// Tells it to end; it is killed when it takes too long.
    pub(super) fn end(mut self) {
        self.tether = None;
        tokio::spawn(async move {
            let _ = tokio::time::timeout(ENDS_WITHIN, self.process.wait()).await;
        });
    }
}
