//! What belongs to this host in a data folder, kept over a rewind or a copy, and whom the server is told to follow.
//!
//! `pg_rewind` and `pg_basebackup` bring the source's files: its ports, its rules of access, its ALTER SYSTEM. The
//! host's own are kept apart before and put back after.
//!
//! **Invariant:** lifeboat's fence and whom the server followed before are not put back; every other setting is.
//! **Invariant:** `standby.signal` is durable before the fence goes: a start in between cannot make a writer.

use std::fs;
use std::path::Path;

use lifeboat_core::{Fault, Source};

use crate::host::{Host, durable, sql};

const AUTO: &str = "postgresql.auto.conf";

impl Host<'_> {
    /// Keeps the host's own files apart. Repeated, it leaves those that are kept.
    pub(super) fn keep_own_files(&self) -> Result<(), Fault> {
        let (kept, partial) = (self.file("kept"), self.file("kept-partial"));
        if kept.exists() {
            return Ok(());
        }
        durable::remove(&partial)?;
        fs::create_dir(&partial).map_err(|error| durable::fault("create", &partial, &error))?;
        for name in self.own_files() {
            let from = self.server.data.join(name);
            if from.is_file() {
                fs::copy(&from, partial.join(name)).map_err(|error| durable::fault("copy", &from, &error))?;
            }
        }
        durable::sync_tree(&partial)?;
        durable::rename(&partial, &kept)
    }

    fn own_files(&self) -> impl Iterator<Item = &str> {
        self.server.keep.iter().map(String::as_str).filter(|name| *name != AUTO).chain([AUTO])
    }

    /// Puts the host's own files back into `data`, and says whom to follow.
    pub(super) fn make_standby(&self, data: &Path, source: &Source) -> Result<(), Fault> {
        durable::write(&data.join("standby.signal"), b"")?;
        durable::remove(&data.join("recovery.signal"))?;
        let kept = self.file("kept");
        let mut own = String::new();
        for name in self.own_files() {
            let from = kept.join(name);
            if !from.exists() {
                continue;
            }
            let bytes = fs::read(&from).map_err(|error| durable::fault("read", &from, &error))?;
            if name == AUTO {
                own = String::from_utf8_lossy(&bytes).into_owned();
            } else {
                durable::write(&data.join(name), &bytes)?;
            }
        }
        let name = self.server.application_name.as_deref().unwrap_or(self.request.region.as_str());
        let login = sql::source_login(source, &self.server.source);
        let login = format!("{login} application_name={}", sql::quoted(name));
        durable::write(&data.join(AUTO), following(&own, &login, &source.slot).as_bytes())
    }
}

/// The host's own ALTER SYSTEM settings without the fence and the old source, with the new one.
fn following(own: &str, login: &str, slot: &str) -> String {
    let mut text = String::new();
    for line in own.lines().filter(|line| survives(line)) {
        text.push_str(line);
        text.push('\n');
    }
    // In a settings file a backslash escapes, and a quote is written twice.
    let login = login.replace('\\', "\\\\").replace('\'', "''");
    text.push_str(&format!("primary_conninfo = '{login}'\nprimary_slot_name = '{slot}'\n"));
    text
}

fn survives(line: &str) -> bool {
    let name = line.trim_start().split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
    match name.as_str() {
        "session_preload_libraries" => !line.contains("fenced_by_lifeboat"),
        "default_transaction_read_only" | "primary_conninfo" | "primary_slot_name" => false,
        name => !name.starts_with("recovery_target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fence_and_the_old_source_go_and_the_rest_stays() {
        let own = "# Do not edit\nwork_mem = '8MB'\nsession_preload_libraries = 'fenced_by_lifeboat'\n\
            default_transaction_read_only = 'on'\nPrimary_Conninfo = 'host=old'\nrecovery_target_time='x'\n";
        let said = following(own, r"host='db\\x' user=a", "east");
        let wanted = "# Do not edit\nwork_mem = '8MB'\n\
            primary_conninfo = 'host=''db\\\\\\\\x'' user=a'\nprimary_slot_name = 'east'\n";
        assert_eq!(said, wanted);
        assert!(survives("session_preload_libraries = 'auto_explain'"));
    }
}
