//! What several agents share, kept in the Kubernetes API: for the replicas of a Deployment in one cluster.
//!
//! Every object is in one namespace, which should hold nothing else:
//!
//! | object | what it holds | who writes it |
//! |---|---|---|
//! | Lease `NAME` | who decides (`holderIdentity`: agent and process), the term (`leaseTransitions`), the newest beat (an annotation) | who finds nobody there; then its holder |
//! | ConfigMap `NAME-record` | the end of the record: who may append (`guardian`, `term`), the heads, the newest records | who has taken the Lease |
//! | ConfigMap `NAME-record-<first>` | an older part of the record, named after its first record; it never changes | the same, before the end lets go of it |
//! | ConfigMap `NAME-testimony-<agent>` | what a vantage says, sealed | that agent |
//! | ConfigMap `NAME-order-<id>` | an order, sealed, and its answer | who waits for the answer; who decides |
//!
//! **Why it is safe.** Kubernetes has no transaction over objects, so everything an append depends on is in one object, the
//! end of the record, and an append is one update of it, taken only if it is still the version that was read
//! (`resourceVersion`). A new guardian first writes its term into the end; from then on a deposed one's updates are
//! refused, whatever it believes of its Lease and its clock. The Lease only says who should try, and when. Before the end
//! outgrows its size its records are copied into a part of their own, and only then are they let go of: a crash between
//! leaves them in both places, never in none. A reader goes from the end back over the older parts, which never change, so
//! what it has read is the record as it was when it read the end. An update without an answer may still be on its way: the
//! end is made another version (`settled`) before anything else is read or written, and then it is there or impossible.
//!
//! **Limits.** A ConfigMap holds 1 MiB: what is appended at once must stay below 960 KiB, with the heads, or is refused as
//! full. An append sends the whole end, up to 128 KiB. Nothing is ever taken away from the record. The API server is one
//! thing that fails as one: when it is lost, nobody decides. A refusal with the code 403 is called `Full` when the server says
//! that this agent may do what it asked for: it was then refused by what admits objects, a quota or an admission webhook.
//! Write leases of sentries are not offered: their expiry would need a comparison with the head and the renewal at once.
//!
//! The rights it needs are in `deploy/kubernetes/rbac.yaml`; a test runs with exactly those.
//!
//! **Invariant:** no object is changed otherwise than as it was read.
//! **Invariant:** no moment of another clock is compared with ours: what counts is for how long something has not changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use lifeboat_core::head::Head;
use lifeboat_core::outcome::FenceProof;
use lifeboat_core::testimony::{Beat, Testimony};
use lifeboat_core::{AgentName, Answer, Fault, FaultKind, Order, RegionName, Stamped, WorkloadName};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Call, Change, Coordination, CoordinationError, Seal, Tenure};
use thiserror::Error;
use tokio::sync::mpsc;

mod access;
mod objects;
mod orders;
mod record;
mod statement;
mod survey;
mod tail;
mod tenancy;
mod watching;

pub use survey::ServerLook;

/// Where the API server is, and who we are there.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// The name of this lifeboat: several can share a namespace. Lower-case letters, digits, hyphens.
    pub name: String,
    /// This agent; a different one for each replica.
    pub agent: AgentName,
    /// The namespace; the one of the service account, or of the kubeconfig, when it is not said.
    pub namespace: Option<String>,
    /// A kubeconfig; none for the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// How long a tenure lasts without being renewed; whole seconds, at least one.
    pub tenure_ttl: Duration,
    /// How long a testimony lasts without being said again.
    pub testimony_ttl: Duration,
    /// How long one request is waited for; a quarter of the tenure when that is less.
    pub deadline: Duration,
}

