//! WAL that a real server has written, across a promotion: what is given back is what the server has, and its own tools
//! read it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifeboat_archive::wal::{
    SegmentName, WalOptions, WalWriter, parse_history, push_history, push_segment, survey, system_of,
};
use lifeboat_core::{Lsn, SystemIdentifier, Timeline};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::world::{FIRST, PATIENCE, SECOND, World, read, size, when_asked};

/// The user that servers run as when the tests run as root, which PostgreSQL refuses.
fn servers_user() -> Option<u32> {
    let id = |arguments: &[&str]| -> u32 {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id(&["-u"]) == 0).then(|| id(&["-u", "postgres"]))
}

struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = ["stop", "-s", "-w", "-m", "immediate", "-D"];
        let _ = self.command("pg_ctl").args(stop).arg(self.data()).stderr(Stdio::null()).status();
    }
}

impl Server {
    /// A cluster with segments of 1 MiB, reached through a socket in its own folder only.
    fn make() -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path());
        let programs = versions.max().unwrap().join("bin");
        let folder = tempfile::Builder::new().prefix("lifeboat-wal-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(user) = servers_user() {
            chown(folder.path(), Some(user), Some(user)).unwrap();
        }
        let server = Self { folder, programs };
        let data = server.data();
        let options = ["-U", "postgres", "-A", "trust", "--wal-segsize=1", "-N", "--locale=C", "-D"];
        run(server.command("initdb").args(options).arg(&data));
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\nmax_wal_size = 1GB\n\
             wal_keep_size = 1GB\n",
            server.folder.path().display()
        );
        let path = data.join("postgresql.conf");
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, before + &settings).unwrap();
        server.ctl("start");
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn wal(&self, name: &str) -> PathBuf {
        self.data().join("pg_wal").join(name)
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

    fn ctl(&self, what: &str) {
        let log = self.folder.path().join("log");
        run(self.command("pg_ctl").args([what, "-s", "-w", "-D"]).arg(self.data()).arg("-l").arg(log));
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

fn name(timeline: Timeline, at: Lsn) -> String {
    SegmentName::of(timeline, at, size()).to_string()
}

/// Streams from where the writer begins, in parts drawn from the dice, as the server has it in its files.
async fn stream(
    world: &World,
    server: &Server,
    of: (SystemIdentifier, Timeline),
    options: WalOptions,
    end: Lsn,
) -> Lsn {
    let mut dice = ChaCha8Rng::seed_from_u64(50);
    let mut writer = WalWriter::open(&world.archive, of.0, of.1, size(), options).await.unwrap();
    let begun = writer.next();
    let mut at = begun.get();
    while at < end.get() {
        let file = read(&server.wal(&name(of.1, Lsn::new(at))));
        let offset = usize::try_from(at % size().bytes()).unwrap();
        let length = (dice.next_u32() as usize % 200_000 + 1)
            .min(file.len() - offset)
            .min(usize::try_from(end.get() - at).unwrap());
        let part = bytes::Bytes::copy_from_slice(&file[offset..offset + length]);
        writer.append(Lsn::new(at), part).await.unwrap();
        at += length as u64;
        if dice.next_u32() % 5 == 0 {
            writer.ask();
        }
    }
    assert_eq!(writer.flush().await.unwrap(), end);
    begun
}

#[tokio::test]
async fn what_a_server_wrote_is_given_back_and_its_tools_read_it() {
    let server = Server::make();
    let world = World::new().await;
    server.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS m FROM generate_series(1, 40000) i");
    server.sql("UPDATE t SET m = md5(m) WHERE i % 3 = 0");
    server.sql("SELECT pg_switch_wal()");
    server.sql("INSERT INTO t SELECT i, 'after' FROM generate_series(1, 100) i");
    server.ctl("stop");
    let system = system_of(&server.data()).unwrap();
    fs::write(server.data().join("standby.signal"), "").unwrap();
    chown(server.data().join("standby.signal"), servers_user(), None).unwrap();
    server.ctl("start");
    server.ctl("promote");
    server.sql("INSERT INTO t SELECT i, 'on timeline 2' FROM generate_series(1, 20000) i");
    server.sql("SELECT pg_switch_wal()");
    server.sql("INSERT INTO t VALUES (0, 'the last one')");
    let end = Lsn::parse(&server.sql("SELECT pg_current_wal_flush_lsn()")).unwrap();
    let told = server.sql("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(system.get().to_string(), told);

    let history = server.wal("00000002.history");
    let switch = parse_history(&read(&history)).unwrap()[0].at;
    let first = fs::read_dir(server.data().join("pg_wal")).unwrap().flatten();
    let first = first.filter_map(|entry| SegmentName::parse(entry.file_name().to_str()?)).min().unwrap();
    let begin = first.start(size()).unwrap();
    let options = || WalOptions { oldest: Some(begin), segments_in_flight: 2, ..when_asked() };
    assert_eq!(stream(&world, &server, (system, FIRST), options(), switch).await, begin);
    push_history(&world.archive, system, &history, PATIENCE).await.unwrap();
    assert_eq!(stream(&world, &server, (system, SECOND), options(), end).await, switch);

    // What archive_command would hand over is what was streamed.
    for at in (begin.get()..switch.get() - size().bytes()).step_by(1 << 20) {
        let path = server.wal(&name(FIRST, Lsn::new(at)));
        push_segment(&world.archive, Some(system), &path, PATIENCE).await.unwrap();
    }
    let map = survey(&world.archive, system).await.unwrap();
    assert_eq!((map.covers(begin, SECOND, end), map.gaps().count()), (Ok(()), 0));

    let back = server.folder.path().join("back");
    fs::create_dir(&back).unwrap();
    let mut compared = 0;
    for (timeline, from, to) in [(FIRST, begin, switch), (SECOND, switch, end)] {
        for at in (from.get() & !(size().bytes() - 1)..to.get()).step_by(1 << 20) {
            let (name, target) = (name(timeline, Lsn::new(at)), back.join(name(timeline, Lsn::new(at))));
            let got = lifeboat_archive::wal::get(&world.archive, system, &name, &target, None, PATIENCE);
            assert_eq!(got.await.unwrap().exit(), 0, "{name}");
            let known = usize::try_from((to.get() - at).min(size().bytes())).unwrap();
            let (theirs, ours) = (read(&server.wal(&name)), read(&target));
            assert!(theirs[..known] == ours[..known], "{name}");
            assert!(ours.len() == theirs.len() && ours[known..].iter().all(|byte| *byte == 0), "{name}");
            compared += 1;
        }
    }
    assert!(compared > 8, "{compared} segments");
    assert!(dump(&server, &back, FIRST, begin, switch).contains("INSERT"));
    let second = dump(&server, &back, SECOND, switch, end);
    assert!(second.contains("END_OF_RECOVERY") && second.contains("COMMIT"), "{second}");
}

/// What `pg_waldump` says of the files given back.
fn dump(server: &Server, folder: &Path, timeline: Timeline, from: Lsn, to: Lsn) -> String {
    let mut dump = server.command("pg_waldump");
    dump.args(["-s", &from.to_string(), "-e", &to.to_string(), "-t", &timeline.get().to_string(), "-p"]);
    run(dump.arg(folder))
}
