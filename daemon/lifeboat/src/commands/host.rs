//! `lifeboat host`

use std::io::Read;
use std::path::Path;

use clap::Args;
use lifeboat_postgres::host::{self, Config, LONGEST_REQUEST};

use crate::cli::Place;
use crate::commands::talk;
use crate::failure::{Exit, Failure};
use crate::ui;

/// Where its configuration is when none is named: not the agent's.
const AGENTS: &str = "/etc/lifeboat/lifeboat.toml";
const OWN: &str = "/etc/lifeboat/host.toml";

/// On a database host: do what the agent asks of it.
///
/// The agent starts this, for example over ssh, as the user that owns the data folder. It reads one request (JSON) from
/// standard input and writes one reply (a line of JSON) to standard output; its log goes to standard error. It stops the
/// server, keeps what only an old primary has, and makes it a standby of the new one. It may be killed at any instant:
/// the next request finds out and goes on. The configuration is /etc/lifeboat/host.toml unless --config names another.
///
/// Exit 0 whenever a reply was written, also when it says that something was refused.
#[derive(Debug, Args)]
pub(crate) struct Host {
    /// Only show what each server of this host is. Reads no request and touches nothing.
    #[arg(long)]
    look: bool,
}

impl Host {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let path = if place.config == Path::new(AGENTS) { Path::new(OWN) } else { place.config.as_path() };
        let config = Config::load(path).map_err(|error| {
            Failure::because(Exit::Config, "the host's configuration cannot be used", &error)
        })?;
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            // The agent that reads it may be gone, and the act must go on.
            .log_internal_errors(false)
            .init();
        if self.look {
            return show(&config);
        }
        let mut request = Vec::new();
        let read = std::io::stdin().lock().take(LONGEST_REQUEST).read_to_end(&mut request);
        read.map_err(|error| Failure::because(Exit::Failed, "the request cannot be read", &error))?;
        let reply = talk(async { Ok(host::serve(&config, &request).await) })?;
        let line = serde_json::to_string(&reply)
            .map_err(|error| Failure::because(Exit::Failed, "the reply cannot be written", &error))?;
        // Nobody to read it is no fault: whoever asks again finds the effect.
        ui::answer(&line);
        Ok(Exit::Done)
    }
}

/// Shows each server, for people.
fn show(config: &Config) -> Result<Exit, Failure> {
    let mut failed = false;
    for (database, looked) in talk(async { Ok(host::survey(config).await) })? {
        match looked {
            Ok(look) => {
                let runs = if look.running { "running" } else { "stopped" };
                let state = format!("{:?}", look.state);
                ui::answer(&format!(
                    "{database}: {runs}, {state}, cluster {}, timeline {}, checkpoint {}",
                    look.system, look.timeline, look.checkpoint
                ));
                if let Some(epoch) = look.interrupted {
                    ui::answer(&format!(
                        "  a rejoin of epoch {epoch} was interrupted: do not start it; the agent goes on with it"
                    ));
                }
                if let Some(epoch) = look.obeyed {
                    ui::answer(&format!("  it has obeyed epoch {epoch}"));
                }
            }
            Err(fault) => {
                failed = true;
                ui::note(&format!("{database}: {fault}"));
            }
        }
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}
