//! PostgreSQL servers started for one test and gone after it, and clients that write over open sessions.
//!
//! **Invariant:** loopback only, free ports, files in a folder of their own, processes ended by their id on drop.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lifeboat_sentry::boottime::Boottime;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// How long anything may take that must happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const CONFIGURATION: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
max_connections = 40
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
logging_collector = on
";

/// Waits until `condition` holds; fails when it never does.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A folder that the servers' user owns.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("lifeboat-sn-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    give(folder.path());
    folder
}

/// Gives a file to the servers' user.
pub(crate) fn give(path: &Path) {
    if let Some(user) = servers_user() {
        chown(path, Some(user), Some(user)).unwrap();
    }
}

fn servers_user() -> Option<u32> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    (id(&["-u"]) == 0).then(|| id(&["-u", "postgres"]))
}

/// A program, as the servers' user: PostgreSQL refuses root.
pub(crate) fn as_servers_user(program: &Path) -> Command {
    let mut command = match servers_user() {
        Some(_) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn programs(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path());
    versions.max().unwrap().join("bin").join(name)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Sends a signal to processes; one may have ended by itself, which is no error.
pub(crate) fn signal(signal: &str, processes: &[u32]) {
    let processes = processes.iter().map(u32::to_string);
    Command::new("kill").arg(signal).args(processes).stderr(Stdio::null()).status().unwrap();
}

/// Whether a process lives.
pub(crate) fn lives(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// One server.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) data: PathBuf,
    child: Child,
}

impl Server {
    /// Makes a primary in `folder`.
    pub(crate) async fn primary(folder: &Path) -> Self {
        let data = folder.join("data");
        run(as_servers_user(&programs("initdb")).arg("-D").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--wal-segsize=1",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]));
        fs::write(data.join("postgresql.conf"), CONFIGURATION).unwrap();
        let server = Self::launch(data);
        server.ready().await;
        let client = server.connect().await.unwrap();
        client.batch_execute("CREATE TABLE orders (id bigserial PRIMARY KEY)").await.unwrap();
        server
    }

    /// Makes a standby of it.
    pub(crate) async fn standby(&self, folder: &Path) -> Self {
        let data = folder.join("standby");
        let conninfo = format!("host=127.0.0.1 port={} user=postgres", self.port);
        run(as_servers_user(&programs("pg_basebackup"))
            .args(["-R", "--no-sync", "-c", "fast", "-d", &conninfo, "-D"])
            .arg(&data));
        let server = Self::launch(data);
        server.ready().await;
        server
    }

    fn launch(data: PathBuf) -> Self {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let child = Self::spawn(&data, port);
        Self { port, data, child }
    }

    fn spawn(data: &Path, port: u16) -> Child {
        let mut command = as_servers_user(&programs("postgres"));
        command.arg("-D").arg(data).arg("-p").arg(port.to_string()).env("LC_ALL", "C");
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        let _ = self.child.wait();
        self.child = Self::spawn(&self.data, self.port);
    }

    /// Shuts it down in order.
    pub(crate) fn stop(&mut self) {
        signal("-INT", &[self.child.id()]);
        self.child.wait().unwrap();
    }

    pub(crate) async fn ready(&self) {
        until("the server takes sessions", async || self.connect().await.is_ok()).await;
    }

    pub(crate) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// All its processes, the first one first.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let postmaster = self.child.id();
        let children =
            fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        let children = children.split_whitespace().map(|id| id.parse().unwrap());
        std::iter::once(postmaster).chain(children).collect()
    }

    /// Its first process.
    pub(crate) fn postmaster(&self) -> u32 {
        self.child.id()
    }

    /// Whether its first process lives.
    pub(crate) fn runs(&self) -> bool {
        lives(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal("-CONT", &self.processes());
            signal("-QUIT", &[self.child.id()]);
            let _ = self.child.wait();
        }
    }
}

/// Clients that write over sessions they keep open, and remember when they were told that it is done.
pub(crate) struct Writers {
    acknowledged: Arc<Mutex<Vec<Boottime>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts some, and waits until they have written.
    pub(crate) async fn start(server: &Server, count: usize) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for _ in 0..count {
            let client = server.connect().await.unwrap();
            let acknowledged = Arc::clone(&acknowledged);
            tasks.push(tokio::spawn(async move {
                while client.execute("INSERT INTO orders DEFAULT VALUES", &[]).await.is_ok() {
                    acknowledged.lock().unwrap().push(Boottime::now());
                }
            }));
        }
        let writers = Self { acknowledged, tasks };
        let begun = Boottime::now();
        until("they write", async || writers.after(begun).len() > 50).await;
        writers
    }

    /// The acknowledgments after a moment.
    pub(crate) fn after(&self, moment: Boottime) -> Vec<Boottime> {
        self.acknowledged.lock().unwrap().iter().copied().filter(|at| *at > moment).collect()
    }

    /// Waits until every session has ended.
    pub(crate) async fn end(&mut self) {
        for task in self.tasks.drain(..) {
            tokio::time::timeout(PATIENCE, task).await.expect("every open session is ended").unwrap();
        }
    }
}
