//! What the binary tells a member: where its server is, who we are to it, and how it can be isolated.
//!
//! **Invariant:** there is a path to a password here, never a password.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_core::{DatabaseName, RegionName, SystemIdentifier, WorkloadName};

use crate::host::HostCommand;

/// One server of a database, in one region.
#[derive(Clone, Debug)]
pub struct Options {
    /// The workload that is protected.
    pub workload: WorkloadName,
    /// The database of the workload it belongs to.
    pub database: DatabaseName,
    /// The region it is in.
    pub region: RegionName,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The database to log in to; the heartbeat table is kept there.
    pub dbname: String,
    /// The role to log in as.
    ///
    /// A superuser, or a role with `pg_monitor`, `pg_signal_backend`, CREATE on the database (for the heartbeat),
    /// EXECUTE on `pg_promote` and `pg_reload_conf`, and, for the fence over SQL,
    /// `GRANT SET, ALTER SYSTEM ON PARAMETER default_transaction_read_only, session_preload_libraries` and
    /// `GRANT ALTER SYSTEM ON PARAMETER "lifeboat.fence_epoch"`. To be followed by a server that returns it needs
    /// REPLICATION (the slot), `pg_checkpoint`, and EXECUTE on `pg_read_file(text)` (the history of its timelines).
    pub user: String,
    /// A file with the password on its one line; read whenever a session is opened. None: no password is offered.
    pub password_file: Option<PathBuf>,
    /// Whether the connection is encrypted and the server's name proven.
    pub tls: Tls,
    /// Whether each look at a primary commits a heartbeat row. When false, looks only read.
    pub heartbeat: bool,
    /// Refuse any cluster but this one.
    pub system: Option<SystemIdentifier>,
    /// How to power the region off or isolate it, when the server cannot be fenced over SQL.
    pub fence: Option<FenceCommand>,
    /// Host and port as a server that follows this one reaches it; `host` and `port` when None.
    pub replication: Option<(String, u16)>,
    /// What leads to the database host, where an old primary is stopped, salvaged and made a standby.
    pub host_command: Option<HostCommand>,
    /// The replication slots lifeboat makes for this database, one for each region of the workload; those that are
    /// left on a server when it becomes a standby are dropped. See [`crate::slot_name`].
    pub slots: Vec<String>,
}

/// How the connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Plain text.
    Off,
    /// Encrypted, with the server's certificate and name verified.
    VerifyFull {
        /// PEM file with the trusted authorities; the system's when None.
        ca_file: Option<PathBuf>,
    },
}

/// A command that powers a region off or isolates it, and exits 0 only when that is done (STONITH).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceCommand {
    /// Program and arguments, never a shell. `{region}` and `{epoch}` are replaced in each of them.
    pub argv: Vec<String>,
    /// How long it may run before it is killed.
    pub timeout: Duration,
}
