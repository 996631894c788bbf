//! One real PostgreSQL server per region: Debian's, newest version, with its durability settings untouched.
//!
//! East is made by `initdb`, west by `pg_basebackup -R` as a streaming standby with a replication slot.
//!
//! **Invariant:** never runs as root, listens on loopback only, asks every client for a password (SCRAM).
//! **Invariant:** passwords travel in files that only their reader may read, never on a command line.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use crate::load::TABLE as ENTRIES;
use crate::process::{Owner, ProcessError, tethered};
use crate::region::Region;

/// The database of the shop.
pub const DATABASE: &str = "orders";
/// The agent's user: a superuser in the lab.
pub const AGENT_USER: &str = "lifeboat";
/// The shop's user.
pub const SHOP_USER: &str = "shop";
/// The standby's user, for replication alone.
pub(crate) const REPLICA_USER: &str = "replica";
/// How long a server may take to start; a busy machine with two cores takes a few seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Rows of the reference table, which a failover must not change.
pub const REFERENCE_ROWS: i64 = 10_000;

/// Rows of the ballast in one page of 8 KiB: each is 960 characters and its header.
const BALLAST_ROWS_A_PAGE: u64 = 8;

/// A server could not be made, started or asked.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// There is no PostgreSQL on this machine.
    #[error("no PostgreSQL in /usr/lib/postgresql/*/bin; install it: apt-get install postgresql")]
    Absent,
    /// A program of PostgreSQL failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it said.
        output: String,
    },
    /// The server ended while starting, or did not answer in time.
    #[error("PostgreSQL of {region} did not start; its log ends with:\n{log}")]
    NotStarted {
        /// Where.
        region: Region,
        /// The last lines of its log.
        log: String,
    },
    /// A file or folder could not be made.
    #[error("cannot prepare {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A statement failed.
    #[error("PostgreSQL of {region}: {act}")]
    Sql {
        /// Where.
        region: Region,
        /// What was attempted.
        act: &'static str,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A process could not be started or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// The folder of the newest PostgreSQL's programs.
///
/// # Errors
/// [`PostgresError::Absent`].
pub fn programs() -> Result<PathBuf, PostgresError> {
    let versions = fs::read_dir("/usr/lib/postgresql").map_err(|_| PostgresError::Absent)?;
    versions
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").exists())
        .max()
        .map(|(_, bin)| bin)
        .ok_or(PostgresError::Absent)
}

/// The passwords of one lab, made up for it.
#[derive(Clone)]
pub struct Passwords {
    /// Of [`AGENT_USER`].
    pub agent: String,
    /// Of [`SHOP_USER`].
    pub shop: String,
    /// Of the regions' hosts: who knows it may run programs there.
    pub host: String,
    replica: String,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords(..)")
    }
}

impl Passwords {
    /// Random ones.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn random() -> io::Result<Passwords> {
        let word = || {
            let mut bytes = [0; 12];
            io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
            Ok::<String, io::Error>(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        };
        Ok(Passwords { agent: word()?, shop: word()?, host: word()?, replica: word()? })
    }
}

/// How a server is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Commits on the primary wait until the standby has them on disk (see `Lab::synchronise`).
    pub sync: bool,
    /// Leave `wal_retrieve_retry_interval` at its default of 5 s instead of 100 ms. Then `pg_promote` can
    /// stall that long when it arrives in the instant the primary dies.
    pub stall: bool,
}

/// One server.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// Where it is.
    pub region: Region,
    /// Where it listens.
    pub address: SocketAddr,
    folder: PathBuf,
    programs: PathBuf,
    owner: Owner,
    passwords: Passwords,
    setup: Setup,
}

