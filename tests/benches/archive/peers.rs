//! The programs that are compared: each with a repository of its own on the same disk.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lifeboat_tests::binary;
use tempfile::TempDir;

use crate::Cost;
use crate::cluster::{Cluster, own};

/// A folder beside the cluster, which the servers' user owns.
fn beside(cluster: &Cluster, name: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix(name).tempdir_in(cluster.path()).unwrap();
    own(folder.path());
    folder
}

/// `pg_basebackup`, compressed by the server with lz4, not encrypted.
pub(crate) struct Basebackup<'a> {
    cluster: &'a Cluster,
}

impl<'a> Basebackup<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    fn run(&self, arguments: &[&str]) {
        let port = self.cluster.port.to_string();
        let mut all = vec!["-h", "127.0.0.1", "-p", &port, "-c", "fast", "-X", "none", "--no-sync"];
        all.extend_from_slice(arguments);
        self.cluster.run("pg_basebackup", &all);
    }

    pub(crate) fn backup(&self) -> Cost {
        let folder = beside(self.cluster, "basebackup-");
        let target = folder.path().join("backup");
        let target_text = target.display().to_string();
        self.cluster.cost(Some(folder.path()), || {
            self.run(&["-Ft", "--compress=server-lz4", "-D", &target_text]);
            // Ours is durable when it ends.
            assert!(Command::new("sync").arg("-f").arg(&target).status().unwrap().success());
        })
    }

    /// The server reads everything and nobody takes it.
    pub(crate) fn read(&self) -> Cost {
        self.cluster.cost(None, || self.run(&["--target=blackhole"]))
    }
}

/// pgBackRest with two processes, zstd 3 and AES-256.
pub(crate) struct PgBackRest<'a> {
    cluster: &'a Cluster,
    folder: TempDir,
}

impl<'a> PgBackRest<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        let folder = beside(cluster, "pgbackrest-");
        let here = folder.path().display();
        let text = format!(
            "[global]\nrepo1-path={here}/repo\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=only-for-a-benchmark\n\
             compress-type=zst\ncompress-level=3\nprocess-max=2\nstart-fast=y\narchive-check=n\nlog-path={here}\nlock-path={here}\n\
             spool-path={here}\nlog-level-console=warn\n[bench]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user=postgres\n",
            cluster.data().display(),
            cluster.port,
            cluster.path().display(),
        );
        fs::write(folder.path().join("pgbackrest.conf"), text).unwrap();
        own(folder.path());
        let peer = Self { cluster, folder };
        peer.run(&["stanza-create"]);
        peer
    }

    fn run(&self, arguments: &[&str]) {
        let config = format!("--config={}", self.folder.path().join("pgbackrest.conf").display());
        let mut all = vec![config.as_str(), "--stanza=bench"];
        all.extend_from_slice(arguments);
        self.cluster.run("pgbackrest", &all);
    }

    pub(crate) fn backup(&self) -> Cost {
        self.cluster.cost(Some(&self.folder.path().join("repo")), || self.run(&["--type=full", "backup"]))
    }

    pub(crate) fn next(&self) -> Cost {
        self.cluster.cost(Some(&self.folder.path().join("repo")), || self.run(&["--type=incr", "backup"]))
    }

    pub(crate) fn restore(&self) -> Cost {
        let target = beside(self.cluster, "restored-");
        let data = format!("--pg1-path={}", target.path().display());
        self.cluster.cost(None, || self.run(&[&data, "restore"]))
    }
}

/// Ours.
pub(crate) struct Lifeboat<'a> {
    cluster: &'a Cluster,
    folder: TempDir,
    program: PathBuf,
}

impl<'a> Lifeboat<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        let folder = beside(cluster, "lifeboat-");
        let program = binary("lifeboat").unwrap();
        let ours = Self { cluster, folder, program };
        fs::write(ours.config(), ours.text()).unwrap();
        own(ours.folder.path());
        ours.run(&["archive", "init"]);
        ours
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("lifeboat.toml")
    }

    fn text(&self) -> String {
        let here = self.folder.path().display();
        let port = self.cluster.port;
        format!(
            "[agent]\nname = \"bench\"\nregion = \"west\"\nstate = \"{here}/state\"\nwitnesses = [\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"]\n\
             [[notify]]\nkind = \"log\"\n[[region]]\nname = \"east\"\n[[region]]\nname = \"west\"\n\
             [authority]\nzone = \"bench.test.\"\nlisten = [\"127.0.0.1:1\"]\nnameservers = [\"ns.example.com.\"]\n\
             [[archive]]\nname = \"vault\"\nplace = \"{here}/archive\"\nkey_file = \"{here}/archive.key\"\n\
             [[workload]]\nname = \"shop\"\nprimary = \"east\"\nstandbys = [\"west\"]\n\
             [workload.objectives]\nrto = \"15m\"\nrpo = \"5m\"\n[workload.failover]\nmode = \"supervised\"\n\
             [[workload.database]]\nname = \"orders\"\nkind = \"postgres\"\ndbname = \"postgres\"\nuser = \"postgres\"\ntls = \"off\"\n\
             [workload.database.endpoint]\neast = \"127.0.0.1:{port}\"\nwest = \"127.0.0.1:1\"\n\
             [[workload.dns]]\nname = \"shop.bench.test.\"\nvia = \"authority\"\nttl = \"10s\"\n\
             [workload.dns.target]\neast = [\"127.0.0.1\"]\nwest = [\"127.0.0.2\"]\n\
             [workload.canary]\nurl = \"http://shop.bench.test/health\"\n"
        )
    }

    fn run(&self, arguments: &[&str]) {
        let config = self.config().display().to_string();
        let program = self.program.display().to_string();
        let mut all = vec!["--config", &config];
        all.extend_from_slice(arguments);
        let mut command = self.cluster.command(&program);
        let status = command.args(&all).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "lifeboat {arguments:?}: {status}");
    }

    pub(crate) fn backup(&self) -> Cost {
        let archive = self.folder.path().join("archive");
        self.cluster.cost(Some(&archive), || self.run(&["backup", "run", "shop/orders", "--region", "east"]))
    }

    pub(crate) fn restore(&self) -> Cost {
        let target = beside(self.cluster, "restored-");
        let data = target.path().display().to_string();
        self.cluster.cost(None, || self.run(&["restore", "shop/orders", "--target", &data]))
    }
}
