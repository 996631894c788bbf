//! A real Kubernetes API server over a real etcd, on loopback; and agents in it, with the rights that are written down.
//!
//! **Invariant:** what is started here ends with the last test that uses it.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hyper::http::Request;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use lifeboat_core::AgentName;
use lifeboat_engine::ports::Seal;
use lifeboat_lease::kubernetes::{Kubernetes, KubernetesOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The rights as they ship.
pub(crate) const RIGHTS: &str = include_str!("../../../../deploy/kubernetes/rbac.yaml");

/// How long anything here may take before the test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

const ADMIN: &str = "the-one-who-may-do-everything";

static SHARED: tokio::sync::Mutex<Weak<Cluster>> = tokio::sync::Mutex::const_new(Weak::new());
static NAMESPACES: AtomicU32 = AtomicU32::new(1);
static PORTS: Mutex<Vec<u16>> = Mutex::new(Vec::new());

/// An API server and its etcd.
pub(crate) struct Cluster {
    etcd: Child,
    server: Mutex<Child>,
    folder: TempDir,
    etcd_port: u16,
    pub(crate) address: SocketAddr,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

fn free_port() -> u16 {
    let mut given = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}

fn program() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache");
    let program = cache.unwrap_or_else(home).join("lifeboat/kube-apiserver-1.20.2");
    assert!(program.exists(), "{} is not there; run tests/kubernetes.sh, once", program.display());
    program
}

fn spawned(mut command: Command, log: &Path) -> Child {
    let log = File::create(log).expect("a log");
    let both = log.try_clone().expect("the log twice");
    command.stdin(Stdio::null()).stdout(log).stderr(both).spawn().expect("the server starts")
}

impl Cluster {
    /// The one that the tests which only use it share.
    pub(crate) async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Self::start(&[]).await);
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    /// One of its own.
    pub(crate) async fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let shown = |name: &str| folder.path().join(name).display().to_string();
        let (etcd_port, peer, port) = (free_port(), free_port(), free_port());
        let mut etcd = Command::new("etcd");
        etcd.args(["--data-dir", &shown("etcd"), "--log-level=error"])
            .args([format!("--listen-client-urls=http://127.0.0.1:{etcd_port}")])
            .args([format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}")])
            .args([format!("--listen-peer-urls=http://127.0.0.1:{peer}")])
            .args([format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}")])
            .args([format!("--initial-cluster=default=http://127.0.0.1:{peer}")]);
        let etcd = spawned(etcd, &path("etcd.log"));
        let key = Command::new("openssl")
            .args(["genrsa", "-out", &shown("accounts.key"), "2048"])
            .stderr(Stdio::null())
            .status();
        assert!(key.is_ok_and(|status| status.success()), "openssl makes a key for service accounts");
        std::fs::write(path("tokens.csv"), format!("{ADMIN},admin,1,\"system:masters\"\n")).expect("tokens");
        let mut server = Command::new(program());
        server
            .arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--insecure-port=0"])
            .arg(format!("--secure-port={port}"))
            .args(["--cert-dir", &shown("certificates"), "--token-auth-file", &shown("tokens.csv")])
            .args(["--authorization-mode=RBAC", "--service-account-issuer=https://lifeboat.test"])
            .args(["--service-account-key-file", &shown("accounts.key")])
            .args(["--service-account-signing-key-file", &shown("accounts.key")])
            .args(["--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount"])
            .arg("--endpoint-reconciler-type=none")
            .args(options);
        let server = spawned(server, &path("server.log"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let cluster = Self { etcd, server: Mutex::new(server), folder, etcd_port, address };
        until("the API server is ready", || async { cluster.ready().await.then_some(()) }).await;
        cluster
    }

    async fn ready(&self) -> bool {
        if !self.folder.path().join("certificates/apiserver.crt").exists() {
            return false;
        }
        let asked = async { self.client(ADMIN, self.address).await.request_text(get("/readyz")).await };
        asked.await.is_ok_and(|text| text == "ok")
    }

    /// Ends the API server; etcd goes on.
    pub(crate) fn stop(&self) {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = server.kill();
        let _ = server.wait();
    }

    /// Forgets what was before now, in etcd.
    pub(crate) fn compact(&self) {
        let endpoint = format!("--endpoints=http://127.0.0.1:{}", self.etcd_port);
        let etcdctl = |arguments: &[&str]| {
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").arg(&endpoint).args(arguments);
            let output = command.output().expect("etcdctl runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let status: Value =
            serde_json::from_slice(&etcdctl(&["endpoint", "status", "-w", "json"])).expect("JSON");
        let revision = status[0]["Status"]["header"]["revision"].to_string();
        etcdctl(&["compact", &revision]);
    }

    fn kubeconfig(&self, token: &str, address: SocketAddr) -> Value {
        let certificate = self.folder.path().join("certificates/apiserver.crt");
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{ "name": "it", "cluster": {
                "server": format!("https://{address}"), "certificate-authority": certificate } }],
            "users": [{ "name": "it", "user": { "token": token } }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
        })
    }

    async fn client(&self, token: &str, address: SocketAddr) -> Client {
        let kubeconfig: Kubeconfig =
            serde_json::from_value(self.kubeconfig(token, address)).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("a configuration")).expect("a client")
    }

    /// A client that may do everything.
    pub(crate) async fn admin(&self) -> Client {
        self.client(ADMIN, self.address).await
    }

    /// A namespace of its own, with these rights for its agents.
    pub(crate) async fn namespace(self: &Arc<Self>, rights: &str) -> Namespace {
        let name = format!("lifeboat-{}", NAMESPACES.fetch_add(1, Ordering::SeqCst));
        let rights = rights.replace("namespace: lifeboat", &format!("namespace: {name}"));
        let rights = rights.replacen("metadata:\n  name: lifeboat", &format!("metadata:\n  name: {name}"), 1);
        let admin = self.admin().await;
        for document in rights.split("\n---\n") {
            let kind = document.lines().find_map(|line| line.strip_prefix("kind: ")).expect("a kind");
            let path = match kind {
                "Namespace" => "/api/v1/namespaces".to_owned(),
                "ServiceAccount" => format!("/api/v1/namespaces/{name}/serviceaccounts"),
                kind => format!(
                    "/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/{}s",
                    kind.to_ascii_lowercase()
                ),
            };
            posted(&admin, &path, "application/yaml", document.to_owned()).await;
        }
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts/lifeboat/token");
        let wanted = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "audiences": ["https://lifeboat.test"] } });
        let token: Value =
            serde_json::from_str(&posted(&admin, &path, "application/json", wanted.to_string()).await)
                .expect("a token");
        let token = token["status"]["token"].as_str().expect("a token").to_owned();
        Namespace { cluster: self.clone(), name, token }
    }
}

