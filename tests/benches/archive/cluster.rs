//! The cluster that is backed up, and what a program costs it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Cost;

/// As pgbench counts: 15 MB each.
const SCALE: u32 = 130;

/// Bytes that cannot be compressed, in MB.
const NOISE: u32 = 400;

/// Ticks of the kernel's CPU times in a second, as Linux has it on every architecture.
const TICKS: u64 = 100;

/// A running server with the reference data.
pub(crate) struct Cluster {
    folder: TempDir,
    pub(crate) port: u16,
}

impl Cluster {
    /// Makes the data, which takes a minute or two.
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("lifeboat-bench-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        own(folder.path());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Self { folder, port };
        let data = cluster.data();
        cluster.run(&tool("initdb"), &["-k", "-A", "trust", "-D", data.to_str().unwrap()]);
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\nshared_buffers = 256MB\n\
             max_wal_size = 4GB\nautovacuum = off\ncheckpoint_timeout = 1h\nwal_level = replica\nmax_wal_senders = 8\n",
            cluster.path().display(),
        );
        fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
        own(&data.join("postgresql.auto.conf"));
        cluster.ctl("start");
        cluster.run(
            "pgbench",
            &["-q", "-i", "-s", &SCALE.to_string(), "-h", "127.0.0.1", "-p", &port.to_string(), "postgres"],
        );
        cluster.sql(&format!(
            "CREATE EXTENSION pgcrypto; CREATE TABLE noise (b bytea); ALTER TABLE noise ALTER b SET STORAGE EXTERNAL;
             INSERT INTO noise SELECT (SELECT string_agg(gen_random_bytes(1000), ''::bytea) FROM generate_series(1, 1000) WHERE n > 0)
             FROM generate_series(1, {NOISE}) n; VACUUM FREEZE; CHECKPOINT"
        ));
        cluster
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Of the data, without its log.
    pub(crate) fn bytes(&self) -> u64 {
        size(&self.data()) - size(&self.data().join("pg_wal"))
    }

    pub(crate) fn files(&self) -> usize {
        let listed = Command::new("find").arg(self.data()).args(["-type", "f"]).output().unwrap().stdout;
        listed.iter().filter(|byte| **byte == b'\n').count()
    }

    /// So many rows of the largest table get another value, anywhere in it.
    pub(crate) fn update(&self, rows: u32) {
        self.sql(&format!(
            "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid IN
             (SELECT 1 + floor(random() * {SCALE} * 100000)::int FROM generate_series(1, {rows})); CHECKPOINT"
        ));
    }

    pub(crate) fn sql(&self, statements: &str) {
        for statement in statements.split(';') {
            self.run(
                "psql",
                &[
                    "-q",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &self.port.to_string(),
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-c",
                    statement,
                    "postgres",
                ],
            );
        }
    }

    fn ctl(&self, what: &str) {
        let (data, log) = (self.data(), self.path().join("log"));
        self.run(
            &tool("pg_ctl"),
            &["-w", "-s", "-D", data.to_str().unwrap(), "-l", log.to_str().unwrap(), what],
        );
    }

    /// Runs a program as the user that servers run as.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = if root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", program]);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.path()).env("HOME", self.path());
        command
    }

    /// What that costs, client and server; `repository` is where it stores.
    pub(crate) fn cost(&self, repository: Option<&Path>, run: impl FnOnce()) -> Cost {
        let stored = || repository.map_or(0, size);
        // The data is in memory for everybody, and nothing of the run before is still being written.
        Command::new("sync").status().unwrap();
        let (before, cpu, begun) = (stored(), self.cpu(), Instant::now());
        run();
        let wall = begun.elapsed();
        Cost { wall, cpu: self.cpu() - cpu, stored: stored().saturating_sub(before) }
    }

    /// CPU time of all children of ours that have ended, and of the server with all of its that have, or go on.
    fn cpu(&self) -> Duration {
        let own = times(&fs::read_to_string("/proc/self/stat").unwrap());
        let postmaster = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let postmaster = postmaster.lines().next().unwrap().to_owned();
        let server = times(&fs::read_to_string(format!("/proc/{postmaster}/stat")).unwrap());
        let children =
            fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|child| fs::read_to_string(format!("/proc/{child}/stat")).ok());
        let children: u64 = children.map(|text| times(&text)[..2].iter().sum::<u64>()).sum();
        Duration::from_millis((own[2] + own[3] + server.iter().sum::<u64>() + children) * 1000 / TICKS)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.ctl("stop");
    }
}

/// User and system time, of itself and of its children that have ended, of a line of `/proc/PID/stat`.
fn times(stat: &str) -> [u64; 4] {
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    [11, 12, 13, 14].map(|at| fields[at].parse().unwrap())
}

pub(crate) fn root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

/// Gives a path to the user that servers run as.
pub(crate) fn own(path: &Path) {
    if root() {
        assert!(
            Command::new("chown").arg("-R").arg("postgres:postgres").arg(path).status().unwrap().success()
        );
    }
}

pub(crate) fn size(path: &Path) -> u64 {
    let listed = Command::new("du").args(["-sb"]).arg(path).output().unwrap().stdout;
    String::from_utf8(listed).unwrap().split_whitespace().next().map_or(0, |bytes| bytes.parse().unwrap())
}

/// A program of PostgreSQL that Debian does not put on the path.
pub(crate) fn tool(name: &str) -> String {
    let mut found: Vec<_> =
        fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found.last().unwrap().join("bin").join(name).display().to_string()
}
