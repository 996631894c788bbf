//! The agent of a lab: configured, started, asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::Value;

use super::{Lab, LabError, UP_WITHIN, io};
use crate::agent::{self, AgentOptions, SHOP_NAME, Said, Seat};
use crate::process::{self, Owner, tethered};
use crate::region::{Region, Site};
use crate::relay::{Manner, Relay};
use crate::resolver::Names;
use crate::resolver::Resolver;

impl Lab {
    /// Writes `lifeboat.toml` of a single agent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure_agent(&self, options: &AgentOptions) -> Result<(), LabError> {
        self.configure_seat(options, &Seat::alone())
    }

    pub(super) fn configure_seat(&self, options: &AgentOptions, seat: &Seat) -> Result<(), LabError> {
        let text =
            agent::config(self.folder(), &self.chaos, self.lifeboat.as_deref(), &self.network, options, seat);
        let path = seat.site.map_or_else(|| self.folder().join("lifeboat.toml"), |site| self.config_of(site));
        std::fs::write(path, text).map_err(io("write lifeboat.toml"))
    }

    /// Where `lifeboat.toml` is: that of the single agent, or of the witness, whom the operator asks. A test may change
    /// it before [`Lab::start_agent`].
    #[must_use]
    pub fn config(&self) -> PathBuf {
        if self.options.sites { self.config_of(Site::Witness) } else { self.folder().join("lifeboat.toml") }
    }

    /// The folder of that agent.
    #[must_use]
    pub fn agent_folder(&self) -> PathBuf {
        let site = self.options.sites.then_some(Site::Witness);
        Seat { site, ..Seat::alone() }.folder(self.folder())
    }

    /// Where its journal is.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.agent_folder().join("state/journal.db")
    }

    /// The DNS authorities of the lab's agents.
    #[must_use]
    pub fn authorities(&self) -> Vec<SocketAddr> {
        if self.relays.is_empty() {
            return self.network.authorities(false);
        }
        self.relays.values().map(Relay::address).collect()
    }

    /// Who is asked by the census.
    pub(super) fn resolvers(&self) -> Vec<SocketAddr> {
        self.authorities().into_iter().chain(self.resolver.as_ref().map(Relay::address)).collect()
    }

    /// Lets the further resolver keep what it knows, or ask again.
    pub async fn keep_answers(&self, keeps: bool) {
        if let Some(resolver) = &self.resolver {
            // What it keeps is what it knows by then.
            Resolver::new(&[resolver.address()], SHOP_NAME).address().await;
            resolver.set(if keeps { Manner::Keep } else { Manner::Ask });
        }
    }

    /// Asks the agents' name servers, on behalf of a client that keeps no answer.
    #[must_use]
    pub fn names(&self) -> Names {
        let hosts = Region::ALL.map(|region| (self.network.host(region), region));
        Names { servers: self.authorities(), hosts }
    }

    /// Where the agent's log is.
    #[must_use]
    pub fn agent_log(&self) -> PathBuf {
        self.agent_folder().join("lifeboat.log")
    }

    /// Starts the agent and returns once its control socket answers `status`; with three sites, all agents and sentries.
    /// Also after it was killed.
    ///
    /// # Errors
    /// When there is no `lifeboat` program, or it does not come up; the error ends with its log.
    pub async fn start_agent(&self) -> Result<(), LabError> {
        if self.options.sites {
            return self.start_sites().await;
        }
        let pid = self.start_agent_of(&self.config(), &self.agent_log()).await?;
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(pid);
        Ok(())
    }

    /// Starts an agent of that configuration, with that log, and returns its process once it answers. The lab's own is
    /// [`Lab::start_agent`]; another has a state folder and an authority of its own.
    ///
    /// # Errors
    /// As [`Lab::start_agent`].
    pub async fn start_agent_of(&self, config: &Path, log: &Path) -> Result<i32, LabError> {
        self.start_agent_in(config, log, &[]).await
    }

    /// The same in an environment with these variables as well.
    pub(super) async fn start_agent_in(
        &self,
        config: &Path,
        log: &Path,
        environment: &[(&str, String)],
    ) -> Result<i32, LabError> {
        let lifeboat = self.lifeboat.as_deref().ok_or(LabError::Program("lifeboat"))?;
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let file = file.map_err(io("make the agent's log"))?;
        let errors = file.try_clone().map_err(io("make the agent's log"))?;
        let mut command = tethered(lifeboat, Owner::Same);
        command.args(["run", "--config"]).arg(config).env("NO_COLOR", "1");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let folder = log.parent().unwrap_or(self.folder());
        command.current_dir(folder).stdout(file).stderr(errors);
        let pid = self.nursery.start(command)?;
        self.wait("the agent did not answer".to_owned(), UP_WITHIN, async || {
            !process::alive(pid) || self.lifeboat_of(config, &["status", "--json"]).await.code == Some(0)
        })
        .await?;
        if process::alive(pid) {
            return Ok(pid);
        }
        let log = std::fs::read_to_string(log).unwrap_or_default();
        Err(LabError::Late {
            what: "the agent ended".to_owned(),
            limit: UP_WITHIN,
            hint: format!("; its log:\n{log}"),
        })
    }

    /// Runs a command of `lifeboat` with the lab's configuration, as `&["status", "--json"]`.
    pub async fn lifeboat(&self, args: &[&str]) -> Said {
        self.lifeboat_of(&self.config(), args).await
    }

    /// The same with another configuration.
    pub async fn lifeboat_of(&self, config: &Path, args: &[&str]) -> Said {
        match self.lifeboat.as_deref() {
            Some(lifeboat) => agent::command(lifeboat, config, args).await,
            None => {
                Said { code: None, stdout: String::new(), stderr: "there is no lifeboat program".to_owned() }
            }
        }
    }

    /// What `lifeboat status --json` says; none while it does not answer.
    pub async fn status(&self) -> Option<Value> {
        self.lifeboat(&["status", "--json"]).await.json()
    }

    /// Waits until `met` says yes about the agent's status, and returns that status.
    ///
    /// # Errors
    /// [`LabError::Late`] with `what` and the last status.
    pub async fn until_status(
        &self,
        what: &str,
        limit: Duration,
        met: impl Fn(&Value) -> bool,
    ) -> Result<Value, LabError> {
        let mut last = Value::Null;
        let wait = async {
            loop {
                if let Some(status) = self.status().await {
                    if met(&status) {
                        return status;
                    }
                    last = status;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let met = tokio::time::timeout(limit, wait).await;
        met.map_err(|_| LabError::Late {
            what: what.to_owned(),
            limit,
            hint: format!("; the last status was {last:#}"),
        })
    }
}
