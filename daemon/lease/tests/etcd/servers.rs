//! Real etcd servers on loopback, for one test: started, frozen, killed, started again, and gone with the test.
//!
//! Stands alone (etcd-client, rustix, tempfile, tokio), so that it can be copied.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// How long anything may take on a busy machine before it counts as broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One member.
pub(crate) struct Server {
    name: String,
    pub(crate) client: String,
    peer: String,
    pub(crate) data: PathBuf,
    options: Vec<String>,
    child: Option<Child>,
}

/// The members of one etcd.
pub(crate) struct Servers {
    pub(crate) list: Vec<Server>,
    cluster: String,
    pub(crate) folder: TempDir,
    connect: ConnectOptions,
}

/// How they are started.
#[derive(Clone, Default)]
pub(crate) struct Setting {
    /// More options for each.
    pub(crate) options: Vec<String>,
    /// Whether clients come over TLS, for which there must be options.
    pub(crate) tls: bool,
    /// How to connect to see whether they are ready.
    pub(crate) connect: Option<ConnectOptions>,
}

impl Servers {
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, Setting::default()).await
    }

    pub(crate) async fn start_with(count: usize, setting: Setting) -> Self {
        loop {
            // Between looking for free ports and using them, somebody else may take one: then others are looked for.
            let mut servers = Self::plan(count, &setting);
            for server in &mut servers.list {
                server.run(&servers.cluster);
            }
            if servers.ready().await {
                return servers;
            }
        }
    }

    fn plan(count: usize, setting: &Setting) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let taken: Vec<TcpListener> =
            (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let port = |at: usize| taken[at].local_addr().expect("an address").port();
        let scheme = if setting.tls { "https" } else { "http" };
        let server = |at: usize| Server {
            name: format!("m{at}"),
            client: format!("{scheme}://127.0.0.1:{}", port(2 * at)),
            peer: format!("http://127.0.0.1:{}", port(2 * at + 1)),
            data: folder.path().join(format!("m{at}")),
            options: setting.options.clone(),
            child: None,
        };
        let list: Vec<Server> = (0..count).map(server).collect();
        let cluster: Vec<String> =
            list.iter().map(|server| format!("{}={}", server.name, server.peer)).collect();
        let connect = setting.connect.clone().unwrap_or_default().with_timeout(Duration::from_secs(2));
        Self { list, cluster: cluster.join(","), folder, connect }
    }

    /// Where clients reach them.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.list.iter().map(|server| server.client.clone()).collect()
    }

    /// A client of the test's own, for one member.
    pub(crate) async fn client(&self, member: usize) -> Client {
        let connected = Client::connect([&self.list[member].client], Some(self.connect.clone())).await;
        connected.expect("a client")
    }

    /// Whether all that run answer, and agree on a leader; false when one ended.
    pub(crate) async fn ready(&mut self) -> bool {
        let start = Instant::now();
        for at in 0..self.list.len() {
            if self.list[at].child.is_none() {
                continue;
            }
            loop {
                assert!(start.elapsed() < PATIENCE, "etcd is not ready: {}", self.list[at].log());
                if let Some(child) = &mut self.list[at].child
                    && child.try_wait().expect("waited").is_some()
                {
                    return false;
                }
                if let Ok(mut client) =
                    Client::connect([&self.list[at].client], Some(self.connect.clone())).await
                    && client.get("ready", None).await.is_ok()
                {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        true
    }

    /// Which member leads.
    pub(crate) async fn leader(&self) -> usize {
        for (at, server) in self.list.iter().enumerate().filter(|(_, server)| server.child.is_some()) {
            let status = self.client(at).await.status().await;
            let status = status.unwrap_or_else(|error| panic!("{}: {error}", server.client));
            if status.header().is_some_and(|header| header.member_id() == status.leader()) {
                return at;
            }
        }
        panic!("no member leads");
    }

    /// Starts one again, with the data it has, or anew without any.
    pub(crate) async fn start_again(&mut self, member: usize) {
        let cluster = self.cluster.clone();
        self.list[member].run(&cluster);
    }
}

impl Server {
    fn run(&mut self, cluster: &str) {
        let log = std::fs::File::create(self.data.with_extension("log")).expect("a log");
        // It ends with the thread that started it, however that ends (setpriv is a part of util-linux).
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd"])
            .args(["--name", &self.name, "--data-dir"])
            .arg(&self.data)
            .args(["--listen-client-urls", &self.client, "--advertise-client-urls", &self.client])
            .args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer])
            .args(["--initial-cluster", cluster])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("etcd is installed (Debian: etcd-server)"));
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id");
        kill_process(pid, signal).expect("signalled");
    }

    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("waited");
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Copies a data folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
