//! Two servers of one cluster, the tool that makes one follow the other, and what tests ask of them.
//!
//! **Invariant:** loopback only, free ports, files in a folder of their own, servers stopped on drop.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lifeboat_core::outcome::{Fork, Rejoined, Salvage};
use lifeboat_core::{Epoch, Fault, Lsn, RunId, Source, SystemIdentifier, Timeline};
use lifeboat_postgres::host::{Act, Done, Reply, Request, VERSION};
use tempfile::TempDir;

/// Names the configuration, and makes this test binary the tool.
pub(crate) const TOOL: &str = "LIFEBOAT_HOST_TEST_TOOL";

/// How long anything may take that must happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const ACCESS: &str = "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";

/// The user id the servers run as when the tests run as root, which PostgreSQL refuses.
fn servers_user() -> Option<u32> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    (id(&["-u"]) == 0).then(|| id(&["-u", "postgres"]))
}

/// The folder of the newest PostgreSQL's programs.
pub(crate) fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path());
    versions.max().unwrap().join("bin")
}

/// A program as that user.
pub(crate) fn as_servers_user(program: &Path) -> Command {
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

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.trim().to_owned()
}

/// `east`, the primary of the first hour, and `west`, its standby.
pub(crate) struct Pair {
    pub(crate) folder: TempDir,
    pub(crate) east: u16,
    pub(crate) west: u16,
}

impl Drop for Pair {
    fn drop(&mut self) {
        for region in ["east", "west"] {
            let mut stop = as_servers_user(&programs().join("pg_ctl"));
            stop.args(["stop", "-s", "-w", "-m", "immediate", "-D"]).arg(self.data(region));
            let _ = stop.stderr(Stdio::null()).status();
        }
    }
}

