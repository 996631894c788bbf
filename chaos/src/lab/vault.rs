//! The lab's archive: made, filled and restored from with lifeboat's own commands.
//!
//! **Invariant:** what is restored comes from a copy of the archive and its key: nothing of the lab helps.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::regions::{orders_of, reference_of};
use super::{Lab, LabError, io};
use crate::agent::WORKLOAD;
use crate::postgres::{AGENT_USER, Postgres};
use crate::process::{Owner, tethered};
use crate::region::Region;
use crate::report::archive::Restored;

/// How long a backup or a restore of the lab's database may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The database's name for the commands.
const DATABASE: &str = "orders";

impl Lab {
    /// Where the archive is: in neither region.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.folder().join("archive")
    }

    /// The key to it.
    #[must_use]
    pub fn archive_key(&self) -> PathBuf {
        self.folder().join("archive.key")
    }

    /// Makes the archive that the configuration names.
    ///
    /// # Errors
    /// When lifeboat does not.
    pub async fn make_archive(&self) -> Result<(), LabError> {
        self.order(&["archive", "init"]).await.map(drop)
    }

    /// Makes a base backup now; what lifeboat says of it.
    ///
    /// # Errors
    /// When lifeboat does not.
    pub async fn back_up(&self) -> Result<Value, LabError> {
        let database = format!("{WORKLOAD}/{DATABASE}");
        let said = self.order(&["backup", "run", &database, "--json"]).await?;
        Ok(serde_json::from_str(&said).unwrap_or_default())
    }

    /// Returns once the agent that decides receives the log of the primary into the archive.
    ///
    /// # Errors
    /// When none does.
    pub async fn log_received(&self) -> Result<(), LabError> {
        self.wait("the archive does not receive the log".to_owned(), PATIENCE, async || {
            let sql = "SELECT count(*) FROM pg_stat_replication WHERE application_name LIKE 'lifeboat%' AND state = 'streaming'";
            self.ask::<i64>(Region::East, sql, "looking for the receiver").await.is_ok_and(|count| count > 0)
        })
        .await
    }

    /// How many bytes the archive's objects have.
    #[must_use]
    pub fn archived_bytes(&self) -> u64 {
        bytes_within(&self.archive())
    }

    /// Restores the database from a copy of the archive, along the timeline of the region that was lost, to the newest moment
    /// there is; starts it, and asks it.
    ///
    /// # Errors
    /// When it cannot be restored, or the server does not come up.
    pub async fn restore(&self, timeline: u32) -> Result<Restored, LabError> {
        let owner = Owner::of_postgres().map_err(io("find PostgreSQL's user"))?;
        let place = self.folder().join("recovery");
        let (archive, key, data) = (place.join("archive"), place.join("archive.key"), place.join("data"));
        copy(&self.archive(), &archive, owner).map_err(io("copy the archive"))?;
        std::fs::copy(self.archive_key(), &key).map_err(io("copy the archive's key"))?;
        owner.take(&key).map_err(io("give the key away"))?;
        let lifeboat = self.lifeboat.as_deref().ok_or(LabError::Program("lifeboat"))?;
        let began = Instant::now();
        let mut command = tokio::process::Command::from(tethered(lifeboat, owner));
        command.args(["restore", &format!("{WORKLOAD}/{DATABASE}"), "--timeline", &timeline.to_string()]);
        command.arg("--target").arg(&data).arg("--place").arg(&archive).arg("--key").arg(&key);
        command.current_dir(&place).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output =
            output.map_err(|_| late("the restore did not end", String::new()))?.map_err(io("restore"))?;
        if !output.status.success() {
            return Err(late("nothing was restored", String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let server = self.start_restored(&place, &data, owner)?;
        let log = || std::fs::read_to_string(place.join("postgres.log")).unwrap_or_default();
        let writable = "SELECT pg_is_in_recovery()";
        let ready = self.wait("the restored server took no writes".to_owned(), PATIENCE, async || {
            let Ok(session) = server.connect(AGENT_USER).await else { return false };
            session.query_one(writable, &[]).await.is_ok_and(|row| !row.get::<_, bool>(0))
        });
        ready.await.map_err(|_| late("the restored server took no writes", log()))?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let orders = orders_of(&server).await?;
        let reference = reference_of(&server).await?;
        Ok(Restored { orders, reference, took_ms })
    }

    fn start_restored(&self, place: &Path, data: &Path, owner: Owner) -> Result<Postgres, LabError> {
        let host = self.network.host(Region::East);
        let port = std::net::TcpListener::bind((host, 0)).and_then(|listener| listener.local_addr());
        let address = port.map_err(io("find a port for the restored server"))?;
        let server =
            Postgres::new(self.folder(), Region::East, address, &self.passwords, self.options.setup)?;
        let log = std::fs::File::create(place.join("postgres.log")).map_err(io("make the server's log"))?;
        let mut command = tethered(&server.programs().join("postgres"), owner);
        command.arg("-D").arg(data).args(["-c", &format!("port={}", address.port())]);
        command.args([
            "-c",
            &format!("listen_addresses={}", address.ip()),
            "-c",
            "synchronous_standby_names=",
        ]);
        command.args(["-c", "cluster_name=restored"]);
        command.current_dir(place).stdout(Stdio::null()).stderr(log);
        self.nursery.start(command)?;
        Ok(server)
    }

    async fn order(&self, args: &[&str]) -> Result<String, LabError> {
        let lifeboat = self.lifeboat.as_deref().ok_or(LabError::Program("lifeboat"))?;
        let mut command = tokio::process::Command::from(tethered(lifeboat, Owner::Same));
        command.arg("--config").arg(self.config()).args(args).env("NO_COLOR", "1");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let what = format!("lifeboat {} did not end", args.join(" "));
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.map_err(|_| late(&what, String::new()))?.map_err(io("run lifeboat"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(late(&what, String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

fn late(what: &str, said: String) -> LabError {
    LabError::Late { what: what.to_owned(), limit: PATIENCE, hint: format!(":\n{said}") }
}

fn bytes_within(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => bytes_within(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

/// A copy that belongs to `owner`, whatever is being written to the original meanwhile.
fn copy(from: &Path, to: &Path, owner: Owner) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for folder in [to.parent().unwrap_or(to), to] {
        owner.take(folder)?;
    }
    for entry in std::fs::read_dir(from)?.flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target, owner)?;
            continue;
        }
        match std::fs::copy(entry.path(), &target) {
            Ok(_) => owner.take(&target)?,
            // One that was being written, and has its own name by now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
