//! Three agents in three places, the coordinator they share, and two regions that they watch.
//!
//! Everything is on loopback: three members of a real etcd (or what a test brings in its place), three agents as processes,
//! a web server for each region and three witnesses. The regions have no database: what is tested here is who decides, not what is moved.
//!
//! **Invariant:** what was started here is ended here, by its process, however the test ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lifeboat_chaos::network::Network;
use lifeboat_chaos::{Region, Site, To};
use serde_json::Value;

use crate::binary;

/// How long anything that should happen may take on a slow machine. Never a bar.
pub const SOON: Duration = Duration::from_secs(90);

/// The agents with the place of each.
pub const AGENTS: [(&str, &str); 3] = [("ash", "east"), ("birch", "west"), ("cedar", "office")];

/// What each region's name says.
const ADDRESSES: [(&str, &str); 2] = [("east", "192.0.2.80"), ("west", "198.51.100.80")];

/// The places, in the order of the agents.
const SITES: [Site; 3] = Site::ALL;

/// A web server that says yes, or closes every connection.
pub struct Web {
    address: SocketAddr,
    up: Arc<AtomicBool>,
}

impl Web {
    fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let up = Arc::new(AtomicBool::new(true));
        let yes = Arc::clone(&up);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if yes.load(Ordering::Relaxed) {
                    let _ = answer(stream);
                }
            }
        });
        Self { address, up }
    }

    /// Whether it answers from now on.
    pub fn set(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let _ = stream.read(&mut [0; 1024])?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
}

/// A process that ends with this value.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All of it.
pub struct Council {
    /// Where all of it is.
    pub folder: tempfile::TempDir,
    /// The web server of the east.
    pub east: Web,
    /// The web server of the west.
    pub west: Web,
    network: Network,
    witnesses: Vec<Web>,
    etcd: Vec<Option<Running>>,
    agents: Vec<Option<Running>>,
}

impl Council {
    /// Starts all of it; `failover` are further keys of `[workload.failover]`.
    pub fn start(failover: &str) -> Self {
        let mut council = Self::before(failover);
        (0..AGENTS.len()).for_each(|n| council.start_agent(n));
        council
    }

    /// The same, before the first agent is started; the file of each is there.
    pub fn before(failover: &str) -> Self {
        let mut council = Self::new();
        (0..AGENTS.len()).for_each(|n| council.start_etcd(n));
        let endpoints = SITES.map(|site| format!("\"http://{}\"", council.network.door(To::Etcd(site))));
        let lease = format!("kind = \"etcd\"\nttl = \"3s\"\nendpoints = [{}]\n", endpoints.join(", "));
        council.configure(&lease, failover);
        council
    }

    /// All of it over another coordinator, which runs already: `lease` are the keys of `[lease]`.
    pub fn over(lease: &str, failover: &str) -> Self {
        let mut council = Self::new();
        council.configure(lease, failover);
        (0..AGENTS.len()).for_each(|n| council.start_agent(n));
        council
    }

