//! Asking the server of this host, and finding out whether the new primary answers.
//!
//! The session is opened past lifeboat's own fence: a superuser may say that no library is to be loaded.
//!
//! **Invariant:** only the exit code of a program is decided on.

use std::path::Path;
use std::process::Stdio;

use lifeboat_core::{Fault, FaultKind, Source};
use serde::de::DeserializeOwned;

use crate::host::config::Server;
use crate::host::program;

/// A value of a connection string.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A literal of SQL.
pub(super) fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// The login on this machine, to a database.
fn login(server: &Server, database: &str) -> String {
    let past_the_fence = "options='-c session_preload_libraries='";
    format!("{} connect_timeout=10 dbname={} {past_the_fence}", server.local, quoted(database))
}

/// The login at the source, with the parts of the configuration.
pub(super) fn source_login(source: &Source, parts: &str) -> String {
    format!("{parts} host={} port={} connect_timeout=10", quoted(&source.host), source.port)
}

fn psql(server: &Server, database: &str) -> tokio::process::Command {
    let mut command = program::command(server.programs.join("psql"));
    command.args(["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-d"]).arg(login(server, database));
    command
}

/// The rows of a query, each of which is one JSON value.
pub(super) async fn rows<T: DeserializeOwned>(
    server: &Server,
    database: &str,
    query: &str,
) -> Result<Vec<T>, Fault> {
    let ended = program::tell(&mut psql(server, database), format!("{query};\n")).await?;
    if !ended.succeeded() {
        // 2 is a session that was lost or never there.
        let kind = if ended.code == Some(2) { FaultKind::Unreachable } else { FaultKind::Refused };
        return Err(Fault::new(kind, ended.failure("psql, over the local login,")));
    }
    let parse = |line: &str| {
        serde_json::from_str(line)
            .map_err(|error| Fault::new(FaultKind::Unclear, format!("psql answered {line:?}: {error}")))
    };
    ended.out.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// Runs a statement whose output goes to a file.
pub(super) async fn into_file(
    server: &Server,
    database: &str,
    statement: String,
    path: &Path,
) -> Result<(), Fault> {
    let file = std::fs::File::create(path).map_err(|error| super::durable::fault("create", path, &error))?;
    let ended = program::tell(psql(server, database).stdout(Stdio::from(file)), statement).await?;
    if ended.succeeded() { Ok(()) } else { Err(Fault::new(FaultKind::Refused, ended.failure("psql"))) }
}

/// Whether the source takes connections, by the exit code of `pg_isready`.
pub(super) async fn answers(server: &Server, source: &Source) -> Result<bool, Fault> {
    let mut command = program::command(server.programs.join("pg_isready"));
    command.args(["-q", "-t", "5", "-h", &source.host, "-p", &source.port.to_string()]);
    Ok(program::run(&mut command).await?.succeeded())
}
