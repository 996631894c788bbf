//! A database is backed up, its log received, its server killed: and it is back, row by row, from the archive alone.
//!
//! Everything is real: PostgreSQL, the binary, the processes. `lifeboat` runs as the servers' user, as it would on a bare machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lifeboat_chaos::postgres::programs;
use lifeboat_tests::binary;
use serde_json::Value;

/// How long anything may take that must happen at all.
const PATIENCE: Duration = Duration::from_secs(60);

const ROWS: &str = "select count(*), md5(string_agg(t::text, ',' order by id)) from t";

/// A server, an archive beside it, and the binary, in a folder of their own.
struct Scene {
    folder: tempfile::TempDir,
    port: u16,
    receiver: Option<Child>,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The user that servers run as when the tests run as root, which PostgreSQL refuses.
fn servers_user() -> Option<u32> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    (id(&["-u"]) == 0).then(|| id(&["-u", "postgres"]))
}

fn as_servers_user(program: &Path) -> Command {
    let mut command = match servers_user() {
        Some(_) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.current_dir("/").env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Scene {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("lifeboat-archive-").tempdir().unwrap();
        if let Some(user) = servers_user() {
            chown(folder.path(), Some(user), Some(user)).unwrap();
        }
        let scene = Self { folder, port: free_port(), receiver: None };
        fs::copy(binary("lifeboat").unwrap(), scene.at("lifeboat")).unwrap();
        scene.program(
            "initdb",
            &[
                "-U",
                "postgres",
                "--auth=trust",
                "--wal-segsize=1",
                "--data-checksums",
                "-D",
                &scene.text("data"),
            ],
        );
        scene.run(&scene.at("data"), scene.port);
        fs::write(scene.at("lifeboat.toml"), scene.configuration()).unwrap();
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    fn configuration(&self) -> String {
        let (state, vault, key, port) =
            (self.text("state"), self.text("vault"), self.text("vault.key"), self.port);
        let nowhere = free_port();
        format!(
            "[agent]\nname = \"bastion\"\nregion = \"west\"\nstate = \"{state}\"\n\
             [[region]]\nname = \"east\"\n[[region]]\nname = \"west\"\n\
             [[archive]]\nname = \"vault\"\nplace = \"{vault}\"\nkey_file = \"{key}\"\n\
             [[workload]]\nname = \"shop\"\nprimary = \"east\"\nstandbys = [\"west\"]\n\
             [workload.objectives]\nrto = \"15m\"\nrpo = \"5m\"\n\
             [workload.failover]\nmode = \"supervised\"\n\
             [[workload.database]]\nname = \"orders\"\nkind = \"postgres\"\ndbname = \"postgres\"\nuser = \"postgres\"\ntls = \"off\"\n\
             [workload.database.endpoint]\neast = \"127.0.0.1:{port}\"\nwest = \"127.0.0.1:{nowhere}\"\n\
             [[workload.database.backup]]\npiece_interval = \"100ms\"\n"
        )
    }

    fn program(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = as_servers_user(&programs().unwrap().join(name));
        let output = command.args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{name} {arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout).trim().to_owned()
    }

    /// Starts a server of that folder.
    fn run(&self, data: &Path, port: u16) {
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c shared_buffers=16MB",
            self.folder.path().display()
        );
        let (data, log) = (data.display().to_string(), self.text("server.log"));
        let mut command = as_servers_user(&programs().unwrap().join("pg_ctl"));
        command
            .args(["start", "-w", "-D", &data, "-l", &log, "-o", &options])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = command.status().unwrap();
        assert!(started.success(), "{}", fs::read_to_string(self.at("server.log")).unwrap_or_default());
    }

    fn stop(&self, data: &Path, mode: &str) {
        self.program("pg_ctl", &["stop", "-w", "-m", mode, "-D", &data.display().to_string()]);
    }

    fn ask(&self, port: u16, sql: &str) -> String {
        self.program(
            "psql",
            &["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres", "-qAtc", sql, "postgres"],
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = as_servers_user(&self.at("lifeboat"));
        command.env("LIFEBOAT_CONFIG", self.at("lifeboat.toml")).args(arguments);
        command
    }

    fn lifeboat(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// It is done, and says so.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.lifeboat(arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// It is refused; why.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.lifeboat(arguments);
        assert_eq!(
            output.status.code(),
            Some(5),
            "{arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stderr)
    }

    /// What the receiver says of itself.
    fn received(&self) -> Option<Value> {
        let text = fs::read(self.at("state/runs/wal.shop.orders.vault.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn until(&self, what: &str, met: impl Fn() -> bool) {
        let begun = Instant::now();
        while !met() {
            assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}; {:?}", self.received());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until everything that is committed is durable in the archive.
    fn until_all_is_received(&self) {
        let end: u64 =
            self.ask(self.port, "select pg_current_wal_flush_lsn() - '0/0'::pg_lsn").parse().unwrap();
        self.until("the log is received", || {
            self.received().is_some_and(|said| said["received"]["durable"].as_u64() >= Some(end))
        });
    }

    /// What is in a restored folder, by a server that recovers from the archive and is then stopped.
    fn rows_of(&self, name: &str) -> String {
        let port = free_port();
        self.run(&self.at(name), port);
        self.until("recovery ends", || self.ask(port, "select pg_is_in_recovery()") == "f");
        let rows = self.ask(port, ROWS);
        self.stop(&self.at(name), "fast");
        rows
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut receiver) = self.receiver.take() {
            let _ = receiver.kill();
            let _ = receiver.wait();
        }
        for entry in fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            if entry.path().join("postmaster.pid").exists() {
                let mut command = as_servers_user(&programs().unwrap().join("pg_ctl"));
                let _ = command.args(["stop", "-m", "immediate", "-D"]).arg(entry.path()).output();
            }
        }
    }
}

/// lifeboat is the synchronous standby: what a client was told is committed is in the archive, whatever becomes of the host.
#[test]
fn nothing_that_waited_for_the_archive_is_lost_with_the_host() {
    const CLIENTS: usize = 4;
    let mut scene = Scene::start();
    let config = scene.configuration().replace("piece_interval = \"100ms\"", "piece_interval = \"0s\"");
    fs::write(scene.at("lifeboat.toml"), config).unwrap();
    scene.done(&["archive", "init"]);
    scene.ask(scene.port, "create table t(id serial primary key, said text)");
    scene.done(&["backup", "run", "shop/orders"]);
    let receiver =
        scene.command(&["wal", "receive", "shop"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    scene.receiver = Some(receiver.unwrap());
    scene.ask(scene.port, "alter system set synchronous_standby_names = 'lifeboat'");
    scene.ask(scene.port, "select pg_reload_conf()");
    scene.until("commits wait for it", || {
        scene.ask(scene.port, "select sync_state from pg_stat_replication") == "sync"
    });
    let script = scene.at("insert.sql");
    fs::write(&script, "insert into t(said) values (:client_id);\n").unwrap();
    let (port, prefix) = (scene.port.to_string(), format!("--log-prefix={}", scene.text("told")));
    let mut writers = as_servers_user(&programs().unwrap().join("pgbench"));
    writers.args([
        "-n",
        "-h",
        "127.0.0.1",
        "-U",
        "postgres",
        "-p",
        &port,
        "-c",
        &CLIENTS.to_string(),
        "-T",
        "600",
    ]);
    writers.args(["--log", &prefix, "-f"]).arg(&script).arg("postgres");
    let mut writers = writers.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    scene.until("they write", || scene.ask(scene.port, "select count(*) > 1000 from t") == "t");

    let postmaster = fs::read_to_string(scene.at("data/postmaster.pid")).unwrap();
    let postmaster = postmaster.lines().next().unwrap();
    // Both are gone at once: what was received and not stored is lost with the receiver.
    let mut receiver = scene.receiver.take().unwrap();
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    let _ = Command::new("pkill").args(["-9", "-P", postmaster]).status();
    assert!(Command::new("kill").args(["-9", postmaster]).status().unwrap().success());
    let _ = writers.wait();
    fs::remove_file(scene.at("data/postmaster.pid")).unwrap();
    let logs = fs::read_dir(scene.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let logs = logs.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("told."));
    let told: usize = logs.map(|path| fs::read_to_string(path).unwrap().lines().count()).sum();

    let (place, key) = (scene.text("vault"), scene.text("vault.key"));
    scene.done(&[
        "restore",
        "shop/orders",
        "--target",
        &scene.text("restored"),
        "--place",
        &place,
        "--key",
        &key,
    ]);
    fs::write(scene.at("restored/postgresql.auto.conf"), {
        // It would wait for a standby that is not there any more.
        let settings = fs::read_to_string(scene.at("restored/postgresql.auto.conf")).unwrap();
        settings.replace("synchronous_standby_names = 'lifeboat'", "synchronous_standby_names = ''")
    })
    .unwrap();
    let rows = scene.rows_of("restored");
    let rows: usize = rows.split('|').next().unwrap().parse().unwrap();
    assert!(told > 1000 && (told..=told + CLIENTS).contains(&rows), "{told} were told, {rows} are there");
}

#[test]
fn a_database_is_back_row_by_row_from_the_archive_alone() {
    let mut scene = Scene::start();
    scene.done(&["archive", "init"]);
    assert!(scene.refused(&["archive", "init"]).contains("already"));
    scene.ask(scene.port, "create table t(id serial primary key, said text)");
    scene.ask(scene.port, "insert into t(said) select md5(n::text) from generate_series(1, 1000) n");

    // Nobody receives the log, and nobody writes: the backup brings its own, and is complete.
    let first: Value =
        serde_json::from_str(&scene.done(&["backup", "run", "shop/orders", "--json"])).unwrap();
    assert!(scene.done(&["backup", "verify"]).contains("nothing is wrong"));

    let receiver =
        scene.command(&["wal", "receive", "shop"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    scene.receiver = Some(receiver.unwrap());
    scene.until("the receiver is at work", || scene.received().is_some());
    assert!(scene.refused(&["wal", "receive", "shop"]).contains("already"));

    scene.ask(scene.port, "insert into t(said) select md5(n::text) from generate_series(1001, 1500) n");
    let (rows_then, then) = (
        scene.ask(scene.port, ROWS),
        scene.ask(
            scene.port,
            "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        ),
    );
    scene.ask(scene.port, "select pg_create_restore_point('before')");
    // Another millisecond, by the server's own clock.
    scene.ask(scene.port, "select pg_sleep(0.01)");
    scene.ask(scene.port, "delete from t where id % 3 = 0");
    scene.ask(scene.port, "insert into t(said) values ('the last one')");
    let rows = scene.ask(scene.port, ROWS);
    scene.until_all_is_received();

    // The machine is gone, and what was on it.
    scene.stop(&scene.at("data"), "immediate");
    fs::rename(scene.at("data"), scene.at("lost")).unwrap();

    let here = |name: &str| scene.text(name);
    scene.done(&["restore", "shop/orders", "--target", &here("newest")]);
    assert_eq!(scene.rows_of("newest"), rows);
    scene.done(&["restore", "shop/orders", "--target", &here("then"), "--to-time", &then]);
    assert_eq!(scene.rows_of("then"), rows_then);
    scene.done(&["restore", "shop/orders", "--target", &here("named"), "--to-name", "before"]);
    assert_eq!(scene.rows_of("named"), rows_then);

    // On a bare machine there is no configuration.
    let bare = ["--place", &here("vault"), "--key", &here("vault.key"), "--config", "/nowhere"];
    scene.done(&[&["restore", "shop/orders", "--target", &here("bare")][..], &bare].concat());
    assert_eq!(scene.rows_of("bare"), rows);

    // What cannot be reached is refused with a number, and nothing is written.
    let target = here("never");
    let restore = |arguments: &[&str]| {
        scene.refused(&[&["restore", "shop/orders", "--target", &target][..], arguments].concat())
    };
    let late = restore(&["--to-time", "2099-01-01T00:00:00Z"]);
    assert!(late.contains("stopping at") && late.contains("lost"), "{late}");
    assert!(restore(&["--to-time", "2001-01-01T00:00:00Z"]).contains("before the first backup"));
    assert!(restore(&["--to-lsn", "FF/0"]).contains("bytes of log lost"));
    assert!(restore(&["--timeline", "9"]).contains("does not lead on"));
    assert!(!scene.at("never").exists());
    let taken = scene.refused(&["restore", "shop/orders", "--target", &here("then")]);
    assert!(taken.contains("--delta"), "{taken}");

    // What was brought back beyond the target is brought back to it again.
    scene.done(&["restore", "shop/orders", "--target", &here("newest"), "--to-time", &then, "--delta"]);
    assert_eq!(scene.rows_of("newest"), rows_then);

    let kept = scene.done(&["backup", "expire", "--dry-run"]);
    assert!(kept.contains(first["backup"].as_str().unwrap()) && kept.contains("within the window"), "{kept}");
}

#[test]
fn log_that_is_missing_stops_recovery_instead_of_ending_it() {
    let scene = Scene::start();
    scene.done(&["archive", "init"]);
    scene.ask(scene.port, "create table t(id serial primary key, said text)");
    scene.done(&["backup", "run", "shop"]);
    for round in 0..3 {
        scene.ask(scene.port, &format!("insert into t(said) values ('round {round}')"));
        scene.ask(scene.port, "select pg_switch_wal()");
        scene.done(&["backup", "run", "shop"]);
    }
    scene.stop(&scene.at("data"), "fast");
    let backups: Value = serde_json::from_str(&scene.done(&["backup", "list", "--json"])).unwrap();
    let first = backups["backups"][0]["backup"].as_str().unwrap().to_owned();
    // A segment between the first backup and the last is lost.
    let folder = glob(&scene.at("vault/wal"), 2);
    let mut segments: Vec<PathBuf> =
        folder.iter().filter(|path| path.file_name().unwrap().len() == 24).cloned().collect();
    segments.sort();
    let middle = &segments[segments.len() / 2];
    fs::remove_file(middle).unwrap();
    let name = middle.file_name().unwrap().to_str().unwrap();

    let verify = scene.lifeboat(&["backup", "verify"]);
    assert_eq!(verify.status.code(), Some(1));
    assert!(
        text(&verify.stdout).contains(name) && text(&verify.stdout).contains(&first),
        "{}",
        text(&verify.stdout)
    );
    let target = scene.text("target");
    let refused = scene.refused(&["restore", "shop", "--target", &target, "--backup", &first]);
    assert!(refused.contains("stopping at") && refused.contains(name), "{refused}");
    // Whoever asks for it is stopped; what is not there and needs not be is not.
    let system = backups["backups"][0]["system"].as_u64().unwrap().to_string();
    let get = |name: &str| {
        scene.lifeboat(&["wal", "get", name, &scene.text("got"), "--system", &system]).status.code()
    };
    assert_eq!([get(name), get("00000009.history")], [Some(200), Some(1)]);
    assert_eq!(
        scene.lifeboat(&["wal", "get", name]).status.code(),
        Some(200),
        "PostgreSQL must not go on over a typing error"
    );
}

#[test]
fn the_agent_keeps_backups_going_and_leaves_nothing_behind_when_it_is_killed() {
    let mut scene = Scene::start();
    scene.done(&["archive", "init"]);
    scene.ask(scene.port, "create table t(id serial primary key, said text)");
    let agent = scene.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    scene.receiver = Some(agent.unwrap());
    let known = || {
        let output = scene.lifeboat(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["backups"][0].clone()
    };
    // Never backed up is due at once; the log is received from the region that the workload lives in.
    scene.until("a backup is made", || known()["backup"].is_string());
    scene.until("the log is received", || known()["rpo_held_ms"].is_u64() && known()["receiving"] == "east");
    let listed = scene.done(&["backup", "list"]);
    assert!(listed.contains(known()["backup"].as_str().unwrap()), "{listed}");
    let page = text(&scene.lifeboat(&["status"]).stdout);
    assert!(page.contains("shop/orders in vault: newest") && page.contains("RPO held"), "{page}");

    let mut agent = scene.receiver.take().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    // Whoever receives holds the lock; it is free when nobody does any more.
    let lock = scene.at("state/runs/wal.shop.orders.vault.lock");
    scene.until("the receiver has ended", || {
        as_servers_user(Path::new("/usr/bin/flock"))
            .arg("-n")
            .arg(&lock)
            .arg("true")
            .status()
            .unwrap()
            .success()
    });
}

/// The files that many folders down.
fn glob(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    if depth == 0 {
        return entries.collect();
    }
    entries.filter(|path| path.is_dir()).flat_map(|path| glob(&path, depth - 1)).collect()
}