    fn new() -> Self {
        let network = Network::claim().unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            east: Web::start(network.door(To::Shop(Region::East))),
            west: Web::start(network.door(To::Shop(Region::West))),
            witnesses: (0..3).map(|n| Web::start(network.door(To::Witness(n)))).collect(),
            network,
            etcd: AGENTS.map(|_| None).into(),
            agents: AGENTS.map(|_| None).into(),
        }
    }

    /// Starts a member of etcd, with what it has on its disk.
    pub fn start_etcd(&mut self, n: usize) {
        let url = |address: SocketAddr| format!("http://{address}");
        let (client, peer) = (self.network.door(To::Etcd(SITES[n])), self.network.peer(SITES[n]));
        let all: Vec<String> = SITES
            .iter()
            .enumerate()
            .map(|(n, site)| format!("m{n}={}", url(self.network.peer(*site))))
            .collect();
        let mut command = Command::new("/usr/bin/etcd");
        command
            .arg(format!("--name=m{n}"))
            .arg(format!("--data-dir={}", self.folder.path().join(format!("etcd-{n}")).display()))
            .args([
                format!("--listen-client-urls={}", url(client)),
                format!("--advertise-client-urls={}", url(client)),
            ])
            .args([
                format!("--listen-peer-urls={}", url(peer)),
                format!("--initial-advertise-peer-urls={}", url(peer)),
            ])
            .arg(format!("--initial-cluster={}", all.join(",")))
            .args(["--auto-compaction-retention=10m", "--log-level=error"]);
        self.etcd[n] = Some(Running::start(&mut command, &self.folder.path().join(format!("etcd-{n}.log"))));
    }

    /// Ends a member of etcd, by kill -9.
    pub fn kill_etcd(&mut self, n: usize) {
        self.etcd[n] = None;
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the agents' files: first what a key needs, then all of it.
    fn configure(&self, lease: &str, failover: &str) {
        let witnesses: Vec<String> = self.witnesses.iter().map(|w| format!("\"{}\"", w.address)).collect();
        let listen = SITES.map(|site| self.network.door(To::Agent(site)));
        let beginning = |n: usize| {
            let (name, place) = AGENTS[n];
            let state = self.at(name);
            format!(
                "[agent]\nname = \"{name}\"\nregion = \"{place}\"\nstate = \"{}\"\nlisten = \"{}\"\n\
                 witnesses = [{}]\nwitness_interval = \"500ms\"\nwitness_timeout = \"500ms\"\n\n",
                state.display(),
                listen[n],
                witnesses.join(", ")
            )
        };
        let mut listed = String::new();
        for (n, (name, place)) in AGENTS.iter().enumerate() {
            std::fs::write(self.at(&format!("{name}.toml")), beginning(n)).unwrap();
            let said = self.lifeboat(n, &["key", "--json"]);
            assert!(said.status.success(), "{said:?}");
            let key: Value = serde_json::from_slice(&said.stdout).unwrap();
            listed += &format!(
                "[[agents]]\nname = \"{name}\"\nregion = \"{place}\"\naddress = \"{}\"\npublic_key = {}\n",
                listen[n], key["public_key"]
            );
        }
        for (n, (name, _)) in AGENTS.iter().enumerate() {
            let zone = self.network.authority_of(SITES[n]);
            let mut text = beginning(n);
            text += &format!("[lease]\n{lease}\n{listed}\n");
            text += "[[region]]\nname = \"east\"\n[[region]]\nname = \"west\"\n\n";
            text += &format!(
                "[authority]\nzone = \"lab.test.\"\nlisten = [\"{zone}\"]\nnameservers = [\"ns.example.com.\"]\n\n"
            );
            text += &self.workload(failover);
            std::fs::write(self.at(&format!("{name}.toml")), text).unwrap();
        }
    }

    fn workload(&self, failover: &str) -> String {
        let mut text = format!(
            "[[workload]]\nname = \"shop\"\nprimary = \"east\"\nstandbys = [\"west\"]\nobjectives = {{ rto = \"5m\", rpo = \"1m\" }}\n\
             [workload.failover]\n{failover}\n\
             [workload.fence.east]\ncommand = [\"/bin/true\"]\n[workload.fence.west]\ncommand = [\"/bin/true\"]\n"
        );
        for (region, web) in [("east", &self.east), ("west", &self.west)] {
            text += &format!(
                "[[workload.probe]]\nname = \"web-{region}\"\nregion = \"{region}\"\nkind = \"http\"\nvital = true\n\
                 url = \"http://{}/\"\ninterval = \"300ms\"\ntimeout = \"1s\"\nsilence = \"2s\"\n",
                web.address
            );
        }
        text += "[[workload.dns]]\nname = \"shop.lab.test.\"\nvia = \"authority\"\nttl = \"1s\"\n[workload.dns.target]\n";
        for (region, address) in ADDRESSES {
            text += &format!("{region} = [\"{address}\"]\n");
        }
        text
    }

    /// Starts an agent, with what it has on its disk.
    pub fn start_agent(&mut self, n: usize) {
        let name = AGENTS[n].0;
        let mut command = Command::new(binary("lifeboat").unwrap());
        let command =
            command.args(["run", "--config", &format!("{name}.toml")]).current_dir(self.folder.path());
        self.agents[n] = Some(Running::start(command, &self.at(&format!("{name}.log"))));
    }

    /// Ends an agent, by kill -9.
    pub fn kill_agent(&mut self, n: usize) {
        self.agents[n] = None;
    }

    /// The agents that run.
    pub fn running(&self) -> Vec<usize> {
        (0..AGENTS.len()).filter(|n| self.agents[*n].is_some()).collect()
    }

    /// Asks an agent something, as its operator would.
    pub fn lifeboat(&self, n: usize, args: &[&str]) -> Output {
        let mut command = Command::new(binary("lifeboat").unwrap());
        let config = format!("--config={}.toml", AGENTS[n].0);
        command.args(args).arg(config).current_dir(self.folder.path()).env("USER", "ada").output().unwrap()
    }

    /// An answer as JSON; null when there was none.
    pub fn json(&self, n: usize, args: &[&str]) -> Value {
        serde_json::from_slice(&self.lifeboat(n, args).stdout).unwrap_or_default()
    }

    /// What an agent knows.
    pub fn status(&self, n: usize) -> Value {
        self.json(n, &["status", "--json"])
    }

    /// Which agent holds the tenure: the only one that says so of itself.
    pub fn decider(&self) -> Option<usize> {
        let running = self.running();
        let mut here = running.into_iter().filter(|n| self.status(*n)["decider"]["here"] == true);
        here.next().filter(|_| here.next().is_none())
    }

    /// Waits until one agent decides and all that run say so; gives who it is.
    pub fn agreed(&self) -> usize {
        self.until("one decides, and everybody knows", || {
            let Some(decider) = self.decider() else { return false };
            let name = AGENTS[decider].0;
            let said: Vec<Value> = self.running().iter().map(|n| self.status(*n)).collect();
            said.iter().all(|status| {
                status["decider"]["agent"] == name
                    && status["decider"]["term"] == said[0]["decider"]["term"]
                    && status["coordination"]["reached"] == true
            })
        });
        self.decider().unwrap()
    }

    /// What the name server of an agent says.
    pub fn name_says(&self, n: usize) -> String {
        let zone = self.network.authority_of(SITES[n]);
        let (server, port) = (format!("@{}", zone.ip()), zone.port().to_string());
        let dig = Command::new("dig")
            .args([&server, "-p", &port, "shop.lab.test.", "A", "+short", "+tries=1"])
            .output();
        let said = String::from_utf8(dig.unwrap().stdout).unwrap();
        let region = ADDRESSES.iter().find(|(_, address)| *address == said.trim());
        region.map_or_else(|| said.trim().to_owned(), |(region, _)| (*region).to_owned())
    }

    /// Waits until it is so.
    pub fn until(&self, what: &str, met: impl Fn() -> bool) -> Duration {
        let began = Instant::now();
        while !met() {
            assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}\n{}", self.told());
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed()
    }

    /// The last of what every agent has logged, and what it says.
    pub fn told(&self) -> String {
        let mut told = String::new();
        for (n, (name, _)) in AGENTS.iter().enumerate() {
            let log = std::fs::read_to_string(self.at(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let said = String::from_utf8_lossy(&self.lifeboat(n, &["status"]).stdout).into_owned();
            told += &format!("== {name}\n{said}\n{}\n", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        told
    }
}