impl Postgres {
    /// A server to be, in the region's folder within `lab`. Nothing is done yet.
    ///
    /// # Errors
    /// When PostgreSQL, or the user it must run as, is not on this machine, or the folder cannot be made.
    pub fn new(
        lab: &Path,
        region: Region,
        address: SocketAddr,
        passwords: &Passwords,
        setup: Setup,
    ) -> Result<Postgres, PostgresError> {
        let folder = region.folder(lab);
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| PostgresError::File { path, source }
        };
        let owner = Owner::of_postgres().map_err(file(Path::new("/etc/passwd")))?;
        fs::create_dir_all(&folder).map_err(file(&folder))?;
        owner.take(&folder).map_err(file(&folder))?;
        let passwords = passwords.clone();
        Ok(Postgres { region, address, folder, programs: programs()?, owner, passwords, setup })
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        data_folder(&self.folder)
    }

    /// The folder of its programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        log_file(&self.folder)
    }

    /// Makes the primary's data folder.
    ///
    /// # Errors
    /// When initdb fails.
    pub async fn init(&self) -> Result<(), PostgresError> {
        let password = self.secret("superuser.password", &self.passwords.agent)?;
        let mut args = vec!["--pgdata=data".to_owned(), format!("--username={AGENT_USER}")];
        args.push(format!("--pwfile={}", password.display()));
        // A scratch cluster: its first files need not be forced to disk. The running server does fsync.
        args.extend(
            ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"].map(str::to_owned),
        );
        self.run("initdb", &args).await?;
        let rules =
            "host all all 127.0.0.0/8 scram-sha-256\nhost replication all 127.0.0.0/8 scram-sha-256\n";
        self.write("data/pg_hba.conf", rules)?;
        self.append("data/postgresql.conf", "include 'lab.conf'\n")?;
        self.configure(None)
    }

    /// Makes a standby's data folder by copying the server at `source`, which it will follow.
    ///
    /// # Errors
    /// When pg_basebackup fails.
    pub async fn follow(&self, source: SocketAddr) -> Result<(), PostgresError> {
        let secret = self.replica_passfile()?;
        let source = format!(
            "host={} port={} user={REPLICA_USER} application_name={} connect_timeout=3 passfile={}",
            source.ip(),
            source.port(),
            self.region,
            secret.display()
        );
        let slot = format!("--slot={}", self.region);
        let rest =
            ["--pgdata=data", "--write-recovery-conf", "--create-slot", "--checkpoint=fast", "--no-sync"];
        let mut args = vec![format!("--dbname={source}"), slot];
        args.extend(rest.map(str::to_owned));
        self.run("pg_basebackup", &args).await?;
        self.configure(None)
    }

    /// The file by which a standby here proves itself to its primary; written again by each call.
    pub(crate) fn replica_passfile(&self) -> Result<PathBuf, PostgresError> {
        self.secret("replica.pgpass", &format!("*:*:*:{REPLICA_USER}:{}\n", self.passwords.replica))
    }

    /// The same for [`AGENT_USER`], as whom the host's own tools log in.
    pub(crate) fn agent_passfile(&self) -> Result<PathBuf, PostgresError> {
        self.secret("lifeboat.pgpass", &format!("*:*:*:{AGENT_USER}:{}\n", self.passwords.agent))
    }

    /// Writes the lab's settings, with the standby that commits wait for, if they wait for one.
    pub(crate) fn configure(&self, sync: Option<Region>) -> Result<(), PostgresError> {
        let Postgres { region, address, .. } = self;
        let sync = sync.map_or("", Region::name);
        let retry = if self.setup.stall { "5s" } else { "100ms" };
        let lines = format!(
            "listen_addresses = '{}'\nport = {}\nunix_socket_directories = ''\ncluster_name = '{region}'\n\
             max_connections = 100\nshared_buffers = 64MB\nwal_level = replica\nmax_wal_senders = 8\n\
             max_replication_slots = 8\nwal_keep_size = 128MB\nwal_log_hints = on\nhot_standby = on\n\
             password_encryption = scram-sha-256\nsynchronous_standby_names = '{sync}'\n\
             wal_retrieve_retry_interval = {retry}\nlog_line_prefix = '%m [%p] '\n",
            address.ip(),
            address.port(),
        );
        self.write("data/lab.conf", &lines)
    }

    /// Returns once a client can log in; the region's host starts it (see `host.rs`).
    ///
    /// # Errors
    /// When none can within 60 s.
    pub async fn answers(&self) -> Result<(), PostgresError> {
        let ready = async {
            while self.connect_to("postgres", AGENT_USER).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ready = tokio::time::timeout(READY_WITHIN, ready).await;
        ready.map_err(|_| PostgresError::NotStarted { region: self.region, log: self.log_tail() })
    }

    /// Makes the users and the tables on the primary, one of them of `ballast_mb` megabytes.
    ///
    /// # Errors
    /// When a statement fails.
    pub async fn furnish(&self, ballast_mb: u32) -> Result<(), PostgresError> {
        let sql = |act| move |source| PostgresError::Sql { region: self.region, act, source };
        let server = self.connect_to("postgres", AGENT_USER).await?;
        let users = format!(
            "CREATE ROLE {SHOP_USER} LOGIN PASSWORD '{}'; CREATE ROLE {REPLICA_USER} LOGIN REPLICATION PASSWORD '{}'",
            self.passwords.shop, self.passwords.replica
        );
        server.batch_execute(&users).await.map_err(sql("making the users"))?;
        let database = format!("CREATE DATABASE {DATABASE} OWNER {SHOP_USER}");
        server.batch_execute(&database).await.map_err(sql("making the database"))?;
        let tables = format!(
            "CREATE TABLE orders (id text PRIMARY KEY, sent_ms bigint NOT NULL, region text NOT NULL, \
               committed timestamptz NOT NULL DEFAULT clock_timestamp()); \
             ALTER TABLE orders OWNER TO {SHOP_USER}; \
             CREATE TABLE product (sku int PRIMARY KEY, name text NOT NULL, cents int NOT NULL); \
             INSERT INTO product SELECT n, 'product ' || n, n * 7 % 9973 FROM generate_series(1, {REFERENCE_ROWS}) n; \
             GRANT SELECT ON product TO {SHOP_USER}; \
             CREATE TABLE {ENTRIES} (load text NOT NULL, id bigint NOT NULL, region text NOT NULL, \
               sent_ms bigint NOT NULL, committed timestamptz NOT NULL DEFAULT clock_timestamp()); \
             ALTER TABLE {ENTRIES} OWNER TO {SHOP_USER}; \
             CREATE TABLE ballast (id int PRIMARY KEY, filler text NOT NULL); \
             INSERT INTO ballast SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, {ballast}) n",
            ballast = u64::from(ballast_mb) * 128 * BALLAST_ROWS_A_PAGE,
        );
        let server = self.connect(AGENT_USER).await?;
        server.batch_execute(&tables).await.map_err(sql("making the tables"))?;
        // Else the first who reads them all writes as much log as they are long, and whoever follows copies it.
        let tidy = "VACUUM (FREEZE, ANALYZE) product, ballast";
        server.batch_execute(tidy).await.map_err(sql("tidying the tables up"))
    }

    /// A session with the shop's database, directly (through no proxy).
    ///
    /// # Errors
    /// When the server refuses or does not answer within 5 s.
    pub async fn connect(&self, user: &str) -> Result<Client, PostgresError> {
        self.connect_to(DATABASE, user).await
    }

    async fn connect_to(&self, database: &str, user: &str) -> Result<Client, PostgresError> {
        let mut config = tokio_postgres::Config::new();
        let password = if user == SHOP_USER { &self.passwords.shop } else { &self.passwords.agent };
        config.host(self.address.ip().to_string()).port(self.address.port()).dbname(database).user(user);
        config.password(password).connect_timeout(Duration::from_secs(5)).application_name("lab");
        let sql = |source| PostgresError::Sql { region: self.region, act: "connecting", source };
        let (client, connection) = config.connect(NoTls).await.map_err(sql)?;
        // The session's end is seen by whoever uses the client.
        tokio::spawn(async move { connection.await.ok() });
        Ok(client)
    }

    /// The last 20 lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log_tail(&self.log())
    }

    async fn run(&self, program: &'static str, args: &[String]) -> Result<(), PostgresError> {
        let mut command = tokio::process::Command::from(tethered(&self.programs.join(program), self.owner));
        command
            .args(args)
            .current_dir(&self.folder)
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", "/usr/bin:/bin");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let failed = |output| PostgresError::Program { program, output };
        let output = command.output().await.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// Makes a folder in the region's folder that belongs to the server's user.
    pub(crate) fn folder(&self, name: &str) -> Result<(), PostgresError> {
        let path = self.folder.join(name);
        fs::create_dir_all(&path)
            .and_then(|()| self.owner.take(&path))
            .map_err(|source| PostgresError::File { path, source })
    }

    /// Writes a file in the region's folder that belongs to the server's user.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), PostgresError> {
        let path = self.folder.join(name);
        fs::write(&path, text)
            .and_then(|()| self.owner.take(&path))
            .map_err(|source| PostgresError::File { path, source })
    }

    fn append(&self, name: &str, text: &str) -> Result<(), PostgresError> {
        let path = self.folder.join(name);
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(|source| PostgresError::File { path, source })
    }

    /// A file in the region's folder that only its owner may read.
    pub(crate) fn secret(&self, name: &str, text: &str) -> Result<PathBuf, PostgresError> {
        let path = self.folder.join(name);
        write_secret(&path, text)
            .and_then(|()| self.owner.take(&path))
            .map_err(|source| PostgresError::File { path: path.clone(), source })?;
        Ok(path)
    }
}

/// The data folder in a region's folder.
pub(crate) fn data_folder(region: &Path) -> PathBuf {
    region.join("data")
}

/// The server's log in a region's folder.
pub(crate) fn log_file(region: &Path) -> PathBuf {
    region.join("postgres.log")
}

/// The last 20 lines of a log.
pub(crate) fn log_tail(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Writes a file that only its owner may read, from its first byte on.
///
/// # Errors
/// As open(2) and write(2).
pub fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}