/// Why the API server cannot even be asked.
#[derive(Debug, Error)]
pub enum KubernetesError {
    /// The service account of the pod cannot be used.
    #[error("the pod's service account cannot be used; outside of a pod, name a kubeconfig")]
    ServiceAccount(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {path}", path = path.display())]
    Kubeconfig {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The credentials in it cannot be used.
    #[error("the credentials for the API server cannot be used")]
    Credentials(#[source] Box<kube::Error>),
    /// The system gave no random numbers.
    #[error("this process could not be given a name of its own")]
    Unnamed,
}

/// What several agents share.
pub struct Kubernetes {
    options: KubernetesOptions,
    access: access::Access,
    names: objects::Names,
    /// The agent and its process: `AGENT_WORD`.
    identity: String,
    seal: Arc<dyn Seal>,
    clock: Clock,
    /// What was seen of the Lease, and since when.
    seen: Mutex<Option<tenancy::Seen>>,
    /// The Lease as this agent last wrote it.
    lease: tokio::sync::Mutex<Option<Lease>>,
    /// The end of the record; one append at a time.
    end: tokio::sync::Mutex<record::End>,
    /// The place of the newest record that this agent knows of.
    newest: AtomicU64,
    /// This agent's own testimony as it was last written.
    said: tokio::sync::Mutex<Option<ConfigMap>>,
    /// The orders that were told of, over all watches: none is told twice.
    told: Mutex<BTreeSet<String>>,
}

impl Kubernetes {
    /// Reads the credentials; nothing is connected before it is used.
    ///
    /// # Errors
    /// When the credentials cannot be read.
    pub async fn open(options: KubernetesOptions, seal: Arc<dyn Seal>) -> Result<Self, KubernetesError> {
        let mut config = match &options.kubeconfig {
            None => Config::incluster().map_err(|source| KubernetesError::ServiceAccount(source.into()))?,
            Some(path) => {
                let unusable = |source| KubernetesError::Kubeconfig { path: path.clone(), source };
                let kubeconfig = Kubeconfig::read_from(path).map_err(|source| unusable(source.into()))?;
                let whole = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(kubeconfig, &whole).await;
                config.map_err(|source| unusable(source.into()))?
            }
        };
        let limit = options.deadline.min(options.tenure_ttl / 4);
        // A write is sent once: whether it may be sent again is for who reads what came of it.
        config.default_retry = false;
        config.connect_timeout = Some(limit);
        config.read_timeout = None;
        config.write_timeout = Some(limit);
        let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client =
            Client::try_from(config).map_err(|source| KubernetesError::Credentials(Box::new(source)))?;
        let word = objects::word().ok_or(KubernetesError::Unnamed)?;
        Ok(Self {
            access: access::Access::new(client, namespace, limit),
            names: objects::Names::new(options.name.clone()),
            identity: format!("{}_{word}", options.agent),
            seal,
            clock: Clock::start(),
            seen: Mutex::new(None),
            lease: tokio::sync::Mutex::new(None),
            end: tokio::sync::Mutex::new(record::End::default()),
            newest: AtomicU64::new(0),
            said: tokio::sync::Mutex::new(None),
            told: Mutex::new(BTreeSet::new()),
            options,
        })
    }
}

#[async_trait]
impl Coordination for Kubernetes {
    fn tenure_ttl(&self) -> Duration {
        self.options.tenure_ttl
    }

    async fn watch(&self, known: Option<&Stamped>, changes: &mpsc::Sender<Change>) -> CoordinationError {
        match self.watching(known, changes).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    /// When this process had the tenure of old, it ends with this, and a new one begins: a term is never given twice.
    async fn campaign(&self) -> Result<Option<Tenure>, CoordinationError> {
        self.take().await
    }

    async fn renew(&self, tenure: Tenure, beat: Beat) -> Result<(), CoordinationError> {
        self.keep(tenure, beat).await
    }

    async fn resign(&self, tenure: Tenure) {
        self.give_back(tenure).await;
    }

    async fn records(&self, after: u64) -> Result<Vec<Stamped>, CoordinationError> {
        self.records_after(after).await
    }

    /// Repeated with the same records under the same tenure, it finds them there.
    async fn append(
        &self,
        tenure: Tenure,
        records: &[Stamped],
        heads: &BTreeMap<WorkloadName, Head>,
    ) -> Result<(), CoordinationError> {
        self.append_records(tenure, records, heads).await
    }

    async fn testify(&self, testimony: &Testimony) -> Result<(), CoordinationError> {
        self.say(testimony).await
    }

    async fn order(&self, order: &Order, limit: Duration) -> Result<Answer, CoordinationError> {
        self.give(order, limit).await
    }

    async fn answer(&self, tenure: Tenure, id: &str, answer: &Answer) -> Result<(), CoordinationError> {
        self.answer_order(tenure, id, answer).await
    }

    async fn ensure_expired(
        &self,
        _call: &Call,
        workload: &WorkloadName,
        region: &RegionName,
    ) -> Result<FenceProof, Fault> {
        let detail = format!(
            "no sentry can hold a write lease of {workload} in Kubernetes; use etcd for sentries (lease.kind = \"etcd\")"
        );
        Err(Fault::new(FaultKind::Refused, detail).in_region(region))
    }
}
