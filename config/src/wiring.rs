//! Which adapter is where, as plain data: what the binary plugs together.
//!
//! **Invariant:** no value here can change a decision (those are in the policy), and none is a secret: only the
//! files that hold them are named.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_core::names::{
    AgentName, DatabaseName, DnsName, ProbeName, RegionName, SystemIdentifier, WorkloadName,
};

use crate::archive::ArchivePlace;
use crate::document::NotifyKind;
use crate::document::archive::{From, Retention};
use crate::document::authority::FixedKind;
use crate::document::dns::KeyAlgorithm;
use crate::document::probe::AskedKind;
use crate::document::workload::{DatabaseKind, Tls};
use crate::form::{HostPort, HttpUrl};
use crate::key::PublicKey;
use crate::schedule::Timetable;

mod making;

pub use making::database_probe;
pub(crate) use making::{backups_of, canary_resolver};

/// All that the binary needs to make its adapters.
#[derive(Clone, Debug, PartialEq)]
pub struct Wiring {
    /// This process.
    pub agent: AgentWiring,
    /// How it proves that its own network works.
    pub witnesses: WitnessWiring,
    /// Who may decide.
    pub lease: LeaseWiring,
    /// All agents that share the record, this one too; none when it is alone.
    pub agents: BTreeMap<AgentName, ListedAgentWiring>,
    /// Where alerts go.
    pub notify: Vec<NotifyKind>,
    /// All regions.
    pub regions: Vec<RegionName>,
    /// Where backups are kept, by name.
    pub archives: BTreeMap<String, ArchiveWiring>,
    /// The zone that lifeboat answers for itself.
    pub authority: Option<AuthorityWiring>,
    /// What belongs to each workload.
    pub workloads: BTreeMap<WorkloadName, WorkloadWiring>,
}

/// This process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentWiring {
    /// How it signs.
    pub name: AgentName,
    /// Where it runs.
    pub region: RegionName,
    /// Folder of the journal, made with mode 0700 when it is not there.
    pub state: PathBuf,
    /// Unix socket of the control API, at most 107 bytes.
    pub socket: PathBuf,
    /// Folder of the operator's own runbooks.
    pub runbooks: Option<PathBuf>,
    /// Where it listens to other agents and to sentries, over TCP.
    pub listen: Option<SocketAddr>,
    /// File with the key it signs with, made when it is missing.
    pub key_file: PathBuf,
}

/// Where the right to decide and the shared record are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseWiring {
    /// In this agent's own journal.
    Embedded,
    /// In etcd.
    Etcd(EtcdWiring),
    /// In the Kubernetes API.
    Kubernetes(KubernetesWiring),
}

/// How etcd is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdWiring {
    /// What these agents are together, unlike others in the same etcd.
    pub cluster: String,
    /// Its members, at least one.
    pub endpoints: Vec<HttpUrl>,
    /// Trust anchors; always there for https.
    pub ca_file: Option<PathBuf>,
    /// This agent's own certificate and the file with its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The user and the file with the password.
    pub login: Option<(String, PathBuf)>,
    /// How long the right to decide lasts, whole seconds.
    pub ttl: Duration,
}

/// Where in the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesWiring {
    /// The namespace.
    pub namespace: String,
    /// What the Lease and the record are called.
    pub name: String,
    /// How the API is reached; by the service account of the pod when there is none.
    pub kubeconfig: Option<PathBuf>,
    /// How long the right to decide lasts, whole seconds.
    pub ttl: Duration,
}

/// One of the agents that share the record; the place it fails with is policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedAgentWiring {
    /// Where it is reached.
    pub address: HostPort,
    /// What its seals are checked with.
    pub key: PublicKey,
}

/// The witnesses; how many must answer is policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessWiring {
    /// Where to connect to, over TCP.
    pub places: Vec<HostPort>,
    /// Time between two looks.
    pub interval: Duration,
    /// How long one look may take.
    pub timeout: Duration,
}

/// The zone that lifeboat answers for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityWiring {
    /// Its name, in lower case with the final dot.
    pub zone: DnsName,
    /// Where to listen, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Its NS records, in lower case with the final dot; the first is the SOA's MNAME.
    pub nameservers: Vec<DnsName>,
    /// The SOA's RNAME.
    pub hostmaster: DnsName,
    /// The SOA's MINIMUM, whole seconds.
    pub negative_ttl: Duration,
    /// Fixed records.
    pub records: Vec<RecordWiring>,
}

/// A fixed record of the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordWiring {
    /// Its name.
    pub name: DnsName,
    /// Its kind.
    pub kind: FixedKind,
    /// Its values, each valid for the kind.
    pub values: Vec<String>,
    /// Its time to live, whole seconds.
    pub ttl: Duration,
}

/// What belongs to one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadWiring {
    /// The keys of the sentries beside its databases.
    pub sentries: BTreeMap<RegionName, PublicKey>,
    /// The command that isolates a region.
    pub fences: BTreeMap<RegionName, FenceWiring>,
    /// Its databases.
    pub databases: BTreeMap<DatabaseName, DatabaseWiring>,
    /// All its probes: those of its databases (`DATABASE@REGION`) and the others.
    pub probes: BTreeMap<ProbeName, ProbeWiring>,
    /// How each DNS name is switched; what it says by region is policy.
    pub names: BTreeMap<DnsName, NameWiring>,
    /// The canary client.
    pub canary: Option<CanaryWiring>,
}