fn get(path: &str) -> Request<Vec<u8>> {
    Request::get(path).body(Vec::new()).expect("a request")
}

/// Posts a document as it is written.
pub(crate) async fn posted(client: &Client, path: &str, content: &str, document: String) -> String {
    let request = Request::post(path).header("content-type", content).body(document.into_bytes());
    client.request_text(request.expect("a request")).await.expect("it is taken")
}

/// What the API server says of itself.
pub(crate) async fn metrics(client: &Client) -> String {
    client.request_text(get("/metrics")).await.expect("metrics")
}

/// A namespace with the rights of lifeboat in it.
pub(crate) struct Namespace {
    cluster: Arc<Cluster>,
    pub(crate) name: String,
    token: String,
}

impl Namespace {
    /// An agent, with the tenure of so many seconds.
    pub(crate) async fn agent(&self, agent: &str, seconds: u64) -> Kubernetes {
        self.agent_over(agent, seconds, self.cluster.address).await
    }

    /// One that the API server does not know.
    pub(crate) async fn stranger(&self) -> Kubernetes {
        self.opened("stranger", 30, self.cluster.kubeconfig("made-up", self.cluster.address)).await
    }

    /// An agent which reaches the API server at that address.
    pub(crate) async fn agent_over(&self, agent: &str, seconds: u64, address: SocketAddr) -> Kubernetes {
        self.opened(agent, seconds, self.kubeconfig(address)).await
    }

    /// How an agent reaches the API server at that address.
    pub(crate) fn kubeconfig(&self, address: SocketAddr) -> Value {
        self.cluster.kubeconfig(&self.token, address)
    }

    async fn opened(&self, agent: &str, seconds: u64, kubeconfig: Value) -> Kubernetes {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kubeconfig");
        // JSON is YAML.
        std::fs::write(&path, kubeconfig.to_string()).expect("a kubeconfig");
        let options = KubernetesOptions {
            name: "lifeboat".to_owned(),
            agent: AgentName::new(agent),
            namespace: Some(self.name.clone()),
            kubeconfig: Some(path),
            tenure_ttl: Duration::from_secs(seconds),
            testimony_ttl: Duration::from_secs(seconds),
            deadline: Duration::from_secs(5),
        };
        Kubernetes::open(options, Arc::new(Stamp(agent.to_owned()))).await.expect("credentials")
    }

    pub(crate) async fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.cluster.admin().await, &self.name)
    }

    pub(crate) async fn lease(&self) -> Lease {
        let api: Api<Lease> = Api::namespaced(self.cluster.admin().await, &self.name);
        api.get("lifeboat").await.expect("the Lease")
    }

    pub(crate) async fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.cluster.admin().await, &self.name)
    }

    pub(crate) async fn admin(&self) -> Client {
        self.cluster.admin().await
    }
}

/// A seal that is an agent's when it names it, and fits the bytes.
struct Stamp(String);

fn stamp(agent: &str, bytes: &[u8]) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    (agent, bytes).hash(&mut hasher);
    hasher.finish().to_be_bytes().to_vec()
}

impl Seal for Stamp {
    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        stamp(&self.0, bytes)
    }

    fn is_of(&self, agent: &AgentName, bytes: &[u8], seal: &[u8]) -> bool {
        stamp(agent.as_str(), bytes) == seal
    }
}

/// Waits until there is something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let looked = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Heads of no workload.
pub(crate) const fn no_heads() -> BTreeMap<lifeboat_core::WorkloadName, lifeboat_core::head::Head> {
    BTreeMap::new()
}
