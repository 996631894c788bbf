//! The agents and sentries of the sites: configured, started, asked.
//!
//! **Invariant:** every key is made by the program that signs with it, and the lab reads its public half alone.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::sites::Part;
use super::{Lab, LabError, io};
use crate::agent::{self, AgentOptions, Council, Said, Seat};
use crate::postgres::write_secret;
use crate::process::{Owner, tethered};
use crate::region::{Region, Site, To};
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
        for region in Region::ALL.into_iter().filter(|_| options.sentries) {
            let said =
                self.sentry_command(region, &["--key"])?.output().map_err(io("run lifeboat sentry"))?;
            council.sentries.insert(region, key(&said.into())?);
        }
        self.write_configurations(options, &council)
    }

    fn write_configurations(&self, options: &AgentOptions, council: &Council) -> Result<(), LabError> {
        for site in Site::ALL {
            if !options.limits.is_empty() {
                let pages = site.folder(self.folder()).join("agent/runbooks");
                std::fs::create_dir_all(&pages).map_err(io("make a folder of runbooks"))?;
                let page = agent::failover_page(&options.limits);
                std::fs::write(pages.join("failover.toml"), page).map_err(io("write a runbook"))?;
            }
            if options.dead_name_server {
                let key = site.folder(self.folder()).join("agent/dead.key");
                write_secret(&key, "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=")
                    .map_err(io("write a key file"))?;
            }
            self.configure_seat(
                options,
                &Seat { site: Some(site), council: council.clone(), resolvers: self.resolvers() },
            )?;
        }
        for region in Region::ALL.into_iter().filter(|_| options.sentries) {
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

    /// Starts the agent of a site again, with a clock that is wrong by so many seconds.
    ///
    /// # Errors
    /// As [`Lab::start_agent`], and when there is no library that can do it.
    pub async fn start_agent_with_clock(&self, site: Site, step: i64) -> Result<(), LabError> {
        let library = faketime().ok_or(LabError::Program("libfaketime (Debian package faketime)"))?;
        let wrong = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME", format!("{step:+}s")),
            // Only the wall clock is wrong: intervals are counted by the other one.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        self.start_agent_in(&self.config_of(site), &self.agent_log_of(site), &wrong).await?;
        Ok(())
    }

    /// Starts a second agent of the same name and key beside the one of a site, with a copy of its record: as when a
    /// machine was cloned. It has a socket and doors of its own.
    ///
    /// # Errors
    /// As [`Lab::start_agent`].
    pub async fn start_twin_of(&self, site: Site) -> Result<(), LabError> {
        let (own, twin) = (site.folder(self.folder()).join("agent"), site.folder(self.folder()).join("twin"));
        if twin.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(twin.join("state")).map_err(io("make the twin's folder"))?;
        for entry in std::fs::read_dir(own.join("state")).map_err(io("read the agent's state"))? {
            let path = entry.map_err(io("read the agent's state"))?.path();
            if let Some(name) = path.file_name().filter(|name| path.is_file() && *name != "lifeboat.sock") {
                std::fs::copy(&path, twin.join("state").join(name)).map_err(io("copy the agent's state"))?;
            }
        }
        let text = std::fs::read_to_string(self.config_of(site)).map_err(io("read lifeboat.toml"))?;
        let state = |folder: &std::path::Path| format!("state = \"{}\"", folder.join("state").display());
        let text = text.replace(&state(&own), &state(&twin));
        // Its doors are its own; its key is the other's, and its name.
        let (door, authority) = (self.network.door(To::Agent(site)), self.network.authority_of(site));
        let text = text.replace(&format!("listen = \"{door}\""), &format!("listen = \"{}\"", free_door()?));
        let text =
            text.replace(&format!("listen = [\"{authority}\"]"), &format!("listen = [\"{}\"]", free_door()?));
        let config = twin.join("lifeboat.toml");
        std::fs::write(&config, text).map_err(io("write the twin's lifeboat.toml"))?;
        self.start_agent_of(&config, &twin.join("lifeboat.log")).await?;
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

/// An address that nobody listens at now.
fn free_door() -> Result<std::net::SocketAddr, LabError> {
    let held = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
    held.and_then(|held| held.local_addr()).map_err(io("find a free port"))
}

/// The library that lets one program see another time.
fn faketime() -> Option<PathBuf> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|arch| format!("/usr/lib/{arch}/faketime"));
    places.iter().map(|place| PathBuf::from(place).join("libfaketime.so.1")).find(|path| path.exists())
}

/// The public key that a command printed.
fn key(said: &Said) -> Result<String, LabError> {
    let key = said.stdout.split_whitespace().last().filter(|_| said.code == Some(0));
    key.map(str::to_owned).ok_or_else(|| {
        let source = std::io::Error::other(said.stderr.trim().to_owned());
        LabError::Io { act: "have lifeboat make a key".to_owned(), source }
    })
}
