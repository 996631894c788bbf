//! A primary and its standby, started for one test and gone after it.
//!
//! **Invariant:** loopback only, free ports, files in a folder of their own, processes ended by their id on drop.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use lifeboat_core::{AgentName, DatabaseName, Epoch, Moment, RegionName, RunId};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Ask, Call, Role};
use lifeboat_postgres::{Member, Options, Tls};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// How long anything may take that must happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const CONFIGURATION: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
max_connections = 30
shared_buffers = 16MB
wal_keep_size = 64MB
dynamic_shared_memory_type = mmap
log_min_messages = info
";

const ACCESS: &str = "
host all guarded 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
";

const ROLES: &str = "CREATE ROLE app LOGIN; CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'open sesame';
CREATE TABLE orders (id bigserial PRIMARY KEY); GRANT ALL ON orders, orders_id_seq TO app;";

/// A folder that the unprivileged user of the servers owns.
fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("lifeboat-pg-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if let Some(user) = servers_user() {
        chown(folder.path(), Some(user), Some(user)).unwrap();
    }
    folder
}

/// The user id the servers run as when the tests run as root, which PostgreSQL refuses.
fn servers_user() -> Option<u32> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    (id(&["-u"]) == 0).then(|| id(&["-u", "postgres"]))
}

/// `program` of PostgreSQL (or any), as that user.
fn as_servers_user(program: &str) -> Command {
    let newest =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let own = newest.max().map(|version| version.join("bin").join(program)).filter(|path| path.exists());
    let program = own.unwrap_or_else(|| PathBuf::from(program));
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

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A cluster that was made and stopped; each test gets copies of it.
struct Template {
    folder: TempDir,
}

impl Template {
    /// The one that is in use now, or a new one.
    async fn get() -> Arc<Self> {
        static IN_USE: Mutex<Weak<Template>> = Mutex::new(Weak::new());
        if let Some(template) = IN_USE.lock().unwrap().upgrade() {
            return template;
        }
        let template = Arc::new(Self::make().await);
        let mut in_use = IN_USE.lock().unwrap();
        in_use.upgrade().unwrap_or_else(|| {
            *in_use = Arc::downgrade(&template);
            template
        })
    }

    async fn make() -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        run(as_servers_user("initdb").arg("-D").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--wal-segsize=1",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]));
        fs::write(data.join("postgresql.conf"), CONFIGURATION).unwrap();
        fs::write(data.join("pg_hba.conf"), ACCESS).unwrap();
        let mut server = Server::launch(data, "template", None);
        server.ready().await;
        server.client().await.batch_execute(ROLES).await.unwrap();
        server.stop();
        Self { folder }
    }

    fn copy_to(&self, data: &Path) {
        run(as_servers_user("cp").arg("-a").arg(self.folder.path().join("data")).arg(data));
    }
}

/// One running server.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) region: &'static str,
    data: PathBuf,
    child: Child,
}

impl Server {
    fn launch(data: PathBuf, region: &'static str, primary: Option<u16>) -> Self {
        if let Some(primary) = primary {
            let conninfo = format!("host=127.0.0.1 port={primary} user=postgres password=open-sesame");
            let follow = format!("cluster_name = '{region}'\nprimary_conninfo = '{conninfo}'\n");
            fs::write(data.join("postgresql.conf"), format!("{CONFIGURATION}{follow}")).unwrap();
            fs::write(data.join("standby.signal"), "").unwrap();
        }
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let child = Self::spawn(&data, port);
        Self { port, region, data, child }
    }

    fn spawn(data: &Path, port: u16) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(data.with_extension("log")).unwrap();
        let mut command = as_servers_user("postgres");
        command.arg("-D").arg(data).arg("-p").arg(port.to_string()).env("LC_ALL", "C");
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// Starts it again where it was.
    pub(crate) async fn restart(&mut self) {
        self.child = Self::spawn(&self.data, self.port);
        self.ready().await;
    }

