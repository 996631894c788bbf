//! What can be broken in a lab beyond losing a region: the cases in which lifeboat must not do the obvious.
//!
//! **Invariant:** each fault is made on the real thing (a setting, a signal, a path), never in lifeboat.

use std::time::Duration;

use crate::lab::sites::Part;
use crate::lab::{Lab, LabError};
use crate::network::WITNESSES;
use crate::postgres::{AGENT_USER, PostgresError};
use crate::process::{self, Signal};
use crate::proxy::Fault;
use crate::region::{From, Region, Site, To};

impl Lab {
    /// Cuts or heals the agent's own network: every path from the agent, to its witnesses too.
    pub fn agent_network(&self, fault: Fault) {
        self.proxies().filter(|(from, ..)| *from == From::Agent).for_each(|(_, _, proxy)| proxy.set(fault));
    }

    /// Gives the agent's paths to all its witnesses one fault, and leaves the regions alone.
    pub fn witnesses(&self, fault: Fault) {
        (0..WITNESSES).for_each(|number| self.proxy(From::Agent, To::Witness(number)).set(fault));
    }

    /// Cuts replication into `standby` from its primary: the connection is reset and new ones are refused.
    pub fn cut_replication(&self, standby: Region) {
        self.proxy(From::Region(standby), To::Postgres(standby.other())).set(Fault::Refuse);
    }

    /// Lets `standby` follow its primary again.
    pub fn mend_replication(&self, standby: Region) {
        self.proxy(From::Region(standby), To::Postgres(standby.other())).set(Fault::None);
    }

    /// Makes every commit in a region hang for ever, while connections, reads and `/health` work as before: the
    /// server is told to wait for a synchronous standby that does not exist. (A full disk or a dead volume look
    /// like this from outside.) [`Lab::mend_commits`] lets them end.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn break_commits(&self, region: Region) -> Result<(), LabError> {
        self.settings(region, &["ALTER SYSTEM SET synchronous_standby_names = 'nobody'"]).await?;
        let sql = "SELECT current_setting('synchronous_standby_names') = 'nobody'";
        self.wait(format!("{region} still commits"), Duration::from_secs(10), async || {
            self.ask(region, sql, "reading a setting").await.unwrap_or(false)
        })
        .await
    }

    /// Undoes [`Lab::break_commits`]; commits that hang go through.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn mend_commits(&self, region: Region) -> Result<(), LabError> {
        self.settings(region, &["ALTER SYSTEM RESET synchronous_standby_names"]).await
    }

    /// Makes a region's database crash in the middle of its promotion: after it was told to become a primary
    /// and left recovery, before it takes its first write. The server itself is made to do it
    /// (`recovery_end_command`, which it runs at exactly that point), so it happens every time. The region
    /// stays down; [`Lab::restart`] would let it try again and crash again, until
    /// [`Lab::survive_promotion`].
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn crash_on_promotion(&self, region: Region) -> Result<(), LabError> {
        // It runs in the data folder, whose file postmaster.pid begins with the id of the server.
        let kill = "ALTER SYSTEM SET recovery_end_command = 'kill -9 $(head -n 1 postmaster.pid)'";
        self.settings(region, &[kill]).await
    }

    /// Undoes [`Lab::crash_on_promotion`], also while the server is down.
    ///
    /// # Errors
    /// When the server's settings cannot be written.
    pub fn survive_promotion(&self, region: Region) -> Result<(), LabError> {
        let path = self.server(region).data().join("postgresql.auto.conf");
        let act = || "take a setting back".to_owned();
        let text = std::fs::read_to_string(&path).map_err(|source| LabError::Io { act: act(), source })?;
        let kept: String = text
            .lines()
            .filter(|line| !line.starts_with("recovery_end_command"))
            .flat_map(|line| [line, "\n"])
            .collect();
        std::fs::write(&path, kept).map_err(|source| LabError::Io { act: act(), source })
    }

    /// Makes west look as if its replication had stopped `age` ago, and stops it: the heartbeats in the database
    /// are dated back on the primary, replicated, and replication into west is cut before the agent writes the
    /// next one. The agent is frozen (SIGSTOP) meanwhile, some tens of milliseconds. East's own heartbeats are
    /// fresh again a moment later.
    ///
    /// # Errors
    /// When there is no heartbeat yet, or a server does not answer.
    pub async fn age_standby(&self, age: Duration) -> Result<(), LabError> {
        self.freeze_agent(true)?;
        let aged = self.age_heartbeats(age).await;
        self.freeze_agent(false)?;
        aged
    }

    async fn age_heartbeats(&self, age: Duration) -> Result<(), LabError> {
        let millis = age.as_millis();
        let server = self.server(Region::East).connect(AGENT_USER).await?;
        let sql = format!("UPDATE lifeboat.heartbeat SET at_ms = at_ms - {millis}");
        let region = Region::East;
        let dated = server.execute(&sql, &[]).await;
        let rows =
            dated.map_err(|source| PostgresError::Sql { region, act: "dating heartbeats back", source })?;
        if rows == 0 {
            let (what, limit) = ("the agent wrote no heartbeat".to_owned(), Duration::ZERO);
            return Err(LabError::Late { what, limit, hint: String::new() });
        }
        self.replicated().await?;
        self.cut_replication(Region::West);
        Ok(())
    }

    /// Kills the agent with -9. [`Lab::start_agent`] starts it again, with its record.
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn kill_agent(&self) -> Result<(), LabError> {
        Ok(process::signal(self.agent_pid().as_slice(), Signal::KILL)?)
    }

    /// Stops (SIGSTOP) or wakes (SIGCONT) the agent.
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn freeze_agent(&self, frozen: bool) -> Result<(), LabError> {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        Ok(process::signal(self.agent_pid().as_slice(), signal)?)
    }

    /// Restarts the agent of a site with a clock that is wrong by so many seconds.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_with_clock(&self, site: Site, step: i64) -> Result<(), LabError> {
        self.kill(site, Part::Agent)?;
        self.start_agent_with_clock(site, step).await
    }

    async fn settings(&self, region: Region, statements: &[&str]) -> Result<(), LabError> {
        let server = self.server(region).connect(AGENT_USER).await?;
        for statement in statements.iter().chain(&["SELECT pg_reload_conf()"]) {
            let done = server.batch_execute(statement).await;
            done.map_err(|source| PostgresError::Sql { region, act: "changing a setting", source })?;
        }
        Ok(())
    }
}
