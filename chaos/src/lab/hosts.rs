//! The hosts of a lab: booted, asked, told where things are.

use std::path::PathBuf;

use serde_json::Value;

use super::{Lab, LabError, UP_WITHIN, io};
use crate::host::{self, HostError, Order};
use crate::postgres::{AGENT_USER, REPLICA_USER};
use crate::power;
use crate::process::{self, Owner, tethered};
use crate::proxy::Fault;
use crate::region::{Region, To};

impl Lab {
    /// Boots a region's host, unless it is up. PostgreSQL is not started by that.
    ///
    /// # Errors
    /// When the region is powered off ([`Lab::bring_back`] powers it on), or the host does not come up.
    pub async fn boot(&self, region: Region) -> Result<(), LabError> {
        if let Some(off) = power::state(self.folder(), region) {
            return Err(HostError::PoweredOff { region, epoch: off.epoch }.into());
        }
        if host::is_up(self.folder(), region).await {
            return Ok(());
        }
        let folder = region.folder(self.folder());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("host.log"));
        let log = log.map_err(io("make the host's log"))?;
        let errors = log.try_clone().map_err(io("make the host's log"))?;
        let mut command = tethered(&self.chaos, Owner::Same);
        command.args(["host", "serve", region.name(), "--lab"]).arg(self.folder());
        command.args(["--listen", &self.network.door(To::Host(region)).to_string()]);
        command.current_dir(folder).stdout(log).stderr(errors);
        let pid = self.nursery.start(command)?;
        self.wait(format!("the host of {region} did not come up"), UP_WITHIN, async || {
            process::alive(pid) && host::is_up(self.folder(), region).await
        })
        .await
    }

    /// Starts a region's PostgreSQL and returns once clients can log in. One that runs is left as it is.
    ///
    /// # Errors
    /// When its host is not up, or it does not start; the error has the end of its log.
    pub async fn start_postgres(&self, region: Region) -> Result<(), LabError> {
        host::order(self.folder(), region, Order::Start).await?;
        Ok(self.server(region).answers().await?)
    }

    /// Stops a region's PostgreSQL fast and returns once it is gone.
    ///
    /// # Errors
    /// When its host is not up, or the server is still there after 60 s.
    pub async fn stop_postgres(&self, region: Region) -> Result<(), LabError> {
        host::order(self.folder(), region, Order::Stop).await?;
        Ok(())
    }

    /// Where the configuration of `lifeboat host` in a region is.
    #[must_use]
    pub fn host_config(&self, region: Region) -> PathBuf {
        region.folder(self.folder()).join("host.toml")
    }

    /// Writes that configuration, and the password files it names, for PostgreSQL's user.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn configure_host(&self, region: Region) -> Result<(), LabError> {
        let server = self.server(region);
        let folder = region.folder(self.folder());
        let quoted = |text: &dyn std::fmt::Display| Value::from(text.to_string()).to_string();
        let passfile = |path: PathBuf, user| format!("user={user} passfile={}", path.display());
        let agent = passfile(server.agent_passfile()?, AGENT_USER);
        let replica = passfile(server.replica_passfile()?, REPLICA_USER);
        let order = |verb: &str| {
            let (chaos, lab) = (self.chaos.display().to_string(), self.folder().display().to_string());
            Value::from(vec![&chaos, "host", verb, "--lab", &lab, region.name()])
        };
        let local = format!("host={} port={} {agent}", server.address.ip(), server.address.port());
        let text = format!(
            "# Written by chaos for one lab.\nstate = {state}\nsalvage = {salvage}\n\n[[server]]\n\
             database = \"orders\"\ndata = {data}\nprograms = {programs}\nstart = {start}\nstop = {stop}\n\
             local = {local}\nsource = {source}\nrewind = {rewind}\n\
             keep = [\"postgresql.conf\", \"pg_hba.conf\", \"pg_ident.conf\", \"lab.conf\"]\n",
            state = quoted(&folder.join("host").display()),
            salvage = quoted(&folder.join("salvage").display()),
            data = quoted(&server.data().display()),
            programs = quoted(&server.programs().display()),
            start = order("start"),
            stop = order("stop"),
            local = quoted(&local),
            source = quoted(&format!("{replica} connect_timeout=3")),
            rewind = quoted(&format!("{agent} connect_timeout=3")),
        );
        Ok(server.write("host.toml", &text)?)
    }

    /// Brings a lost region back: power, host, PostgreSQL *as it was* (an old primary still believes that it is
    /// one), shop, and last its network. What is left of it is killed before, as by a power cycle.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn bring_back(&self, region: Region) -> Result<(), LabError> {
        self.power_cycle(region).await?;
        self.to_region(region, Fault::None);
        Ok(())
    }

    /// The same without its network: it runs, and nobody reaches it but [`Lab::write_isolated`].
    ///
    /// # Errors
    /// As [`Lab::bring_back`].
    pub async fn power_cycle(&self, region: Region) -> Result<(), LabError> {
        self.to_region(region, Fault::Refuse);
        process::kill_within(&region.folder(self.folder()))?;
        power::on(self.folder(), region)?;
        self.boot(region).await?;
        self.start_postgres(region).await?;
        self.start_shop(region).await
    }
}
