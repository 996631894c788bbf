//! A real etcd of three members, one in each site: Debian's, with faster elections.
//!
//! The members know each other by addresses of junctions (see `proxy/junction.rs`), so the network between any two
//! of them can be cut; their clients come over the lab's paths.
//!
//! **Invariant:** every write is flushed as etcd does it: what is measured here is real.
//! **Invariant:** the lab asks a member directly, over no path, and never more than one at a time for an answer: what
//! one member says is that member's word.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::network::Network;
use crate::process::{self, Nursery, Owner, ProcessError, Signal, tethered};
use crate::proxy::{Junction, junction::Owners};
use crate::region::{Place, Site, To};
use crate::rules::Rules;

/// Milliseconds between two signs of life of a leader, and after how many without one an election begins.
const HEARTBEAT_MS: &str = "100";
const ELECTION_MS: &str = "1000";
/// How long the members may take to agree; a busy machine with two cores takes a second or two.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// How long one question may take: an election is over by then.
pub const ASK_LIMIT: Duration = Duration::from_secs(2);

/// The cluster could not be started, or something in it failed.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// There is none on this machine.
    #[error("no /usr/bin/etcd; install it: apt-get install etcd-server")]
    Absent,
    /// A folder, a file or an address could not be had.
    #[error("cannot {act}")]
    Io {
        /// What was attempted.
        act: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A member did not come up in time.
    #[error("etcd of {site} did not answer within {} s; its log ends with:\n{log}", UP_WITHIN.as_secs())]
    Late {
        /// Which.
        site: Site,
        /// The last lines of its log.
        log: String,
    },
    /// A process could not be started or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

fn io(act: impl Into<String>) -> impl FnOnce(io::Error) -> EtcdError {
    let act = act.into();
    move |source| EtcdError::Io { act, source }
}

/// The three members.
#[derive(Debug)]
pub struct Etcd {
    program: PathBuf,
    lab: PathBuf,
    clients: BTreeMap<Site, std::net::SocketAddr>,
    peers: BTreeMap<Site, (std::net::SocketAddr, std::net::SocketAddr)>,
    owners: Owners,
    junctions: BTreeMap<Site, Junction>,
}

impl Etcd {
    /// Starts them, each in its site's folder within `lab`, and returns once all agree.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn start(lab: &Path, network: &Network, nursery: &Nursery) -> Result<Etcd, EtcdError> {
        let program = PathBuf::from("/usr/bin/etcd");
        if !program.exists() {
            return Err(EtcdError::Absent);
        }
        let owners: Owners = Arc::default();
        let mut junctions = BTreeMap::new();
        for site in Site::ALL {
            let (listen, door) = (network.advertised(site), network.peer(site));
            let junction = Junction::start(listen, door, Arc::clone(&owners)).await;
            junctions.insert(site, junction.map_err(io("start a proxy"))?);
        }
        let clients = Site::ALL.map(|site| (site, network.door(To::Etcd(site)))).into();
        let peers = Site::ALL.map(|site| (site, (network.peer(site), network.advertised(site)))).into();
        let etcd = Etcd { program, lab: lab.to_owned(), clients, peers, owners, junctions };
        for site in Site::ALL {
            etcd.launch(site, nursery)?;
        }
        for site in Site::ALL {
            etcd.answers(site).await?;
        }
        Ok(etcd)
    }

    /// The folder of a member: its process works there.
    #[must_use]
    pub fn folder(&self, site: Site) -> PathBuf {
        site.folder(&self.lab).join("etcd")
    }

    /// Its log.
    #[must_use]
    pub fn log(&self, site: Site) -> PathBuf {
        self.folder(site).join("etcd.log")
    }

    fn launch(&self, site: Site, nursery: &Nursery) -> Result<(), EtcdError> {
        let folder = self.folder(site);
        fs::create_dir_all(&folder).map_err(io(format!("make {}", folder.display())))?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log(site));
        let log = log.map_err(io("make the log of etcd"))?;
        let errors = log.try_clone().map_err(io("make the log of etcd"))?;
        let url = |address: &dyn std::fmt::Display| format!("http://{address}");
        let all: Vec<String> =
            self.peers.iter().map(|(site, (_, advertised))| format!("{site}={}", url(advertised))).collect();
        let (peer, advertised) = &self.peers[&site];
        let client = url(&self.clients[&site]);
        let mut command = tethered(&self.program, Owner::Same);
        command.args(["--name", site.name(), "--data-dir", "data", "--logger", "zap"]);
        command.args(["--log-outputs", "stderr", "--log-level", "warn"]);
        // Leases are renewed a few times a second: without this each renewal would be kept for ever.
        command.args(["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "10m"]);
        command.args(["--heartbeat-interval", HEARTBEAT_MS, "--election-timeout", ELECTION_MS]);
        command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(advertised)]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
        command.args(["--initial-cluster-token", &self.lab.display().to_string()]);
        command.current_dir(folder).stdout(log).stderr(errors);
        let pid = nursery.start(command)?;
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(site, pid);
        Ok(())
    }

    async fn answers(&self, site: Site) -> Result<(), EtcdError> {
        let up = async {
            while self.read(site, "lab/up").await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let late = |_| {
            let log = fs::read_to_string(self.log(site)).unwrap_or_default();
            let log: Vec<&str> = log.lines().collect();
            EtcdError::Late { site, log: log[log.len().saturating_sub(20)..].join("\n") }
        };
        tokio::time::timeout(UP_WITHIN, up).await.map_err(late)
    }

    /// Starts a member again, with its data, and returns once it can be asked.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self, site: Site, nursery: &Nursery) -> Result<(), EtcdError> {
        process::kill_within(&self.folder(site))?;
        self.launch(site, nursery)?;
        self.answers(site).await
    }

    /// Kills a member (kill -9).
    ///
    /// # Errors
    /// When it survives.
    pub fn kill(&self, site: Site) -> Result<(), EtcdError> {
        process::kill_within(&self.folder(site))?;
        Ok(())
    }

    /// Stops (SIGSTOP) or wakes (SIGCONT) a member.
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn freeze(&self, site: Site, frozen: bool) -> Result<(), EtcdError> {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        Ok(process::signal(&process::within(&self.folder(site))?, signal)?)
    }

    /// Makes the connections between the members obey these rules, open ones too.
    pub fn obey(&self, rules: &Rules) {
        for (to, junction) in &self.junctions {
            for from in to.others() {
                let (there, back) = rules.of(Place::Site(from), Place::Site(*to));
                junction.obey(from, there, back);
            }
        }
    }

    /// Who leads, as a member sees it; none when it sees nobody, or is silent.
    pub async fn leader(&self, asked: Site) -> Option<Site> {
        let status = self.call(asked, "maintenance/status", &json!({})).await?;
        let members = self.call(asked, "cluster/member/list", &json!({})).await?;
        let members = members["members"].as_array()?;
        let leader = members.iter().find(|member| member["ID"] == status["leader"])?;
        leader["name"].as_str()?.parse().ok()
    }

    /// What a member answers to a linearizable read: how often the key was written, 0 for never; none when it cannot
    /// answer within [`ASK_LIMIT`].
    pub async fn read(&self, asked: Site, key: &str) -> Option<u64> {
        let answer = self.call(asked, "kv/range", &json!({ "key": base64(key) })).await?;
        answer["header"].as_object()?;
        let version = answer["kvs"][0]["version"].as_str().unwrap_or("0");
        version.parse().ok()
    }

    /// Writes a key through a member; whether it was taken in within [`ASK_LIMIT`].
    pub async fn write(&self, asked: Site, key: &str, value: &str) -> bool {
        let put = json!({ "key": base64(key), "value": base64(value) });
        self.call(asked, "kv/put", &put).await.is_some_and(|answer| answer["header"].is_object())
    }

    /// One question over etcd's JSON gateway, <https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/>.
    async fn call(&self, asked: Site, path: &str, question: &Value) -> Option<Value> {
        let address = self.clients[&asked];
        let ask = async {
            let stream = TcpStream::connect(address).await.ok()?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
            // Its end is seen by the sender.
            tokio::spawn(async move { connection.await.ok() });
            let request = hyper::Request::post(format!("/v3/{path}")).header("host", address.to_string());
            let body = Full::new(Bytes::from(question.to_string()));
            let answer = sender.send_request(request.body(body).ok()?).await.ok()?;
            let body = Limited::new(answer.into_body(), 16 << 20).collect().await.ok()?;
            serde_json::from_slice(&body.to_bytes()).ok()
        };
        tokio::time::timeout(ASK_LIMIT, ask).await.ok()?
    }
}

/// As the gateway wants bytes (RFC 4648).
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bytes = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let word = u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2]);
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            encoded.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_the_standard_says() {
        let said = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(base64);
        assert_eq!(said, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }
}
