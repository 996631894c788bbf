//! The host side on real servers: an old primary is stopped, salvaged, and made a standby again.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]

mod agent;
mod hostile;
mod rejoin;
mod salvage;
mod servers;

use std::io::{Read, Write};

/// The tool, as a process of its own: this test binary starts itself so, as the user that may run PostgreSQL.
///
/// Without the variable it is an empty test.
#[test]
fn tool() {
    let Some(config) = std::env::var_os(servers::TOOL) else { return };
    let config = lifeboat_postgres::host::Config::load(config.as_ref()).unwrap();
    let mut request = Vec::new();
    std::io::stdin().read_to_end(&mut request).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reply = runtime.block_on(lifeboat_postgres::host::serve(&config, &request));
    let line = serde_json::to_string(&reply).unwrap();
    // On a line of its own: the test harness writes around it.
    let _ = std::io::stdout().write_all(format!("\n{line}\n").as_bytes());
}
