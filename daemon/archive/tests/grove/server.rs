//! The folder of a real server, backed up and restored: it is what it was, by the server's own tools, and it starts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use lifeboat_archive::restore::Options;
use lifeboat_archive::{Archive, Backup, BackupId, Plan, Trouble};
use lifeboat_core::{Moment, SystemIdentifier};

use crate::place::{Place, equal};
use crate::tree;

/// The user that servers run as when the tests run as root, which PostgreSQL refuses.
fn servers_user() -> Option<u32> {
    let id = |arguments: &[&str]| -> u32 {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id(&["-u"]) == 0).then(|| id(&["-u", "postgres"]))
}

/// Clusters in one folder, reached through sockets in it only.
struct Clusters {
    folder: tempfile::TempDir,
    programs: PathBuf,
}

impl Drop for Clusters {
    fn drop(&mut self) {
        for name in ["data", "restored"] {
            let stop = ["stop", "-s", "-w", "-m", "immediate", "-D"];
            let _ = self.command("pg_ctl").args(stop).arg(self.at(name)).stderr(Stdio::null()).status();
        }
    }
}

impl Clusters {
    fn make() -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path());
        let programs = versions.max().unwrap().join("bin");
        let folder = tempfile::Builder::new().prefix("lifeboat-base-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let made = Self { folder, programs };
        made.give(made.folder.path());
        let options = ["-U", "postgres", "-A", "trust", "-k", "-N", "--locale=C", "-D"];
        run(made.command("initdb").args(options).arg(made.at("data")));
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\n",
            made.folder.path().display()
        );
        let path = made.at("data").join("postgresql.conf");
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, before + &settings).unwrap();
        made.ctl("start", "data");
        made
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What is there is the server's.
    fn give(&self, path: &Path) {
        if let Some(user) = servers_user() {
            chown(path, Some(user), Some(user)).unwrap();
            if path.is_dir() && path != self.folder.path() {
                for path in tree::everything(path) {
                    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
                }
            }
        }
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
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

    fn ctl(&self, what: &str, name: &str) {
        let log = self.at("log");
        run(self.command("pg_ctl").args([what, "-s", "-w", "-D"]).arg(self.at(name)).arg("-l").arg(log));
    }

    fn sql(&self, text: &str) -> String {
        let socket = self.folder.path().to_str().unwrap();
        run(self.command("psql").args(["-h", socket, "-U", "postgres", "-XAtqc", text]))
    }
}

fn run(command: &mut Command) -> String {
    // What a server that was started keeps open is no end of output.
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.trim().to_owned()
}

fn system_of(data: &Path) -> SystemIdentifier {
    let control = fs::read(data.join("global/pg_control")).unwrap();
    SystemIdentifier::new(u64::from_ne_bytes(*control.first_chunk().unwrap()))
}

