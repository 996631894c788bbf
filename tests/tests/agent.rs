//! The agent as a process: it ends when it is told to, and not because nobody reads its log.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lifeboat_tests::binary;

const SOON: Duration = Duration::from_secs(30);

/// Two regions on this machine at ports where nothing listens.
const CONFIG: &str = r#"
name = "bastion"
region = "west"
witnesses = ["127.0.0.1:2"]
[[region]]
name = "east"
[[region]]
name = "west"
[[workload]]
name = "shop"
primary = "east"
standbys = ["west"]
[workload.objectives]
rto = "15m"
rpo = "5m"
[workload.failover]
mode = "supervised"
[[workload.database]]
name = "orders"
kind = "postgres"
dbname = "orders"
user = "lifeboat"
tls = "off"
[workload.database.endpoint]
east = "127.0.0.1:3"
west = "127.0.0.1:4"
"#;

/// An agent whose regions do not answer, ended with this value.
struct Agent {
    process: Child,
    folder: tempfile::TempDir,
}

impl Agent {
    fn start() -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("[agent]\nstate = \"{}/state\"\n{CONFIG}", folder.path().display());
        std::fs::write(folder.path().join("lifeboat.toml"), text).unwrap();
        let mut run = Command::new(binary("lifeboat").unwrap());
        let run = run.args(["run", "--config=lifeboat.toml"]).current_dir(folder.path());
        let process = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let agent = Agent { process, folder };
        agent.until("it answers", || agent.lifeboat(&["status"]).success());
        agent
    }

    fn lifeboat(&self, args: &[&str]) -> ExitStatus {
        let mut command = Command::new(binary("lifeboat").unwrap());
        let command = command.args(args).arg("--config=lifeboat.toml").current_dir(self.folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
    }

    fn until(&self, what: &str, met: impl Fn() -> bool) {
        let began = Instant::now();
        while !met() {
            assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
            std::thread::yield_now();
        }
    }

    fn socket(&self) -> std::path::PathBuf {
        Path::new(self.folder.path()).join("state/lifeboat.sock")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn it_stops_when_told_though_a_client_holds_its_connection() {
    let mut agent = Agent::start();
    let mut half = UnixStream::connect(agent.socket()).unwrap();
    half.write_all(b"GET /").unwrap();
    let told = Command::new("kill").args(["-TERM", &agent.process.id().to_string()]).status().unwrap();
    assert!(told.success());
    let began = Instant::now();
    let ended = loop {
        if let Some(status) = agent.process.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < SOON, "it did not stop");
        std::thread::yield_now();
    };
    assert_eq!(ended.code(), Some(0));
    assert!(!agent.socket().exists(), "the socket is left behind");
    drop(half);
}

#[test]
fn it_lives_on_when_nobody_reads_its_log() {
    let mut agent = Agent::start();
    drop(agent.process.stderr.take());
    // Each of these writes to the log.
    for _ in 0..3 {
        assert!(
            agent.lifeboat(&["pause", "shop", "--reason", "log", "--for", "1h", "--by", "ada"]).success()
        );
        assert!(agent.lifeboat(&["resume", "shop", "--by", "ada"]).success());
    }
    assert!(agent.lifeboat(&["status"]).success());
    assert_eq!(agent.process.try_wait().unwrap(), None, "the agent ended");
}
