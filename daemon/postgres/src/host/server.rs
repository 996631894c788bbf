//! Starting and stopping the server of this host.
//!
//! **Invariant:** stopped means that `pg_ctl status` finds no postmaster, whatever the stop command said.

use std::time::Duration;

use lifeboat_core::{Fault, FaultKind, Source};
use serde::Deserialize;

use crate::host::{Host, control, program, sql};

/// How long sessions and the last checkpoint may take before the server is stopped without order.
const FAST: Duration = Duration::from_secs(60);

/// How long a server that is stopped without order may take.
const IMMEDIATE: Duration = Duration::from_secs(30);

/// Between two looks at whether the server streams.
const PAUSE: Duration = Duration::from_millis(20);

/// Whom the server receives its log from, when it does.
const RECEIVER: &str = "SELECT json_build_object('host', sender_host, 'port', sender_port,
 'timeline', received_tli, 'slot', slot_name) FROM pg_stat_wal_receiver
 WHERE status = 'streaming' AND pg_is_in_recovery()";

#[derive(Deserialize)]
struct Receiver {
    host: Option<String>,
    port: Option<i64>,
    timeline: Option<u32>,
    slot: Option<String>,
}

impl Host<'_> {
    /// Stops the server; true when it was.
    ///
    /// # Errors
    /// `Unclear` when a process of it is left.
    pub(super) async fn stop(&self) -> Result<bool, Fault> {
        if !control::is_running(self.server).await? {
            return Ok(true);
        }
        tracing::info!(data = %self.server.data.display(), "stopping the server");
        let said = match &self.server.stop {
            Some(argv) => self.run_argv(argv).await?,
            None => self.pg_ctl_stop("fast", FAST).await?,
        };
        if control::is_running(self.server).await? {
            tracing::warn!(%said, "the server did not stop in order, and is stopped without");
            self.pg_ctl_stop("immediate", IMMEDIATE).await?;
        }
        if control::is_running(self.server).await? {
            let detail = format!("the server of {} does not stop", self.server.data.display());
            return Err(Fault::new(FaultKind::Unclear, detail));
        }
        Ok(false)
    }

    pub(super) async fn pg_ctl_stop(&self, mode: &str, limit: Duration) -> Result<String, Fault> {
        let mut command = program::command(self.server.programs.join("pg_ctl"));
        command
            .args(["stop", "-w", "-m", mode, "-t", &limit.as_secs().to_string(), "-D"])
            .arg(&self.server.data);
        Ok(program::run(&mut command).await?.said)
    }

    async fn run_argv(&self, argv: &[String]) -> Result<String, Fault> {
        let [program, arguments @ ..] = argv else { return Ok(String::new()) };
        Ok(program::run(program::command(program).args(arguments)).await?.said)
    }

    /// Starts the server unless it runs. Whether it is of use, [`Host::streams`] says.
    ///
    /// # Errors
    /// `Unclear` when no postmaster is there after it.
    pub(super) async fn start(&self) -> Result<(), Fault> {
        if control::is_running(self.server).await? {
            return Ok(());
        }
        tracing::info!(data = %self.server.data.display(), "starting the server");
        let said = match &self.server.start {
            Some(argv) => self.run_argv(argv).await?,
            None => {
                let mut command = program::command(self.server.programs.join("pg_ctl"));
                command.args(["start", "-w", "-s", "-t", &self.limit().as_secs().max(1).to_string(), "-D"]);
                command.arg(&self.server.data).arg("-l").arg(self.config.state.join("server.log"));
                if let Some(settings) = &self.server.settings {
                    command.args(["-o", &format!("-c config_file={}", settings.display())]);
                }
                program::run(&mut command).await?.said
            }
        };
        if control::is_running(self.server).await? {
            return Ok(());
        }
        let detail = format!("the server of {} does not start: {said}", self.server.data.display());
        Err(Fault::new(FaultKind::Unclear, detail))
    }

    /// Whether the server is a standby that streams from this source, over this slot, on its timeline.
    pub(super) async fn streams(&self, source: &Source) -> bool {
        let receivers = sql::rows::<Receiver>(self.server, "postgres", RECEIVER).await.unwrap_or_default();
        receivers.iter().any(|receiver| {
            receiver.host.as_deref() == Some(source.host.as_str())
                && receiver.port == Some(i64::from(source.port))
                && receiver.timeline == Some(source.timeline.get())
                && receiver.slot.as_deref() == Some(source.slot.as_str())
        })
    }

    /// Waits until it does, for at most `limit`.
    pub(super) async fn comes_to_stream(&self, source: &Source, limit: Duration) -> bool {
        let streaming = async {
            while !self.streams(source).await {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(limit, streaming).await.is_ok()
    }
}