/// A command that isolates a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceWiring {
    /// Program and arguments, at least one; `{region}` and `{epoch}` are to be replaced.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// A database and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseWiring {
    /// Its kind.
    pub kind: DatabaseKind,
    /// The database to connect to.
    pub dbname: String,
    /// The role to connect as.
    pub user: String,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// How connections are protected.
    pub tls: Tls,
    /// Trust anchors, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The only cluster this may be.
    pub system_identifier: Option<SystemIdentifier>,
    /// Whether each probe writes a heartbeat row.
    pub heartbeat: bool,
    /// How long one look, or one attempt to connect, may take.
    pub timeout: Duration,
    /// Where its member in each of the workload's regions listens.
    pub endpoints: BTreeMap<RegionName, HostPort>,
    /// How the other regions' servers reach it, where that is not its endpoint.
    pub replication: BTreeMap<RegionName, HostPort>,
    /// The command that runs `lifeboat host` beside its member.
    pub hosts: BTreeMap<RegionName, HostWiring>,
    /// Its backups, by the archive they go to.
    pub backups: BTreeMap<String, BackupWiring>,
}

/// Where backups are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveWiring {
    /// A folder or a bucket.
    pub place: ArchivePlace,
    /// File with the key that opens it.
    pub key_file: PathBuf,
    /// Where the store is reached, instead of the vendor's own endpoint.
    pub endpoint: Option<HttpUrl>,
    /// The region of the bucket.
    pub region: Option<String>,
    /// Whether the bucket goes into the path of a request.
    pub path_style: bool,
    /// Files with the id of the access key and with the key itself.
    pub access_key: Option<(PathBuf, PathBuf)>,
    /// File with the key of a service account.
    pub credentials_file: Option<PathBuf>,
    /// For how long what is kept.
    pub retention: RetentionWiring,
}

/// For how long what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionWiring {
    /// Every moment within this can be restored.
    pub window: Duration,
    /// The newest of each of so many hours.
    pub hourly: u32,
    /// The newest of each of so many days.
    pub daily: u32,
    /// The newest of each of so many weeks.
    pub weekly: u32,
    /// The newest of each of so many months.
    pub monthly: u32,
    /// How old what nothing needs must be before it is removed.
    pub grace: Duration,
}

impl RetentionWiring {
    /// What was written, or its defaults.
    #[must_use]
    pub fn of(kept: &Retention) -> Self {
        Self {
            window: kept.window.0,
            hourly: kept.hourly,
            daily: kept.daily,
            weekly: kept.weekly,
            monthly: kept.monthly,
            grace: kept.grace.0,
        }
    }
}

/// The backups of a database to one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupWiring {
    /// When base backups are due.
    pub timetable: Timetable,
    /// Where they are read.
    pub from: From,
    /// How many bytes are read in a second at most.
    pub bandwidth: Option<u64>,
    /// How the log is received; none when it is not.
    pub wal: Option<WalWiring>,
}

/// How the log is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalWiring {
    /// The replication slot.
    pub slot: String,
    /// How often what was received of a segment that is not full is stored.
    pub piece_interval: Duration,
    /// People are told when the slot holds back this many bytes.
    pub slot_alert: u64,
    /// The slot is given up when it holds back this many bytes.
    pub slot_limit: u64,
}

/// A command that runs `lifeboat host` on a database's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostWiring {
    /// Program and arguments, at least one; `{region}` and `{epoch}` are to be replaced.
    pub command: Vec<String>,
    /// How long one request may take.
    pub timeout: Duration,
}

/// One probe.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeWiring {
    /// The region it looks at.
    pub region: RegionName,
    /// Time between two looks.
    pub interval: Duration,
    /// How long one look may take.
    pub timeout: Duration,
    /// What it looks at.
    pub look: LookWiring,
}

/// What a probe looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum LookWiring {
    /// The member of a database in the probe's region.
    Database(DatabaseName),
    /// An HTTP server.
    Http(HttpWiring),
    /// A TCP port.
    Tcp(HostPort),
    /// A DNS server.
    Dns(DnsQueryWiring),
}

/// What to ask an HTTP server and what to expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpWiring {
    /// What to ask for.
    pub url: HttpUrl,
    /// The status expected.
    pub status: u16,
    /// Text that the body must contain.
    pub body: Option<String>,
    /// Fewer days left on the certificate are a failure; nothing without TLS.
    pub certificate_days: Option<u16>,
    /// Trust anchors, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How many redirects to follow.
    pub redirects: u8,
}

/// What to ask a DNS server and what to expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsQueryWiring {
    /// The server.
    pub server: SocketAddr,
    /// The name to ask for.
    pub query: DnsName,
    /// The kind of record to ask for.
    pub record: AskedKind,
    /// Values that must be in the answer; none: any answer without error will do.
    pub expect: Vec<String>,
}

/// How a DNS name is switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameWiring {
    /// The way.
    pub via: ViaWiring,
    /// Resolvers that the census asks, besides every authoritative server.
    pub resolvers: Vec<SocketAddr>,
}

/// The way a DNS name is switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViaWiring {
    /// By the own authority.
    Authority,
    /// By updates to a server (RFC 2136).
    Rfc2136(Rfc2136Wiring),
}

/// A server that takes updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rfc2136Wiring {
    /// The zone that holds the name.
    pub zone: DnsName,
    /// The primary server.
    pub server: SocketAddr,
    /// The other authoritative servers.
    pub secondaries: Vec<SocketAddr>,
    /// The name of the TSIG key.
    pub key_name: DnsName,
    /// Its algorithm.
    pub key_algorithm: KeyAlgorithm,
    /// File with the key: base64, one line.
    pub key_file: PathBuf,
}

/// The canary client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryWiring {
    /// What to ask for.
    pub url: HttpUrl,
    /// The resolver to ask.
    pub resolver: SocketAddr,
    /// The status expected.
    pub status: u16,
    /// Text that the body must contain.
    pub body: Option<String>,
    /// Trust anchors, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How long one visit may take.
    pub timeout: Duration,
}
