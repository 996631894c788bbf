//! A real server, a folder, and back again.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifeboat_archive::folder::Folder;
use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::wal::{Got, SegmentName, SegmentSize, get};
use lifeboat_archive::{Archive, Plan, restore};
use lifeboat_core::{Epoch, Lsn};
use lifeboat_engine::clock::Clock;
use lifeboat_postgres::Tls;
use lifeboat_postgres::replication::Endpoint;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::base::{Job, back_up};
use super::stream::{Received, Reception, receive};

/// How long anything may take that must happen at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of one test, gone with it.
struct Server {
    data: PathBuf,
    sockets: PathBuf,
    child: Child,
}

impl Server {
    fn make(folder: &Path) -> Self {
        let data = folder.join("data");
        let made = user(&tool("initdb"))
            .args(["-k", "-A", "trust", "-U", "postgres", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::start(&data, folder)
    }

    fn start(data: &Path, sockets: &Path) -> Self {
        let mut command = user(&tool("postgres"));
        command.arg("-D").arg(data).args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=16MB",
        ]);
        command.arg("-c").arg(format!("unix_socket_directories={}", sockets.display()));
        let log = fs::File::create(sockets.join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let server = Self { data: data.to_owned(), sockets: sockets.to_owned(), child };
        let begun = Instant::now();
        while server.try_sql("SELECT 1").is_none() {
            let log = || fs::read_to_string(sockets.join("log")).unwrap();
            assert!(begun.elapsed() < PATIENCE, "the server does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn sql(&self, statement: &str) -> String {
        self.try_sql(statement).unwrap_or_else(|| panic!("{statement}"))
    }

    fn try_sql(&self, statement: &str) -> Option<String> {
        let output = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", statement, "-h"])
            .arg(&self.sockets)
            .arg("postgres")
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: self.sockets.display().to_string(),
            port: 5432,
            user: "postgres".to_owned(),
            dbname: "postgres".to_owned(),
            password_file: None,
            tls: Tls::Off,
            application_name: "lifeboat".to_owned(),
            system: None,
            limit: PATIENCE,
            silence: PATIENCE,
            clock: Clock::start(),
        }
    }

    fn kill(&mut self) {
        let postmaster = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let Some(postmaster) = postmaster.lines().next() else { return };
        let _ = Command::new("kill").args(["-9", postmaster]).status();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of PostgreSQL that Debian does not put on the path.
fn tool(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path());
    versions.max().unwrap().join("bin").join(name)
}

fn root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A program, as the servers' user: PostgreSQL refuses root.
fn user(program: &Path) -> Command {
    let mut command = Command::new(if root() { Path::new("setpriv") } else { program });
    if root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    }
    command.current_dir("/");
    command
}

fn give(path: &Path) {
    if root() {
        let id = Command::new("id").args(["-u", "postgres"]).output().unwrap();
        let id: u32 = String::from_utf8(id.stdout).unwrap().trim().parse().unwrap();
        chown(path, Some(id), Some(id)).unwrap();
        for entry in fs::read_dir(path).into_iter().flatten() {
            give(&entry.unwrap().path());
        }
    }
}

fn folder(prefix: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    give(folder.path());
    folder
}

async fn archive(folder: &Path) -> Archive {
    let key = KeyFile::make(&folder.join("key")).unwrap();
    Archive::init(Arc::new(Folder::open(folder.join("archive")).unwrap()), &key).await.unwrap()
}

fn job(server: &Server, own_wal: bool) -> Job {
    Job {
        endpoint: server.endpoint(),
        workload: "shop".into(),
        database: "orders".into(),
        agent: "ash".into(),
        epoch: Epoch::new(3),
        previous: None,
        max_rate: None,
        fast_checkpoint: true,
        own_wal,
    }
}

/// Puts the WAL from `start` up to `end` where a server finds it by itself.
async fn bring_wal(archive: &Archive, plan: &Plan, data: &Path, end: Lsn) {
    let (point, size) = (&plan.manifest().point, SegmentSize::DEFAULT);
    let mut name = SegmentName::of(point.timeline, point.start, size);
    fs::create_dir_all(data.join("pg_wal")).unwrap();
    while name.start(size).unwrap() < end {
        let target = data.join("pg_wal").join(name.to_string());
        let got = get(archive, point.system, &name.to_string(), &target, None, PATIENCE).await.unwrap();
        assert_eq!(got, Got::Found, "{name}");
        name = name.next(size).unwrap();
    }
}

/// The database as it was when the archive heard of it last.
async fn restored(archive: &Archive, backup: &lifeboat_archive::BackupId, end: Lsn, folder: &Path) -> Server {
    let system = lifeboat_archive::manifest::system_folder;
    let listed = archive.store().list("backups/", None).await.unwrap();
    let of = listed.iter().find(|listed| listed.name.as_str().contains(backup.as_str())).unwrap();
    let id = u64::from_str_radix(of.name.as_str().split('/').nth(1).unwrap(), 16).unwrap();
    let id = lifeboat_core::SystemIdentifier::new(id);
    assert!(of.name.as_str().starts_with(&system(id)));
    let plan = Plan::of(archive, id, backup).await.unwrap();
    let data = folder.join("restored");
    plan.run(&data, &restore::Options::default(), Arc::new(|_| {})).await.unwrap();
    bring_wal(archive, &plan, &data, end).await;
    give(&data);
    let sockets = folder.join("sockets");
    fs::create_dir(&sockets).unwrap();
    give(&sockets);
    Server::start(&data, &sockets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_an_idle_server_brings_the_log_it_needs_itself() {
    let place = folder("lifeboat-va-");
    let server = Server::make(place.path());
    server.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n");
    let there = server.sql("SELECT md5(string_agg(t::text, '' ORDER BY n)) FROM t");
    let archive = archive(place.path()).await;
    let mut last = None;
    let done =
        back_up(&archive, &job(&server, true), |progress| last = Some(progress.clone())).await.unwrap();
    let progress = last.unwrap();
    assert!(progress.done > 20_000_000 && progress.total.is_some() && progress.files > 900, "{progress:?}");
    assert_eq!((done.bad_pages, done.warnings.as_slice()), (0, [].as_slice()));
    // Nothing keeps WAL on the server any more for a run that is over.
    assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots"), "0");
    let again = Job { previous: Some(done.summary.backup.clone()), ..job(&server, true) };
    let second = back_up(&archive, &again, |_| {}).await.unwrap();
    assert!(
        second.summary.sums.new * 20 < done.summary.sums.new,
        "{:?} after {:?}",
        second.summary.sums,
        done.summary.sums
    );
    drop(server);
    let copy = restored(&archive, &second.summary.backup, second.end, place.path()).await;
    assert_eq!(copy.sql("SELECT md5(string_agg(t::text, '' ORDER BY n)) FROM t"), there);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_called_durable_survives_the_server() {
    let place = folder("lifeboat-va-");
    let mut server = Server::make(place.path());
    server.sql("CREATE TABLE t (n int PRIMARY KEY)");
    let archive = archive(place.path()).await;
    let reception = Reception {
        endpoint: server.endpoint(),
        slot: Some("lifeboat".to_owned()),
        piece_every: Duration::ZERO,
    };
    let (told, mut heard) = watch::channel(None::<Received>);
    let stop = CancellationToken::new();
    let receiving = {
        let (archive, reception, stop) = (archive.clone(), reception.clone(), stop.clone());
        tokio::spawn(async move { receive(&archive, &reception, &told, &stop).await })
    };
    tokio::time::timeout(PATIENCE, heard.wait_for(Option::is_some)).await.unwrap().unwrap();
    let done = back_up(&archive, &job(&server, false), |_| {}).await.unwrap();
    // Two segments, and a part of one.
    server.sql("INSERT INTO t SELECT generate_series(1, 300000)");
    server.sql("INSERT INTO t VALUES (1000000)");
    let end = Lsn::parse(&server.sql("SELECT pg_current_wal_flush_lsn()")).unwrap();
    let durable = |told: &Option<Received>| told.as_ref().is_some_and(|told| told.durable >= end);
    let received =
        tokio::time::timeout(PATIENCE, heard.wait_for(durable)).await.unwrap().unwrap().clone().unwrap();
    assert!(received.rpo_held(reception.endpoint.clock.now()) < PATIENCE && received.left_out.is_empty());
    // The server knows what is safe elsewhere.
    let flushed = || Lsn::parse(&server.sql("SELECT flush_lsn FROM pg_stat_replication")).unwrap_or_default();
    let begun = Instant::now();
    while flushed() < end {
        assert!(begun.elapsed() < PATIENCE, "flushed up to {}", flushed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.kill();
    assert!(receiving.await.unwrap().is_err(), "the server is gone");
    let copy = restored(&archive, &done.summary.backup, received.durable, place.path()).await;
    assert_eq!(copy.sql("SELECT count(*), max(n) FROM t"), "300001|1000000");
}
