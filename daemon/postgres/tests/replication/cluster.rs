//! A server, started for one test and gone after it.
//!
//! **Invariant:** loopback only, free ports, files in a folder of their own, processes ended by their id on drop.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use lifeboat_core::Lsn;
use lifeboat_engine::clock::Clock;
use lifeboat_postgres::Tls;
use lifeboat_postgres::replication::{Endpoint, Replication};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// How long anything may take that must happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a segment of the log of these clusters.
pub(crate) const SEGMENT: u64 = 1 << 20;

const CONFIGURATION: &str = "
listen_addresses = '127.0.0.1'
fsync = off
autovacuum = off
max_connections = 20
shared_buffers = 16MB
wal_level = logical
wal_keep_size = 512MB
max_wal_size = 1GB
dynamic_shared_memory_type = mmap
log_min_messages = info
";

const ACCESS: &str = "
local all all trust
local replication all trust
host replication scram 127.0.0.1/32 scram-sha-256
host replication md5 127.0.0.1/32 md5
host replication plain 127.0.0.1/32 password
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
";

/// A folder that the unprivileged user of the servers owns.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("lifeboat-repl-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    give_away(folder.path());
    folder
}

/// Makes a path the servers' user's.
fn give_away(path: &Path) {
    if let Some(user) = servers_user() {
        chown(path, Some(user), Some(user)).unwrap();
    }
}

/// The user id the servers run as when the tests run as root, which PostgreSQL refuses.
fn servers_user() -> Option<u32> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    (id(&["-u"]) == 0).then(|| id(&["-u", "postgres"]))
}

/// The folder of PostgreSQL's programs.
fn programs() -> PathBuf {
    if let Some(named) = std::env::var_os("LIFEBOAT_TEST_POSTGRES") {
        let named = PathBuf::from(named);
        assert!(named.join("postgres").exists(), "LIFEBOAT_TEST_POSTGRES has no server: {named:?}");
        return named;
    }
    let installed = fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path());
    installed.max().unwrap().join("bin")
}

/// Whether this installation has `program`.
pub(crate) fn has(program: &str) -> bool {
    programs().join(program).exists()
}

/// `program` of PostgreSQL, or of the system, as the servers' user.
pub(crate) fn as_servers_user(program: &str) -> Command {
    let own = programs().join(program);
    let program = if own.exists() { own } else { PathBuf::from(program) };
    let mut command = match servers_user() {
        Some(_) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
    command
}

/// Runs it; what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

/// A cluster that was made and never started; each test gets a copy.
struct Template {
    folder: TempDir,
}

impl Template {
    fn get() -> Arc<Self> {
        static IN_USE: Mutex<Weak<Template>> = Mutex::new(Weak::new());
        let mut in_use = IN_USE.lock().unwrap();
        in_use.upgrade().unwrap_or_else(|| {
            let template = Arc::new(Self::make());
            *in_use = Arc::downgrade(&template);
            template
        })
    }

    fn make() -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        run(as_servers_user("initdb").arg("-D").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--wal-segsize=1",
            "--data-checksums",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]));
        fs::write(data.join("pg_hba.conf"), ACCESS).unwrap();
        Self { folder }
    }
}

/// One running server.
pub(crate) struct Cluster {
    pub(crate) port: u16,
    pub(crate) data: PathBuf,
    child: Child,
    folder: TempDir,
}

impl Cluster {
    /// A new cluster, with settings of its own.
    pub(crate) async fn start(settings: &str) -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        run(as_servers_user("cp").arg("-a").arg(Template::get().folder.path().join("data")).arg(&data));
        Self::launch(folder, settings).await
    }

    /// A server on a data folder that is there, in `folder`, under the name `data`.
    pub(crate) async fn launch(folder: TempDir, settings: &str) -> Self {
        let data = folder.path().join("data");
        let sockets = folder.path().display();
        let text = format!("{CONFIGURATION}\nunix_socket_directories = '{sockets}'\n{settings}\n");
        fs::write(data.join("postgresql.conf"), text).unwrap();
        give_away(&data.join("postgresql.conf"));
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let child = Self::spawn(&data, port);
        let cluster = Self { port, data, child, folder };
        cluster.ready().await;
        cluster
    }

    fn spawn(data: &Path, port: u16) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(data.with_extension("log")).unwrap();
        let mut command = as_servers_user("postgres");
        command.arg("-D").arg(data).arg("-p").arg(port.to_string());
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    async fn ready(&self) {
        until("the server takes sessions", async || self.connect("postgres").await.is_ok()).await;
    }

    /// Its folder: that of its socket, its log and its data.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    async fn connect(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Whether it lets no client in.
    pub(crate) async fn is_closed(&self) -> bool {
        self.connect("postgres").await.is_err()
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) {
        self.run_in("postgres", sql).await;
    }

    /// Runs statements in a database.
    pub(crate) async fn run_in(&self, database: &str, sql: &str) {
        self.connect(database).await.unwrap().batch_execute(sql).await.unwrap();
    }

    /// One value, as text.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let client = self.connect("postgres").await.unwrap();
        let row = client.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// One position.
    pub(crate) async fn lsn(&self, sql: &str) -> Lsn {
        Lsn::parse(&self.value(sql).await).unwrap()
    }

    /// Ends the present segment of the log, and begins another.
    pub(crate) async fn next_segment(&self) {
        self.run("CREATE TABLE IF NOT EXISTS filler (x int); INSERT INTO filler VALUES (1);").await;
        self.value("pg_switch_wal()").await;
    }

    /// Where it is, as a superuser reaches it over TCP.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            user: "postgres".to_owned(),
            dbname: "postgres".to_owned(),
            password_file: None,
            tls: Tls::Off,
            application_name: "archive".to_owned(),
            system: None,
            limit: PATIENCE,
            silence: PATIENCE,
            clock: Clock::start(),
        }
    }

    /// A connection to it.
    pub(crate) async fn replication(&self) -> Replication {
        Replication::connect(self.endpoint()).await.unwrap()
    }

    /// A file in its data folder that only it may read.
    pub(crate) fn put(&self, name: &str, content: &[u8]) {
        let path = self.data.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        give_away(&path);
    }

    fn signal(&self, signal: &str) {
        let postmaster = self.child.id();
        let children =
            fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        let all = children.split_whitespace().map(str::to_owned).chain([postmaster.to_string()]);
        // A child may end between the listing and the signal, which is no error.
        Command::new("kill").arg(signal).args(all).stderr(Stdio::null()).status().unwrap();
    }

    /// Ends every process of it, as losing the machine would.
    pub(crate) fn kill(&mut self) {
        self.signal("-KILL");
        self.child.wait().unwrap();
    }

    /// Stops every process of it in its tracks: connected, and silent.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Begins to shut it down in order, without waiting.
    pub(crate) fn begin_stop(&self) {
        Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status().unwrap();
    }

    /// Shuts it down in order.
    pub(crate) fn stop(&mut self) {
        self.begin_stop();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.thaw(); // A frozen server would not hear it.
            let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
            let begun = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if matches!(self.child.try_wait(), Ok(None)) {
                self.kill();
            }
        }
    }
}

/// Looks every few milliseconds until `condition` holds; fails when it never does.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Makes everything below a path the servers' user's.
pub(crate) fn give_away_all(path: &Path) {
    if let Some(user) = servers_user() {
        run(Command::new("chown").arg("-R").arg(format!("{user}:{user}")).arg(OsStr::new(path)));
    }
}
