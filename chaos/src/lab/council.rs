//! The agents and sentries of the sites: configured, started, asked.
//!
//! **Invariant:** every key is made by the program that signs with it, and the lab reads its public half alone.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::sites::Part;
use super::{Lab, LabError, io};
use crate::agent::{AgentOptions, Council, Said, Seat};
use crate::process::{Owner, tethered};
use crate::region::{Region, Site};
use crate::sentry;

impl Lab {
    /// Where `lifeboat.toml` of a site is.
    #[must_use]
    pub fn config_of(&self, site: Site) -> PathBuf {
        site.folder(self.folder()).join("agent/lifeboat.toml")
    }

    /// Where the log of a site's agent is.
    #[must_use]
    pub fn agent_log_of(&self, site: Site) -> PathBuf {
        site.folder(self.folder()).join("agent/lifeboat.log")
    }

    /// Where the log of a region's sentry is.
    #[must_use]
    pub fn sentry_log(&self, region: Region) -> PathBuf {
        region.folder(self.folder()).join("sentry/sentry.log")
    }

    /// What the agent of a site says with `status --json`; none while it does not answer.
    pub async fn status_of(&self, site: Site) -> Option<Value> {
        self.lifeboat_of(&self.config_of(site), &["status", "--json"]).await.json()
    }

    /// Has the agents and sentries make their keys, and writes the configuration of all.
    pub(super) async fn configure_sites(&self, options: &AgentOptions) -> Result<(), LabError> {
        let mut council = Council { sync: self.options.setup.sync, ..Council::default() };
        self.write_configurations(options, &council)?;
        for site in Site::ALL {
            let said = self.lifeboat_of(&self.config_of(site), &["key"]).await;
            council.agents.insert(site, key(&said)?);
        }
        for region in Region::ALL {
            let said =
                self.sentry_command(region, &["--key"])?.output().map_err(io("run lifeboat sentry"))?;
            council.sentries.insert(region, key(&said.into())?);
        }
        self.write_configurations(options, &council)
    }

    fn write_configurations(&self, options: &AgentOptions, council: &Council) -> Result<(), LabError> {
        for site in Site::ALL {
            self.configure_seat(options, &Seat { site: Some(site), council: council.clone() })?;
        }
        for region in Region::ALL {
            let server = self.server(region);
            server.folder("sentry")?;
            let data = server.data();
            let text = sentry::config(self.folder(), region, &data, &self.network, council, &options.lease);
            server.write("sentry/sentry.toml", &text)?;
        }
        Ok(())
    }

    /// `lifeboat sentry` of a region, as PostgreSQL's user, in its folder.
    fn sentry_command(&self, region: Region, args: &[&str]) -> Result<Command, LabError> {
        let lifeboat = self.lifeboat.as_deref().ok_or(LabError::Program("lifeboat"))?;
        let owner = Owner::of_postgres().map_err(io("find PostgreSQL's user"))?;
        let mut command = tethered(lifeboat, owner);
        command.args(["sentry", "--config", "sentry.toml"]).args(args).env("NO_COLOR", "1");
        command.current_dir(self.part(region.into(), Part::Sentry));
        Ok(command)
    }

    /// Starts the agent of a site and returns once it answers. Also after it was killed.
    ///
    /// # Errors
    /// As [`Lab::start_agent`].
    pub async fn start_agent_at(&self, site: Site) -> Result<(), LabError> {
        self.start_agent_of(&self.config_of(site), &self.agent_log_of(site)).await?;
        Ok(())
    }

    /// Starts the sentry of a region.
    ///
    /// # Errors
    /// When there is no `lifeboat` program.
    pub async fn start_sentry(&self, region: Region) -> Result<(), LabError> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.sentry_log(region));
        let log = log.map_err(io("make the sentry's log"))?;
        let errors = log.try_clone().map_err(io("make the sentry's log"))?;
        let mut command = self.sentry_command(region, &[])?;
        command.stdout(log).stderr(errors);
        self.nursery.start(command)?;
        Ok(())
    }
}

/// The public key that a command printed.
fn key(said: &Said) -> Result<String, LabError> {
    let key = said.stdout.split_whitespace().last().filter(|_| said.code == Some(0));
    key.map(str::to_owned).ok_or_else(|| {
        let source = std::io::Error::other(said.stderr.trim().to_owned());
        LabError::Io { act: "have lifeboat make a key".to_owned(), source }
    })
}