async fn restore(archive: &Archive, system: SystemIdentifier, backup: &BackupId, to: &Path, delta: bool) {
    let plan = Plan::of(archive, system, backup).await.unwrap();
    let options = Options { delta, ..Options::default() };
    plan.run(to, &options, Arc::new(|_| {})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_restored_starts_and_is_brought_back() {
    let place = Place::new().await;
    let clusters = Clusters::make();
    clusters
        .sql("CREATE TABLE kept AS SELECT i, repeat(md5(i::text), 20) AS t FROM generate_series(1, 20000) i");
    clusters.sql("CREATE DATABASE \"weird \"\"ñame\"\"\"");
    let rows = clusters.sql("SELECT count(*), md5(string_agg(t, '' ORDER BY i)) FROM kept");
    clusters.ctl("stop", "data");
    let (data, restored) = (clusters.at("data"), clusters.at("restored"));
    let system = system_of(&data);
    // A stopped cluster needs its last segment to start: it is no backup that a server sends.
    let whole = data.join("pg_wal");
    let now = Moment::from_millis(1_795_000_000_000);
    let first = tree::store(&place.archive, &data, system, now, None).await.unwrap();

    restore(&place.archive, system, &first.backup, &restored, false).await;
    equal(&data, &restored);
    for path in tree::everything(&whole).iter().filter(|path| path.is_file()) {
        fs::copy(path, restored.join("pg_wal").join(path.file_name().unwrap())).unwrap();
    }
    clusters.give(&restored);
    run(clusters.command("pg_checksums").args(["--check", "-D"]).arg(&restored));
    for path in fs::read_dir(restored.join("pg_wal")).unwrap() {
        clusters.give(&path.unwrap().path());
    }
    clusters.ctl("start", "restored");
    assert_eq!(clusters.sql("SELECT count(*), md5(string_agg(t, '' ORDER BY i)) FROM kept"), rows);

    clusters
        .sql("UPDATE kept SET t = 'changed' WHERE i % 100 = 0; CREATE TABLE more AS SELECT 1; CHECKPOINT");
    let plan = Plan::of(&place.archive, system, &first.backup).await.unwrap();
    let delta = Options { delta: true, ..Options::default() };
    let running = plan.run(&restored, &delta, Arc::new(|_| {})).await.unwrap_err();
    assert!(running.to_string().contains("a server runs in"), "{running}");
    clusters.ctl("stop", "restored");
    restore(&place.archive, system, &first.backup, &restored, true).await;
    equal(&data, &restored);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_it_sent_is_compared_with_what_was_stored() {
    let place = Place::new().await;
    let clusters = Clusters::make();
    clusters.sql("CREATE TABLE kept AS SELECT i, md5(i::text) AS t FROM generate_series(1, 20000) i");
    let base = clusters.at("base");
    let socket = clusters.folder.path().to_str().unwrap();
    let options = ["-h", socket, "-U", "postgres", "-X", "none", "-c", "fast", "-D"];
    run(clusters.command("pg_basebackup").args(options).arg(&base));
    let path = base.join("backup_manifest");
    let manifest = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let system = system_of(&base);
    let now = Moment::from_millis(1_795_000_000_000);
    let store = |manifest: Vec<u8>| async {
        let mut backup = Backup::begin(&place.archive, tree::point(system, now), None).await?;
        tree::give(&mut backup, &base).await?;
        let ending =
            lifeboat_archive::Ending { server_manifest: Some(Bytes::from(manifest)), ..tree::ending(now) };
        backup.finish(ending).await
    };
    let done = store(manifest.clone()).await.unwrap();
    let restored = clusters.at("restored");
    restore(&place.archive, system, &done.backup, &restored, false).await;
    clusters.give(&restored);
    run(clusters.command("pg_verifybackup").arg("--no-parse-wal").arg(&restored));

    let refused = |done: Result<_, Trouble>, what: &str| {
        let refused = done.map(|_: lifeboat_archive::Summary| ()).unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    };
    let mut cut = manifest.clone();
    cut.truncate(manifest.len() / 2);
    refused(store(cut).await, "cannot be read");
    let at = manifest.windows(5).position(|window| window == b"Size\"").unwrap();
    let mut changed = manifest.clone();
    changed[at + 7] ^= 1;
    refused(store(changed).await, "the sum over it");
    let version = base.join("PG_VERSION");
    let before = fs::read(&version).unwrap();
    fs::write(&version, b"16\n").unwrap();
    refused(store(manifest.clone()).await, "PG_VERSION has another CRC-32C");
    fs::write(&version, b"15").unwrap();
    refused(store(manifest.clone()).await, "PG_VERSION has 2 bytes, not 3");
    fs::remove_file(&version).unwrap();
    refused(store(manifest.clone()).await, "PG_VERSION is missing");
    fs::write(&version, before).unwrap();
    fs::write(base.join("more"), b"more").unwrap();
    refused(store(manifest).await, "1 files are not in its manifest");
}