    /// Waits until it takes sessions.
    pub(crate) async fn ready(&self) {
        until("the server takes sessions", async || self.connect("postgres").await.is_ok()).await;
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// A file in its data folder that only it may read.
    pub(crate) fn put(&self, name: &str, content: &str) {
        let path = self.data.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some(user) = servers_user() {
            chown(&path, Some(user), Some(user)).unwrap();
        }
    }

    /// A session of a user, as any client would open it.
    pub(crate) async fn connect(&self, user: &str) -> Result<Client, tokio_postgres::Error> {
        self.connect_with(user, "").await
    }

    /// A session with start-up options.
    pub(crate) async fn connect_with(
        &self,
        user: &str,
        options: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user(user).dbname("postgres").options(options);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A session of the superuser, past a fence if there is one.
    pub(crate) async fn client(&self) -> Client {
        self.connect_with("postgres", "-c session_preload_libraries=").await.unwrap()
    }

    /// One value, as text, by the superuser.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let row = self.client().await.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// Makes a setting and has it read.
    pub(crate) async fn set(&self, name: &str, value: &str) {
        let client = self.client().await;
        client.execute(&format!("ALTER SYSTEM SET {name} = {value}"), &[]).await.unwrap();
        client.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
        let shows = format!("setting FROM pg_settings WHERE name = '{name}'");
        let wanted = value.trim_matches('\'').to_owned();
        until("the setting is read", async || self.value(&format!("SELECT {shows}")).await == wanted).await;
    }

    fn processes(&self) -> Vec<String> {
        let postmaster = self.child.id();
        let children =
            fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        let children = children.split_whitespace().map(str::to_owned);
        std::iter::once(postmaster.to_string()).chain(children).collect()
    }

    fn signal(&self, signal: &str) {
        // A child may end between the listing and the signal, which is no error.
        Command::new("kill").arg(signal).args(self.processes()).stderr(Stdio::null()).status().unwrap();
    }

    /// Ends every process of it, as losing the machine would.
    pub(crate) fn kill(&mut self) {
        self.signal("-KILL");
        self.child.wait().unwrap();
    }

    /// A shell line that does so; a child that has ended already is no failure.
    pub(crate) fn kill_line(&self) -> String {
        format!("kill -KILL {} || true", self.processes().join(" "))
    }

    /// Stops every process of it in its tracks: connected, and silent.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Shuts it down in order.
    pub(crate) fn stop(&mut self) {
        Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap();
    }

    /// What a member of it is made with.
    pub(crate) fn options(&self) -> Options {
        Options {
            workload: "shop".into(),
            database: DatabaseName::new("orders"),
            region: RegionName::new(self.region),
            host: "127.0.0.1".to_owned(),
            port: self.port,
            dbname: "postgres".to_owned(),
            user: "postgres".to_owned(),
            password_file: None,
            tls: Tls::Off,
            heartbeat: true,
            system: None,
            fence: None,
            replication: None,
            host_command: None,
            slots: Vec::new(),
        }
    }

    /// A member of it.
    pub(crate) fn member(&self) -> Member {
        member(self.options())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // In this order, a frozen server ends, and takes its shared memory with it.
            let postmaster = self.child.id().to_string();
            self.thaw();
            let _ = Command::new("kill").args(["-QUIT", &postmaster]).status();
            let begun = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if matches!(self.child.try_wait(), Ok(None)) {
                self.signal("-KILL");
                let _ = self.child.wait();
            }
        }
    }
}

/// A primary in `east`, a standby in `west`. Servers are dropped before their folder.
pub(crate) struct Pair {
    pub(crate) east: Server,
    pub(crate) west: Server,
    _folder: TempDir,
    _template: Arc<Template>,
}

impl Pair {
    /// Starts both, and waits until the standby streams.
    pub(crate) async fn start() -> Self {
        let template = Template::get().await;
        let folder = folder();
        let (east, west) = (folder.path().join("east"), folder.path().join("west"));
        template.copy_to(&east);
        template.copy_to(&west);
        let east = Server::launch(east, "east", None);
        let west = Server::launch(west, "west", Some(east.port));
        let pair = Self { east, west, _folder: folder, _template: template };
        pair.east.ready().await;
        pair.west.ready().await;
        until("the standby streams", async || {
            pair.west.value("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'").await
                == "1"
        })
        .await;
        pair
    }
}

/// A server by itself.
pub(crate) struct Single {
    pub(crate) server: Server,
    folder: TempDir,
    _template: Arc<Template>,
}

impl Single {
    /// Starts it.
    pub(crate) async fn start() -> Self {
        let template = Template::get().await;
        let folder = folder();
        template.copy_to(&folder.path().join("east"));
        let server = Server::launch(folder.path().join("east"), "east", None);
        server.ready().await;
        Self { server, folder, _template: template }
    }

    /// A folder for a test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
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

pub(crate) fn member(options: Options) -> Member {
    Member::new(options, Clock::start())
}

/// An ask of epoch 7, stamped `at`.
pub(crate) fn ask(expect: Role, at: u64) -> Ask {
    let agent = AgentName::new("bastion");
    Ask { agent, at: Moment::from_millis(at), epoch: Epoch::new(7), expect, limit: Duration::from_secs(10) }
}

/// A call of an epoch.
pub(crate) fn call(epoch: u64) -> Call {
    let run = RunId::of(&"shop".into(), Epoch::new(epoch));
    Call { run, agent: AgentName::new("bastion"), epoch: Epoch::new(epoch), limit: Duration::from_secs(20) }
}