impl Pair {
    /// Starts both, and waits until the standby streams.
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("lifeboat-host-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(user) = servers_user() {
            chown(folder.path(), Some(user), Some(user)).unwrap();
        }
        let port = || std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let pair = Self { folder, east: port(), west: port() };
        let east = pair.data("east");
        let mut initdb = as_servers_user(&programs().join("initdb"));
        initdb.arg("-D").arg(&east).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "--wal-segsize=1",
            "-N",
            "--locale=C",
        ]);
        run(&mut initdb);
        pair.write(&east.join("pg_hba.conf"), ACCESS);
        pair.configure("east", "");
        pair.ctl("start", "east");
        pair.sql("east", "SELECT pg_create_physical_replication_slot('west', true)");
        let mut copy = as_servers_user(&programs().join("pg_basebackup"));
        copy.args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-N",
            "-c",
            "fast",
            "-p",
            &pair.east.to_string(),
            "-D",
        ]);
        run(copy.arg(pair.data("west")));
        let follow = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres application_name=west'\nprimary_slot_name = 'west'\n",
            pair.east
        );
        pair.configure("west", &follow);
        pair.write(&pair.data("west").join("standby.signal"), "");
        pair.ctl("start", "west");
        pair.until_streams("west");
        pair.write(&pair.folder.path().join("host.toml"), &pair.config(true));
        let tool = pair.folder.path().join("tool");
        fs::copy(std::env::current_exe().unwrap(), &tool).unwrap();
        pair
    }

    pub(crate) fn config(&self, rebuild: bool) -> String {
        let top = self.folder.path().display();
        format!(
            "state = \"{top}/state\"\nsalvage = \"{top}/salvage\"\n[[server]]\ndatabase = \"orders\"\n\
             data = \"{top}/east\"\nprograms = \"{}\"\nlocal = \"host=127.0.0.1 port={} user=postgres\"\n\
             source = \"user=postgres\"\nrebuild = {rebuild}\n",
            programs().display(),
            self.east
        )
    }

    pub(crate) fn data(&self, region: &str) -> PathBuf {
        self.folder.path().join(region)
    }

    pub(crate) fn port(&self, region: &str) -> u16 {
        if region == "east" { self.east } else { self.west }
    }

    pub(crate) fn write(&self, path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        if let Some(user) = servers_user() {
            chown(path, Some(user), Some(user)).unwrap();
        }
    }

    /// Writes a server's configuration.
    pub(crate) fn configure(&self, region: &str, more: &str) {
        let text = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
             wal_log_hints = on\nshared_buffers = 16MB\nwal_retrieve_retry_interval = 100ms\nmax_connections = 30\n\
             min_wal_size = 2MB\nmax_wal_size = 4MB\nwal_keep_size = 16MB\ncluster_name = '{region}'\n{more}",
            self.port(region)
        );
        self.write(&self.data(region).join("postgresql.conf"), &text);
    }

    pub(crate) fn ctl(&self, act: &str, region: &str) {
        let mut ctl = as_servers_user(&programs().join("pg_ctl"));
        ctl.args([act, "-s", "-w", "-D"]).arg(self.data(region));
        ctl.arg("-l").arg(self.folder.path().join(format!("{region}.log")));
        ctl.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(ctl.status().unwrap().success(), "{act} {region}");
    }

    /// Ends a server as losing its machine would.
    pub(crate) fn crash(&self, region: &str) {
        self.ctl_stop(region, "immediate");
    }

    pub(crate) fn ctl_stop(&self, region: &str, mode: &str) {
        let mut ctl = as_servers_user(&programs().join("pg_ctl"));
        run(ctl.args(["stop", "-s", "-w", "-m", mode, "-D"]).arg(self.data(region)));
    }

    pub(crate) fn try_sql(&self, region: &str, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = as_servers_user(&programs().join("psql"));
        psql.env("PGOPTIONS", "-c session_preload_libraries=");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
        psql.args(["-d", database, "-p", &self.port(region).to_string(), "-c", sql]);
        let output = psql.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub(crate) fn sql(&self, region: &str, sql: &str) -> String {
        self.try_sql(region, "postgres", sql).unwrap()
    }

    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn streams(&self, region: &str) -> bool {
        let query = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        self.try_sql(region, "postgres", query).is_ok_and(|count| count == "1")
    }

    pub(crate) fn until_streams(&self, region: &str) {
        self.until("it streams", || self.streams(region));
    }

    /// Promotes the standby as the agent would, and says what the old primary has to know.
    pub(crate) fn promote(&self) -> Source {
        self.sql("west", "SELECT pg_promote()");
        self.sql("west", "CHECKPOINT");
        self.sql("west", "SELECT pg_create_physical_replication_slot('east', true)");
        self.source()
    }

    pub(crate) fn source(&self) -> Source {
        let timeline: u32 =
            self.sql("west", "SELECT timeline_id FROM pg_control_checkpoint()").parse().unwrap();
        let history =
            fs::read_to_string(self.data("west").join(format!("pg_wal/{timeline:08X}.history"))).unwrap();
        let fork = |line: &str| {
            let mut parts = line.split_whitespace();
            let timeline = Timeline::new(parts.next()?.parse().ok()?);
            Some(Fork { timeline, lsn: Lsn::parse(parts.next()?)? })
        };
        Source {
            region: "west".into(),
            host: "127.0.0.1".to_owned(),
            port: self.west,
            system: self.system(),
            timeline: Timeline::new(timeline),
            lineage: history.lines().filter_map(fork).collect(),
            slot: "east".to_owned(),
        }
    }

    pub(crate) fn system(&self) -> SystemIdentifier {
        let said = run(as_servers_user(&programs().join("pg_controldata")).arg(self.data("west")));
        let line = said.lines().find(|line| line.starts_with("Database system identifier")).unwrap();
        SystemIdentifier::new(line.split_once(':').unwrap().1.trim().parse().unwrap())
    }

    /// Cuts east off, lets it commit what nobody else has, and promotes west.
    pub(crate) fn part(&self, isolated: &str) -> Source {
        self.sql("east", "ALTER SYSTEM SET work_mem = '9MB'");
        self.until("the standby has it all", || {
            self.sql(
                "east",
                "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()",
            ) == "1"
        });
        // The standby loses its primary first.
        let elsewhere = "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'";
        self.sql("west", elsewhere);
        self.sql("west", "SELECT pg_reload_conf()");
        self.until("the standby is cut off", || !self.streams("west"));
        self.sql("east", "SELECT pg_drop_replication_slot('west') FROM pg_sleep(0)");
        self.sql("east", isolated);
        self.promote()
    }

    /// Fences east as lifeboat does.
    pub(crate) fn fence(&self) {
        self.sql("east", "ALTER SYSTEM SET session_preload_libraries = 'fenced_by_lifeboat'");
        self.sql("east", "ALTER SYSTEM SET default_transaction_read_only = on");
        self.sql("east", "SELECT pg_reload_conf()");
    }

    pub(crate) fn request(&self, epoch: u64, act: Act) -> Request {
        Request {
            version: VERSION,
            workload: "shop".into(),
            database: "orders".into(),
            region: "east".into(),
            run: RunId::of(&"shop".into(), Epoch::new(epoch)),
            agent: "bastion".into(),
            epoch: Epoch::new(epoch),
            system: self.system(),
            limit_ms: 40_000,
            act,
        }
    }

    /// Starts the tool with a request.
    pub(crate) fn tool(&self, bytes: &[u8]) -> Child {
        let mut command = as_servers_user(&self.folder.path().join("tool"));
        command.args(["--exact", "tool", "--nocapture"]).env(TOOL, self.folder.path().join("host.toml"));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        child
    }

    /// What the tool answers.
    pub(crate) fn say(&self, bytes: &[u8]) -> Result<Done, Fault> {
        let output = self.tool(bytes).wait_with_output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let reply = out.lines().find_map(|line| serde_json::from_str(line).ok());
        match reply.unwrap_or_else(|| panic!("no reply: {out}")) {
            Reply::Done(done) => Ok(done),
            Reply::Failed(fault) => Err(fault),
        }
    }

    pub(crate) fn ask(&self, epoch: u64, act: Act) -> Result<Done, Fault> {
        self.say(&serde_json::to_vec(&self.request(epoch, act)).unwrap())
    }

    pub(crate) fn rejoin(&self, epoch: u64, source: &Source) -> Result<Rejoined, Fault> {
        let act = Act::Rejoin { source: source.clone(), drop_slots: vec!["west".to_owned()] };
        match self.ask(epoch, act)? {
            Done::Rejoined(rejoined) => Ok(rejoined),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn salvage(&self, epoch: u64, source: &Source) -> Result<Salvage, Fault> {
        match self.ask(epoch, Act::Salvage { source: source.clone() })? {
            Done::Salvaged(salvage) => Ok(salvage),
            other => panic!("{other:?}"),
        }
    }
}
