//! Where a server is that is copied from, and who we are to it.
//!
//! **Invariant:** there is a path to a password here, never a password.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_core::SystemIdentifier;
use lifeboat_engine::clock::Clock;

use crate::options::{Options, Tls};

/// How long a connection, a login and the answer to a short command may take.
const LIMIT: Duration = Duration::from_secs(20);

/// How long nothing at all may come while something must.
const SILENCE: Duration = Duration::from_secs(60);

/// One server, as the replication protocol reaches it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host name or address; the folder of its unix socket when it begins with `/`.
    pub host: String,
    /// TCP port, also part of the name of a unix socket.
    pub port: u16,
    /// A role with REPLICATION. `pg_hba.conf` must let it in to the database `replication`; PostgreSQL 13 and 14 also
    /// to `dbname`, where slots are looked up.
    pub user: String,
    /// The database in which the slots of PostgreSQL 13 and 14 are looked up: they have no replication command for it.
    pub dbname: String,
    /// A file with the password on its one line; read when a connection is opened. None: no password is offered.
    pub password_file: Option<PathBuf>,
    /// Whether the connection is encrypted and the server's name proven. Not used over a unix socket.
    pub tls: Tls,
    /// The name the server knows this client by, in `pg_stat_replication` and in `synchronous_standby_names`.
    pub application_name: String,
    /// Refuse any cluster but this one.
    pub system: Option<SystemIdentifier>,
    /// How long a connection, a login and the answer to a short command may take.
    pub limit: Duration,
    /// How long nothing at all may come during a base backup or a stream. A stream asks for a sign of life after
    /// half of it.
    pub silence: Duration,
    /// Stamps the reports to the server.
    pub clock: Clock,
}

impl Endpoint {
    /// The server of a member, under the name `lifeboat`.
    pub fn of(options: &Options, clock: Clock) -> Self {
        Self {
            host: options.host.clone(),
            port: options.port,
            user: options.user.clone(),
            dbname: options.dbname.clone(),
            password_file: options.password_file.clone(),
            tls: options.tls.clone(),
            application_name: "lifeboat".to_owned(),
            system: options.system,
            limit: LIMIT,
            silence: SILENCE,
            clock,
        }
    }

    /// As a person reads it.
    pub(super) fn address(&self) -> String {
        if self.host.starts_with('/') {
            format!("{}/.s.PGSQL.{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}
