//! The agents and sentries of the sites: configured, started, asked.
//!
//! **Invariant:** every key is made by the program that signs with it, and the lab reads its public half alone.

use std::path::PathBuf;

use serde_json::Value;

use super::{Lab, LabError, io};
use crate::agent::{AgentOptions, Council, Seat};
use crate::process::{Owner, tethered};
use crate::region::{Region, Site};

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
        for site in Site::ALL {
            self.configure_seat(options, &Seat { site: Some(site), council: council.clone() })?;
        }
        for site in Site::ALL {
            let said = self.lifeboat_of(&self.config_of(site), &["key"]).await;
            council.agents.insert(site, key(&said.stdout, &said.stderr)?);
        }
        for site in Site::ALL {
            self.configure_seat(options, &Seat { site: Some(site), council: council.clone() })?;
        }
        Ok(())
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
        let lifeboat = self.lifeboat.as_deref().ok_or(LabError::Program("lifeboat"))?;
        let folder = region.folder(self.folder()).join("sentry");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.sentry_log(region));
        let log = log.map_err(io("make the sentry's log"))?;
        let errors = log.try_clone().map_err(io("make the sentry's log"))?;
        let mut command = tethered(lifeboat, Owner::Same);
        command.args(["sentry", "--config", "sentry.toml"]).env("NO_COLOR", "1");
        command.current_dir(folder).stdout(log).stderr(errors);
        self.nursery.start(command)?;
        Ok(())
    }
}

/// The public key that a command printed.
fn key(printed: &str, errors: &str) -> Result<String, LabError> {
    let key = printed.split_whitespace().last().unwrap_or_default();
    if key.is_empty() {
        let source = std::io::Error::other(errors.trim().to_owned());
        return Err(LabError::Io { act: "have lifeboat make a key".to_owned(), source });
    }
    Ok(key.to_owned())
}
