//! A stopped server, started for its rows alone: without an address, behind a socket in a folder that only its own user may
//! enter, read-only.
//!
//! **Invariant:** no client that knew the server reaches it here, and nothing that leaves it is sent anywhere.
//! **Invariant:** it is stopped when its rows were read, and by the next request when that one was killed.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_core::{Fault, FaultKind};

use crate::host::config::Server;
use crate::host::{Host, control, durable, program, sql};

/// How long it may take to stop: nobody is connected but us.
const STOP: Duration = Duration::from_secs(30);

/// The port, which is a part of the socket's name only.
const PORT: u16 = 5432;

/// For the socket's user: who may enter its folder is who runs the server.
const RULES: &str = "local all all trust\n";

impl Host<'_> {
    fn aside(&self) -> PathBuf {
        self.config.state.join("aside").join(self.request.database.as_str())
    }

    /// Starts it; how it is reached.
    pub(super) async fn start_aside(&self) -> Result<Server, Fault> {
        let folder = self.aside();
        durable::remove(&folder)?;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| durable::fault("create", &folder, &error))?;
        let rules = folder.join("pg_hba.conf");
        std::fs::write(&rules, RULES).map_err(|error| durable::fault("write", &rules, &error))?;
        let mut options = vec![
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", folder.display()),
            format!("port={PORT}"),
            format!("hba_file={}", rules.display()),
            "default_transaction_read_only=on".to_owned(),
            "synchronous_standby_names=".to_owned(),
            "archive_mode=off".to_owned(),
            "autovacuum=off".to_owned(),
            "restart_after_crash=off".to_owned(),
        ];
        options.extend(self.server.settings.iter().map(|path| format!("config_file={}", path.display())));
        let options: Vec<String> = options.iter().map(|option| format!("-c {}", shell(option))).collect();
        tracing::info!(data = %self.server.data.display(), "starting the server aside, for its rows");
        let mut command = program::command(self.server.programs.join("pg_ctl"));
        command.args(["start", "-w", "-s", "-t", &self.limit().as_secs().max(1).to_string(), "-D"]);
        command.arg(&self.server.data).arg("-l").arg(self.config.state.join("server.log"));
        let ended = program::run(command.args(["-o", &options.join(" ")])).await?;
        if !ended.succeeded() {
            return Err(Fault::new(FaultKind::Unclear, ended.failure("pg_ctl start, aside,")));
        }
        let host = sql::quoted(&folder.display().to_string());
        Ok(Server { local: format!("{} host={host} port={PORT}", self.server.local), ..self.server.clone() })
    }

    /// Stops it, if it runs: also what a request left that was killed.
    pub(super) async fn end_aside(&self) -> Result<(), Fault> {
        let folder = self.aside();
        if !folder.exists() {
            return Ok(());
        }
        let lives = folder.join(format!(".s.PGSQL.{PORT}")).exists();
        if lives && control::is_running(self.server).await? {
            for mode in ["fast", "immediate"] {
                self.pg_ctl_stop(mode, STOP).await?;
                if !control::is_running(self.server).await? {
                    break;
                }
            }
        }
        durable::remove(&folder)
    }
}

/// A word of a shell's, as `pg_ctl` hands its options to one.
fn shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::shell;

    #[test]
    fn a_word_stays_a_word() {
        assert_eq!(shell("a b"), "'a b'");
        assert_eq!(shell("it's; rm"), "'it'\\''s; rm'");
    }
}
