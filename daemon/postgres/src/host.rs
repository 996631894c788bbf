//! The host side: what only someone at the data folder can do for an old primary.
//!
//! The agent starts `lifeboat host` on the database host, by whatever leads there ([`HostCommand`]), and gives it one
//! [`Request`]. The host looks, obeys or refuses, and answers with one [`Reply`]. It stops the server, salvages what
//! only it has, and makes it a standby of the new primary: by following, by `pg_rewind`, or by a fresh copy.
//!
//! **Invariant:** a stale epoch, another cluster or a request that is not understood is refused before anything is
//! touched.
//! **Invariant:** every act looks first and may be killed at any instant: the next one finds out and goes on.
//! **Invariant:** a data folder whose rejoin was interrupted is never started as it is.
//! **Invariant:** no shell, no password, and PostgreSQL's own programs are the judges of what is in a data folder.

mod config;
mod control;
mod durable;
mod epoch;
mod lock;
mod program;
mod protocol;
mod rebuild;
mod rejoin;
mod remote;
mod salvage;
mod server;
mod settings;
mod sql;
mod stage;
mod wal;

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_core::{Fault, FaultKind};

pub use config::{Config, ConfigError};
pub use control::ClusterState;
pub use protocol::{Act, Done, LONGEST_REQUEST, Look, Reply, Request, VERSION};
pub use remote::HostCommand;

/// One act on one server.
struct Host<'a> {
    config: &'a Config,
    server: &'a config::Server,
    request: &'a Request,
}

/// Reads one request and does what it says.
///
/// A repeat finds the effect and says so. It may be killed at any instant; the next request goes on from there.
pub async fn serve(config: &Config, request: &[u8]) -> Reply {
    let request = match Request::read(request) {
        Ok(request) => request,
        Err(fault) => return Reply::Failed(fault),
    };
    let done = match Host::find(config, &request) {
        Ok(host) => host.act().await,
        Err(fault) => Err(fault),
    };
    match done {
        Ok(done) => Reply::Done(done),
        Err(fault) => {
            tracing::warn!(database = %request.database, %fault, "not done");
            Reply::Failed(fault.in_region(&request.region))
        }
    }
}

/// What each server of the host is, for people.
pub async fn survey(config: &Config) -> Vec<(String, Result<Look, Fault>)> {
    let mut looks = Vec::new();
    for server in &config.servers {
        looks.push((server.database.clone(), look(config, server).await));
    }
    looks
}

/// A file of the state folder that is one server's alone.
fn state_file(config: &Config, server: &config::Server, ending: &str) -> PathBuf {
    config.state.join(format!("{}.{ending}", server.database))
}

async fn look(config: &Config, server: &config::Server) -> Result<Look, Fault> {
    let stage: Option<stage::Begun> = durable::read(&state_file(config, server, "rejoining"))?;
    let control = control::read(server).await?;
    Ok(Look {
        running: control::is_running(server).await?,
        state: control.state,
        timeline: control.timeline,
        checkpoint: control.checkpoint,
        system: control.system,
        interrupted: stage.map(|begun| begun.epoch),
        obeyed: epoch::newest(&state_file(config, server, "epoch"))?.map(|obeyed| obeyed.epoch),
    })
}

impl<'a> Host<'a> {
    fn find(config: &'a Config, request: &'a Request) -> Result<Self, Fault> {
        let named = |server: &&config::Server| server.database == request.database.as_str();
        let server = config.servers.iter().find(named).ok_or_else(|| {
            let detail = format!("host.toml has no [[server]] of the database {}", request.database);
            Fault::new(FaultKind::Refused, detail)
        })?;
        Ok(Self { config, server, request })
    }

    fn file(&self, ending: &str) -> PathBuf {
        state_file(self.config, self.server, ending)
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.request.limit_ms)
    }

    async fn act(&self) -> Result<Done, Fault> {
        if self.request.act == Act::Look {
            return look(self.config, self.server).await.map(Done::Looked);
        }
        for folder in [&self.config.state, &self.config.salvage] {
            std::fs::create_dir_all(folder).map_err(|error| durable::fault("create", folder, &error))?;
        }
        let lock = lock::Lock::take(&self.file("lock"), self.limit()).await?;
        self.know_the_cluster().await?;
        epoch::obey(&self.file("epoch"), self.request.epoch, &self.request.agent)?;
        match &self.request.act {
            Act::Look => look(self.config, self.server).await.map(Done::Looked),
            Act::Stop => self.stop().await.map(|already| Done::Stopped { already }),
            Act::Salvage { source } => self.salvage(source).await.map(Done::Salvaged),
            Act::Rejoin { source, drop_slots } => {
                self.rejoin(source, drop_slots, &lock).await.map(Done::Rejoined)
            }
        }
    }

    /// Refuses a data folder of another cluster. One that was being rewound may be past reading; its cluster was
    /// known when that was begun.
    async fn know_the_cluster(&self) -> Result<(), Fault> {
        let asked = self.request.system;
        let source = match &self.request.act {
            Act::Look | Act::Stop => asked,
            Act::Salvage { source } | Act::Rejoin { source, .. } => source.system,
        };
        let system = match durable::read::<stage::Begun>(&self.file("rejoining"))? {
            Some(begun) => begun.system,
            None => control::read(self.server).await?.system,
        };
        if system == asked && system == source {
            return Ok(());
        }
        let data = self.server.data.display();
        let detail =
            format!("{data} is of cluster {system}, the request of {asked} and its source of {source}");
        Err(Fault::new(FaultKind::Refused, detail))
    }
}
