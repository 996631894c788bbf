//! What `pg_controldata` and `pg_ctl status` say of a data folder.
//!
//! **Invariant:** a line that is needed and not there is a fault: nothing is assumed of a data folder.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_core::{Fault, FaultKind, Lsn, SystemIdentifier, Timeline};
use serde::{Deserialize, Serialize};

use crate::host::config::Server;
use crate::host::program;

/// The state in `pg_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterState {
    /// Starting for the first time.
    StartingUp,
    /// A primary, stopped in order.
    ShutDown,
    /// A standby, stopped in order.
    ShutDownInRecovery,
    /// Stopping.
    ShuttingDown,
    /// Making good a crash.
    CrashRecovery,
    /// A standby: running, or stopped without order.
    ArchiveRecovery,
    /// A primary: running, or stopped without order.
    InProduction,
}

impl ClusterState {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "starting up" => Self::StartingUp,
            "shut down" => Self::ShutDown,
            "shut down in recovery" => Self::ShutDownInRecovery,
            "shutting down" => Self::ShuttingDown,
            "in crash recovery" => Self::CrashRecovery,
            "in archive recovery" => Self::ArchiveRecovery,
            "in production" => Self::InProduction,
            _ => return None,
        })
    }

    /// Whether a stopped server of this state needs no recovery.
    pub(super) fn is_clean(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}

/// What the control file says.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) state: ClusterState,
    pub(super) system: SystemIdentifier,
    pub(super) timeline: Timeline,
    pub(super) checkpoint: Lsn,
    pub(super) redo: Lsn,
    /// Bytes of a file of the log.
    pub(super) segment: u64,
    /// Bytes of a page of the log.
    pub(super) page: u64,
    /// Whether `pg_rewind` can tell changed pages: checksums or `wal_log_hints`.
    pub(super) rewindable: bool,
}

/// Reads the control file.
pub(super) async fn read(server: &Server) -> Result<Control, Fault> {
    read_in(server, &server.data).await
}

/// Reads the control file of another data folder.
pub(super) async fn read_in(server: &Server, data: &Path) -> Result<Control, Fault> {
    let program = server.programs.join("pg_controldata");
    let ended = program::run(program::command(program).arg("-D").arg(data)).await?;
    if !ended.succeeded() {
        return Err(Fault::new(FaultKind::Refused, ended.failure("pg_controldata")));
    }
    parse(&ended.out).ok_or_else(|| {
        let detail = format!("pg_controldata of {} says what is not understood", data.display());
        Fault::new(FaultKind::Refused, detail)
    })
}

fn parse(text: &str) -> Option<Control> {
    let lines: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    let line = |key: &str| lines.get(key).copied();
    let hints = line("wal_log_hints setting")? == "on";
    Some(Control {
        state: ClusterState::parse(line("Database cluster state")?)?,
        system: SystemIdentifier::new(line("Database system identifier")?.parse().ok()?),
        timeline: Timeline::new(line("Latest checkpoint's TimeLineID")?.parse().ok()?),
        checkpoint: Lsn::parse(line("Latest checkpoint location")?)?,
        redo: Lsn::parse(line("Latest checkpoint's REDO location")?)?,
        segment: line("Bytes per WAL segment")?
            .parse()
            .ok()
            .filter(|&bytes: &u64| bytes.is_power_of_two())?,
        page: line("WAL block size")?.parse().ok().filter(|&bytes: &u64| bytes.is_power_of_two())?,
        rewindable: hints || line("Data page checksum version")? != "0",
    })
}

/// Whether a postmaster of the data folder is there, by the exit codes of `pg_ctl status`.
pub(super) async fn is_running(server: &Server) -> Result<bool, Fault> {
    let program = server.programs.join("pg_ctl");
    let ended = program::run(program::command(program).arg("status").arg("-D").arg(&server.data)).await?;
    match ended.code {
        Some(0) => Ok(true),
        Some(3) => Ok(false),
        // No data folder: perhaps between the two renames of a swap.
        Some(4) if !server.data.exists() => Ok(false),
        _ => Err(Fault::new(FaultKind::Refused, ended.failure("pg_ctl status"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
Database system identifier:           7654321098765432109
Database cluster state:               shut down in recovery
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's TimeLineID:       2
wal_log_hints setting:                off
WAL block size:                       8192
Bytes per WAL segment:                16777216
Data page checksum version:           1
";

    #[test]
    fn the_control_file_is_read_or_refused() {
        let control = parse(SAID).unwrap();
        assert_eq!(control.state, ClusterState::ShutDownInRecovery);
        assert_eq!(control.checkpoint, Lsn::new(0x300_0060));
        assert!(control.rewindable);
        assert!(!parse(&SAID.replace("version:           1", "version:           0")).unwrap().rewindable);
        for line in SAID.lines() {
            assert!(parse(&SAID.replace(line, "")).is_none(), "{line}");
        }
        assert!(parse(&SAID.replace("shut down in recovery", "asleep")).is_none());
    }
}
